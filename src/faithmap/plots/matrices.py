"""Figures with a cell for each pair: ranks in many settings, a scorecard of measures, correlations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from faithmap.errors import FaithmapError
from faithmap.foreign import has_attribute
from faithmap.plots.registry import figure
from faithmap.plots.series import series_of
from faithmap.plots.style import INK, PLAIN, Size, is_dark, new_figure, size_of, themed, title_of
from faithmap.protocol import RANDOM
from faithmap.text import decimals, display_name, number, printable


def matrix(
    table: pd.DataFrame,
    ax: Axes | None,
    size: Size,
    *,
    label: str,
    cmap: str,
    limits: tuple[float, float],
    decimals: int = 0,
    cells: pd.DataFrame | None = None,
) -> Axes:
    """A table of numbers as coloured cells, each with its number.

    Args:
        table: rows × columns, their names as they are shown; NaN leaves a cell empty.
        ax: drawn into; a new figure by default.
        size: of type and strokes.
        label: of the colour bar; empty for none.
        cmap, limits: matplotlib's colour map, and the values at its ends.
        decimals: of the numbers.
        cells: what is written instead of the numbers.
    """
    columns, rows = [str(name) for name in table.columns], [str(name) for name in table.index]
    if ax is None:
        letters = max(map(len, rows), default=0)
        width = max(size.width, (0.62 * letters + 5.2 * len(columns) + 6) * size.font / 72)
        slant = 0.45 * max(map(len, columns), default=0)
        ax = new_figure(width, (1.9 * len(rows) + slant + 4) * size.font / 72).subplots()
    values = table.to_numpy(dtype=float)
    picture = ax.imshow(values, cmap=cmap, vmin=limits[0], vmax=limits[1], aspect="auto")
    ax.set_xticks(range(len(columns)), columns, rotation=40, ha="right", rotation_mode="anchor", **PLAIN)
    ax.set_yticks(range(len(rows)), rows, **PLAIN)
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    for (row, column), value in np.ndenumerate(values):
        text = number(value, decimals) if cells is None else str(cells.iloc[row, column])
        shade = to_rgb(tuple(picture.to_rgba(np.array([value]))[0][:3])) if np.isfinite(value) else (1.0, 1.0, 1.0)
        colour = "white" if is_dark(shade) else INK
        ax.text(column, row, text, ha="center", va="center", fontsize=0.85 * size.font, color=colour, **PLAIN)
    if label:
        bar = ax.figure.colorbar(picture, ax=ax, fraction=0.03, pad=0.02)
        bar.set_label(label)
        bar.outline.set_visible(False)
    return ax


def _study_inputs(study: Any, options: dict[str, Any]) -> dict[str, Any]:
    if not has_attribute(study, "ranks"):
        raise FaithmapError("figure 'study' shows many settings side by side: give the folder of a study.")
    return {"ranks": study.ranks()}


@figure("study", line="the rank of every method in every setting of a study", inputs=_study_inputs)
def study(
    ranks: pd.DataFrame, ax: Axes | None = None, *, style: str = "wide", score: str = "", title: str | None = None
) -> Axes:
    """Ranks of the methods, one column per setting; the best method on top.

    Args:
        ranks: from `Study.ranks()`: setting, method, rank (1 is best), and score where there are several.
        ax, style, title: as in `fig4`.
        score: which, where the table holds several; the first by default.
    Raises:
        FaithmapError: a table without these columns.
    """
    if missing := [name for name in ("setting", "method", "rank") if name not in ranks]:
        raise FaithmapError(f"the table of ranks lacks {', '.join(missing)}: give the frame of Study.ranks().")
    wide = rank_matrix(ranks, score)
    size = size_of(style)
    shown = wide.rename(index=display_name, columns=lambda name: printable(str(name), 40))
    shown.index = [f"{name}  {line}" for name, line in zip(shown.index, first_in(wide), strict=True)]
    with themed(size):
        ax = matrix(shown, ax, size, label="", cmap="Blues_r", limits=(0.4, 1.25 * len(wide)), decimals=0)
        colours = series_of(list(wide.index))
        for label, name in zip(ax.get_yticklabels(), wide.index, strict=True):
            label.set_color(colours[name].colour)
        title_of(ax, title, size)
    return ax


def rank_matrix(ranks: pd.DataFrame, score: str = "") -> pd.DataFrame:
    """Methods × settings: ranks, methods by their mean rank, those that a setting lacks after the others."""
    if "score" in ranks and len(ranks):
        ranks = ranks[ranks["score"] == (score or ranks["score"].iloc[0])]
    wide = ranks.pivot_table(index="method", columns="setting", values="rank", sort=False)
    missing, mean = wide.isna().sum(axis=1), wide.mean(axis=1)
    order = sorted(wide.index, key=lambda name: (missing[name], mean[name], name == RANDOM, name))
    return wide.loc[order, list(dict.fromkeys(ranks["setting"]))]


def first_in(wide: pd.DataFrame) -> list[str]:
    """`1st in 11 of 12` for each method that is first somewhere, else an empty text."""
    firsts = (wide == 1).sum(axis=1)
    return [f"(1st in {count} of {wide.shape[1]})" if count else "" for count in firsts]


def _table_of(name: str, what: str) -> Callable[[Any, dict[str, Any]], dict[str, Any]]:
    """Inputs of a figure whose table a run or a study hands out under a name."""

    def inputs(run: Any, options: dict[str, Any]) -> dict[str, Any]:
        if not has_attribute(run, name):
            raise FaithmapError(f"{type(run).__name__} has no {what}: {name}() is missing.")
        table = getattr(run, name)()
        return {"table": table.table() if hasattr(table, "table") else table}

    return inputs


@figure(
    "scorecard",
    line="every measure of every method, ranked within the measure",
    inputs=_table_of("scorecard", "scorecard"),
)
def scorecard(table: pd.DataFrame, ax: Axes | None = None, *, style: str = "wide", title: str | None = None) -> Axes:
    """Methods × measures: the mean, coloured by the rank within the measure; no total, as measures disagree.

    Args:
        table: method, measure, mean, higher_is_better (None where neither is good); further columns are left alone.
        ax, style, title: as in `fig4`.
    Raises:
        FaithmapError: a table without these columns.
    """
    if missing := [name for name in ("method", "measure", "mean", "higher_is_better") if name not in table]:
        raise FaithmapError(f"the scorecard lacks {', '.join(missing)}: give the frame of Run.scorecard().")
    measures = list(dict.fromkeys(table["measure"]))
    means = table.pivot_table(index="method", columns="measure", values="mean", sort=False)[measures]
    good = {name: rows["higher_is_better"].iloc[0] for name, rows in table.groupby("measure", sort=False)}
    places = pd.DataFrame(index=means.index, columns=measures, dtype=float)
    cells = pd.DataFrame("", index=means.index, columns=measures, dtype=object)
    for measure in measures:
        values, unit = means[measure], decimals(means[measure])
        cells[measure] = [number(value, unit) for value in values]
        if good[measure] is not None and not pd.isna(good[measure]):
            rank = values.rank(ascending=not good[measure])
            places[measure] = (rank - 1) / max(1, values.notna().sum() - 1)
    size = size_of(style)
    marks = {True: "↑", False: "↓"}
    names = [f"{measure} {marks.get(good[measure], '')}".strip() for measure in measures]
    order = places.iloc[:, 0].sort_values(kind="stable").index  # no total: by the first measure
    places, cells = places.loc[order], cells.loc[order]
    shown = places.set_axis(names, axis=1).rename(index=display_name)
    with themed(size):
        ax = matrix(shown, ax, size, label="", cmap="Blues_r", limits=(-0.15, 1.4), cells=cells)
        title_of(ax, title, size)
    return ax


@figure(
    "reliability",
    line="how far the ruler can be trusted: agreement between images, draws and settings",
    inputs=_table_of("grade", "grade"),
)
def reliability(table: pd.DataFrame, ax: Axes | None = None, *, style: str = "paper", title: str | None = None) -> Axes:
    """Each property of the ruler as a point between 0 and 1, with its interval.

    Args:
        table: from `Grade.table()`: property, setting, value, low, high, grade; properties without a number are left
            out.
        ax, style, title: as in `fig4`.
    Raises:
        FaithmapError: a table without these columns.
    """
    if missing := [name for name in ("property", "setting", "value", "low", "high", "grade") if name not in table]:
        raise FaithmapError(f"the table of reliability lacks {', '.join(missing)}: give the frame of Grade.table().")
    table = table[np.isfinite(table["value"])]
    if table.empty:
        raise FaithmapError("no property of the ruler has a number in this run: give more groups, draws or methods.")
    size = size_of(style)
    with themed(size):
        if ax is None:
            ax = new_figure(size.width, (2.2 * len(table) + 5) * size.font / 72).subplots()
        for row, one in enumerate(table.to_dict("records")):
            ax.plot([one["low"], one["high"]], [row, row], color=INK, linewidth=1.6 * size.line, solid_capstyle="butt")
            ax.plot(one["value"], row, "o", color=INK, markersize=0.7 * size.font, markeredgecolor="white", zorder=3)
            words = f"{number(float(one['value']), 2)}  {one['grade']}".strip()
            ax.annotate(
                words,
                xy=(1.03, row),
                xycoords=ax.get_yaxis_transform(),
                va="center",
                fontsize=0.9 * size.font,
                annotation_clip=False,
                **PLAIN,
            )
        pairs = table[["property", "setting"]].itertuples(index=False, name=None)
        names = [printable(f"{name}, {setting}" if setting else str(name), 60) for name, setting in pairs]
        ax.set_yticks(range(len(table)), names, **PLAIN)
        ax.set_ylim(len(table) - 0.5, -0.5)
        lowest = float(np.nanmin([0.0, *table["value"], *table["low"]]))
        ax.set_xlim(lowest, 1)
        ax.axvline(0, color=INK, linewidth=0.5 * size.line, zorder=1)
        ax.grid(axis="x", color="#E4E4E4", linewidth=0.5 * size.line, zorder=0)
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        ax.set_xlabel("0: none, 1: complete")
        title_of(ax, title, size)
    return ax
