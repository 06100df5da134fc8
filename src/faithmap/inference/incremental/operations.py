"""How each ATen operation joins the front: one handler per operation."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from faithmap.inference.incremental.front import Front, Handler, Value
from faithmap.inference.incremental.geometry import Pair, Window
from faithmap.inference.incremental.layers import (
    NCHW,
    NHW,
    NHWC,
    AveragePool,
    Concat,
    Convolution,
    Copy,
    Layer,
    MaxPool,
    RowOperation,
    Rowwise,
    Slice,
)
from faithmap.inference.incremental.tracing import aten, batch_norm_line
from faithmap.inference.incremental.winograd import is_cheaper

_PERMUTED: dict[tuple[str, tuple[int, ...]], str] = {(NCHW, (0, 2, 3, 1)): NHWC, (NHWC, (0, 3, 1, 2)): NCHW}


HANDLERS: dict[Any, Handler] = {}


def operation(*targets: Any) -> Callable[[Handler], Handler]:
    """Declare how ATen operations join the front."""

    def declare(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(targets, handler))
        return handler

    return declare


def arguments(node: fx.Node) -> dict[str, Any]:
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


@operation(aten.conv2d.default, aten.conv2d.padding, aten.convolution.default)
def _convolution(front: Front, node: fx.Node) -> Layer | None:
    given = arguments(node)
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
    layer = front.windowed(Convolution, node, source, window, weight=weight, bias=bias, groups=given["groups"])
    assert isinstance(layer, Convolution)
    layer.tiled = is_cheaper(weight, window, layer.groups, front.extents, layer.extent)
    return layer


@operation(aten.linear.default)
def _linear(front: Front, node: fx.Node) -> Layer | None:
    given = arguments(node)
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


@operation(aten.batch_norm.default)
def _batch_norm(front: Front, node: fx.Node) -> Layer | Value | None:
    given = arguments(node)
    if front.map(given["input"]) is None:
        return None
    numbers = [front.traced.constant(given[n]) for n in ("weight", "bias", "running_mean", "running_var")]
    scale, shift = (t.to(front.dtype) for t in batch_norm_line(numbers, given["eps"]))
    # Two operations, not one fused: vectorised and scalar code then round alike.
    return front.apply(node, given["input"], RowOperation("batch_norm", lambda rows: rows.mul(scale).add_(shift)))


@operation(aten.layer_norm.default)
def _layer_norm(front: Front, node: fx.Node) -> Layer | Value | None:
    given = arguments(node)
    source = front.map(given["input"], NHWC)
    if source is None or list(given["normalized_shape"]) != [source.channels]:
        return None
    weight, bias = front.traced.constant(given["weight"]), front.traced.constant(given["bias"])
    shape, epsilon = [source.channels], given["eps"]
    operation = RowOperation("layer_norm", lambda rows: torch.layer_norm(rows, shape, weight, bias, epsilon))
    return front.apply(node, given["input"], operation)


@operation(aten.max_pool2d.default)
def _max_pool(front: Front, node: fx.Node) -> Layer | None:
    given = arguments(node)
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


def _moved(front: Front, node: fx.Node, source: Layer, before: Pair, size: Pair, value: float) -> Layer:
    window = Window(before=before)
    extent = front.extents.through(source.extent, window, size)
    layer = Copy(
        node.meta["layer"], (source,), source.channels, size, extent, window,
        non_negative=source.non_negative and value >= 0, value=value,
    )  # fmt: skip
    front.layers.append(layer)
    return layer


@operation(aten.avg_pool2d.default)
def _average_pool(front: Front, node: fx.Node) -> Layer | None:
    given = arguments(node)
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
    kept = source.non_negative and (given["divisor_override"] or 1) > 0
    return front.windowed(AveragePool, node, source, window, divisor=divisor, non_negative=kept)


def _counted(inputs: Pair, outputs: Pair, window: Window, axis: int, with_padding: bool) -> Tensor:
    """How many pixels along an axis every output divides by."""
    length, padding = inputs[axis], window.before[axis]
    first = torch.arange(outputs[axis], device="cpu") * window.stride[axis] - padding
    end = (first + window.size[axis]).clamp(max=length + padding)
    return (end - first if with_padding else end.clamp(max=length) - first.clamp(min=0)).double()


def same(front: Front, node: fx.Node, layout: str | None = None) -> Value:
    """The value that the operation reads, perhaps in another layout."""
    source = node.all_input_nodes[0]
    value = front.values[source]
    return Value(value.layer, layout or value.layout, value.fresh and len(source.users) == 1)


@operation(aten.matmul.default)
def _matmul(front: Front, node: fx.Node) -> Layer | None:
    """A map (B, H, W, C) times a constant (C, outputs)."""
    source, weight = front.map(node.args[0], NHWC), front.traced.constant(node.args[1])
    return None if source is None or weight is None or weight.ndim != 2 else _mixed(node, source, weight.T)


@operation(aten.einsum.default)
def _einsum(front: Front, node: fx.Node) -> Layer | None:
    """A constant matrix over the channels, such as ``bchw,oc->bohw``."""
    equation, operands = node.args[0], list(node.args[1])  # type: ignore[arg-type]
    terms, arrow, result = str(equation).replace(" ", "").partition("->")
    letters = terms.split(",")
    if len(operands) != 2 or not arrow:
        return None
    at = next((i for i in (0, 1) if front.traced.constant(operands[1 - i]) is not None), None)
    if at is None:
        return None
    weight, layout = front.traced.constant(operands[1 - at]), front.layout(node)
    source = front.map(operands[at], layout)
    if source is None or weight is None or layout not in (NCHW, NHWC) or weight.ndim != 2:
        return None
    seen, constant = letters[at], letters[1 - at]
    channel = seen[layout.index("C")] if len(seen) == 4 else "."
    output = constant.replace(channel, "", 1)
    if len(set(seen)) != 4 or len(output) != 1 or output in seen or result != seen.replace(channel, output):
        return None
    return _mixed(node, source, weight if constant[1] == channel else weight.T)


def _mixed(node: fx.Node, source: Layer, weight: Tensor) -> Layer:
    """A matrix (outputs, channels) over the channels of every pixel."""
    return Convolution(
        node.meta["layer"], (source,), len(weight), source.size, source.extent,
        weight=weight.contiguous()[:, :, None, None],
    )  # fmt: skip


@operation(aten.permute.default)
def _permute(front: Front, node: fx.Node) -> Value | None:
    source = node.all_input_nodes[0]
    dims: Any = arguments(node)["dims"]
    layout = _PERMUTED.get((front.values[source].layout, tuple(d % 4 for d in dims)))
    return None if layout is None else same(front, node, layout)


@operation(aten.pad.default, aten.constant_pad_nd.default)
def _pad(front: Front, node: fx.Node) -> Layer | None:
    given = arguments(node)
    source, sides = front.map(given["self"]), list(given["pad"])
    if source is None or given.get("mode", "constant") != "constant" or any(sides[4:]):
        return None
    left, _, top, _ = (*sides, 0, 0)[:4]
    return moved(front, node, source, (top, left), float(given["value"] or 0.0))


def moved(front: Front, node: fx.Node, source: Layer, before: Pair, value: float = 0.0) -> Layer:
    kept = source.non_negative and value >= 0
    return front.windowed(Copy, node, source, Window(before=before), value=value, non_negative=kept)


@operation(aten.cat.default)
def _concat(front: Front, node: fx.Node) -> Layer | None:
    given = arguments(node)
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


@operation(aten.slice.Tensor)
def _slice(front: Front, node: fx.Node) -> Layer | None:
    given = arguments(node)
    source, dim = front.map(given["self"]), given["dim"] % 4
    if source is None or given["step"] != 1 or dim == 0:
        return None
    length = (source.channels, *source.size)[dim - 1]
    start = given["start"] or 0
    start = min(max(start + length if start < 0 else start, 0), length)
    if dim > 1:
        return moved(front, node, source, (-start, 0) if dim == 2 else (0, -start))
    return _channels(node, source, start, node.meta["shape"][1])


def _channels(node: fx.Node, source: Layer, start: int, count: int) -> Layer:
    return Slice(
        node.meta["layer"], (source,), count, source.size, source.extent,
        non_negative=source.non_negative, start=start,
    )  # fmt: skip


@operation(aten.select.int)
def _one_channel(front: Front, node: fx.Node) -> Value | None:
    """``x[:, 1]``, which mostly becomes a map again by ``unsqueeze``."""
    given = arguments(node)
    source = front.map(given["self"])
    if source is None or given["dim"] % 4 != 1:
        return None
    layer = _channels(node, source, given["index"] % source.channels, 1)
    front.layers.append(layer)
    return Value(layer, NHW)


@operation(aten.unsqueeze.default)
def _unsqueeze(front: Front, node: fx.Node) -> Value | None:
    given = arguments(node)
    return same(front, node, NCHW) if front.map(given["self"], NHW) and given["dim"] % 4 == 1 else None


def rowwise(front: Front, node: fx.Node) -> Layer | Value | None:
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

    scale = node.kwargs.get("alpha", 1)

    def function(*maps: Tensor) -> Tensor:
        known = {**rows, **dict(zip(sources, maps, strict=True))}
        args: Any
        args, kwargs = fx.map_arg((node.args, dict(node.kwargs)), known.__getitem__)
        if scale != 1 and name in ("add", "sub"):
            # Two rounded operations, not one fused: vectorised and scalar code then round alike.
            args, kwargs = (args[0], args[1] * scale), {}
        result: Tensor = operation(*args, **kwargs)
        return result

    exact = name in _EXACT
    if not exact and any(line.ndim for line in rows.values()):
        return None
    maps = [front.values[source].layer for source in sources]
    positive = _is_non_negative(name, node, [one.non_negative for one in maps], len(rows))
    if len(sources) == 1:
        of_rows = RowOperation(name, function, exact, joins=front.traced.stays_finite)
        return front.apply(node, sources[0], of_rows, positive)
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
        given = arguments(node)
        low, high = (given.get(f"{end}_val", given.get(end)) for end in ("min", "max"))
        # Of a lower bound above the upper one the upper one holds.
        return all(isinstance(one, int | float) and one >= 0 for one in (low, 0 if high is None else high))
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


@operation(aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default)
def _split(front: Front, node: fx.Node) -> Value | None:
    """A split along the channels; its parts become slices."""
    given = arguments(node)
    whole = all(user.target is operator.getitem for user in node.users)
    return same(front, node) if whole and given["dim"] % 4 == 1 and front.map(given["self"]) is not None else None


@operation(operator.getitem)
def _part(front: Front, node: fx.Node) -> Layer | None:
    split, at = node.args
    source = front.map(split)
    if source is None or not isinstance(split, fx.Node) or not isinstance(at, int):
        return None
    return _channels(node, source, sum(split.meta["parts"][:at]), node.meta["shape"][1])
