"""Measures of a run: stored beside the scores, resumed and extended like methods, however they are computed."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import faithmap
from faithmap.attribution import Batch, batch_heatmaps, resolve_methods
from faithmap.errors import CurveError, StoreError
from faithmap.measures.measure import MEASURES as DECLARED

PROTOCOL = faithmap.Protocol.preset(steps=2, region_size=4, draws=2)
MEASURES = ["gini", "max-sensitivity:n=2"]


def pixels(count: int = 5) -> torch.Tensor:
    return torch.rand(8, 3, 24, 24, generator=torch.Generator().manual_seed(2))[:count]


def evaluate(classifier, folder, count=5, measures=MEASURES, methods=("sensitivity:l2", "edge"), **how):
    return faithmap.evaluate(classifier, pixels(count), list(methods), PROTOCOL, folder, measures=measures, **how)


def same(a: pd.DataFrame, b: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(a, b, check_exact=True)


def test_every_value_is_stored_once(tiny, tmp_path):
    run = evaluate(tiny, tmp_path / "run")
    found = run.measures()
    assert list(found.columns) == ["image", "group", "method", "measure", "draw", "value"]
    counts = found.groupby(["measure", "method"]).size().to_dict()
    # A measure without randomness has one draw; one that computes heatmaps anew leaves random orders out.
    expected = {("gini", "sensitivity:l2"): 5, ("gini", "edge"): 5, ("gini", "random"): 5}
    expected |= {("max-sensitivity:n=2", "sensitivity:l2"): 10, ("max-sensitivity:n=2", "edge"): 10}
    assert counts == expected
    assert run.manifest.measures["gini"]["higher_is_better"]
    assert not run.skipped


def test_any_measure_of_a_run_is_graded(tiny, tmp_path):
    run = evaluate(tiny, tmp_path / "run", methods=["sensitivity:l2", "edge", "gradient-x-input"])
    table = run.grade("gini").table().set_index("property")
    assert np.isfinite(table.loc[["between images", "per image"], "value"]).all()
    assert "both ends" not in table.index
    for ask in (run.grade, run.measured, run.ranking):
        with pytest.raises(CurveError, match=r"holds no measure 'ginny'; did you mean 'gini'.*aopc.*max-sensitivity"):
            ask("ginny")
    settings = {"a": PROTOCOL, "b": PROTOCOL.override(region_size=6)}
    methods = ["sensitivity:l2", "edge", "gradient-x-input"]
    study = faithmap.study(tiny, pixels(), methods, settings, tmp_path / "study", measures=["gini"])
    assert study.grade("gini").table()["property"].iloc[-1] == "between settings"
    said = study.verdict("gini")
    assert "in all 2 settings" in said[0] or "No method is first in more settings" in said[0]
    assert not any("logit" in line or "probability" in line for line in said)


def test_a_value_is_that_of_the_heatmap(tiny, tmp_path):
    found = evaluate(tiny, tmp_path / "run", measures="gini").measures()
    batch = Batch.of(tiny, pixels(), tiny.predict(pixels()))
    heatmap = batch_heatmaps(resolve_methods("sensitivity:l2")[0], batch)[3].double().abs().flatten().sort().values
    n = len(heatmap)
    by_hand = sum((2 * (i + 1) - n - 1) * float(value) for i, value in enumerate(heatmap)) / (n * float(heatmap.sum()))
    row = found.query("image == '3' and method == 'sensitivity:l2'")
    assert row["value"].item() == pytest.approx(by_hand, rel=1e-6)


def test_a_folder_is_extended_by_images_methods_measures_and_draws(tiny, tmp_path):
    evaluate(tiny, tmp_path / "run", count=3, measures=["gini"], methods=["edge"])
    parts = set((tmp_path / "run" / "measures").iterdir())
    extended = evaluate(tiny, tmp_path / "run")
    assert parts < set((tmp_path / "run" / "measures").iterdir())
    same(extended.measures(), evaluate(tiny, tmp_path / "anew").measures())
    before = sorted((tmp_path / "run" / "measures").iterdir())
    evaluate(tiny, tmp_path / "run")
    assert sorted((tmp_path / "run" / "measures").iterdir()) == before


def test_a_folder_that_is_older_than_a_parameter_is_extended(tiny, tmp_path, monkeypatch):
    kind, name = DECLARED["infidelity"], "infidelity:n=4"
    older = replace(kind, parameters={key: one for key, one in kind.parameters.items() if key != "noise"})
    with monkeypatch.context() as then:
        then.setitem(DECLARED._declared, "infidelity", older)
        run = evaluate(tiny, tmp_path / "run", count=1, measures=name)
    assert "noise" not in run.manifest.measures[name]["spec"]["parameters"]
    again = evaluate(tiny, tmp_path / "run", count=2, measures=name)
    same(again.measures(), evaluate(tiny, tmp_path / "anew", count=2, measures=name).measures())
    evaluate(tiny, tmp_path / "named", count=1, measures={"x": name})
    with pytest.raises(StoreError, match=r"measure 'x': .*'noise': 0\.0.*'noise': 1\.0"):
        evaluate(tiny, tmp_path / "named", count=1, measures={"x": f"{name},noise=1"})


def test_a_damaged_part_is_computed_again(tiny, tmp_path):
    whole = evaluate(tiny, tmp_path / "run").measures()
    part = next((tmp_path / "run" / "measures").iterdir())
    part.write_bytes(part.read_bytes()[:-7])
    with pytest.raises(StoreError, match="damaged"):
        faithmap.Run(tmp_path / "run").measures()
    with pytest.warns(UserWarning, match="damaged"):
        again = evaluate(tiny, tmp_path / "run")
    same(again.measures(), whole)


def test_a_measure_that_fails_is_named_and_ends_nothing(tiny, tmp_path):
    def broken(classifier, images, targets, heatmap):
        if float(heatmap.sum()) > 0:
            raise RuntimeError("out of patience")
        return heatmap.sum((1, 2))

    run = evaluate(tiny, tmp_path / "run", measures=["gini", {"mine": broken}], methods=["edge"])
    assert {one.reason for one in run.skipped} == {"mine: out of patience"}
    assert set(run.measures()["measure"]) == {"gini"}
    assert len(run.scores()) == 5 * 2 * 2 * 3


def test_another_measure_of_the_same_name_is_refused(tiny, tmp_path):
    evaluate(tiny, tmp_path / "run", measures={"mine": "gini"}, methods=["edge"])
    with pytest.raises(StoreError, match="measure 'mine'"):
        evaluate(tiny, tmp_path / "run", measures={"mine": "entropy"}, methods=["edge"])


def test_a_dry_run_counts_what_measures_take(tiny):
    from faithmap.experiment.estimate import estimate
    from faithmap.experiment.evaluate import plan

    tiny.preprocessing = faithmap.Preprocessing(crop=(24, 24), resize=None)
    planned = plan(
        tiny,
        torch.rand(3, 3, 24, 24),
        "sensitivity,edge",
        faithmap.Protocol.preset("samek2017", steps=2, draws=1, region_size=4),
        measures="infidelity:n=7,region-effect:n=2,cell=6,max-sensitivity:n=4,gini,randomisation-top-down",
    )
    found = estimate(planned, seconds=0.1)
    assert found.measure_passes == 3 * (7 + 2 * 16)
    cheap = estimate(plan(tiny, torch.rand(3, 3, 24, 24), "sensitivity,edge", planned.experiment.protocol), seconds=0.1)
    assert (cheap.measure_passes, cheap.measure_heatmaps) == (0, 0)
    assert found.heatmaps == cheap.heatmaps == 6
    # Its time is in the estimate: what each pass and each heatmap takes, times how many there are.
    per_heatmap = found.seconds_per_task / found.heatmaps
    extra = found.measure_passes / found.scores_per_second + found.measure_heatmaps * per_heatmap
    assert found.seconds == pytest.approx(found.scores / found.scores_per_second + found.seconds_per_task + extra)
    assert found.measure_heatmaps == 3 * 2 * (4 + 3)  # `random` has no heatmaps to compute anew; three layers
