"""The answer in one sentence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from faithmap.protocol import RANDOM
from faithmap.statistics.aim import aim_of
from faithmap.statistics.per_image import aopc_of
from faithmap.statistics.tables import _ranking, _step
from faithmap.text import display_name


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
    table, pairs = _ranking(per_image, _step(per_image, step), confidence, seed, aim_of(direction, order)[0])
    return _headline(table, pairs, score, confidence, aim_of(direction, order))


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
