"""From the tidy frame of a run to answers: means with intervals, paired comparisons, a ranking with groups.

All functions take the frame that `Run.scores()` returns. Draws are averaged within an image first; images are what is
resampled, so that intervals speak of new images. An image counts for a method when it holds all the draws that the
method has in this run, with finite scores; each comparison uses the images that count for both.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from faithmap.errors import CurveError
from faithmap.protocol import RANDOM
from faithmap.statistics.aim import aim_of
from faithmap.statistics.bootstrap import Means, mean_intervals
from faithmap.statistics.per_image import PerImage, abpc_of, aopc_of, curves_of
from faithmap.statistics.significance import POWER, holm, images_needed, letters, signed_rank_p


def per_image_curves(frame: pd.DataFrame, score: str = "logit", order: str = "morf") -> pd.DataFrame:
    """Score curves, draws averaged within an image.

    Args:
        frame: from `Run.scores()`.
        score: ``"logit"`` or ``"probability"``.
        order: ``"morf"`` or ``"lerf"``.
    Returns:
        Rows (image, method), columns step; NaN at steps that are missing.
    Raises:
        CurveError: a frame without the columns or rows that are needed.
    """
    return _wide(curves_of(frame, score, order))


def per_image_aopc(
    frame: pd.DataFrame, score: str = "logit", order: str = "morf", *, relative: bool = False
) -> pd.DataFrame:
    """AOPC of every image, draws averaged within an image.

    Args:
        frame, score, order: as in `per_image_curves`.
        relative: subtract the AOPC of random orders on the same image.
    Returns:
        Rows (image, method), columns step.
    """
    per_image = aopc_of(frame, score, order)
    return _wide(replace(per_image, values=per_image.relative()) if relative else per_image)


def curve_table(
    frame: pd.DataFrame,
    score: str = "logit",
    order: str = "morf",
    steps: Iterable[int] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Mean score per method and step, with intervals.

    Args:
        frame, score, order: as in `per_image_curves`.
        steps, confidence, seed: as in `aopc_table`.
    Returns:
        Columns as in `aopc_table`.
    """
    per_image = curves_of(frame, score, order)
    return _table(per_image, per_image.values, steps, confidence, seed)


def aopc_table(
    frame: pd.DataFrame,
    score: str = "logit",
    relative: bool = True,
    steps: Iterable[int] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    order: str = "morf",
) -> pd.DataFrame:
    """Mean AOPC per method and step, with intervals.

    Args:
        frame, score, order: as in `per_image_curves`.
        relative: to random orders on the same image.
        steps: which steps; all by default.
        confidence, seed: of the bootstrap over images.
    Returns:
        Columns method, step, mean, low, high, n (images), left_out (images of the frame that do not count), interval
        (how it was computed: see `bootstrap.mean_intervals`).
    """
    per_image = aopc_of(frame, score, order)
    values = per_image.relative() if relative else per_image.values
    return _table(per_image, values, steps, confidence, seed)


def abpc_table(
    frame: pd.DataFrame,
    score: str = "logit",
    steps: Iterable[int] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Mean area between the LeRF and the MoRF curve per method and step, with intervals.

    Args:
        frame, score, steps, confidence, seed: as in `aopc_table`.
    Returns:
        Columns as in `aopc_table`.
    Raises:
        CurveError: the run holds one order only.
    """
    per_image = abpc_of(frame, score)
    return _table(per_image, per_image.values, steps, confidence, seed)


def compare(
    frame: pd.DataFrame,
    score: str = "logit",
    step: int | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    order: str = "morf",
    power: float = POWER,
) -> pd.DataFrame:
    """All pairs of methods on the same images and the same noise, at one step.

    Args:
        frame, score, order: as in `per_image_curves`.
        step: AOPC up to this step; the last by default.
        confidence: of the intervals; the tests' level is 1 − confidence.
        seed: of the bootstrap over images.
        power: the chance of telling a pair apart at which `images_needed` is computed.
    Returns:
        One row a pair, the method with the higher mean as `a`:
        a, b; n (images that count for both), left_out;
        difference (mean of a − b), low, high, interval;
        p (Wilcoxon signed-rank, two-sided), p_holm (corrected over the pairs);
        p_mean (of the mean difference, from the same bootstrap), p_mean_holm;
        told_apart (both corrected p-values are below 1 − confidence);
        a_beats_b (share of the images on which a has the higher AOPC, ties count half);
        effect_size (Cohen's d of paired differences: mean over standard deviation);
        images_needed (images at which such a difference is told apart with this power; NaN when there is none),
        more_images (images_needed − n; 0 when told apart).
    Source:
        Wilcoxon 1945; Holm 1979; for the number of images Guenther 1981, at the level of Holm's first step.
    """
    per_image = aopc_of(frame, score, order)
    return _compare(per_image, per_image.values[:, :, _step(per_image, step)], confidence, seed, power)


def ranking(
    frame: pd.DataFrame,
    score: str = "logit",
    step: int | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    order: str = "morf",
    direction: str = "remove",
) -> pd.DataFrame:
    """Methods from best to worst, in groups that cannot be told apart.

    Args:
        frame, score, step, confidence, seed, order: as in `compare`.
        direction: the protocol's; with it the order decides whether a high or a low AOPC is good.
    Returns:
        Best on top: rank, method, mean (AOPC relative to random), low, high, n, left_out, interval,
        group (letters: two methods that share one are not told apart),
        told_from_next (from the method one rank below),
        more_images (needed to tell it from that one, see `compare`).
    Source:
        Piepho 2004 for the letters.
    """
    per_image = aopc_of(frame, score, order)
    return _ranking(per_image, _step(per_image, step), confidence, seed, aim_of(direction, order)[0])[0]


def agreement(frame: pd.DataFrame, score: str = "logit", step: int | None = None, order: str = "morf") -> pd.DataFrame:
    """Spearman's rank correlation over the images of the methods' AOPC relative to random.

    Args:
        frame, score, order: as in `per_image_curves`.
        step: AOPC up to this step; the last by default.
    Returns:
        Methods × methods without random, each pair over the images that count for both; NaN where one of them is
        constant. Without the subtraction every pair would agree, as some images fall fast under any order.
    """
    per_image = aopc_of(frame, score, order)
    relative = per_image.relative()[:, :, _step(per_image, step)]
    values = pd.DataFrame(relative, columns=pd.Index(per_image.methods, name="method")).drop(columns=RANDOM)
    return values.corr("spearman", min_periods=3)


def chosen_images(
    frame: pd.DataFrame,
    score: str = "logit",
    step: int | None = None,
    order: str = "morf",
    direction: str = "remove",
) -> dict[str, str]:
    """The images on which the methods are, on average, best, median and worst relative to random.

    Args:
        frame, score, step, order, direction: as in `ranking`.
    Returns:
        "best", "median", "worst" → image; fewer where there are fewer images. Only images that count for most methods.
    """
    per_image = aopc_of(frame, score, order)
    heatmaps = [i for i, name in enumerate(per_image.methods) if name != RANDOM]
    relative = aim_of(direction, order)[0] * per_image.relative()[:, heatmaps, _step(per_image, step)]
    counts = np.isfinite(relative).sum(1)
    full = np.flatnonzero((counts == counts.max()) & (counts > 0))
    best_first = full[np.argsort(-np.nansum(relative[full], 1), kind="stable")]
    chosen: dict[str, str] = {}
    for name, place in {"best": 0, "median": len(full) // 2, "worst": len(full) - 1}.items():
        if len(full) and str(per_image.images[best_first[place]]) not in chosen.values():
            chosen[name] = str(per_image.images[best_first[place]])
    return chosen


def _wide(per_image: PerImage) -> pd.DataFrame:
    index = pd.MultiIndex.from_product([per_image.images, per_image.methods], names=["image", "method"])
    flat = per_image.values.reshape(len(index), -1)
    kept = np.isfinite(flat).any(1)
    return pd.DataFrame(flat[kept], index=index[kept], columns=pd.RangeIndex(flat.shape[1], name="step"))


def _table(
    per_image: PerImage, values: np.ndarray, steps: Iterable[int] | None, confidence: float, seed: int
) -> pd.DataFrame:
    chosen = range(values.shape[2]) if steps is None else [_step(per_image, step) for step in steps]
    values = values[:, :, list(chosen)]
    means = mean_intervals(values.reshape(len(values), -1), confidence, seed)
    return pd.DataFrame(
        {
            "method": np.repeat(np.array(per_image.methods, dtype=object), len(chosen)),
            "step": np.tile(np.array(chosen, dtype=np.int64), len(per_image.methods)),
            **_columns(means, len(values)),
        }
    )


def _columns(means: Means, images: int, mean: str = "mean") -> dict[str, np.ndarray]:
    return {
        mean: means.mean,
        "low": means.low,
        "high": means.high,
        "n": means.n,
        "left_out": images - means.n,
        "interval": means.interval,
    }


def _step(per_image: PerImage, step: int | None) -> int:
    if step is None:
        return per_image.last_step
    if not 0 <= step <= per_image.last_step:
        raise CurveError(f"step {step} is not in this run, which holds steps 0…{per_image.last_step}.")
    return int(step)


def _compare(per_image: PerImage, aopc: np.ndarray, confidence: float, seed: int, power: float) -> pd.DataFrame:
    names = np.array(per_image.methods, dtype=object)
    first, second = np.triu_indices(len(names), 1)
    difference = aopc[:, first] - aopc[:, second]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the mean of no images is NaN
        swap = np.nanmean(difference, 0) < 0
    first, second = np.where(swap, second, first), np.where(swap, first, second)
    difference[:, swap] *= -1
    means = mean_intervals(difference, confidence, seed)
    level = 1 - confidence
    p = signed_rank_p(difference)
    p_holm, p_mean_holm = holm(p), holm(means.p)
    told_apart = (p_holm < level) & (p_mean_holm < level)
    effect = _effect_size(difference, means)
    needed = images_needed(effect, level / max(1, np.isfinite(p).sum()), power)
    more = np.where(told_apart, 0, np.where(needed > means.n, needed - means.n, np.nan))
    pairs = pd.DataFrame(
        {
            "a": names[first],
            "b": names[second],
            **_columns(means, len(aopc), "difference"),
            "p": p,
            "p_holm": p_holm,
            "p_mean": means.p,
            "p_mean_holm": p_mean_holm,
            "told_apart": told_apart,
            "a_beats_b": _share_of_wins(difference),
            "effect_size": effect,
            "images_needed": needed,
            "more_images": more,
        }
    )
    place = {name: i for i, name in enumerate(_best_first(per_image.methods, aopc))}
    by_rank = pairs.assign(first=pairs["a"].map(place), second=pairs["b"].map(place)).sort_values(["first", "second"])
    return by_rank.drop(columns=["first", "second"]).reset_index(drop=True)


def _effect_size(difference: np.ndarray, means: Means) -> np.ndarray:
    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)
        effect: np.ndarray = means.mean / np.nanstd(difference, axis=0, ddof=1)
    constant = means.interval == "constant"
    effect[constant] = np.where(means.mean[constant] == 0, 0, np.copysign(np.inf, means.mean[constant]))
    return effect


def _share_of_wins(difference: np.ndarray) -> np.ndarray:
    n = np.isfinite(difference).sum(0)
    wins = (difference > 0).sum(0) + 0.5 * (difference == 0).sum(0)
    share: np.ndarray = np.where(n > 0, wins / np.maximum(n, 1), np.nan)
    return share


def _best_first(methods: Sequence[str], values: np.ndarray) -> list[str]:
    """Methods by mean, those without any value last; ties by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        mean = np.nanmean(values, 0)
    return [methods[i] for i in np.argsort(-mean, kind="stable")]


def _ranking(
    per_image: PerImage, step: int, confidence: float, seed: int, sign: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    relative = per_image.relative()[:, :, step]
    order = _best_first(per_image.methods, sign * relative)
    at = [per_image.methods.index(name) for name in order]
    pairs = _compare(per_image, per_image.values[:, :, step], confidence, seed, POWER)
    told = {frozenset(pair) for pair in pairs.loc[pairs["told_apart"], ["a", "b"]].itertuples(index=False, name=None)}
    more = {frozenset((a, b)): m for a, b, m in pairs[["a", "b", "more_images"]].itertuples(index=False, name=None)}
    following = [frozenset(pair) for pair in itertools.pairwise(order)]
    table = pd.DataFrame(
        {
            "rank": range(1, len(order) + 1),
            "method": order,
            **_columns(mean_intervals(relative[:, at], confidence, seed), len(relative)),
            "group": letters(order, told),
            "told_from_next": pd.array([pair in told for pair in following] + [None], dtype="boolean"),
            "more_images": [more[pair] for pair in following] + [np.nan],
        }
    )
    return table, pairs
