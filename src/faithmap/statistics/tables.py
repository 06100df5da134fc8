"""From the tidy frame of a run to tables: means over groups with intervals, and the numbers behind them.

All functions take the frame that `Run.scores()` returns. Draws are averaged within an image first, then images within
their group; groups are what is resampled, so that intervals speak of new groups. A frame without the column group has
one image in each. An image counts for a method when it holds all the draws that the method has in this run, with finite
scores; each comparison uses the images that count for both.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pandas as pd

from faithmap.arguments import checked
from faithmap.errors import CurveError
from faithmap.protocol import RANDOM, Direction, Order
from faithmap.statistics.bootstrap import mean_intervals
from faithmap.statistics.comparing import counted_columns
from faithmap.statistics.groups import group_means
from faithmap.statistics.measured import Measured, aim_of, r_oms
from faithmap.statistics.per_image import PerImage, abpc_of, aopc_of, both_orders, curves_of


@checked(CurveError)
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


@checked(CurveError)
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


@checked(CurveError)
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
    return table_of(per_image, per_image.values, steps, confidence, seed)


@checked(CurveError)
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
        confidence, seed: of the bootstrap over groups.
    Returns:
        Columns method, step, mean (over groups), low, high, groups, n (images), left_out (images of the frame that do
        not count), interval (how it was computed: see `bootstrap.mean_intervals`).
    """
    per_image = aopc_of(frame, score, order)
    values = per_image.relative() if relative else per_image.values
    return table_of(per_image, values, steps, confidence, seed)


@checked(CurveError)
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
    return table_of(per_image, per_image.values, steps, confidence, seed)


@checked(CurveError)
def gap_table(
    frame: pd.DataFrame,
    score: str = "logit",
    direction: str = "remove",
    steps: Iterable[int] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Mean difference of the scores along the two orders per method and step, whose mean over the fraction is SRG.

    Args:
        frame, score, steps, confidence, seed: as in `aopc_table`.
        direction: the protocol's: the difference is LeRF − MoRF where regions are removed, MoRF − LeRF where they are
            restored.
    Returns:
        Columns as in `aopc_table`.
    Raises:
        CurveError: the run holds one order only.
    """
    morf, lerf = both_orders(curves_of(frame, score, Order.MORF), curves_of(frame, score, Order.LERF))
    sign = 1 if str(direction) == Direction.REMOVE else -1
    return table_of(morf, sign * (lerf.values - morf.values), steps, confidence, seed)


@checked(CurveError, one=Measured)
def measure_table(one: Measured, *, relative: bool = False, confidence: float = 0.95, seed: int = 0) -> pd.DataFrame:
    """Mean of a measure per method, with intervals.

    Args:
        one: from `measured` or `measured_from`.
        relative: to random orders on the same image.
        confidence, seed: of the bootstrap over groups.
    Returns:
        Columns method, mean (over groups), low, high, groups, n, left_out, interval.
    """
    values = one.relative() if relative else one.values
    means = mean_intervals(group_means(values, one.groups), confidence, seed)
    return pd.DataFrame({"method": np.array(one.methods, dtype=object), **counted_columns(means, values)})


@checked(CurveError)
def r_oms_table(frame: pd.DataFrame, confidence: float = 0.95, seed: int = 0) -> pd.DataFrame:
    """Mean R-OMS, with its interval.

    Args:
        frame: from `Run.scores()`.
        confidence, seed: of the bootstrap over groups.
    Returns:
        One row: mean (probability, see `r_oms`), low, high, groups, n, left_out, interval.
    """
    per_image = r_oms(frame)
    rows = frame[frame["method"] == RANDOM]
    groups = curves_of(rows, "probability", str(rows["order"].iloc[0])).groups
    values = per_image.to_numpy()[:, None]
    return pd.DataFrame(counted_columns(mean_intervals(group_means(values, groups), confidence, seed), values))


@checked(CurveError)
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
    relative = per_image.relative()[:, :, per_image.place(step)]
    values = pd.DataFrame(relative, columns=pd.Index(per_image.methods, name="method")).drop(columns=RANDOM)
    return values.corr("spearman", min_periods=3)


@checked(CurveError)
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
    relative = per_image.relative()[:, heatmaps, per_image.place(step)]
    if not aim_of(direction, order):
        relative = -relative
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
    return pd.DataFrame(flat[kept], index=index[kept], columns=pd.Index(per_image.steps, name="step"))


def table_of(
    per_image: PerImage, values: np.ndarray, steps: Iterable[int] | None, confidence: float, seed: int
) -> pd.DataFrame:
    """Means over groups per method and step."""
    at = range(len(per_image.steps)) if steps is None else [per_image.place(step) for step in steps]
    chosen = values[:, :, list(at)].reshape(len(values), -1)
    means = mean_intervals(group_means(chosen, per_image.groups), confidence, seed)
    table = pd.DataFrame(
        {
            "method": np.repeat(np.array(per_image.methods, dtype=object), len(at)),
            "step": np.tile(per_image.steps[list(at)], len(per_image.methods)),
            **counted_columns(means, chosen),
        }
    )
    table.attrs["group"] = per_image.noun
    return table
