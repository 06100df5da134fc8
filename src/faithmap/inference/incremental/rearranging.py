"""Operations that change how many pixels a map has, or in which order its channels lie, and how they join the front."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from faithmap.inference.incremental.front import Front, Value
from faithmap.inference.incremental.geometry import Spans, Window
from faithmap.inference.incremental.layers import (
    NCHW,
    AveragePool,
    Convolution,
    Layer,
    PixelShuffle,
    Resample,
    RowOperation,
    Rowwise,
)
from faithmap.inference.incremental.operations import arguments, moved, operation, pair, same
from faithmap.inference.incremental.tracing import aten


@operation(aten.adaptive_avg_pool2d.default)
def _adaptive_pool(front: Front, node: fx.Node) -> Layer | Value | None:
    source = front.map(node.args[0])
    if source is None:
        return None
    outputs = pair(node.meta["shape"][2:])
    if outputs == source.size:
        return same(front, node)
    if source.size[0] % outputs[0] or source.size[1] % outputs[1]:
        return _resampled(front, node, source)
    size = (source.size[0] // outputs[0], source.size[1] // outputs[1])
    return front.windowed(
        AveragePool,
        node,
        source,
        Window(size, size),
        divisor=float(size[0] * size[1]),
        non_negative=source.non_negative,
    )


@operation(
    aten.upsample_nearest2d.vec,
    aten._upsample_nearest_exact2d.vec,
    aten.upsample_bilinear2d.vec,
    aten._upsample_bilinear2d_aa.vec,
    aten.upsample_bicubic2d.vec,
)
def _upsample(front: Front, node: fx.Node) -> Layer | None:
    source = front.map(node.args[0])
    return None if source is None else _resampled(front, node, source)


def _resampled(front: Front, node: fx.Node, source: Layer) -> Layer:
    """Any operation that treats rows and columns apart, linearly: its weights are what it makes of single ones."""
    target: Any = node.target
    kind = torch.float64 if front.dtype is torch.float64 else torch.float32
    tables, first, last = [], [], []
    for axis, length in enumerate(source.size):
        # Input i is 1 in row (column) i and 0 elsewhere; along the other axis all are equal, and so is the result.
        ones = torch.eye(length, dtype=kind, device="cpu").view(length, 1, length, 1)
        inputs = ones.expand(-1, -1, -1, source.size[1]) if axis == 0 else ones.mT.expand(-1, -1, source.size[0], -1)
        found: Tensor = target(inputs.contiguous(), *node.args[1:], **node.kwargs)
        weights = (found[:, 0, :, 0] if axis == 0 else found[:, 0, 0, :]).T  # (outputs, inputs)
        used = weights != 0
        first.append(tuple(used.int().argmax(1).tolist()))
        last.append(tuple((length - 1 - used.flip(1).int().argmax(1)).tolist()))
        most = int(used.sum(1).max())
        index = used.int().argsort(stable=True, dim=1, descending=True)[:, :most]  # those used, ascending, then any
        tables.append((index, weights.gather(1, index)))
    _, channels, *size = node.meta["shape"]
    # Where a span is empty or out of order, as a kernel with zeros in it may be, the next ones bound it.
    starts, ends = (
        tuple(torch.tensor(one).flip(0).cummin(0).values.flip(0).tolist() for one in first),
        tuple(torch.tensor(one).cummax(0).values.tolist() for one in last),
    )
    spans = Spans((tuple(starts[0]), tuple(starts[1])), (tuple(ends[0]), tuple(ends[1])))
    extent = front.extents.through(source.extent, spans, (size[0], size[1]))
    positive = source.non_negative and all(bool((weights >= 0).all()) for _, weights in tables)
    return Resample(
        node.meta["layer"], (source,), channels, (size[0], size[1]), extent,
        non_negative=positive, rows=tables[0], columns=tables[1],
    )  # fmt: skip


@operation(aten.pixel_shuffle.default)
def _pixel_shuffle(front: Front, node: fx.Node) -> Layer | None:
    given = arguments(node)
    source = front.map(given["self"])
    return None if source is None else _shuffled(front, node, source, given["upscale_factor"])


def _shuffled(front: Front, node: fx.Node, source: Layer, factor: int) -> Layer:
    size = (source.size[0] * factor, source.size[1] * factor)
    rows, columns = (tuple(at // factor for at in range(length)) for length in size)
    extent = front.extents.through(source.extent, Spans((rows, columns), (rows, columns)), size)
    return PixelShuffle(
        node.meta["layer"], (source,), source.channels // factor**2, size, extent,
        non_negative=source.non_negative, factor=factor,
    )  # fmt: skip


@operation(aten.conv_transpose2d.input)
def _transposed(front: Front, node: fx.Node) -> Layer | None:
    """Outputs that lie `stride` apart see the same pixels of the kernel: they are channels of one convolution.

    Output o of the full transposed convolution is Σ over j ≡ o (mod s) of w[j] · x[(o − j) / s]. With o = q s + r that
    is a convolution of x at q with the taps w[r], w[r + s], … in reverse order; the s × s remainders are shuffled into
    place and the padding is cut off. Where `output_padding` reaches beyond all taps, an output is the bias.
    """
    given = arguments(node)
    source, weight = front.map(given["input"]), front.traced.constant(given["weight"])
    bias = front.traced.constant(given["bias"])
    stride = set(pair(given["stride"]))
    if source is None or weight is None or (bias is None and given["bias"] is not None) or given["groups"] != 1:
        return None
    if len(stride) != 1 or pair(given["dilation"]) != (1, 1):
        return None
    (factor,) = stride
    inputs, outputs, *size = weight.shape
    taps = (-(-size[0] // factor), -(-size[1] // factor))
    full = weight.new_zeros(inputs, outputs, taps[0] * factor, taps[1] * factor)
    full[:, :, : size[0], : size[1]] = weight
    # (inputs, outputs, tap, remainder, tap, remainder) → (outputs, remainders, inputs, taps), taps reversed.
    phases = full.view(inputs, outputs, taps[0], factor, taps[1], factor).permute(1, 3, 5, 0, 2, 4).flip(4, 5)
    window = Window(taps, before=(taps[0] - 1, taps[1] - 1))
    top, left = pair(given["padding"])
    height, width = node.meta["shape"][2:]
    wide = (-(-(top + height) // factor), -(-(left + width) // factor))
    layer = Convolution(
        node.meta["layer"], (source,), outputs * factor**2, wide, front.extents.through(source.extent, window, wide),
        window, weight=phases.reshape(outputs * factor**2, inputs, *taps).contiguous(),
        bias=None if bias is None else bias.repeat_interleave(factor**2),
    )  # fmt: skip
    shuffled = _shuffled(front, node, layer, factor)
    front.layers += [layer, shuffled]
    return moved(front, node, shuffled, (-top, -left))


@operation(aten.channel_shuffle.default)
def _channel_shuffle(front: Front, node: fx.Node) -> Layer | Value | None:
    given = arguments(node)
    return _channels_in_groups(front, node, given["self"], given["groups"]) if front.map(given["self"]) else None


def _channels_in_groups(front: Front, node: fx.Node, source: fx.Node, groups: int) -> Layer:
    one = front.values[source].layer
    order = torch.arange(one.channels).view(groups, -1).T.reshape(-1)
    operation = RowOperation("channel_shuffle", lambda rows: rows.index_select(1, order.to(rows.device)))
    return Rowwise(
        node.meta["layer"], (one,), one.channels, one.size, one.extent,
        non_negative=one.non_negative, operation=operation,
    )  # fmt: skip


_SPLIT, _SWAPPED = "N(GC)HW", "N(CG)HW"  # channels in groups, as ShuffleNet turns them; never seen by the tail


@operation(aten.view.default, aten.reshape.default)
def _view(front: Front, node: fx.Node) -> Layer | Value | None:
    """(B, groups, channels, H, W) → transposed → (B, C, H, W): a shuffle of channels, if nobody looks in between."""
    source = node.all_input_nodes[0]
    value, shape = front.values[source], node.meta["shape"]
    if value.layout == _SWAPPED:
        shuffled = _channels_in_groups(front, node, source, source.meta["shape"][2])
        front.layers.append(shuffled)
        return Value(shuffled, NCHW)
    if value.layout != NCHW or len(shape) != 5 or shape[0] != source.meta["shape"][0]:
        return None
    one, swaps = value.layer, list(node.users)
    views = [user for swap in swaps for user in swap.users]
    turned = all(swap.target is aten.transpose.int and set(swap.args[1:]) == {1, 2} for swap in swaps)
    back = all(view.target in (aten.view.default, aten.reshape.default) for view in views)
    same = all(view.meta["shape"] == source.meta["shape"] for view in views)
    if not (turned and back and same and shape[3:] == one.size and shape[1] * shape[2] == one.channels):
        return None
    return Value(one, _SPLIT, fresh=False)


@operation(aten.transpose.int)
def _transpose(front: Front, node: fx.Node) -> Value | None:
    value = front.values[node.all_input_nodes[0]]
    return Value(value.layer, _SWAPPED, fresh=False) if value.layout == _SPLIT else None
