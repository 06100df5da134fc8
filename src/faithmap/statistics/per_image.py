"""From the tidy frame of a run to one curve for each image and method, draws averaged."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from faithmap.errors import CurveError, nearest
from faithmap.grouping import GROUP_NOUN
from faithmap.protocol import RANDOM, Order, Score
from faithmap.statistics.curves import mean_drop
from faithmap.statistics.groups import groups_of, noun_of


@dataclass(frozen=True)
class PerImage:
    """Values of every image and method at every step, NaN where the image does not count for the method.

    Attributes:
        images: ids, sorted.
        groups: of each image; see `groups.groups_of`.
        methods: names, sorted.
        steps: k of each point, from 0; not all steps need be there.
        values: (images, methods, points).
        noun: what one group is called.
    """

    images: np.ndarray
    groups: np.ndarray
    methods: list[str]
    steps: np.ndarray
    values: np.ndarray
    noun: str = GROUP_NOUN

    @property
    def last_step(self) -> int:
        return int(self.steps[-1])

    def place(self, step: int | None) -> int:
        """Where a step stands among the points; the last one by default."""
        if step is None:
            return len(self.steps) - 1
        found = np.flatnonzero(self.steps == step)
        if not found.size:
            every = len(self.steps) == self.last_step + 1
            which = f"0…{self.last_step}" if every else ", ".join(map(str, self.steps.tolist()))
            raise CurveError(f"step {step} is not in this run, which holds steps {which}.")
        return int(found[0])

    def relative(self) -> np.ndarray:
        """Values minus those of random orders on the same image."""
        if RANDOM not in self.methods:
            raise CurveError(f"the frame holds no method '{RANDOM}', the reference: use relative=False.")
        relative: np.ndarray = self.values - self.values[:, [self.methods.index(RANDOM)]]
        return relative


def aopc_of(frame: pd.DataFrame, score: str, order: str = Order.MORF) -> PerImage:
    """AOPC up to every step; see `curves.aopc`."""
    curves = curves_of(frame, score, order)
    return replace(curves, values=mean_drop(torch.from_numpy(curves.values), curves.steps.tolist()).numpy())


def abpc_of(frame: pd.DataFrame, score: str) -> PerImage:
    """The mean of LeRF − MoRF up to every step, for methods that have both; see `curves.abpc`."""
    morf, lerf = both_orders(aopc_of(frame, score, Order.MORF), aopc_of(frame, score, Order.LERF))
    return replace(morf, values=morf.values - lerf.values)


def both_orders(morf: PerImage, lerf: PerImage) -> tuple[PerImage, PerImage]:
    """The same, with the methods and steps that both have."""
    methods = [name for name in morf.methods if name in lerf.methods]
    steps = np.intersect1d(morf.steps, lerf.steps)

    def kept(one: PerImage) -> PerImage:
        of_methods = one.values[:, [one.methods.index(name) for name in methods]]
        return replace(one, methods=methods, steps=steps, values=of_methods[:, :, np.searchsorted(one.steps, steps)])

    return kept(morf), kept(lerf)


SCORE_NAME = "score_name"
"""Key in ``frame.attrs``: what the score is called where it has no probability; absent elsewhere."""


def score_name(frame: pd.DataFrame, score: str) -> str:
    """What a score is called in texts: its name, or that of the score function where there is no probability."""
    return str(frame.attrs.get(SCORE_NAME, score))


def score_of_target(frame: pd.DataFrame, score: str, target: str = "target") -> str:
    """``"logit of the predicted class"``; without a probability the score's name alone: outputs may be no classes."""
    return f"{score} of the {target} class" if has_probability(frame) else score_name(frame, score)


def has_probability(frame: pd.DataFrame) -> bool:
    """Whether the columns logit and probability hold two scores, not one twice."""
    return SCORE_NAME not in frame.attrs


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
    point, steps = pd.factorize(frame["step"].iloc[rows].astype(np.int64), sort=True)
    if steps[0] != 0 or len(steps) < 2:
        raise CurveError(f"the frame holds steps {steps[0]}…{steps[-1]}, expected 0…L: keep all steps.")
    shape = (len(images), len(methods), len(draws), len(steps))
    values = np.full(shape, np.nan, dtype=np.float32)
    values[image[rows], method, draw, point] = frame[score].to_numpy(dtype=np.float32)[rows]
    values[~np.isfinite(values)] = np.nan
    has_draw = np.zeros(shape[1:3], dtype=bool)
    has_draw[method, draw] = True
    total = np.zeros((shape[0], shape[1], shape[3]))
    for at in range(len(draws)):
        total += np.where(has_draw[:, at, None], values[:, :, at], 0)
    ids = np.asarray(images)
    return PerImage(
        ids,
        groups_of(frame, ids),
        [str(m) for m in methods],
        np.asarray(steps, dtype=np.int64),
        total / has_draw.sum(1)[:, None],
        noun_of(frame),
    )
