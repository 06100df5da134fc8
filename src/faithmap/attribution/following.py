"""A network's forward pass, followed function by function, so that zennit's rules apply whatever the code looks like.

Hooks on modules miss what a network does outside of modules (a functional ReLU, a residual sum, a mean over positions)
and break on what modules do in place. Here every torch function that the network calls is seen instead, through torch's
function mode, and each one that needs a rule is run as a small module of its own with the zennit rule attached. The
network itself is not touched.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from zennit.core import BasicHook, Hook
from zennit.rules import Norm, Pass, ReLUDeconvNet, ReLUGuidedBackprop

from faithmap.attribution.batch import Batch, on_leaving
from faithmap.errors import MethodError

Function = Callable[..., Any]


class _Forward(torch.autograd.Function):
    """A function whose gradient nobody looks at, because a rule takes its place: zeros that cost nothing."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Function) -> Tensor:
        ctx.shape = x.shape
        result: Tensor = function(x)
        return result

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> tuple[Tensor, None]:
        return signal.new_zeros(()).expand(ctx.shape), None


class Step(nn.Module):
    """One torch function as a module, so that a zennit rule can be attached to it.

    Attributes:
        replaced: a rule takes the place of the gradient, which need not be computed.
    """

    def __init__(self, function: Function, weight: Tensor | None = None, bias: Tensor | None = None) -> None:
        super().__init__()
        self.function = function
        self.replaced = False
        if weight is not None:
            self.weight = nn.Parameter(weight.detach(), requires_grad=False)
            self.register_parameter("bias", None if bias is None else nn.Parameter(bias.detach(), requires_grad=False))

    def forward(self, x: Tensor) -> Any:
        """The function at `x`, with the parameters as they are now."""
        return _Forward.apply(x, self._value) if self.replaced else self._value(x)

    def _value(self, x: Tensor) -> Any:
        return self.function(x, self.weight, self.bias) if hasattr(self, "weight") else self.function(x)


class Follower(TorchFunctionMode):
    """Runs a network and decides, for each torch function on values that depend on the input, how it is run.

    Subclasses define `run`. In-place functions are run out of place, and later uses of the changed value get the new
    one.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.path: list[str] = []
        self.kept: list[Any] = []  # rules live as long as the follower: zennit itself holds them weakly
        self.known: dict[int, Tensor] = {}
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
        for module, hook in self.kept:
            hook.remove()
            module.function = None
        for held in (self.kept, self.known, self.renewed):
            held.clear()

    def run(self, name: str, function: Function, args: Any, kwargs: Any) -> Any:
        """The value of a function that has at least one argument that depends on the input."""
        raise NotImplementedError

    def step(self, rule: Hook, function: Function, x: Tensor, weight: Any = None, bias: Any = None) -> Any:
        """The function at `x`, with a zennit rule for its backward pass."""
        module, hook = Step(function, weight, bias), rule.copy()
        hook.register(module)
        self.kept.append((module, hook))
        module.replaced = weight is not None and isinstance(hook, BasicHook)  # which computes it all by itself
        try:
            return module(x)
        finally:
            module.replaced = False

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
        moving = [value for value in _tensors((args, list(kwargs.values()))) if value.requires_grad]
        if not moving or not torch.is_grad_enabled():
            return function(*args, **kwargs)
        if any(id(value) not in self.known for value in moving):
            raise MethodError(self._unseen())
        in_place = (name.endswith("_") and not name.startswith("__")) or (name.startswith("__i") and name != "__init__")
        result = self.run(name.strip("_"), function, args, kwargs)
        if name == "__setitem__":
            self.known[id(args[0])] = args[0]
        elif in_place or kwargs.get("inplace") is True:
            changed = args[0] if args else kwargs["input"]
            if isinstance(result, Tensor) and result is not changed:
                self.renewed[id(changed)] = result
                self.known[id(changed)] = changed  # held, so that its id is not given to another
        for value in _tensors((result,)):
            self.known[id(value)] = value
        return result


def _tensors(values: Any) -> list[Tensor]:
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (tuple, list)):
            found += _tensors(value)
    return found


RECTIFIERS = {"relu", "threshold", "clamp", "clamp_min", "clip"}
# Would be left to the plain gradient by a rule that knows ReLU only.
OTHER_ACTIVATIONS = {
    "relu6", "hardtanh", "leaky_relu", "rrelu", "prelu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish",
    "softplus", "maximum", "where",
}  # fmt: skip
POOLS = {
    "max_pool2d", "max_pool2d_with_indices", "adaptive_max_pool2d", "adaptive_max_pool2d_with_indices",
    "avg_pool2d", "adaptive_avg_pool2d",
}  # fmt: skip


class ReluFollower(Follower):
    """Replaces the backward pass of ReLU and keeps the gradient elsewhere (deconvolution, guided backpropagation).

    Attributes:
        rectified: how many ReLUs were met.
        pooled: the output of the last pooling that leaves more than one position.
    """

    def __init__(self, module: nn.Module, rule: type[ReLUDeconvNet] | type[ReLUGuidedBackprop]) -> None:
        super().__init__(module)
        self.rule = rule
        self.rectified = 0
        self.pooled: Tensor | None = None

    def run(self, name: str, function: Function, args: Any, kwargs: Any) -> Any:
        """See `Follower`."""
        if _is_relu(name, args, kwargs):
            self.rectified += 1
            return self.step(self.rule(), F.relu, args[0] if args else kwargs["input"])
        if name in OTHER_ACTIVATIONS or name in RECTIFIERS:
            raise self.refuse(
                name, "the method is defined for ReLU only; on other activations it would be the gradient."
            )
        result = function(*args, **kwargs)
        if name in POOLS:
            output = result[0] if isinstance(result, tuple) else result
            if output.shape[-1] * output.shape[-2] > 1:
                self.pooled = output
        return result


def _is_relu(name: str, args: Any, kwargs: Any) -> bool:
    """Whether the call is max(x, 0), under any of its names."""
    if name == "relu":
        return True
    if name == "threshold":
        at = [*args[1:], kwargs.get("threshold"), kwargs.get("value")]
        return [value for value in at if value is not None and not isinstance(value, bool)] == [0, 0]
    if name in ("clamp", "clip", "clamp_min"):
        low = args[1] if len(args) > 1 else kwargs.get("min")
        high = args[2] if len(args) > 2 else kwargs.get("max")
        return high is None and not isinstance(low, Tensor) and low == 0
    return False


LINEAR = {
    "conv1d", "conv2d", "conv3d", "linear", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
}  # fmt: skip
ACTIVATIONS = RECTIFIERS | (OTHER_ACTIVATIONS - {"maximum", "where"}) | {"sigmoid", "hardsigmoid", "tanh"}
AVERAGES = {
    "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d",
    "mean", "sum", "interpolate", "upsample",
}  # fmt: skip
# Values are moved, copied or dropped: the gradient is the relevance. Max pooling passes everything to the winner.
MOVES = {
    "flatten", "unflatten", "view", "view_as", "reshape", "reshape_as", "permute", "transpose", "swapaxes", "swapdims",
    "movedim", "t", "squeeze", "unsqueeze", "cat", "concat", "concatenate", "stack", "hstack", "vstack", "chunk",
    "split", "tensor_split", "unbind", "getitem", "narrow", "select", "index_select", "roll", "flip", "pad",
    "contiguous", "clone", "to", "type", "float", "double", "type_as", "pixel_shuffle", "pixel_unshuffle",
    "channel_shuffle", "dropout", "dropout1d", "dropout2d", "dropout3d", "feature_dropout", "alpha_dropout",
    "feature_alpha_dropout", "max_pool1d", "max_pool2d", "max_pool3d", "max_pool1d_with_indices",
    "max_pool2d_with_indices", "max_pool3d_with_indices", "adaptive_max_pool1d", "adaptive_max_pool2d",
    "adaptive_max_pool3d", "amax", "detach", "get", "requires_grad_", "retain_grad",
}  # fmt: skip
SUMS = {"add": 1, "iadd": 1, "radd": 1, "sub": -1, "isub": -1, "subtract": -1}
SCALES = {
    "mul", "imul", "rmul", "multiply", "div", "idiv", "itruediv", "truediv", "divide", "true_divide", "neg", "negative",
}  # fmt: skip


def no_zero(z: Tensor) -> Tensor:
    """A denominator for which 0 / 0 counts as 0."""
    return torch.where(z == 0, torch.inf, z)


def stabilised(epsilon: float) -> Callable[[Tensor], Tensor]:
    """z + ε · sign(z), with sign(0) = 1; for ε = 0 see `no_zero`."""
    return no_zero if epsilon == 0 else lambda z: torch.where(z < 0, z - epsilon, z + epsilon)


PROPORTIONAL = Norm(stabilizer=no_zero)


class LrpFollower(Follower):
    """Layer-wise relevance propagation: zennit's rules on every step, canonised as the steps come.

    BatchNorm after a convolution or linear layer is merged into it, any other BatchNorm is a linear layer of its own,
    sums share relevance in proportion to their terms, and so does average pooling; activations pass it on.

    Args:
        module: the network.
        rule: (number of the linear layer, in the order of the forward pass; name of its function) → zennit rule.
    """

    def __init__(self, module: nn.Module, rule: Callable[[int, str], Hook]) -> None:
        super().__init__(module)
        self.rule = rule
        self.linear_layers = 0
        self.linear_calls: dict[int, tuple[str, Hook, Function, Tensor, Tensor, Tensor | None]] = {}

    def run(self, name: str, function: Function, args: Any, kwargs: Any) -> Any:
        """See `Follower`."""
        if name in LINEAR:
            return self._linear(name, function, list(args), dict(kwargs))
        if name == "batch_norm":
            return self._batch_norm(*args, **kwargs)
        if name in ACTIVATIONS:
            return self._elementwise(Pass(), name, _out_of_place(function, name), args, kwargs)
        if name in AVERAGES:
            return self._elementwise(PROPORTIONAL, name, function, args, kwargs)
        if name in SUMS:
            return self._sum(name, SUMS[name], function, args, kwargs)
        if name in SCALES:
            return self._elementwise(Pass(), name, _out_of_place(function, name), args, kwargs)
        result = function(*args, **kwargs)
        if name in MOVES or not any(value.requires_grad for value in _tensors((result,))):
            return result
        raise self.refuse(name, "LRP has no rule for it.")

    def _linear(self, name: str, function: Function, args: list[Any], kwargs: dict[str, Any]) -> Tensor:
        given = dict(zip(("input", "weight", "bias"), args[:3], strict=False))
        given |= {key: kwargs.pop(key) for key in ("input", "weight", "bias") if key in kwargs}
        x, weight, bias = given["input"], given["weight"], given.get("bias")
        if weight.requires_grad or not x.requires_grad:
            raise self.refuse(name, "its weight depends on the input: LRP has no rule for it.")
        rest = args[3:]
        rule = self.rule(self.linear_layers, name)
        self.linear_layers += 1

        def apply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Any:
            return function(x, weight, bias, *rest, **kwargs)

        output: Tensor = self.step(rule, apply, x, weight, bias)
        self.linear_calls[id(output)] = (name, rule, apply, x, weight, bias)
        return output

    def _batch_norm(
        self,
        x: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
        *_: Any,
    ) -> Any:
        if training or running_mean is None or running_var is None:
            raise self.refuse("batch_norm", "it has no running statistics, so that maps would depend on the batch.")
        scale = (running_var + eps).rsqrt() * (1 if weight is None else weight)
        shift = (0 if bias is None else bias) - running_mean * scale
        before = self.linear_calls.get(id(x))
        if before is None or "transpose" in before[0]:
            shape = (-1, *[1] * (x.ndim - 2))
            return self.step(PROPORTIONAL, lambda y: y * scale.view(shape) + shift.view(shape), x)
        _name, rule, apply, x, linear_weight, linear_bias = before
        merged = linear_weight * scale.view(-1, *[1] * (linear_weight.ndim - 1))
        return self.step(rule, apply, x, merged, shift if linear_bias is None else shift + linear_bias * scale)

    def _sum(self, name: str, sign: int, function: Function, args: Any, kwargs: Any) -> Any:
        a, b = args
        if not (isinstance(a, Tensor) and isinstance(b, Tensor) and a.requires_grad and b.requires_grad):
            return self._elementwise(PROPORTIONAL, name, _out_of_place(function, name), args, kwargs)
        if kwargs or a.shape != b.shape:
            raise self.refuse(name, f"a sum of {tuple(a.shape)} and {tuple(b.shape)}: LRP has no rule for it.")
        if sign < 0:
            b = self.step(Pass(), torch.neg, b)
        return self.step(PROPORTIONAL, lambda terms: terms.sum(-1), torch.stack([a, b], -1))

    def _elementwise(self, rule: Hook, name: str, function: Function, args: Any, kwargs: Any) -> Any:
        """A function of one value that depends on the input; all else is constant."""
        places = [place for place, value in enumerate(args) if isinstance(value, Tensor) and value.requires_grad]
        if len(places) + sum(isinstance(v, Tensor) and v.requires_grad for v in kwargs.values()) != 1:
            raise self.refuse(name, "it combines values that both depend on the input: LRP has no rule for it.")
        kwargs = {key: value for key, value in kwargs.items() if key != "inplace"}
        if places:
            place, x = places[0], args[places[0]]
            before, after = args[:place], args[place + 1 :]
            output = self.step(rule, lambda y: function(*before, y, *after, **kwargs), x)
        else:
            key = next(key for key, value in kwargs.items() if isinstance(value, Tensor) and value.requires_grad)
            x = kwargs.pop(key)
            output = self.step(rule, lambda y: function(**{key: y}, **kwargs), x)
        if isinstance(rule, Pass) and output.shape != x.shape:
            raise self.refuse(name, f"it turns {tuple(x.shape)} into {tuple(output.shape)}: LRP has no rule for it.")
        return output


def _out_of_place(function: Function, name: str) -> Function:
    """The function without its change in place: run on a copy."""

    def on_copy(*args: Any, **kwargs: Any) -> Any:
        args = tuple(value.clone() if isinstance(value, Tensor) and value.requires_grad else value for value in args)
        return function(*args, **kwargs)

    raw = getattr(function, "__name__", "")
    return on_copy if raw.endswith("_") or raw.startswith("__i") else function
