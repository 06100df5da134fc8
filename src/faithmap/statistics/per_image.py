"""From the tidy frame of a run to one curve for each image and method, draws averaged."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from faithmap.errors import CurveError, nearest
from faithmap.protocol import RANDOM, Order, Score


@dataclass(frozen=True)
class PerImage:
    """Values of every image and method at every step, NaN where the image does not count for the method."""

    images: np.ndarray
    methods: list[str]
    values: np.ndarray  # (images, methods, steps + 1)

    @property
    def last_step(self) -> int:
        return int(self.values.shape[2]) - 1

    def relative(self) -> np.ndarray:
        """Values minus those of random orders on the same image."""
        if RANDOM not in self.methods:
            raise CurveError(f"the frame holds no method '{RANDOM}', the reference: use relative=False.")
        relative: np.ndarray = self.values - self.values[:, [self.methods.index(RANDOM)]]
        return relative


def aopc_of(frame: pd.DataFrame, score: str, order: str = Order.MORF) -> PerImage:
    """AOPC up to every step."""
    curves = curves_of(frame, score, order)
    return replace(curves, values=mean_drop(curves.values))


def abpc_of(frame: pd.DataFrame, score: str) -> PerImage:
    """The mean of LeRF − MoRF up to every step, for methods that have both; see `curves.abpc`."""
    morf, lerf = aopc_of(frame, score, Order.MORF), aopc_of(frame, score, Order.LERF)
    common = [name for name in morf.methods if name in lerf.methods]
    points = min(morf.values.shape[2], lerf.values.shape[2])
    first, second = (one.values[:, [one.methods.index(name) for name in common], :points] for one in (morf, lerf))
    return PerImage(morf.images, common, first - second)


def curves_of(frame: pd.DataFrame, score: str, order: str) -> PerImage:
    """Scores averaged over draws; NaN where a draw is missing or not finite.

    Raises:
        CurveError: a frame without the columns or rows that are needed.
    """
    if score not in list(Score):
        raise CurveError(f"no score '{score}': give 'logit' or 'probability'{nearest(score, list(Score))}")
    needed = ["image", "method", "order", "draw", "step", score]
    if missing := [name for name in needed if name not in frame]:
        raise CurveError(f"the frame lacks {', '.join(missing)}: give the frame of Run.scores().")
    image, images = pd.factorize(frame["image"], sort=True)
    rows = np.flatnonzero(frame["order"] == str(order))
    if not rows.size:
        found = ", ".join(sorted(frame["order"].astype(str).unique())) or "none"
        raise CurveError(f"the frame holds no '{order}' curves (orders found: {found}): run with that order.")
    method, methods = pd.factorize(frame["method"].iloc[rows], sort=True)
    draw, draws = pd.factorize(frame["draw"].iloc[rows])
    step = frame["step"].to_numpy()[rows].astype(np.int64)
    if step.min() != 0 or step.max() < 1:
        raise CurveError(f"the frame holds steps {step.min()}…{step.max()}, expected 0…L: keep all steps.")
    shape = (len(images), len(methods), len(draws), int(step.max()) + 1)
    values = np.full(shape, np.nan, dtype=np.float32)
    values[image[rows], method, draw, step] = frame[score].to_numpy(dtype=np.float32)[rows]
    values[~np.isfinite(values)] = np.nan
    has_draw = np.zeros(shape[1:3], dtype=bool)
    has_draw[method, draw] = True
    total = np.zeros((shape[0], shape[1], shape[3]))
    for at in range(len(draws)):
        total += np.where(has_draw[:, at, None], values[:, :, at], 0)
    return PerImage(np.asarray(images), [str(m) for m in methods], total / has_draw.sum(1)[:, None])


def mean_drop(curves: np.ndarray) -> np.ndarray:
    """1/(k+1) Σ_{i≤k} f(x⁽⁰⁾) − f(x⁽ⁱ⁾), for every k; see `curves.aopc`."""
    drop = curves[..., :1] - curves
    mean: np.ndarray = drop.cumsum(-1) / np.arange(1, curves.shape[-1] + 1)
    return mean
