"""A network as a graph of pure operations: traced once, in-place operations turned into values, BatchNorm folded.

`torch.export` runs the network on tensors without data and records ATen operations, so that modules, functions and
tensor methods all look the same, shapes are known, and a forward pass that depends on data cannot be recorded at all.
What cannot be turned into pure operations is refused with a reason; the network is then run as it is.
"""

from __future__ import annotations

import logging
import operator
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn

from faithmap.errors import EngineError
from faithmap.text import first_line

aten: Any = torch.ops.aten

# In evaluation mode these return their input.
_DROPOUTS = frozenset({"dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"})
# These return the same values: in memory of their own, or in memory that depends on the input's memory format.
_CLONES = frozenset({"clone", "lift_fresh_copy", "_to_copy"})
_UNSURE = frozenset({"contiguous", "to"})
_COPIES = _CLONES | _UNSURE | {"alias", "detach", "lift_fresh"}


@dataclass
class Traced:
    """A graph of pure operations.

    Attributes:
        batch: the number of inputs, which shapes in the graph are made for.
        graph: one placeholder, the normalised input (batch, 3, H, W); parameters are ``get_attr`` nodes. Each node's
            ``meta`` holds ``shape``, ``dtype`` and ``layer`` (the module's path in the network, for messages).
        constants: the tensors behind the ``get_attr`` nodes.
    """

    batch: int
    graph: fx.Graph = field(default_factory=fx.Graph)
    constants: dict[str, Tensor] = field(default_factory=dict)

    def constant(self, node: Any) -> Tensor | None:
        """The tensor that a node stands for, None where it depends on the input."""
        return self.constants[str(node.target)] if isinstance(node, fx.Node) and node.op == "get_attr" else None

    @cached_property
    def stays_finite(self) -> bool:
        """Whether no operation makes NaN or infinity of usual numbers: a ReLU inside a product makes zero of NaN."""
        return all(_stays_finite(self, node) for node in self.graph.nodes if node.op == "call_function")

    def add_constant(self, name: str, tensor: Tensor, layer: str) -> fx.Node:
        """A new ``get_attr`` node."""
        unique = f"c{len(self.constants)}_{name.replace('.', '_')}"
        self.constants[unique] = tensor
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the graph has no owning module yet
            node = self.graph.get_attr(unique)
        node.meta = {"shape": tuple(tensor.shape), "dtype": tensor.dtype, "layer": layer}
        return node


def trace(module: nn.Module, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Traced:
    """Record a network in evaluation mode on inputs of one shape.

    Raises:
        EngineError: a reason why the recorded graph would not be, or might not be, what the network computes.
    """
    refuse_hooks(module)
    try:
        with warnings.catch_warnings(), torch.no_grad(), _without_logs():
            warnings.simplefilter("ignore")
            program = torch.export.export(module, (torch.zeros(shape, dtype=dtype, device=device),), strict=False)
    except Exception as error:  # whatever a foreign forward pass raises when its tensors hold no data
        raise EngineError(f"its forward pass cannot be recorded ({first_line(error)[:200]})") from error
    return _Purifier(program, shape[0]).run()


@contextmanager
def _without_logs() -> Iterator[None]:
    """torch logs a traceback of its own where it cannot record a network, which is no fault."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def refuse_hooks(module: nn.Module) -> None:
    """Hooks may look at or replace any activation, so that skipping work would change what they do.

    Raises:
        EngineError: names the first module that has one.
    """
    for name, one in module.named_modules():
        if one._forward_hooks or one._forward_pre_hooks:
            raise EngineError(f"a forward hook is registered on {name or 'the network'} ({type(one).__name__})")
    if torch.nn.modules.module._global_forward_hooks or torch.nn.modules.module._global_forward_pre_hooks:
        raise EngineError("a global forward hook is registered")


class _Purifier:
    """Copies an exported graph: in-place operations become values, identities vanish, constants are computed."""

    def __init__(self, program: torch.export.ExportedProgram, batch: int) -> None:
        self.source = program.graph
        self.traced = Traced(batch)
        self.constants = _constants(program)
        self.new: dict[fx.Node, Any] = {}  # exported node → node of the pure graph, or tuple of such
        self.memory: dict[fx.Node, fx.Node] = {}  # exported node → the exported node whose memory it shares
        # Exported node → the node it comes from that is a copy in some memory formats and none in others.
        self.unsure: dict[fx.Node, fx.Node] = {}
        self.order = {node: at for at, node in enumerate(self.source.nodes)}

    def run(self) -> Traced:
        for node in self.source.nodes:
            if node.op == "placeholder":
                self.new[node] = self._placeholder(node)
            elif node.op == "output":
                self._output(node)
            elif node.op == "call_function":
                self.new[node] = self._call(node)
            else:
                raise EngineError(f"{node.op} {node.target} in its forward pass")
        self.traced.graph.eliminate_dead_code()
        fold_batch_norm(self.traced)
        self.traced.graph.eliminate_dead_code()
        return self.traced

    def _placeholder(self, node: fx.Node) -> fx.Node:
        if node.name in self.constants:
            return self.traced.add_constant(node.name, self.constants[node.name], node.name)
        pure = self.traced.graph.placeholder("inputs")
        pure.meta = {**_described(node.meta["val"]), "layer": "the input"}
        return pure

    def _output(self, node: fx.Node) -> None:
        outputs = self._value(node.args[0])
        if len(outputs) != 1:
            raise EngineError(f"it returns or changes {len(outputs)} tensors")
        self.traced.graph.output(outputs[0])

    def _value(self, argument: Any) -> Any:
        return fx.map_arg(argument, lambda node: self.new[node])

    def _call(self, node: fx.Node) -> Any:
        layer, value = _layer(node), node.meta.get("val")
        if not isinstance(node.target, torch._ops.OpOverload):
            if getattr(node.target, "__name__", "") == "getitem":
                return self._emit(node, operator.getitem, layer, value)
            raise EngineError(f"{node.target} at {layer}")
        op: Any = node.target
        name = op._schema.name.removeprefix("aten::").rstrip("_")
        if name.startswith("_assert"):
            return None
        if name in _DROPOUTS:
            if node.args[2]:
                raise EngineError(f"{op} is active at {layer} in evaluation mode: its result is random")
            return self._shared(node)
        if torch.Tag.nondeterministic_seeded in op.tags and _argument(node, "dropout_p") != 0:
            raise EngineError(f"{op} at {layer}: its result is random")
        if name in _COPIES and _same(value, node.args[0]):
            return self._shared(node, name)
        written = [
            at for at, a in enumerate(op._schema.arguments) if a.alias_info is not None and a.alias_info.is_write
        ]
        if written:
            return self._in_place(node, layer, written)
        return self._emit(node, op, layer, value)

    def _shared(self, node: fx.Node, name: str = "alias") -> Any:
        """What an operation is given it returns, in the same memory or in another."""
        source: Any = node.args[0]
        if name not in _CLONES:
            self._shares(node, source)
        if name in _UNSURE:
            self.unsure[node] = node
        return self.new[source]

    def _shares(self, node: fx.Node, source: fx.Node) -> None:
        """Note that what is written into one of the two is seen in the other."""
        self.memory[node] = self.memory.get(source, source)
        if source in self.unsure:
            self.unsure[node] = self.unsure[source]

    def _emit(self, node: fx.Node, target: Callable[..., Any], layer: str, value: Any) -> fx.Node:
        args, kwargs = self._value(node.args), self._value(node.kwargs)
        leaves: list[fx.Node] = []
        fx.map_arg((args, kwargs), leaves.append)
        if leaves and all(leaf.op == "get_attr" for leaf in leaves) and isinstance(value, Tensor):
            known = fx.map_arg((args, kwargs), lambda n: self.traced.constants[str(n.target)])
            with torch.no_grad():
                return self.traced.add_constant(node.name, target(*known[0], **known[1]), layer)
        pure = self.traced.graph.call_function(target, args, kwargs)
        pure.meta = {**_described(value), "layer": layer}
        views = not isinstance(target, torch._ops.OpOverload) or any(r.alias_info for r in target._schema.returns)
        if views and node.all_input_nodes:
            self._shares(node, node.all_input_nodes[0])
        return pure

    def _in_place(self, node: fx.Node, layer: str, written: list[int]) -> fx.Node:
        """The same operation as a new value, which later readers of the overwritten tensor read."""
        op: Any = node.target
        changed = node.args[0]
        if written != [0] or not isinstance(changed, fx.Node):
            raise EngineError(f"{op} at {layer} writes into a tensor")
        before = self.new[changed]
        if before.op == "get_attr":
            raise EngineError(f"{op} at {layer} changes a parameter or buffer while the network runs")
        memory = self.memory.get(changed, changed)
        sharing = [other for other in self.new if self.memory.get(other, other) is memory]
        for other in sharing:
            if not any(self.order[user] > self.order[node] for user in other.users):
                continue
            if self.new[other] is not before:
                raise EngineError(f"{op} at {layer} writes into memory that another tensor views")
            if self.unsure.get(other) is not self.unsure.get(changed):
                raise EngineError(f"{op} at {layer} writes into what is a copy in some memory formats only")
        packet = getattr(aten, op._schema.name.removeprefix("aten::").rstrip("_"), None)
        pure_op = getattr(packet, op._overloadname, None)
        dtypes = {n.meta["val"].dtype for n in node.all_input_nodes if isinstance(n.meta.get("val"), Tensor)}
        if pure_op is None or len(dtypes) != 1:
            raise EngineError(f"{op} at {layer} writes into a tensor")
        after = self._emit(node, pure_op, layer, node.meta["val"])
        self._shares(node, changed)
        for other in sharing:
            if self.new[other] is before:
                self.new[other] = after
        return after


def fold_batch_norm(traced: Traced) -> None:
    """BatchNorm after a convolution becomes part of its weights; elsewhere it stays.

    Raises:
        EngineError: BatchNorm that uses the batch's own statistics, which makes a score depend on its neighbours.
    """
    for node in list(traced.graph.nodes):
        if node.target is not aten.batch_norm.default:
            continue
        source, gamma, beta, mean, variance, training, _, epsilon, *_ = node.args
        if training or mean is None:
            raise EngineError(f"BatchNorm at {node.meta['layer']} uses the statistics of the batch")
        if source.target is not aten.conv2d.default or len(source.users) != 1:
            continue
        weight = traced.constant(source.args[1])
        bias = traced.constant(source.args[2]) if len(source.args) > 2 and source.args[2] is not None else None
        if weight is None:
            continue
        scale, shift = batch_norm_line([traced.constant(n) for n in (gamma, beta, mean, variance)], epsilon)
        folded = (weight.double() * scale.view(-1, 1, 1, 1)).to(weight.dtype)
        offset = (shift if bias is None else shift + bias.double() * scale).to(weight.dtype)
        layer = source.meta["layer"]
        with traced.graph.inserting_before(source):
            new = (
                traced.add_constant("folded_weight", folded, layer),
                traced.add_constant("folded_bias", offset, layer),
            )
        source.args = (source.args[0], *new, *source.args[3:])
        node.replace_all_uses_with(source)


def batch_norm_line(parts: Sequence[Tensor | None], epsilon: float) -> tuple[Tensor, Tensor]:
    """BatchNorm (γ, β, mean, variance) in evaluation mode as scale · x + shift, per channel, in float64."""
    gamma, beta, mean, variance = parts
    assert mean is not None
    assert variance is not None
    scale = (variance.double() + epsilon).rsqrt()
    scale = scale if gamma is None else scale * gamma.double()
    shift = -mean.double() * scale
    return scale, shift if beta is None else shift + beta.double()


# Elementwise operations whose results are as finite as what they read; of others that is not supposed.
_FINITE = frozenset(
    {"relu", "relu6", "hardtanh", "clamp", "clamp_min", "clamp_max", "leaky_relu", "threshold", "hardswish", "prelu"}
    | {"add", "sub", "rsub", "mul", "neg", "abs", "maximum", "minimum", "where", "square", "sign", "sigmoid", "tanh"}
    | {"hardsigmoid", "gelu", "silu", "mish", "elu", "celu", "selu", "softplus", "log_sigmoid", "softshrink"}
    | {"hardshrink", "sin", "cos", "atan", "erf", "gt", "ge", "lt", "le", "eq", "ne"}
)


def _stays_finite(traced: Traced, node: fx.Node) -> bool:
    target: Any = node.target
    if not isinstance(target, torch._ops.OpOverload) or torch.Tag.pointwise not in target.tags:
        return True
    name = target._schema.name.removeprefix("aten::")
    if name == "div":
        by = traced.constant(node.args[1]) if isinstance(node.args[1], fx.Node) else torch.tensor(node.args[1])
        return by is not None and bool((by != 0).all())
    return name in _FINITE


def _constants(program: torch.export.ExportedProgram) -> dict[str, Tensor]:
    signature = program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    found = {}
    for placeholder, name in names.items():
        tensor = program.state_dict.get(name, program.constants.get(name))
        found[placeholder] = tensor.detach()
    for placeholder, name in signature.inputs_to_lifted_tensor_constants.items():
        found[placeholder] = program.constants[name].detach()
    return found


def _layer(node: fx.Node) -> str:
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return (stack[-1][0] if stack else "") or "the network itself"


def _argument(node: fx.Node, name: str) -> Any:
    """An argument by name, or its default; None where there is no such argument."""
    for at, argument in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
        if argument.name == name:
            given = node.kwargs.get(name, argument.default_value)
            return node.args[at] if at < len(node.args) else given
    return None


def _described(value: Any) -> dict[str, Any]:
    if isinstance(value, Tensor):
        return {"shape": tuple(value.shape), "dtype": value.dtype}
    parts = [one.shape[1] for one in value] if _are_maps(value) else None
    return {"shape": None, "dtype": None, "parts": parts}


def _are_maps(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(one, Tensor) and one.ndim == 4 for one in value)


def _same(value: Any, source: Any) -> bool:
    """Whether a copy has the shape, type and device of what it copies."""
    other = source.meta.get("val") if isinstance(source, fx.Node) else None
    if not isinstance(value, Tensor) or not isinstance(other, Tensor):
        return False
    return value.shape == other.shape and value.dtype == other.dtype and value.device == other.device
