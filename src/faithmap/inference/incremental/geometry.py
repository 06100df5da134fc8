"""Which part of each layer a step changes.

The change of a layer is the smallest rectangle around it, one for every step and chain: a tensor (4, steps, chains)
of first row, end row, first column, end column (ends exclusive); an empty rectangle is all zeros. `Extent` says how the
rectangle of a layer follows from those before it; layers that change alike share one extent, and so one list of pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

Pair = tuple[int, int]


@dataclass(frozen=True)
class Window:
    """What an output pixel sees: `size` input pixels, `dilation` apart, the first at pixel · stride − before.

    Each is (rows, columns). `before` is the padding above and to the left; it is negative where rows are cut off.
    """

    size: Pair = (1, 1)
    stride: Pair = (1, 1)
    before: Pair = (0, 0)
    dilation: Pair = (1, 1)

    def after(self, inputs: Pair, outputs: Pair) -> Pair:
        """Padding below and to the right that the last window needs."""
        reach = [
            (outputs[a] - 1) * self.stride[a] - self.before[a] + (self.size[a] - 1) * self.dilation[a] + 1
            for a in (0, 1)
        ]
        return max(reach[0] - inputs[0], 0), max(reach[1] - inputs[1], 0)


@dataclass(frozen=True)
class Spans:
    """What each output row and column sees, written out: input rows `first[0][r]` to `last[0][r]`, both included.

    Columns are `first[1]` and `last[1]`. All are ascending.
    """

    first: tuple[tuple[int, ...], tuple[int, ...]]
    last: tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class Extent:
    """How the changed rectangle of a map of `size` (rows, columns) follows from those of others (by number).

    With a window or spans there is one source; without it is the union of the sources; the input has none.
    """

    size: Pair
    sources: tuple[int, ...] = ()
    window: Window | Spans | None = None


class Extents:
    """All distinct extents of a network, sources first. The input's is number 0.

    Args:
        size: rows and columns of the network's input.
        region: side of the square region that `share` supposes, in pixels.
    """

    def __init__(self, size: Pair, region: int = 9) -> None:
        self.all: list[Extent] = [Extent(size)]
        self._numbers: dict[Extent, int] = {}
        self._typical = [_squares(size, region)]

    def through(self, source: int, window: Window | Spans, size: Pair) -> int:
        """The extent of a layer with this window, or these spans, over `source`."""
        return source if window == Window() and size == self.all[source].size else self._add(size, (source,), window)

    def union(self, sources: Sequence[int]) -> int:
        """The extent of a layer that reads several maps pixel by pixel."""
        distinct = tuple(sorted(set(sources)))
        return distinct[0] if len(distinct) == 1 else self._add(self.all[distinct[0]].size, distinct, None)

    def share(self, number: int) -> float:
        """The fraction of the map that one square region changes, averaged over where the region lies.

        Depends on the network and its input size alone, so that what is decided by it never depends on the data.
        """
        return _mean_share(self._typical[number], self.all[number].size)

    def tiles(self, number: int, side: int) -> float:
        """How many tiles of side × side pixels, on a fixed grid, such a region touches on average."""
        return float(area(_in_tiles(self._typical[number], side)).double().mean())

    def shares(self, region: int) -> list[float]:
        """`share` of every extent, for squares of another side."""
        rectangles = self.rectangles(_squares(self.all[0].size, region))
        return [_mean_share(one, extent.size) for one, extent in zip(rectangles, self.all, strict=True)]

    def rectangles(self, changed: Int[Tensor, "4 steps chains"]) -> list[Tensor]:
        """The changed rectangle of every extent, (4, steps, chains) each, from that of the input."""
        found = [changed]
        for extent in self.all[1:]:
            rectangle = _rectangle(extent, found)
            # Mostly one source of a union contains the others: the same object tells that the same pixels change.
            same = (found[s] for s in extent.sources if extent.window is None and torch.equal(found[s], rectangle))
            found.append(next(same, rectangle))
        return found

    @staticmethod
    def inside(window: Window, size: Pair, source: Int[Tensor, "4 steps chains"]) -> Int[Tensor, "4 steps chains"]:
        """The pixels of a map of `size` whose windows touch the rectangles."""
        return _through(source, window, size)

    def _add(self, size: Pair, sources: tuple[int, ...], window: Window | Spans | None) -> int:
        extent = Extent(size, sources, window)
        if extent not in self._numbers:
            self._numbers[extent] = len(self.all)
            self.all.append(extent)
            self._typical.append(_rectangle(extent, self._typical))
        return self._numbers[extent]


def _squares(size: Pair, side: int) -> Int[Tensor, "4 1 squares"]:
    """Squares spread evenly over a map."""
    starts = [torch.linspace(0, max(length - side, 0), 16, device="cpu").long() for length in size]
    y, x = (grid.reshape(1, -1) for grid in torch.meshgrid(*starts, indexing="ij"))
    return torch.stack([y, (y + side).clamp(max=size[0]), x, (x + side).clamp(max=size[1])])


def _mean_share(rectangles: Tensor, size: Pair) -> float:
    return float(area(rectangles).double().mean()) / (size[0] * size[1])


def _in_tiles(rectangle: Tensor, side: int) -> Tensor:
    """The rectangle of tiles that a rectangle of pixels touches."""
    first, end, left, right = rectangle
    return torch.stack([first // side, -(-end // side), left // side, -(-right // side)])


def _rectangle(extent: Extent, found: Sequence[Tensor]) -> Tensor:
    sources = [found[source] for source in extent.sources]
    if extent.window is None:
        return _union(sources)
    if isinstance(extent.window, Spans):
        return _through_spans(sources[0], extent.window)
    return _through(sources[0], extent.window, extent.size)


def _through_spans(rectangle: Tensor, spans: Spans) -> Tensor:
    """An output row changes if its span reaches the rectangle's first row and begins before its end."""
    ends = []
    for axis in (0, 1):
        first, last = (torch.tensor(one[axis], device=rectangle.device) for one in (spans.first, spans.last))
        ends += [
            torch.searchsorted(last, rectangle[2 * axis].contiguous()),  # rows whose span ends before
            torch.searchsorted(first, rectangle[2 * axis + 1].contiguous()),  # rows whose span begins before the end
        ]
    out = torch.stack(ends)
    return out.masked_fill(is_empty(rectangle) | is_empty(out), 0)


def _through(rectangle: Tensor, window: Window, size: Pair) -> Tensor:
    """Output o sees input o · stride − before + j · dilation, j < size: it changes if one of these lies inside."""
    # The first o is the smallest whose last input, o · stride − before + reach, is at or behind `first`; the last the
    # largest whose first input, o · stride − before, lies before `end`. With dilation some o in between see only pixels
    # beside the rectangle: they are computed again without need, to the same value. Bounds are never too small.
    ends = []
    for axis in (0, 1):
        first, end = rectangle[2 * axis], rectangle[2 * axis + 1]
        stride, before = window.stride[axis], window.before[axis]
        reach = (window.size[axis] - 1) * window.dilation[axis]
        low = -torch.div(reach - first - before, stride, rounding_mode="floor")  # the ceiling
        high = torch.div(end - 1 + before, stride, rounding_mode="floor") + 1
        ends += [low.clamp(0, size[axis]), high.clamp(0, size[axis])]
    out = torch.stack(ends)
    nothing = is_empty(rectangle) | is_empty(out)
    return out.masked_fill(nothing, 0)


def _union(parts: Sequence[Tensor]) -> Tensor:
    low = torch.stack([part.masked_fill(is_empty(part), 1 << 30) for part in parts]).amin(0)
    high = torch.stack(list(parts)).amax(0)  # empty ones are zeros
    out = torch.stack([low[0], high[1], low[2], high[3]])
    return out.masked_fill(is_empty(out), 0)


def is_empty(rectangle: Int[Tensor, "4 *shape"]) -> Tensor:
    """Where there is nothing inside."""
    return (rectangle[1] <= rectangle[0]) | (rectangle[3] <= rectangle[2])


def area(rectangle: Int[Tensor, "4 *shape"]) -> Int[Tensor, "*shape"]:
    """Number of pixels inside."""
    return (rectangle[1] - rectangle[0]) * (rectangle[3] - rectangle[2])


def bounding_rectangles(removal_step: Int[Tensor, "chains height width"], steps: int) -> Int[Tensor, "4 steps chains"]:
    """The smallest rectangle around ``removal_step == k``, for k = 1…steps (first row, end row, first, end column)."""
    if steps == 1:
        return _bounding_rectangles(removal_step == 1).unsqueeze(1)
    chains, _, width = removal_step.shape
    flat = removal_step.reshape(chains, -1)
    chain, pixel = ((flat > 0) & (flat <= steps)).nonzero(as_tuple=True)
    cell = (flat[chain, pixel].long() - 1) * chains + chain
    row, column = torch.div(pixel, width, rounding_mode="floor"), pixel % width
    out = torch.zeros((4, steps * chains), dtype=torch.int64, device=removal_step.device)
    for at, (value, reduce) in enumerate([(row, "amin"), (row + 1, "amax"), (column, "amin"), (column + 1, "amax")]):
        out[at].scatter_reduce_(0, cell, value, reduce, include_self=False)
    return out.view(4, steps, chains)


def _bounding_rectangles(inside: Bool[Tensor, "chains height width"]) -> Int[Tensor, "4 chains"]:
    ends, numbers = [], inside.view(torch.uint8)  # of which the largest is found several times faster than any()
    for lines in (numbers.amax(2) > 0, numbers.amax(1) > 0):
        at = torch.arange(lines.shape[1], device=lines.device)
        ends += [torch.where(lines, at, len(at)).amin(1), torch.where(lines, at + 1, 0).amax(1)]
    out = torch.stack(ends)
    return out.masked_fill(out[1] == 0, 0)


def whole(chains: int, size: Pair, device: torch.device | None = None) -> Int[Tensor, "4 1 chains"]:
    """The rectangle that is the whole map, as one step."""
    one = torch.tensor([0, size[0], 0, size[1]], dtype=torch.int64, device=device)
    return one.view(4, 1, 1).expand(4, 1, chains).contiguous()


def covered(rectangles: Int[Tensor, "4 steps chains"], size: Pair) -> Bool[Tensor, "chains height width"]:
    """Which pixels of a map lie inside the rectangle of at least one step."""
    # A rectangle is +1 at its first pixel and −1 behind its end, along both axes: summed up, every pixel counts the
    # rectangles around it. A row and a column more take the ends that lie behind the map.
    _, steps, chains = rectangles.shape
    height, width = size[0] + 1, size[1] + 1
    chain = torch.arange(chains, device=rectangles.device).expand(steps, chains)
    top, bottom, left, right = rectangles  # an empty rectangle's four corners coincide and cancel
    edges = torch.zeros(chains * height * width, dtype=torch.int32, device=rectangles.device)
    for row, column, sign in ((top, left, 1), (bottom, right, 1), (top, right, -1), (bottom, left, -1)):
        place = ((chain * height + row) * width + column).reshape(-1)
        edges.index_add_(0, place, torch.full_like(place, sign, dtype=torch.int32))
    counts = edges.view(chains, height, width).cumsum(1, dtype=torch.int32).cumsum(2, dtype=torch.int32)
    return counts[:, :-1, :-1] > 0


class Pixels:
    """Some pixels of the maps of all chains, chain by chain, row by row.

    Args:
        chain, row, column: of every pixel, (pixels,) each.
    """

    def __init__(self, chain: Tensor, row: Tensor, column: Tensor) -> None:
        self.chain, self.row, self.column = chain, row, column
        self._indices: dict[tuple[Pair, Pair, Pair], Tensor] = {}
        self._tiles: dict[tuple[int, Pair], Pixels] = {}

    @classmethod
    def inside(cls, rectangle: Int[Tensor, "4 chains"], total: int | None = None) -> Pixels:
        """Those inside one rectangle per chain.

        Args:
            rectangle: first row, end row, first column, end column.
            total: how many pixels these are, where that is known: devices then need not be waited for.
        """
        first_row, _, first_column, _ = rectangle
        width = rectangle[3] - first_column
        count = area(rectangle)
        chain = torch.repeat_interleave(count, output_size=total)
        within = torch.arange(len(chain), device=rectangle.device) - (count.cumsum(0) - count)[chain]
        # Processors divide integers slowly. The half keeps quotients away from integers, so rounding is harmless.
        row = ((within.double() + 0.5) / width[chain]).long()
        return cls(chain, row + first_row[chain], within - row * width[chain] + first_column[chain])

    @classmethod
    def inside_any(cls, rectangles: Int[Tensor, "4 steps chains"], size: Pair) -> Pixels:
        """Those of a map of `size` inside at least one of several rectangles per chain, each once."""
        return cls(*covered(rectangles, size).nonzero(as_tuple=True))

    def __len__(self) -> int:
        return len(self.chain)

    def tiles(self, side: int, size: Pair) -> Pixels:
        """The tiles of side × side pixels that hold at least one of these, each once.

        Args:
            size: rows and columns of tiles. A device would be waited for: tiles are for the CPU.
        """
        if len(self) == 0:
            return self
        if (side, size) not in self._tiles:
            height, width = size
            place = (self.chain * height + self.row // side) * width + self.column // side
            touched = torch.zeros((int(self.chain[-1]) + 1) * height * width, dtype=torch.bool, device=place.device)
            touched[place] = True
            self._tiles[side, size] = Pixels(*touched.view(-1, height, width).nonzero(as_tuple=True))
        return self._tiles[side, size]

    # Chain, row and column as one number, chain · (rows · columns) + row · columns + column: a row of a map in memory,
    # if `padded` is the size in memory, padding included, and `shift` counts from the first pixel in memory.
    def index(self, padded: Pair, stride: Pair = (1, 1), shift: Pair = (0, 0)) -> Int[Tensor, "pixels"]:
        """Rows of a flat map (chains · rows · columns, channels) at pixel · stride + shift.

        Args:
            padded: rows and columns of one chain's map in memory.
        """
        key = (padded, stride, shift)
        if key not in self._indices:
            (height, width), (down, across) = padded, stride
            offset = shift[0] * width + shift[1]
            line = self.chain * (height * width) + self.row * (width * down)
            self._indices[key] = line + (self.column * across + offset)
        return self._indices[key]
