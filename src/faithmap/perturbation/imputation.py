"""Noisy linear imputation (ROAD): what replaces a pixel depends on which pixels are left.

A removed pixel is the weighted mean of its eight neighbours in the image, 1/6 each for the four that share an edge and
1/12 each for the four that share a corner (divided by the weight that lies inside the image, at the border). All
removed pixels together are one sparse linear system. Noise is added to its solution, so that a network does not see
how smooth imputed regions are.

The system falls apart into the connected groups of removed pixels, and a step changes only the groups that its region
touches: `imputed_steps` solves for those alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float, Int
from scipy import ndimage, sparse
from scipy.sparse.linalg import spsolve
from torch import Tensor

from faithmap.checks import as_fill, as_shaped_pixels, as_tensor
from faithmap.errors import InputError
from faithmap.modes import in_own_modes

_NEIGHBOURS = tuple(
    (y, x, 1 / 6 if y == 0 or x == 0 else 1 / 12) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)
)
_TOUCHING = np.ones((3, 3), dtype=bool)


@in_own_modes
def impute(
    pixels: Float[Tensor, "channels height width"],
    removed: Bool[Tensor, "height width"],
    noise: Float[Tensor, "channels height width"],
) -> Float[Tensor, "channels height width"]:
    """The image with its removed pixels imputed from those that are left.

    Args:
        pixels: the untouched image.
        removed: which pixels to replace. Where none is left, all become the image's mean colour.
        noise: added to what is imputed; the sum is kept within [0, 1].
    Source:
        Rong et al. 2022, "A Consistent and Efficient Evaluation Strategy for Attribution Methods" (ROAD), section 4.
    """
    pixels = as_shaped_pixels(pixels, dims=(3,))
    noise = as_fill(noise, pixels)
    where = as_tensor(removed, "removed").cpu()
    expected = tuple(pixels.shape[1:])
    if where.dtype != torch.bool or tuple(where.shape) != expected:
        raise InputError(
            f"removed is {where.dtype} of shape {tuple(where.shape)}: give True or False per pixel, {expected}."
        )
    gone = where.numpy()
    values = pixels.double().cpu().numpy().copy()
    values[:, gone] = _solve(values, gone) + noise.double().cpu().numpy()[:, gone]
    return torch.from_numpy(values.clip(0, 1).astype(np.float32)).to(pixels.device)


def imputed_steps(
    pixels: Float[Tensor, "channels height width"],
    removal_step: Int[Tensor, "height width"],
    noise: Float[Tensor, "channels height width"],
    points: Sequence[int],
) -> Iterator[Float[Tensor, "channels height width"]]:
    """x⁽ᵏ⁾ at some steps k, each `impute` of all pixels removed so far.

    Args:
        pixels, noise: as in `impute`.
        removal_step: the step at which a pixel is removed, 1…L; 0 for never.
        points: the steps, ascending, 0 first. Which there are changes no image.
    """
    original = pixels.double().cpu().numpy()
    added = noise.double().cpu().numpy()
    at = removal_step.cpu().numpy()
    values = original.copy()
    yield pixels
    for before, step in pairwise(points):
        groups, _ = ndimage.label((at > 0) & (at <= step), structure=_TOUCHING)
        boxes = ndimage.find_objects(groups)
        # Group by group: what is solved along with a group would change its last bit.
        for group in np.unique(groups[(at > before) & (at <= step)]):
            # One pixel more on every side that has one: all neighbours of the group, and no new border.
            box = tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in boxes[group - 1])
            changed = groups[box] == group
            solved = _solve(original[:, *box], changed) + added[:, *box][:, changed]
            values[:, *box][:, changed] = solved.clip(0, 1)
        yield torch.from_numpy(values.astype(np.float32)).to(pixels.device)


def _solve(values: npt.NDArray[np.float64], removed: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Values of the removed pixels, (C, n), row-major: Σ_j w_j (x_i − x_j) = 0 over the neighbours j of each i."""
    channels, (height, width) = len(values), removed.shape
    count = int(removed.sum())
    if count == 0:
        return np.empty((channels, 0))
    if count == height * width:
        return np.repeat(values.mean((1, 2))[:, None], count, axis=1)
    unknown = np.full(removed.shape, -1)
    unknown[removed] = np.arange(count)
    row, column = np.nonzero(removed)
    diagonal, known = np.zeros(count), np.zeros((count, channels))
    entries: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]] = []
    for dy, dx, weight in _NEIGHBOURS:
        y, x = row + dy, column + dx
        inside = np.flatnonzero((y >= 0) & (y < height) & (x >= 0) & (x < width))
        y, x = y[inside], x[inside]
        diagonal[inside] += weight
        to = unknown[y, x]
        known[inside[to < 0]] += weight * values[:, y[to < 0], x[to < 0]].T
        entries.append((inside[to >= 0], to[to >= 0], np.full(int((to >= 0).sum()), -weight)))
    everywhere = np.arange(count)
    rows, columns, weights = (
        np.concatenate(parts) for parts in zip(*entries, (everywhere, everywhere, diagonal), strict=True)
    )
    system = sparse.csc_array((weights, (rows, columns)), shape=(count, count))
    return np.asarray(spsolve(system, known, permc_spec="MMD_AT_PLUS_A")).reshape(count, channels).T
