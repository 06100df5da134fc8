"""What the figures share: sizes, a style for each method, labels at line ends, files with text as text."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.text import Annotation

from faithmap.arguments import checked
from faithmap.errors import FaithmapError, nearest, shown
from faithmap.files import replacing, writable
from faithmap.foreign import entries
from faithmap.plots.series import Series
from faithmap.text import printable, several

LABEL_GAP = 1.8  # between a line's end and its label, in font sizes
INK, FAINT = "#222222", "#767676"
# Text from outside is shown as it is: "$" starts no formula.
PLAIN: Mapping[str, Any] = MappingProxyType({"parse_math": False, "usetex": False})


@dataclass(frozen=True)
class Size:
    """Sizes of one style: inches and points."""

    width: float
    height: float
    font: float
    line: float
    wide: float


STYLES: Mapping[str, Size] = MappingProxyType(
    {
        "paper": Size(width=3.5, height=2.7, font=7.5, line=1.1, wide=7.16),
        "wide": Size(width=7.16, height=3.0, font=7.5, line=1.1, wide=7.16),
        "slides": Size(width=10.0, height=5.6, font=16.0, line=2.2, wide=13.3),
    }
)


def size_of(style: str) -> Size:
    """The sizes of ``"paper"`` (one column, 3.5 inches), ``"wide"`` (two columns, 7.16 inches) or ``"slides"``."""
    if style not in STYLES:
        raise FaithmapError(f"no style '{style}': give {', '.join(STYLES)}{nearest(style, STYLES)}")
    return STYLES[style]


def themed(size: Size) -> AbstractContextManager[None]:
    """The matplotlib settings in which a figure is made."""
    settings: Any = {
        "font.size": size.font,
        "font.family": ["sans-serif"],
        "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica", "sans-serif"],
        "text.usetex": False,
        "axes.titlesize": size.font,
        "axes.labelsize": size.font,
        "axes.linewidth": 0.6 * size.line,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.unicode_minus": True,
        "xtick.labelsize": 0.9 * size.font,
        "ytick.labelsize": 0.9 * size.font,
        "xtick.color": INK,
        "ytick.color": INK,
        "text.color": INK,
        "lines.linewidth": size.line,
        "lines.markersize": 0.45 * size.font,
        "figure.dpi": 100,
        "figure.facecolor": "white",
        "axes.facecolor": "white",
    }
    return mpl.rc_context(settings)


def new_figure(width: float, height: float) -> Figure:
    """A figure that a notebook shows; `matplotlib.pyplot.close` it when many are made."""
    from matplotlib import pyplot

    return pyplot.figure(figsize=(width, height), layout="constrained")


class EndLabels(Artist):
    """Keeps labels at line ends apart, however the figure is resized: moves them just before they are drawn.

    Args:
        labels: annotations whose `xy` is a line's end and whose text is offset in points.
        font: their size in points.
    """

    def __init__(self, labels: Sequence[Annotation], font: float) -> None:
        super().__init__()
        self.labels = list(labels)
        self.font = font
        self.set_zorder(-1e9)  # before the labels
        self.set_in_layout(False)

    def draw(self, renderer: Any) -> None:
        """Set the offsets for the figure's present size."""
        if self.axes is None or not self.labels:
            return
        ends = np.array([self.axes.transData.transform(label.xy)[1] for label in self.labels])
        pixels = float(renderer.points_to_pixels(1.0))
        apart = 1.2 * self.font * pixels
        box = self.axes.get_window_extent(renderer)
        placed = spread(ends, apart, float(box.y0), float(box.y1))
        for label, end, at in zip(self.labels, ends, placed, strict=True):
            x, _ = label.xyann
            label.xyann = (x, (at - end) / pixels)


def spread(ends: np.ndarray, apart: float, low: float, high: float) -> np.ndarray:
    """Positions at least `apart` from each other, as near to the ends as can be, within [low, high] if they fit."""
    order = np.argsort(ends, kind="stable")
    shift = apart * np.arange(len(ends))
    blocks: list[list[float]] = []  # [mean, count] of neighbours that touch: pool adjacent violators
    for value in ends[order] - shift:
        blocks.append([float(value), 1.0])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (a, m), (b, n) = blocks[-2:]
            blocks[-2:] = [[(a * m + b * n) / (m + n), m + n]]
    pooled = np.concatenate([np.full(int(n), mean) for mean, n in blocks]) + shift
    pooled = np.maximum(pooled, low + apart / 2 + shift)
    pooled = np.minimum(pooled, high - apart / 2 - shift[::-1])
    placed = np.empty(len(ends))
    placed[order] = pooled
    return placed


def label_ends(
    ax: Axes, ends: Mapping[str, tuple[float, float]], found: Mapping[str, Series], font: float, strong: str = ""
) -> None:
    """Write a name, and the marker of its line, beside each line's end; `ends` is by label, `found` by label too."""
    labels = []
    for text, (x, y) in ends.items():
        one = found[text]
        labels.append(
            ax.annotate(
                f"{one.sign} {text}".strip(),
                xy=(x, y),
                xytext=(LABEL_GAP * font, 0),
                textcoords="offset points",
                va="center",
                fontsize=font,
                fontweight="bold" if text == strong else "normal",
                color=one.colour,
                annotation_clip=False,
                arrowprops={
                    "arrowstyle": "-",
                    "linewidth": 0.07 * font,
                    "color": one.colour,
                    "relpos": (0, 0.5),
                    "shrinkA": 0.1 * font,
                    "shrinkB": 0.35 * font,
                },
                **PLAIN,
            )
        )
    ax.add_artist(EndLabels(labels, font))


def title_of(ax: Axes, text: str | None, size: Size) -> None:
    """A title above the axes, broken at words."""
    if text:
        ax.set_title(wrapped(text, size, size.width), loc="left", fontweight="bold", linespacing=1.3, **PLAIN)


def wrapped(text: str, size: Size, width: float) -> str:
    """Bold text in lines that fit into a width in inches, a letter being about 0.62 of its size wide."""
    letters = max(20, int(width * 72 / (0.62 * size.font)))
    return "\n".join(textwrap.wrap(printable(text, 400), letters))


def images_counted(table: pd.DataFrame) -> str:
    """How many groups and images a figure rests on and leaves out, from the columns groups, n and left_out."""
    n, out = table["n"], table["left_out"]
    images = f"{n.min()}" if n.min() == n.max() else f"{n.min()}–{n.max()}"
    text = f"{images} image{'' if images == '1' else 's'}"
    if (table["groups"] != n).any():
        text = f"{several(table['groups'].max(), table.attrs.get('group', 'group'))} ({text})"
    if out.max() > 0:
        text += f", {'up to ' if out.min() != out.max() else ''}{out.max()} left out"
    return text


def is_dark(color: tuple[float, float, float]) -> bool:
    """Whether white text reads better on it than dark text."""
    return _contrast(color) > 4.0


def _contrast(color: tuple[float, float, float]) -> float:
    """WCAG contrast ratio to white."""
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color)
    return 1.05 / (0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05)


@checked()
def save(figure: Any, path: str | Path, dpi: float = 300) -> Path:
    """Write a figure; svg and pdf hold text as text.

    Args:
        figure: or any of its Axes, or the lists of them that a figure returns.
        path: ending in .png, .svg, .pdf or what else matplotlib writes.
        dpi: of png.
    Raises:
        FaithmapError: a format that cannot be written, or a place that cannot be.
    """
    path = writable(path)
    while isinstance(figure, list | tuple) and (inside := entries(figure, "figure", FaithmapError)):
        figure = inside[0]
    if not isinstance(figure, Axes | Figure | SubFigure):
        raise FaithmapError(f"figure is {shown(figure)}: give a figure, its Axes, or what a figure of a run returns.")
    root = figure.get_figure(root=True)
    if not isinstance(root, Figure):
        raise FaithmapError("the axes belong to no figure any more: draw them again.")
    known = root.canvas.get_supported_filetypes()
    ending = path.suffix.lower().lstrip(".")
    if ending not in known:
        raise FaithmapError(f"{path} ends in '{path.suffix}', expected .png, .svg or .pdf{nearest(ending, known)}")
    same_bytes = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(ending)
    try:
        with (
            mpl.rc_context({"svg.fonttype": "none", "pdf.fonttype": 42, "svg.hashsalt": "faithmap"}),
            replacing(path) as temporary,
        ):
            root.savefig(temporary, dpi=dpi, metadata=same_bytes)
    except OSError as error:
        raise FaithmapError(f"{path} cannot be written ({error.strerror or error}): choose another place.") from error
    return path
