"""Localisation: how much of a heatmap lies on the object, where the truth is known.

A mask says where the object is. That the network looks there is an assumption, unless the network was made so (see
`faithmap.testbeds`): a faithful heatmap of a network that looks at the background scores low.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from faithmap.declarations import Parameter, integer
from faithmap.errors import MeasureError
from faithmap.measures.measure import measure

Heatmaps = Float[Tensor, "batch height width"]
Masks = Bool[Tensor, "batch height width"]
Values = Float[Tensor, "batch"]


@measure(
    "pointing-game",
    line="whether the most relevant pixel lies on the object, or within some pixels of it",
    source="Zhang et al. 2018",
    set="localisation",
    needs="masks",
    higher_is_better=True,
    unit="% of the images",
    parameters={"tolerance": Parameter(15, integer(low=0))},
)
def pointing_game(heatmaps: Heatmaps, masks: Masks, *, tolerance: int) -> Values:
    """100 where the first pixel (row-major) of the highest relevance is within `tolerance` pixels of the mask, else 0.

    The paper allows 15 pixels at about 224 pixels a side.
    """
    _check(masks)
    width = heatmaps.shape[2]
    peak = heatmaps.flatten(1).argmax(1)
    hits = []
    for at, mask in zip(peak.tolist(), masks, strict=True):
        y, x = mask.nonzero(as_tuple=True)
        hits.append(((y - at // width).square() + (x - at % width).square()).min() <= tolerance**2)
    return 100.0 * torch.stack(hits).double()


@measure(
    "relevance-mass",
    line="part of the positive relevance that lies on the object",
    source="Arras et al. 2022 (relevance mass accuracy); on mosaics Focus, Arias-Duart et al. 2022",
    set="localisation",
    needs="masks",
    higher_is_better=True,
    unit="fraction",
)
def relevance_mass(heatmaps: Heatmaps, masks: Masks) -> Values:
    """Σ R⁺ on the mask / Σ R⁺; the mask's area for a uniform heatmap."""
    _check(masks)
    positive = heatmaps.double().clamp(min=0)
    scale = positive.amax((1, 2), keepdim=True)
    if (scale == 0).any():
        raise MeasureError("the heatmap has no positive relevance: none of it lies anywhere.")
    positive = positive / scale
    return (positive * masks).sum((1, 2)) / positive.sum((1, 2))


@measure(
    "relevance-rank",
    line="part of the K most relevant pixels that lies on the object, which has K pixels",
    source="Arras et al. 2022 (relevance rank accuracy)",
    set="localisation",
    needs="masks",
    higher_is_better=True,
    unit="fraction",
)
def relevance_rank(heatmaps: Heatmaps, masks: Masks) -> Values:
    """|top-K pixels ∩ mask| / K with K = |mask|.

    Pixels of equal relevance at the border of the K share what is left: a uniform heatmap gets the mask's area.
    """
    _check(masks)
    values = []
    for heatmap, mask in zip(heatmaps.flatten(1).double(), masks.flatten(1), strict=True):
        k = int(mask.sum())
        border = heatmap.topk(k).values[-1]
        above, equal = heatmap > border, heatmap == border
        left = (k - above.sum()) * (equal & mask).sum() / equal.sum()
        values.append(((above & mask).sum() + left) / k)
    return torch.stack(values).double()


@measure(
    "attribution-localisation",
    line="positive relevance on the object, relative to a uniform heatmap",
    source="Kohlbrenner et al. 2020, weighted by the object's area",
    set="localisation",
    needs="masks",
    higher_is_better=True,
    unit="times uniform",
)
def attribution_localisation(heatmaps: Heatmaps, masks: Masks) -> Values:
    """(Σ R⁺ on the mask / Σ R⁺) · (pixels of the image / pixels of the mask); 1 for a uniform heatmap."""
    return relevance_mass(heatmaps, masks) / masks.double().mean((1, 2))


@measure(
    "background-pointing",
    line="whether the most relevant pixel lies off the object",
    source="Zhang et al. 2018, for the complement",
    set="localisation",
    needs="masks",
    in_set=False,
    higher_is_better=False,
    unit="% of the images",
)
def background_pointing(heatmaps: Heatmaps, masks: Masks) -> Values:
    """`pointing_game` of the object's complement, without tolerance."""
    return pointing_game(heatmaps, ~masks, tolerance=0)


@measure(
    "background-mass",
    line="part of the positive relevance that lies off the object",
    source="Arras et al. 2022, for the complement",
    set="localisation",
    needs="masks",
    in_set=False,
    higher_is_better=False,
    unit="fraction",
)
def background_mass(heatmaps: Heatmaps, masks: Masks) -> Values:
    """`relevance_mass` of the object's complement."""
    return relevance_mass(heatmaps, ~masks)


@measure(
    "background-rank",
    line="part of the K most relevant pixels that lies off the object, whose complement has K pixels",
    source="Arras et al. 2022, for the complement",
    set="localisation",
    needs="masks",
    in_set=False,
    higher_is_better=False,
    unit="fraction",
)
def background_rank(heatmaps: Heatmaps, masks: Masks) -> Values:
    """`relevance_rank` of the object's complement."""
    return relevance_rank(heatmaps, ~masks)


def _check(masks: Masks) -> None:
    covered = masks.flatten(1).double().mean(1)
    if (covered == 0).any() or (covered == 1).any():
        raise MeasureError("the mask covers nothing or all of the image: there is nothing to localise.")
