"""Faithfulness with the network: what is removed from the image, and what the heatmap says of it.

A heatmap is read as contributions: the relevance of a set of pixels says by how much the class logit falls when they
are removed. Removed pixels get the mean colour (0 after normalisation) unless a measure says otherwise. Perturbed
images are the same for all methods, and are scored once.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from faithmap.declarations import Parameter, integer, number
from faithmap.errors import MeasureError
from faithmap.measures.correlation import pearson, spearman
from faithmap.measures.measure import measure
from faithmap.measures.subject import Subject
from faithmap.perturbation import draw_fill
from faithmap.perturbation.segments import segment
from faithmap.protocol import PROBABILISTIC

CELL = Parameter(16, integer(low=1))
_ROWS = 16
MOST = 0.8
"""The largest subset of `sensitivity_n`, as a fraction of the cells."""


@measure(
    "infidelity",
    line="squared error of the relevance of random squares as a forecast of the fall of the logit without them",
    source="Yeh et al. 2019 (noise > 0: their Gaussian noise), with the scale of the heatmap that makes it smallest",
    set="faithfulness",
    needs="network",
    higher_is_better=False,
    unit="logit²",
    parameters={
        "n": Parameter(100, integer(low=2)),
        "side": Parameter(0.2, number(low=0.01, high=1.0)),
        "noise": Parameter(0.0, number(low=0.0)),
    },
    drawn=True,
    forward=("n",),
)
def infidelity_of_squares(
    subject: Subject, heatmaps: Float[Tensor, "methods height width"], *, n: int, side: float, noise: float = 0.0
) -> Float[Tensor, "methods"]:
    """Infidelity over n squares at random places, `side` of the image's short side each; or, where `noise` is above 0,
    over n images with Gaussian noise of this standard deviation in the units of the network's input.
    """
    if noise > 0:
        normal = subject.generator("infidelity").standard_normal((n, *subject.size))
        perturbation = noise * torch.from_numpy(normal).float()
        drops = subject.shared(("noise", n, noise), lambda: drops_under(subject, perturbation))
        return torch.stack([infidelity(one, drops) for one in relevance_of(heatmaps, perturbation)])
    removed = squares(subject.size, n, side, subject.generator("infidelity"))
    drops = subject.shared(("squares", n, side), lambda: subject.drops(removed, subject.mean_colour))
    return torch.stack([infidelity(relevance, drops) for relevance in relevance_of(heatmaps, removed)])


def drops_under(subject: Subject, perturbation: Float[Tensor, "variants height width"]) -> Float[Tensor, "variants"]:
    """f(x) − f(x − I), the logit of the target class, float64, on the CPU; I is the same in all channels.

    I is in the units of the network's input x, so that relevance at the input times I is a forecast of the fall. Pixels
    are not clamped. Passes have one fixed size, so that no number depends on how many variants there are.
    """
    classifier, target = subject.classifier, subject.targets[:1]
    whole = classifier.normalise(subject.pixels[:1]).to(classifier.dtype)
    inputs = torch.cat([whole, whole - perturbation.unsqueeze(1).to(whole)])
    found = []
    with torch.no_grad():
        for some in torch.split(inputs, _ROWS):
            full = torch.cat([some, some[:1].expand(_ROWS - len(some), *some.shape[1:])])
            scores = classifier.scores(classifier.outputs(full), target.expand(_ROWS))
            found.append(scores[: len(some)].double().cpu())
    scores = torch.cat(found)
    return scores[0] - scores[1:]


def infidelity(
    relevance: Float[Tensor, "variants"], drops: Float[Tensor, "variants"], *, scaled: bool = True
) -> Float[Tensor, ""]:
    """E[(β Iᵀ Φ − (f(x) − f(x − I)))²].

    Args:
        relevance: Iᵀ Φ of every perturbation I.
        drops: f(x) − f(x − I).
        scaled: β = E[Iᵀ Φ · drop] / E[(Iᵀ Φ)²], which makes the error smallest, because the unit of a heatmap is
            arbitrary; else β = 1.
    Source:
        Yeh et al. 2019, definition 2.1.
    """
    if not scaled:
        return (relevance - drops).square().mean()
    unit = relevance / relevance.abs().max().clamp(min=1e-300)  # so that relevance near 1e-29 does not underflow
    square = unit.square().mean()
    beta = (unit * drops).mean() / square if square > 0 else square
    return (beta * unit - drops).square().mean()


@measure(
    "sensitivity-n",
    line="correlation of the relevance of n random regions with the fall of the logit without them, mean over n",
    source="Ancona et al. 2018, on regions instead of pixels (cell=1: pixels)",
    set="faithfulness",
    needs="network",
    higher_is_better=True,
    unit="correlation",
    parameters={"sizes": Parameter(8, integer(low=1)), "n": Parameter(25, integer(low=3)), "cell": CELL},
    drawn=True,
    forward=("sizes", "n"),
)
def sensitivity_n(
    subject: Subject, heatmaps: Float[Tensor, "methods height width"], *, sizes: int, n: int, cell: int
) -> Float[Tensor, "methods"]:
    """Mean over subset sizes, from one cell to 80 % of them, of the correlation over n subsets of each size.

    A heatmap that gives all subsets of a size the same relevance forecasts nothing there: its correlation counts as 0.
    """
    labels, random, each = grid(subject.size, cell), subject.generator("sensitivity-n"), []
    for size in subset_sizes(int(labels.max()) + 1, sizes):
        removed = subsets(labels, size, n, random)
        drops = subject.shared(("subsets", size, n, cell), partial(subject.drops, removed, subject.mean_colour))
        each.append(pearson(relevance_of(heatmaps, removed), drops))
    return torch.stack(each).nan_to_num(0.0).mean(0)


@measure(
    "faithfulness-correlation",
    line="correlation of the relevance of random subsets of regions with the fall of the logit without them",
    source="Bhatt et al. 2020, on regions instead of pixels (cell=1: pixels)",
    set="faithfulness",
    needs="network",
    higher_is_better=True,
    unit="correlation",
    parameters={
        "n": Parameter(100, integer(low=3)),
        "part": Parameter(0.2, number(low=0.0, high=1.0)),
        "cell": CELL,
    },
    drawn=True,
    forward=("n",),
)
def faithfulness_correlation(
    subject: Subject, heatmaps: Float[Tensor, "methods height width"], *, n: int, part: float, cell: int
) -> Float[Tensor, "methods"]:
    """Correlation over n subsets of one size: `part` of the cells, at least one."""
    labels = grid(subject.size, cell)
    size = max(1, round(part * (int(labels.max()) + 1)))
    removed = subsets(labels, size, n, subject.generator("faithfulness-correlation"))
    drops = subject.shared(("one size", n, part, cell), lambda: subject.drops(removed, subject.mean_colour))
    return pearson(relevance_of(heatmaps, removed), drops)


@measure(
    "region-effect",
    line="rank correlation of a region's relevance with the fall of the logit when it alone is removed (uniform noise)",
    source="Selvaraju et al. 2017 (rank correlation with occlusion)",
    set="faithfulness",
    needs="network",
    higher_is_better=True,
    unit="rank correlation",
    parameters={"n": Parameter(3, integer(low=1)), "cell": CELL},
    drawn=True,
    forward=("n", "cells"),
)
def region_effect(
    subject: Subject, heatmaps: Float[Tensor, "methods height width"], *, n: int, cell: int
) -> Float[Tensor, "methods"]:
    """Spearman's ρ over the cells; the fall is averaged over n fills."""
    cells, drops = single_regions(subject, n, cell)
    return spearman(relevance_of(heatmaps, cells), drops.mean(0))


@measure(
    "monotonicity",
    line="rank correlation of a region's absolute relevance with the expected squared change of the logit without it",
    source="Nguyen & Martínez 2020, on regions instead of pixels",
    set="faithfulness",
    needs="network",
    higher_is_better=True,
    unit="rank correlation",
    parameters={"n": Parameter(3, integer(low=1)), "cell": CELL},
    drawn=True,
    forward=("n", "cells"),
)
def monotonicity(
    subject: Subject, heatmaps: Float[Tensor, "methods height width"], *, n: int, cell: int
) -> Float[Tensor, "methods"]:
    """Spearman's ρ over the cells of |relevance| and E[(f(x) − f(x without the cell))²], over n uniform fills."""
    cells, drops = single_regions(subject, n, cell)
    return spearman(relevance_of(heatmaps, cells).abs(), drops.square().mean(0))


@measure(
    "irof",
    line="area over the curve of the class probability, relative to the whole image, while all segments are removed, "
    "most relevant first",
    source="Rieger & Hansen 2020",
    set="faithfulness",
    needs="network",
    higher_is_better=True,
    unit="fraction of the probability",
    parameters={"n": Parameter(50, integer(low=2)), "compactness": Parameter(10.0, number(low=1e-3))},
    in_set=False,
    forward=("n", "methods"),
)
def irof(
    subject: Subject, heatmaps: Float[Tensor, "methods height width"], *, n: int, compactness: float
) -> Float[Tensor, "methods"]:
    """1 − the mean over the fraction of removed segments of F(x without the first k) / F(x), k = 0 … all.

    About n SLIC segments per image, however many it has; the order is by mean relevance, ties by the segment's number;
    removed segments get the mean colour. The mean is the trapezoid's, with one step per segment.

    Raises:
        MeasureError: a network whose score has no probability.
    """
    if subject.classifier.score_kind not in PROBABILISTIC:
        raise MeasureError(f"the score of {subject.classifier.name} has no probability, whose fall this measures.")
    name = f"slic:n={n},compactness={compactness:g}"
    labels = subject.shared(("segments", name), lambda: segment(name, subject.pixels[0].cpu(), subject.ids[0]))
    _, labels = torch.unique(labels, return_inverse=True)
    size = torch.bincount(labels.flatten())
    found = []
    for heatmap in heatmaps:
        total = torch.zeros(len(size), dtype=torch.float64)
        total.index_add_(0, labels.flatten(), heatmap.double().cpu().flatten())
        first = torch.argsort(-total / size, stable=True)
        rank = torch.empty_like(first)
        rank[first] = torch.arange(len(first))
        removed = rank[labels] < torch.arange(1, len(size) + 1).view(-1, 1, 1)
        _, probability = subject.scores_without(removed, subject.mean_colour)
        curve = torch.cat([probability[:1, 0], probability[:, 1]]).double().cpu()
        found.append(1 - torch.trapezoid(curve / curve[0]) / len(size))
    return torch.stack(found)


@measure(
    "average-drop",
    line="fall of the class probability when the image is shown through the heatmap alone, at least 0",
    source="Chattopadhay et al. 2018",
    set="faithfulness",
    needs="network",
    higher_is_better=False,
    unit="%",
    forward=("methods",),
)
def average_drop(subject: Subject, heatmaps: Float[Tensor, "methods height width"]) -> Float[Tensor, "methods"]:
    """100 · max(0, Y − O) / Y, with Y the probability of the image and O of the image times the heatmap."""
    whole, shown = through_heatmaps(subject, heatmaps)
    return 100 * (whole - shown).clamp(min=0) / whole


@measure(
    "average-increase",
    line="whether the class probability rises when the image is shown through the heatmap alone",
    source="Chattopadhay et al. 2018",
    set="faithfulness",
    needs="network",
    higher_is_better=True,
    unit="% of the images",
    forward=("methods",),
)
def average_increase(subject: Subject, heatmaps: Float[Tensor, "methods height width"]) -> Float[Tensor, "methods"]:
    """100 where Y < O, else 0; see `average_drop`."""
    whole, shown = through_heatmaps(subject, heatmaps)
    return 100.0 * (whole < shown).double()


def through_heatmaps(
    subject: Subject, heatmaps: Float[Tensor, "methods height width"]
) -> tuple[Float[Tensor, "methods"], Float[Tensor, "methods"]]:
    """Class probability of the image, and of the image times the heatmap's positive part divided by its maximum.

    Raises:
        MeasureError: a heatmap without positive relevance, or a network whose score has no probability.
    """
    if subject.classifier.score_kind not in PROBABILISTIC:
        raise MeasureError(f"the score of {subject.classifier.name} has no probability, whose fall this measures.")
    positive = heatmaps.double().clamp(min=0)
    most = positive.amax((1, 2), keepdim=True)
    if (most == 0).any():
        raise MeasureError("the heatmap has no positive relevance: the image cannot be shown through it.")
    shown = subject.pixels.double() * (positive / most).unsqueeze(1).to(subject.pixels.device)
    both = torch.cat([subject.pixels, shown.to(subject.pixels.dtype)])
    # One image per pass: no number depends on how many methods there are.
    probability = torch.cat([_probability(subject, one.unsqueeze(0)) for one in both])
    return probability[:1].expand(len(heatmaps)), probability[1:]


def _probability(subject: Subject, pixels: Tensor) -> Tensor:
    classifier = subject.classifier
    with torch.no_grad():
        outputs = classifier.outputs(classifier.normalise(pixels).to(classifier.dtype))
        return classifier.probabilities(outputs, classifier.scores(outputs, subject.targets)).cpu()


def single_regions(subject: Subject, n: int, cell: int) -> tuple[Tensor, Tensor]:
    """The cells of the grid, and the fall of the logit without each, (n, cells), under the first n uniform fills."""
    labels = grid(subject.size, cell)
    cells = labels == torch.arange(int(labels.max()) + 1).view(-1, 1, 1)

    def drops(draw: int) -> Tensor:
        fill = draw_fill("uniform", subject.pixels[0], seed=subject.seed, image_id=subject.ids[0], draw=draw)
        return subject.drops(cells, fill)

    first = subject.draw * n
    each = [subject.shared(("single", cell, draw), partial(drops, draw)) for draw in range(first, first + n)]
    return cells, torch.stack(each)


def relevance_of(
    heatmaps: Float[Tensor, "methods height width"],
    removed: Bool[Tensor, "variants height width"] | Float[Tensor, "variants height width"],
) -> Float[Tensor, "methods variants"]:
    """Summed relevance of the removed pixels, or relevance times a perturbation, float64, on the CPU.

    One method at a time: no rounding depends on how many there are.
    """
    weights = removed.double().cpu().flatten(1)
    return torch.stack([weights @ heatmap.double().cpu().flatten() for heatmap in heatmaps])


def grid(size: tuple[int, int], cell: int) -> Int[Tensor, "height width"]:
    """Which cell of a grid that starts at the top left a pixel belongs to, row-major; −1 where no whole cell fits.

    Raises:
        MeasureError: fewer than three cells fit.
    """
    height, width = size
    rows, columns = height // cell, width // cell
    if rows * columns < 3:
        raise MeasureError(
            f"{rows * columns} regions of {cell} pixels fit into {height}×{width}, expected at least 3: give smaller "
            f"ones with cell={max(1, min(size) // 4)}."
        )
    y, x = torch.arange(height).unsqueeze(1) // cell, torch.arange(width) // cell
    return torch.where((y < rows) & (x < columns), y * columns + x, -1)


def subsets(
    labels: Int[Tensor, "height width"], size: int, n: int, random: np.random.Generator
) -> Bool[Tensor, "variants height width"]:
    """The unions of n random subsets of `size` cells each."""
    cells = int(labels.max()) + 1
    chosen = torch.zeros(n, cells + 1, dtype=torch.bool)  # the last stands for pixels of no cell
    for row in chosen:
        row[torch.from_numpy(random.choice(cells, size, replace=False))] = True
    return chosen[:, labels]


def subset_sizes(cells: int, sizes: int) -> list[int]:
    """Subset sizes from 1 to 80 % of the cells, evenly spaced on a logarithmic scale, each once."""
    most = max(1, int(MOST * cells))
    return sorted({round(most ** (at / max(1, sizes - 1))) for at in range(sizes)})


def squares(
    size: tuple[int, int], n: int, side: float, random: np.random.Generator
) -> Bool[Tensor, "variants height width"]:
    """Squares at random places, all inside the image."""
    height, width = size
    length = max(1, round(side * min(size)))
    tops, lefts = random.integers(0, height - length + 1, n), random.integers(0, width - length + 1, n)
    removed = torch.zeros(n, height, width, dtype=torch.bool)
    for at, (top, left) in enumerate(zip(tops.tolist(), lefts.tolist(), strict=True)):
        removed[at, top : top + length, left : left + length] = True
    return removed
