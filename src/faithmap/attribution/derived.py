"""Heatmaps made from those of another method: known answers and controls, which a ruler has to put in order.

A map that is blended with noise says less, so a measure must rank the blends by their fraction of noise. A blurred copy
says no more than the map; where it scores higher, part of the score is smoothness.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import ndimage
from torch import Tensor

from faithmap.attribution.batch import Batch
from faithmap.attribution.method import heatmap_method
from faithmap.declarations import Parameter, number
from faithmap.errors import MethodError
from faithmap.protocol import Placement, Protocol
from faithmap.randomness import generator

_OF = Parameter("gradient-x-input", str)


@heatmap_method(
    "blend",
    line="known answer: a map's ranks on the regions mixed with random ranks",
    source="control; no single source",
    parameters={"of": _OF, "share": Parameter(0.5, number(0.0, 1.0))},
    of_another=True,
    first_shown=True,
    reads=("placement", "region_size"),
)
def blend(
    batch: Batch, *, of: Callable[[Batch], Any], share: float, protocol: Protocol
) -> Float[Tensor, "batch height width"]:
    """(1 − share) × the rank of a region in the map + share × a random rank, the same over the whole region.

    Args:
        of: computes the map.
        share: of noise: 0 is the map's own order of the regions, 1 a random one.
        protocol: its regions are what is ranked: noise per pixel would average out within a region.
    """
    heatmap = pooled(of(batch))
    cells = region_grid(protocol, (int(heatmap.shape[1]), int(heatmap.shape[2])))
    count, inside = int(cells.max()) + 1, cells >= 0
    found = []
    for one, name in zip(heatmap.double().cpu(), batch.image_ids, strict=True):
        relevance = torch.zeros(count, dtype=torch.float64).index_add_(0, cells[inside], one[inside])
        # Of regions that are equally relevant the first one goes first, as in the order of the map itself.
        rank = count - 1 - (-relevance).argsort(stable=True).argsort().double()
        noise = torch.from_numpy(generator("blend", batch.seed, name).permutation(count)).double()
        blended = torch.zeros_like(one)
        blended[inside] = ((1 - share) * rank + share * noise)[cells[inside]] / count
        found.append(blended)
    return torch.stack(found).to(heatmap)


@heatmap_method(
    "smoothed",
    line="control: a map blurred by a Gaussian of sigma pixels",
    source="a blurred copy can score higher without saying more: arXiv 2304.13836",
    parameters={"of": _OF, "sigma": Parameter(16.0, number(0.1, 1000.0))},
    of_another=True,
    first_shown=True,
)
def smoothed(batch: Batch, *, of: Callable[[Batch], Any], sigma: float) -> Float[Tensor, "batch height width"]:
    """The map, channels summed, convolved with a Gaussian; the border is continued by its own values.

    Args:
        of: computes the map.
        sigma: standard deviation of the Gaussian, in pixels.
    """
    heatmap = pooled(of(batch))
    maps = heatmap.double().cpu().numpy()
    blurred = ndimage.gaussian_filter(maps, (0, sigma, sigma), mode="nearest")
    return torch.from_numpy(np.ascontiguousarray(blurred)).to(heatmap)


def pooled(relevance: Tensor) -> Float[Tensor, "batch height width"]:
    """Channels summed, float32 or float64."""
    relevance = relevance.detach()
    relevance = relevance if relevance.dtype in (torch.float32, torch.float64) else relevance.float()
    return relevance.sum(1) if relevance.ndim == 4 else relevance


def region_grid(protocol: Protocol, size: tuple[int, int]) -> Int[Tensor, "height width"]:
    """The region of every pixel, numbered from 0: cells of a grid as wide as the protocol's regions.

    Pixels at the right and lower border that fill no cell are never removed, and get −1.

    Raises:
        MethodError: regions that are no squares.
    """
    if protocol.placement is Placement.SEGMENT:
        raise MethodError("it ranks square regions, and placement is 'segment': choose placement 'grid'.")
    side = 1 if protocol.placement is Placement.PIXEL else protocol.region_size
    rows, columns = (length // side for length in size)
    row, column = (torch.arange(length) // side for length in size)
    inside = (row < rows)[:, None] & (column < columns)
    return torch.where(inside, row[:, None] * columns + column, -1)
