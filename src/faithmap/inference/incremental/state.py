"""What is kept of every chain: all maps of the front, surrounded by zeros wherever a window looks over the edge.

A map lies in memory as rows of channels (NHWC), so that a window is a few runs of memory and a list of pixels is a list
of rows. Maps that are concatenated are written where the concatenation expects them, and slices of channels are read
where they lie: neither moves data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from faithmap.inference.incremental.geometry import Pair
from faithmap.inference.incremental.layers import Concat, Copy, Layer, PixelShuffle, Resample, Slice


@dataclass(frozen=True)
class Place:
    """Where a layer's map lies: channels from `offset` of the map that `owner` owns."""

    owner: Layer
    offset: int


@dataclass(frozen=True)
class Padding:
    """Zeros around a map (rows or columns)."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0

    def including(self, before: Pair, after: Pair) -> Padding:
        return Padding(
            max(self.top, before[0]), max(self.bottom, after[0]), max(self.left, before[1]), max(self.right, after[1])
        )


class Layout:
    """Where all maps of a front lie, for any number of chains."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = list(layers)
        self.places = _places(self.layers)
        # Rows behind the last one, which windows read (and nobody uses) when they start in the last pixel.
        self.spare = max(layer.reads[0].size[1] for layer in self.layers)
        self.padding: dict[Layer, Padding] = {place.owner: Padding() for place in self.places.values()}
        for layer in self.layers:
            # Those three read only what is there.
            for source in layer.inputs if not isinstance(layer, Copy | Resample | PixelShuffle) else ():
                owner = self.places[source].owner
                window, count = layer.reads
                after = window.after(source.size, count)
                self.padding[owner] = self.padding[owner].including(window.before, after)

    def padded(self, owner: Layer) -> Pair:
        """Rows and columns of a map in memory."""
        p = self.padding[owner]
        return owner.size[0] + p.top + p.bottom, owner.size[1] + p.left + p.right

    def numbers_per_chain(self) -> int:
        """How many numbers a chain's state holds."""
        return sum(self.padded(o)[0] * self.padded(o)[1] * o.channels for o in self.padding)


class Map:
    """One layer's map for all chains of a state.

    Attributes:
        rows: (chains · padded rows · padded columns, channels), a view.
        storage: the rows of the owner with spare ones behind, where the map is all of its channels; else None.
        padded: rows and columns of one chain in memory.
        corner: row and column of the first pixel in memory.
    """

    def __init__(
        self, storage: Tensor, layer: Layer, place: Place, padded: Pair, padding: Padding, chains: int
    ) -> None:
        width = place.owner.channels
        count = chains * padded[0] * padded[1]
        self.rows = storage[: count * width].view(count, width)[:, place.offset : place.offset + layer.channels]
        self.storage = storage if layer.channels == width else None
        self.padded = padded
        self.corner = (padding.top, padding.left)
        whole = self.rows.view(chains, *padded, layer.channels)
        self.inner: Float[Tensor, "chains height width channels"] = whole[
            :, padding.top : padding.top + layer.size[0], padding.left : padding.left + layer.size[1]
        ]

    def runs(self, length: int) -> Tensor:
        """Every run of `length` neighbouring pixels as one row, (rows, length · channels); they overlap."""
        assert self.storage is not None
        count, channels = self.rows.shape
        return self.storage.as_strided((count, length * channels), (channels, 1))


class State:
    """All maps of `chains` chains.

    Only pixels inside a map are ever written. What surrounds them stays as it was made, zeros or a `Copy`'s value, for
    all steps and all images; that is what makes a window over the edge right without asking where the edge is.

    Args:
        within: a state of more chains, whose memory this one uses, with the maps that are in it.

    Attributes:
        windows: how the windows of layers lie in this state's memory; filled by the kernels.
    """

    def __init__(
        self, layout: Layout, chains: int, dtype: torch.dtype, device: torch.device, within: State | None = None
    ) -> None:
        self.chains = chains
        self.layout, self.spare = layout, layout.spare
        self.storage: dict[Layer, Tensor] = {}
        self.maps: dict[Layer, Map] = {}
        self.windows: dict[Layer, Any] = {}
        for owner in layout.padding:
            height, width = layout.padded(owner)
            count = (chains * height * width + layout.spare) * owner.channels
            if within is None:
                self.storage[owner] = torch.zeros(count, dtype=dtype, device=device)
            else:
                self.storage[owner] = within.storage[owner][:count]
        for layer in layout.layers:
            place = layout.places[layer]
            padded, padding = layout.padded(place.owner), layout.padding[place.owner]
            self.maps[layer] = Map(self.storage[place.owner], layer, place, padded, padding, chains)
            if within is None and isinstance(layer, Copy) and layer.value != 0:
                self.maps[layer].inner.fill_(layer.value)

    def first(self, chains: int) -> State:
        """The first chains as a state of their own, in the same memory."""
        storage = next(iter(self.storage.values()))
        return State(self.layout, chains, storage.dtype, storage.device, self)

    def copy_from(self, one: State, first: int, count: int) -> None:
        """The state of a single chain, for `count` chains from `first`."""
        for owner, target in self.storage.items():
            source = one.storage[owner]
            length = len(source) - self.spare * owner.channels
            target[first * length : (first + count) * length].view(count, length).copy_(source[:length])


def _places(layers: Sequence[Layer]) -> dict[Layer, Place]:
    """Concatenations first, the last one first, so that each part is placed in the widest map that holds it."""
    places: dict[Layer, Place] = {}
    for layer in reversed(layers):
        if not isinstance(layer, Concat):
            continue
        found = [places.get(part) for part in layer.inputs]
        if layer not in places and found[0] is not None and _in_order(layer, found):
            places[layer] = found[0]  # DenseNet: an earlier concatenation is the beginning of a later one
            continue
        place = places.setdefault(layer, Place(layer, 0))
        offset = place.offset
        for part in layer.inputs:
            if part not in places and not isinstance(part, Slice) and _may_lie_in(part, layer):
                places[part] = Place(place.owner, offset)
            offset += part.channels
    for layer in layers:
        if isinstance(layer, Slice):
            source = places[layer.inputs[0]]
            places[layer] = Place(source.owner, source.offset + layer.start)
        else:
            places.setdefault(layer, Place(layer, 0))
    return places


def _in_order(layer: Layer, found: Sequence[Place | None]) -> bool:
    """Whether all parts lie one after the other in the same map."""
    first = found[0]
    assert first is not None
    offset = first.offset
    for part, place in zip(layer.inputs, found, strict=True):
        if place != Place(first.owner, offset):
            return False
        offset += part.channels
    return True


def _may_lie_in(part: Layer, concat: Layer) -> bool:
    return part.size == concat.size
