"""Which steps of which chains are stored where: pure functions on the key columns of parts.

A step run is a stretch of consecutive steps of one chain (image, method, order, draw), as it lies in one part. An
experiment of 5040 images × 8 methods × 10 draws has 40 million rows but 400,000 step runs.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

# Chains of one image: (method, order, draw).
Chain = tuple[str, str, int]
KEYS = ("image", "method", "order", "draw", "step")
_NAMED = ("image", "method", "order")
Integers = np.ndarray[tuple[int], np.dtype[Any]]


@dataclass(frozen=True, eq=False)
class StepRuns:
    """Step runs in the order of image, method, order, draw and first step; each step once.

    Attributes:
        names: of images, methods and orders, sorted; `image`, `method` and `order` are positions in them.
        draw: of the chain.
        first, count: the steps first … first + count − 1.
        part, row: where they are: number of the part, and the first row in it.
    """

    names: dict[str, list[str]]
    image: Integers
    method: Integers
    order: Integers
    draw: Integers
    first: Integers
    count: Integers
    part: Integers
    row: Integers

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, which: slice | Integers) -> StepRuns:
        return replace(self, **{f.name: getattr(self, f.name)[which] for f in fields(self) if f.name != "names"})

    @cached_property
    def _places(self) -> dict[str, slice]:
        codes, starts = np.unique(self.image, return_index=True)
        names, bounds = self.names["image"], itertools.pairwise([*starts.tolist(), len(self)])
        return {names[code]: slice(*bound) for code, bound in zip(codes.tolist(), bounds, strict=True)}

    def of_image(self, image: str) -> StepRuns:
        """The step runs of one image."""
        return self[self._places.get(image, slice(0, 0))]

    def signature(self) -> bytes:
        """Equal for images of which the same steps of the same chains are stored."""
        return np.stack([self.method, self.order, self.draw, self.first, self.count]).tobytes()

    def steps(self) -> dict[Chain, list[range]]:
        """Chain → the runs of steps that are stored; of one image."""
        found: dict[Chain, list[range]] = {}
        methods, orders = self.names["method"], self.names["order"]
        columns = (self.method, self.order, self.draw, self.first, self.count)
        for method, order, draw, first, count in zip(*(column.tolist() for column in columns), strict=True):
            found.setdefault((methods[method], orders[order], draw), []).append(range(first, first + count))
        return found

    def rows(self) -> Integers:
        """The rows in their parts, one after the other."""
        # The n-th row of all belongs to the step run that it falls into: row + (n − rows of the step runs before).
        return np.repeat(self.row - self._starts(), self.count) + np.arange(int(self.count.sum()))

    def step(self) -> Integers:
        """The step of every row."""
        return np.repeat(self.first - self._starts(), self.count) + np.arange(int(self.count.sum()))

    def _starts(self) -> Integers:
        starts: Integers = np.cumsum(self.count, dtype=np.int64) - self.count
        return starts


class Builder:
    """Collects the step runs of many parts.

    `codes` numbers names in the order in which they are met, across parts; only `build` knows all names and can replace
    the numbers by ranks. Until then, equal numbers mean equal names, and nothing else may be read from them.
    """

    def __init__(self) -> None:
        self.codes: dict[str, dict[str, int]] = {name: {} for name in _NAMED}
        self.found: list[Integers] = []

    def add(self, part: int, keys: pa.Table) -> None:
        """Find the step runs of a part from its key columns."""
        if not len(keys):
            return
        if any(keys[name].null_count for name in KEYS):
            raise ValueError("a score of nothing")
        columns = [self._coded(name, keys[name]) for name in _NAMED]
        columns += [keys[name].to_numpy().astype(np.int32) for name in ("draw", "step")]
        table = np.stack(columns)
        if table.min() < 0:
            raise ValueError("a draw or step below 0")
        # A row begins a step run unless it continues the row above: same chain, next step. Rows are taken as they lie
        # in the part, so that `row` + i is where step `first` + i is; a part need not be sorted.
        change = (np.diff(table[:4]) != 0).any(0) | (np.diff(table[4]) != 1)
        starts = np.concatenate([[0], np.flatnonzero(change) + 1])
        counts = np.diff(np.concatenate([starts, [len(keys)]]))
        self.found.append(np.stack([*table[:, starts], counts, np.full(len(starts), part), starts]).astype(np.int32))

    def _coded(self, name: str, column: pa.ChunkedArray) -> Integers:
        codes = self.codes[name]
        pieces = []
        for chunk in column.chunks:
            chunk = chunk if pa.types.is_dictionary(chunk.type) else chunk.dictionary_encode()
            local = [codes.setdefault(value, len(codes)) for value in chunk.dictionary.to_pylist()]
            pieces.append(np.array(local, dtype=np.int32)[chunk.indices.to_numpy()])
        return np.concatenate(pieces)

    def build(self) -> StepRuns:
        """All step runs, sorted; a step that is there twice counts once."""
        found = np.concatenate(self.found, axis=1) if self.found else np.empty((8, 0), dtype=np.int32)
        names = {}
        for at, name in enumerate(_NAMED):
            known = list(self.codes[name])
            ranking = sorted(range(len(known)), key=known.__getitem__)
            names[name] = [known[code] for code in ranking]
            rank = np.empty(len(known), dtype=np.int32)
            rank[ranking] = np.arange(len(known), dtype=np.int32)
            found[at] = rank[found[at]]
        image, method, order, draw, first, count, part, row = found
        ranks = np.lexsort((part, first, draw, order, method, image))
        runs = StepRuns(names, image, method, order, draw, first, count, part, row)[ranks]
        return _each_step_once(runs)


def _each_step_once(runs: StepRuns) -> StepRuns:
    """Cut from each step run what the step runs before it hold already.

    Sorted by chain, first step and part, a step run overlaps those before it up to the largest end among them, not
    only that of the last one: hence a running maximum. To take it over all chains at once, chain and step are
    packed into one integer: the chain's number in the upper 32 bits, the step in the lower. Steps stay below 2³²,
    so an end in one chain never reaches into the next: less the next chain's number it is negative, and nothing is
    cut.
    """
    if not len(runs):
        return runs
    chain = np.stack([runs.image, runs.method, runs.order, runs.draw])
    number = np.concatenate([[0], np.cumsum((np.diff(chain) != 0).any(0))]).astype(np.int64) << 32
    reached = np.maximum.accumulate(number + runs.first + runs.count)
    before = np.concatenate([[0], reached[:-1]]) - number  # the chain is held up to here; negative at its start
    twice = np.clip(before - runs.first, 0, runs.count)
    if not twice.any():
        return runs
    clipped = replace(
        runs,
        first=(runs.first + twice).astype(np.int32),
        count=(runs.count - twice).astype(np.int32),
        row=(runs.row + twice).astype(np.int32),
    )
    return clipped[np.flatnonzero(clipped.count > 0)]
