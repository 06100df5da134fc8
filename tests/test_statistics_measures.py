"""Measures that come from scores, with all steps or some, against slow twins."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from faithmap import statistics
from faithmap.errors import CurveError
from faithmap.statistics import curves
from tests.frames import frame_of
from tests.reference import groups as slow

pytestmark = pytest.mark.filterwarnings("error")
POINTS = (0, 1, 3, 7, 12, 17, 19, 20)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return frame_of(images=5, orders=("morf", "lerf"))


@pytest.fixture(scope="module", params=["all steps", "points"])
def some(request: pytest.FixtureRequest, frame: pd.DataFrame) -> pd.DataFrame:
    return frame if request.param == "all steps" else frame[frame["step"].isin(POINTS)]


@pytest.mark.parametrize("score", ["logit", "probability"])
def test_srg_and_its_two_ends_equal_the_loops(some: pd.DataFrame, score: str) -> None:
    rows = some.to_dict("records")
    srg, morf, lerf, deletion, insertion = (
        statistics.measured(some, name, score) for name in ("srg", "morf", "lerf", "deletion", "insertion")
    )
    for image in range(3):
        for method in ("lrp-epsilon:0", "random"):
            name = srg.images[image]
            at = image, srg.methods.index(method)
            assert srg.values[at] == pytest.approx(slow.srg(rows, name, method, score), abs=1e-6)
            first, last = (slow.of_image(rows, name, method, order, score) for order in ("morf", "lerf"))
            assert deletion.values[at] == pytest.approx(slow.area(first), abs=1e-6)
            assert insertion.values[at] == pytest.approx(slow.area(last), abs=1e-6)
            assert morf.values[at] == pytest.approx(slow.area({k: first[0] - v for k, v in first.items()}), abs=1e-6)
            assert lerf.values[at] == pytest.approx(slow.area({k: last[0] - v for k, v in last.items()}), abs=1e-6)
    np.testing.assert_allclose(srg.values, morf.values - lerf.values, atol=1e-6)
    assert [m.higher_is_better for m in (srg, morf, lerf, deletion, insertion)] == [True, True, False, False, True]


def test_r_oms_equals_the_loops(some: pd.DataFrame) -> None:
    found = statistics.r_oms(some)
    rows = some.to_dict("records")
    for image in found.index:
        assert found[image] == pytest.approx(slow.r_oms(rows, image), abs=1e-6)
    grouped = some.assign(group=some["image"].str[:3])
    table = statistics.r_oms_table(grouped).iloc[0]
    means = slow.group_means(found.to_dict(), {image: image[:3] for image in found.index})
    assert table["mean"] == pytest.approx(np.mean(list(means.values())))
    assert (table["groups"], table["n"]) == (5, 5)


def test_more_draws_of_random_count_alike(frame: pd.DataFrame) -> None:
    extra = frame[frame["method"] == "random"].assign(draw=lambda f: f["draw"] + 2)
    shifted = extra.assign(logit=extra["logit"] + 4 * (extra["step"] > 0))
    found = statistics.measured(pd.concat([frame, shifted]), "morf")
    before = statistics.measured(frame, "morf")
    np.testing.assert_allclose(found.column("lrp-epsilon:0"), before.column("lrp-epsilon:0"))
    np.testing.assert_allclose(found.column("random"), before.column("random") - 2 * (1 - 0.5 / 20), atol=1e-6)


def test_aopc_of_some_steps_fills_in_the_rest(frame: pd.DataFrame) -> None:
    some = frame[frame["step"].isin(POINTS)]
    rows = some.to_dict("records")
    aopc = statistics.per_image_aopc(some)
    assert aopc.columns.tolist() == list(POINTS)
    for image, method in aopc.index[:5]:
        expected = slow.aopc_all_steps(slow.of_image(rows, image, method, "morf", "logit"))
        assert aopc.loc[(image, method), 20] == pytest.approx(expected, abs=1e-6)
    with pytest.raises(CurveError, match="step 2 is not in this run, which holds steps 0, 1, 3"):
        statistics.ranking(some, step=2)


def test_curves_and_frames_share_their_formulas(frame: pd.DataFrame) -> None:
    one = frame[(frame["image"] == frame["image"].iloc[0]) & (frame["draw"] == 0) & (frame["method"] == "random")]
    morf, lerf = (torch.tensor(one[one["order"] == order]["logit"].to_numpy()) for order in ("morf", "lerf"))
    found = statistics.measured(one, "srg")
    assert found.values[0, 0] == pytest.approx(float(curves.srg(morf.double(), lerf.double())))
    steps = list(POINTS)
    np.testing.assert_allclose(
        curves.aopc(morf[steps], steps)[-1],
        slow.aopc_all_steps(dict(zip(steps, morf[steps].tolist(), strict=True))),
        1e-5,
    )
    assert curves.mean_over_fraction(torch.tensor([[1.0, 0.0], [1.0, 0.5]]), [0, 10]).tolist() == [0.5, 0.75]
    with pytest.raises(CurveError, match="rising from 0"):
        curves.aopc(morf, [*range(1, 22)])


def test_a_restored_run_is_a_removed_one_seen_from_its_end() -> None:
    """Restoring the most relevant first visits the images of removing the least relevant first, backwards."""
    removed = frame_of(images=4, orders=("morf", "lerf"))
    restored = removed.assign(step=20 - removed["step"], order=removed["order"].map({"morf": "lerf", "lerf": "morf"}))
    for name in ("srg", "deletion", "insertion"):
        one = statistics.measured(removed, name)
        other = statistics.measured(restored, name, direction="restore")
        np.testing.assert_allclose(one.values, other.values, atol=1e-9)
        assert one.higher_is_better == other.higher_is_better


def test_any_measure_is_ranked_by_its_own_direction() -> None:
    rng = np.random.default_rng(0)
    rows = [
        (f"{g}/{i}", str(g), method, "complexity", draw, base + 0.1 * rng.normal())
        for g in range(12)
        for i in range(2)
        for method, base in (("simple", 1.0), ("rich", 2.0), ("random", 4.0))
        for draw in range(2)
    ]
    frame = pd.DataFrame(rows, columns=["image", "group", "method", "measure", "draw", "value"])
    one = statistics.measured_from(frame, "complexity", higher_is_better=False, label="PNG size")
    table = statistics.ranking(one)
    assert table["method"].tolist() == ["simple", "rich", "random"]
    assert table["vs_random"].tolist() == ["better", "better", ""]
    assert (table["groups"].tolist(), table["n"].tolist()) == ([12] * 3, [24] * 3)
    assert table["value"].iloc[0] == pytest.approx(frame[frame["method"] == "simple"]["value"].mean())
    assert statistics.headline(one).startswith("simple has the lowest PNG size: ")
    alone = statistics.measured_from(frame[frame["method"] != "random"], "complexity", higher_is_better=False)
    assert statistics.ranking(alone)["mean"].iloc[0] == pytest.approx(table["value"].iloc[0])
    assert "random" not in statistics.headline(alone)
    with pytest.raises(CurveError, match="did you mean 'complexity'"):
        statistics.measured_from(frame, "complexiti", higher_is_better=True)
    with pytest.raises(CurveError, match="lacks value"):
        statistics.measured_from(frame.drop(columns="value"), "complexity", higher_is_better=True)


def test_what_knows_the_answer_is_not_ranked(frame: pd.DataFrame) -> None:
    controls = ["shapley:permutations=32", "blend:lrp-epsilon:0,share=0.5", "smoothed:lrp-epsilon:0,sigma=16"]
    more = pd.concat([frame, *(frame[frame["method"] == "lrp-epsilon:0"].assign(method=name) for name in controls)])
    for table in (statistics.ranking, statistics.compare):
        pd.testing.assert_frame_equal(table(more), table(frame))
    only = more[more["method"].isin([*controls, "random"])]
    assert set(statistics.ranking(only)["method"]) == {*controls[1:], "random"}


def test_measures_that_cannot_be_had(frame: pd.DataFrame) -> None:
    with pytest.raises(CurveError, match="did you mean 'srg'"):
        statistics.measured(frame, "srgg")
    with pytest.raises(CurveError, match="no 'lerf' curves"):
        statistics.ranking(frame[frame["order"] == "morf"], measure="srg")
    with pytest.raises(CurveError, match="R-OMS is the mean probability along random orders"):
        statistics.r_oms(frame[frame["method"] != "random"])
    with pytest.raises(CurveError, match="step is 0"):
        statistics.measured(frame, "srg", step=0)
    with pytest.raises(CurveError, match="holds no method 'grad-cam'"):
        statistics.measured(frame, "srg").column("grad-cam")
