"""Statistics of plain arrays and tables, such as published numbers, against slow twins, scipy and krippendorff."""

from __future__ import annotations

import krippendorff
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from faithmap import statistics
from faithmap.errors import CurveError
from tests.reference import agreement as slow
from tests.reference import groups as slow_groups

pytestmark = pytest.mark.filterwarnings("error")


def rankings(seed: int, shape: tuple[int, int] = (6, 7)) -> np.ndarray:
    """With ties."""
    return np.random.default_rng(seed).integers(0, 6, shape).astype(float)


@pytest.mark.parametrize("steps", [[0, 3, 4, 9, 20], [0.0, 0.05, 0.1, 0.6, 1.0], None])
def test_srg_of_any_steps(steps: list[float] | None) -> None:
    morf, lerf = np.random.default_rng(0).random((2, 4, 5))
    found = statistics.srg(morf, lerf, steps)
    for image in range(4):
        k = range(5) if steps is None else steps
        own = slow_groups.area(dict(zip(k, (lerf - morf)[image].tolist(), strict=True)))
        assert float(found[image]) == pytest.approx(own)
    random = np.random.default_rng(1).random((3, 5))  # R-OMS of one image: random orders to full removal
    expected = np.mean([slow_groups.area(dict(enumerate(row))) for row in random.tolist()])
    assert float(statistics.mean_over_fraction(random).mean()) == pytest.approx(expected)
    morf[1, 2] = np.nan
    assert torch.isnan(statistics.srg(morf, lerf, steps)).tolist() == [False, True, False, False]


@pytest.mark.parametrize("seed", range(5))
def test_agreement_of_published_ranks(seed: int) -> None:
    scores = rankings(seed)
    assert statistics.kendalls_w(scores.tolist()) == pytest.approx(slow.kendalls_w(scores.tolist()))
    taus = [stats.kendalltau(a, b).statistic for i, a in enumerate(scores) for b in scores[:i]]
    assert statistics.mean_tau(pd.DataFrame(scores)) == pytest.approx(np.mean(taus))
    orders = {tuple(slow.average_ranks(row)) for row in scores.tolist()}
    assert statistics.distinct_rankings(scores) == len(orders)
    assert statistics.distinct_rankings(scores + 10) == len(orders)
    scores[0, 0] = np.nan
    part = [stats.kendalltau(scores[0, 1:], b[1:]).statistic for b in scores[1:]]
    taus = [stats.kendalltau(a, b).statistic for i, a in enumerate(scores[1:]) for b in scores[1 : i + 1]]
    assert statistics.mean_tau(scores) == pytest.approx(np.mean(part + taus))


def test_two_methods_and_ties_everywhere() -> None:
    assert statistics.mean_tau([[1, 2], [3, 4], [2, 1]]) == pytest.approx(-1 / 3)
    assert statistics.kendalls_w([[1, 2], [3, 4], [2, 1]]) == pytest.approx(1 / 9)
    assert np.isnan(statistics.kendalls_w([[1, 1], [2, 2]]))
    assert np.isnan(statistics.mean_tau([[1, 1], [1, 2]]))  # where all are tied there is no order
    assert statistics.distinct_rankings([[1, 1], [1, 2], [2, 2]]) == 2


@pytest.mark.parametrize("seed", range(4))
def test_reliability_of_a_plain_table(seed: int) -> None:
    values = np.arange(5) * 0.4 + np.random.default_rng(seed).normal(size=(8, 5))
    one = statistics.measured_of(values.tolist())
    assert statistics.split_half(one).half.value == pytest.approx(slow.split_half_tau(values.tolist()), abs=0.06)
    values[2, 3] = np.nan
    values[5] = np.round(values[5])  # ties
    one = statistics.measured_of(pd.DataFrame(values, columns=list("edcba")))
    ranks = stats.rankdata(values, axis=1, nan_policy="omit")
    raters = [[None if np.isnan(rank) else rank for rank in row] for row in ranks.tolist()]
    alpha = statistics.per_image_agreement(one)
    assert alpha.value == pytest.approx(slow.krippendorff_ordinal(raters))
    assert alpha.value == pytest.approx(krippendorff.alpha(ranks, level_of_measurement="ordinal"))
    assert alpha.low <= alpha.value <= alpha.high
    draws = np.arange(5) * 0.4 + np.random.default_rng(seed + 9).normal(size=(3, 8, 5))
    cells = (draws - draws.mean(2, keepdims=True)).transpose(1, 2, 0).reshape(-1, 3)
    found = statistics.between_draws([statistics.measured_of(draw) for draw in draws])
    assert found.value == pytest.approx(slow.icc_1(cells.tolist()))


def test_a_plain_table_is_ranked_like_any_measure() -> None:
    values = np.random.default_rng(0).normal(size=(40, 3)) + np.array([0, 1, 0])
    one = statistics.measured_of(values, ["random", "good", "bad"], np.repeat(range(20), 2), label="SRG")
    said = statistics.headline(one)
    assert said.startswith("good has the highest SRG: ")
    assert "from 20 groups (40 images)" in said
    low = statistics.measured_of(-values, ["random", "good", "bad"], higher_is_better=False)
    assert statistics.ranking(low)["method"].iloc[0] == "good"
    by_setting = {name: statistics.measured_of(values + i) for i, name in enumerate(["one", "two"])}
    assert statistics.agreement_of_settings(by_setting).tau == 1


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: statistics.kendalls_w([1.0, 2.0]), r"scores has shape \(2,\), expected \(settings, methods\)"),
        (lambda: statistics.kendalls_w([[1.0, 2.0]]), "received 1: give at least two rows"),
        (lambda: statistics.kendalls_w([[1.0, np.nan], [1.0, 2.0]]), "columns 1 .* missing in some settings"),
        (lambda: statistics.distinct_rankings([[1.0, np.nan], [1.0, 2.0]]), "leave these methods out"),
        (lambda: statistics.mean_tau([[1.0, 2.0]]), "received 1"),
        (lambda: statistics.mean_tau([[1.0, np.inf], [1.0, 2.0]]), "infinite numbers: give NaN"),
        (lambda: statistics.mean_tau([["a"], ["b"]]), "is no table of numbers"),
        (lambda: statistics.measured_of([[1.0, 2.0]], ["a"]), r"methods are 1 names, and values have shape \(1, 2\)"),
        (lambda: statistics.measured_of([[1.0, 2.0]], ["a", "a"]), "not all different"),
        (lambda: statistics.measured_of([[1.0], [2.0]], groups=["a"]), "groups are 1 names"),
        (lambda: statistics.measured_of(np.zeros((0, 2))), r"shape \(0, 2\)"),
        (lambda: statistics.srg([1.0, 0.0], [1.0, 0.5, 0.0]), "curves of the same"),
        (lambda: statistics.srg([1.0, 0.0], [1.0, 0.5], [0, 1, 2]), "one step per point"),
        (lambda: statistics.srg([1.0, 0.0], [1.0, 0.5], [0.2, 1]), "rising from 0"),
        (lambda: statistics.mean_over_fraction([1.0]), "at least two"),
    ],
)
def test_what_is_no_table_or_curve_is_named(call, says: str) -> None:
    with pytest.raises(CurveError, match=says):
        call()
