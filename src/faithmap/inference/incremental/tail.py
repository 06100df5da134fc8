"""The end of a network, where a region changes everything: whole maps, in batches of one fixed size.

Maps of several steps wait in a queue until a batch is full, so that few chains cost no more than many; the last batch
is filled up. One batch size means one shape for every operation, and so one way of rounding. Only where the end is
matrix products whose rows were found to be independent, the last batch is as small as it may be.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from faithmap.inference.dense import LEAST
from faithmap.inference.fused import can_fuse, fused_convolution
from faithmap.inference.incremental.kernels import GRID, Product, random_numbers, rounded_up, rows_are_independent
from faithmap.inference.incremental.layers import NHW, NHWC, Network, TailInput
from faithmap.inference.incremental.state import State
from faithmap.inference.incremental.tracing import aten

LARGEST_BATCH = {"cpu": 256, "device": 512}
LARGEST_OF_EARLY = {"cpu": 32, "device": 512}  # where the front ends early: large maps stay near the cache
_LARGEST_OF_MAPS = {"cpu": 128, "device": 512}  # where the last batch is always filled up
_ROWWISE = frozenset({aten.flatten.using_ints, aten.linear.default, aten.relu.default, "output"})
_BATCH_BYTES = 256_000_000  # all inputs of the widest operation of a batch


def batch_size(network: Network, kind: str) -> int:
    """How many inputs the tail runs on at a time, at most those it was traced with; decided by the network alone.

    Args:
        kind: of device; see `kind_of`.
    """
    widest = max((_numbers(node) for node in network.tail), default=1)
    batch = network.traced.batch
    fits = _BATCH_BYTES * batch // (4 * max(widest, 1))
    most = (LARGEST_BATCH if _is_rowwise(network) else _LARGEST_OF_MAPS)[kind]
    return min(batch, most, max(8, 1 << max(fits, 1).bit_length() - 1))


def _is_rowwise(network: Network) -> bool:
    """Whether the tail handles each input by itself, as far as its matrix products do."""
    return all(node.target in _ROWWISE for node in network.tail)


def working_bytes(network: Network, itemsize: int) -> int:
    """Memory that batches take: in the tail, with what waits for it, or in the network itself, for the comparison."""
    waiting = sum(math.prod(_stored_shape(one)) for one in network.tail_inputs)
    tail = max((_numbers(node) for node in network.tail), default=0)
    itself = max(_numbers(node) for node in network.traced.graph.nodes) * LEAST // network.traced.batch
    return itemsize * (waiting + max(2 * tail, itself))


def _numbers(node: fx.Node) -> int:
    """Of the result of an operation and all that it reads."""
    return sum(math.prod(n.meta["shape"] or (0,)) for n in (node, *node.all_input_nodes) if n.op == "call_function")


class Tail:
    """Collects what the tail reads, runs it when a batch is full, and yields logits.

    Rows 0…`filled` of every buffer belong to the entries of `_waiting`, in order and without gaps; rows behind them are
    left from earlier batches, run along, and go unread. Maps are copied when they are pushed, because the next step
    changes them before the batch is full. A batch is never run with a number of rows that could round otherwise.

    Args:
        public: use public operations of torch only.
        fused: let convolutions apply the ReLU behind them where torch can; inputs have to be finite.
    """

    def __init__(
        self, network: Network, dtype: torch.dtype, device: torch.device, public: bool, fused: bool = False
    ) -> None:
        self.inputs = network.tail_inputs
        self.batch = network.traced.batch
        self.module = _compiled(network, public, fused and not public and can_fuse(dtype, device))
        products = [one.product for one in self.module.modules() if isinstance(one, _Linear)]
        self.any_count = _is_rowwise(network) and all(product.any_count for product in products)
        self.buffers = [torch.zeros(_stored_shape(one), dtype=dtype, device=device) for one in self.inputs]
        self.filled = 0
        self._waiting: list[_Waiting] = []

    def push(
        self, state: State, chains: Tensor, step: int, shared: bool = False
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Add a step of all chains of a state.

        Args:
            chains: which chains those of the state are.
            shared: the state is that of one chain, and its logits are meant for all of `chains`.
        """
        done = 0
        while done < state.chains:
            count = min(state.chains - done, self.batch - self.filled)
            for one, buffer in zip(self.inputs, self.buffers, strict=True):
                _fill(buffer[self.filled : self.filled + count], one, state, slice(done, done + count))
            meant = chains if shared else chains[done : done + count]
            self._waiting.append(_Waiting(self.filled, meant, step, shared))
            self.filled += count
            done += count
            if self.filled == self.batch:
                yield self._run()

    def clear(self) -> None:
        """Forget what waits, as after an interrupted run."""
        self.filled, self._waiting = 0, []

    def flush(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Run what is left."""
        if self.filled:
            yield self._run()

    def _run(self) -> tuple[Tensor, Tensor, Tensor]:
        rows = min(rounded_up(self.filled, GRID), self.batch) if self.any_count else self.batch
        seen = (_as_seen(one, buffer[:rows]) for one, buffer in zip(self.inputs, self.buffers, strict=True))
        logits: Tensor = self.module(*seen)
        chain = torch.cat([one.chains for one in self._waiting])
        step = torch.cat([torch.full_like(one.chains, one.step) for one in self._waiting])
        row = torch.cat([one.rows() for one in self._waiting])
        self.filled, self._waiting = 0, []
        return chain, step, logits.index_select(0, row)


@dataclass(frozen=True)
class _Waiting:
    """Rows of a batch from `first` on: one for each of the chains, or one for all of them."""

    first: int
    chains: Tensor
    step: int
    shared: bool

    def rows(self) -> Tensor:
        """The row of each chain's logits."""
        if self.shared:
            return torch.full_like(self.chains, self.first)
        return torch.arange(self.first, self.first + len(self.chains), device=self.chains.device)


def _stored_shape(one: TailInput) -> tuple[int, ...]:
    """Batch, then the map as it is kept, or its channels."""
    batch = one.node.meta["shape"][0]
    return (batch, one.layer.channels) if one.mean else (batch, *one.layer.size, one.layer.channels)


def _as_seen(one: TailInput, buffer: Tensor) -> Tensor:
    """The buffer in the shape that the graph expects."""
    if one.mean:
        return buffer.view(len(buffer), *one.node.meta["shape"][1:])
    if one.layout == NHW:
        return buffer.squeeze(3)
    return buffer if one.layout == NHWC else buffer.permute(0, 3, 1, 2)


def _fill(rows: Tensor, one: TailInput, state: State, part: slice) -> None:
    inner = state.maps[one.layer].inner
    if not one.mean:
        rows.copy_(inner[part])
        return
    height, width = one.layer.size
    kind = torch.promote_types(rows.dtype, torch.float32)
    sums = _sum_at_once if _sums_are_independent(inner.shape[1:], inner.stride(), kind, inner) else _sum_by_pixels
    rows.copy_(sums(inner[part], kind).div_(height * width))


def _sum_at_once(inner: Tensor, kind: torch.dtype) -> Tensor:
    return inner.sum((1, 2), dtype=kind)


def _sum_by_pixels(inner: Tensor, kind: torch.dtype) -> Tensor:
    """In one order of summation, whatever the number of chains."""
    total = torch.zeros((len(inner), inner.shape[3]), dtype=kind, device=inner.device)
    for row in range(inner.shape[1]):
        for column in range(inner.shape[2]):
            total.add_(inner[:, row, column])
    return total


def _sums_are_independent(size: torch.Size, strides: tuple[int, ...], kind: torch.dtype, like: Tensor) -> bool:
    chains = 40
    return rows_are_independent(
        ("sums", size, strides, kind, like.dtype, like.device),
        lambda: random_numbers(chains * strides[0], like).as_strided((chains, *size), strides),
        lambda inner: _sum_at_once(inner, kind),
        (slice(0, 1), slice(7, 8), slice(1, 3), slice(5, 21), slice(3, chains)),
    )


class _Linear(nn.Module):
    """A linear layer with packed weights."""

    def __init__(self, weight: Tensor, bias: Tensor | None, rows: int, public: bool) -> None:
        super().__init__()
        self.product = Product(weight, bias, relu=False, rows=rows, public=public)

    def forward(self, inputs: Tensor) -> Tensor:
        rows = inputs.reshape(-1, inputs.shape[-1])
        return self.product(rows).view(*inputs.shape[:-1], -1)


def _compiled(network: Network, public: bool, fused: bool) -> fx.GraphModule:
    """The tail as a module of its own."""
    if fused:
        with suppress(AttributeError, RuntimeError, TypeError):  # operations that torch does not promise
            return _tail_module(network, public, fused=True)
    return _tail_module(network, public, fused=False)


def _tail_module(network: Network, public: bool, fused: bool) -> fx.GraphModule:
    root, graph = nn.Module(), fx.Graph()
    new: dict[fx.Node, Any] = {}
    for at, one in enumerate(network.tail_inputs):
        new[one.node] = graph.placeholder(f"front_{at}")

    def constant(node: fx.Node) -> fx.Node:
        name = str(node.target)
        if node not in new:
            root.register_buffer(name, network.traced.constants[name], persistent=False)
            new[node] = graph.get_attr(name)
        found: fx.Node = new[node]
        return found

    for node in network.tail:
        if node in new:
            continue  # a ReLU that the convolution before it applies
        weight = network.traced.constant(node.args[1]) if len(node.args) > 1 else None
        if node.target is aten.linear.default and weight is not None and isinstance(node.args[0], fx.Node):
            bias = network.traced.constant(node.args[2]) if len(node.args) > 2 else None
            rows = math.prod(node.args[0].meta["shape"][:-1])
            root.add_module(node.name, _Linear(weight, bias, rows, public))
            new[node] = graph.call_module(node.name, (new[node.args[0]],))
            continue
        if fused and node.target is aten.conv2d.default and weight is not None:
            convolution, source, relu = fused_convolution(network.traced, node)
            root.add_module(node.name, convolution)
            new[node] = new[relu or node] = graph.call_module(node.name, (new[source],))
            continue
        if node.target is aten.conv2d.default and weight is not None:
            name = str(node.args[1].target)  # type: ignore[union-attr]
            network.traced.constants[name] = weight.contiguous(memory_format=torch.channels_last)
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: constant(n) if n.op == "get_attr" else new[n])
        if node.op == "output":
            graph.output(args[0])
        else:
            # Maps come as channels_last, which a plain view need not be able to see through.
            target: Any = aten.reshape.default if node.target is aten.view.default else node.target
            new[node] = graph.call_function(target, args, kwargs)
    return fx.GraphModule(root, graph)
