"""Gradients of the class logit and signals sent back instead of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from zennit.rules import ReLUDeconvNet, ReLUGuidedBackprop

from faithmap.attribution.batch import NORMS, Batch, attributable, differentiate, import_captum
from faithmap.attribution.following import ACTIVATIONS, LINEAR, Follower, Function, ReluFollower
from faithmap.attribution.method import heatmap_method
from faithmap.declarations import Parameter, choice, integer, number
from faithmap.errors import MethodError
from faithmap.randomness import generator

# Images that a method which evaluates many variants of one image runs together.
VARIANTS = 8
NORM = Parameter("l2", choice("l2", "linf"))
REFERENCE = Parameter("zero", choice("zero", "black"))


@heatmap_method(
    "sensitivity",
    line="gradient of the class logit; norm over channels",
    source="Simonyan et al. 2014",
    parameters={"norm": NORM},
    first_shown=True,
)
def sensitivity(batch: Batch, *, norm: str) -> Float[Tensor, "batch height width"]:
    """Norm over the channels of the gradient of the class logit."""
    return NORMS[norm](batch.gradient())


@heatmap_method(
    "gradient-x-input",
    line="gradient of the class logit times the input",
    source="Shrikumar et al. 2016",
)
def gradient_x_input(batch: Batch) -> Float[Tensor, "batch 3 height width"]:
    """Gradient of the class logit times the normalised input."""
    return batch.inputs * batch.gradient()


@heatmap_method(
    "deconvolution",
    line="signal sent back through ReLUs that act on the signal; norm over channels",
    source="Zeiler & Fergus 2014",
    parameters={"norm": NORM, "start": Parameter("logit", choice("logit", "features"))},
    first_shown=True,
)
def deconvolution(batch: Batch, *, norm: str, start: str) -> Float[Tensor, "batch height width"]:
    """Norm of the signal sent back with ReLU applied to it instead of the ReLU's gradient.

    Args:
        batch: images and classes.
        norm: over the channels, ``"l2"`` or ``"linf"``.
        start: ``"logit"`` starts at the class logit; ``"features"`` at all activations of the last pooling that leaves
            more than one position, whatever the class (the 2021 replication).
    """

    def signal() -> Tensor:
        return _through_relus(batch, ReluFollower(batch.classifier.module, ReLUDeconvNet), start)

    return NORMS[norm](batch.shared(("deconvolution", start), signal))


@heatmap_method(
    "guided-backpropagation",
    line="gradient of which ReLUs pass positive values only; norm over channels",
    source="Springenberg et al. 2015",
    parameters={"norm": NORM},
    first_shown=True,
)
def guided_backpropagation(batch: Batch, *, norm: str) -> Float[Tensor, "batch height width"]:
    """Norm of the gradient, of which every ReLU passes positive values only."""

    def signal() -> Tensor:
        return _through_relus(batch, ReluFollower(batch.classifier.module, ReLUGuidedBackprop), "logit")

    return NORMS[norm](batch.shared("guided-backpropagation", signal))


def _through_relus(batch: Batch, follower: ReluFollower, start: str) -> Tensor:
    with attributable(batch.classifier.module):
        inputs = batch.inputs.clone().requires_grad_()
        scores = batch.scores(follower.logits(batch, inputs))
        if follower.rectified == 0:
            raise MethodError("the network has no ReLU, where alone the method differs from the gradient.")
        if start == "logit":
            return differentiate(scores.sum(), inputs)
        if follower.pooled is None:
            raise MethodError("start=features needs a pooling that leaves more than one position; there is none.")
        return differentiate(follower.pooled, inputs, follower.pooled.detach())


@heatmap_method(
    "integrated-gradients",
    line="gradient averaged on the line from a reference to the input, times their difference",
    source="Sundararajan et al. 2017",
    parameters={"n": Parameter(50, integer(low=1)), "reference": REFERENCE},
    batching="single",
)
def integrated_gradients(batch: Batch, *, n: int, reference: str) -> Float[Tensor, "batch 3 height width"]:
    """(x − x₀) · mean gradient on the line from the reference x₀ to x, by captum (Gauss-Legendre, n points)."""
    captum = import_captum()
    with attributable(batch.classifier.module):
        found: Tensor = captum.IntegratedGradients(batch.checked_logits).attribute(
            batch.inputs.clone(),
            baselines=batch.reference(reference),
            target=batch.targets,
            n_steps=n,
            internal_batch_size=max(VARIANTS, len(batch.inputs)),
        )
    return found


@heatmap_method(
    "smoothgrad",
    line="gradient averaged over noisy copies of the input; norm over channels",
    source="Smilkov et al. 2017",
    parameters={"n": Parameter(25, integer(low=1)), "sigma": Parameter(0.15, number(low=0.0)), "norm": NORM},
    batching="single",
)
def smoothgrad(batch: Batch, *, n: int, sigma: float, norm: str) -> Float[Tensor, "batch height width"]:
    """Norm of the mean gradient over n noisy copies of the input.

    Args:
        batch: images and classes.
        n: copies.
        sigma: standard deviation of the noise, as a share of the input's range.
        norm: over the channels.
    """
    spread = sigma * (batch.inputs.amax((1, 2, 3), keepdim=True) - batch.inputs.amin((1, 2, 3), keepdim=True))
    draws = [generator("smoothgrad", batch.seed, name) for name in batch.image_ids]
    shape = tuple(batch.inputs.shape[1:])
    total = torch.zeros_like(batch.inputs)
    for start in range(0, n, VARIANTS):
        count = min(VARIANTS, n - start)
        noise = torch.from_numpy(np.stack([draw.standard_normal((count, *shape)) for draw in draws])).to(batch.inputs)
        noisy = batch.inputs.unsqueeze(1) + spread.unsqueeze(1) * noise
        total += batch.repeated(count).gradient(noisy.flatten(0, 1)).reshape(noisy.shape).sum(1)
    return NORMS[norm](total / n)


class _FeatureFollower(Follower):
    """Finds the last value after the last convolution that still has that convolution's positions."""

    def __init__(self, batch: Batch) -> None:
        super().__init__(batch.classifier.module)
        self.size: torch.Size | None = None
        self.features: Tensor | None = None

    def run(self, name: str, function: Function, args: Any, kwargs: Any) -> Any:
        """See `Follower`."""
        if name in ("scaled_dot_product_attention", "multi_head_attention_forward"):
            raise self.refuse(name, "the method is defined for convolutional networks, not for attention.")
        result = function(*args, **kwargs)
        if not isinstance(result, Tensor) or result.ndim != 4:
            return result
        if name in LINEAR and result.shape[-1] * result.shape[-2] > 1:
            self.size = result.shape[-2:]
        if result.shape[-2:] == self.size:
            self.features = result
        return result


@heatmap_method(
    "grad-cam",
    line="last feature maps weighted by their mean gradients, enlarged",
    source="Selvaraju et al. 2017",
)
def grad_cam(batch: Batch) -> Float[Tensor, "batch height width"]:
    """ReLU of the last feature maps, each weighted by its mean gradient, enlarged (bilinear) to the input's size."""
    follower = _FeatureFollower(batch)
    with attributable(batch.classifier.module):
        scores = batch.scores(follower.logits(batch, batch.inputs.clone().requires_grad_()))
        if follower.features is None:
            raise MethodError("the network has no convolution over positions, whose feature maps it needs.")
        gradient = differentiate(scores.sum(), follower.features)
    weighted = follower.features.detach() * gradient.mean((2, 3), keepdim=True)
    size = list(batch.inputs.shape[-2:])
    return F.interpolate(weighted.sum(1, keepdim=True).relu(), size, mode="bilinear", align_corners=False).squeeze(1)


class _Rescale(torch.autograd.Function):
    """A nonlinear function whose slope is Δy / Δx between an image and its reference, or the gradient where Δx ≈ 0.

    The first half of the batch are the images, the second half their references.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Function, pooling: bool) -> Tensor:
        ctx.save_for_backward(x)
        ctx.function, ctx.pooling = function, pooling
        result: Tensor = function(x)
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


class _DeepLiftFollower(Follower):
    def run(self, name: str, function: Function, args: Any, kwargs: Any) -> Any:
        """See `Follower`."""
        pooling = name.startswith(("max_pool", "adaptive_max_pool"))
        if name not in ACTIVATIONS and not pooling:
            return function(*args, **kwargs)
        kwargs = {key: value for key, value in kwargs.items() if key != "inplace"}
        x, rest = (args[0], args[1:]) if args else (kwargs.pop("input"), ())
        return _Rescale.apply(x, lambda y: function(y.clone(), *rest, **kwargs), pooling)


@heatmap_method(
    "deeplift",
    line="contributions to the change from a reference, rescale rule",
    source="Shrikumar et al. 2017",
    parameters={"reference": REFERENCE},
)
def deeplift(batch: Batch, *, reference: str) -> Float[Tensor, "batch 3 height width"]:
    """(x − x₀) times the multipliers of the rescale rule, with respect to the reference x₀.

    Raises:
        MethodError: a network on which the contributions do not sum to the change of the logit, as they must.
    """
    x, zero = batch.inputs, batch.reference(reference)
    with attributable(batch.classifier.module):
        both = torch.cat([x, zero]).requires_grad_()
        logits = _DeepLiftFollower(batch.classifier.module).logits(batch, both)
        images, references = (batch.scores(half) for half in logits.chunk(2))
        multipliers = differentiate((images + references).sum(), both)[: len(x)]
    found = (x - zero) * multipliers
    missing = (found.sum((1, 2, 3)) - (images - references).detach()).abs()
    if (missing > 0.02 * logits.detach().abs().amax()).any():
        raise MethodError(
            f"contributions miss the change of the logit by {float(missing.max()):.3g}: the network multiplies or "
            "divides values that depend on the input, which the rescale rule does not cover."
        )
    return found
