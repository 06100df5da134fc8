"""Exact incremental inference: every step recomputes only what it changes.

x⁽ᵏ⁾ differs from x⁽ᵏ⁻¹⁾ in one region, so only a rectangle of every map in the front of a network changes. The maps of
all chains are kept; a step writes the new pixels, walks through the layers, and recomputes in each the pixels inside
the rectangle. Nothing is accumulated: after any number of steps the maps are what a full forward pass makes them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, fx

from faithmap.classifiers import Classifier, evaluation_mode, kind_of
from faithmap.inference.chains import Chains
from faithmap.inference.incremental.cut import cut
from faithmap.inference.incremental.geometry import Extents, Pair, Pixels, area, bounding_rectangles, whole
from faithmap.inference.incremental.kernels import CHUNK_BYTES, Kernel, Scratch, kernel_for
from faithmap.inference.incremental.layers import NCHW, NHW, NHWC, Concat, Copy, Layer, Network, is_tiled
from faithmap.inference.incremental.state import Layout, Place, State
from faithmap.inference.incremental.tail import LARGEST_BATCH, LARGEST_OF_EARLY, Tail, batch_size, working_bytes
from faithmap.inference.incremental.tracing import aten, trace
from faithmap.inference.incremental.winograd import SIDE

# Chains at a time: more do not make a step much more efficient; the larger number is for maps that take little memory.
MOST_CHAINS = {"cpu": (64, 128), "device": (256, 1024)}
# Where every chain is a single step from the untouched image, its maps are copied for a few chains only, and each step
# is undone after it was scored.
FEW_CHAINS = {"cpu": 32, "device": 256}
# The list of a map's pixels: chain, row, column and up to four places in memory, 8 bytes each, and what finds them.
_BYTES_PER_LISTED_PIXEL = 72
_SCRATCH_BUFFERS = 8
_LITTLE_BYTES = {"cpu": 500_000_000, "device": 8_000_000_000}


@dataclass
class Plan:
    """All that depends on the network and its input size: the cut, the memory layout, the kernels."""

    network: Network
    layout: Layout
    kernels: list[tuple[Layer, Kernel]]
    tail: Tail
    dtype: torch.dtype
    device: torch.device

    def most_chains(self) -> int:
        """Chains at a time, as long as there is memory for them."""
        kind = kind_of(self.device)
        few, many = MOST_CHAINS[kind]
        return max(few, min(many, _LITTLE_BYTES[kind] // self.bytes_per_chain()))

    def bytes_per_chain(self) -> int:
        """Memory that the maps of a chain take."""
        return self.layout.numbers_per_chain() * self._itemsize

    def most_chains_within(self, memory: int) -> int:
        """Chains at a time such that everything together stays within so many bytes; below 1: not even one.

        A chain takes its maps and, where points lie far apart, a list of all pixels of every distinct map. The maps of
        an untouched image, packed weights, gathered windows and a batch of the tail are there once.
        """
        lists = _BYTES_PER_LISTED_PIXEL * sum(math.prod(extent.size) for extent in self.network.extents.all)
        return (memory - self.bytes_once()) // (self.bytes_per_chain() + lists)

    def bytes_once(self) -> int:
        """Memory that does not grow with the number of chains."""
        numbers = 2 * sum(one.numel() for one in self.network.traced.constants.values())
        tiled = [layer for layer in self.network.layers if is_tiled(layer)]
        numbers += sum(SIDE**2 * layer.channels * layer.inputs[0].channels for layer in tiled)
        weights = self._itemsize * numbers
        scratch = _SCRATCH_BUFFERS * (2 if tiled else 1) * CHUNK_BYTES[kind_of(self.device)]
        return self.bytes_per_chain() + weights + scratch + working_bytes(self.network, self._itemsize)

    @property
    def _itemsize(self) -> int:
        return torch.finfo(self.dtype).bits // 8


def network_of(classifier: Classifier, size: Pair, until: int | None = None) -> Network:
    """Trace a classifier's network and cut it.

    Args:
        until: where the front ends at the latest; see `cut`.
    Raises:
        EngineError: why it cannot be recorded.
    """
    dtype, device = classifier.dtype, classifier.device
    batch = (LARGEST_BATCH if until is None else LARGEST_OF_EARLY)[kind_of(device)]
    with evaluation_mode(classifier.module):
        network = cut(trace(classifier.module, (batch, classifier.channels, *size), dtype, device), size, until=until)
        if (fits := batch_size(network, kind_of(device))) != batch:
            network = cut(
                trace(classifier.module, (fits, classifier.channels, *size), dtype, device), size, until=until
            )
    return network


def plan_for(classifier: Classifier, size: Pair, public: bool = False, until: int | None = None) -> Plan:
    """Prepare a classifier for inputs of one size.

    Args:
        public: use public operations of torch only.
        until: where the front ends at the latest; see `cut`.
    Raises:
        EngineError: why it cannot be run incrementally.
    """
    network = network_of(classifier, size, until)
    dtype, device = classifier.dtype, classifier.device
    layout, scratch = Layout(network.layers), Scratch(dtype, device)
    kernels = []
    for layer in network.layers:
        kernel = kernel_for(layer, scratch, _unplaced(layer, layout), public)
        if kernel is not None:
            kernels.append((layer, kernel))
    # After an early end, most of the network is the tail.
    tail = Tail(network, dtype, device, public, fused=until is not None)
    return Plan(network, layout, kernels, tail, dtype, device)


def _unplaced(layer: Layer, layout: Layout) -> list[tuple[Layer, int]]:
    """The parts of a concatenation that do not lie in it, with the channel they begin at."""
    if not isinstance(layer, Concat):
        return []
    place, offset, found = layout.places[layer], 0, []
    for part in layer.inputs:
        if layout.places[part] != Place(place.owner, place.offset + offset):
            found.append((part, offset))
        offset += part.channels
    return found


class Changes:
    """What the steps of a group of chains change in the maps of a network.

    Args:
        removal_step: the step at which each pixel of the input is replaced, (chains, height, width).
        steps: the last step.
    """

    def __init__(self, extents: Extents, removal_step: Tensor, steps: int) -> None:
        self.extents = extents
        self.rectangles = extents.rectangles(bounding_rectangles(removal_step, steps))
        # Pixels of all chains for every rectangle and step, so that nobody has to ask the device.
        self._counts: list[list[int]] = torch.stack([area(one).sum(1) for one in self.rectangles]).tolist()
        self._current = (0, 0)  # the steps whose lists are kept
        self._lists: dict[int, Pixels] = {}

    def pixels(self, extent: int, before: int, step: int) -> Pixels:
        """The pixels that the steps after `before` up to `step` change; layers that change alike share a list."""
        if self._current != (before, step):
            self._current, self._lists = (before, step), {}
        rectangle = self.rectangles[extent]
        if id(rectangle) not in self._lists:
            self._lists[id(rectangle)] = (
                Pixels.inside(rectangle[:, before], self._counts[extent][before])
                if step - before == 1
                else Pixels.inside_any(rectangle[:, before:step], self.extents.all[extent].size)
            )
        return self._lists[id(rectangle)]


class Runner:
    """Runs a plan over groups of chains."""

    def __init__(self, plan: Plan, chains_at_a_time: int) -> None:
        self.plan = plan
        self.most = chains_at_a_time
        self.one = State(plan.layout, 1, plan.dtype, plan.device)
        self._states: dict[int, State] = {}

    def logits(self, chains: Chains, images: Tensor, fills: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Logits of all steps; see `Engine.logits`.

        Args:
            images, fills: normalised, (…, rows, columns, channels).
        """
        order = torch.argsort(chains.image, stable=True)
        self.plan.tail.clear()
        loaded = -1  # the image whose untouched state is in `one`
        undone = -1  # the image whose untouched maps all chains of the state hold, because their step was undone
        single = chains.scored == (0, 1)
        most = min(self.most, FEW_CHAINS[kind_of(self.plan.device)]) if single else self.most
        for first in range(0, len(order), most):
            group = order[first : first + most]
            state = self._state(len(group))
            found, counts = torch.unique_consecutive(chains.image[group], return_counts=True)
            at = 0
            for image, count in zip(found.tolist(), counts.tolist(), strict=True):
                if image != loaded:
                    self.start(images[image])
                    loaded = image
                    everyone = (chains.image == image).nonzero().squeeze(1)
                    yield from self.plan.tail.push(self.one, everyone, 0, shared=True)
                if image != undone:
                    state.copy_from(self.one, at, count)
                at += count
            undone = loaded if single and len(found) == 1 else -1
            yield from self._steps(state, chains, group, images, fills, undo=undone >= 0)
        yield from self.plan.tail.flush()

    def start(self, image: Tensor) -> None:
        """Step 0 of one image: every pixel of every map, with the same kernels."""
        self.one.maps[self.plan.network.layers[0]].inner.copy_(image)
        lists: dict[Pair, Pixels] = {}
        for layer, kernel in self.plan.kernels:
            if isinstance(layer, Copy):  # what lies outside the map that it copies stays as it is
                extents = self.plan.network.extents
                source = whole(1, layer.inputs[0].size, self.plan.device)
                kernel.run(self.one, Pixels.inside(extents.inside(layer.window, layer.size, source)[:, 0]))
                continue
            if layer.size not in lists:
                lists[layer.size] = Pixels.inside(whole(1, layer.size, self.plan.device)[:, 0], math.prod(layer.size))
            kernel.run(self.one, lists[layer.size])

    def shrink(self) -> None:
        """Half as many chains at a time."""
        self.most = max(1, self.most // 2)
        self.forget()

    def bytes_kept(self) -> int:
        """Memory that the maps of chains take now."""
        return max(self._states, default=0) * self.plan.bytes_per_chain()

    def forget(self) -> None:
        """Give back the memory of the chains."""
        self._states = {}
        self.plan.tail.clear()

    def step(self, state: State, changes: Changes, before: int, step: int) -> None:
        """Recompute what the steps after `before` up to `step` change, the input's map being written already."""
        for layer, kernel in self.plan.kernels:
            kernel.run(state, changes.pixels(layer.extent, before, step))

    def restore(self, state: State, changes: Changes, before: int, step: int) -> None:
        """Undo these steps in all maps of chains of one image, whose untouched maps are in `one`."""
        for owner in self.plan.layout.padding:
            target, source = state.maps[owner], self.one.maps[owner]
            pixels = changes.pixels(owner.extent, before, step)
            to = pixels.index(target.padded, shift=target.corner)
            untouched = to - pixels.chain * math.prod(target.padded)  # the same pixels of the first chain
            target.rows.index_copy_(0, to, source.rows.index_select(0, untouched))

    def _steps(
        self, state: State, chains: Chains, group: Tensor, images: Tensor, fills: Tensor, undo: bool = False
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Logits of all scored steps but the first; with `undo`, the maps are afterwards what they were before."""
        removal_step = chains.removal_step[group]
        changes = Changes(self.plan.network.extents, removal_step, chains.scored[-1])
        size = (removal_step.shape[1], removal_step.shape[2])
        flat_steps, flat_fills = removal_step.reshape(-1), fills.reshape(-1, fills.shape[-1])
        entry = state.maps[self.plan.network.layers[0]]
        shift = (chains.fill_index[group] - torch.arange(len(group), device=group.device)) * (size[0] * size[1])
        for before, step in pairwise(chains.scored):
            pixels = changes.pixels(0, before, step)
            place, pixel = pixels.index(entry.padded, shift=entry.corner), pixels.index(size)
            removed_at = flat_steps.index_select(0, pixel)
            removed = ((removed_at > before) & (removed_at <= step)).unsqueeze(1)
            new = flat_fills.index_select(0, pixel + shift[pixels.chain])
            entry.rows.index_copy_(0, place, torch.where(removed, new, entry.rows.index_select(0, place)))
            self.step(state, changes, before, step)
            yield from self.plan.tail.push(state, group, step)
            if undo:
                self.restore(state, changes, before, step)

    def _state(self, count: int) -> State:
        most = max(self._states, default=0)
        if count > most:
            self._states = {count: State(self.plan.layout, count, self.plan.dtype, self.plan.device)}
        elif count not in self._states:
            self._states[count] = self._states[most].first(count)
        return self._states[count]

    def first_difference(self, classifier: Classifier, chains: Chains, chain: int, step: int) -> str:
        """The first layer whose map after `step` steps is not what the network computes, or what comes after all."""
        images, fills = (
            classifier.normalise(t).to(self.plan.dtype).permute(0, 2, 3, 1).contiguous()
            for t in (chains.pixels, chains.fill)
        )
        removal_step, image, fill = (
            chains.removal_step[chain],
            images[chains.image[chain]],
            fills[chains.fill_index[chain]],
        )
        with torch.inference_mode():
            self.start(image)
            state = self._state(1)
            state.copy_from(self.one, 0, 1)
            one = Chains(
                chains.pixels, chains.fill, chains.image[chain : chain + 1], chains.fill_index[chain : chain + 1],
                removal_step.unsqueeze(0), chains.targets[chain : chain + 1], step,
            )  # fmt: skip
            for _ in self._steps(state, one, torch.zeros(1, dtype=torch.int64, device=image.device), images, fills):
                pass
            self.plan.tail.clear()
            removed = ((removal_step > 0) & (removal_step <= step)).unsqueeze(-1)
            inputs = torch.where(removed, fill, image).permute(2, 0, 1).unsqueeze(0)
            expected = maps(self.plan.network, inputs)
        # A layer that stands for a part of an operation has no map in the network itself.
        for layer in (one for one in self.plan.network.layers if one in expected):
            found, right = state.maps[layer].inner[0].float(), expected[layer].float()
            if not bool((found - right).abs().max() <= 1e-3 * (right.std() + right.abs().max() * 1e-2)):
                return layer.name
        return f"what follows the last of these maps: {self.plan.network.stop}"


def maps(network: Network, inputs: Tensor) -> dict[Layer, Tensor]:
    """Every map of the front as the traced graph computes it from one input, (rows, columns, channels)."""
    found: dict[Layer, Tensor] = {}
    layers = {node: layer for layer, nodes in network.made.items() for node in nodes}
    values: dict[fx.Node, Any] = {}
    batch = inputs.expand(network.traced.batch, *inputs.shape[1:])
    for node in network.traced.graph.nodes:
        if node.op == "get_attr":
            values[node] = network.traced.constants[str(node.target)]
        elif node.op == "placeholder":
            values[node] = batch
        elif node in layers:
            args, kwargs = fx.map_arg((node.args, dict(node.kwargs)), values.__getitem__)
            # A plain view need not be able to see through the memory format, or where a copy was left out.
            target: Any = aten.reshape.default if node.target is aten.view.default else node.target
            values[node] = target(*args, **kwargs)
        if node in layers and isinstance(values[node], Tensor):
            value = values[node][0]
            layout = network.layouts[node]
            if layout == NHW:
                found[layers[node]] = value.unsqueeze(-1)
            elif layout in (NCHW, NHWC):  # in between, a shuffle of channels has others
                found[layers[node]] = value if layout == NHWC else value.permute(1, 2, 0)
    return found
