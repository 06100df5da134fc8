"""What the figures share: sizes, a style for each method, labels at line ends, files with text as text."""

from __future__ import annotations

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
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure, SubFigure
from matplotlib.text import Annotation

from faithmap.errors import FaithmapError, nearest
from faithmap.protocol import RANDOM
from faithmap.text import display_name

LABEL_GAP = 1.8  # between a line's end and its label, in font sizes
INK, FAINT = "#222222", "#767676"
# Text from outside is shown as it is: "$" starts no formula.
PLAIN: Mapping[str, Any] = MappingProxyType({"parse_math": False, "usetex": False})

# Okabe and Ito's colour-blind-safe palette without yellow, which is too light on white.
_PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5B4A8A")
_SHADES = (0.0, 0.35, -0.45)  # members of a family: as it is, towards white, towards black
_LINES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))
_MARKERS = {
    "o": "●",
    "s": "■",
    "^": "▲",
    "D": "◆",
    "v": "▼",
    "P": "✚",
    "X": "✖",
    "<": "◀",
    ">": "▶",
    "p": "⬟",
    "h": "⬢",
}


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
        "slides": Size(width=10.0, height=5.6, font=16.0, line=2.2, wide=13.3),
    }
)


@dataclass(frozen=True)
class Look:
    """How one method is drawn, the same in all figures."""

    color: tuple[float, float, float]
    line: Any
    marker: str


def size_of(style: str) -> Size:
    """The sizes of ``"paper"`` (one column, 3.5 inches) or ``"slides"``."""
    if style not in STYLES:
        raise FaithmapError(f"no style '{style}': give 'paper' or 'slides'{nearest(style, STYLES)}")
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


def looks(methods: Sequence[str]) -> dict[str, Look]:
    """Colour by family (the name up to ":" or "-"), shade and line by member, a marker of its own for every method."""
    heatmaps = sorted(set(methods) - {RANDOM})
    families = sorted({_family(name) for name in heatmaps}, key=lambda name: (_FAMILY_ORDER.get(name, 9), name))
    markers = list(_MARKERS)
    found: dict[str, Look] = {}
    for index, name in enumerate(heatmaps):
        members = [other for other in heatmaps if _family(other) == _family(name)]
        member = members.index(name)
        base = _PALETTE[families.index(_family(name)) % len(_PALETTE)]
        found[name] = Look(
            _shaded(base, _SHADES[member % len(_SHADES)]), _LINES[member % len(_LINES)], markers[index % len(markers)]
        )
    return {**found, RANDOM: Look(to_rgb(INK), (0, (1, 1.5)), "")}


_FAMILY_ORDER = {"lrp": 0, "deconvolution": 1, "sensitivity": 2}


def _family(method: str) -> str:
    return method.split(":")[0].split("-")[0]


def _shaded(color: str, shade: float) -> tuple[float, float, float]:
    towards = 1.0 if shade > 0 else 0.0
    red, green, blue = (c + abs(shade) * (towards - c) for c in to_rgb(color))
    return red, green, blue


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


def label_ends(ax: Axes, ends: Mapping[str, tuple[float, float]], found: Mapping[str, Look], font: float) -> None:
    """Write each method's marker and name beside the end of its line."""
    labels = []
    for name, (x, y) in ends.items():
        color = found[name].color
        labels.append(
            ax.annotate(
                f"{_MARKERS.get(found[name].marker, '')} {display_name(name)}".strip(),
                xy=(x, y),
                xytext=(LABEL_GAP * font, 0),
                textcoords="offset points",
                va="center",
                fontsize=font,
                color=_shaded_text(color),
                annotation_clip=False,
                arrowprops={
                    "arrowstyle": "-",
                    "linewidth": 0.07 * font,
                    "color": color,
                    "relpos": (0, 0.5),
                    "shrinkA": 0.1 * font,
                    "shrinkB": 0.35 * font,
                },
                **PLAIN,
            )
        )
    ax.add_artist(EndLabels(labels, font))


def _shaded_text(color: tuple[float, float, float]) -> tuple[float, float, float]:
    """Dark enough to read on white."""
    while _contrast(color) < 4.5:
        red, green, blue = (0.9 * c for c in color)
        color = red, green, blue
    return color


def images_counted(table: pd.DataFrame) -> str:
    """How many images a figure rests on and leaves out, from the columns n and left_out."""
    n, out = table["n"], table["left_out"]
    images = f"{n.min()}" if n.min() == n.max() else f"{n.min()}–{n.max()}"
    text = f"{images} image{'' if images == '1' else 's'}"
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


def save(figure: Figure | SubFigure | Axes, path: str | Path, dpi: float = 200) -> Path:
    """Write a figure; svg and pdf hold text as text.

    Args:
        figure: or any of its Axes.
        path: ending in .png, .svg, .pdf or what else matplotlib writes.
        dpi: of png.
    Raises:
        FaithmapError: a format that cannot be written, or a place that cannot be.
    """
    path = Path(path)
    root = figure.get_figure(root=True)
    if not isinstance(root, Figure):
        raise FaithmapError("the axes belong to no figure any more: draw them again.")
    known = root.canvas.get_supported_filetypes()
    ending = path.suffix.lower().lstrip(".")
    if ending not in known:
        raise FaithmapError(f"{path} ends in '{path.suffix}', expected .png, .svg or .pdf{nearest(ending, known)}")
    same_bytes = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(ending)
    try:
        with mpl.rc_context({"svg.fonttype": "none", "pdf.fonttype": 42, "svg.hashsalt": "faithmap"}):
            root.savefig(path, dpi=dpi, metadata=same_bytes)
    except OSError as error:
        raise FaithmapError(f"{path} cannot be written ({error.strerror or error}): choose another place.") from error
    return path
