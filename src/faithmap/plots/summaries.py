"""Figures with one row per method: the ranking, and how far methods agree."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from faithmap import statistics
from faithmap.plots.matrices import matrix
from faithmap.plots.registry import figure
from faithmap.plots.series import series_of
from faithmap.plots.style import FAINT, INK, PLAIN, Size, images_counted, new_figure, size_of, themed, title_of
from faithmap.protocol import RANDOM
from faithmap.statistics.per_image import score_name
from faithmap.statistics.significance import split_letters
from faithmap.text import display_name, percent


@figure("ranking", line="methods, best first, with intervals and the groups that are not distinguishable")
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
    measure: str = "aopc",
) -> Axes:
    """Methods from best to worst with intervals; methods that share a letter are not distinguishable.

    Args:
        frame, ax, score, style, title, confidence, seed: as in `fig4`.
        step: AOPC up to this step; the last by default.
        order, direction, measure: as in `statistics.ranking`.
    """
    table = statistics.ranking(frame, score, step, confidence, seed, order, direction, measure)
    last = int(frame["step"].max()) if step is None else step
    size = size_of(style)
    with themed(size):
        if ax is None:
            ax = new_figure(size.width, forest_height(len(table), size)).subplots()
        shared = "\nsame letter: not distinguishable" if table["letters"].duplicated().any() else ""
        rests_on = f"{images_counted(table)}, {percent(confidence)} intervals{shared}"
        forest(ax, table, size, f"{forest_label(measure, score_name(frame, score))}, {last} steps\n{rests_on}")
        title_of(ax, title, size)
    return ax


def forest_label(measure: str, score: str) -> str:
    """What the x axis of a forest plot shows."""
    return f"{statistics.SCORE_MEASURES[measure].label} relative to random ({score})"


def forest_height(rows: int, size: Size) -> float:
    """Inches that a forest plot needs."""
    return (1.75 * rows + 6) * size.font / 72


def forest(ax: Axes, table: pd.DataFrame, size: Size, x_label: str) -> None:
    """Points with intervals, best on top, and a column for each letter.

    Args:
        ax: drawn into.
        table: method, mean, low, high, group.
        size: of type and strokes.
        x_label: below the axis.
    """
    found = series_of(list(table["method"]))
    rows = table[["method", "mean", "low", "high"]].itertuples(index=False, name=None)
    for row, (name, mean, low, high) in enumerate(rows):
        one = found[name]
        if name == RANDOM:
            ax.plot(0, row, "|", color=one.colour, markersize=0.9 * size.font)
            continue
        stroke = 2.4 if row == 0 else 1.3
        ax.plot([low, high], [row, row], color=one.colour, linewidth=stroke * size.line, solid_capstyle="butt")
        ax.plot(mean, row, one.marker, color=one.colour, markersize=0.75 * size.font, markeredgecolor="white", zorder=3)
    ax.axvline(0, color=INK, linewidth=0.7 * size.line, linestyle=found[RANDOM].line, zorder=1)
    ax.set_yticks(range(len(table)), [display_name(name) for name in table["method"]], **PLAIN)
    for label, name in zip(ax.get_yticklabels(), table["method"], strict=True):
        label.set_color(found[name].colour)
        label.set_fontweight("bold" if name == table["method"].iloc[0] and name != RANDOM else "normal")
    ax.set_ylim(len(table) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="x", color="#E4E4E4", linewidth=0.5 * size.line, zorder=0)
    ax.set_axisbelow(True)
    ax.margins(x=0.06)
    ax.locator_params(axis="x", nbins=5, steps=[1, 2, 2.5, 5, 10])
    ax.set_xlabel(x_label, **PLAIN)
    _write_letters(ax, list(table["letters"]), size)


def _write_letters(ax: Axes, groups: list[str], size: Size) -> None:
    """Each letter in a column of its own, so that a group can be followed down the page."""
    letters = sorted({letter for text in groups for letter in split_letters(text)})
    across = ax.get_yaxis_transform()
    for column, letter in enumerate(letters):
        for row, text in enumerate(groups):
            if letter in split_letters(text):
                ax.annotate(
                    letter,
                    xy=(1, row),
                    xycoords=across,
                    xytext=(size.font * (0.9 + 0.85 * column), 0),
                    textcoords="offset points",
                    ha="center",
                    va="center",
                    fontsize=0.9 * size.font,
                    color=FAINT,
                    annotation_clip=False,
                )


@figure("agreement", line="rank correlation of the methods' AOPC relative to random over the images")
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
    """Rank correlation of the methods' AOPC relative to random over the images, on a scale of −1 … 1.

    Args:
        frame, ax, score, style, title: as in `fig4`.
        step: AOPC up to this step; the last by default.
        order: ``"morf"`` or ``"lerf"``.
    """
    table = statistics.agreement(frame, score, step, order)
    methods = [name for name in series_of(list(table.index)) if name in table.index]
    table = table.loc[methods, methods].rename(index=display_name, columns=display_name)
    size = size_of(style)
    with themed(size):
        # As much as the colour bar has room for.
        label = {0: "", 1: "correlation", 2: "rank correlation", 3: "rank correlation"}.get(
            len(table), "rank correlation over images"
        )
        ax = matrix(table, ax, size, label=label, cmap="RdBu_r", limits=(-1, 1), decimals=2)
        title_of(ax, title, size)
    return ax
