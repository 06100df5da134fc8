"""From the tidy frame of a run to answers: means with intervals, paired comparisons, a ranking with groups.

All functions take the frame that `Run.scores()` returns. Draws are averaged within an image first; images are what is
resampled, so that intervals speak of new images. An image counts for a method when it holds all the draws that the
method has in this run, with finite scores; each comparison uses the images that count for both.
"""

from __future__ import annotations

import itertools
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from faithmap.errors import CurveError
from faithmap.naming import RANDOM, display_name
from faithmap.statistics.bootstrap import Means, mean_intervals
from faithmap.statistics.per_image import PerImage, abpc_of, aopc_of, curves_of
from faithmap.statistics.significance import POWER, holm, images_needed, letters, signed_rank_p

# (direction, order) → sign of a good AOPC, and what the best method does.
_AIMS = {
    ("remove", "morf"): (1, "removes evidence fastest", "removes evidence faster"),
    ("remove", "lerf"): (-1, "keeps evidence longest", "keeps evidence longer"),
    ("restore", "morf"): (-1, "brings evidence back fastest", "brings evidence back faster"),
    ("restore", "lerf"): (1, "brings evidence back last", "brings evidence back later"),
}


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
    return _ranking(per_image, _step(per_image, step), confidence, seed, _aim(direction, order)[0])[0]


def headline(
    frame: pd.DataFrame,
    score: str = "logit",
    step: int | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    order: str = "morf",
    direction: str = "remove",
) -> str:
    """The answer in one sentence.

    Args:
        frame, score, step, confidence, seed, order, direction: as in `ranking`.
    Example:
        "LRP-ε (0.01) removes evidence fastest: AOPC 0.083 above random (probability, 1000 images), 95 % interval 0.071
        to 0.095; it cannot be told from LRP-ε (0)."
    """
    per_image = aopc_of(frame, score, order)
    table, pairs = _ranking(per_image, _step(per_image, step), confidence, seed, _aim(direction, order)[0])
    return _headline(table, pairs, score, confidence, _aim(direction, order))


def subsets(
    frame: pd.DataFrame,
    score: str = "logit",
    step: int | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    labels: Mapping[int, str] | Sequence[str] | None = None,
) -> pd.DataFrame:
    """Mean AOPC relative to random on parts of the images.

    Args:
        frame, score, step, confidence, seed: as in `compare`.
        labels: class index → name; the number itself where there is none.
    Returns:
        Columns by, subset, then as in `aopc_table` without step (left_out counts within the subset). `by` is "class"
        (of images whose class is known), "prediction" ("right", "wrong") and, where there are images named
        ILSVRC2012_val_*, "split" ("clean": ImageNet's validation images; "training": the rest, which the network has
        seen if it was trained on ImageNet).
    """
    per_image = aopc_of(frame, score)
    values = per_image.relative()[:, :, [_step(per_image, step)]]
    tables = []
    for by, names in _subset_names(frame, per_image.images, labels).items():
        for name in sorted(set(names[pd.notna(names)])):
            rows = names == name
            part = PerImage(per_image.images[rows], per_image.methods, values[rows])
            tables.append(_table(part, part.values, None, confidence, seed).assign(by=by, subset=name))
    columns = ["by", "subset", "method", "mean", "low", "high", "n", "left_out", "interval"]
    return pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=columns)


def agreement(frame: pd.DataFrame, score: str = "logit", step: int | None = None, order: str = "morf") -> pd.DataFrame:
    """Spearman's rank correlation of the methods' AOPC over the images.

    Args:
        frame, score, order: as in `per_image_curves`.
        step: AOPC up to this step; the last by default.
    Returns:
        Methods × methods, each pair over the images that count for both; NaN where one of them is constant. What a
        method shares with random is due to the images, not to the heatmaps.
    """
    per_image = aopc_of(frame, score, order)
    names = pd.Index(per_image.methods, name="method")
    return pd.DataFrame(per_image.values[:, :, _step(per_image, step)], columns=names).corr("spearman", min_periods=3)


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
    relative = _aim(direction, order)[0] * per_image.relative()[:, heatmaps, _step(per_image, step)]
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


def _aim(direction: str, order: str) -> tuple[int, str, str]:
    if (str(direction), str(order)) not in _AIMS:
        raise CurveError(f"direction '{direction}' with order '{order}': give 'remove' or 'restore', 'morf' or 'lerf'.")
    return _AIMS[str(direction), str(order)]


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


def _headline(
    table: pd.DataFrame, pairs: pd.DataFrame, score: str, confidence: float, aim: tuple[int, str, str]
) -> str:
    sign, does_best, does_better = aim
    rest = table[(table["method"] != RANDOM) & (table["n"] > 0)]
    if rest.empty:
        return "No heatmap method was measured, only random orders."
    best = rest.iloc[0]
    name, images = display_name(best["method"]), f"{best['n']} image{'s' if best['n'] != 1 else ''}"
    mean, low, high = _rounded(best["mean"], best["low"], best["high"])
    where = f"({score}, {images})"
    extreme = "highest" if sign > 0 else "lowest"
    if not np.isfinite(best["low"]):
        return f"{name} has the {extreme} AOPC, {mean} relative to random {where}: too few images for an interval."
    interval = f"{100 * confidence:g} % interval {low} to {high}"
    alike = [
        b if a == best["method"] else a
        for a, b, told in pairs[["a", "b", "told_apart"]].itertuples(index=False, name=None)
        if best["method"] in (a, b) and not told
    ]
    if RANDOM in alike or sign * best["mean"] <= 0:
        verdict = "can be told from random orders" if RANDOM in alike else f"{does_better} than random orders"
        return f"No method {verdict}: the best, {name}, has AOPC {mean} relative to random {where}, {interval}."
    if alike:
        others = f"it cannot be told from {_listed([display_name(other) for other in alike])}"
    else:
        others = "it is told apart from every other method" if len(rest) > 1 else "it is the only method"
    beside = f"{mean} above random" if sign > 0 else f"{mean} relative to random"
    return f"{name} {does_best}: AOPC {beside} {where}, {interval}; {others}."


def _rounded(mean: float, low: float, high: float) -> list[str]:
    """With two digits of the interval's half width, and one more where an end would show as zero."""
    width = abs(high - low) / 2 or abs(mean)
    if not np.isfinite(width):
        return [f"{value:.3g}".replace("-", "−") for value in (mean, low, high)]
    smallest = min((abs(end) for end in (low, high) if end), default=1.0)
    digits = max(0, 1 - _magnitude(width), min(-_magnitude(smallest), 2 - _magnitude(width)))
    return [f"{value:z.{digits}f}".replace("-", "−") for value in (mean, low, high)]


def _magnitude(value: float) -> int:
    return int(np.floor(np.log10(value))) if value else 0


def _listed(names: Sequence[str], most: int = 3) -> str:
    shown = list(names) if len(names) <= most else [*names[: most - 1], f"{len(names) - most + 1} others"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _subset_names(
    frame: pd.DataFrame, images: np.ndarray, labels: Mapping[int, str] | Sequence[str] | None
) -> dict[str, np.ndarray]:
    """By what → the name of each image's subset, missing where it is in none."""
    first = frame.drop_duplicates("image").set_index("image").loc[images]
    by: dict[str, np.ndarray] = {}
    if "label" in first and first["label"].notna().any():
        known = first["label"].notna().to_numpy()
        label = first["label"].fillna(-1).to_numpy(dtype=np.int64)
        names = _class_names(sorted(set(label[known].tolist())), labels)
        by["class"] = np.array([names.get(i) for i in label.tolist()], dtype=object)
        if "predicted" in first:
            right = np.where(label == first["predicted"].to_numpy(), "right", "wrong").astype(object)
            right[~known] = None
            by["prediction"] = right
    clean = np.array([bool(re.search(r"(^|/)ILSVRC2012_val_[^/]*$", str(image))) for image in images])
    if clean.any():
        by["split"] = np.where(clean, "clean", "training").astype(object)
    return by


def _class_names(indices: Sequence[int], labels: Mapping[int, str] | Sequence[str] | None) -> dict[int, str]:
    """Class index → name; a name that two classes share is followed by the index."""
    given = dict(labels) if isinstance(labels, Mapping) else dict(enumerate(labels or ()))
    names = {index: str(given.get(index, index)) for index in indices}
    shared = [name for name, count in Counter(names.values()).items() if count > 1]
    return {index: f"{name} ({index})" if name in shared else name for index, name in names.items()}
