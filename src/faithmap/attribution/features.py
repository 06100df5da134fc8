"""Where in the image a network's inner values lie: channels first, channels last, or as tokens.

`FeatureFollower` looks at every value on its way. A convolution says where its positions are; from there they are
followed through whatever moves axes (by the strides of a tensor that holds nothing) and through whatever keeps sizes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from faithmap.attribution.following import LINEAR, Call, Follower, tensors_in

VIEWS = {
    "flatten", "unflatten", "view", "view_as", "reshape", "reshape_as", "permute", "transpose", "swapaxes", "swapdims",
    "movedim", "moveaxis", "t", "squeeze", "unsqueeze", "chunk", "split", "tensor_split", "unbind", "getitem", "narrow",
    "select", "contiguous", "get",
}  # fmt: skip
RESIZING = {"pad", "interpolate", "upsample", "avg_pool2d", "max_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d"}


@dataclass(frozen=True)
class Layout:
    """Where the positions of a value are.

    Attributes:
        axes: of rows and of columns; one axis where positions are tokens.
        grid: rows and columns.
        first: the index of the first position on the axis of tokens (class tokens may stand before it).
    """

    axes: tuple[int, ...]
    grid: tuple[int, int]
    first: int = 0

    def maps(self, value: Tensor) -> Tensor:
        """The value as (B, C, rows, columns)."""
        if len(self.axes) == 1:
            at = value.narrow(self.axes[0], self.first, self.grid[0] * self.grid[1])
            moved = at.movedim(self.axes[0], -1)
        else:
            moved = value.movedim(self.axes, (-2, -1))
        return moved.reshape(len(value), -1, *self.grid)

    def fits(self, shape: torch.Size) -> bool:
        """Whether a value of this shape has these positions."""
        if len(shape) <= max(self.axes):
            return False
        if len(self.axes) == 1:
            return shape[self.axes[0]] >= self.first + self.grid[0] * self.grid[1]
        return tuple(shape[axis] for axis in self.axes) == self.grid


class FeatureFollower(Follower):
    """Knows the layout of the values that have positions.

    Attributes:
        seen: values with positions and their layouts, in the order in which they were made.
        grid: rows and columns of the last convolution or linear layer that acts on positions.
    """

    unfused = False

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        self.layouts: dict[int, Layout] = {}
        self.seen: list[tuple[Tensor, Layout]] = []
        self.grid: tuple[int, int] | None = None

    def run(self, call: Call) -> Any:
        """See `Follower`."""
        result = call.run()
        outputs = [call.args[0]] if call.name == "setitem" else tensors_in((result,))
        layouts = self._through(call, outputs)
        for output, layout in zip(outputs, layouts, strict=True):
            if layout is None or not output.requires_grad:
                self.layouts.pop(id(output), None)
                continue
            self.layouts[id(output)] = layout
            self.seen.append((output, layout))  # which also holds it, so that its id is not given to another
            if call.name in LINEAR and layout.grid != (1, 1):
                self.grid = layout.grid
        return result

    def _release(self) -> None:
        super()._release()
        self.seen.clear()

    def layout(self, value: Tensor) -> Layout | None:
        """The layout of a value, if it has positions."""
        return self.layouts.get(id(value))

    def _through(self, call: Call, outputs: list[Tensor]) -> list[Layout | None]:
        if call.name in ("conv2d", "conv_transpose2d") and outputs[0].ndim == 4:
            return [Layout((2, 3), (outputs[0].shape[2], outputs[0].shape[3]))]
        with_positions = [(value, self.layouts[id(value)]) for value in call.values if id(value) in self.layouts]
        if not with_positions:
            return [None] * len(outputs)
        parent, layout = with_positions[0]
        if call.name in VIEWS and call.name != "setitem":
            return _moved(call, parent, layout, len(outputs))
        if call.name in ("cat", "concat", "concatenate", "stack"):
            return [_joined(call, parent, layout, outputs[0])]
        return [_kept(call, with_positions, output) for output in outputs]


def _kept(call: Call, parents: list[tuple[Tensor, Layout]], output: Tensor) -> Layout | None:
    """The layout of a value with as many axes as one that it was made from."""
    for parent, layout in parents:
        if output.ndim != parent.ndim:
            continue
        if len(layout.axes) == 1:
            axis = layout.axes[0]
            if output.shape[axis] == parent.shape[axis]:
                return layout
        elif layout.fits(output.shape):
            return layout
        elif call.name in RESIZING and len(layout.axes) == 2:
            return Layout(layout.axes, (output.shape[layout.axes[0]], output.shape[layout.axes[1]]))
    return None


def _joined(call: Call, parent: Tensor, layout: Layout, output: Tensor) -> Layout | None:
    if call.name == "stack":
        return None
    axis = int(call.argument(1, "dim", 0)) % parent.ndim
    if axis not in layout.axes:
        return layout if layout.fits(output.shape) else None
    if len(layout.axes) == 2:
        return None
    before = 0
    for one in call.argument(0, "tensors"):
        if one is parent:
            return Layout(layout.axes, layout.grid, layout.first + before)
        before += one.shape[axis]
    return None


def _moved(call: Call, parent: Tensor, layout: Layout, outputs: int) -> list[Layout | None]:
    """The function on a tensor without memory, whose strides say which axis has become which."""
    empty = torch.empty(parent.shape, device="meta")
    leaves, structure = pytree.tree_flatten((call.args, call.kwargs))
    args, kwargs = pytree.tree_unflatten([empty if leaf is parent else leaf for leaf in leaves], structure)
    try:
        moved = tensors_in((call.function(*args, **kwargs),))
    except (RuntimeError, NotImplementedError, IndexError, TypeError):
        return [None] * outputs
    if len(moved) != outputs:
        return [None] * outputs
    return [_found(empty, layout, one) for one in moved]


def _found(before: Tensor, layout: Layout, after: Tensor) -> Layout | None:
    (rows, columns), all_there = layout.grid, after.numel() == before.numel()
    axes = [axis for axis in range(after.ndim) if after.shape[axis] > 1]
    if len(layout.axes) == 1:
        stride = before.stride(layout.axes[0])
        for axis in axes:  # tokens still, perhaps without the class token
            if after.stride(axis) == stride and after.shape[axis] >= rows * columns:
                first = layout.first - int(after.storage_offset()) // stride % before.shape[layout.axes[0]]
                return Layout((axis,), layout.grid, first) if first >= 0 else None
        down = [axis for axis in axes if (after.stride(axis), after.shape[axis]) == (stride * columns, rows)]
        right = [axis for axis in axes if (after.stride(axis), after.shape[axis]) == (stride, columns)]
        return Layout((down[0], right[0]), layout.grid) if down and right else None
    down_stride, right_stride = (before.stride(axis) for axis in layout.axes)
    for axis in axes:  # rows and columns have become tokens; on the first axis they would be images (windows)
        if (
            axis > 0
            and after.stride(axis) == right_stride
            and after.shape[axis] == rows * columns
            and rows * columns > columns
        ):
            return Layout((axis,), layout.grid)
    down = list(_along(after, axes, down_stride, rows, all_there))
    right = list(_along(after, axes, right_stride, columns, all_there))
    if not down or not right:
        return None
    return Layout((down[0], right[0]), (after.shape[down[0]], after.shape[right[0]]))


def _along(after: Tensor, axes: list[int], stride: int, size: int, all_there: bool) -> Iterator[int]:
    """Axes that go along an axis of this stride and size, by every n-th position.

    Where no value was dropped, the positions between have become channels (patch merging).
    """
    for axis in axes:
        times, rest = divmod(after.stride(axis), stride)
        inside = rest == 0 and times >= 1 and after.shape[axis] * times <= size + times - 1
        if inside and (not all_there or times * after.shape[axis] == size):
            yield axis
