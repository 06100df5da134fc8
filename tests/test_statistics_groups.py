"""Groups: one value each, in means, intervals, tests and the numbers they need."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from faithmap import statistics
from faithmap.errors import CurveError
from faithmap.statistics import power, significance
from faithmap.statistics.bootstrap import mean_intervals
from faithmap.statistics.groups import group_means
from faithmap.text import counted
from tests.frames import frame_from, grouped_frame
from tests.reference import groups as slow

pytestmark = pytest.mark.filterwarnings("error")
EFFECTS = {"a": 1.5, "b": 0.4, "random": 0.0}


def relative(frame: pd.DataFrame, method: str) -> dict[str, float]:
    at = frame[frame["step"] == 1].set_index(["image", "method"])["logit"]
    return {i: -(at[i, method] - at[i, "random"]) / 2 for i in frame["image"].unique()}


def test_means_and_intervals_equal_the_loops_over_groups() -> None:
    frame = grouped_frame(EFFECTS, groups=15)
    frame = frame[~frame["image"].isin(["003/1.png", "003/2.png", "007/0.png"])]  # groups of unequal size
    group_of = dict(zip(frame["image"], frame["group"], strict=True))
    row = statistics.aopc_table(frame, steps=[1], seed=3).set_index("method").loc["a"]
    values = relative(frame, "a")
    means = slow.group_means(values, group_of)
    assert row["mean"] == pytest.approx(np.mean(list(means.values())))
    assert (row["groups"], row["n"], row["left_out"]) == (15, 57, 0)
    low, high = slow.cluster_bootstrap(values, group_of, 0.95, 3, 4999)
    student = mean_intervals(np.array(list(means.values()))[:, None], interval="student")
    assert row["low"] == pytest.approx((low + min(low, student.low[0])) / 2)
    assert row["high"] == pytest.approx((high + max(high, student.high[0])) / 2)


def test_a_test_sees_one_value_per_group() -> None:
    frame = grouped_frame({"a": 0.9, "b": 0.2, "random": 0.0}, groups=9, images=6)
    pair = statistics.compare(frame).set_index(["a", "b"]).loc[("a", "random")]
    group_of = dict(zip(frame["image"], frame["group"], strict=True))
    differences = list(slow.group_means(relative(frame, "a"), group_of).values())
    assert pair["p"] == pytest.approx(slow.signed_rank_p(differences))
    assert (pair["groups"], pair["n"]) == (9, 54)
    assert pair["images_needed"] == 6 * pair["groups_needed"]


@given(st.lists(st.integers(-3, 3), min_size=2, max_size=10))
def test_ties_and_zeros_have_the_p_of_all_signs(difference: list[int]) -> None:
    p, side = significance.signed_rank(np.array(difference, dtype=float)[:, None])
    assert p[0] == pytest.approx(slow.signed_rank_p([float(value) for value in difference]))
    assert (side[0] == 0) <= (p[0] == 1)


def test_ties_of_many_units_follow_the_normal_approximation() -> None:
    x = np.random.default_rng(3).poisson(1.2, (70, 1)) - 1.0
    assert (x != 0).sum() < 50  # exact among those that are not zero
    kept = x[x != 0]
    ranks = stats.rankdata(np.abs(kept))
    z = (ranks[kept > 0].sum() - ranks.sum() / 2) / np.sqrt((ranks**2).sum() / 4)
    assert significance.signed_rank(x)[0][0] == pytest.approx(2 * stats.norm.sf(abs(z)), abs=0.05)
    x = np.random.default_rng(3).poisson(1.2, (200, 1)) - 1.0
    assert significance.signed_rank(x)[0][0] == pytest.approx(stats.wilcoxon(x[:, 0], method="asymptotic").pvalue)


def test_images_that_are_their_own_groups_change_nothing() -> None:
    frame = grouped_frame(EFFECTS, images=1).drop(columns="group")
    renamed = frame.assign(group=frame["image"].str.upper())
    missing = frame.assign(group=None)
    for table in (statistics.ranking, statistics.compare):
        pd.testing.assert_frame_equal(table(frame), table(renamed))
        pd.testing.assert_frame_equal(table(frame), table(missing))


def test_groups_widen_the_interval_where_images_repeat_each_other() -> None:
    once = grouped_frame(EFFECTS, groups=12, images=1)
    copies = pd.concat([once.assign(image=once["image"] + str(i)) for i in range(5)], ignore_index=True)
    columns = ["mean", "low", "high", "groups"]
    pd.testing.assert_frame_equal(
        statistics.aopc_table(copies, steps=[1])[columns], statistics.aopc_table(once, steps=[1])[columns]
    )
    as_images = statistics.aopc_table(copies.drop(columns="group"), steps=[1])
    assert (as_images["high"] - as_images["low"])[0] < 0.6 * np.ptp(
        statistics.aopc_table(once, steps=[1]).loc[0, ["low", "high"]]
    )


def test_group_means_leave_out_what_is_missing() -> None:
    values = np.array([[1.0, np.nan], [3.0, np.nan], [5.0, 7.0]])
    np.testing.assert_array_equal(group_means(values, np.array(["x", "x", "y"])), [[2, np.nan], [5, 7]])


def test_an_image_in_two_groups_is_refused_by_name() -> None:
    frame = grouped_frame(EFFECTS, groups=2)
    frame.loc[0, "group"] = "other"
    with pytest.raises(CurveError, match=r"image '000/0.png' is in the groups 000, other"):
        statistics.ranking(frame)


def test_few_groups_cannot_be_significant() -> None:
    assert significance.fewest_units(1, 0.05) == 6
    assert significance.fewest_units(55, 0.05) == 12
    for comparisons in (1, 7, 28):
        n = significance.fewest_units(comparisons, 0.05)
        for count, possible in ((n, True), (n - 1, False)):
            p, _ = significance.signed_rank(np.arange(1.0, count + 1)[:, None])
            assert (comparisons * p[0] < 0.05) == possible


@pytest.mark.parametrize("images", [1, 6])
def test_equal_methods_rarely_differ(images: int) -> None:
    names = ["random", *"abcdefg"]
    found = [
        statistics.compare(grouped_frame(dict.fromkeys(names, 0.0), 12, images, 0.6, seed))["significant"].any()
        for seed in range(25)
    ]
    assert np.mean(found) <= 0.1


@pytest.mark.parametrize(
    ("shape", "effect"), [("normal", 0.5), ("normal", -0.5), ("skewed", 0.5), ("skewed", -0.5), ("lognormal", 0.5)]
)
def test_as_many_groups_as_needed_find_the_difference(shape: str, effect: float) -> None:
    rng = np.random.default_rng(0)

    def sample(size: object) -> np.ndarray:
        if shape == "normal":
            return effect + rng.normal(size=size)
        if shape == "skewed":
            return effect + rng.exponential(size=size) - 1
        return effect * 0.604 + rng.lognormal(0, 0.5, size) - np.exp(0.125)

    n = int(power.units_needed(sample(20_000), 0.05))
    hits = []
    for seed in range(8):
        x = sample((n, 50))
        hits.append((significance.signed_rank(x)[0] < 0.05) & (mean_intervals(x, seed=seed).p < 0.05))
    assert 0.72 <= np.mean(hits) <= 0.88


def test_nothing_is_needed_where_nothing_differs() -> None:
    rng = np.random.default_rng(0)
    assert np.isnan(power.units_needed(np.array([1.0, 2.0, 3.0]), 0.05))  # too few to know their shape
    assert np.isnan(power.units_needed(np.full(10, 2.0), 0.05))
    skewed = rng.exponential(size=500)
    assert np.isnan(power.units_needed(skewed - skewed.mean() + 0.01, 0.05))  # mean and ranks disagree
    assert power.units_needed(rng.normal(1, 0.01, 30), 0.05) == significance.fewest_units(1, 0.05)
    frame = frame_from({"a": [1.0] * 8, "random": [0.0] * 8})
    assert statistics.compare(frame)["more_groups"].tolist() == [0]


def test_numbers_needed_are_rounded_to_what_is_known() -> None:
    assert [power.about(x) for x in (7, 19, 57, 96, 134, 1234, 98_765)] == [7, 19, 60, 100, 130, 1200, 99_000]
    assert np.isnan(power.about(np.nan))


def test_counts_in_words() -> None:
    assert counted(8, 48, "photo") == "8 photos (48 images)"
    assert counted(1, 6) == "1 group (6 images)"
    assert counted(1200, 1200) == "1\u202f200 images"


def test_pairs_are_asked_about_only_where_something_differs_from_random() -> None:
    rng = np.random.default_rng(0)
    noise, own = rng.normal(size=30), rng.normal(0, 0.1, (2, 30))
    made = {"a": 0.2 + own[0], "b": -0.2 + own[1], "random": 2 * noise}
    frame = frame_from(made)
    without = statistics.compare(frame[frame["method"] != "random"])
    assert without["significant"].all()
    table = statistics.compare(frame)
    assert (table.loc[table["family"] == "pairs", ["p_holm", "p_mean_holm"]] < 1e-6).all().all()
    assert not table["significant"].any()
    better = statistics.compare(frame_from({**made, "c": 2 * noise + 1 + own[0]})).set_index(["a", "b"])["significant"]
    assert better[("c", "random")]
    assert better[("a", "b")]
