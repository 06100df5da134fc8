"""A network's forward pass, followed function by function, so that rules apply whatever the code looks like.

Hooks on modules miss what a network does outside of modules (a functional ReLU, a residual sum, fused attention) and
break on what modules do in place. Here every torch function that the network calls is seen instead, through torch's
function mode. Subclasses decide how each one is run: with a rule in the place of its gradient (`relevance`,
`rectifying`), or as it is, looked at in passing (`features`, `attention`). The network itself is not touched.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from faithmap.attribution.batch import Batch, on_leaving
from faithmap.errors import MethodError

Function = Callable[..., Any]


@dataclass(frozen=True)
class Call:
    """One call of a torch function.

    Attributes:
        name: of the function, without underscores.
        function, args, kwargs: the call.
        values: the arguments that depend on the input, in order; a tensor that is given twice stands there twice.
    """

    name: str
    function: Function
    args: Any
    kwargs: Any
    values: list[Tensor]

    def run(self) -> Any:
        """The function as it was called."""
        return self.function(*self.args, **self.kwargs)

    def at(self, *values: Tensor) -> Any:
        """The function with these in the places of `values`, and nothing changed in place."""
        given = iter([value.clone() for value in values] if self.in_place else values)
        leaves, structure = pytree.tree_flatten((self.args, self.kwargs))
        args, kwargs = pytree.tree_unflatten([next(given) if _moves(leaf) else leaf for leaf in leaves], structure)
        return self.function(*args, **{key: value for key, value in kwargs.items() if key != "inplace"})

    @property
    def in_place(self) -> bool:
        """Whether the function itself changes its first argument."""
        name = getattr(self.function, "__name__", "")
        return (name.endswith("_") and not name.startswith("__")) or (name.startswith("__i") and name != "__init__")

    def argument(self, place: int, name: str, default: Any = None) -> Any:
        """An argument that may be given by place or by name."""
        return self.args[place] if place < len(self.args) else self.kwargs.get(name, default)


class Follower(TorchFunctionMode):
    """Runs a network and decides, for each torch function on values that depend on the input, how it is run.

    Subclasses define `run`. In-place functions may be run out of place; later uses of the changed value get the new
    one.

    Attributes:
        unfused: attention is run as the products and the softmax that it is made of, each followed.
        known: values that depend on the input, by id. Held here, so that no id is given to another tensor.
        derived: values without gradient that were computed from values with one (masks, counts), by id.
    """

    unfused = True

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.leaf: Tensor | None = None
        self.path: list[str] = []
        self.kept: list[Any] = []  # rules live as long as the follower: zennit itself holds them weakly
        self.known: dict[int, Tensor] = {}
        self.derived: dict[int, Tensor] = {}
        self.renewed: dict[int, Tensor] = {}

    def logits(self, batch: Batch, inputs: Tensor) -> Tensor:
        """The network's logits at `inputs`, which must require gradients; call inside `attributable`.

        Raises:
            MethodError: a step that cannot be followed, or that has no rule.
        """
        for path, part in self.module.named_modules():
            if isinstance(part, torch.jit.ScriptModule) or hasattr(part, "_orig_mod"):
                raise MethodError(
                    f"module '{path or type(part).__name__}' is scripted or compiled and cannot be followed: give the "
                    "network as it was before torch.jit or torch.compile."
                )
        on_leaving(self._release)
        self.leaf = inputs
        changeable = inputs.clone()  # for networks that work on their input in place
        self.known[id(changeable)] = changeable
        handles = []
        for path, part in self.module.named_modules():
            handles.append(part.register_forward_pre_hook(lambda _m, _i, path=path: self.path.append(path)))
            handles.append(part.register_forward_hook(lambda _m, _i, _o: self._leave(), always_call=True))
        try:
            with self:
                logits = self.module(changeable)
        finally:
            for handle in handles:
                handle.remove()
        if isinstance(logits, Tensor):
            logits = self._newest(logits)
            if logits.requires_grad and id(logits) not in self.known:
                raise MethodError(self._unseen())
        logits = batch.classifier.check_logits(logits, len(inputs))
        plain = batch.plain_logits(inputs)
        if plain.isfinite().all() and not (logits - plain).abs().amax() <= 1e-3 * plain.abs().amax():
            raise MethodError("the network's forward pass cannot be followed: followed, it gives other logits.")
        return logits

    def _release(self) -> None:
        """Let go of the graph: rules hold tensors whose graph holds the rules, in a circle that Python cannot see."""
        for release in self.kept:
            release()
        for held in (self.kept, self.known, self.derived, self.renewed):
            held.clear()

    def run(self, call: Call) -> Any:
        """The value of a function that has at least one argument that depends on the input."""
        raise NotImplementedError

    def made_of(self, function: Function, *args: Any, **kwargs: Any) -> Any:
        """Run a function that calls torch functions, and follow these."""
        with self:
            return function(*args, **kwargs)

    def is_derived(self, value: Any) -> bool:
        """Whether a value without gradient was computed from values that depend on the input."""
        return id(value) in self.derived

    def constant(self, value: Tensor) -> Tensor:
        """The value without its gradient, known to be derived from the input."""
        value = value.detach()
        self.derived[id(value)] = value
        return value

    def refuse(self, name: str, why: str) -> MethodError:
        """An error that says where in the network it arose."""
        return MethodError(f"'{name}' in {self.where()}: {why}")

    def where(self) -> str:
        """The module that runs now."""
        path = next((path for path in reversed(self.path) if path), "")
        kind = type(self.module.get_submodule(path)).__name__
        return f"module '{path}' ({kind})" if path else "the network's own forward"

    def _leave(self) -> None:
        self.path.pop()

    def _unseen(self) -> str:
        return (
            f"{self.where()} uses a value that no torch function made (a custom autograd function): "
            "its forward pass cannot be followed."
        )

    def _take_for_constant(self, value: Tensor) -> None:
        """A value that was computed from parameters, before they were held fixed, is used without its gradient.

        Raises:
            MethodError: it depends on the input.
        """
        left, visited = [value.grad_fn], set()
        while left:
            node = left.pop()
            if node is None or node in visited:
                continue
            visited.add(node)
            if getattr(node, "variable", None) is self.leaf:
                raise MethodError(self._unseen())
            left += [before for before, _ in node.next_functions]
        self.renewed[id(value)] = value.detach()
        self.known[id(value)] = value  # held, so that its id is not given to another

    def _newest(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            while id(value) in self.renewed:
                value = self.renewed[id(value)]
            return value
        if isinstance(value, (tuple, list)) and type(value) in (tuple, list):
            return type(value)(self._newest(one) for one in value)
        return value

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(function, "__name__", str(function))
        args = self._newest(args)
        kwargs = {key: self._newest(value) for key, value in (kwargs or {}).items()}
        given = tensors_in((args, list(kwargs.values())))
        moving = [value for value in given if value.requires_grad]
        if not moving or not torch.is_grad_enabled():
            result = function(*args, **kwargs)
            if any(id(value) in self.derived for value in given) and name.strip("_") not in FACTORIES:
                self._derive(result)
            return result
        unknown = [value for value in moving if id(value) not in self.known]
        if unknown:
            for value in unknown:
                self._take_for_constant(value)
            return self.__torch_function__(function, types, args, kwargs)
        call = Call(name.strip("_"), function, args, kwargs, moving)
        if self.unfused and call.name in ATTENTION:
            result = self.made_of(ATTENTION[call.name], *args, **kwargs)
        else:
            result = self.run(call)
        if name == "__setitem__":
            self.known[id(args[0])] = args[0]
        elif call.in_place or kwargs.get("inplace") is True:
            changed = args[0] if args else kwargs["input"]
            if isinstance(result, Tensor) and result is not changed:
                self.renewed[id(changed)] = result
                self.known[id(changed)] = changed  # held, so that its id is not given to another
        if call.name not in FACTORIES:
            self._derive(result)
        return result

    def _derive(self, result: Any) -> None:
        for value in tensors_in((result,)):
            (self.known if value.requires_grad else self.derived)[id(value)] = value


def tensors_in(values: Any) -> list[Tensor]:
    """All tensors in tuples and lists, in order."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (tuple, list)):
            found += tensors_in(value)
    return found


def _moves(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(Q Kᵀ / √d + mask) V, as torch documents `scaled_dot_product_attention`, without dropout."""
    if enable_gqa:
        key, value = (one.repeat_interleave(query.shape[-3] // one.shape[-3], -3) for one in (key, value))
    scores = torch.matmul(query, key.transpose(-2, -1)) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~seen, -torch.inf)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -torch.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    return torch.matmul(scores.softmax(-1), value)


def _opened(function: Any) -> Function:
    """A Python function of torch without the question to modes that it begins with, which would never end here."""
    opened = types.FunctionType(
        function.__code__,
        {**function.__globals__, "has_torch_function": lambda _: False},
        function.__name__,
        function.__defaults__,
    )
    opened.__kwdefaults__ = function.__kwdefaults__
    return opened


ATTENTION: dict[str, Function] = {
    "scaled_dot_product_attention": attention,
    "multi_head_attention_forward": _opened(F.multi_head_attention_forward),
}
# Make a tensor from the shape of another.
FACTORIES = {
    "zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like", "new_zeros", "new_ones",
    "new_empty", "new_full", "new_tensor",
}  # fmt: skip
LINEAR = {
    "conv1d", "conv2d", "conv3d", "linear", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
}  # fmt: skip
# Of one value, element by element, and not linear.
ACTIVATIONS = {
    "relu", "threshold", "clamp", "clamp_min", "clamp_max", "clip", "relu6", "hardtanh", "leaky_relu", "rrelu", "prelu",
    "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish", "softplus", "sigmoid", "hardsigmoid", "tanh",
    "logsigmoid", "softsign", "tanhshrink", "hardshrink", "softshrink", "erf", "pow", "square", "abs",
}  # fmt: skip
# Linear, and every output a sum over inputs.
AVERAGES = {
    "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d",
    "mean", "sum", "interpolate", "upsample", "fold", "cumsum",
}  # fmt: skip
# Values are moved, copied or dropped: the gradient says where from. Max pooling passes everything to the winner.
MOVES = {
    "flatten", "unflatten", "view", "view_as", "reshape", "reshape_as", "permute", "transpose", "swapaxes", "swapdims",
    "movedim", "moveaxis", "t", "squeeze", "unsqueeze", "expand", "expand_as", "broadcast_to", "repeat", "tile",
    "repeat_interleave", "cat", "concat", "concatenate", "stack", "hstack", "vstack", "chunk", "split",
    "split_with_sizes", "tensor_split", "unbind", "getitem", "setitem", "copy", "narrow", "select", "index_select",
    "gather", "take_along_dim", "roll", "flip", "pad", "unfold", "tril", "triu", "contiguous", "clone", "to", "type",
    "float", "double", "type_as", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "dropout", "dropout1d",
    "dropout2d", "dropout3d", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "detach", "get",
    "requires_grad", "retain_grad",
}  # fmt: skip
MAX_POOLS = {
    "max_pool1d", "max_pool2d", "max_pool3d", "max_pool1d_with_indices", "max_pool2d_with_indices",
    "max_pool3d_with_indices", "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d",
    "adaptive_max_pool1d_with_indices", "adaptive_max_pool2d_with_indices", "adaptive_max_pool3d_with_indices", "amax",
}  # fmt: skip
# Choose between values by a mask or by their size.
CHOICES = {"where", "masked_fill", "maximum", "minimum", "max", "min", "fmax", "fmin"}
SUMS = {"add", "iadd", "radd", "sub", "isub", "rsub", "subtract"}
PRODUCTS = {"mul", "imul", "rmul", "multiply"}
QUOTIENTS = {"div", "idiv", "itruediv", "truediv", "divide", "true_divide"}
SIGNS = {"neg", "negative", "positive", "pos"}
MATRIX_PRODUCTS = {"matmul", "rmatmul", "mm", "bmm", "mv", "dot", "inner", "outer", "einsum", "tensordot"}
NORMS = {"layer_norm", "group_norm", "instance_norm", "rms_norm"}
# What a value is divided by: norms and spreads of the input.
STATISTICS = {"var", "std", "norm", "vector_norm", "linalg_norm", "linalg_vector_norm", "rsqrt"}
