"""Means over independent units with confidence intervals, and tests of a mean: arrays in, arrays out.

A unit is a group of images, represented by its mean (`groups.group_means`), or an image that is its own group.
Resampling units is the cluster bootstrap of the mean over groups.

Which interval, and why (`benchmarks/coverage.py` measures it): with few units BCa is too short, worst when scores are
skewed. The studentised bootstrap keeps its level under skew but is too short under heavy tails, where Student's t is
right; so below 200 units an end at which Student's t reaches further is put half-way between the two, and from 200 on
BCa holds. Below ten units too few resamples differ, and Student's t is used alone, which takes the values to be
roughly normal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import special, stats

from faithmap.errors import CurveError

RESAMPLES = 4999
FEWEST_RESAMPLED = 10
FEWEST_BCA = 200
_CHUNK = 4_000_000  # counts in memory at once


@dataclass(frozen=True)
class Means:
    """One mean a column, with its interval.

    Attributes:
        mean, low, high: NaN where there is nothing to say: no units, or for the interval only one.
        n: units that have a value.
        p: two-sided, of the hypothesis that the true mean is zero: of Student's t, and from 10 to 199 units the larger
            of it and the studentised bootstrap's.
        interval: "none", "constant", "student", "studentised", "bca" or "percentile".
    """

    mean: Float[np.ndarray, "columns"]
    low: Float[np.ndarray, "columns"]
    high: Float[np.ndarray, "columns"]
    n: Int[np.ndarray, "columns"]
    p: Float[np.ndarray, "columns"]
    interval: np.ndarray

    @classmethod
    def nothing(cls, n: Int[np.ndarray, "columns"]) -> Means:
        """NaN throughout."""
        mean, low, high, p = np.full((4, len(n)), np.nan)
        return cls(mean, low, high, n, p, np.full(len(n), "none", dtype=object))


def mean_intervals(
    values: Float[np.ndarray, "units columns"],
    confidence: float = 0.95,
    seed: int = 0,
    *,
    interval: str = "auto",
    resamples: int = RESAMPLES,
) -> Means:
    """Means over units with bootstrap intervals.

    Args:
        values: NaN where a unit has no value; it is then left out of that column. Columns that have the same units
            meet the same resamples.
        confidence: of the two-sided interval.
        seed: of the resampling.
        interval: "student", "studentised", "bca", "percentile", or "auto" for the one that holds at this n. Where
            one is not defined (nearly all values equal), "percentile" is used instead and named in the result.
        resamples: of the bootstrap.
    Source:
        Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapters 12 (bootstrap-t) and 14 (BCa).
    """
    if not 0 < confidence < 1:
        raise CurveError(f"confidence is {confidence:g}, expected a number between 0 and 1, such as 0.95.")
    finite = np.isfinite(values)
    result = Means.nothing(finite.sum(0))
    for rows, at in _column_groups(finite):
        part = _same_units(values[np.ix_(rows, at)], confidence, seed, interval, resamples)
        for field in fields(Means):
            getattr(result, field.name)[at] = getattr(part, field.name)
    return result


def _column_groups(finite: Bool[np.ndarray, "units columns"]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows and columns of each set of columns that have the same units."""
    packed = np.ascontiguousarray(np.packbits(finite, axis=0).T)
    keys = packed.view([("", packed.dtype, packed.shape[1])]).ravel() if packed.size else np.empty(0)
    _, first, which = np.unique(keys, return_index=True, return_inverse=True)
    for group, column in enumerate(first):
        yield np.flatnonzero(finite[:, column]), np.flatnonzero(which == group)


def _same_units(
    x: Float[np.ndarray, "units columns"], confidence: float, seed: int, interval: str, resamples: int
) -> Means:
    n, columns = x.shape
    result = Means.nothing(np.full(columns, n))
    mean = result.mean
    if n == 0:
        return result
    constant = np.ptp(x, axis=0) <= 1e-12 * np.abs(x).max(0)
    mean[:] = np.where(constant, x[0], x.mean(0))
    if n == 1:
        return result
    for field in (result.low, result.high):
        field[constant] = mean[constant]
    result.p[constant] = np.where(mean[constant] == 0, 1.0, 0.0)
    result.interval[constant] = "constant"
    at = np.flatnonzero(~constant)
    if at.size:
        kind = interval
        if interval == "auto":
            kind = "student" if n < FEWEST_RESAMPLED else "studentised" if n < FEWEST_BCA else "bca"
        low, high, p, kinds = _INTERVALS[kind](x[:, at] - mean[at], mean[at], 1 - confidence, seed, resamples)
        result.low[at], result.high[at], result.p[at], result.interval[at] = low, high, p, kinds
    return result


_Ends = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # low, high, p, interval


def _student(xc: np.ndarray, mean: np.ndarray, alpha: float, seed: int, resamples: int) -> _Ends:
    n = len(xc)
    error = xc.std(0, ddof=1) / np.sqrt(n)
    reach = stats.t.ppf(1 - alpha / 2, n - 1) * error
    p = 2 * stats.t.sf(np.abs(mean) / error, n - 1)
    return mean - reach, mean + reach, p, np.full(len(mean), "student", object)


def _studentised(xc: np.ndarray, mean: np.ndarray, alpha: float, seed: int, resamples: int) -> _Ends:
    """Quantiles of t* = (mean* − mean) / error* around the mean; half-way to Student's t where that reaches further."""
    n = len(xc)
    error = xc.std(0, ddof=1) / np.sqrt(n)
    shift, square = _resampled_moments(xc, seed, resamples)
    variance = np.maximum(square - shift**2, 0) / (n - 1)
    variance[variance <= 1e-20 * error**2] = 0
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(shift == 0, 0, shift / np.sqrt(variance))
    q_low = np.quantile(t, alpha / 2, axis=0, method="lower")
    q_high = np.quantile(t, 1 - alpha / 2, axis=0, method="higher")
    student_low, student_high, student_p, _ = _student(xc, mean, alpha, seed, resamples)
    low, high = mean - q_high * error, mean - q_low * error
    low, high = (low + np.minimum(low, student_low)) / 2, (high + np.maximum(high, student_high)) / 2
    p = np.maximum(_fraction_beyond(t, mean / error, student_p), student_p)
    kind = np.full(len(mean), "studentised", object)
    undefined = ~(np.isfinite(low) & np.isfinite(high))
    if undefined.any():
        ends = _percentile(xc[:, undefined], mean[undefined], alpha, seed, resamples)
        low[undefined], high[undefined], p[undefined], kind[undefined] = ends
    return low, high, p, kind


def _bca(xc: np.ndarray, mean: np.ndarray, alpha: float, seed: int, resamples: int) -> _Ends:
    """Percentiles of mean*, corrected for bias z0 and acceleration a, which the jackknife gives in closed form."""
    shift, _ = _resampled_moments(xc, seed, resamples)
    with np.errstate(divide="ignore", invalid="ignore"):
        z0 = special.ndtri(((shift < 0).sum(0) + (shift <= 0).sum(0)) / (2 * resamples))
        a = (xc**3).sum(0) / (6 * (xc**2).sum(0) ** 1.5)
        z = special.ndtri(np.array([alpha / 2, 1 - alpha / 2]))[:, None]
        level = special.ndtr(z0 + (z0 + z) / (1 - a * (z0 + z)))
    kind = np.where(np.isfinite(level).all(0), "bca", "percentile").astype(object)
    level = np.where(np.isfinite(level), level, [[alpha / 2], [1 - alpha / 2]])
    low, high = mean + _quantiles(shift, level)
    return low, high, _student(xc, mean, alpha, seed, resamples)[2], kind


def _percentile(xc: np.ndarray, mean: np.ndarray, alpha: float, seed: int, resamples: int) -> _Ends:
    shift, _ = _resampled_moments(xc, seed, resamples)
    low, high = mean + np.quantile(shift, [alpha / 2, 1 - alpha / 2], axis=0)
    p = _student(xc, mean, alpha, seed, resamples)[2]
    return low, high, p, np.full(len(mean), "percentile", object)


_INTERVALS = {"student": _student, "studentised": _studentised, "bca": _bca, "percentile": _percentile}


def _resampled_moments(xc: np.ndarray, seed: int, resamples: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean of x and of x² in every resample, (resamples, columns); resamples depend on the seed and on n alone."""
    n = len(xc)
    both = np.concatenate([xc, xc**2], 1)
    generator = np.random.default_rng(seed)
    moments = np.empty((resamples, both.shape[1]))
    size = max(1, _CHUNK // n)
    for start in range(0, resamples, size):
        rows = min(size, resamples - start)
        chosen = generator.integers(0, n, (rows, n)) + n * np.arange(rows)[:, None]
        counts = np.bincount(chosen.ravel(), minlength=rows * n).reshape(rows, n)
        moments[start : start + rows] = counts.astype(np.float64) @ both / n
    return moments[:, : xc.shape[1]], moments[:, xc.shape[1] :]


def _fraction_beyond(t: np.ndarray, observed: np.ndarray, fallback: np.ndarray) -> np.ndarray:
    """Twice the fraction of t* beyond the observed t, on its side; where no resample gets there, the fallback."""
    beyond = np.minimum((t >= observed).sum(0), (t <= observed).sum(0))
    return np.where(beyond > 0, np.minimum(1, 2 * (beyond + 1) / (len(t) + 1)), fallback)


def _quantiles(values: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Linear quantiles (levels, columns), another level for each column."""
    ordered = np.sort(values, axis=0)
    place = level * (len(values) - 1)
    below = np.floor(place).astype(int)
    above = np.minimum(below + 1, len(values) - 1)
    lower, upper = np.take_along_axis(ordered, below, 0), np.take_along_axis(ordered, above, 0)
    between: np.ndarray = lower + (place - below) * (upper - lower)
    return between
