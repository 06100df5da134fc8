"""Gradients of the class logit and signals sent back instead of them."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from faithmap.attribution.batch import NORMS, Batch, attributable, differentiate, import_captum
from faithmap.attribution.features import FeatureFollower
from faithmap.attribution.method import heatmap_method
from faithmap.attribution.rectifying import ReluFollower, RescaleFollower
from faithmap.classifiers.patches import all_passes
from faithmap.declarations import Parameter, choice, integer, number
from faithmap.errors import HeatmapError, MethodError
from faithmap.randomness import generator

# Images that a method which evaluates many variants of one image runs together.
VARIANTS = 8
NORM = Parameter("l2", choice("l2", "linf"))
REFERENCE = Parameter("zero", choice("zero", "black"))
# Of the largest logit: what rounding in a network adds up to.
ROUNDING = {torch.float32: 1e-4, torch.float64: 1e-10}


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
def gradient_x_input(batch: Batch) -> Float[Tensor, "batch channels height width"]:
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
        return _through_relus(batch, ReluFollower(batch.classifier.module, guided=False), start)

    return NORMS[norm](batch.shared(("deconvolution", start), signal))


@heatmap_method(
    "guided-backpropagation",
    line="gradient that passes only positive values through ReLUs; norm over channels",
    source="Springenberg et al. 2015",
    parameters={"norm": NORM},
    first_shown=True,
)
def guided_backpropagation(batch: Batch, *, norm: str) -> Float[Tensor, "batch height width"]:
    """Norm of the gradient, with only positive values passed through every ReLU."""

    def signal() -> Tensor:
        return _through_relus(batch, ReluFollower(batch.classifier.module, guided=True), "logit")

    return NORMS[norm](batch.shared("guided-backpropagation", signal))


def _through_relus(batch: Batch, follower: ReluFollower, start: str) -> Tensor:
    with attributable(batch.classifier.module):
        inputs = batch.inputs.clone().requires_grad_()
        scores = batch.scores(follower.logits(batch, inputs))
        if follower.rectified == 0:
            raise MethodError("the network has no ReLU, and without one the method is the gradient itself.")
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
def integrated_gradients(batch: Batch, *, n: int, reference: str) -> Float[Tensor, "batch channels height width"]:
    """(x − x₀) · mean gradient on the line from the reference x₀ to x, by captum (Gauss-Legendre, n points)."""
    captum = import_captum()
    with attributable(batch.classifier.module):
        found: Tensor = captum.IntegratedGradients(batch.variant_scores).attribute(
            batch.inputs.clone(),
            baselines=batch.reference(reference),
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
        sigma: standard deviation of the noise, as a fraction of the input's range.
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


@heatmap_method(
    "grad-cam",
    line="last feature maps weighted by their mean gradients, enlarged",
    source="Selvaraju et al. 2017",
)
def grad_cam(batch: Batch) -> Float[Tensor, "batch height width"]:
    """ReLU of the last feature maps, each weighted by its mean gradient, enlarged (bilinear) to the input's size.

    The last feature maps are the last value with the positions of the last convolution (or of the last linear layer on
    positions), channels first, channels last or as tokens, through which alone the logit depends on the image.
    """
    follower = FeatureFollower(batch.classifier.module)
    with attributable(batch.classifier.module):
        scores = batch.scores(follower.logits(batch, batch.inputs.clone().requires_grad_()))
        features, gradient = _last_features(follower, scores)
    weighted = features * gradient.mean((2, 3), keepdim=True)
    size = list(batch.inputs.shape[-2:])
    return F.interpolate(weighted.sum(1, keepdim=True).relu(), size, mode="bilinear", align_corners=False).squeeze(1)


def _last_features(follower: FeatureFollower, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Feature maps (B, C, rows, columns), and their gradients."""
    there, last = False, None
    for value, layout in reversed(follower.seen):
        if layout.grid != follower.grid:
            continue
        there = True
        if not all_passes(scores, value):
            continue
        gradient = layout.maps(differentiate(scores.sum(), value, retain_graph=True))
        last = last or (layout.maps(value.detach()), gradient)
        if gradient.any():  # else only a class token matters from here on
            return layout.maps(value.detach()), gradient
    if last is not None:
        return last
    if there:
        raise MethodError("the class does not depend on the image through one value with positions alone.")
    raise MethodError("the network has no convolution over positions, whose feature maps it needs.")


@heatmap_method(
    "deeplift",
    line="contributions to the change from a reference, rescale rule",
    source="Shrikumar et al. 2017",
    parameters={"reference": REFERENCE},
)
def deeplift(batch: Batch, *, reference: str) -> Float[Tensor, "batch channels height width"]:
    """(x − x₀) times the multipliers of the rescale rule, with respect to the reference x₀.

    Raises:
        MethodError: a network that multiplies values, normalises them, or does what else the rule does not cover.
        HeatmapError: contributions that do not sum to the change of the logit, as they must; `index` says of which
            image.
    """
    x, zero = batch.inputs, batch.reference(reference)
    with attributable(batch.classifier.module):
        both = torch.cat([x, zero]).requires_grad_()
        logits = RescaleFollower(batch.classifier.module).logits(batch, both)
        images, references = (batch.scores(half) for half in logits.chunk(2))
        multipliers = differentiate((images + references).sum(), both)[: len(x)]
    found = (x - zero) * multipliers
    change = (images - references).detach()
    missing = (found.sum((1, 2, 3)) - change).abs()
    # Beyond rounding, of which a difference of logits has as much as the logits.
    rounding = ROUNDING[logits.dtype] * torch.maximum(*logits.detach().abs().amax(1).chunk(2))
    for row in (missing > 0.02 * change.abs() + rounding).nonzero().flatten().tolist():
        raise HeatmapError(
            f"contributions sum to {float(found[row].sum()):.3g}, the change of the logit is {float(change[row]):.3g}.",
            row,
        )
    return found
