"""The front of a network: the layers whose maps a step changes only in part. The rest is its tail.

The front is built from the traced graph operation by operation. An operation joins it when its result is a map whose
pixel depends on a window of pixels (convolution, pooling), on the same pixel of other maps (sums, activations,
LayerNorm over channels, …), or only arranges maps (concatenation, padding, slices of channels), and when a region
changes less than the whole map. Everything else runs on whole maps in the tail.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx

from faithmap.inference.incremental.geometry import Extents, Pair, Window
from faithmap.inference.incremental.tracing import Traced
from faithmap.inference.incremental.winograd import SIDE, TILE, tiles_of

RowFunction = Callable[..., Tensor]

# A map that changes more than this is computed whole: a fixed rule, so that no result depends on data or timing.
WHOLE = 0.97

NCHW, NHWC, NHW = "NCHW", "NHWC", "NHW"  # the last is one channel, taken out


@dataclass(eq=False)
class Layer:
    """One map of the front, as rows of channels: (chains · rows · columns, channels).

    Attributes:
        name: the module's path in the network, for messages.
        inputs: the layers it reads.
        size: rows and columns.
        extent: which part of it changes, a number in `Extents`.
        non_negative: true where no value can be below zero.
        after: functions applied to rows of the result, before it is stored.
    """

    name: str
    inputs: tuple[Layer, ...]
    channels: int
    size: Pair
    extent: int
    window: Window = field(default_factory=Window)
    non_negative: bool = False
    after: list[RowOperation] = field(default_factory=list)

    @property
    def reads(self) -> tuple[Window, Pair]:
        """The windows that are read at a time, and how many there are (rows, columns)."""
        return self.window, self.size


@dataclass(eq=False)
class Input(Layer):
    """The normalised image."""


@dataclass(eq=False)
class Convolution(Layer):
    """A convolution, or a linear map of the channels of each pixel.

    Attributes:
        tiled: computed in tiles; see `winograd`.
    """

    weight: Tensor = field(default_factory=lambda: torch.empty(0))
    bias: Tensor | None = None
    groups: int = 1
    tiled: bool = False

    @property
    def reads(self) -> tuple[Window, Pair]:
        if not self.tiled:
            return super().reads
        return Window((SIDE, SIDE), (TILE, TILE), self.window.before), tiles_of(self.size)


def is_tiled(layer: Layer) -> bool:
    """Whether it is a convolution that is computed in tiles."""
    return isinstance(layer, Convolution) and layer.tiled


@dataclass(eq=False)
class MaxPool(Layer):
    """The largest value in a window. Padding is zeros here, so where it counts the input must not be negative."""


@dataclass(eq=False)
class AveragePool(Layer):
    """The mean over a window: its sum over `divisor`, one number or one for every pixel, (rows · columns, 1)."""

    divisor: Tensor | float = 1.0


@dataclass(eq=False)
class Copy(Layer):
    """The input moved, with `value` around it: padding, or a cut."""

    value: float = 0.0


@dataclass(eq=False)
class Resample(Layer):
    """A weighted sum of the same few input rows and columns for every channel: upsampling, uneven average pooling.

    Attributes:
        rows: which input rows an output row sees and how much each weighs, (output rows, most), int64 and weights.
        columns: the same for columns.
    """

    rows: tuple[Tensor, Tensor] = field(default_factory=lambda: (torch.empty(0), torch.empty(0)))
    columns: tuple[Tensor, Tensor] = field(default_factory=lambda: (torch.empty(0), torch.empty(0)))


@dataclass(eq=False)
class PixelShuffle(Layer):
    """`factor`² neighbouring pixels from the channels of one: channel c · factor² + row · factor + column."""

    factor: int = 1


@dataclass(eq=False)
class Rowwise(Layer):
    """A function of the same pixel of one or more maps."""

    operation: RowOperation = field(default_factory=lambda: RowOperation("identity", lambda rows: rows))


@dataclass(eq=False)
class Concat(Layer):
    """Maps behind one another along the channels."""


@dataclass(eq=False)
class Slice(Layer):
    """Some of the channels, beginning at `start`."""

    start: int = 0


@dataclass(frozen=True)
class RowOperation:
    """A function of rows (pixels, channels).

    Attributes:
        exact: rounds alike wherever a value stands in memory. Vectorised exponentials and the like do not: the last
            few values of an array are computed by other instructions.
        joins: may be computed by the kernel before it, if that can; such a ReLU makes zero of NaN.
    """

    name: str
    function: RowFunction
    exact: bool = True
    joins: bool = True


@dataclass
class TailInput:
    """A value that the tail reads from the front: a map, or the mean over the whole map.

    Attributes:
        node: whose value it is in the graph.
    """

    node: fx.Node
    layer: Layer
    layout: str = NCHW
    mean: bool = False


@dataclass
class Network:
    """A traced network, cut in two.

    Attributes:
        layers: the front, in order; the first is the input.
        tail: operations on whole maps, in order, with the graph's output last.
        tail_inputs: what the tail reads.
        stop: the first operation that is not in the front although what it reads is, and why (for messages).
        made: the operations in the graph that each layer stands for; the last one's value is the layer's map.
        layouts: of the values of these operations.
    """

    traced: Traced
    extents: Extents
    layers: list[Layer]
    tail: list[fx.Node]
    tail_inputs: list[TailInput]
    stop: str
    made: dict[Layer, list[fx.Node]]
    layouts: dict[fx.Node, str]

    def operation(self, layer: Layer) -> int:
        """The number of the operation in the graph that makes this layer; others may have joined it."""
        return list(self.traced.graph.nodes).index(self.made[layer][0])
