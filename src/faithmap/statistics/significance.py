"""Tests of paired differences, their correction, and letters for what they do not distinguish."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy import special, stats

_MOST_EXACT = 50  # units up to which the signed-rank distribution is exact


def signed_rank(difference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Wilcoxon's signed-rank test, two-sided, for each column.

    Args:
        difference: (units, pairs), NaN where a unit does not count; zero differences are dropped, as Wilcoxon did.
            Exact up to 50 units that are not zero, with mean ranks where sizes are tied; else the normal approximation.
    Returns:
        p: 1 where all differences are zero, NaN below two units.
        side: 1 where the positive ranks are larger, −1 where the negative ones are, 0 where neither.
    """
    p, side = np.full((2, difference.shape[1]), np.nan)
    finite = np.isfinite(difference)
    whole = finite.all(0)
    if len(difference) >= 2 and whole.any():
        p[whole], side[whole] = _signed_rank_of(difference[:, whole])
    for pair in np.flatnonzero(~whole):
        column = difference[finite[:, pair], pair]
        if len(column) >= 2:
            p[[pair]], side[[pair]] = _signed_rank_of(column[:, None])
    return p, side


def _signed_rank_of(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    n = len(x)
    size = np.abs(x)
    ordered = np.sort(size, axis=0)
    plain = (ordered[0] > 0) & (np.diff(ordered, axis=0) > 0).all(0)
    ranks = np.nan_to_num(stats.rankdata(np.where(x == 0, np.nan, size), axis=0, nan_policy="omit"))
    positive = np.where(x > 0, ranks, 0).sum(0)
    negative = np.where(x < 0, ranks, 0).sum(0)
    if n <= _MOST_EXACT:
        p = 2 * signed_rank_tail(n)[np.where(plain, np.maximum(positive, negative), 0).astype(int)]
    else:
        error = np.sqrt(n * (n + 1) * (2 * n + 1) / 24)
        p = 2 * special.ndtr(-np.abs(positive - n * (n + 1) / 4) / error)
    for pair in np.flatnonzero(~plain):
        p[pair] = _with_ties(ranks[x[:, pair] != 0, pair], max(positive[pair], negative[pair]))
    return np.minimum(p, 1), np.sign(positive - negative)


def _with_ties(ranks: np.ndarray, larger: float) -> float:
    """The p-value given the ranks of the units that are not zero, and the larger of the two sums of ranks."""
    if not len(ranks):
        return 1.0
    if len(ranks) > _MOST_EXACT:
        error = float(np.sqrt((ranks**2).sum() / 4))
        return float(2 * special.ndtr(-(larger - ranks.sum() / 2) / error))
    # Mean ranks are halves at most: twice a rank is an integer.
    return float(2 * _tail_of(tuple(np.rint(2 * ranks).astype(int).tolist()))[round(2 * larger)])


@lru_cache(maxsize=_MOST_EXACT)
def signed_rank_tail(n: int) -> np.ndarray:
    """P(T ≥ t) for t = 0…n(n+1)/2, of the sum T of the positive ranks of n units without ties."""
    return _tail_of(range(1, n + 1))


def _tail_of(ranks: Sequence[int]) -> np.ndarray:
    """P(T ≥ t) for t = 0…Σ ranks, of the sum T of those ranks that are positive: each with a chance of one half."""
    ways = np.zeros(sum(ranks) + 1)
    ways[0] = 1
    for rank in ranks:
        ways[rank:] = ways[rank:] + ways[:-rank]
    tail: np.ndarray = ways[::-1].cumsum()[::-1] / 2.0 ** len(ranks)
    return tail


def fewest_units(comparisons: int, level: float) -> int:
    """How many units the signed-rank test needs before any of these comparisons can be significant.

    Its smallest p-value is 2/2ⁿ, and Holm's first step multiplies it by the number of comparisons.

    Example:
        >>> fewest_units(1, 0.05), fewest_units(55, 0.05)
        (6, 12)
    """
    return next(n for n in range(2, 1000) if comparisons * 2.0 ** (1 - n) < level)


def holm(p: np.ndarray) -> np.ndarray:
    """p-values corrected for their number; NaN stays NaN and is not counted.

    Example:
        >>> holm(np.array([0.01, 0.04, 0.03]))
        array([0.03, 0.06, 0.06])
    Source:
        Holm 1979.
    """
    corrected = np.full(len(p), np.nan)
    order = np.argsort(p)[: np.isfinite(p).sum()]
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(1, np.maximum.accumulate(p[order] * factors))
    return corrected


def letters(order: Sequence[str], different: set[frozenset[str]]) -> list[str]:
    """The compact letter display: split every set that holds a different pair, drop sets inside others.

    Two names share a letter exactly when they are not in `different`.

    Source:
        Piepho 2004.
    """
    shared = [set(order)]
    for pair in sorted(tuple(sorted(pair, key=order.index)) for pair in different):
        split = [names - {name} for names in shared if names.issuperset(pair) for name in pair]
        split += [names for names in shared if not names.issuperset(pair)]
        shared = []
        for names in sorted(split, key=len, reverse=True):
            if not any(names <= other for other in shared):
                shared.append(names)
    ranked = sorted(shared, key=lambda names: sorted(order.index(name) for name in names))
    return ["".join(_letter(i) for i, names in enumerate(ranked) if name in names) for name in order]


def split_letters(cell: str) -> list[str]:
    """The letters in a cell of the column `letters` of `ranking`.

    Example:
        >>> split_letters("bca1")
        ['b', 'c', 'a1']
    """
    return re.findall(r"[a-z]\d*", cell)


def _letter(index: int) -> str:
    """a…z, then a1…z1, a2…"""
    return chr(ord("a") + index % 26) + (str(index // 26) if index >= 26 else "")
