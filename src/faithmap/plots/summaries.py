"""Figures with one row a method: the ranking, and how far methods agree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from faithmap import statistics
from faithmap.plots.style import FAINT, INK, PLAIN, images_counted, is_dark, looks, new_figure, size_of, themed
from faithmap.protocol import RANDOM
from faithmap.statistics.significance import split_letters
from faithmap.text import display_name


def ranking(
    frame: pd.DataFrame,
    ax: Axes | None = None,
    *,
    score: str = "logit",
    style: str = "paper",
    step: int | None = None,
    title: str | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    order: str = "morf",
    direction: str = "remove",
) -> Axes:
    """Methods from best to worst with intervals; a bar at the right joins methods that cannot be told apart.

    Args:
        frame, ax, score, style, title, confidence, seed: as in `fig4`.
        step: AOPC up to this step; the last by default.
        order, direction: as in `statistics.ranking`.
    """
    table = statistics.ranking(frame, score, step, confidence, seed, order, direction)
    last = int(frame["step"].max()) if step is None else step
    size = size_of(style)
    with themed(size):
        if ax is None:
            ax = new_figure(size.width, (1.75 * len(table) + 5) * size.font / 72).subplots()
        found = looks(list(table["method"]))
        for row, (name, mean, low, high) in enumerate(
            table[["method", "mean", "low", "high"]].itertuples(index=False, name=None)
        ):
            look = found[name]
            if name == RANDOM:
                ax.plot(0, row, "|", color=look.color, markersize=0.9 * size.font)
                continue
            ax.plot(
                [low, high], [row, row], color=look.color, linewidth=1.6 * size.line, solid_capstyle="butt", zorder=2
            )
            ax.plot(
                mean, row, look.marker, color=look.color, markersize=0.75 * size.font, markeredgecolor="white", zorder=3
            )
        ax.axvline(0, color=INK, linewidth=0.7 * size.line, linestyle=found[RANDOM].line, zorder=1)
        ax.set_yticks(range(len(table)), [display_name(name) for name in table["method"]], **PLAIN)
        ax.set_ylim(len(table) - 0.5, -0.5)
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        ax.grid(axis="x", color="#E4E4E4", linewidth=0.5 * size.line, zorder=0)
        ax.set_axisbelow(True)
        ax.margins(x=0.06)
        joined = "; joined: not told apart" if table["group"].duplicated().any() else ""
        rests_on = f"{images_counted(table)}, {100 * confidence:g} % intervals{joined}"
        ax.set_xlabel(f"AOPC relative to random ({score}, {last} steps)\n{rests_on}")
        _join_groups(ax, list(table["group"]), size.font)
        if title:
            ax.set_title(title, loc="left", fontweight="bold", **PLAIN)
    return ax


def _join_groups(ax: Axes, letters: Sequence[str], font: float) -> None:
    """A vertical bar for each group, with a dot at each of its methods."""
    groups: dict[str, list[int]] = {}
    for row, text in enumerate(letters):
        for letter in split_letters(text):
            groups.setdefault(letter, []).append(row)
    across = ax.get_yaxis_transform()
    for index, rows in enumerate(rows for rows in groups.values() if len(rows) > 1):
        x = 1.03 + 0.035 * index
        ax.plot([x, x], [rows[0], rows[-1]], color=FAINT, linewidth=0.12 * font, transform=across, clip_on=False)
        ax.plot([x] * len(rows), rows, "o", color=FAINT, markersize=0.4 * font, transform=across, clip_on=False)


def agreement(
    frame: pd.DataFrame,
    ax: Axes | None = None,
    *,
    score: str = "logit",
    style: str = "paper",
    step: int | None = None,
    title: str | None = None,
    order: str = "morf",
) -> Axes:
    """Rank correlation of the methods' AOPC over the images.

    Args:
        frame, ax, score, style, title: as in `fig4`.
        step: AOPC up to this step; the last by default.
        order: ``"morf"`` or ``"lerf"``.
    """
    table = statistics.agreement(frame, score, step, order)
    methods = [name for name in looks(list(table.index)) if name in table.index]
    table = table.loc[methods, methods]
    names = [display_name(name) for name in methods]
    size = size_of(style)
    with themed(size):
        if ax is None:
            side = max(size.width, 0.42 * size.width + 3.1 * len(names) * size.font / 72)
            ax = new_figure(side, 0.86 * side).subplots()
        values = table.to_numpy()
        lowest = np.floor(10 * min(0.9, np.nanmin(values, initial=1))) / 10
        scale = {"cmap": "Blues", "vmin": lowest} if lowest >= 0 else {"cmap": "RdBu_r", "vmin": -1}
        picture = ax.imshow(values, vmax=1, aspect="auto", **scale)
        ax.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor", **PLAIN)
        ax.set_yticks(range(len(names)), names, **PLAIN)
        ax.tick_params(length=0)
        for side_name in ("left", "bottom"):
            ax.spines[side_name].set_visible(False)
        for (row, column), value in np.ndenumerate(values):
            text = f"{value:.2f}" if np.isfinite(value) else "–"
            ax.text(
                column,
                row,
                text.replace("-", "−"),
                ha="center",
                va="center",
                fontsize=0.8 * size.font,
                color="white" if is_dark(to_rgb(tuple(picture.to_rgba(np.array([value]))[0]))) else INK,
            )
        bar = ax.figure.colorbar(picture, ax=ax, fraction=0.045, pad=0.02)
        bar.set_label("rank correlation over images")
        bar.outline.set_visible(False)
        if title:
            ax.set_title(title, loc="left", fontweight="bold", **PLAIN)
    return ax
