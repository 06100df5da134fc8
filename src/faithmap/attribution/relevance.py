"""LRP rules for every torch function: what each value's relevance is, given the relevance of the function's result.

Relevance travels as gradients do: each function is run with its rule in the place of its gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from zennit.core import BasicHook, Hook

from faithmap.attribution.following import (
    ACTIVATIONS,
    AVERAGES,
    CHOICES,
    LINEAR,
    MATRIX_PRODUCTS,
    MAX_POOLS,
    MOVES,
    NORMS,
    PRODUCTS,
    QUOTIENTS,
    SIGNS,
    STATISTICS,
    SUMS,
    Call,
    Follower,
    Function,
    tensors_in,
)

# (the function, its values, its result, the relevance of the result) → the relevance of each value
Rule = Callable[[Function, Sequence[Tensor], Tensor, Tensor], Sequence[Tensor | None]]


def no_zero(z: Tensor) -> Tensor:
    """A denominator for which 0 / 0 counts as 0."""
    return torch.where(z == 0, torch.inf, z)


def stabilised(epsilon: float) -> Callable[[Tensor], Tensor]:
    """z + ε · sign(z), with sign(0) = 1; for ε = 0 see `no_zero`."""
    return no_zero if epsilon == 0 else lambda z: torch.where(z < 0, z - epsilon, z + epsilon)


def in_proportion(
    function: Function, values: Sequence[Tensor], result: Tensor, relevance: Tensor, parts: int = 1
) -> Sequence[Tensor]:
    """R_i = x_i · ∂z/∂x_i · R / (parts · z), for a function that is linear in each of its values.

    With one part for a sum, with as many parts as factors for a product, all relevance is handed on, but for what
    constants in z absorb.
    """
    with torch.enable_grad():
        values = [value.detach().requires_grad_() for value in values]
        z = function(*values)
    gradients = torch.autograd.grad(z, values, relevance / no_zero(parts * z.detach()))
    return [value.detach() * gradient for value, gradient in zip(values, gradients, strict=True)]


def identity(function: Function, values: Sequence[Tensor], result: Tensor, relevance: Tensor) -> Sequence[Tensor]:
    """R_x = R: of functions of one value, element by element."""
    return [relevance]


def uniform(function: Function, values: Sequence[Tensor], result: Tensor, relevance: Tensor) -> Sequence[Tensor]:
    """R_a = R_b = R / 2, for a product element by element. Where a factor is broadcast, its relevances are added."""
    return [(relevance / len(values)).sum_to_size(value.shape) for value in values]


def softmax_taylor(
    function: Function, values: Sequence[Tensor], result: Tensor, relevance: Tensor, dim: int
) -> Sequence[Tensor]:
    """R_x = x (R − s Σ R): first-order Taylor expansion of the softmax at x, whose constant absorbs the rest.

    Source:
        Achtibat et al. 2024, Proposition 3.1. Masked entries (x = −∞) get 0.
    """
    (x,) = values
    x = torch.where(x.isneginf(), 0.0, x)
    return [x * (relevance - result * relevance.sum(dim, keepdim=True))]


class _Ruled(torch.autograd.Function):
    """A function with a rule in the place of its gradient."""

    @staticmethod
    def forward(ctx: Any, function: Function, rule: Rule, *values: Tensor) -> Tensor:
        result: Tensor = function(*values)
        if any(result is value for value in values):
            result = result.clone()
        ctx.function, ctx.rule = function, rule
        ctx.save_for_backward(result, *values)
        return result

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> tuple[Tensor | None, ...]:
        result, *values = ctx.saved_tensors
        return None, None, *ctx.rule(ctx.function, values, result, relevance)


class EpsilonRule:
    """LRP-ε in a convolution or linear layer, biases part of z_j: the numbers of zennit's `Epsilon`, bit for bit.

    The layer is not computed again on the way back. Only there does ε count, so one forward pass serves several.

    Args:
        epsilon: ε ≥ 0; for 0, 0 / 0 counts as 0.
    """

    def __init__(self, epsilon: float) -> None:
        self.epsilon = epsilon

    def apply(self, function: Function, x: Tensor) -> Tensor:
        """The function at x, with the rule in the place of its gradient."""
        output: Tensor = _Epsilon.apply(x, function, self)
        return output


class _Epsilon(torch.autograd.Function):
    """R_i = x_i Σ_j ∂z_j/∂x_i · R_j / (z_j + ε sign z_j)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Function, rule: EpsilonRule) -> Tensor:
        with torch.enable_grad():
            x = x.detach().clone().requires_grad_()  # copies, because the network may change both in place
            z = function(x)
        ctx.x, ctx.z, ctx.rule = x, z, rule
        output: Tensor = z.detach().clone()
        return output

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> tuple[Tensor, None, None]:
        share = relevance / stabilised(ctx.rule.epsilon)(ctx.z.detach())
        (gradient,) = torch.autograd.grad(ctx.z, ctx.x, share, retain_graph=True)
        return ctx.x.detach() * gradient, None, None


class _Forward(torch.autograd.Function):
    """A function whose gradient nobody looks at, because zennit computes the relevance: zeros that cost nothing."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Function) -> Tensor:
        ctx.shape = x.shape
        result: Tensor = function(x)
        return result

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> tuple[Tensor, None]:
        return signal.new_zeros(()).expand(ctx.shape), None


class _Layer(nn.Module):
    """A linear function as a module, so that a zennit rule can be attached to it."""

    def __init__(self, function: Function, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.function: Function | None = function
        self.first = True
        self.weight = nn.Parameter(weight.detach(), requires_grad=False)
        self.register_parameter("bias", None if bias is None else nn.Parameter(bias.detach(), requires_grad=False))

    def forward(self, x: Tensor) -> Any:
        """The function at `x`, with the parameters as the rule has them now."""
        return _Forward.apply(x, self._value) if self.first else self._value(x)

    def _value(self, x: Tensor) -> Any:
        assert self.function is not None
        return self.function(x, self.weight, self.bias)


LayerRule: TypeAlias = Hook | EpsilonRule


class LrpFollower(Follower):
    """Layer-wise relevance propagation: a rule on every function, canonised as the functions come.

    Args:
        module: the network.
        rule: (number of the linear layer, in the order of the forward pass; name of its function) → zennit rule, or
            `EpsilonRule`.
        softmax: ``"taylor"`` sends relevance through a softmax, see `softmax_taylor`; ``"constant"`` takes its result
            for a constant (CP-LRP), so that all relevance of attention goes to what is attended to.
    Attributes:
        softmaxes: how many were met.
    """

    def __init__(
        self,
        module: nn.Module,
        rule: Callable[[int, str], LayerRule],
        softmax: Literal["taylor", "constant"] | str = "taylor",
    ) -> None:
        super().__init__(module)
        self.rule = rule
        self.softmax = softmax
        self.softmaxes = 0
        self.linear_layers = 0
        self.linear_calls: dict[int, tuple[str, LayerRule, Function, Tensor, Tensor, Tensor | None]] = {}

    def run(self, call: Call) -> Any:
        """See `Follower`."""
        handler = HANDLERS.get(call.name)
        if handler is not None:
            return handler(self, call)
        result = call.run()
        if not any(value.requires_grad for value in tensors_in((result,))):
            return result  # a mask, a shape, a count
        raise self.refuse(call.name, "LRP has no rule for it.")

    def _moved(self, call: Call) -> Any:
        """The gradient is the relevance."""
        return call.run()

    def _activation(self, call: Call) -> Any:
        if len(call.values) > 1:
            raise self.refuse(call.name, "it combines values that both depend on the input: LRP has no rule for it.")
        return self._ruled(call, identity, same_shape=True)

    def _sum(self, call: Call) -> Any:
        return self._ruled(call, in_proportion)

    def _product(self, call: Call) -> Any:
        return self._ruled(call, uniform)

    def _quotient(self, call: Call) -> Any:
        """All to the numerator: what a value is divided by is taken for a constant."""
        over, under = call.argument(0, "input"), call.argument(1, "other")
        if not (isinstance(over, Tensor) and over.requires_grad):
            raise self.refuse(call.name, "a constant divided by a value that depends on the input has no LRP rule.")
        if call.kwargs.get("rounding_mode") is not None:
            raise self.refuse(call.name, "division that rounds has no LRP rule.")
        if isinstance(under, Tensor) and under.requires_grad:
            under = self.constant(under)
        function = torch.Tensor.div if call.in_place else call.function
        return _Ruled.apply(lambda x: function(x, under), uniform, over)

    def _statistic(self, call: Call) -> Any:
        """Norms and spreads of a value, by which it is divided, are constants: R_x = R in x / σ(x).

        Source:
            Achtibat et al. 2024, Proposition 3.4.
        """
        return self.constant(call.run())

    def _norm(self, call: Call) -> Any:
        """Centring and affine part share in proportion; the division passes relevance on."""
        norms: dict[str, Function] = {"layer_norm": _layer_norm, "group_norm": _group_norm, "rms_norm": _rms_norm}
        norm = norms.get(call.name, self._instance_norm)
        function = partial(norm, *call.args[1:], **{k: v for k, v in call.kwargs.items() if k != "input"})
        return _Ruled.apply(lambda x: function(input=x), in_proportion, call.values[0])

    def _instance_norm(self, *args: Any, input: Tensor, **kwargs: Any) -> Tensor:
        names = ("running_mean", "running_var", "weight", "bias", "use_input_stats", "momentum", "eps")
        given = dict(zip(names, args, strict=False)) | kwargs
        if not given.get("use_input_stats", True):
            raise self.refuse("instance_norm", "LRP has no rule for it with running statistics.")
        weight, bias, eps = given.get("weight"), given.get("bias"), given.get("eps", 1e-5)
        return _group_norm(input.shape[1], weight, bias, eps, input=input)

    def _softmax(self, call: Call) -> Any:
        self.softmaxes += 1
        if self.softmax == "constant":
            return self.constant(call.run())
        dim = call.argument(1, "dim")
        if dim is None:
            raise self.refuse(call.name, "say over which dimension (dim=) it is taken.")
        return self._ruled(call, partial(softmax_taylor, dim=dim))

    def _matrix_product(self, call: Call) -> Any:
        """With a constant weight a linear layer, with two values that depend on the input a product.

        Source:
            Achtibat et al. 2024, Proposition 3.3: the factors share equally, within a factor in proportion.
        """
        if len(call.values) > 1:
            return self._ruled(call, partial(in_proportion, parts=len(call.values)))
        others = [one for one in tensors_in((call.args, list(call.kwargs.values()))) if not one.requires_grad]
        if len(others) != 1 or self.is_derived(others[0]):
            return self._ruled(call, in_proportion)
        return self._layer(call.name, _with_weight(call), call.values[0], others[0], None)

    def _added_product(self, call: Call) -> Any:
        """bias + a · b."""
        added, a, b = (call.argument(i, name) for i, name in enumerate(("input", "mat1", "mat2")))
        beta, alpha = call.kwargs.get("beta", 1), call.kwargs.get("alpha", 1)
        if call.name == "addmm" and (beta, alpha) == (1, 1) and not (added.requires_grad or b.requires_grad):

            def apply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
                product = x @ weight
                return product if bias is None else product + bias

            return self._layer("linear", apply, a, b, added)
        return self.made_of(_ADDED[call.name], *call.args, **call.kwargs)

    def _linear(self, call: Call) -> Any:
        rest, kwargs = call.args[3:], dict(call.kwargs)
        names = ("input", "weight", "bias")
        x, weight, bias = (call.argument(place, name) for place, name in enumerate(names))
        for name in names:
            kwargs.pop(name, None)
        if any(isinstance(one, Tensor) and one.requires_grad for one in (weight, bias)):
            if bias is None and x.requires_grad:
                return self._ruled(call, partial(in_proportion, parts=2))
            raise self.refuse(call.name, "its weight depends on the input: LRP has no rule for it.")

        def apply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Any:
            return call.function(x, weight, bias, *rest, **kwargs)

        return self._layer(call.name, apply, x, weight, bias)

    def _layer(self, name: str, apply: Function, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        rule = self.rule(self.linear_layers, name)
        self.linear_layers += 1
        output = self._with_rule(rule, apply, x, weight, bias)
        self.linear_calls[id(output)] = (name, rule, apply, x, weight, bias)
        return output

    def _with_rule(self, rule: LayerRule, apply: Function, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not isinstance(rule, EpsilonRule):
            return self._with_zennit(rule, apply, x, weight, bias)
        fixed = weight.detach(), None if bias is None else bias.detach()
        return rule.apply(lambda value: apply(value, *fixed), x)

    def _with_zennit(self, rule: Hook, apply: Function, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        layer, hook = _Layer(apply, weight, bias), rule.copy()
        hook.register(layer)

        def release() -> None:
            hook.remove()
            layer.function = None

        self.kept.append(release)
        layer.first = isinstance(hook, BasicHook)  # which computes relevance by calling the layer again
        try:
            output: Tensor = layer(x)
            return output
        finally:
            layer.first = False

    def _batch_norm(self, call: Call) -> Any:
        """Merged into the convolution or linear layer before it; else a linear function of its own."""
        names = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
        x, mean, variance, weight, bias, training, _, eps = (
            call.argument(place, name, {"training": False, "eps": 1e-5}.get(name)) for place, name in enumerate(names)
        )
        if training or mean is None or variance is None:
            raise self.refuse("batch_norm", "it has no running statistics, so that maps would depend on the batch.")
        scale = (variance + eps).rsqrt() * (1 if weight is None else weight)
        shift = (0 if bias is None else bias) - mean * scale
        before = self.linear_calls.get(id(x))
        if before is None or not before[0].startswith(("conv", "linear")) or "transpose" in before[0]:
            shape = (-1, *[1] * (x.ndim - 2))
            return _Ruled.apply(lambda y: y * scale.view(shape) + shift.view(shape), in_proportion, x)
        _name, rule, apply, x, linear_weight, linear_bias = before
        merged = linear_weight * scale.view(-1, *[1] * (linear_weight.ndim - 1))
        shifted = shift if linear_bias is None else shift + linear_bias * scale
        return self._with_rule(rule, apply, x, merged, shifted)

    def _composed(self, call: Call) -> Any:
        return self.made_of(_COMPOSED[call.name], *call.args, **call.kwargs)

    def _ruled(self, call: Call, rule: Rule, same_shape: bool = False) -> Any:
        result = _Ruled.apply(call.at, rule, *call.values)
        if same_shape and result.shape != call.values[0].shape:
            was, now = tuple(call.values[0].shape), tuple(result.shape)
            raise self.refuse(call.name, f"it turns {was} into {now}: LRP has no rule for it.")
        return result


def _with_weight(call: Call) -> Function:
    """A matrix product as a function of its value and its weight."""

    def apply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Any:
        def put(one: Any) -> Any:
            if isinstance(one, (tuple, list)):
                return type(one)(put(inner) for inner in one)
            return (x if one.requires_grad else weight) if isinstance(one, Tensor) else one

        return call.function(*put(call.args), **{key: put(one) for key, one in call.kwargs.items()})

    return apply


def _affine(y: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def _centred_over_spread(x: Tensor, dims: list[int], eps: float) -> Tensor:
    centred: Tensor = x - x.mean(dims, keepdim=True)
    return centred * (centred.detach().square().mean(dims, keepdim=True) + eps).rsqrt()


def _layer_norm(
    shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: Any,
    input: Tensor,
    **__: Any,
) -> Tensor:
    """Layer norm whose spread has no gradient."""
    return _affine(_centred_over_spread(input, list(range(-len(shape), 0)), eps), weight, bias)


def _group_norm(
    groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: Any,
    input: Tensor,
    **__: Any,
) -> Tensor:
    """Group norm whose spread has no gradient."""
    y = _centred_over_spread(input.reshape(len(input), groups, -1), [2], eps).reshape(input.shape)
    shape = (-1, *[1] * (input.ndim - 2))
    return _affine(y, *(None if one is None else one.view(shape) for one in (weight, bias)))


def _rms_norm(shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None, *, input: Tensor) -> Tensor:
    """RMS norm whose root mean square has no gradient."""
    eps = torch.finfo(input.dtype).eps if eps is None else eps
    square = input.detach().square().mean(list(range(-len(shape), 0)), keepdim=True)
    return _affine(input * (square + eps).rsqrt(), weight, None)


def _glu(input: Tensor, dim: int = -1) -> Tensor:
    a, b = input.chunk(2, dim)
    return a * b.sigmoid()


def _addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
    return input + tensor1 * tensor2 * value


def _lerp(input: Tensor, end: Tensor, weight: Any) -> Tensor:
    result: Tensor = input * (1 - weight) + end * weight
    return result


def _added(product: Function) -> Function:
    def added(input: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
        result: Tensor = alpha * product(a, b)
        return result if beta == 0 else result + beta * input

    return added


_COMPOSED: dict[str, Function] = {"glu": _glu, "addcmul": _addcmul, "lerp": _lerp}
_ADDED: dict[str, Function] = {
    "addmm": _added(torch.mm),
    "addmv": _added(torch.mv),
    "baddbmm": _added(torch.bmm),
}

HANDLERS: dict[str, Callable[[LrpFollower, Call], Any]] = {
    **dict.fromkeys(LINEAR, LrpFollower._linear),
    **dict.fromkeys(MOVES | MAX_POOLS | CHOICES, LrpFollower._moved),
    **dict.fromkeys(ACTIVATIONS | SIGNS | {"normalize"}, LrpFollower._activation),
    **dict.fromkeys(AVERAGES | SUMS, LrpFollower._sum),
    **dict.fromkeys(PRODUCTS, LrpFollower._product),
    **dict.fromkeys(QUOTIENTS, LrpFollower._quotient),
    **dict.fromkeys(NORMS, LrpFollower._norm),
    **dict.fromkeys(STATISTICS, LrpFollower._statistic),
    **dict.fromkeys(MATRIX_PRODUCTS, LrpFollower._matrix_product),
    **dict.fromkeys(_COMPOSED, LrpFollower._composed),
    **dict.fromkeys(_ADDED, LrpFollower._added_product),
    "softmax": LrpFollower._softmax,
    "batch_norm": LrpFollower._batch_norm,
}
