"""Slow twin of the group-sequential boundary; nothing from src is imported."""

from __future__ import annotations

import math

from scipy import stats


def spent(fraction: float, level: float) -> float:
    """Lan and DeMets 1983, the function that resembles O'Brien and Fleming's boundary: level/2 on each side."""
    return 2 * (2 - 2 * stats.norm.cdf(stats.norm.isf(level / 4) / math.sqrt(fraction)))


def crossing(fractions: list[float], p_values: list[float]) -> float:
    """P(any look is significant) where nothing differs: one minus a multivariate normal probability."""
    bounds = [float(stats.norm.isf(p / 2)) for p in p_values]
    correlation = [[math.sqrt(min(a, b) / max(a, b)) for b in fractions] for a in fractions]
    lower = [-bound for bound in bounds]
    inside = stats.multivariate_normal.cdf(
        bounds, cov=correlation, lower_limit=lower, maxpts=200_000, abseps=1e-6, allow_singular=True
    )
    return 1 - float(inside)
