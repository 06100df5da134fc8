"""The front of a network, built from the traced graph operation by operation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from faithmap.inference.incremental.geometry import Extents, Pair, Window
from faithmap.inference.incremental.layers import (
    NCHW,
    NHW,
    NHWC,
    WHOLE,
    AveragePool,
    Convolution,
    Input,
    Layer,
    MaxPool,
    Network,
    RowOperation,
    Rowwise,
    TailInput,
)
from faithmap.inference.incremental.tracing import Traced, aten


@dataclass
class Value:
    """What a node of the graph is in the front. `fresh` means that nobody else reads the layer's result."""

    layer: Layer
    layout: str = NCHW
    fresh: bool = True


class Front:
    """Collects layers while the traced graph is walked.

    Args:
        handlers: ATen operation → how it joins the front.
        otherwise: how all other operations do.
        until: the last operation of the graph that may make a layer, by number; those behind it belong to the tail.
    """

    def __init__(
        self,
        traced: Traced,
        size: Pair,
        region: int,
        handlers: Mapping[Any, Handler],
        otherwise: Handler,
        until: int | None = None,
    ) -> None:
        self.traced, self.until = traced, until
        self.handlers, self.otherwise = handlers, otherwise
        self.extents = Extents(size, region)
        self.values: dict[fx.Node, Value] = {}
        self.layers: list[Layer] = []
        self.made: dict[Layer, list[fx.Node]] = {}
        self.stops: list[str] = []
        self.dtype: torch.dtype = torch.float32

    def run(self) -> Network:
        for number, node in enumerate(self.traced.graph.nodes):
            if node.op == "placeholder":
                _, channels, *size = node.meta["shape"]
                self.dtype = node.meta["dtype"]
                layer = Input("the input", (), channels, (size[0], size[1]), 0)
                self._add(node, layer)
            elif node.op == "call_function":
                self._operation(node, self.until is None or number <= self.until)
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
                    value = self.values.get(source)
                    # The parts of a split, or channels in groups, are no map: where one is read, so is what it is of.
                    if value is not None and value.layout in (NCHW, NHWC, NHW) and source.meta["shape"] is not None:
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

    def _operation(self, node: fx.Node, may_be_layer: bool) -> None:
        sources = [s for s in node.all_input_nodes if s.op != "get_attr"]
        if not sources or not all(s in self.values for s in sources):
            return
        handler = self.handlers.get(node.target, self.otherwise)
        made = handler(self, node)
        if made is None:
            self.stops.append(f"{node.target} at {node.meta['layer']} is computed for whole maps only")
        elif isinstance(made, Value) and (may_be_layer or made.layer in self.made):
            self.values[node] = made
            self.made.setdefault(made.layer, []).append(node)
        elif isinstance(made, Value) or not may_be_layer:
            self.stops.append(f"from {node.meta['layer']} on whole maps were asked for")
        elif self.extents.share(made.extent) > WHOLE:
            self.stops.append(f"a region changes the whole map at {node.meta['layer']} ({node.target})")
        else:
            self._add(node, made)

    def _add(self, node: fx.Node, layer: Layer, layout: str = NCHW) -> None:
        self.layers.append(layer)
        self.made[layer] = [node]
        self.values[node] = Value(layer, self.layout(node) if node.op == "call_function" else layout)

    def layout(self, node: fx.Node) -> str:
        """The layout of an operation's result: that of what it reads."""
        return next(self.values[s].layout for s in node.all_input_nodes if s in self.values)

    def map(self, node: Any, layout: str = NCHW) -> Layer | None:
        """The layer behind an argument, if it is a map of the front in this layout."""
        value = self.values.get(node) if isinstance(node, fx.Node) else None
        return value.layer if value is not None and value.layout == layout else None

    def apply(
        self, node: fx.Node, source: fx.Node, operation: RowOperation, non_negative: bool = False
    ) -> Layer | Value:
        """A function of one map: done along with the layer that makes it, where nobody else reads that."""
        value = self.values[source]
        fresh = value.fresh and len(source.users) == 1
        if fresh and isinstance(value.layer, Convolution | MaxPool | AveragePool | Rowwise):
            value.layer.after.append(operation)
            value.layer.non_negative = non_negative
            return Value(value.layer, value.layout)
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


# An operation of the graph → the layer it makes, the value it stands for, or None: it belongs to the tail.
Handler = Callable[[Front, fx.Node], Layer | Value | None]
