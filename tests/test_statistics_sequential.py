"""The group-sequential boundary against its definition, published values and simulated runs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from faithmap.errors import CurveError
from faithmap.statistics import Measured, boundary, decided
from tests.reference import sequential as slow

pytestmark = pytest.mark.filterwarnings("error")


@pytest.mark.parametrize("level", [0.05, 0.01])
@pytest.mark.parametrize("fractions", [(1.0,), (0.5, 1.0), (0.2, 0.35, 0.9), (0.1, 0.4, 0.5, 1.0)])
def test_each_look_spends_what_it_may(fractions: tuple[float, ...], level: float) -> None:
    found = boundary(fractions, level)
    for looks in range(1, len(fractions) + 1):
        crossed = slow.crossing(list(fractions[:looks]), list(found[:looks]))
        assert crossed == pytest.approx(slow.spent(fractions[looks - 1], level), abs=2e-5)
    assert all(a < b for a, b in itertools.pairwise(found))
    assert found[-1] <= level + 1e-9


def test_published_boundaries() -> None:
    """Five equal looks, two-sided 5 %: Lan and DeMets's spending as tabulated in Reboussin et al. 2000."""
    fifths = [0.2, 0.4, 0.6, 0.8, 1.0]
    z = stats.norm.isf(np.array(boundary(fifths)) / 2)
    np.testing.assert_allclose(z, [4.8769, 3.3569, 2.6803, 2.2898, 2.0310], atol=2e-4)
    z = stats.norm.isf(np.array(boundary(fifths, spending="pocock")) / 2)
    np.testing.assert_allclose(z, [2.4380, 2.4268, 2.4101, 2.3966, 2.3859], atol=2e-4)
    assert boundary([1.0]) == pytest.approx([0.05])


def walk(effects: dict[str, float], groups: int, seed: int) -> Measured:
    values = np.array(list(effects.values())) + np.random.default_rng(seed).normal(size=(groups, len(effects)))
    images = np.array([f"{i:03d}" for i in range(groups)], dtype=object)
    return Measured("SRG", True, images, images, list(effects), values)


def first(one: Measured, count: int) -> Measured:
    return Measured("SRG", True, one.images[:count], one.groups[:count], one.methods, one.values[:count])


def stops(one: Measured, looks: list[int], contrast: object) -> int | None:
    for at in range(1, len(looks) + 1):
        if decided(first(one, looks[at - 1]), looks[:at], looks[-1], contrast).decided:
            return looks[at - 1]
    return None


def test_looking_often_raises_no_false_alarms() -> None:
    looks = [10, 20, 30, 40]
    equal = dict.fromkeys(["a", "b", "random"], 0.0)
    often = 0
    found = [stops(walk(equal, 40, seed), looks, ("a", "b")) is not None for seed in range(60)]
    assert sum(found) <= 9  # 5 % of 60 is 3; 10 or more have a chance of 0.1 %
    for seed in range(150):
        values = walk(equal, 40, seed).values
        often += any(stats.wilcoxon(values[:n, 0] - values[:n, 1]).pvalue < 0.05 for n in looks)
    assert often > 12  # without the boundary


def test_a_clear_leader_is_decided_early() -> None:
    looks = [20, 40, 60, 80, 100]
    clear = [stops(walk({"a": 1.6, "b": 0.3, "random": 0.0}, 100, seed), looks, "leader") for seed in range(20)]
    assert None not in clear
    assert np.mean(clear) <= 50
    assert stops(walk({"a": 3.0, "b": 2.9, "random": 0.0}, 100, 3), looks, "random") == 40  # nothing can be at 20


def test_decisions_in_words() -> None:
    one = walk({"a": 2.0, "b": 0.0, "random": 0.0}, 40, 0)
    found = decided(one, [20, 40], 80)
    assert found.decided
    assert found.leader == "a"
    assert found.sentence == (
        "Decided after 40 of at most 80 groups, at look 2 with p < 0.003: "
        "a is significantly better than every other method and than random orders."
    )
    not_yet = decided(first(one, 5), [5], 80, ("a", "b"))
    assert not not_yet.decided
    assert not_yet.sentence.startswith("Not decided after 5 of at most 80 groups, at look 1 with p < ")
    assert not_yet.sentence.endswith("whether a and b are significantly different.")
    assert "a is significantly better than random orders" in decided(one, [40], 80, "random").sentence
    lost = Measured("SRG", True, one.images, one.groups, one.methods, one.values.copy(), noun="photo")
    lost.values[:2] = np.nan
    assert decided(lost, [40], 80).sentence.startswith(
        "Decided after 40 of at most 80 photos, 2 photos without values, at"
    )
    low = Measured("AUC", False, one.images, one.groups, one.methods, -one.values)
    assert decided(low, [20, 40], 80).leader == "a"
    assert decided(low, [20, 40], 80).decided
    assert not decided(one.only(["random"]), [40], 80).decided


def test_plans_that_make_no_sense() -> None:
    one = walk({"a": 2.0, "b": 0.0, "random": 0.0}, 10, 0)
    with pytest.raises(CurveError, match="10 groups have values, and this look is at 5"):
        decided(one, [5], 80)
    for looks, says in (
        ([30, 20], "larger than the one before"),
        ([30, 90], "of at most 80"),
        ([], "each look so far"),
    ):
        with pytest.raises(CurveError, match=says):
            decided(one, looks, 80)
    with pytest.raises(CurveError, match="give 'leader', 'random' or two methods"):
        decided(one, [10], 80, "best")
    with pytest.raises(CurveError, match="no method 'c'"):
        decided(one, [10], 80, ("a", "c"))
    with pytest.raises(CurveError, match="spending is 'even'"):
        boundary([0.5, 1], spending="even")
    with pytest.raises(CurveError, match="more than 0 and at most 1"):
        boundary([0.5, 1.5])
