"""Arithmetic on lists of pixels: gather the windows, one matrix product, scatter the results.

The pixels of all chains that a step changes go through a layer together, in chunks that fit the cache. What a kernel
computes for a pixel is the same, bit for bit, whatever else is in the list: matrix products take row counts from a
coarse grid on which the rows were found to be independent, and everything else is rounded element by element.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from faithmap.classifiers import kind_of
from faithmap.inference.incremental.geometry import Pair, Pixels
from faithmap.inference.incremental.layers import (
    AveragePool,
    Concat,
    Convolution,
    Copy,
    Input,
    Layer,
    MaxPool,
    PixelShuffle,
    Resample,
    RowOperation,
    Rowwise,
    Slice,
)
from faithmap.inference.incremental.state import Map, State
from faithmap.inference.incremental.winograd import SIDE, TILE, WITH_BIAS, evaluate, filters, interpolate

CHUNK_BYTES = {"cpu": 6_000_000, "device": 256_000_000}  # gathered windows at a time: what fits the cache of a CPU
# Row counts are multiples of it. Invariant of the row grid: whatever list a pixel is in, its row has the same bits.
# Every row count that a product meets is on the grid, so that vectorised loops leave no remainder; on it, rows were
# tried to be independent of their number and place (`rows_are_independent`), and where they are not, only one count is
# used. Rows beyond those wanted hold what the buffer held before: they are computed and dropped, never read.
GRID = 64
TILE_GRID = 16  # the same for tiles, which are four rows each
_GRAIN = 32768  # elementwise operations on fewer numbers are not split between threads


class Scratch:
    """Buffers that are used again and again: fresh memory costs more than the arithmetic on it."""

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self.dtype, self.device = dtype, device
        self._buffers: dict[str, Tensor] = {}

    def rows(self, name: str, count: int, width: int) -> Tensor:
        """A buffer (count, width); what it holds is left from its last use."""
        buffer = self._buffers.get(name)
        if buffer is None or buffer.numel() < count * width:
            buffer = torch.zeros(count * width, dtype=self.dtype, device=self.device)
            self._buffers[name] = buffer
        return buffer[: count * width].view(count, width)


def rounded_up(count: int, grid: int) -> int:
    """The next multiple of `grid`."""
    return -(-count // grid) * grid


def few_row_counts(count: int, grid: int = GRID) -> int:
    """Rounds up to one of few numbers: libraries prepare a matrix product once for each shape they meet."""
    return rounded_up(count, max(grid, 1 << max(count.bit_length() - 4, 0)))


def private_linear(device: torch.device, dtype: torch.dtype = torch.float32) -> Any | None:
    """oneDNN's packed linear layer, which torch has but does not promise; None where it is not there or not right."""
    known = device.type == "cpu" and dtype in (torch.float32, torch.bfloat16)
    return _probe_private_linear(dtype) if known else None


@lru_cache(maxsize=2)
def _probe_private_linear(dtype: torch.dtype) -> Any | None:
    try:
        ops = torch.ops.mkldnn
        random = torch.Generator().manual_seed(0)
        weight, bias, rows = (
            torch.randn(shape, generator=random, device="cpu").to(dtype) for shape in ((24, 40), (24,), (64, 40))
        )
        packed = ops._reorder_linear_weight(weight, 64)
        found = ops._linear_pointwise(rows, packed, bias, "relu", [], "")
        expected = F.linear(rows, weight, bias).relu_()
        near = 1e-4 if dtype is torch.float32 else 2e-2
        return ops if torch.allclose(found.float(), expected.float(), rtol=near, atol=near) else None
    except (AttributeError, RuntimeError, TypeError):
        return None


class Product:
    """rows · weightᵀ + bias, perhaps with ReLU.

    Args:
        weight: (outputs, inputs).
        rows: the largest number of rows that will come at a time.
        public: use public operations only.
        grid: row counts are multiples of it; with public operations of `GRID`.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, relu: bool, rows: int, public: bool = False, grid: int = GRID
    ) -> None:
        self.outputs, self.inputs = weight.shape
        self.relu = relu
        self.rows = rows
        self.bias = torch.zeros(self.outputs, dtype=weight.dtype, device=weight.device) if bias is None else bias
        self._private = None if public else private_linear(weight.device, weight.dtype)
        self.grid = GRID if self._private is None else grid
        self.weight = weight.contiguous()
        if self._private is not None:
            self._packed = self._private._reorder_linear_weight(self.weight, rows)
            self.weight = self.weight.new_empty(0)  # the packed copy is used; its type and place are still asked for
        # Where the number of rows changes how a row is rounded, it is always the same.
        self.any_count = rows <= self.grid or self._rows_are_independent()

    def counted(self, rows: int) -> int:
        """The number of rows to compute when `rows` are wanted."""
        return min(few_row_counts(rows, self.grid), self.rows) if self.any_count else self.rows

    def __call__(self, rows: Tensor) -> Tensor:
        if self._private is not None:
            attribute = "relu" if self.relu else "none"
            result: Tensor = self._private._linear_pointwise(rows, self._packed, self.bias, attribute, [], "")
            return result
        if rows.device.type == "cpu":
            # BLAS may round a row by where it stands in memory; a 1×1 convolution does not.
            columns = rows.t().view(1, self.inputs, -1, 1)
            result = F.conv2d(columns, self.weight[:, :, None, None], self.bias)[0, :, :, 0].t()
        else:
            result = F.linear(rows, self.weight, self.bias)
        return result.relu_() if self.relu else result

    def _rows_are_independent(self) -> bool:
        # Tried at the smallest counts, at one in the middle and at the largest, whole and shifted by 17 rows: kernels
        # change with the number of rows, and blocks of rows inside a kernel with a row's place.
        kind = "public" if self._private is None else "private"
        key = (kind, self.inputs, self.outputs, self.rows, self.grid, self.weight.dtype, self.weight.device)
        counts = {n for n in (self.grid, 2 * self.grid, few_row_counts(self.rows // 2 + 1)) if n < self.rows}
        parts = [slice(first, first + n) for n in counts for first in (0, min(17, self.rows - n))]
        return rows_are_independent(
            key,
            lambda: random_numbers(self.rows * self.inputs, self.weight).view(self.rows, self.inputs),
            lambda rows: self(rows.clone()),
            parts,
        )


_independent: dict[tuple[Any, ...], bool] = {}


def rows_are_independent(
    key: tuple[Any, ...],
    example: Callable[[], Tensor],
    compute: Callable[[Tensor], Tensor],
    parts: Sequence[slice],
) -> bool:
    """Whether every row of what `compute` makes is the same, bit for bit, whatever rows are computed with it.

    Args:
        key: what decides the answer, besides the number of threads; for each key it is looked for once.
        example: makes the rows to try it on.
        parts: rows that are computed without the others.
    """
    key = (*key, torch.get_num_threads())
    if key not in _independent:
        rows = example()
        together = compute(rows)
        _independent[key] = all(torch.equal(compute(rows[part]), together[part]) for part in parts)
    return _independent[key]


def random_numbers(count: int, like: Tensor) -> Tensor:
    """The same normal numbers every time, of the type and on the device of another tensor."""
    return torch.randn(count, generator=torch.Generator().manual_seed(0), device="cpu").to(like)


def apply(operation: RowOperation, *rows: Tensor) -> Tensor:
    """The operation, such that no value depends on where it stands in memory."""
    if operation.exact or rows[0].device.type != "cpu":
        return operation.function(*rows)
    # Vectorised loops leave the last few numbers of a thread's share to scalar code, which rounds differently: give
    # every thread an integer number of vectors.
    (one,) = rows
    flat = one.reshape(-1)
    whole = _GRAIN * torch.get_num_threads()
    end = len(flat) // whole * whole
    pieces = [*(torch.split(flat[:end], whole) if end else ()), *torch.split(flat[end:], _GRAIN)]
    if one.ndim != 2 or len(pieces) == 1 or operation.name == "prelu":
        return operation.function(one)
    return torch.cat([operation.function(piece) for piece in pieces]).view(one.shape)


class Windows:
    """How a window lies in memory: as runs of neighbouring pixels, or as single pixels."""

    def __init__(self, source: Map, size: Pair, dilation: Pair) -> None:
        width = source.padded[1]
        if source.storage is not None and dilation[1] == 1:
            self.view = source.runs(size[1]) if size[1] > 1 else source.rows
            offsets = [dy * dilation[0] * width for dy in range(size[0])]
        else:
            self.view = source.rows
            offsets = [dy * dilation[0] * width + dx * dilation[1] for dy in range(size[0]) for dx in range(size[1])]
        self.offsets = offsets
        self.offset_row = torch.tensor(offsets, device=source.rows.device)

    def gather(self, first: Tensor, out: Tensor) -> None:
        """All of every window in one row of `out`, (pixels, size · channels)."""
        index = first if len(self.offsets) == 1 else (first.unsqueeze(1) + self.offset_row).view(-1)
        torch.index_select(self.view, 0, index, out=out.view(len(index), -1))


class Kernel:
    """One layer's arithmetic."""

    def __init__(self, layer: Layer, scratch: Scratch, public: bool = False) -> None:
        self.layer = layer
        self.scratch = scratch
        self.public = public
        self.window, self.size = layer.reads
        self.after = list(layer.after)
        self.chunk = self._chunk(layer.channels)

    def run(self, state: State, pixels: Pixels) -> None:
        """Compute the pixels from the maps that the layer reads, and store them."""
        target = state.maps[self.layer]
        to = pixels.index(target.padded, shift=target.corner)
        for part, count, rows in self.chunks(state, pixels):
            target.rows.index_copy_(0, to[part], rows[:count])

    def chunks(self, state: State, pixels: Pixels) -> Iterator[tuple[slice, int, Tensor]]:
        """Which of the list, how many, and at least so many finished rows, until the next are asked for."""
        for start in range(0, len(pixels), self.chunk):
            part = slice(start, start + self.chunk)
            count = min(self.chunk, len(pixels) - start)
            rows = self.compute(state, pixels, part, count)
            for operation in self.after:
                rows = apply(operation, rows)
            yield part, count, rows

    def compute(self, state: State, pixels: Pixels, part: slice, count: int) -> Tensor:
        """At least `count` rows of the result."""
        raise NotImplementedError

    def window_index(self, source: Map, pixels: Pixels) -> Tensor:
        """Where the window of every pixel, or of every tile, begins."""
        before = self.window.before
        return pixels.index(
            source.padded, self.window.stride, (source.corner[0] - before[0], source.corner[1] - before[1])
        )

    def windows(self, state: State) -> Windows:
        """How this layer's windows lie in a state."""
        if self.layer not in state.windows:
            source = state.maps[self.layer.inputs[0]]
            state.windows[self.layer] = Windows(source, self.window.size, self.window.dilation)
        found: Windows = state.windows[self.layer]
        return found

    def _takes_relu(self) -> bool:
        """Whether a ReLU comes first of all that follows; the kernel then applies it itself."""
        relu = bool(self.after) and self.after[0].name == "relu" and self.after[0].joins
        self.after = self.after[relu:]
        return relu

    def _chunk(self, width: int) -> int:
        itemsize = torch.finfo(self.scratch.dtype).bits // 8
        limit = CHUNK_BYTES[kind_of(self.scratch.device)]
        return max(2 * GRID, limit // (width * itemsize) // GRID * GRID)


class ConvolutionKernel(Kernel):
    """Windows as rows of a matrix, times the weights; groups of few channels are joined, with zeros between them."""

    def __init__(self, layer: Convolution, scratch: Scratch, public: bool = False) -> None:
        super().__init__(layer, scratch, public)
        weight, bias = layer.weight, layer.bias
        relu = self._takes_relu()
        _, per_group, *size = weight.shape
        self.taps = size[0] * size[1]
        self.channels = per_group * layer.groups
        self.chunk = self._chunk(self.taps * self.channels)
        joined = _joined_groups(layer.groups, per_group)
        self.blocks = layer.groups // joined
        rows = _block_weights(weight, layer.groups, joined).permute(0, 1, 3, 4, 2).flatten(2)
        biases = [None] * self.blocks if bias is None else bias.chunk(self.blocks)
        self.products = [Product(w, b, relu, self.chunk, public) for w, b in zip(rows, biases, strict=True)]

    def compute(self, state: State, pixels: Pixels, part: slice, count: int) -> Tensor:
        first = self.window_index(state.maps[self.layer.inputs[0]], pixels)[part]
        rows = self.products[0].counted(count)
        gathered = self.scratch.rows("windows", rows, self.taps * self.channels)
        self.windows(state).gather(first, gathered[:count])
        if self.blocks == 1:
            return self.products[0](gathered)
        blocks = gathered.view(rows, self.taps, self.blocks, -1)
        return torch.cat([p(blocks[:, :, at].reshape(rows, -1)) for at, p in enumerate(self.products)], 1)


class TileKernel(Kernel):
    """3×3 filters in tiles of 2×2 outputs, by 16 matrix products; see `winograd`."""

    def __init__(self, layer: Convolution, scratch: Scratch, public: bool = False) -> None:
        super().__init__(layer, scratch, public)
        self.relu = self._takes_relu()
        self.inputs = layer.inputs[0].channels
        # Twice as much as elsewhere, because the weights of all products cross the cache once a chunk.
        self.chunk = self._chunk(SIDE**2 * self.inputs // 2)
        self.products = [
            Product(weight, layer.bias if at == WITH_BIAS else None, False, self.chunk, public, TILE_GRID)
            for at, weight in enumerate(filters(layer.weight))
        ]

    def run(self, state: State, pixels: Pixels) -> None:
        # All of a tile is stored: pixels that are not in the list become, bit by bit, what they are.
        target, (height, width) = state.maps[self.layer], self.layer.size
        tiles = pixels.tiles(TILE, self.size)
        down = torch.arange(TILE, device=tiles.row.device).repeat_interleave(TILE)
        right = torch.arange(TILE, device=tiles.row.device).repeat(TILE)
        corner = tiles.index(target.padded, self.window.stride, target.corner)
        to = corner.unsqueeze(1) + (down * target.padded[1] + right)
        row, column = (one.unsqueeze(1) * TILE for one in (tiles.row, tiles.column))
        inside = (row + down < height) & (column + right < width)
        for part, count, rows in self.chunks(state, tiles):
            wanted = inside[part].reshape(-1).nonzero().squeeze(1)
            found = rows[: count * TILE**2]
            if len(wanted) < len(found):
                found = found.index_select(0, wanted)
            target.rows.index_copy_(0, to[part].reshape(-1)[wanted], found)

    def compute(self, state: State, pixels: Pixels, part: slice, count: int) -> Tensor:
        """At least `count` tiles, four rows each."""
        inputs, outputs = self.inputs, self.layer.channels
        first = self.window_index(state.maps[self.layer.inputs[0]], pixels)[part]
        rows = self.products[0].counted(count)
        gathered, between = (self.scratch.rows(name, rows, SIDE**2 * inputs) for name in ("windows", "total"))
        self.windows(state).gather(first, gathered[:count])
        lines = between.view(SIDE, rows, SIDE * inputs)
        interpolate(gathered.view(rows, SIDE, -1).unbind(1), lines.unbind(0))
        points = gathered.view(SIDE, SIDE, rows, inputs)  # what was gathered is not read any more
        interpolate(lines.view(SIDE, rows, SIDE, inputs).unbind(2), points.unbind(1))
        products = [product(one) for product, one in zip(self.products, points.flatten(0, 1), strict=True)]
        half = self.scratch.rows("map 0", rows, TILE * SIDE * outputs).view(TILE, SIDE, rows, outputs)
        for at in range(SIDE):
            evaluate(products[at::SIDE], half[:, at].unbind(0))
        found = self.scratch.rows("map 1", rows * TILE**2, outputs)
        evaluate(half.unbind(1), found.view(rows, TILE, TILE, outputs).permute(1, 2, 0, 3).unbind(1))
        return found.relu_() if self.relu else found


def _joined_groups(groups: int, channels: int) -> int:
    """How many groups to join so that a block has at least 32 channels."""
    return next(n for n in range(1, groups + 1) if groups % n == 0 and (n * channels >= 32 or n == groups))


def _block_weights(weight: Tensor, groups: int, joined: int) -> Tensor:
    """Weights (blocks, outputs, inputs, rows, columns) of blocks of joined groups; zero between the groups."""
    outputs, channels, *size = weight.shape
    blocks, each = groups // joined, outputs // groups
    full = weight.new_zeros(blocks, joined, each, joined, channels, *size)
    parts = weight.view(blocks, joined, each, channels, *size)
    for at in range(joined):
        full[:, at, :, at] = parts[:, at]
    return full.view(blocks, joined * each, joined * channels, *size)


class DepthwiseKernel(ConvolutionKernel):
    """One filter a channel: multiply and add, tap by tap."""

    def __init__(self, layer: Convolution, scratch: Scratch, public: bool = False) -> None:
        Kernel.__init__(self, layer, scratch, public)
        self.bias = layer.bias
        self.taps = layer.window.size[0] * layer.window.size[1]
        self.weights = layer.weight.permute(1, 2, 3, 0).reshape(self.taps, layer.channels).contiguous()
        self.chunk = self._chunk(3 * layer.window.size[1] * layer.channels)

    def compute(self, state: State, pixels: Pixels, part: slice, count: int) -> Tensor:
        first = self.window_index(state.maps[self.layer.inputs[0]], pixels)[part]
        windows, channels = self.windows(state), self.layer.channels
        rows = rounded_up(count, GRID)
        total, term = (self.scratch.rows(name, rows, channels) for name in ("total", "term"))
        width = windows.view.shape[1]
        gathered = self.scratch.rows("windows", rows, width)
        tap = 0
        for offset in windows.offsets:
            torch.index_select(windows.view, 0, first + offset, out=gathered[:count])
            for start in range(0, width, channels):
                # Two rounded operations, not one fused: vectorised and scalar code then round alike.
                out = term if tap else total
                torch.mul(gathered[:, start : start + channels], self.weights[tap], out=out)
                if tap:
                    total.add_(term)
                tap += 1
        return total if self.bias is None else total.add_(self.bias)


class PoolKernel(Kernel):
    """The largest value or the mean of every window."""

    def __init__(self, layer: MaxPool | AveragePool, scratch: Scratch, public: bool = False) -> None:
        super().__init__(layer, scratch, public)
        self.combine: Any = torch.maximum if isinstance(layer, MaxPool) else torch.add
        divisor = layer.divisor if isinstance(layer, AveragePool) else 1.0
        self.divisor = divisor.to(scratch.device) if isinstance(divisor, Tensor) else divisor
        self.chunk = self._chunk(2 * layer.window.size[1] * layer.channels)

    def compute(self, state: State, pixels: Pixels, part: slice, count: int) -> Tensor:
        source = state.maps[self.layer.inputs[0]]
        first = self.window_index(source, pixels)[part]
        windows = self.windows(state)
        channels, width = self.layer.channels, windows.view.shape[1]
        rows = rounded_up(count, GRID)
        best, other = (self.scratch.rows(name, rows, width) for name in ("total", "term"))
        torch.index_select(windows.view, 0, first + windows.offsets[0], out=best[:count])
        for offset in windows.offsets[1:]:
            torch.index_select(windows.view, 0, first + offset, out=other[:count])
            self.combine(best, other, out=best)
        if width > channels:
            result = self.scratch.rows("windows", rows, channels)
            self.combine(best[:, :channels], best[:, channels : 2 * channels], out=result)
            for start in range(2 * channels, width, channels):
                self.combine(result, best[:, start : start + channels], out=result)
            best = result
        if isinstance(self.divisor, Tensor):
            best[:count].div_(self.divisor.index_select(0, pixels.index(self.layer.size)[part] % len(self.divisor)))
        elif self.divisor != 1:
            best.div_(self.divisor)
        return best


class RowwiseKernel(Kernel):
    """A function of the same pixel of one or more maps."""

    def __init__(self, layer: Rowwise, scratch: Scratch, public: bool = False) -> None:
        super().__init__(layer, scratch, public)
        self.operation = layer.operation
        self.chunk = self._chunk(2 * layer.channels)

    def compute(self, state: State, pixels: Pixels, part: slice, count: int) -> Tensor:
        rows = rounded_up(count, GRID)
        gathered = []
        for at, source in enumerate(self.layer.inputs):
            one = state.maps[source]
            buffer = self.scratch.rows(f"map {at}", rows, source.channels)
            index = pixels.index(one.padded, shift=one.corner)[part]
            torch.index_select(one.rows, 0, index, out=buffer[:count])
            gathered.append(buffer)
        return apply(self.operation, *gathered)


class ResampleKernel(Kernel):
    """Rows and columns that a table names, weighted and summed up."""

    def __init__(self, layer: Resample, scratch: Scratch) -> None:
        super().__init__(layer, scratch)
        self.rows, self.columns = (
            (index.to(scratch.device), weight.to(scratch.device, scratch.dtype))
            for index, weight in (layer.rows, layer.columns)
        )
        self.chunk = self._chunk(2 * layer.channels)

    def compute(self, state: State, pixels: Pixels, part: slice, count: int) -> Tensor:
        source = state.maps[self.layer.inputs[0]]
        (height, width), (top, left) = source.padded, source.corner
        chain, row, column = pixels.chain[part] * (height * width), pixels.row[part], pixels.column[part]
        padded = rounded_up(count, GRID)
        total, term = (self.scratch.rows(name, padded, self.layer.channels) for name in ("total", "term"))
        total.zero_()
        for index, weight in zip(self.rows[0].T, self.rows[1].T, strict=True):
            line = chain + (index[row] + top) * width + left
            for across, share in zip(self.columns[0].T, self.columns[1].T, strict=True):
                torch.index_select(source.rows, 0, line + across[column], out=term[:count])
                # Two rounded operations, not one fused: vectorised and scalar code then round alike.
                term[:count].mul_((weight[row] * share[column]).unsqueeze(1))
                total[:count].add_(term[:count])
        return total


class PixelShuffleKernel(Kernel):
    """Channels of one pixel become neighbouring pixels."""

    def __init__(self, layer: PixelShuffle, scratch: Scratch) -> None:
        super().__init__(layer, scratch)
        self.factor = layer.factor
        self.chunk = self._chunk(2 * layer.channels * layer.factor**2)

    def compute(self, state: State, pixels: Pixels, part: slice, count: int) -> Tensor:
        source = state.maps[self.layer.inputs[0]]
        (height, width), (top, left), factor = source.padded, source.corner, self.factor
        row, column = pixels.row[part], pixels.column[part]
        place = torch.div(row, factor, rounding_mode="floor") + top
        across = torch.div(column, factor, rounding_mode="floor") + left
        several = source.rows.index_select(0, (pixels.chain[part] * height + place) * width + across)
        among = (row % factor * factor + column % factor).view(-1, 1, 1).expand(-1, self.layer.channels, 1)
        return several.view(count, self.layer.channels, factor**2).gather(2, among).squeeze(2)


class CopyKernel(Kernel):
    """A map moved by padding or a cut."""

    def compute(self, state: State, pixels: Pixels, part: slice, count: int) -> Tensor:
        source = state.maps[self.layer.inputs[0]]
        return source.rows.index_select(0, self.window_index(source, pixels)[part])


class ConcatKernel(Kernel):
    """Copies the parts that could not be written into place at once."""

    def __init__(self, layer: Concat, scratch: Scratch, offsets: Sequence[tuple[Layer, int]]) -> None:
        super().__init__(layer, scratch)
        self.offsets = offsets

    def run(self, state: State, pixels: Pixels) -> None:
        target = state.maps[self.layer]
        to = pixels.index(target.padded, shift=target.corner)
        for part, offset in self.offsets:
            source = state.maps[part]
            rows = source.rows.index_select(0, pixels.index(source.padded, shift=source.corner))
            target.rows[:, offset : offset + part.channels].index_copy_(0, to, rows)


def kernel_for(layer: Layer, scratch: Scratch, unplaced: Sequence[tuple[Layer, int]], public: bool) -> Kernel | None:
    """The kernel of a layer; None for one that needs no arithmetic.

    Args:
        unplaced: parts of a concatenation that do not lie in it, with the channel they begin at.
        public: use public operations of torch only.
    """
    if isinstance(layer, Convolution):
        if layer.tiled:
            return TileKernel(layer, scratch, public)
        depthwise = layer.groups == layer.channels == layer.inputs[0].channels and layer.groups > 1
        return (DepthwiseKernel if depthwise else ConvolutionKernel)(layer, scratch, public)
    if isinstance(layer, MaxPool | AveragePool):
        return PoolKernel(layer, scratch)
    if isinstance(layer, Rowwise):
        return RowwiseKernel(layer, scratch)
    if isinstance(layer, Resample):
        return ResampleKernel(layer, scratch)
    if isinstance(layer, PixelShuffle):
        return PixelShuffleKernel(layer, scratch)
    if isinstance(layer, Copy):
        return CopyKernel(layer, scratch)
    if isinstance(layer, Concat):
        return ConcatKernel(layer, scratch, unplaced) if unplaced else None
    assert isinstance(layer, Input | Slice)
    return None
