"""What a step costs, layer by layer: multiply-adds of the whole network, and of the part that a region changes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import fx

from faithmap.inference.incremental.layers import Concat, Convolution, Copy, Input, Layer, Network, Slice, is_tiled
from faithmap.inference.incremental.tracing import aten

# How long a multiply-add takes, that of a convolution in the network itself being 1: filters of one channel move more
# than they count. On lists of pixels it takes _LISTED[0] + _LISTED[1] · (changed fraction of the map) times as long:
# the more of a map changes, the less of it stays in the cache. On one processor 0.75 and 0.95 fitted SqueezeNet, at 1
# to 32 regions per point; with these, the end of its front chosen on another is within a tenth of the best.
_CONVOLUTION, _DEPTHWISE = 1.0, 8.0
_LISTED = 0.8, 0.6
_TILED = 0.7  # of it where a convolution runs in tiles, as VGG-16's do
STATE = 0.8  # copying the untouched image's maps for a chain, in passes of the network


@dataclass(frozen=True)
class LayerCost:
    """One layer.

    Attributes:
        name: the module's path in the network.
        operation: what it does.
        path: ``"incremental"`` or ``"dense"``.
        size: rows and columns of its map; None for what is not a map.
        changed: the fraction of its map that one region changes.
        multiply_adds: of an image; those of convolutions and matrix products.
        changed_multiply_adds: of a step.
    """

    name: str
    operation: str
    path: str
    size: tuple[int, int] | None
    changed: float
    multiply_adds: int
    changed_multiply_adds: float


@dataclass(frozen=True)
class NetworkCost:
    """All layers of a network, and what follows from them.

    Attributes:
        stop: where the front ends and why.
        bytes_per_chain: memory that the maps of a chain take.
        reason: why the network runs dense; None where it runs incrementally.
        leading: of the points that were asked about, how many, from the first on, are recomputed from the one before;
            all others run as whole images. None where none were asked about.
        until: the last layer that is recomputed between these points, all behind it being computed whole; None: the
            front ends where it always does.
    """

    layers: list[LayerCost]
    stop: str
    bytes_per_chain: int
    reason: str | None
    leading: int | None = None
    until: str | None = None

    @property
    def multiply_adds(self) -> int:
        """Of an image."""
        return sum(layer.multiply_adds for layer in self.layers)

    @property
    def changed_multiply_adds(self) -> float:
        """Of a step."""
        return sum(layer.changed_multiply_adds for layer in self.layers)

    @property
    def gain(self) -> float:
        """How many times fewer multiply-adds a step takes than an image; 1 where the network runs dense."""
        return 1.0 if self.reason is not None else expected_gain(self.layers)


def expected_gain(layers: list[LayerCost]) -> float:
    """Multiply-adds of an image over those of a step."""
    changed = sum(layer.changed_multiply_adds for layer in layers)
    return sum(layer.multiply_adds for layer in layers) / changed if changed else 1.0


@dataclass(frozen=True)
class Way:
    """How the scored points of a chain are computed.

    Attributes:
        leading: so many of them, from the first on, are recomputed from the one before; the rest run as whole images.
        layers: so many maps of the front are recomputed, and what follows is computed whole; None: all that there are.
    """

    leading: int
    layers: int | None = None


def cheapest_way(
    network: Network, region: int, points: Sequence[int], *, single: bool = False, shared_end: bool = False
) -> Way:
    """What saves most against running every point as a whole image.

    Between two points the regions of all steps in between change their maps: n regions, each of which changes a share
    s of a map, are supposed to change 1 − (1 − s)ⁿ of it. The first maps are the largest and change least, so between
    distant points it can pay to recompute these alone. Decided by network, region and points, never by data.

    Args:
        region: side of a region in pixels.
        points: the steps that are scored, 0 first.
        single: each chain is a single step from an untouched image, whose maps are not copied for it.
        shared_end: the last image is that of other chains, too: as a whole image it is run once for all of them.
    """
    gaps = np.diff(points)
    if len(gaps) == 0:
        return Way(0)
    shares = np.array(network.extents.shares(region))[[layer.extent for layer in network.layers]]
    front = np.array([_front_time(layer) for layer in network.layers])
    tail = float(sum(layer.multiply_adds for layer in layer_costs(network) if layer.path == "dense"))
    image = max(tail + front.sum(), 1.0)
    changed = 1 - (1 - shares) ** gaps[:, None]  # (gaps, layers)
    # Of the first layers together: what they take on lists of pixels, what they take whole, and how much they hold.
    tiled = np.array([_TILED if is_tiled(layer) else 1.0 for layer in network.layers])
    listed = (front * tiled * changed * (_LISTED[0] + _LISTED[1] * changed)).cumsum(1) / image
    whole, held = front.cumsum() / image, np.cumsum([_numbers(layer) for layer in network.layers])
    dense = np.ones(len(gaps))
    dense[-1] = 0.0 if shared_end else 1.0
    best, way = 0.0, Way(0)
    for count in [len(front)] if single else [len(front), *narrow_ends(network)]:
        saved = np.cumsum(dense - (listed[:, count - 1] + 1 - whole[count - 1]))
        if not single:
            saved -= STATE * held[count - 1] / held[-1]
        # Gaps that do not pay by themselves are crossed where what follows makes up for them.
        last = len(saved) - 1 - int(saved[::-1].argmax())
        if saved[last] > best or (saved[last] == best and way.leading == 0):
            best, way = float(saved[last]), Way(last + 2, None if count == len(front) else count)
    return way


def narrow_ends(network: Network) -> list[int]:
    """After how many layers of the front a single map is all that what follows reads."""
    position = {layer: at for at, layer in enumerate(network.layers)}
    last_reader = {layer: position[layer] for layer in network.layers}
    for layer in network.layers:
        for source in layer.inputs:
            last_reader[source] = max(last_reader[source], position[layer])
    for one in network.tail_inputs:
        last_reader[one.layer] = len(network.layers)
    return [
        count
        for count in range(2, len(network.layers))
        if network.layers[count - 1] in network.made  # it is an operation of the network, not part of one
        and sum(last_reader[layer] >= count for layer in network.layers[:count]) == 1
    ]


def layer_costs(network: Network) -> list[LayerCost]:
    """The layers of front and tail, in order; those that only arrange maps are left out."""
    costs = []
    for layer in network.layers:
        if isinstance(layer, Input | Concat | Slice | Copy):
            continue
        share, work = network.extents.share(layer.extent), _front_work(layer)
        kind = " + ".join([_kind(layer), *(operation.name for operation in layer.after)])
        costs.append(LayerCost(layer.name, kind, "incremental", layer.size, share, work, float(work * share)))
    for node in network.tail:
        if node.op != "call_function":
            continue
        shape, work = node.meta["shape"], multiply_adds(node) // network.traced.batch
        size = (shape[2], shape[3]) if shape is not None and len(shape) == 4 else None
        name = str(node.target).removeprefix("aten.").split(".")[0]
        costs.append(LayerCost(node.meta["layer"], name, "dense", size, 1.0, work, float(work)))
    return costs


def multiply_adds(node: fx.Node) -> int:
    """Of a convolution or matrix product on a whole batch; nothing for other operations."""
    shape: Any = node.meta["shape"]
    outputs = math.prod(shape) if shape else 0
    if node.target in (aten.conv2d.default, aten.conv2d.padding, aten.convolution.default):
        return outputs * math.prod(_shape(node.args[1])[1:])
    if node.target is aten.linear.default:
        return outputs * _shape(node.args[1])[1]
    if node.target in (aten.mm.default, aten.bmm.default, aten.matmul.default):
        return outputs * _shape(node.args[0])[-1]
    if node.target in (aten.addmm.default, aten.baddbmm.default):
        return outputs * _shape(node.args[1])[-1]
    if node.target is aten.scaled_dot_product_attention.default:
        return math.prod(_shape(node.args[0])) * _shape(node.args[1])[-2] * 2
    return 0


def _shape(node: Any) -> tuple[int, ...]:
    shape: tuple[int, ...] = node.meta["shape"]
    return shape


def _front_time(layer: Layer) -> float:
    """Of the whole map, in multiply-adds of a convolution."""
    depthwise = isinstance(layer, Convolution) and 1 < layer.groups == layer.channels
    return (_DEPTHWISE if depthwise else _CONVOLUTION) * _front_work(layer)


def _numbers(layer: Layer) -> int:
    """That a map adds to what is kept of a chain, about: other maps are views of these."""
    return 0 if isinstance(layer, Concat | Slice) else math.prod(layer.size) * layer.channels


def _front_work(layer: Layer) -> int:
    if not isinstance(layer, Convolution):
        return 0
    return math.prod(layer.size) * layer.channels * math.prod(layer.weight.shape[1:])


def _kind(layer: Layer) -> str:
    return type(layer).__name__.lower() + (" in tiles" if is_tiled(layer) else "")
