"""The scorecard: means by group, letters, no total score, and the sentence about disagreement."""

import numpy as np
import pandas as pd
import pytest

from faithmap.errors import CurveError
from faithmap.measures.registry import resolve_measures
from faithmap.measures.scorecard import COLUMNS, disagreement, latex, scorecard, wide, winners
from faithmap.measures.scorecard import SRG as SRG_ALONE

GINI, SENSITIVITY, SRG = resolve_measures("gini,max-sensitivity,srg")


def values(means, images=30, per_group=2, spread=0.1, seed=0):
    """measure → method → mean, as the frame of `Run.measures()`."""
    random = np.random.default_rng(seed)
    rows = [
        (f"i{image}", f"g{image // per_group}", method, measure, 0, mean + spread * random.standard_normal())
        for measure, methods in means.items()
        for method, mean in methods.items()
        for image in range(images)
    ]
    return pd.DataFrame(rows, columns=["image", "group", "method", "measure", "draw", "value"])


MEANS = {
    "gini": {"a": 0.9, "b": 0.5, "c": 0.5, "random": 0.1},
    "max-sensitivity": {"a": 2.0, "b": 1.0, "c": 1.5},
}


def test_a_row_for_each_measure_and_method():
    frame = values(MEANS)
    card = scorecard(frame, [GINI, SENSITIVITY])
    assert list(card.columns) == list(COLUMNS)
    assert len(card) == 7
    gini = card[card.measure == "gini"].set_index("method")
    assert gini["rank"].to_dict()["a"] == 1
    assert gini.index[-1] == "random"
    by_group = frame[(frame.measure == "gini") & (frame.method == "a")].groupby("group").value.mean()
    assert gini.loc["a", "mean"] == pytest.approx(by_group.mean())
    assert gini.loc["a", "groups"] == 15
    assert gini.loc["a", "low"] < gini.loc["a", "mean"] < gini.loc["a", "high"]
    assert gini.loc["b", "letters"] == gini.loc["c", "letters"] != gini.loc["a", "letters"]
    lower = card[card.measure == "max-sensitivity"]
    assert lower.method.tolist() == ["b", "c", "a"]  # lower is better, and random has no value
    assert set(lower.higher_is_better) == {False}
    assert set(lower.set) == {"robustness"}


def test_the_winners_and_what_they_disagree_about():
    card = scorecard(values(MEANS), [GINI, SENSITIVITY])
    assert winners(card) == {"gini": ["a"], "max-sensitivity": ["b"]}
    assert disagreement(card) == "The measures disagree about the best method: a by gini; b by max-sensitivity."
    agree = {"gini": MEANS["gini"], "max-sensitivity": {"a": 0.5, "b": 1.0, "c": 1.5}}
    assert disagreement(scorecard(values(agree), [GINI, SENSITIVITY])) == (
        "a is best, or not distinguishable from the best, by all 2 measures."
    )
    png = resolve_measures("png")[0]
    chain = {
        "gini": {"a": 1.0, "b": 1.0, "c": 0.0},
        "max-sensitivity": {"a": 1.0, "b": 0.0, "c": 0.0},
        "png": {"a": 0.0, "b": 1.0, "c": 0.0},
    }
    said = disagreement(scorecard(values(chain), [GINI, SENSITIVITY, png]))
    assert said.startswith("No method is among the best by every measure: ")
    assert disagreement(scorecard(values(MEANS), [GINI])) == ""


def test_too_few_images_distinguish_nothing():
    few = values(MEANS | {"max-sensitivity": {"a": 1.0, "b": 1.01, "c": 1.02}}, images=3, per_group=1)
    card = scorecard(few[few.method != "random"], [GINI, SENSITIVITY])
    assert disagreement(card).startswith("No measure distinguishes a best method")


def test_what_is_no_better_than_random_wins_nothing():
    card = scorecard(values({"gini": {"a": 0.1, "random": 0.1}}), [GINI])
    assert winners(card) == {"gini": []}


def test_the_table_for_people_is_sorted_by_any_column():
    card = scorecard(values(MEANS), [GINI, SENSITIVITY])
    shown = wide(card)
    assert list(shown.columns) == ["gini ↑", "max-sensitivity ↓"]
    assert shown.index[0] == "a"
    assert shown.loc["random", "max-sensitivity ↓"] == ""
    assert shown.loc["a", "gini ↑"].endswith("a")
    assert " … " in shown.loc["a", "gini ↑"]
    assert wide(card, "max-sensitivity").index[0] == "b"
    with pytest.raises(CurveError, match="holds no measure 'srg'"):
        wide(card, "srg")
    assert wide(scorecard(values(MEANS), [])).empty


def test_latex_escapes_names_that_others_chose():
    means = {"gini": {"{$x_1$}^~\\b": 0.9, "b": 0.5, "random": 0.1}}
    table = latex(scorecard(values(means), [GINI]))
    assert r"\{\$x\_1\$\}\textasciicircum{}\textasciitilde{}\textbackslash{}b & " in table
    assert r"method & gini $\uparrow$ \\" in table
    assert "$^{a}$" in table


def test_measures_without_values_are_named():
    card = scorecard(values(MEANS), [GINI, *resolve_measures("png"), SRG])
    assert set(card.measure) == {"gini"}
    assert set(card.attrs["left_out"]) == {"png", "srg"}
    assert "follows from scores" in card.attrs["left_out"]["srg"]


def test_measures_from_scores_stand_beside_the_others(tiny, tmp_path):
    import torch

    import faithmap

    run = faithmap.evaluate(
        tiny,
        torch.rand(4, 3, 24, 24, generator=torch.Generator().manual_seed(0)),
        "sensitivity,edge",
        faithmap.Protocol.preset("samek2017", steps=9, region_size=8, draws=1, orders=("morf", "lerf")),
        tmp_path / "run",
        measures="gini,srg,morf,deletion",
    )
    card = run.scorecard()
    assert list(dict.fromkeys(card.measure)) == ["gini", "srg", "morf", "deletion"]
    assert run.figure("scorecard") is not None
    expected = run.scores().pipe(faithmap.statistics.measured, "srg")
    at = expected.methods.index("edge")
    found = card[(card.measure == "srg") & (card.method == "edge")]
    assert float(found["mean"].iloc[0]) == pytest.approx(expected.values[:, at].mean())
    assert set(found.unit) == {"logit"}
    assert SRG_ALONE.to_dict() | {"spec": 0} == SRG.to_dict() | {"spec": 0}


def test_letters_beyond_z_are_read_as_letters():
    """Of a1 and b1 neither the letter nor the number is shared."""
    rows = [("one", 1, "a1"), ("two", 2, "b1"), ("three", 3, "ba1"), ("random", 4, "c1")]
    card = pd.DataFrame(rows, columns=["method", "rank", "letters"]).assign(measure="gini")
    assert winners(card) == {"gini": ["one", "three"]}
