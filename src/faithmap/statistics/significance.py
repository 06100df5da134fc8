"""Tests, the number of images they need, and groups that they cannot tell apart."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence

import numpy as np
from scipy import special, stats

POWER = 0.8
_MOST_IMAGES = 1e7


def signed_rank_p(difference: np.ndarray) -> np.ndarray:
    """p of Wilcoxon's signed-rank test, two-sided, for each column.

    Args:
        difference: (images, pairs), NaN where an image does not count; zero differences are dropped, as Wilcoxon did.
            Exact up to 50 images without zeros and ties, else by the normal approximation: scipy's choice.
    Returns:
        1 where all differences are zero, NaN below two images.
    """
    p = np.full(difference.shape[1], np.nan)
    for pair, column in enumerate(difference.T):
        column = column[np.isfinite(column)]
        if len(column) >= 2:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about ties in few images
                p[pair] = stats.wilcoxon(column, zero_method="wilcox").pvalue if column.any() else 1.0
    return p


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


def images_needed(effect_size: np.ndarray, level: float, power: float = POWER) -> np.ndarray:
    """How many images tell a mean paired difference from zero; NaN for no difference, or one beyond ten million.

    Args:
        effect_size: mean over standard deviation of the differences.
        level: of the two-sided test.
        power: the chance that the test finds it.
    Source:
        Guenther 1981 for the t test: the normal approximation plus z²/2, within one or two of the exact number; the
        signed-rank test needs π/3 times as many when differences are normal (Hodges and Lehmann 1956).
    """
    z, z_power = special.ndtri(1 - level / 2), special.ndtri(power)
    with np.errstate(divide="ignore", invalid="ignore"):
        needed = np.ceil(np.pi / 3 * (((z + z_power) / effect_size) ** 2 + z**2 / 2))
    return np.where(needed <= _MOST_IMAGES, np.maximum(needed, 2), np.nan)


def letters(order: Sequence[str], told: set[frozenset[str]]) -> list[str]:
    """The compact letter display: split every group that holds a pair told apart, drop groups inside others."""
    groups = [set(order)]
    for pair in sorted(tuple(sorted(pair, key=order.index)) for pair in told):
        split = [group - {name} for group in groups if group.issuperset(pair) for name in pair]
        split += [group for group in groups if not group.issuperset(pair)]
        groups = []
        for group in sorted(split, key=len, reverse=True):
            if not any(group <= other for other in groups):
                groups.append(group)
    ranked = sorted(groups, key=lambda group: sorted(order.index(name) for name in group))
    return ["".join(_letter(i) for i, group in enumerate(ranked) if name in group) for name in order]


def split_letters(group: str) -> list[str]:
    """The letters in a `group` of `ranking`.

    Example:
        >>> split_letters("bca1")
        ['b', 'c', 'a1']
    """
    return re.findall(r"[a-z]\d*", group)


def _letter(index: int) -> str:
    """a…z, then a1…z1, a2…"""
    return chr(ord("a") + index % 26) + (str(index // 26) if index >= 26 else "")
