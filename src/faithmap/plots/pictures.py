"""Figures that show images: heatmaps side by side, and the image while regions are removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure
from torch import Tensor

from faithmap import statistics
from faithmap.checks import as_fill, as_pixels, as_removal_steps
from faithmap.errors import FaithmapError
from faithmap.foreign import pairs
from faithmap.images import rgb
from faithmap.perturbation import perturb
from faithmap.plots.feeding import best_median_worst, film_strip
from faithmap.plots.registry import figure as registered
from faithmap.plots.style import FAINT, INK, PLAIN, Size, new_figure, size_of, themed
from faithmap.protocol import RANDOM
from faithmap.statistics.measured import aim_of
from faithmap.statistics.per_image import score_name, score_of_target
from faithmap.store.records import Example
from faithmap.text import display_name, printable

COLOURS = "RdBu_r"
_STRONGEST = 0.995  # the fraction of |relevance| that the colour scale spans; what is stronger gets the end colour


@registered("heatmaps", line="the images on which the methods are best, median and worst, with all heatmaps",
            inputs=best_median_worst)  # fmt: skip
def heatmaps(
    frame: pd.DataFrame,
    examples: Sequence[Example],
    figure: Figure | SubFigure | None = None,
    *,
    score: str = "logit",
    style: str = "paper",
    methods: Sequence[str] | None = None,
    step: int | None = None,
    labels: Mapping[int, str] | Sequence[str] | None = None,
    order: str = "morf",
    direction: str = "remove",
    among: str = "",
    channels: Sequence[int] | None = None,
) -> list[list[Axes]]:
    """Each image with the heatmaps of all methods in a row, and under each its AOPC relative to random.

    All heatmaps share one colour map, centred at zero; each spans its own strongest relevance, as scales differ by
    many orders of magnitude between methods.

    Args:
        frame: from `Run.scores()`.
        examples: from `Run.examples()`, one a row; see `statistics.chosen_images` for the best, median and worst.
        figure: drawn into; a new one by default.
        score, style: as in `fig4`.
        methods: which, in this order; by default those of the first example but random, best first.
        step: AOPC up to this step; the last by default.
        labels: class index → name.
        order, direction: as in `statistics.ranking`.
        among: what the examples are best, median and worst of, where that is not all images; written below.
        channels: which channels the pictures show; see `faithmap.images.rgb`.
    Returns:
        One list of Axes a row: the image, then its heatmaps.
    """
    if not examples:
        raise FaithmapError("no example was given: give at least one image with its heatmaps.")
    aopc = statistics.per_image_aopc(frame, score, order, relative=True)
    at = int(aopc.columns[-1]) if step is None else step
    if at not in aopc.columns:
        raise FaithmapError(f"step {at} is not in this run, which holds steps 0…{aopc.columns[-1]}.")
    values: dict[Any, float] = aopc[at].to_dict()
    names = (
        _ranked(values, examples[0].heatmaps, 1 if aim_of(direction, order) else -1)
        if methods is None
        else list(methods)
    )
    shown = frame[frame["image"].isin([example.image for example in examples])] if among else frame
    places = {image: place for place, image in statistics.chosen_images(shown, score, at, order, direction).items()}
    size = size_of(style)
    with themed(size):
        lines = 1 + max(_described(example, labels).count("\n") for example in examples)
        figure, axes, cell = _grid(figure, len(examples), 1 + len(names), size, lines=lines)
        digits = _digits([values.get((example.image, name), np.nan) for example in examples for name in names])
        for row, example in zip(axes, examples, strict=True):
            _show_pixels(row[0], example.pixels, channels)
            _write_under(row[0], _described(example, labels), size, cell)
            _write_beside(row[0], places.get(example.image, ""), size)
            for ax, name in zip(row[1:], names, strict=True):
                _show_heatmap(ax, example.heatmaps.get(name))
                _write_under(ax, _written(values.get((example.image, name), np.nan), digits, "+"), size, cell)
        for ax, name in zip(axes[0][1:], names, strict=True):
            title = _broken(name)
            ax.set_title(title, fontsize=_fitting(title, 0.85 * size.font, cell), **PLAIN)
        _colour_bar(figure, [ax for row in axes for ax in row], size)
        note = f"below each heatmap: AOPC relative to random ({score_name(frame, score)}, {at} steps)"
        if among:
            note += f"; best, median and worst of the {among}"
        figure.supxlabel(note, fontsize=0.8 * size.font, color=FAINT)
    return axes


@registered("steps", line="a film strip of one image: what is left of it at some steps, best method on top",
            inputs=film_strip)  # fmt: skip
def steps(
    pixels: Float[Tensor, "channels height width"],
    removal_steps: Mapping[str, Int[Tensor, "height width"]],
    fill: Float[Tensor, "channels height width"] | Mapping[str, Float[Tensor, "channels height width"]],
    at: Sequence[int] = (0, 10, 20, 50, 100),
    figure: Figure | SubFigure | None = None,
    *,
    style: str = "paper",
    frame: pd.DataFrame | None = None,
    image: str | None = None,
    draw: int = 0,
    score: str = "logit",
    order: str = "morf",
    channels: Sequence[int] | None = None,
) -> list[list[Axes]]:
    """A film strip: the image at chosen steps, one row per method.

    Args:
        pixels: x⁽⁰⁾, in pixel space.
        removal_steps: method → the step at which each pixel is replaced, 0 for never.
        fill: replacement values, in pixel space; of all methods, or by method where each has its own.
        at: which steps k.
        figure, style, channels: as in `heatmaps`.
        frame, image, draw, score, order: where given, the score of this image and draw is written under each picture.
    Returns:
        One list of Axes a method.
    """
    pixels = as_pixels(pixels, "pixels", dims=(3,))
    removal_steps = pairs(removal_steps, "removal_steps", FaithmapError) if isinstance(removal_steps, Mapping) else {}
    fill = pairs(fill, "fill", FaithmapError) if isinstance(fill, Mapping) else fill
    if not removal_steps or not len(at):
        raise FaithmapError("nothing to show: give the removal steps of at least one method, and at least one step.")
    drawn = {name: as_removal_steps(one, pixels) for name, one in removal_steps.items()}
    if isinstance(fill, Mapping) and (missing := [name for name in drawn if name not in fill]):
        raise FaithmapError(f"there is no fill of '{missing[0]}': give one for each method, or one for all.")
    fills = {name: as_fill(fill[name] if isinstance(fill, Mapping) else fill, pixels) for name in drawn}
    scores = _scores(frame, image, draw, score, order)
    named = score if frame is None else score_of_target(frame, score)
    size = size_of(style)
    with themed(size):
        figure, axes, cell = _grid(figure, len(removal_steps), len(at), size, lines=int(bool(scores)), bar=False)
        digits = _digits(list(scores.values()))
        for row, (name, removal_step) in zip(axes, drawn.items(), strict=True):
            for ax, k in zip(row, at, strict=True):
                _show_pixels(ax, perturb(pixels, removal_step, fills[name], k), channels)
                if (name, k) in scores:
                    _write_under(ax, _written(scores[name, k], digits), size, cell)
            _write_beside(row[0], _broken(name), size)
        for ax, k in zip(axes[0], at, strict=True):
            ax.set_title(f"k = {k}", fontsize=0.9 * size.font)
        if scores:
            figure.supxlabel(f"below each picture: {named}", fontsize=0.85 * size.font, color=FAINT)
    return axes


def _grid(
    figure: Figure | SubFigure | None, rows: int, columns: int, size: Size, lines: int, bar: bool = True
) -> tuple[Figure | SubFigure, list[list[Axes]], float]:
    """Square Axes without frames over the page's width, room for `lines` of text below each; and their inches."""
    beside = 0.3
    if figure is None:
        cell = min(size.wide / (columns + beside), 0.63 * size.width)
        height = rows * (cell + (lines + 0.8) * size.font / 72) + (7 if bar else 5) * size.font / 72
        figure = new_figure(cell * (columns + beside), height)
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        ax.set_xticks([])
        ax.set_yticks([])
        for spine in ax.spines.values():
            spine.set_visible(False)
    inches = figure.bbox.width / figure.dpi / (columns + beside)
    return figure, [list(row) for row in axes], float(inches)


def _show_pixels(ax: Axes, pixels: Tensor, channels: Sequence[int] | None) -> None:
    ax.imshow(rgb(pixels.detach().cpu().clamp(0, 1), channels).permute(1, 2, 0).numpy(), interpolation="none")


def _show_heatmap(ax: Axes, heatmap: Tensor | None) -> None:
    """Relevance over its own strongest value, in [−1, 1]; an empty square where there is none."""
    if heatmap is None:
        ax.text(0.5, 0.5, "none", transform=ax.transAxes, ha="center", va="center", color=FAINT)
        ax.set_aspect("equal", "box")
        return
    ax.imshow(scaled(heatmap).numpy(), cmap=COLOURS, vmin=-1, vmax=1, interpolation="none")


def scaled(heatmap: Float[Tensor, "height width"]) -> Float[Tensor, "height width"]:
    """Relevance as a fraction of its 99.5th percentile in size, clamped to [−1, 1]; zero stays zero."""
    values = heatmap.detach().cpu().double().nan_to_num(0, 0, 0)
    reach = torch.quantile(values.abs().flatten(), _STRONGEST)
    reach = reach if reach > 0 else values.abs().amax()
    return (values / reach).clamp(-1, 1) if reach > 0 else values


def _described(example: Example, labels: Mapping[int, str] | Sequence[str] | None) -> str:
    """Its name, and the class that is scored; the true class where it differs."""
    names = dict(labels) if isinstance(labels, Mapping) else dict(enumerate(labels or ()))

    def called(index: int) -> str:
        return printable(str(names.get(index, f"class {index}")).split(",")[0], 18)

    lines = [printable(example.image.split("/")[-1], 18), called(example.target)]
    if example.label is not None and not pd.isna(example.label) and example.label != example.target:
        lines.append(f"is {called(example.label)}")
    return "\n".join(lines)


def _write_under(ax: Axes, text: str, size: Size, cell: float) -> None:
    font = _fitting(text, 0.8 * size.font, cell)
    ax.set_xlabel(text, fontsize=font, labelpad=0.25 * size.font, color=INK, **PLAIN)


def _write_beside(ax: Axes, text: str, size: Size) -> None:
    ax.set_ylabel(text, fontsize=0.9 * size.font, color=INK, fontweight="bold", **PLAIN)


def _broken(method: str) -> str:
    """A method's name, its parameters on a line of their own."""
    return display_name(method).replace(" (", "\n(")


def _fitting(text: str, font: float, inches: float) -> float:
    """A font size at which the longest line fits, a letter being about 0.62 of it wide."""
    return min(font, 72 * inches / (0.62 * max(len(line) for line in text.split("\n")) or 1))


def _digits(values: Sequence[float]) -> int:
    """Decimals at which the largest of the numbers has three digits."""
    largest = max((abs(value) for value in values if np.isfinite(value)), default=0)
    return 2 if largest == 0 else max(0, 2 - int(np.floor(np.log10(largest))))


def _written(value: float, digits: int, sign: str = "-") -> str:
    return f"{value:{sign}.{digits}f}".replace("-", "−") if np.isfinite(value) else "–"


def _colour_bar(figure: Figure | SubFigure, axes: Sequence[Axes], size: Size) -> None:
    scale = ScalarMappable(Normalize(-1, 1), mpl.colormaps[COLOURS])
    bar = figure.colorbar(
        scale, ax=list(axes), orientation="horizontal", shrink=0.3, aspect=45, pad=0.01, ticks=[-1, 0, 1]
    )
    bar.ax.set_xticklabels(["negative", "0", "positive relevance"])
    bar.ax.tick_params(length=0, labelsize=0.8 * size.font)
    bar.outline.set_visible(False)


def _ranked(values: Mapping[tuple[str, str], float], maps: Mapping[str, Tensor], sign: int = 1) -> list[str]:
    """Methods by their mean AOPC over all images, best first; a high AOPC is good where the sign is 1."""
    series = pd.Series(values)
    mean = series.groupby(level=1).mean() if len(series) else series
    return sorted(set(maps) - {RANDOM}, key=lambda name: (-sign * float(mean.get(name, -sign * np.inf)), name))


def _scores(
    frame: pd.DataFrame | None, image: str | None, draw: int, score: str, order: str
) -> dict[tuple[str, int], float]:
    if frame is None or image is None:
        return {}
    rows = frame[(frame["image"] == image) & (frame["draw"] == draw) & (frame["order"] == order)]
    return {(str(m), int(k)): float(v) for m, k, v in zip(rows["method"], rows["step"], rows[score], strict=True)}
