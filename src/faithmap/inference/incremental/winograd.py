"""3×3 convolutions with fewer multiplications: minimal filtering, in tiles of 2×2 outputs.

A tile of 2×2 outputs sees 4×4 inputs. Written out it takes 36 multiplications for each pair of channels; interpolation
at four points (0, 1, −1, ∞) takes 16, with sums before and behind them: Y = Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d B)]A (Lavin and Gray,
Fast algorithms for convolutional neural networks, CVPR 2016, equation 8, after Winograd 1980).

Invariant of the tiles: they lie on a grid that is fixed to the map, and an output is computed from the nine inputs of
its window alone, as in a plain convolution. So the pixels that a step cannot reach keep the bits that computing all
would give them. Larger tiles have no such outputs: there, inputs beside a window cancel only up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from faithmap.classifiers import kind_of
from faithmap.inference.incremental.geometry import Extents, Pair, Window

TILE = 2  # rows and columns of outputs
SIDE = TILE + 2  # of inputs, and of the products between them
WITH_BIAS = SIDE + 1  # the product at the points (1, 1), which enters every output once

# Few channels, C · O / (C + O), and tiles that a step touches only at their edges are not worth the sums.
_CHANNELS = 128
_FEWER = 1.6  # times fewer multiplications

_G = ((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1))


def is_cheaper(weight: Tensor, window: Window, groups: int, extents: Extents, extent: int) -> bool:
    """Whether a convolution runs in tiles: decided by network and input size alone, never by data, batch or timing.

    Args:
        weight: (outputs, inputs, rows, columns).
        extent: of its map.
    """
    if kind_of(weight.device) != "cpu" or weight.dtype is not torch.float32 or groups != 1:
        return False
    if window != Window((3, 3), (1, 1), window.before):
        return False
    outputs, inputs = weight.shape[:2]
    if outputs * inputs < _CHANNELS * (outputs + inputs):
        return False
    height, width = extents.all[extent].size
    direct = 9 * extents.share(extent) * height * width
    return direct >= _FEWER * SIDE**2 * extents.tiles(extent, TILE)


def filters(weight: Tensor) -> list[Tensor]:
    """The 16 matrices (outputs, inputs) of a filter (outputs, inputs, 3, 3): G g Gᵀ, rounded once."""
    points = torch.tensor(_G, dtype=torch.float64, device=weight.device)
    rows = torch.einsum("pa,oiab->poib", points, weight.double())
    every = torch.einsum("qb,poib->pqoi", points, rows).to(weight.dtype)
    return [one.contiguous() for one in every.flatten(0, 1)]


def interpolate(d: Sequence[Tensor], out: Sequence[Tensor]) -> None:
    """Bᵀd: four rows of inputs at the four points."""
    torch.sub(d[0], d[2], out=out[0])
    torch.add(d[1], d[2], out=out[1])
    torch.sub(d[2], d[1], out=out[2])
    torch.sub(d[1], d[3], out=out[3])


def evaluate(m: Sequence[Tensor], out: Sequence[Tensor]) -> None:
    """Aᵀm: two rows of outputs from four rows of products."""
    torch.add(m[0], m[1], out=out[0]).add_(m[2])
    torch.sub(m[1], m[2], out=out[1]).sub_(m[3])


def tiles_of(size: Pair) -> Pair:
    """Rows and columns of tiles that cover a map."""
    return -(-size[0] // TILE), -(-size[1] // TILE)
