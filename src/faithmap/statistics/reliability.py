"""The grade of a measure: how far its ranking can be trusted here, before anybody reads it.

Between images, between draws, image by image, at both ends of the order, between settings, and against known answers.
"""

from __future__ import annotations

from dataclasses import dataclass

import krippendorff
import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy import stats

from faithmap.errors import CurveError
from faithmap.protocol import Order
from faithmap.statistics.bootstrap import mean_intervals
from faithmap.statistics.groups import group_means
from faithmap.statistics.measured import Measured, measured
from faithmap.statistics.resampling import by_group, correlation_interval, counts_of, weighted_means
from faithmap.statistics.settings import taus

SPLITS, RESAMPLES = 400, 499
AIM = 0.8
"""Kendall's τ between two rankings at which 90 % of the pairs of methods stand the same way round in both."""
_FEWEST_GROUPS = 4


@dataclass(frozen=True)
class Value:
    """A number between −1 and 1 with its interval over groups; NaN where there is none."""

    value: float
    low: float = np.nan
    high: float = np.nan


NOTHING = Value(np.nan)


@dataclass(frozen=True)
class SplitHalf:
    """How alike two halves of the groups rank the methods.

    Attributes:
        half: mean Kendall τ between two random halves, with its interval.
        whole: the same between two sets as large as this one, by the Spearman–Brown formula.
        groups: in this set.
        groups_needed: in each of two sets for a τ of `AIM`; NaN where halves do not agree at all.
    """

    half: Value
    whole: Value
    groups: int
    groups_needed: float


def split_half(one: Measured, confidence: float = 0.95, seed: int = 0, splits: int = SPLITS) -> SplitHalf:
    """How alike two halves of the groups rank the methods, and how many groups would bring them to τ = 0.8.

    Args:
        one: a measure; references of what is attainable and known answers are left out.
        confidence: of the interval, from a jackknife over (blocks of) groups.
        seed, splits: of the random halves.
    Source:
        Spearman 1910 and Brown 1910 for the length of a test, applied to the correlation ρ of the methods' means in two
        sets, with τ = 2/π arcsin ρ (Greiner 1909): both hold for normal values.
    """
    table = by_group(one.candidates()).dropna(axis=1, how="all").dropna().to_numpy()
    groups, methods = table.shape
    if groups < _FEWEST_GROUPS or methods < 3:
        return SplitHalf(NOTHING, NOTHING, groups, np.nan)
    value = _split_half_tau(table, seed, splits)
    if not np.isfinite(value):
        return SplitHalf(NOTHING, NOTHING, groups, np.nan)
    blocks = np.array_split(np.random.default_rng(seed).permutation(groups), min(groups, 20))
    kept = [np.delete(table, block, axis=0) for block in blocks]
    without = np.array([_split_half_tau(part, seed, splits) for part in kept if len(part) >= 2])
    low, high = correlation_interval(value, without, confidence, scale=(len(blocks) - 1) / np.sqrt(len(blocks)))
    rho, aim = np.sin(np.pi * value / 2), np.sin(np.pi * AIM / 2)
    needed = max(2.0, float(np.ceil(groups / 2 * aim * (1 - rho) / (rho * (1 - aim))))) if rho > 0 else np.nan
    whole = Value(_twice_as_long(value), _twice_as_long(low), _twice_as_long(high))
    return SplitHalf(Value(value, low, high), whole, groups, needed)


def _twice_as_long(tau: float) -> float:
    """Kendall's τ between two sets from that between sets of half their size."""
    rho = np.sin(np.pi * tau / 2)
    return float(2 / np.pi * np.arcsin(max(2 * rho / (1 + rho), -1.0))) if rho > -0.99 else -1.0


def _split_half_tau(table: Float[np.ndarray, "groups methods"], seed: int, splits: int) -> float:
    n = len(table)
    generator = np.random.default_rng(seed)
    halves = np.argsort(generator.random((splits, n)), axis=1) < n // 2
    other = np.argsort(np.where(halves, 2.0, generator.random((splits, n))), axis=1)
    second = np.zeros_like(halves)  # of the same size, where n is odd
    np.put_along_axis(second, other[:, : n // 2], True, axis=1)
    means = np.stack([weighted_means(half.astype(float), table) for half in (halves, second)], 1)
    tau = taus(means)[:, 0, 1]
    finite = tau[np.isfinite(tau)]  # a half that ties all methods has no ranking
    return float(finite.mean()) if finite.size else np.nan


def between_draws(
    per_draw: list[Measured], confidence: float = 0.95, seed: int = 0, resamples: int = RESAMPLES
) -> Value:
    """Intraclass correlation: how alike two draws find the differences between methods on the same image.

    Args:
        per_draw: a measure of each draw alone.
        confidence, seed, resamples: of the percentile interval over groups.
    Returns:
        ICC(1): 1 where draws give the same differences, 0 where what is seen is the noise of the draw. NaN for fewer
        than two draws.
    Source:
        Shrout and Fleiss 1979, ICC(1,1). A target is an image and method; the mean over the methods of an image and
        draw is subtracted first, as what a draw does to all methods alike changes no ranking.
    """
    if len(per_draw) < 2:
        return NOTHING
    per_draw = [one.candidates() for one in per_draw]
    methods = [name for name in per_draw[0].methods if all(name in one.methods for one in per_draw)]
    images = np.array([image for image in per_draw[0].images if all(image in one.images for one in per_draw)])
    at = [np.searchsorted(one.images, images) for one in per_draw]
    values = np.stack([one.only(methods).values[rows] for one, rows in zip(per_draw, at, strict=True)], -1)
    complete = np.isfinite(values).all((1, 2))
    values, groups = values[complete], per_draw[0].groups[at[0]][complete]
    if len(values) < 2 or len(methods) < 3:
        return NOTHING
    values = values - values.mean(1, keepdims=True)
    draws = values.shape[-1]
    cell = values.mean(-1)
    between = draws * ((cell - cell.mean()) ** 2).sum(1)
    within = ((values - cell[..., None]) ** 2).sum((1, 2))
    parts = np.stack([between, within, np.ones(len(values))], 1)
    code, names = pd.factorize(groups)
    sums = np.zeros((len(names), 3))
    np.add.at(sums, code, parts)

    def icc(total: np.ndarray) -> np.ndarray:
        cells = total[:, 2] * len(methods)
        mean_between, mean_within = total[:, 0] / (cells - 1), total[:, 1] / (cells * (draws - 1))
        found: np.ndarray = (mean_between - mean_within) / (mean_between + (draws - 1) * mean_within)
        return found

    value = float(icc(sums.sum(0, keepdims=True))[0])
    if len(names) < 2:
        return Value(value)
    drawn = np.concatenate([icc(counts @ sums) for counts in counts_of(len(names), resamples, seed)])
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Value(value, float(low), float(high))


def per_image_agreement(one: Measured, confidence: float = 0.95, seed: int = 0, resamples: int = RESAMPLES) -> Value:
    """Krippendorff's α: how alike single images rank the methods.

    Args:
        one: a measure; references of what is attainable and known answers are left out.
        confidence, seed, resamples: of the percentile interval over groups.
    Returns:
        1 where every image ranks the methods alike, 0 where images agree as by chance.
    Source:
        Krippendorff 2011, Computing Krippendorff's Alpha-Reliability, for ordinal data: images are the raters and
        methods what they rate, as in Tomsett et al. 2020, Sanity Checks for Saliency Metrics.
    """
    one = one.candidates()
    ranks = stats.rankdata(one.values, axis=1, nan_policy="omit")
    if len(ranks) < 2 or np.isfinite(ranks).any(0).sum() < 2:
        return NOTHING
    levels = np.unique(ranks[np.isfinite(ranks)])
    code, names = pd.factorize(one.groups)
    counted = np.zeros((len(names), ranks.shape[1], len(levels)), dtype=np.int64)
    image, method = np.nonzero(np.isfinite(ranks))
    np.add.at(counted, (code[image], method, np.searchsorted(levels, ranks[image, method])), 1)
    value = krippendorff_alpha(counted.sum(0))
    if len(names) < 2:
        return Value(value)
    drawn = [
        krippendorff_alpha(np.tensordot(row.astype(np.int64), counted, 1))
        for counts in counts_of(len(names), resamples, seed)
        for row in counts
    ]
    if not np.isfinite(value) or not np.isfinite(drawn).any():
        return Value(value)
    low, high = np.nanquantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    # A group drawn twice agrees with itself, so that resamples sit too high by about 1/groups: shift them back.
    shift = float(np.nanmean(drawn)) - value
    return Value(value, min(value, float(low) - shift), min(1.0, max(value, float(high) - shift)))


def krippendorff_alpha(value_counts: Int[np.ndarray, "units values"]) -> float:
    """Krippendorff's α for ordinal data.

    Args:
        value_counts: how many raters gave each unit each value; values in rising order.
    Returns:
        NaN where all values are the same.
    """
    used = value_counts[:, value_counts.sum(0) > 0]
    if used.shape[1] < 2:
        return np.nan
    return float(krippendorff.alpha(value_counts=used, level_of_measurement="ordinal"))


def both_ends(
    frame: pd.DataFrame, score: str = "logit", direction: str = "remove", confidence: float = 0.95, seed: int = 0
) -> Value:
    """Mean over groups of Kendall's τ between the methods' ranking by MoRF and by LeRF on the same image.

    Args:
        frame: from `Run.scores()`, with both orders.
        score, direction: as in `measured`.
        confidence, seed: of the interval over groups.
    Returns:
        1 where removing the most relevant first and the least relevant first rank the methods alike; NaN where the run
        has one order, or no image has three methods.
    """
    if not {str(order) for order in Order} <= set(frame["order"].astype(str)):
        return NOTHING
    morf, lerf = (measured(frame, name, score, direction=direction).candidates() for name in ("morf", "lerf"))
    methods = [name for name in morf.methods if name in lerf.methods]
    first, second = morf.sign * morf.only(methods).values, lerf.sign * lerf.only(methods).values
    tau = np.full(len(first), np.nan)
    for image in range(len(first)):
        kept = np.isfinite(first[image]) & np.isfinite(second[image])
        if kept.sum() >= 3:
            tau[image] = taus(np.stack([first[image, kept], second[image, kept]])[None])[0, 0, 1]
    if not np.isfinite(tau).any():
        return NOTHING
    means = mean_intervals(group_means(tau[:, None], morf.groups), confidence, seed)
    low, high = np.clip([means.low[0], means.high[0]], -1, 1)  # the interval of a mean knows no bounds, τ has some
    return Value(float(means.mean[0]), float(low), float(high))


def draws_of(frame: pd.DataFrame, measure: str, score: str, direction: str) -> list[Measured]:
    """A measure of each draw alone, for the draws that every method has."""
    draws = [set(of.tolist()) for of in frame.groupby("method", observed=True)["draw"].unique()]
    common = sorted(set.intersection(*draws)) if draws else []
    found = []
    for draw in common if len(common) > 1 else ():
        try:
            found.append(measured(frame[frame["draw"] == draw], measure, score, direction=direction))
        except CurveError:  # a draw that has one order so far
            continue
    return found
