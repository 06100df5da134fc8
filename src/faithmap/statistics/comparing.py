"""Which methods differ: all pairs, methods against random, and the ranking with letters."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from faithmap.arguments import checked
from faithmap.errors import CurveError
from faithmap.protocol import RANDOM
from faithmap.statistics.bootstrap import Means, mean_intervals
from faithmap.statistics.groups import group_means
from faithmap.statistics.measured import Measured, measured
from faithmap.statistics.power import POWER, units_needed
from faithmap.statistics.significance import fewest_units, holm, letters, signed_rank

VS_RANDOM, PAIRS = "random", "pairs"


@checked(CurveError)
def compare(
    frame: pd.DataFrame | Measured,
    score: str = "logit",
    step: int | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    order: str = "morf",
    direction: str = "remove",
    measure: str = "aopc",
) -> pd.DataFrame:
    """All pairs of methods on the same images and the same noise.

    Args:
        frame: from `Run.scores()`; or what `measured` or `measured_from` made, and then `score`, `step`, `order`,
            `direction` and `measure` are not looked at.
        score, step, order, direction, measure: as in `measured`.
        confidence: of the intervals; the tests' level is 1 − confidence.
        seed: of the bootstrap over groups.
    Returns:
        One row per pair, the method with the higher mean as `a`. References of what is attainable and known answers are
        left out (`Measured.candidates`).
        a, b; family ("random": a method against random orders; "pairs": two methods);
        groups, n (groups and images that count for both), left_out (images);
        difference (mean over groups of a − b), low, high, interval;
        p (Wilcoxon signed-rank, two-sided), p_holm (corrected within the family);
        p_mean (of the mean difference, from the same bootstrap), p_mean_holm;
        significant (both corrected p-values are below 1 − confidence, ranks and mean point to the same side, the
        interval excludes 0, and for pairs: some method differs significantly from random orders);
        a_beats_b (fraction of the groups on which a is higher, ties count half);
        effect_size (Cohen's d of paired differences: mean over standard deviation);
        groups_needed (groups at which such a difference is significant with a chance of 0.8; NaN when there is none),
        more_groups (groups_needed − groups; 0 when significant), images_needed (with as many images per group as here).
    Source:
        Wilcoxon 1945; Holm 1979; Westfall and Krishen 2001 for gates between families; `power.units_needed`.
    """
    return compared(_measured(frame, score, step, order, direction, measure), confidence, seed)


@checked(CurveError)
def ranking(
    frame: pd.DataFrame | Measured,
    score: str = "logit",
    step: int | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    order: str = "morf",
    direction: str = "remove",
    measure: str = "aopc",
) -> pd.DataFrame:
    """Methods from best to worst, with letters: methods that share one are not distinguishable.

    Args:
        frame, score, step, confidence, seed, order, direction, measure: as in `compare`.
    Returns:
        Best on top: rank, method, value (mean over groups), mean (relative to random orders on the same images; the
        value itself where random has none), low, high, groups, n, left_out, interval, letters;
        vs_random ("better", "worse", or "" where not significantly different from random orders);
        differs_from_next (significantly, from the method one rank below),
        more_groups (needed to distinguish it from that one, see `compare`).
    Source:
        Piepho 2004 for the letters.
    """
    return comparison(_measured(frame, score, step, order, direction, measure), confidence, seed).table


@dataclass(frozen=True)
class Comparison:
    """What sentences are made from: the ranking and the pairs of one measure.

    Attributes:
        measured: the candidates' values.
        table: as `ranking` returns it.
        pairs: as `compare` returns it.
        confidence: of both.
    """

    measured: Measured
    table: pd.DataFrame
    pairs: pd.DataFrame
    confidence: float

    def fewest(self, family: str) -> int:
        """How many groups are needed before anything in this family can be significant.

        Pairs are asked about only where something differs from random orders, so that they need as many as that does.
        """
        own = fewest_units(max(1, self.comparisons(family)), 1 - self.confidence)
        if family == PAIRS and self.comparisons(VS_RANDOM):
            return max(own, self.fewest(VS_RANDOM))
        return own

    def too_few(self, family: str) -> bool:
        """Whether no comparison of this family rests on enough groups to be significant."""
        groups = self.pairs.loc[self.pairs["family"] == family, "groups"]
        return bool(len(groups)) and int(groups.max()) < self.fewest(family)

    def comparisons(self, family: str) -> int:
        """How many pairs of this family have a test."""
        return int(self.pairs.loc[self.pairs["family"] == family, "p"].notna().sum())


def comparison(one: Measured, confidence: float = 0.95, seed: int = 0, power: float | None = POWER) -> Comparison:
    """The ranking and the pairs of a measure; with `power` None nothing is said about groups that are needed."""
    one = one.candidates()
    pairs = compared(one, confidence, seed, power)
    relative = group_means(one.relative(), one.groups)
    best = _best_first(one.methods, one.sign * relative)
    at = [one.methods.index(name) for name in best]
    found = zip(pairs["a"].tolist(), pairs["b"].tolist(), pairs["significant"], pairs["more_groups"], strict=True)
    significant, more = {}, {}
    for a, b, differs, count in found:
        significant[frozenset((a, b))], more[frozenset((a, b))] = bool(differs), float(count)
    different = {pair for pair, differs in significant.items() if differs}
    following = [frozenset(pair) for pair in itertools.pairwise(best)]
    value = group_means(one.values, one.groups)
    table = pd.DataFrame(
        {
            "rank": range(1, len(best) + 1),
            "method": best,
            "value": [_mean(value[:, i]) for i in at],
            **counted_columns(mean_intervals(relative[:, at], confidence, seed), one.relative()[:, at]),
            "letters": letters(best, different),
            "vs_random": [_against_random(name, best, different) for name in best],
            "differs_from_next": pd.array([pair in different for pair in following] + [None], dtype="boolean"),
            "more_groups": [more[pair] for pair in following] + [np.nan],
        }
    )
    table.attrs["group"] = one.noun
    return Comparison(one, table, pairs, confidence)


def counted_columns(means: Means, per_image: np.ndarray, mean: str = "mean") -> dict[str, np.ndarray]:
    """Columns of a table of means over groups: with how many groups and images each rests on."""
    n = np.isfinite(per_image).sum(0)
    return {
        mean: means.mean,
        "low": means.low,
        "high": means.high,
        "groups": means.n,
        "n": n,
        "left_out": len(per_image) - n,
        "interval": means.interval,
    }


def compared(one: Measured, confidence: float, seed: int, power: float | None = POWER) -> pd.DataFrame:
    """`compare` of a measure."""
    one = one.candidates()
    names = np.array(one.methods, dtype=object)
    first, second = np.triu_indices(len(names), 1)
    per_image = one.values[:, first] - one.values[:, second]
    difference = group_means(per_image, one.groups)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the mean of no groups is NaN
        swap = np.nanmean(difference, 0) < 0
    first, second = np.where(swap, second, first), np.where(swap, first, second)
    difference = np.where(swap, -difference, difference)
    means = mean_intervals(difference, confidence, seed)
    columns = counted_columns(means, per_image, "difference")
    family = np.where((names[first] == RANDOM) | (names[second] == RANDOM), VS_RANDOM, PAIRS)
    tests = _tests(difference, means, family, 1 - confidence)
    effect = _effect_size(difference, means)
    needed = _groups_needed(difference, tests["p"], family, 1 - confidence, power)
    more = np.where(tests["significant"], 0, np.where(needed > means.n, needed - means.n, np.nan))
    images_each = columns["n"] / np.maximum(means.n, 1)
    pairs = pd.DataFrame(
        {
            "a": names[first],
            "b": names[second],
            "family": family,
            **columns,
            **tests,
            "a_beats_b": _fraction_of_wins(difference),
            "effect_size": effect,
            "groups_needed": needed,
            "more_groups": more,
            "images_needed": np.ceil(needed * images_each),
        }
    )
    place = {name: i for i, name in enumerate(_best_first(one.methods, group_means(one.values, one.groups)))}
    by_rank = pairs.assign(first=pairs["a"].map(place), second=pairs["b"].map(place)).sort_values(["first", "second"])
    return by_rank.drop(columns=["first", "second"]).reset_index(drop=True)


def _measured(
    frame: pd.DataFrame | Measured, score: str, step: int | None, order: str, direction: str, measure: str
) -> Measured:
    return frame if isinstance(frame, Measured) else measured(frame, measure, score, step, order, direction)


def _tests(difference: np.ndarray, means: Means, family: np.ndarray, level: float) -> dict[str, np.ndarray]:
    p, side = signed_rank(difference)
    p_holm, p_mean_holm = np.full((2, len(p)), np.nan)
    for name in (VS_RANDOM, PAIRS):
        at = family == name
        p_holm[at], p_mean_holm[at] = holm(p[at]), holm(means.p[at])
    # A difference is in the mean, in the ranks, to the same side, and visible in the interval that stands beside it.
    significant = (p_holm < level) & (p_mean_holm < level) & (side * means.mean > 0) & (means.low * means.high > 0)
    # A gate: with a reference, pairs are asked about only where some method differs from it. So where
    # nothing differs, both families together are wrong as rarely as the first one alone.
    against_random = family == VS_RANDOM
    if against_random.any() and not significant[against_random].any():
        significant[~against_random] = False
    return {
        "p": p,
        "p_holm": p_holm,
        "p_mean": means.p,
        "p_mean_holm": p_mean_holm,
        "significant": significant,
    }


def _groups_needed(
    difference: np.ndarray, p: np.ndarray, family: np.ndarray, level: float, power: float | None
) -> np.ndarray:
    """At the level of Holm's first step in each pair's family."""
    needed = np.full(len(p), np.nan)
    if power is None:
        return needed
    for pair in np.flatnonzero(np.isfinite(p)):
        tests = np.isfinite(p[family == family[pair]]).sum()
        column = difference[:, pair]
        needed[pair] = units_needed(column[np.isfinite(column)], level / tests, power)
    return needed


def _effect_size(difference: np.ndarray, means: Means) -> np.ndarray:
    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)
        effect: np.ndarray = means.mean / np.nanstd(difference, axis=0, ddof=1)
    constant = means.interval == "constant"
    effect[constant] = np.where(means.mean[constant] == 0, 0, np.copysign(np.inf, means.mean[constant]))
    return effect


def _fraction_of_wins(difference: np.ndarray) -> np.ndarray:
    n = np.isfinite(difference).sum(0)
    wins = (difference > 0).sum(0) + 0.5 * (difference == 0).sum(0)
    fraction: np.ndarray = np.where(n > 0, wins / np.maximum(n, 1), np.nan)
    return fraction


def _best_first(methods: Sequence[str], values: np.ndarray) -> list[str]:
    """Methods by mean, those without any value last; ties by name."""
    mean = np.array([_mean(column) for column in values.T])
    return [methods[i] for i in np.argsort(-mean, kind="stable")]


def _mean(column: np.ndarray) -> float:
    finite = column[np.isfinite(column)]
    return float(finite.mean()) if finite.size else np.nan


def _against_random(name: str, best_first: Sequence[str], different: set[frozenset[str]]) -> str:
    if frozenset((name, RANDOM)) not in different:
        return ""
    return "better" if best_first.index(name) < best_first.index(RANDOM) else "worse"
