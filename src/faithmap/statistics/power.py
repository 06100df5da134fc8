"""How many independent units make a difference significant, for differences of any shape."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import special

from faithmap.statistics.bootstrap import FEWEST_BCA, FEWEST_RESAMPLED
from faithmap.statistics.significance import signed_rank_tail

POWER = 0.8
_MOST = 10_000_000
_FEWEST_SEEN = 4
_CLEARLY_SKEWED = -0.5  # towards the side of no difference; above it, heavy tails alone would count as skewness


def units_needed(difference: np.ndarray, level: float, power: float = POWER) -> float:
    """How many units make both tests significant with this chance, if the differences are like those seen.

    Args:
        difference: one per unit, finite.
        level: of the two-sided tests, of the mean and of the signed ranks.
        power: the chance that both find the difference.
    Returns:
        NaN where fewer than four units were seen, where there is no difference, where mean and ranks point to different
        sides, and beyond ten million.
    Source:
        Lehmann 1975, Nonparametrics, chapter 4 for the power of the signed-rank test; the normal approximation of
        Student's t with its variance and quantile corrected for skewness as in Hall 1992, section 2.6.
    """
    n = len(difference)
    if n < _FEWEST_SEEN or np.ptp(difference) == 0:
        return math.nan
    shape = _shape_of(difference if difference.mean() >= 0 else -difference)
    if shape.effect <= 0 or shape.pairs_above <= 0.5:
        return math.nan
    low, high = 1, 2
    while _power(shape, high, level) < power:
        low, high = high, 2 * high
        if high > _MOST:
            return math.nan
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _power(shape, middle, level) >= power else (middle, high)
    return float(high)


def about(count: float) -> float:
    """A needed number as far as it is known: to tens below 100, else to two digits; small ones as they are.

    Example:
        >>> about(57), about(134), about(1234), about(13)
        (60.0, 130.0, 1200.0, 13.0)
    """
    if not math.isfinite(count) or count < 20:
        return float(count)
    unit = max(10.0, 10.0 ** (math.floor(math.log10(count)) - 1))
    return unit * round(count / unit)


@dataclass(frozen=True)
class _Shape:
    """What the power of the two tests depends on.

    Attributes:
        effect: mean over standard deviation.
        skewness, excess: standardised third moment, and fourth moment minus 3.
        above: P(X > 0).
        pairs_above: P(X + X′ > 0).
        triples_above: P(X + X′ > 0 and X + X″ > 0).
        on_t, on_skewness, on_ranks: influence of each unit on Student's t, the skewness, the number of positive sums.
    """

    effect: float
    skewness: float
    excess: float
    above: float
    pairs_above: float
    triples_above: float
    on_t: np.ndarray
    on_skewness: np.ndarray
    on_ranks: np.ndarray


def _shape_of(x: np.ndarray) -> _Shape:
    n = len(x)
    z = (x - x.mean()) / x.std()
    effect, skewness = float(x.mean() / x.std(ddof=1)), float((z**3).mean())
    ordered = np.sort(x)
    # How many others make a positive sum with each; half for a sum of exactly 0.
    others = n - (np.searchsorted(ordered, -x, "left") + np.searchsorted(ordered, -x, "right")) / 2
    others = others - (x > 0) - (x == 0) / 2
    pairs = float(others.sum() / (n * (n - 1)))
    return _Shape(
        effect,
        skewness,
        excess=float((z**4).mean() - 3),
        above=float((x > 0).mean() + (x == 0).mean() / 2),
        pairs_above=pairs,
        triples_above=max(float((others * (others - 1)).sum() / (n * (n - 1) * (n - 2))), pairs**2),
        on_t=z - effect / 2 * (z**2 - 1),
        on_skewness=z**3 - skewness - 3 * z - 1.5 * skewness * (z**2 - 1),
        on_ranks=others - others.mean(),
    )


def _power(shape: _Shape, n: int, level: float) -> float:
    """The chance that both tests are significant on the side of the mean."""
    critical = _critical_rank_sum(n, level)
    if critical is None or n < 2:
        return 0.0
    p1, p2, p3 = shape.above, shape.pairs_above, shape.triples_above
    mean = n * p1 + n * (n - 1) / 2 * p2
    variance = n * (n - 1) * (n - 2) * (p3 - p2**2) + n * p1 * (1 - p1)
    variance += n * (n - 1) / 2 * (2 * (p1 - p2) ** 2 + 3 * p2 * (1 - p2))
    ranks = (critical - 0.5 - mean) / math.sqrt(max(variance, 1e-12))
    t, with_skewness = _critical_t(shape, n, level)
    centre = shape.effect * math.sqrt(n) * (1 + 3 * (2 + shape.excess) / (8 * n)) - shape.skewness / (2 * math.sqrt(n))
    on_t = shape.on_t + with_skewness / n * shape.on_skewness
    spread, on_ranks = max(float(on_t.std()), 0.2), float(shape.on_ranks.std())
    together = float((on_t * shape.on_ranks).mean()) / (spread * on_ranks) if on_ranks > 0 else 1.0
    return _both_above(ranks, (t - centre) / spread, together)


def _critical_t(shape: _Shape, n: int, level: float) -> tuple[float, float]:
    """The t above which the mean is significant, and by how much of √n a larger skewness lowers it.

    Student's quantile, or that of the bootstrap's t (Hall's expansion to 1/n) where it is used and is larger.
    """
    student = float(special.stdtrit(n - 1, 1 - level / 2))
    if not FEWEST_RESAMPLED <= n < FEWEST_BCA or shape.skewness > _CLEARLY_SKEWED:
        return student, 0.0
    z, g = float(special.ndtri(1 - level / 2)), shape.skewness
    first = (2 * z**2 + 1) / 6
    second = g**2 * (z * first * 2 / 3 - z * first**2 / 2 + z * (z**4 + 2 * z**2 - 3) / 18)
    second -= shape.excess * z * (z**2 - 3) / 12
    hall = student - g * first / math.sqrt(n) + second / n
    return (hall, first) if hall > student else (student, 0.0)


@lru_cache(maxsize=4096)
def _critical_rank_sum(n: int, level: float) -> float | None:
    """The smallest sum of positive ranks that is significant; None where none is."""
    if n <= 50:
        found = np.flatnonzero(2 * signed_rank_tail(n) < level)
        return float(found[0]) if found.size else None
    error = math.sqrt(n * (n + 1) * (2 * n + 1) / 24)
    return n * (n + 1) / 4 + float(special.ndtri(1 - level / 2)) * error + 0.5


def _both_above(a: float, b: float, together: float) -> float:
    """P(A > a and B > b) for standard normal A, B with this correlation."""
    rest = math.sqrt(max(1 - together**2, 1e-6))
    # Quadrature over the quantiles of A beyond a.
    if together > 0.999:
        return float(special.ndtr(-max(a, b)))
    below = special.ndtr(a) + special.ndtr(-a) * (np.arange(200) + 0.5) / 200
    inner = special.ndtr((together * special.ndtri(below) - b) / rest)
    return float(special.ndtr(-a) * inner.mean())
