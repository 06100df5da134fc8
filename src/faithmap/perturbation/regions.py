"""From a heatmap to the order in which regions are removed: `removal_steps`."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from faithmap.checks import as_integers, as_tensor
from faithmap.errors import HeatmapError, RegionError
from faithmap.modes import in_own_modes
from faithmap.protocol import Order, Placement, Protocol, as_order, as_protocol


def check_finite(heatmap: Tensor) -> None:
    """Raise a `HeatmapError` for what is no batch of finite heatmaps (B, H, W); its `index` is the first at fault."""
    if heatmap.ndim != 3 or heatmap.numel() == 0:
        remedy = ": add a dimension with heatmap[None]" if heatmap.ndim == 2 else ""
        raise HeatmapError(f"heatmap has shape {tuple(heatmap.shape)}, expected (B, H, W){remedy}.")
    finite = heatmap.isfinite().flatten(1).all(1)
    if not finite.all():
        raise HeatmapError("heatmap has values that are not finite: it has no order.", int((~finite).nonzero()[0]))


def check_heatmap(heatmap: Float[Tensor, "batch height width"]) -> None:
    """Raise a `HeatmapError` for a heatmap that has no order; its `index` is the first image at fault.

    Raises:
        HeatmapError: half precision, a value that is not finite, or a constant map.
    """
    if heatmap.dtype not in (torch.float32, torch.float64):
        raise HeatmapError(
            f"heatmap is {heatmap.dtype}, expected float32 or float64: half precision leaves too few distinct values "
            "to put pixels in order; compute heatmaps in float32."
        )
    check_finite(heatmap)
    constant = heatmap.flatten(1).amax(1) == heatmap.flatten(1).amin(1)
    if constant.any():
        index = int(constant.nonzero()[0])
        raise HeatmapError(f"heatmap is constant ({heatmap[index, 0, 0]:g} everywhere): it has no order.", index)


@in_own_modes
def removal_steps(
    heatmap: Float[Tensor, "batch height width"],
    protocol: Protocol,
    order: Order | str = Order.MORF,
    segments: Int[Tensor, "..."] | None = None,
) -> Int[Tensor, "batch height width"]:
    """The step at which each pixel is removed, 1…L, or 0 for never.

    Regions do not overlap: squares of `protocol.region_size` pixels, given segments, or groups of single pixels; see
    `Placement`. Ties break by position, row-major (a segment's position is that of its first pixel).

    Args:
        heatmap: channel-pooled relevance, signed, float32 or float64.
        protocol: gives steps, region size and placement.
        order: most relevant first (``"morf"``) or least relevant first (``"lerf"``).
        segments: for placement ``"segment"``, one label per pixel; a pixel with a label below 0 is never removed.
    Returns:
        int32 tensor on the heatmap's device.
    Raises:
        HeatmapError: a heatmap without an order (constant, not finite, half precision).
        RegionError: a region larger than the image, or fewer regions than steps; the message says how many fit.
    Source:
        Samek et al. 2017, the ordered set O = (r_1, …, r_L).
    Example:
        >>> protocol = Protocol.preset(steps=2, region_size=1)
        >>> removal_steps(torch.tensor([[[0.1, 0.7], [0.9, 0.2]]]), protocol)
        tensor([[[0, 2],
                 [1, 0]]], dtype=torch.int32)
    """
    given = as_tensor(heatmap, "heatmap", HeatmapError)
    protocol = as_protocol(protocol)
    check_heatmap(given)
    height, width = given.shape[1:]
    check_regions_fit(protocol, height, width)
    protocol = protocol.fitted(height, width)
    relevance = given if as_order(order) is Order.MORF else -given
    match protocol.placement:
        case Placement.GRID:
            return _grid(relevance, protocol.steps, protocol.region_size)
        case Placement.PATCH:
            raise RegionError("placement is 'patch' and no network says how large: give 'grid' and a region_size.")
        case Placement.CENTRE:
            return _centre(relevance, protocol.steps, protocol.region_size)
        case Placement.PIXEL:
            return _pixels(relevance, protocol.steps, protocol.region_size)
        case Placement.SEGMENT:
            if segments is None:
                raise RegionError("placement is 'segment' and no segments were given: pass a label map an image.")
            return _segments(relevance, as_integers(segments, "segments", RegionError), protocol.steps)


def check_regions_fit(protocol: Protocol, height: int, width: int) -> None:
    """Refuse a protocol whose regions cannot fit into an image of this size, whatever the heatmap.

    Raises:
        RegionError: says how many do.
    """
    size, steps = protocol.region_size, protocol.fitted(height, width).steps
    if protocol.placement is Placement.PIXEL:
        if size > height * width:
            raise RegionError(f"region_size is {size} pixels a step, the image has {height * width}: remove fewer.")
        if (fit := -(-height * width // size)) < steps:
            raise _too_few(fit, steps)
    elif protocol.placement is not Placement.SEGMENT:
        if size > min(height, width):
            raise RegionError(
                f"region_size is {size} pixels, the image is {height}×{width}: give a region that fits into the image."
            )
        if protocol.placement is Placement.GRID and (fit := (height // size) * (width // size)) < steps:
            raise RegionError(
                f"{fit} regions of {size} pixels fit into {height}×{width}, {steps} steps were asked for: ask for at "
                f"most {fit} steps, or smaller regions."
            )


def _too_few(fit: int, steps: int, index: int | None = None) -> RegionError:
    return RegionError(
        f"{fit} regions fit, {steps} steps were asked for: ask for at most {fit} steps, or smaller regions.", index
    )


def _grid(relevance: Tensor, steps: int, size: int) -> Tensor:
    """Cells of a fixed grid that starts at the top left, ranked by their summed relevance."""
    batch, height, width = relevance.shape
    rows, columns = height // size, width // size
    cells = relevance[:, : rows * size, : columns * size].reshape(batch, rows, size, columns, size)
    # Added one offset at a time, row-major: the same rounding whatever the batch, device or vector width.
    total = torch.zeros((batch, rows, columns), dtype=torch.float64, device=relevance.device)
    for y in range(size):
        for x in range(size):
            total += cells[:, :, y, :, x]
    ranked = total.flatten(1).argsort(dim=1, descending=True, stable=True)[:, :steps]
    step_of_cell = torch.zeros((batch, rows * columns), dtype=torch.int32, device=relevance.device)
    ks = torch.arange(1, steps + 1, dtype=torch.int32, device=relevance.device)
    step_of_cell.scatter_(1, ranked, ks.expand(batch, -1))
    grown = step_of_cell.view(batch, rows, columns).repeat_interleave(size, 1).repeat_interleave(size, 2)
    removal_step = torch.zeros((batch, height, width), dtype=torch.int32, device=relevance.device)
    removal_step[:, : rows * size, : columns * size] = grown
    return removal_step


def _pixels(relevance: Tensor, steps: int, size: int) -> Tensor:
    """Pixels ranked alone, `size` of them a step."""
    batch, height, width = relevance.shape
    ranked = relevance.flatten(1).argsort(dim=1, descending=True, stable=True)
    step_of_rank = torch.arange(height * width, dtype=torch.int32, device=relevance.device) // size + 1
    step_of_rank[step_of_rank > steps] = 0
    removal_step = torch.empty((batch, height * width), dtype=torch.int32, device=relevance.device)
    removal_step.scatter_(1, ranked, step_of_rank.expand(batch, -1))
    return removal_step.view(batch, height, width)


def _segments(relevance: Tensor, segments: Tensor, steps: int) -> Tensor:
    """Segments ranked by their mean relevance, so that a large one does not win by its size."""
    if segments.shape != relevance.shape:
        raise RegionError(
            f"segments are {tuple(segments.shape)}, the heatmap is {tuple(relevance.shape)}: give one label per pixel."
        )
    maps = [
        _rank_segments(one.flatten(), labels.flatten(), steps, index)
        for index, (one, labels) in enumerate(
            zip(relevance.double().cpu().numpy(), segments.cpu().numpy(), strict=True)
        )
    ]
    return torch.from_numpy(np.stack(maps)).view(relevance.shape).to(relevance.device)


def _rank_segments(
    relevance: np.ndarray[tuple[int], np.dtype[np.float64]],
    labels: np.ndarray[tuple[int], np.dtype[np.int64]],
    steps: int,
    index: int,
) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    removal_step = np.zeros(len(labels), dtype=np.int32)
    inside = np.flatnonzero(labels >= 0)
    _, first, segment = np.unique(labels[inside], return_index=True, return_inverse=True)
    if len(first) < steps:
        raise _too_few(len(first), steps, index)
    # Added one pixel at a time, row-major, on the CPU: the same rounding whatever the device.
    mean = np.bincount(segment, weights=relevance[inside]) / np.bincount(segment)
    step_of_segment = np.zeros(len(first), dtype=np.int32)
    step_of_segment[np.lexsort((first, -mean))[:steps]] = np.arange(1, steps + 1)
    removal_step[inside] = step_of_segment[segment]
    return removal_step


def _centre(relevance: Tensor, steps: int, size: int) -> Tensor:
    """Windows centred on the highest remaining pixel, clamped to the border, skipped when they would overlap.

    A pixel whose window overlaps a chosen one can never be chosen later, so "skip" is the same as ruling such pixels
    out as soon as a window is chosen. The highest pixel of every row is kept, so that a step looks at the few rows
    around the last window only.
    """
    batch, height, width = relevance.shape
    device = relevance.device
    edges_y, edges_x = height - size + 1, width - size + 1
    # Edge of the window centred on each pixel row (column), and which pixels each window rules out.
    top_of = (torch.arange(height, device=device) - size // 2).clamp(0, edges_y - 1)
    left_of = (torch.arange(width, device=device) - size // 2).clamp(0, edges_x - 1)
    rules_out_row = (top_of - torch.arange(edges_y, device=device).unsqueeze(1)).abs() < size
    rules_out_column = (left_of - torch.arange(edges_x, device=device).unsqueeze(1)).abs() < size
    # One block of rows, of the same height for all windows, holds all that a window rules out.
    block_height = int(rules_out_row.sum(1).max())
    block_rows = rules_out_row.int().argmax(1).clamp(max=height - block_height).unsqueeze(1) + torch.arange(
        block_height, device=device
    )
    rules_out_row = rules_out_row.gather(1, block_rows)

    # Rows of all images lie one under the other: row r of image b is b × height + r.
    remaining = relevance.reshape(batch * height, width).clone()
    best, best_column = (t.view(batch, height) for t in remaining.max(dim=1))
    first_row = torch.arange(batch, device=device) * height
    tops = torch.empty((steps, batch), dtype=torch.int64, device=device)
    lefts = torch.empty_like(tops)
    highest = torch.empty((steps, batch), dtype=relevance.dtype, device=device)
    for step in range(steps):
        highest[step], row = best.max(dim=1)  # the first of equals, and so the columns: row-major
        top = top_of[row]
        left = left_of[best_column.view(-1)[first_row + row]]
        tops[step], lefts[step] = top, left
        rows = block_rows[top]
        flat_rows = (rows + first_row.unsqueeze(1)).view(-1)
        block = remaining.index_select(0, flat_rows).view(batch, block_height, width)
        block.masked_fill_(rules_out_row[top].unsqueeze(2) & rules_out_column[left].unsqueeze(1), -torch.inf)
        remaining.index_copy_(0, flat_rows, block.view(-1, width))
        block_best, block_column = block.max(dim=2)
        best.scatter_(1, rows, block_best)
        best_column.scatter_(1, rows, block_column)

    if (full := highest == -torch.inf).any():
        index = int(full.any(0).nonzero()[0])
        raise _too_few(int((~full[:, index]).sum()), steps, index)
    return _paint(tops, lefts, size, relevance.shape)


def _paint(tops: Tensor, lefts: Tensor, size: int, shape: torch.Size) -> Tensor:
    """Write k into the window whose top-left corner is (tops[k − 1], lefts[k − 1])."""
    batch, height, width = shape
    steps, device = len(tops), tops.device
    offset = torch.arange(size, device=device)
    window = (offset.unsqueeze(1) * width + offset).view(-1)
    pixel = (tops * width + lefts).t().unsqueeze(2) + window
    step = torch.arange(1, steps + 1, dtype=torch.int32, device=device).view(1, steps, 1).expand(pixel.shape)
    removal_step = torch.zeros((batch, height * width), dtype=torch.int32, device=device)
    removal_step.scatter_(1, pixel.flatten(1), step.flatten(1))
    return removal_step.view(batch, height, width)
