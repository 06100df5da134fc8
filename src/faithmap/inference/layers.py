"""The front of a network: the layers whose maps a step changes only in part. The rest is its tail.

The front is built from the traced graph operation by operation. An operation joins it when its result is a map whose
pixel depends on a window of pixels (convolution, pooling), on the same pixel of other maps (sums, activations,
LayerNorm over channels, …), or only arranges maps (concatenation, padding, slices of channels), and when a region
changes less than the whole map. Everything else runs on whole maps in the tail.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from faithmap.inference.geometry import Extents, Pair, Window
from faithmap.inference.tracing import Traced, aten, batch_norm_line

RowFunction = Callable[..., Tensor]

# A map that changes more than this is computed whole: a fixed rule, so that no result depends on data or timing.
WHOLE = 0.97

NCHW, NHWC, NHW = "NCHW", "NHWC", "NHW"  # the last is one channel, taken out
_PERMUTED: dict[tuple[str, tuple[int, ...]], str] = {(NCHW, (0, 2, 3, 1)): NHWC, (NHWC, (0, 3, 1, 2)): NCHW}


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


@dataclass(eq=False)
class Input(Layer):
    """The normalised image."""


@dataclass(eq=False)
class Convolution(Layer):
    """A convolution, or a linear map of the channels of each pixel."""

    weight: Tensor = field(default_factory=lambda: torch.empty(0))
    bias: Tensor | None = None
    groups: int = 1


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
    """

    name: str
    function: RowFunction
    exact: bool = True


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


@dataclass
class _Value:
    """What a node of the graph is in the front. `fresh` means that nobody else reads the layer's result."""

    layer: Layer
    layout: str = NCHW
    fresh: bool = True


def cut(traced: Traced, size: Pair, region: int = 9) -> Network:
    """Split a traced network into front and tail.

    Args:
        size: rows and columns of the input.
        region: side of the square region that decides where maps change as a whole, in pixels.
    """
    return _Front(traced, size, region).run()


class _Front:
    def __init__(self, traced: Traced, size: Pair, region: int) -> None:
        self.traced = traced
        self.extents = Extents(size, region)
        self.values: dict[fx.Node, _Value] = {}
        self.layers: list[Layer] = []
        self.made: dict[Layer, list[fx.Node]] = {}
        self.stops: list[str] = []
        self.dtype: torch.dtype = torch.float32

    def run(self) -> Network:
        for node in self.traced.graph.nodes:
            if node.op == "placeholder":
                _, channels, *size = node.meta["shape"]
                self.dtype = node.meta["dtype"]
                layer = Input("the input", (), channels, (size[0], size[1]), 0)
                self._add(node, layer)
            elif node.op == "call_function":
                self._operation(node)
        tail, inputs = self._tail()
        needed: set[Layer] = set()
        for one in reversed(self.layers):
            if one in needed or any(one is i.layer for i in inputs):
                needed |= {one, *one.inputs}
        layers = [layer for layer in self.layers if layer in needed]
        stop = self.stops[0] if self.stops else "nothing"
        layouts = {node: value.layout for node, value in self.values.items()}
        return Network(self.traced, self.extents, layers, tail, inputs, stop, self.made, layouts)

    def _tail(self) -> tuple[list[fx.Node], list[TailInput]]:
        inputs: dict[fx.Node, TailInput] = {}
        tail = []
        wanted: set[fx.Node] = set()
        for node in reversed(self.traced.graph.nodes):
            if node.op == "output" or (node in wanted and node not in inputs):
                if node.op == "get_attr":
                    continue
                tail.append(node)
                for source in node.all_input_nodes:
                    wanted.add(source)
                    if source in self.values:
                        value = self.values[source]
                        inputs[source] = TailInput(source, value.layer, value.layout)
                    elif (mean := self._global_mean(source)) is not None:
                        inputs[source] = TailInput(source, mean, mean=True)
        return tail[::-1], list(inputs.values())

    def _global_mean(self, node: fx.Node) -> Layer | None:
        """The layer of which this operation is the mean over all pixels."""
        value = self.values.get(node.args[0]) if node.op == "call_function" and node.args else None  # type: ignore[arg-type]
        if value is None or value.layout != NCHW or node.meta["dtype"] is not self.dtype or node.kwargs:
            return None
        if node.target is aten.adaptive_avg_pool2d.default:
            return value.layer if tuple(node.args[1]) in ((1, 1), (1,)) else None  # type: ignore[arg-type]
        if node.target is aten.mean.dim:
            return value.layer if {d % 4 for d in node.args[1]} == {2, 3} else None  # type: ignore[union-attr,operator]
        return None

    def _operation(self, node: fx.Node) -> None:
        sources = [s for s in node.all_input_nodes if s.op != "get_attr"]
        if not sources or not all(s in self.values for s in sources):
            return
        handler = _HANDLERS.get(node.target, _rowwise)
        made = handler(self, node)
        if made is None:
            self.stops.append(f"{node.target} at {node.meta['layer']} is computed for whole maps only")
        elif isinstance(made, _Value):
            self.values[node] = made
            self.made.setdefault(made.layer, []).append(node)
        elif self.extents.share(made.extent) > WHOLE:
            self.stops.append(f"a region changes the whole map at {node.meta['layer']} ({node.target})")
        else:
            self._add(node, made)

    def _add(self, node: fx.Node, layer: Layer, layout: str = NCHW) -> None:
        self.layers.append(layer)
        self.made[layer] = [node]
        self.values[node] = _Value(layer, self.layout(node) if node.op == "call_function" else layout)

    def layout(self, node: fx.Node) -> str:
        """The layout of an operation's result: that of what it reads."""
        return next(self.values[s].layout for s in node.all_input_nodes if s in self.values)

    def map(self, node: Any, layout: str = NCHW) -> Layer | None:
        """The layer behind an argument, if it is a map of the front in this layout."""
        value = self.values.get(node) if isinstance(node, fx.Node) else None
        return value.layer if value is not None and value.layout == layout else None

    def apply(
        self, node: fx.Node, source: fx.Node, operation: RowOperation, non_negative: bool = False
    ) -> Layer | _Value:
        """A function of one map: done along with the layer that makes it, where nobody else reads that."""
        value = self.values[source]
        fresh = value.fresh and len(source.users) == 1
        if fresh and isinstance(value.layer, Convolution | MaxPool | AveragePool | Rowwise):
            value.layer.after.append(operation)
            value.layer.non_negative = non_negative
            return _Value(value.layer, value.layout)
        one = value.layer
        return Rowwise(
            node.meta["layer"], (one,), one.channels, one.size, one.extent,
            non_negative=non_negative, operation=operation,
        )  # fmt: skip

    def windowed(self, kind: type[Layer], node: fx.Node, source: Layer, window: Window, **more: Any) -> Layer:
        """A layer whose pixels see windows of `source`."""
        _, channels, *size = node.meta["shape"]
        extent = self.extents.through(source.extent, window, (size[0], size[1]))
        return kind(node.meta["layer"], (source,), channels, (size[0], size[1]), extent, window, **more)


_Handler = Callable[[_Front, fx.Node], Layer | _Value | None]


def _arguments(node: fx.Node) -> dict[str, Any]:
    """Arguments by name, defaults filled in."""
    target: Any = node.target
    names = [argument.name for argument in target._schema.arguments]
    given = {argument.name: argument.default_value for argument in target._schema.arguments}
    given.update(zip(names, node.args, strict=False))
    given.update(node.kwargs)
    return given


def pair(value: int | Sequence[int]) -> Pair:
    """One number for both axes, or one each."""
    numbers = [value] if isinstance(value, int) else list(value)
    return (numbers[0], numbers[-1])


def _convolution(front: _Front, node: fx.Node) -> Layer | None:
    given = _arguments(node)
    source, weight = front.map(given["input"]), front.traced.constant(given["weight"])
    bias = front.traced.constant(given["bias"])
    if source is None or weight is None or (bias is None and given["bias"] is not None):
        return None
    if given.get("transposed") or weight.ndim != 4:
        return None
    size, dilation = pair(weight.shape[2:]), pair(given["dilation"])
    if given["padding"] == "same":  # the odd one goes below and to the right
        before = (dilation[0] * (size[0] - 1) // 2, dilation[1] * (size[1] - 1) // 2)
    else:
        before = (0, 0) if given["padding"] == "valid" else pair(given["padding"])
    if isinstance(source, Copy) and source.value == 0 and min(source.window.before) >= 0:
        inner = source.inputs[0]
        if all(source.size[a] >= inner.size[a] + source.window.before[a] for a in (0, 1)):
            before = (before[0] + source.window.before[0], before[1] + source.window.before[1])
            source = inner  # zeros around a map are padding
    window = Window(size, pair(given["stride"]), before, dilation)
    return front.windowed(Convolution, node, source, window, weight=weight, bias=bias, groups=given["groups"])


def _linear(front: _Front, node: fx.Node) -> Layer | None:
    given = _arguments(node)
    source, weight = front.map(given["input"], NHWC), front.traced.constant(given["weight"])
    bias = front.traced.constant(given["bias"])
    if source is None or weight is None or (bias is None and given["bias"] is not None):
        return None
    return Convolution(
        node.meta["layer"],
        (source,),
        len(weight),
        source.size,
        source.extent,
        weight=weight[:, :, None, None],
        bias=bias,
    )


def _batch_norm(front: _Front, node: fx.Node) -> Layer | _Value | None:
    given = _arguments(node)
    if front.map(given["input"]) is None:
        return None
    numbers = [front.traced.constant(given[n]) for n in ("weight", "bias", "running_mean", "running_var")]
    scale, shift = (t.to(front.dtype) for t in batch_norm_line(numbers, given["eps"]))
    # Two operations, not one fused: vectorised and scalar code then round alike.
    return front.apply(node, given["input"], RowOperation("batch_norm", lambda rows: rows.mul(scale).add_(shift)))


def _layer_norm(front: _Front, node: fx.Node) -> Layer | _Value | None:
    given = _arguments(node)
    source = front.map(given["input"], NHWC)
    if source is None or list(given["normalized_shape"]) != [source.channels]:
        return None
    weight, bias = front.traced.constant(given["weight"]), front.traced.constant(given["bias"])
    shape, epsilon = [source.channels], given["eps"]
    operation = RowOperation("layer_norm", lambda rows: torch.layer_norm(rows, shape, weight, bias, epsilon))
    return front.apply(node, given["input"], operation)


def _max_pool(front: _Front, node: fx.Node) -> Layer | None:
    given = _arguments(node)
    source = front.map(given["self"])
    if source is None:
        return None
    size, dilation = pair(given["kernel_size"]), pair(given["dilation"])
    stride = pair(given["stride"]) if given["stride"] else size
    window = Window(size, stride, pair(given["padding"]), dilation)
    _, _, *outputs = node.meta["shape"]
    after = window.after(source.size, pair(outputs))
    if max(*window.before, *after) > 0 and not source.non_negative:
        # Zeros would win over negative values: surround the map with −∞ instead.
        before = window.before
        padded = (source.size[0] + before[0] + after[0], source.size[1] + before[1] + after[1])
        source = _moved(front, node, source, before, padded, float("-inf"))
        window = Window(size, stride, (0, 0), dilation)
    return front.windowed(MaxPool, node, source, window, non_negative=source.non_negative)


def _moved(front: _Front, node: fx.Node, source: Layer, before: Pair, size: Pair, value: float) -> Layer:
    window = Window(before=before)
    extent = front.extents.through(source.extent, window, size)
    layer = Copy(
        node.meta["layer"], (source,), source.channels, size, extent, window,
        non_negative=source.non_negative and value >= 0, value=value,
    )  # fmt: skip
    front.layers.append(layer)
    return layer


def _average_pool(front: _Front, node: fx.Node) -> Layer | None:
    given = _arguments(node)
    source = front.map(given["self"])
    if source is None:
        return None
    size = pair(given["kernel_size"])
    stride = pair(given["stride"]) if given["stride"] else size
    window = Window(size, stride, pair(given["padding"]))
    outputs = pair(node.meta["shape"][2:])
    divisor: Tensor | float
    if given["divisor_override"] is not None:
        divisor = float(given["divisor_override"])
    else:
        down, across = (_counted(source.size, outputs, window, axis, given["count_include_pad"]) for axis in (0, 1))
        table = (down[:, None] * across[None, :]).reshape(-1, 1)
        divisor = float(table[0]) if bool((table == table[0]).all()) else table.to(front.dtype)
    return front.windowed(AveragePool, node, source, window, divisor=divisor, non_negative=source.non_negative)


def _counted(inputs: Pair, outputs: Pair, window: Window, axis: int, with_padding: bool) -> Tensor:
    """How many pixels along an axis every output divides by."""
    length, padding = inputs[axis], window.before[axis]
    first = torch.arange(outputs[axis], device="cpu") * window.stride[axis] - padding
    end = (first + window.size[axis]).clamp(max=length + padding)
    return (end - first if with_padding else end.clamp(max=length) - first.clamp(min=0)).double()


def _adaptive_pool(front: _Front, node: fx.Node) -> Layer | _Value | None:
    source = front.map(node.args[0])
    if source is None:
        return None
    outputs = pair(node.meta["shape"][2:])
    if outputs == source.size:
        return _same(front, node)
    if source.size[0] % outputs[0] or source.size[1] % outputs[1]:
        return None
    size = (source.size[0] // outputs[0], source.size[1] // outputs[1])
    return front.windowed(
        AveragePool,
        node,
        source,
        Window(size, size),
        divisor=float(size[0] * size[1]),
        non_negative=source.non_negative,
    )


def _same(front: _Front, node: fx.Node, layout: str | None = None) -> _Value:
    """The value that the operation reads, perhaps in another layout."""
    source = node.all_input_nodes[0]
    value = front.values[source]
    return _Value(value.layer, layout or value.layout, value.fresh and len(source.users) == 1)


def _permute(front: _Front, node: fx.Node) -> _Value | None:
    source = node.all_input_nodes[0]
    dims: Any = _arguments(node)["dims"]
    layout = _PERMUTED.get((front.values[source].layout, tuple(d % 4 for d in dims)))
    return None if layout is None else _same(front, node, layout)


def _pad(front: _Front, node: fx.Node) -> Layer | None:
    given = _arguments(node)
    source, sides = front.map(given["self"]), list(given["pad"])
    if source is None or given.get("mode", "constant") != "constant" or any(sides[4:]):
        return None
    left, _, top, _ = (*sides, 0, 0)[:4]
    return _move(front, node, source, (top, left), float(given["value"] or 0.0))


def _move(front: _Front, node: fx.Node, source: Layer, before: Pair, value: float = 0.0) -> Layer:
    kept = source.non_negative and value >= 0
    return front.windowed(Copy, node, source, Window(before=before), value=value, non_negative=kept)


def _concat(front: _Front, node: fx.Node) -> Layer | None:
    given = _arguments(node)
    layout = front.layout(node)
    parts = [front.map(part, layout) for part in given["tensors"]]
    if given["dim"] % 4 != layout.index("C") or any(part is None for part in parts):
        return None
    inputs = tuple(part for part in parts if part is not None)
    extent = front.extents.union([part.extent for part in inputs])
    channels = sum(part.channels for part in inputs)
    return Concat(
        node.meta["layer"], inputs, channels, inputs[0].size, extent, non_negative=all(i.non_negative for i in inputs)
    )


def _slice(front: _Front, node: fx.Node) -> Layer | None:
    given = _arguments(node)
    source, dim = front.map(given["self"]), given["dim"] % 4
    if source is None or given["step"] != 1 or dim == 0:
        return None
    length = (source.channels, *source.size)[dim - 1]
    start = given["start"] or 0
    start = min(max(start + length if start < 0 else start, 0), length)
    if dim > 1:
        return _move(front, node, source, (-start, 0) if dim == 2 else (0, -start))
    return _channels(node, source, start, node.meta["shape"][1])


def _channels(node: fx.Node, source: Layer, start: int, count: int) -> Layer:
    return Slice(
        node.meta["layer"], (source,), count, source.size, source.extent,
        non_negative=source.non_negative, start=start,
    )  # fmt: skip


def _one_channel(front: _Front, node: fx.Node) -> _Value | None:
    """``x[:, 1]``, which mostly becomes a map again by ``unsqueeze``."""
    given = _arguments(node)
    source = front.map(given["self"])
    if source is None or given["dim"] % 4 != 1:
        return None
    layer = _channels(node, source, given["index"] % source.channels, 1)
    front.layers.append(layer)
    return _Value(layer, NHW)


def _unsqueeze(front: _Front, node: fx.Node) -> _Value | None:
    given = _arguments(node)
    return _same(front, node, NCHW) if front.map(given["self"], NHW) and given["dim"] % 4 == 1 else None


def _rowwise(front: _Front, node: fx.Node) -> Layer | _Value | None:
    """Any elementwise function: the operation itself, on rows of channels."""
    operation: Any = node.target
    if not isinstance(operation, torch._ops.OpOverload) or node.meta["dtype"] is not front.dtype:
        return None
    name = operation._schema.name.removeprefix("aten::")
    if torch.Tag.pointwise not in operation.tags and name not in ("hardswish", "prelu", "log_sigmoid"):
        return None
    layout, shape = front.layout(node), node.meta["shape"]
    sources = list(dict.fromkeys(s for s in node.all_input_nodes if s in front.values))
    if layout == NHW or any(front.values[s].layout != layout or s.meta["shape"] != shape for s in sources):
        return None
    rows: dict[fx.Node, Tensor] = {}
    for constant in (s for s in node.all_input_nodes if s.op == "get_attr"):
        line = _row_constant(front.traced.constants[str(constant.target)], shape, layout, name)
        if line is None or line.dtype is not front.dtype:
            return None
        rows[constant] = line

    def function(*maps: Tensor) -> Tensor:
        known = {**rows, **dict(zip(sources, maps, strict=True))}
        args, kwargs = fx.map_arg((node.args, dict(node.kwargs)), known.__getitem__)
        result: Tensor = operation(*args, **kwargs)
        return result

    exact = name in _EXACT and bool(node.kwargs.get("alpha", 1) == 1)
    if not exact and any(line.ndim for line in rows.values()):
        return None
    maps = [front.values[source].layer for source in sources]
    positive = _is_non_negative(name, node, [one.non_negative for one in maps], len(rows))
    if len(sources) == 1:
        return front.apply(node, sources[0], RowOperation(name, function, exact), positive)
    if not exact:
        return None
    extent = front.extents.union([one.extent for one in maps])
    return Rowwise(
        node.meta["layer"], tuple(maps), maps[0].channels, maps[0].size, extent,
        non_negative=positive, operation=RowOperation(name, function),
    )  # fmt: skip


# These round alike in vectorised and in scalar code; of all others that is not supposed.
_EXACT = frozenset(
    {"relu", "relu6", "hardtanh", "clamp", "clamp_min", "clamp_max", "leaky_relu", "threshold", "hardswish", "prelu"}
    | {"add", "sub", "rsub", "mul", "div", "neg", "abs", "maximum", "minimum", "where"}
)
_NON_NEGATIVE = frozenset(
    {"relu", "relu6", "sigmoid", "hardsigmoid", "exp", "softplus", "abs", "sqrt", "rsqrt", "square"}
)


def _is_non_negative(name: str, node: fx.Node, maps: list[bool], constants: int) -> bool:
    if name in ("hardtanh", "clamp", "clamp_min"):
        low = _arguments(node).get("min_val", _arguments(node).get("min"))
        return isinstance(low, int | float) and low >= 0
    if name in ("add", "mul", "maximum", "minimum") and len(maps) == 2 and not constants:
        return all(maps) and bool(node.kwargs.get("alpha", 1) == 1)
    return name in _NON_NEGATIVE


def _row_constant(tensor: Tensor, shape: tuple[int, ...], layout: str, name: str) -> Tensor | None:
    """A constant that is the same for all pixels as one row of channels."""
    channel = layout.index("C")
    if name == "prelu":  # its weight stands for the channels, whatever the layout
        return tensor if layout == NCHW else None
    full = (1,) * (len(shape) - tensor.ndim) + tuple(tensor.shape)
    if len(full) != 4 or any(length != 1 for axis, length in enumerate(full) if axis != channel):
        return None
    return tensor.reshape(-1) if tensor.numel() > 1 else tensor.reshape(())


def _split(front: _Front, node: fx.Node) -> _Value | None:
    """A split along the channels; its parts become slices."""
    given = _arguments(node)
    whole = all(user.target is operator.getitem for user in node.users)
    return _same(front, node) if whole and given["dim"] % 4 == 1 and front.map(given["self"]) is not None else None


def _part(front: _Front, node: fx.Node) -> Layer | None:
    split, at = node.args
    source = front.map(split)
    if source is None or not isinstance(split, fx.Node) or not isinstance(at, int):
        return None
    return _channels(node, source, sum(split.meta["parts"][:at]), node.meta["shape"][1])


_HANDLERS: dict[Any, _Handler] = {
    aten.conv2d.default: _convolution,
    aten.conv2d.padding: _convolution,
    aten.convolution.default: _convolution,
    aten.linear.default: _linear,
    aten.batch_norm.default: _batch_norm,
    aten.layer_norm.default: _layer_norm,
    aten.max_pool2d.default: _max_pool,
    aten.avg_pool2d.default: _average_pool,
    aten.adaptive_avg_pool2d.default: _adaptive_pool,
    aten.permute.default: _permute,
    aten.pad.default: _pad,
    aten.constant_pad_nd.default: _pad,
    aten.cat.default: _concat,
    aten.slice.Tensor: _slice,
    aten.split.Tensor: _split,
    aten.split_with_sizes.default: _split,
    aten.chunk.default: _split,
    aten.select.int: _one_channel,
    aten.unsqueeze.default: _unsqueeze,
    operator.getitem: _part,
}
