"""The grade of a measure, and agreement between settings, against slow twins, scipy and known answers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st
from scipy import stats

from faithmap import statistics
from faithmap.errors import CurveError
from faithmap.statistics import known_answers, reliability, settings
from faithmap.statistics.grade import THRESHOLDS, grade_of
from faithmap.statistics.measured import Measured
from tests.frames import METHODS, frame_of
from tests.reference import agreement as slow
from tests.reference import groups as slow_groups

pytestmark = pytest.mark.filterwarnings("error")


def made(values: np.ndarray, methods: list[str] | None = None, groups: list[str] | None = None, **how) -> Measured:
    images = np.array([f"{i:03d}" for i in range(len(values))], dtype=object)
    names = methods or [f"m{i}" for i in range(values.shape[1])]
    return Measured("SRG", True, images, images if groups is None else np.array(groups), names, values, **how)


def noisy(effects: list[float], groups: int, seed: int = 0, noise: float = 1.0) -> np.ndarray:
    return np.array(effects) + noise * np.random.default_rng(seed).normal(size=(groups, len(effects)))


rankings = st.integers(2, 6).flatmap(
    lambda n: st.lists(st.lists(st.integers(0, 4).map(float), min_size=n, max_size=n), min_size=2, max_size=5)
)


@limits(deadline=None)
@given(rankings)
def test_w_and_tau_equal_the_loops(rows: list[list[float]]) -> None:
    if any(len(set(row)) > 1 for row in rows):
        assert settings.kendalls_w(np.array(rows)) == pytest.approx(slow.kendalls_w(rows))
    else:
        assert np.isnan(settings.kendalls_w(np.array(rows)))
    found = settings.taus(np.array(rows)[None])[0]
    if len(set(rows[0])) > 1 and len(set(rows[1])) > 1:
        assert found[0, 1] == pytest.approx(slow.tau_b(rows[0], rows[1]))
        assert found[0, 1] == pytest.approx(stats.kendalltau(rows[0], rows[1]).statistic)
    else:
        assert np.isnan(found[0, 1])


@limits(deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), min_size=4, max_size=4), min_size=2, max_size=6))
def test_krippendorffs_alpha_equals_the_loops(rows: list[list[int]]) -> None:
    values = np.array(rows, dtype=float)
    values[0, 0] = np.nan
    raters = [[None if np.isnan(v) else float(v) for v in row] for row in values]
    counts = np.array([[int((column == level).sum()) for level in range(4)] for column in values.T])
    if len(set(values[np.isfinite(values)])) < 2:
        assert np.isnan(reliability.krippendorff_alpha(counts))
    elif len(rows) > 2:
        assert reliability.krippendorff_alpha(counts) == pytest.approx(slow.krippendorff_ordinal(raters))


def test_agreement_per_image_ranks_within_each_image() -> None:
    values = noisy([0, 1, 2, 3], 7)
    ranks = [slow.average_ranks(row) for row in values.tolist()]
    found = reliability.per_image_agreement(made(values))
    assert found.value == pytest.approx(slow.krippendorff_ordinal(ranks))
    assert found.low < found.value < found.high
    scaled = values * np.random.default_rng(1).lognormal(size=(7, 1))
    assert reliability.per_image_agreement(made(scaled)).value == pytest.approx(found.value)
    assert reliability.per_image_agreement(made(noisy([0, 9, 18], 5, noise=0.1))).value == pytest.approx(1)
    assert np.isnan(reliability.per_image_agreement(made(values[:1])).value)


def test_groups_make_the_interval_of_alpha_wider() -> None:
    values = np.repeat(noisy([0, 0.4, 0.8, 1.2], 10), 4, axis=0)
    by_image = reliability.per_image_agreement(made(values))
    by_group = reliability.per_image_agreement(made(values, groups=[f"{i // 4}" for i in range(40)]))
    assert by_group.value == by_image.value
    assert by_group.high - by_group.low > 1.4 * (by_image.high - by_image.low)


def test_split_half_equals_all_halves() -> None:
    values = noisy([0, 0.3, 0.6, 0.9, 1.2], 8)
    found = reliability.split_half(made(values), splits=4000)
    assert found.half.value == pytest.approx(slow.split_half_tau(values.tolist()), abs=0.02)
    assert found.half.low < found.half.value < found.half.high
    assert found.whole.value > found.half.value


def test_the_number_of_groups_needed_brings_tau_to_its_aim() -> None:
    effects = np.random.default_rng(5).normal(0, 0.3, 9).tolist()
    needed = [reliability.split_half(made(noisy(effects, 60, seed))).groups_needed for seed in range(12)]
    n = int(np.median(needed))
    pairs = [(noisy(effects, n, 100 + s).mean(0), noisy(effects, n, 900 + s).mean(0)) for s in range(300)]
    assert np.mean([stats.kendalltau(a, b).statistic for a, b in pairs]) == pytest.approx(0.8, abs=0.05)


def test_what_cannot_be_split() -> None:
    for values in (noisy([0, 1, 2], 3), noisy([0, 1], 30)):
        assert np.isnan(reliability.split_half(made(values)).whole.value)
    assert np.isnan(reliability.split_half(made(noisy([0, 0, 0, 0], 30, 4))).groups_needed) or (
        reliability.split_half(made(noisy([0, 0, 0, 0], 30, 4))).groups_needed > 100
    )


def test_between_draws_is_the_intraclass_correlation() -> None:
    signal = noisy([0, 1, 2], 20)
    draws = [made(signal + noisy([0, 0, 0], 20, 10 + d, 0.5)) for d in range(4)]
    found = reliability.between_draws(draws)
    centred = [d.values - d.values.mean(1, keepdims=True) for d in draws]
    cells = np.stack(centred, -1).reshape(-1, 4)
    expected = slow.icc_1(cells.tolist())
    assert found.value == pytest.approx(expected)
    assert found.low < expected < found.high
    shifted = [made(d.values + i) for i, d in enumerate(draws)]  # what a draw does to all methods changes nothing
    assert reliability.between_draws(shifted).value == pytest.approx(expected)
    assert np.isnan(reliability.between_draws(draws[:1]).value)


def test_both_ends_is_the_mean_tau_of_each_image() -> None:
    frame = frame_of(images=6, draws=1, orders=("morf", "lerf"))
    rows = frame.to_dict("records")
    names = sorted(METHODS)
    expected = []
    for image in sorted(frame["image"].unique()):
        first = [-slow_groups.area(slow_groups.of_image(rows, image, name, "morf", "logit")) for name in names]
        last = [slow_groups.area(slow_groups.of_image(rows, image, name, "lerf", "logit")) for name in names]
        expected.append(slow.tau_b(first, last))
    found = reliability.both_ends(frame)
    assert found.value == pytest.approx(np.mean(expected))
    assert found.low < found.value < found.high
    assert np.isnan(reliability.both_ends(frame[frame["order"] == "morf"]).value)


def test_intervals_of_agreement_stay_where_agreement_can_be() -> None:
    """Few images that nearly agree: Student's t and a shifted percentile would reach beyond 1."""
    tops = []
    for seed in range(30):
        rates = {"a": 0.05, "b": 0.03, "c": 0.02, "random": 0.015}
        frame = frame_of(images=5, draws=1, methods=rates, orders=("morf", "lerf"), seed=seed)
        one = reliability.both_ends(frame)
        alpha = reliability.per_image_agreement(made(noisy([0, 1, 2, 3], 4, seed, noise=0.3)), resamples=99)
        for value in (one, alpha):
            assert -1 <= value.low <= value.value <= value.high <= 1
        tops.append(one.high == 1 and one.value < 1)
    assert any(tops)


def test_what_cannot_be_graded_has_no_number_and_no_warning() -> None:
    """All methods equal on every image; settings without a common method; images of one method each."""
    equal = made(np.ones((6, 4)))
    half = reliability.split_half(equal, splits=20)
    assert np.isnan(half.whole.value)
    assert np.isnan(half.groups_needed)
    assert half.groups == 6
    assert np.isnan(reliability.per_image_agreement(made(np.where(np.eye(4, 3), 1.0, np.nan)), resamples=20).value)
    apart = {
        "s": made(np.c_[noisy([1.0], 6), np.full((6, 1), np.nan)]),
        "t": made(np.c_[np.full((6, 1), np.nan), noisy([1.0], 6)]),
    }
    agreed = statistics.agreement_of_settings(apart, resamples=20)
    assert np.isnan(agreed.w)
    assert np.isnan(agreed.tau)
    assert agreed.left_out == ["m0", "m1"]
    assert agreed.sentences()[-1].startswith("Not in every setting")


def test_blends_in_the_right_order() -> None:
    names = ["lrp", "random", *(f"blend:lrp{s}" for s in (",share=0.25", "", ",share=0.75"))]
    values = noisy([4.0, 0.0, 3.5, 2.0, 2.1], 30, noise=0.3)
    table = known_answers.blends(made(values, names))
    assert table["share"].tolist() == [0, 0.25, 0.5, 0.75]
    assert table["next_share"].tolist() == [0.25, 0.5, 0.75, 1]
    assert table["right"].tolist() == [True, True, False, True]
    assert table["gain"].iloc[0] == pytest.approx((values[:, 0] - values[:, 2]).mean())
    assert known_answers.blends(made(values[:, :2], names[:2])).empty
    assert known_answers.smoothed_copies(made(values[:, :3], ["a:b", "random", "smoothed:a:b"]))["sigma"].tolist() == [
        16
    ]


def test_how_much_of_a_lead_is_smoothness() -> None:
    names = ["best", "other", "random", "smoothed:other,sigma=16", "smoothed:best,sigma=16"]
    values = noisy([4.0, 2.0, 0.0, 3.0, 4.0], 400, noise=0.2)
    table = known_answers.smoothed_copies(made(values, names)).set_index("method")
    assert table.loc["other", "of_lead"] == pytest.approx(0.5, abs=0.03)
    assert table.loc["other", "significant"]
    assert table.loc["best", "lead"] == pytest.approx(-2, abs=0.05)
    assert np.isnan(table.loc["best", "of_lead"])


def several(orders: list[list[float]], groups: int = 30) -> dict[str, Measured]:
    names = [*"abcdefg"[: len(orders[0]) - 1], "random"]
    return {f"s{i}": made(noisy(effects, groups, i, 0.3), names) for i, effects in enumerate(orders)}


def test_ranks_of_settings() -> None:
    by_setting = several([[3, 2, 1, 0], [3, 2, 1, 0], [2, 3, 1, 0]])
    one = by_setting["s2"]
    by_setting["low"] = Measured("AUC", False, one.images, one.groups, one.methods, -one.values)
    by_setting["few"] = one.only(["b", "random"])
    table = statistics.rank_table(by_setting)
    assert table.loc["a"].tolist()[:4] == [1, 1, 2, 2]
    assert np.isnan(table.loc["a", "few"])
    found = statistics.agreement_of_settings(by_setting)
    assert found.methods == ["b", "random"]
    assert found.left_out == ["a", "c"]
    places = found.places()
    assert places.loc["a", ["first", "last", "settings"]].tolist() == [2, 0, 4]
    assert places.loc["random", ["first", "last", "settings"]].tolist() == [0, 5, 5]
    assert found.sentences()[0] == "First in 5 settings: b in 3, a in 2."
    assert found.sentences()[1] == "Random orders are last in 5 of 5 settings."


def test_settings_agree_and_one_does_not() -> None:
    alike = [[6, 5, 4, 3, 2, 0]] * 4
    found = statistics.agreement_of_settings(several(alike))
    assert found.tau == pytest.approx(1)
    assert found.w == pytest.approx(1)
    assert found.disagreeing == []
    odd = statistics.agreement_of_settings(several([*alike, [1, 2, 3, 4, 5, 0]]))
    assert odd.disagreeing == ["s4"]
    assert odd.tau < 0.7
    assert odd.tau_low <= odd.tau <= odd.tau_high
    assert odd.smallest[1] == "s4"
    assert odd.sentences()[-1] == "Agreeing clearly less with the rest: s4."
    means = np.stack([one.values.mean(0) for one in several([*alike, [1, 2, 3, 4, 5, 0]]).values()])
    expected = [slow.tau_b(means[i].tolist(), means[j].tolist()) for i in range(5) for j in range(i + 1, 5)]
    assert odd.tau == pytest.approx(np.mean(expected))
    assert odd.w == pytest.approx(slow.kendalls_w(means.tolist()))
    with pytest.raises(CurveError, match="received 1"):
        statistics.agreement_of_settings({"s": made(means)})


def test_mean_tau_rests_on_what_both_settings_have() -> None:
    rows = np.array([[1.0, 2.0, 3.0, 4.0], [2.0, 1.0, 3.0, np.nan], [4.0, 4.0, np.nan, 1.0]])
    expected = [
        slow.tau_b([1, 2, 3], [2, 1, 3]),
        slow.tau_b([1, 2, 4], [4, 4, 1]),
    ]
    assert statistics.mean_tau(rows) == pytest.approx(np.mean(expected))  # the third pair has one order: none
    assert np.isnan(statistics.mean_tau(np.ones((3, 4))))


def test_groups_are_drawn_alike_in_all_settings() -> None:
    """Settings that are copies of each other agree in every resample."""
    one = made(noisy([0, 0.1, 0.2, 0.3], 10))
    found = statistics.agreement_of_settings({"a": one, "b": one, "c": one})
    assert (found.tau_low, found.tau_high) == pytest.approx((1, 1))


def test_fraction_of_what_is_attainable() -> None:
    values = noisy([8.0, 0.0, 10.0], 200, noise=0.5)
    one = made(values, ["lrp", "random", "shapley:permutations=32"])
    row = statistics.attainable_fraction(one).iloc[0]
    expected = (values[:, 0] - values[:, 1]).mean() / (values[:, 2] - values[:, 1]).mean()
    assert row["fraction"] == pytest.approx(expected)
    assert row["low"] < 0.8 < row["high"]
    weak = made(noisy([0.1, 0.0, 0.05], 20), one.methods)
    assert np.isnan(statistics.attainable_fraction(weak).iloc[0]["fraction"])
    assert f"reaches {row['fraction']:.2f} of the attainable" in statistics.attainable_sentence(one)
    assert "take more permutations" in statistics.attainable_sentence(weak)
    assert statistics.attainable_sentence(one.only(["lrp", "random"])) == ""
    with pytest.raises(CurveError, match="holds no 'shapley' method"):
        statistics.attainable_fraction(one.only(["lrp", "random"]))


def test_a_grade_has_a_sentence_for_everything() -> None:
    frame = frame_of(orders=("morf", "lerf"))
    blend = frame_of(orders=("morf", "lerf"), methods={"blend:lrp-epsilon:0,share=0.5": 0.03}, seed=1)
    copy = frame_of(orders=("morf", "lerf"), methods={"smoothed:deconvolution:l2,sigma=16": 0.045}, seed=2)
    found = statistics.grade(pd.concat([frame, blend, copy]))
    table = found.table().set_index("property")
    assert set(table.index) == {*THRESHOLDS, "smoothness", "in scope"} - {"between settings"}
    assert table["value"].notna().all()
    said = " ".join(found.sentences())
    for part in ("Two sets of 30 images", "ICC", "Krippendorff", "MoRF and LeRF", "Of 2 pairs", "(σ = 16 pixels)"):
        assert part in said
    assert table.loc["known answers", "value"] == 1
    assert set(found.blends["method"]) == {"lrp-epsilon:0"}
    plain = statistics.grade(frame[(frame["order"] == "morf") & (frame["draw"] == 0)], measure="aopc")
    assert (
        plain.table().set_index("property").loc[["between draws", "both ends", "known answers"], "grade"].eq("").all()
    )
    assert len(plain.sentences()) == 7
    for name in THRESHOLDS:
        good, fair = THRESHOLDS[name]
        assert [grade_of(name, v) for v in (good, fair, fair - 0.01, np.nan)] == ["good", "fair", "poor", ""]


def test_a_measure_that_is_no_score_is_graded_by_what_does_not_need_scores() -> None:
    """The same numbers, given as a measure: the same answers but for draws, ends and scope."""
    frame = frame_of(12, methods={**METHODS, "blend:edge,share=0.5": 0.02}, orders=("morf", "lerf"))
    whole, part = statistics.grade(frame).table(), statistics.grade(statistics.measured(frame, "srg")).table()
    kept = ~whole["property"].isin(["between draws", "both ends", "in scope"])
    assert 0 < kept.sum() < len(whole)
    pd.testing.assert_frame_equal(whole[kept].reset_index(drop=True), part)
    both = statistics.grade({"a": statistics.measured(frame, "srg"), "b": frame})
    assert both.table()["property"].iloc[-1] == "between settings"


def test_a_network_that_no_longer_knows_the_images_is_named() -> None:
    frame = frame_of(images=6, orders=("morf", "lerf"))
    item = next(item for item in statistics.grade(frame).items if item.property == "in scope")
    assert item.value == pytest.approx(statistics.r_oms(frame).mean())
    assert "milder fill" not in item.sentence
    rows = frame.to_dict("records")
    whole = np.mean(
        [slow_groups.of_image(rows, i, "random", "morf", "probability")[0] for i in frame["image"].unique()]
    )
    assert f"{100 * item.value / whole:.0f} % of that of the whole images" in item.sentence
    lost = frame.assign(probability=frame["probability"].where(frame["step"] == 0, 0.001))
    item = next(item for item in statistics.grade(lost).items if item.property == "in scope")
    assert item.sentence.endswith("try a milder fill.")
    none = statistics.grade(frame[frame["method"] != "random"])
    assert next(i for i in none.items if i.property == "in scope").sentence.endswith("it takes the method 'random'.")


def test_the_grade_of_a_study() -> None:
    frames = {f"s{i}": frame_of(images=12, draws=1, orders=("morf", "lerf"), seed=i) for i in range(3)}
    found = statistics.grade(frames)
    table = found.table()
    assert (table["property"] == "between settings").sum() == 1
    assert (table["property"] == "per image").sum() == 3
    assert any("(median of 3 settings)" in text for text in found.sentences())
    assert found.sentences()[-1].startswith("3 settings rank the methods with a mean Kendall τ of")
    with pytest.raises(CurveError, match="received none"):
        statistics.grade({})
