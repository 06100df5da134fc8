"""Figures with the perturbation step as their x axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from faithmap import statistics
from faithmap.arguments import checked
from faithmap.errors import CurveError, FaithmapError
from faithmap.plots.registry import figure as registered
from faithmap.plots.series import Series, merged_label, series_of
from faithmap.plots.style import (
    FAINT,
    INK,
    LABEL_GAP,
    PLAIN,
    Size,
    images_counted,
    label_ends,
    new_figure,
    size_of,
    themed,
    title_of,
    wrapped,
)
from faithmap.plots.summaries import forest, forest_height, forest_label
from faithmap.protocol import RANDOM
from faithmap.statistics.comparing import comparison
from faithmap.statistics.headline import sentence
from faithmap.statistics.per_image import score_name, score_of_target
from faithmap.text import percent, printable

# Variants of a method whose curves stay this close share one label; as a fraction of the range of all curves.
_ALIKE = 0.04


@registered("fig4", line="AOPC relative to random at every step, and at the last one with intervals and groups")
def fig4(
    frame: pd.DataFrame,
    ax: Axes | None = None,
    *,
    score: str = "logit",
    style: str = "paper",
    methods: Sequence[str] | None = None,
    bands: str | Sequence[str] = "best",
    title: str | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    order: str = "morf",
    direction: str = "remove",
    measure: str = "aopc",
) -> Axes:
    """AOPC relative to random against perturbation steps, the paper's Figure 4, and the last step as a forest plot.

    For a run in both orders, the difference of their scores, whose mean over the removed fraction is SRG.

    Args:
        frame: from `Run.scores()`.
        ax: the curves alone are drawn into it; by default a new figure with both panels.
        score: ``"logit"`` or ``"probability"``.
        style: ``"paper"`` (one column, panels stacked), ``"wide"`` (two columns, panels side by side) or ``"slides"``.
        methods: which; all by default.
        bands: whose interval is shaded: ``"best"``, ``"all"``, ``"none"``, or names of methods beside the best.
        title: above the curves; by default the verdict on a new figure, and nothing on given Axes.
        confidence, seed, order: see `statistics.aopc_table`.
        direction: as in `statistics.ranking`.
        measure: ``"aopc"`` or, for runs in both orders, ``"srg"``.
    Returns:
        The Axes of the curves; the forest plot is the figure's second Axes.
    """
    size = size_of(style)
    found = comparison(statistics.measured(frame, measure, score, None, order, direction), confidence, seed)
    ranked = found.table
    if measure == "srg":
        table = statistics.gap_table(frame, score, direction, confidence=confidence, seed=seed)
        ends = ("most", "least") if direction == "restore" else ("least", "most")
        label = f"{score_name(frame, score)}, {ends[0]} − {ends[1]} relevant first"
    else:
        table = statistics.aopc_table(frame, score, confidence=confidence, seed=seed, order=order)
        label = f"AOPC relative to random ({score_name(frame, score)})"
    best = _best(ranked, methods)
    look = Drawn(size, label, confidence, methods, bands, best=best, zero=measure != "srg")
    if ax is not None:
        ax = step_lines(table, ax, look)
        title_of(ax, title, size)
        return ax
    if title is None:
        title = sentence(found)
    if methods is not None:
        ranked = ranked[ranked["method"].isin(methods)]
    with themed(size):
        ax, below = _two_panels(size, len(ranked), title)
        step_lines(table, ax, look)
        forest(
            below, ranked, size, f"{forest_label(measure, score_name(frame, score))}\nafter {table['step'].max()} steps"
        )
    return ax


def _best(ranked: pd.DataFrame, methods: Sequence[str] | None) -> str:
    """The best heatmap method among those that are drawn."""
    own = [name for name in ranked["method"] if name != RANDOM and (methods is None or name in methods)]
    return own[0] if own else ""


def _two_panels(size: Size, rows: int, title: str) -> tuple[Axes, Axes]:
    """Curves and forest plot: one above the other in a column, side by side where there is room; a title over both."""
    lines = wrapped(title, size, size.width)
    lower, head = forest_height(rows, size), (1.5 * lines.count("\n") + 2.2) * size.font / 72 if lines else 0.0
    stacked = size.width < 5
    height = size.height + lower if stacked else max(size.height, lower)
    whole = new_figure(size.width, height + head)
    if lines:
        whole.suptitle(lines, x=0.01, ha="left", fontsize=size.font, fontweight="bold", linespacing=1.3, **PLAIN)
    # Two parts with a layout of their own: names beside one must not push the other.
    upper = [size.height, lower] if stacked else [1.5, 1]
    parts: Any = whole.subfigures(2, 1, height_ratios=upper) if stacked else whole.subfigures(1, 2, width_ratios=upper)
    return parts[0].subplots(), parts[1].subplots()


@checked(frames=Mapping, figure=(Figure, SubFigure))
def fig4_compare(
    frames: Mapping[str, pd.DataFrame],
    figure: Figure | SubFigure | None = None,
    *,
    score: str = "logit",
    style: str = "paper",
    methods: Sequence[str] | None = None,
    **how: Any,
) -> list[Axes]:
    """Several runs side by side on one scale, such as two networks.

    Args:
        frames: title → frame of a run.
        figure: drawn into; a new one by default.
        score, style, methods: as in `fig4`.
        how: bands, confidence, seed, order, direction, as in `fig4`.
    Returns:
        One Axes a run.
    """
    if not frames:
        raise FaithmapError("no run was given: give title → frame for each run.")
    size = size_of(style)
    with themed(size):
        if figure is None:
            figure = new_figure(max(size.wide, 0.5 * size.wide * len(frames)), size.height)
        axes: list[Axes] = list(figure.subplots(1, len(frames), sharey=True, squeeze=False)[0])
    for ax, (title, frame) in zip(axes, frames.items(), strict=True):
        fig4(frame, ax, score=score, style=style, methods=methods, title=title, **how)
    for ax in axes[1:]:
        ax.set_ylabel("")
    return axes


@registered("curves", line="the score of the target class while regions are removed")
def curves(
    frame: pd.DataFrame,
    ax: Axes | None = None,
    *,
    score: str = "logit",
    order: str = "morf",
    style: str = "paper",
    methods: Sequence[str] | None = None,
    bands: str | Sequence[str] = "best",
    title: str | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    direction: str = "remove",
) -> Axes:
    """Mean score of the target class while regions are removed, random orders included.

    Args:
        frame, ax, score, style, methods, bands, title, confidence, seed, direction: as in `fig4`.
        order: ``"morf"`` or ``"lerf"``.
    """
    size = size_of(style)
    table = statistics.curve_table(frame, score, order, confidence=confidence, seed=seed)
    best = ""
    try:
        best = _best(statistics.ranking(frame, score, order=order, direction=direction, seed=seed), methods)
    except CurveError:  # without random orders nothing is ranked, and no curve stands out
        bands = "all" if bands == "best" else bands
    name = "MoRF" if order == "morf" else "LeRF"
    ax = step_lines(
        table, ax, Drawn(size, f"{score_of_target(frame, score)} ({name})", confidence, methods, bands, best=best)
    )
    title_of(ax, title, size)
    return ax


@dataclass(frozen=True)
class Drawn:
    """How lines are drawn.

    Attributes:
        size: of type and strokes.
        y_label: of the axis.
        confidence: of the bands.
        methods, bands: as in `fig4`.
        best: the method with the strongest stroke, if any.
        zero: draw random as the line at zero.
    """

    size: Size
    y_label: str
    confidence: float
    methods: Sequence[str] | None = None
    bands: str | Sequence[str] = "best"
    best: str = ""
    zero: bool = False

    def shaded(self, method: str) -> bool:
        """Whether a method's interval is drawn."""
        if isinstance(self.bands, str) and self.bands in ("best", "all", "none"):
            return self.bands == "all" or (self.bands == "best" and method == self.best)
        asked = [self.bands] if isinstance(self.bands, str) else self.bands
        return method in (*asked, self.best)


def step_lines(table: pd.DataFrame, ax: Axes | None, drawn: Drawn) -> Axes:
    """One line per method, labelled at its end; the best one strongest.

    Raises:
        FaithmapError: a method, or the owner of a band, that the table does not hold.
    """
    size = drawn.size
    present = list(dict.fromkeys(table.loc[table["n"] > 0, "method"]))
    names = present if drawn.methods is None else list(drawn.methods)
    if not names:
        raise FaithmapError("there is nothing to draw: no method has an image with all its scores.")
    asked = (
        []
        if isinstance(drawn.bands, str) and drawn.bands in ("best", "all", "none")
        else list([drawn.bands] if isinstance(drawn.bands, str) else drawn.bands)
    )
    if missing := [name for name in [*names, *asked] if name not in present]:
        raise FaithmapError(f"the run has no method '{printable(missing[0])}': it has {', '.join(present)}.")
    found = series_of(present)
    curves = {name: table[table["method"] == name].sort_values("step") for name in names}
    with themed(size):
        if ax is None:
            height = max(size.height, (1.3 * len(names) + 7) * size.font / 72)
            ax = new_figure(size.width, height).subplots()
        for index, name in enumerate(names):
            if name == RANDOM and drawn.zero:
                ax.axhline(0, color=INK, linewidth=0.7 * size.line, linestyle=found[name].line, zorder=1)
            else:
                _draw_line(ax, curves[name], found[name], drawn, (index, len(names)))
        ax.margins(x=0)
        ax.set_xlim(0, max(rows["step"].max() for rows in curves.values()))
        ax.set_xlabel("perturbation steps")
        ax.set_ylabel(drawn.y_label, **PLAIN)
        _label_lines(ax, curves, found, drawn)
        _note_images(ax, table[table["method"].isin(names)], drawn)
    return ax


def _draw_line(ax: Axes, rows: pd.DataFrame, one: Series, drawn: Drawn, place: tuple[int, int]) -> None:
    size, best = drawn.size, one.method == drawn.best
    step, mean = rows["step"].to_numpy(), rows["mean"].to_numpy()
    if drawn.shaded(one.method):
        ax.fill_between(step, rows["low"], rows["high"], color=one.colour, alpha=0.16, linewidth=0, zorder=1.5)
    # Markers of different lines stand at different steps, so that none covers another.
    index, count = place
    every = max(1, len(step) // 5)
    start = index * max(1, every // max(1, count)) % every
    ax.plot(
        step,
        mean,
        color=one.colour,
        linestyle=one.line,
        linewidth=size.line * (2.1 if best else 0.9),
        marker=one.marker or None,
        markersize=size.font * (0.62 if best else 0.45),
        markevery=(start, every),
        markeredgecolor="white",
        markeredgewidth=0.35 * size.line,
        zorder=3 if best else 2 + 0.5 * (one.method != RANDOM),
        label=one.label,
    )


def _label_lines(ax: Axes, curves: Mapping[str, pd.DataFrame], found: Mapping[str, Series], drawn: Drawn) -> None:
    ends, looks, strong = {}, {}, ""
    means = {name: float(np.nanmean(rows["mean"])) for name, rows in curves.items()}
    for group in alike(curves, found):
        label = merged_label([found[name].label for name in group])
        one = found[drawn.best if drawn.best in group else group[0]]
        rows = curves[one.method]
        last = rows[np.isfinite(rows["mean"])].iloc[-1]
        # Where curves meet in one point, as both orders do at full removal, labels stand in the order of the curves.
        height = 0.0 if one.method == RANDOM and drawn.zero else float(last["mean"]) + 1e-3 * means[one.method]
        ends[label], looks[label] = (float(last["step"]), height), replace(one, label=label)
        strong = label if drawn.best in group else strong
    label_ends(ax, ends, looks, 0.95 * drawn.size.font, strong)


def alike(curves: Mapping[str, pd.DataFrame], found: Mapping[str, Series]) -> list[list[str]]:
    """Methods, those of one family whose curves nearly cover each other together."""
    values = {name: rows["mean"].to_numpy(dtype=float) for name, rows in curves.items()}
    everything = np.concatenate(list(values.values()))
    tolerance = _ALIKE * (np.nanmax(everything) - np.nanmin(everything)) if len(values) else 0.0
    groups: list[list[str]] = []
    for name in values:
        for group in groups:
            first = values[group[0]]
            same = found[group[0]].method.split(":")[0] == name.split(":")[0] and first.shape == values[name].shape
            if same and ":" in name and np.nanmax(np.abs(first - values[name])) <= tolerance:
                group.append(name)
                break
        else:
            groups.append([name])
    return groups


def _note_images(ax: Axes, table: pd.DataFrame, drawn: Drawn) -> None:
    """How many images the lines rest on, below the labels."""
    size = drawn.size
    lines = images_counted(table).split(", ")
    if np.isfinite(table["low"]).any() and any(drawn.shaded(name) for name in table["method"].unique()):
        lines.append(f"band: {percent(drawn.confidence)}")
    ax.annotate(
        "\n".join(lines),
        xy=(1, 0),
        xycoords="axes fraction",
        xytext=(LABEL_GAP * 0.95 * size.font, -0.6 * size.font),
        textcoords="offset points",
        va="top",
        fontsize=0.8 * size.font,
        color=FAINT,
        annotation_clip=False,
    )
