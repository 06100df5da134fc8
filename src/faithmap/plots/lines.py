"""Figures with the perturbation step as their x axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from faithmap import statistics
from faithmap.errors import FaithmapError
from faithmap.plots.style import (
    FAINT,
    INK,
    LABEL_GAP,
    PLAIN,
    Size,
    images_counted,
    label_ends,
    looks,
    new_figure,
    size_of,
    themed,
)
from faithmap.protocol import RANDOM
from faithmap.text import printable


def fig4(
    frame: pd.DataFrame,
    ax: Axes | None = None,
    *,
    score: str = "logit",
    style: str = "paper",
    methods: Sequence[str] | None = None,
    title: str | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    order: str = "morf",
) -> Axes:
    """AOPC relative to random against perturbation steps, the paper's Figure 4, with interval bands.

    Args:
        frame: from `Run.scores()`.
        ax: drawn into; a new figure by default.
        score: ``"logit"`` or ``"probability"``.
        style: ``"paper"`` (one column) or ``"slides"``.
        methods: which; all by default.
        title: above the axes.
        confidence, seed, order: see `statistics.aopc_table`.
    """
    table = statistics.aopc_table(frame, score, confidence=confidence, seed=seed, order=order)
    return _step_lines(
        table, ax, size_of(style), methods, f"AOPC relative to random ({score})", title, confidence, zero_line=True
    )


def fig4_compare(
    frames: Mapping[str, pd.DataFrame],
    figure: Figure | SubFigure | None = None,
    *,
    score: str = "logit",
    style: str = "paper",
    methods: Sequence[str] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    order: str = "morf",
) -> list[Axes]:
    """Several runs side by side on one scale, such as two networks.

    Args:
        frames: title → frame of a run.
        figure: drawn into; a new one by default.
        score, style, methods, confidence, seed, order: as in `fig4`.
    Returns:
        One Axes a run.
    """
    if not frames:
        raise FaithmapError("no run was given: give title → frame for each run.")
    size = size_of(style)
    with themed(size):
        figure = (
            new_figure(size.wide if len(frames) < 3 else size.width * len(frames), size.height)
            if figure is None
            else figure
        )
        axes: list[Axes] = list(figure.subplots(1, len(frames), sharey=True, squeeze=False)[0])
    for ax, (title, frame) in zip(axes, frames.items(), strict=True):
        fig4(
            frame,
            ax,
            score=score,
            style=style,
            methods=methods,
            title=title,
            confidence=confidence,
            seed=seed,
            order=order,
        )
    for ax in axes[1:]:
        ax.set_ylabel("")
    return axes


def curves(
    frame: pd.DataFrame,
    ax: Axes | None = None,
    *,
    score: str = "logit",
    order: str = "morf",
    style: str = "paper",
    methods: Sequence[str] | None = None,
    title: str | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> Axes:
    """Mean score of the target class while regions are removed, random orders included.

    Args:
        frame, ax, score, style, methods, title, confidence, seed: as in `fig4`.
        order: ``"morf"`` or ``"lerf"``.
    """
    table = statistics.curve_table(frame, score, order, confidence=confidence, seed=seed)
    name = "MoRF" if order == "morf" else "LeRF"
    return _step_lines(table, ax, size_of(style), methods, f"{score} of the target class ({name})", title, confidence)


def _step_lines(
    table: pd.DataFrame,
    ax: Axes | None,
    size: Size,
    methods: Sequence[str] | None,
    y_label: str,
    title: str | None,
    confidence: float,
    zero_line: bool = False,
) -> Axes:
    """One line a method with its band; `zero_line` draws random as the line at zero."""
    present = list(dict.fromkeys(table.loc[table["n"] > 0, "method"]))
    names = present if methods is None else list(methods)
    if missing := [name for name in names if name not in present]:
        raise FaithmapError(f"the run has no method '{printable(missing[0])}': it has {', '.join(present)}.")
    found = looks(present)
    with themed(size):
        if ax is None:
            height = max(size.height, (1.3 * len(names) + 7) * size.font / 72)
            ax = new_figure(size.width, height).subplots()
        ends = {}
        for index, name in enumerate(names):
            rows = table[table["method"] == name]
            step, mean = rows["step"].to_numpy(), rows["mean"].to_numpy()
            last = int(np.flatnonzero(np.isfinite(mean))[-1])
            ends[name] = (float(step[last]), float(mean[last]))
            if name == RANDOM and zero_line:
                ax.axhline(0, color=INK, linewidth=0.7 * size.line, linestyle=found[name].line, zorder=1)
                continue
            look = found[name]
            ax.fill_between(step, rows["low"], rows["high"], color=look.color, alpha=0.13, linewidth=0, zorder=1.5)
            every = max(1, len(step) // 5)
            start = index * max(1, every // max(1, len(names))) % every
            ax.plot(
                step,
                mean,
                color=look.color,
                linestyle=look.line,
                marker=look.marker or None,
                markevery=(start, every),
                markeredgecolor="white",
                markeredgewidth=0.35 * size.line,
                zorder=2 + (name != RANDOM),
            )
        ax.margins(x=0)
        ax.set_xlim(0, max(x for x, _ in ends.values()))
        ax.set_xlabel("perturbation steps")
        ax.set_ylabel(y_label, **PLAIN)
        label_ends(ax, ends, found, 0.95 * size.font)
        if title:
            ax.set_title(printable(title, 60), loc="left", fontweight="bold", **PLAIN)
        _note_images(ax, table[table["method"].isin(names)], size, confidence)
    return ax


def _note_images(ax: Axes, table: pd.DataFrame, size: Size, confidence: float) -> None:
    """How many images the lines rest on, below the labels."""
    lines = images_counted(table).split(", ")
    if np.isfinite(table["low"]).any():
        lines.append(f"bands: {100 * confidence:g} %")
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
