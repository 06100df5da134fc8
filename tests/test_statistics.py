"""Means, intervals, comparisons and the ranking against slow twins, scipy and known answers."""

from __future__ import annotations

import warnings
from itertools import combinations, pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from faithmap import statistics
from faithmap.errors import CurveError
from faithmap.statistics import bootstrap, curves, significance
from faithmap.statistics.bootstrap import mean_intervals
from faithmap.text import display_name, printable
from tests.frames import frame_from, frame_of
from tests.reference import statistics as slow

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return frame_of(orders=("morf", "lerf"))


@pytest.fixture(scope="module")
def half(frame: pd.DataFrame) -> pd.DataFrame:
    """A run that was cut off: one image misses a method, one a draw, one the last steps; one score is not finite."""
    a, b, c, d = sorted(frame["image"].unique())[:4]
    gone = (frame["image"] == a) & (frame["method"] == "sensitivity:l2")
    gone |= (frame["image"] == b) & (frame["method"] == "lrp-epsilon:0") & (frame["draw"] == 1)
    gone |= (frame["image"] == c) & (frame["method"] == "lrp-epsilon:100") & (frame["step"] > 10)
    cut = frame[~gone].copy()
    cut.loc[(cut["image"] == d) & (cut["method"] == "random") & (cut["step"] == 3) & (cut["draw"] == 0), "logit"] = (
        np.nan
    )
    return cut


@pytest.mark.parametrize("order", ["morf", "lerf"])
def test_per_image_aopc_equals_the_loops(half: pd.DataFrame, order: str) -> None:
    fast = statistics.per_image_aopc(half, "logit", order)
    expected = slow.per_image_aopc(half.to_dict("records"), "logit", order)
    whole = fast[fast.notna().all(axis=1)]
    assert set(whole.index) == set(expected)
    for key, values in expected.items():
        np.testing.assert_allclose(whole.loc[key], values, atol=1e-6)


def test_per_image_aopc_equals_curves(frame: pd.DataFrame) -> None:
    score = torch.tensor(
        frame[frame["order"] == "morf"]
        .sort_values(["image", "method", "draw", "step"])["probability"]
        .to_numpy()
        .reshape(30, 8, 2, 21)
    ).double()
    aopc = curves.aopc(score)
    methods = sorted(frame["method"].unique())
    random = aopc[:, methods.index("random")].movedim(1, 0)
    relative = torch.stack([curves.relative_to_random(aopc[:, m].mean(1), random) for m in range(8)], 1)
    found = statistics.per_image_aopc(frame, "probability", relative=True).to_numpy().reshape(30, 8, 21)
    np.testing.assert_allclose(found, relative, atol=1e-12)


def test_abpc_equals_curves(frame: pd.DataFrame) -> None:
    sorted_frame = frame.sort_values(["order", "method", "step", "image", "draw"])
    lerf, morf = torch.tensor(sorted_frame["logit"].to_numpy().reshape(2, 8, 21, 60)).double().movedim(2, 3)
    expected = curves.abpc(morf, lerf).mean(1)
    found = statistics.abpc_table(frame)
    np.testing.assert_allclose(found["mean"].to_numpy().reshape(8, 21), expected, atol=1e-12)
    assert (found["low"] <= found["mean"]).all()
    assert (found["high"] >= found["mean"]).all()


def test_a_table_counts_what_it_leaves_out(half: pd.DataFrame) -> None:
    table = statistics.aopc_table(half, steps=[2, 10, 20]).set_index(["method", "step"])
    assert table.loc[("deconvolution:l2", 2), ["n", "left_out"]].tolist() == [30, 0]
    assert table.loc[("deconvolution:l2", 10), ["n", "left_out"]].tolist() == [29, 1]  # random's NaN at step 3
    assert table.loc[("sensitivity:l2", 20), ["n", "left_out"]].tolist() == [28, 2]
    assert table.loc[("lrp-epsilon:0", 20), "n"] == 28
    assert table.loc[("lrp-epsilon:100", 10), "n"] == 29
    assert table.loc[("lrp-epsilon:100", 20), "n"] == 28
    raw = statistics.aopc_table(half, relative=False, steps=[20]).set_index("method")
    assert raw.loc["random", "n"] == 29
    pairs = statistics.compare(half)
    both = pairs[
        (pairs["a"].isin(["sensitivity:l2", "lrp-epsilon:0"])) & (pairs["b"].isin(["sensitivity:l2", "lrp-epsilon:0"]))
    ]
    assert both[["n", "left_out"]].to_numpy().tolist() == [[28, 2]]


def test_rows_in_any_order_and_categoricals_give_the_same(frame: pd.DataFrame) -> None:
    expected = statistics.aopc_table(frame, steps=[20])
    shuffled = frame.sample(frac=1, random_state=1).astype(
        {"image": "category", "method": "category", "order": "category"}
    )
    pd.testing.assert_frame_equal(statistics.aopc_table(shuffled, steps=[20]), expected, check_dtype=False)
    assert not statistics.aopc_table(frame, steps=[20], seed=1)["low"].equals(expected["low"])


@pytest.mark.parametrize(("kind", "name"), [("bca", "BCa"), ("percentile", "percentile")])
def test_bootstrap_intervals_agree_with_scipy(kind: str, name: str) -> None:
    x = np.random.default_rng(0).exponential(size=(60, 3))
    ours = mean_intervals(x, interval=kind, resamples=20_000)
    scipys = stats.bootstrap((x,), np.mean, axis=0, method=name, n_resamples=20_000, rng=np.random.default_rng(1))
    width = ours.high - ours.low
    np.testing.assert_allclose((ours.low - scipys.confidence_interval.low) / width, 0, atol=0.02)
    np.testing.assert_allclose((ours.high - scipys.confidence_interval.high) / width, 0, atol=0.02)


def test_students_t_agrees_with_scipy() -> None:
    x = np.random.default_rng(0).normal(0.4, 1, (7, 2))
    ours = mean_intervals(x, confidence=0.9)
    scipys = stats.ttest_1samp(x, 0)
    interval = scipys.confidence_interval(0.9)
    assert list(ours.interval) == ["student", "student"]
    np.testing.assert_allclose(ours.low, interval.low)
    np.testing.assert_allclose(ours.high, interval.high)
    np.testing.assert_allclose(ours.p, scipys.pvalue)


def test_studentised_interval_equals_the_loops() -> None:
    x = np.random.default_rng(3).exponential(size=25)
    ours = mean_intervals(x[:, None], seed=5, resamples=999)
    low, high = slow.studentised(x.tolist(), 0.95, 5, 999)
    student = stats.ttest_1samp(x, 0).confidence_interval(0.95)
    assert ours.interval[0] == "studentised"
    np.testing.assert_allclose(ours.low[0], (low + min(low, student.low)) / 2)
    np.testing.assert_allclose(ours.high[0], (high + max(high, student.high)) / 2)
    assert student.high < high  # the long tail: it is Student's t that reaches less far here


@pytest.mark.parametrize(("n", "kind"), [(9, "student"), (10, "studentised"), (199, "studentised"), (200, "bca")])
def test_the_interval_depends_on_the_number_of_images(n: int, kind: str) -> None:
    assert mean_intervals(np.random.default_rng(0).normal(size=(n, 1))).interval[0] == kind


def test_columns_are_computed_on_their_own_images() -> None:
    x = np.random.default_rng(0).normal(size=(40, 3))
    holes = x.copy()
    holes[:7, 1] = np.nan
    holes[5, 2] = np.inf
    found, alone = mean_intervals(holes), mean_intervals(x[7:, 1:2])
    assert found.n.tolist() == [40, 33, 39]
    assert (found.low[1], found.high[1]) == (alone.low[0], alone.high[0])
    assert found.low[0] == mean_intervals(x[:, :1]).low[0]


def test_intervals_hold_their_level_when_scores_are_skewed() -> None:
    rng = np.random.default_rng(0)
    hits = []
    for seed in range(20):
        found = mean_intervals(rng.exponential(size=(20, 50)), seed=seed)
        hits.append((found.low <= 1) & (found.high >= 1))
    assert 0.93 <= np.mean(hits) <= 0.97


def test_nearly_all_equal_falls_back_to_percentiles() -> None:
    x = np.zeros((20, 2))
    x[0] = 1.0
    for kind, named in (("auto", "percentile"), ("bca", "bca")):
        found = mean_intervals(x, interval=kind)
        assert found.interval[0] == named
        assert found.low[0] <= found.mean[0] <= found.high[0] < 1
        assert np.isfinite(found.p).all()


def test_signed_rank_p_is_scipys() -> None:
    x = np.random.default_rng(0).normal(0.2, 1, (40, 3))
    x[:4, 1] = np.nan
    x[:5, 2] = 0
    found, side = significance.signed_rank(x)
    assert found[0] == pytest.approx(stats.wilcoxon(x[:, 0]).pvalue)
    assert found[1] == pytest.approx(stats.wilcoxon(x[4:, 1]).pvalue)
    assert found[2] == pytest.approx(stats.wilcoxon(x[5:, 2]).pvalue)
    many = np.random.default_rng(1).normal(-0.1, 1, 60)
    assert significance.signed_rank(many[:, None])[0][0] == pytest.approx(stats.wilcoxon(many).pvalue)
    p, to = significance.signed_rank(np.array([[1.0, -1.0, 1.0], [2.0, -2.0, -1.0]]))
    assert p[:2] == pytest.approx([0.5, 0.5])
    assert to.tolist() == [1, -1, 0]
    assert side[0] == np.sign(stats.wilcoxon(x[:, 0], alternative="less").pvalue - 0.5)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_equals_the_loops(p: list[float]) -> None:
    np.testing.assert_allclose(significance.holm(np.array(p)), slow.holm(p))


def test_holm_does_not_count_what_is_missing() -> None:
    np.testing.assert_array_equal(significance.holm(np.array([0.02, np.nan, 0.01])), [0.02, np.nan, 0.02])


def test_compare_gives_known_answers() -> None:
    a, b = [3.0, 4.0, 5.0, 6.0, 7.5, 1.0], [1.0, 4.5, 3.0, 6.0, 2.0, 0.0]
    pair = statistics.compare(frame_from({"b": b, "a": a})).iloc[0]
    difference = np.subtract(a, b)
    assert (pair["a"], pair["b"], pair["n"], pair["left_out"]) == ("a", "b", 6, 0)
    assert pair["difference"] == pytest.approx(difference.mean())
    assert pair["effect_size"] == pytest.approx(difference.mean() / difference.std(ddof=1))
    assert pair["a_beats_b"] == pytest.approx(slow.wins(a, b)) == pytest.approx(4.5 / 6)
    assert pair["p"] == pytest.approx(stats.wilcoxon(difference, zero_method="wilcox").pvalue)
    assert pair["p_mean"] == pytest.approx(stats.ttest_1samp(difference, 0).pvalue)
    assert not pair["significant"]
    assert pair["more_groups"] == pair["groups_needed"] - 6


def test_compare_corrects_within_each_family(frame: pd.DataFrame) -> None:
    pairs = statistics.compare(frame)
    assert len(pairs) == 28
    assert pairs["family"].value_counts().to_dict() == {"pairs": 21, "random": 7}
    for _, family in pairs.groupby("family"):
        np.testing.assert_allclose(family["p_holm"], slow.holm(family["p"].tolist()))
        np.testing.assert_allclose(family["p_mean_holm"], slow.holm(family["p_mean"].tolist()))
    assert (pairs["difference"] >= 0).all()
    assert (pairs.loc[pairs["significant"], "more_groups"] == 0).all()
    assert pairs["significant"].any()
    assert not pairs["significant"].all()


def test_equal_means_do_not_differ_by_the_shape_of_the_differences() -> None:
    """The signed-rank test alone would call a skewed difference of mean zero a difference."""
    rng = np.random.default_rng(0)
    skewed = rng.exponential(size=400)
    pair = statistics.compare(frame_from({"a": skewed - skewed.mean(), "random": np.zeros(400)})).iloc[0]
    assert pair["p"] < 0.01
    assert not pair["significant"]
    assert np.isnan(pair["more_groups"])


def test_ranking_groups_and_order() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(0, 1, 60)
    made = {
        "worst": base + rng.normal(0.1, 0.1, 60),
        "twin-a": base + 1 + rng.normal(0, 0.1, 60),
        "twin-b": base + 1.001 + rng.normal(0, 0.1, 60),
        "random": base,
    }
    table = statistics.ranking(frame_from(made))
    assert table["method"].tolist()[2:] == ["worst", "random"]
    assert table["letters"].tolist() == ["a", "a", "b", "c"]
    assert table["differs_from_next"].tolist()[:3] == [False, True, True]
    assert table["more_groups"].iloc[0] > 100
    assert table["more_groups"].tolist()[1:3] == [0, 0]
    assert table.loc[3, ["mean", "low", "high"]].tolist() == [0, 0, 0]


@given(
    st.integers(1, 7).flatmap(
        lambda n: st.tuples(st.just(n), st.sets(st.sampled_from(list(combinations(range(n), 2)) or [None])))
    )
)
def test_methods_share_a_letter_exactly_when_not_different(case: tuple[int, set[tuple[int, int] | None]]) -> None:
    count, told = case
    names = [f"m{i}" for i in range(count)]
    pairs = {frozenset((names[pair[0]], names[pair[1]])) for pair in told if pair}
    letters = [set(significance.split_letters(text)) for text in significance.letters(names, pairs)]
    assert all(letters)
    for (i, first), (j, second) in combinations(enumerate(letters), 2):
        assert bool(first & second) == (frozenset((names[i], names[j])) not in pairs)


def test_low_is_good_for_lerf_and_for_insertion(frame: pd.DataFrame) -> None:
    high_first = statistics.ranking(frame_of())["method"].tolist()
    assert statistics.ranking(frame_of(), direction="restore")["method"].tolist() == high_first[::-1]
    lerf = statistics.ranking(frame, order="lerf")
    assert lerf["mean"].is_monotonic_increasing
    assert lerf["method"].iloc[-1] == "random"
    assert "has the lowest AOPC" in statistics.headline(frame, order="lerf")
    best = statistics.chosen_images(frame)
    assert statistics.chosen_images(frame, direction="restore")["best"] == best["worst"]
    with pytest.raises(CurveError, match="Known: remove, restore"):
        statistics.ranking(frame, direction="insertion")


def test_agreement_is_spearmans(half: pd.DataFrame) -> None:
    table = statistics.agreement(half)
    aopc = statistics.per_image_aopc(half, relative=True)[20].unstack("method")
    assert "random" not in table
    both = aopc[["sensitivity:l2", "lrp-epsilon:0"]].dropna()
    assert table.loc["sensitivity:l2", "lrp-epsilon:0"] == pytest.approx(stats.spearmanr(*both.T.to_numpy()).statistic)
    assert (np.diag(table) == 1).all()


@pytest.mark.parametrize("images", [1, 2, 3])
def test_few_images_give_results_without_warnings(images: int) -> None:
    frame = frame_of(images=images)
    table = statistics.aopc_table(frame, steps=[20])
    pairs, ranked, said = statistics.compare(frame), statistics.ranking(frame), statistics.headline(frame)
    statistics.subsets(frame)
    statistics.agreement(frame)
    assert table["mean"].notna().all()
    assert not pairs["significant"].any()
    assert set(ranked["letters"]) == {"a"}
    if images == 1:
        assert table["low"].isna().all()
        assert set(table["interval"]) == {"none"}
        assert pairs["p"].isna().all()
        assert "One image gives no interval" in said
    else:
        rest = table[table["method"] != "random"]
        assert (rest["low"] < rest["mean"]).all()
        assert set(rest["interval"]) == {"student"}


def test_equal_methods_and_constant_differences() -> None:
    same = [0.5, 1.5, 2.5] * 5
    frame = frame_from({"a": same, "b": same, "c": [v + 1 for v in same], "random": [0.0] * 15})
    pairs = statistics.compare(frame).set_index(["a", "b"])
    equal, shifted = pairs.loc[("a", "b")], pairs.loc[("c", "a")]
    assert equal[["difference", "low", "high", "p", "p_mean", "a_beats_b", "effect_size"]].tolist() == [
        0,
        0,
        0,
        1,
        1,
        0.5,
        0,
    ]
    assert np.isnan(equal["groups_needed"])
    assert shifted[["difference", "low", "high"]].tolist() == [1, 1, 1]
    assert shifted["interval"] == "constant"
    assert shifted["effect_size"] == np.inf
    assert shifted["significant"]
    assert shifted["a_beats_b"] == 1


def test_a_method_without_any_score() -> None:
    frame = frame_from({"a": [1.0, 2.0, 3.0], "b": [np.nan] * 3, "random": [0.0, 0.1, 0.2]})
    table = statistics.aopc_table(frame, steps=[1]).set_index("method")
    assert table.loc["b", ["n", "left_out"]].tolist() == [0, 3]
    assert np.isnan(table.loc["b", "mean"])
    ranked = statistics.ranking(frame)
    assert ranked["method"].tolist() == ["a", "random", "b"]
    pairs = statistics.compare(frame)
    assert pairs.loc[pairs["n"] == 0, "p"].isna().all()
    assert pairs.loc[pairs["n"] > 0, "p_holm"].tolist() == pairs.loc[pairs["n"] > 0, "p"].tolist()


def test_subsets(frame: pd.DataFrame) -> None:
    table = statistics.subsets(frame, labels=["crane", "crane", "dog"])
    assert set(table["by"]) == {"class", "prediction", "split"}
    assert set(table.loc[table["by"] == "class", "subset"]) == {"crane (0)", "crane (1)", "dog", "3", "4"}
    found = table[table["method"] == "sensitivity:l2"].set_index(["by", "subset"])
    clean = frame[frame["image"].str.contains("ILSVRC2012_val_")]
    right = frame[frame["label"] == frame["predicted"]]
    for key, part in ((("split", "clean"), clean), (("prediction", "right"), right)):
        expected = statistics.aopc_table(part, steps=[20]).set_index("method").loc["sensitivity:l2"]
        np.testing.assert_allclose(
            found.loc[key, ["mean", "low", "high", "n"]].astype(float),
            expected[["mean", "low", "high", "n"]].astype(float),
        )
    assert found.loc[("split", "clean"), "n"] + found.loc[("split", "training"), "n"] == 30


def test_images_without_a_class_are_in_no_class(frame: pd.DataFrame) -> None:
    table = statistics.subsets(frame.assign(label=pd.array([pd.NA] * len(frame), dtype="Int32")))
    assert set(table["by"]) == {"split"}
    plain = frame_from({"a": [1.0, 2.0], "random": [0.0, 0.1]})
    assert statistics.subsets(plain).empty


def test_chosen_images() -> None:
    frame = frame_from({"a": [1.0, 5.0, 3.0], "random": [0.0, 0.0, 0.0]}, images=["x", "y", "z"])
    assert statistics.chosen_images(frame) == {"best": "y", "median": "z", "worst": "x"}
    assert statistics.chosen_images(frame[frame["image"] == "x"]) == {"best": "x"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: f.drop(columns="draw"), "lacks draw"),
        (lambda f: f[f["order"] == "none"], "holds no 'morf' curves"),
        (lambda f: f[f["step"] > 0], "expected 0…L"),
        (lambda f: f[f["method"] != "random"], "no method 'random'"),
    ],
)
def test_frames_that_cannot_be_used(frame: pd.DataFrame, change, says: str) -> None:
    with pytest.raises(CurveError, match=says):
        statistics.aopc_table(change(frame))


def test_arguments_that_make_no_sense(frame: pd.DataFrame) -> None:
    with pytest.raises(CurveError, match=r"did you mean 'probability'"):
        statistics.aopc_table(frame, "probabilities")
    with pytest.raises(CurveError, match="steps 0…20"):
        statistics.compare(frame, step=21)
    with pytest.raises(CurveError, match="between 0 and 1"):
        statistics.aopc_table(frame, confidence=95.0)
    with pytest.raises(CurveError, match="no 'lerf' curves"):
        statistics.abpc_table(frame[frame["order"] == "morf"])


def test_a_large_run_needs_no_loop_over_images() -> None:
    """Resamples are counted in blocks: the numbers do not depend on their size."""
    x = np.random.default_rng(0).normal(size=(300, 2))
    whole = mean_intervals(x)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bootstrap, "_CHUNK", 1000)
        pieces = mean_intervals(x)
    np.testing.assert_allclose(whole.low, pieces.low)


def test_names_for_people() -> None:
    assert display_name("lrp-alpha-beta:2,1") == "LRP-αβ (2, 1)"
    assert display_name("attn-lrp:epsilon=0.1") == "AttnLRP (ε=0.1)"
    assert display_name("smoothgrad:n=25,norm=l2") == "SmoothGrad (n=25, norm=ℓ2)"
    assert display_name("blend:lrp-epsilon:0.01,share=0.5") == "blend (LRP-ε (0.01), share=0.5)"
    assert display_name("gradient-x-sign") == "gradient × sign"
    assert display_name("x-ray") == "x ray"
    assert display_name("random") == "random"
    assert display_name("my\nmethod") == "my\\nmethod"
    assert printable("é$x$\x1b[0m\udcff") == "é$x$\\x1b[0m\\udcff"
    assert len(printable("x" * 1000, 50)) == 50
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert display_name("") == ""


def test_the_gap_of_the_orders_is_what_srg_averages() -> None:
    """By loops over images, draws and steps; its mean over the removed fraction is SRG."""
    frame = frame_of(images=6, orders=("morf", "lerf"))
    table = statistics.gap_table(frame)
    srg = statistics.measured(frame, "srg")
    for method in ("lrp-epsilon:0", "random"):
        rows = frame[frame["method"] == method]
        gaps = []
        for step in range(21):
            at = rows[rows["step"] == step]
            means = {}
            for order in ("morf", "lerf"):
                per_image = [own["logit"].astype(float).mean() for _, own in at[at["order"] == order].groupby("image")]
                means[order] = sum(per_image) / len(per_image)
            gaps.append(means["lerf"] - means["morf"])
        shown = table[table["method"] == method].sort_values("step")
        np.testing.assert_allclose(shown["mean"], gaps, rtol=1e-5, atol=1e-6)
        area = sum((a + b) / 2 for a, b in pairwise(gaps)) / 20
        assert area == pytest.approx(srg.column(method).mean(), rel=1e-5, abs=1e-6)
    restored = statistics.gap_table(frame, direction="restore")
    np.testing.assert_allclose(restored["mean"], -table["mean"])
