"""Signals sent back through nonlinear functions of one value: rules for ReLU, and the rescale rule of DeepLift."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

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
    SUMS,
    Call,
    Follower,
    Function,
    tensors_in,
)

ADDED_PRODUCTS = {"addmm", "addmv", "baddbmm", "addcmul"}
# Move values, unless a mask decides which.
MASKED = {"getitem", "setitem", "where", "masked_fill"}


class NonlinearFollower(Follower):
    """Runs linear functions as they are; subclasses say in `nonlinear` what becomes of the others."""

    unfused = False

    def run(self, call: Call) -> Any:
        """See `Follower`."""
        if self._is_linear(call):
            return call.run()
        return self.nonlinear(call)

    def nonlinear(self, call: Call) -> Any:
        """The value of a function that is not linear in the values that depend on the input."""
        raise NotImplementedError

    def without_gradient(self, call: Call, why: str) -> Any:
        """The value of a function that gives masks or counts.

        Raises:
            MethodError: its value depends on the input, smoothly or through what it writes.
        """
        if call.name == "setitem":
            raise self.refuse(call.name, why)
        result = call.run()
        if any(one.requires_grad for one in tensors_in((result,))):
            raise self.refuse(call.name, why)
        return result

    def _is_linear(self, call: Call) -> bool:
        others = [one for one in tensors_in((call.args, list(call.kwargs.values()))) if not one.requires_grad]
        derived = any(self.is_derived(one) for one in others)
        if call.name in MASKED:
            return not derived
        if call.name in AVERAGES | MOVES | SUMS | SIGNS | {"batch_norm"}:
            return True
        if call.name in LINEAR | PRODUCTS | MATRIX_PRODUCTS | ADDED_PRODUCTS:
            return len(call.values) == 1 and not derived
        if call.name in QUOTIENTS:
            first = call.argument(0, "input")
            alone = len(call.values) == 1 and isinstance(first, Tensor) and first.requires_grad
            return alone and not derived and call.kwargs.get("rounding_mode") is None
        return False


class ReluFollower(NonlinearFollower):
    """Replaces the gradient of ReLU (deconvolution, guided backpropagation) and refuses every other activation.

    Args:
        module: the network.
        guided: also pass the signal only where the ReLU passed its value.
    Attributes:
        rectified: how many ReLUs were met.
        pooled: the output of the last pooling that leaves more than one position.
    """

    def __init__(self, module: nn.Module, guided: bool) -> None:
        super().__init__(module)
        self.guided = guided
        self.rectified = 0
        self.pooled: Tensor | None = None

    def run(self, call: Call) -> Any:
        """See `Follower`."""
        result = super().run(call)
        if "_pool2d" in call.name:
            output = tensors_in((result,))[0]
            if output.shape[-1] * output.shape[-2] > 1:
                self.pooled = output
        return result

    def nonlinear(self, call: Call) -> Any:
        """See `NonlinearFollower`."""
        if _is_relu(call):
            self.rectified += 1
            return _Rectified.apply(call.values[0], self.guided)
        if call.name in MAX_POOLS | NORMS or (call.name in ("max", "min") and not _is_of_two(call)):
            return call.run()
        return self.without_gradient(
            call, "the method is defined for ReLU only; on other activations it would be the gradient."
        )


def _is_of_two(call: Call) -> bool:
    return len(tensors_in((call.args, list(call.kwargs.values())))) > 1


def _is_relu(call: Call) -> bool:
    """Whether the call is max(x, 0), under any of its names, or with a mask that the network computes from x."""
    if call.name == "relu":
        return True
    if call.name == "threshold":
        at = [*call.args[1:], call.kwargs.get("threshold"), call.kwargs.get("value")]
        return [value for value in at if value is not None and not isinstance(value, bool)] == [0, 0]
    if call.name in ("clamp", "clip", "clamp_min"):
        low, high = call.argument(1, "min"), call.argument(2, "max")
        return high is None and not isinstance(low, Tensor) and low == 0
    if call.name in PRODUCTS | {"where", "masked_fill", "maximum", "max", "fmax"} and len(call.values) == 1:
        x = call.values[0]
        result = call.at(x)
        return isinstance(result, Tensor) and torch.equal(result, x.clamp(min=0))
    return False


class _Rectified(torch.autograd.Function):
    """max(x, 0), whose signal is rectified on its way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, guided: bool) -> Tensor:
        ctx.guided = guided
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        signal = signal.clamp(min=0)
        return (torch.where(x > 0, signal, 0) if ctx.guided else signal), None


class RescaleFollower(NonlinearFollower):
    """DeepLift's rescale rule on a batch of images followed by their references."""

    def nonlinear(self, call: Call) -> Any:
        """See `NonlinearFollower`."""
        pooling = call.name in MAX_POOLS
        masked = call.name in PRODUCTS | CHOICES - {"max", "min"} or (call.name in ("max", "min") and _is_of_two(call))
        if (pooling or masked or call.name in ACTIVATIONS) and len(call.values) == 1:
            result = _Rescale.apply(call.values[0], call.at, pooling)
            if pooling or result.shape == call.values[0].shape:
                return result
        return self.without_gradient(
            call, "the rescale rule covers linear functions, activations and max pooling, and nothing else."
        )


class _Rescale(torch.autograd.Function):
    """A nonlinear function whose slope is Δy / Δx between an image and its reference, or the gradient where Δx ≈ 0.

    The first half of the batch are the images, the second half their references.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Function, pooling: bool) -> Tensor:
        ctx.save_for_backward(x)
        ctx.function, ctx.pooling = function, pooling
        result: Tensor = function(x.clone())
        return result

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            y = ctx.function(x)

        def back(s: Tensor) -> Tensor:
            slope: Tensor = torch.autograd.grad(y, x, s, retain_graph=True)[0]
            return slope

        dx, dy = _difference(x.detach()), _difference(y.detach())
        if ctx.pooling:
            # What either winner adds to the change goes to its own position.
            image, reference = y.detach().chunk(2)
            most = torch.maximum(image, reference)
            shares = back(signal * torch.cat([most - reference, image - most]))
            change = torch.add(*shares.chunk(2)).repeat(2, *[1] * (x.ndim - 1))
        else:
            change = signal * dy
        near = dx.abs() < 1e-10
        return torch.where(near, back(signal), change / torch.where(near, 1.0, dx)), None, None


def _difference(both: Tensor) -> Tensor:
    image, reference = both.chunk(2)
    return (image - reference).repeat(2, *[1] * (both.ndim - 1))
