"""Heatmap methods: (batch, parameters) → relevance (B, 3, H, W), summed over channels later, or a heatmap (B, H, W)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from zennit.core import Hook
from zennit.rules import Epsilon, ReLUDeconvNet

from faithmap.attribution.batch import NORMS, Batch, attributable, differentiate
from faithmap.attribution.following import LrpFollower, ReluFollower, stabilised
from faithmap.errors import HeatmapError, MethodError

# |Σ R| may exceed the largest logit by what biases absorb; beyond this factor it is rounding that was amplified.
EXPLODED = 1e4


def sensitivity(batch: Batch, *, norm: str) -> Float[Tensor, "batch height width"]:
    """Norm over the channels of the gradient of the class logit."""
    return NORMS[norm](batch.gradient())


def deconvolution(batch: Batch, *, norm: str, start: str) -> Float[Tensor, "batch height width"]:
    """Norm of the signal sent back with ReLU applied to it instead of the ReLU's gradient.

    Args:
        norm: over the channels, ``"l2"`` or ``"linf"``.
        start: ``"logit"`` starts at the class logit; ``"features"`` at all activations of the last pooling that leaves
            more than one position, whatever the class (the 2021 replication).
    """
    follower = ReluFollower(batch.classifier.module, ReLUDeconvNet)
    with attributable(batch.classifier.module):
        inputs = batch.inputs.clone().requires_grad_()
        scores = batch.scores(follower.logits(batch, inputs))
        if follower.rectified == 0:
            raise MethodError("the network has no ReLU, where alone the method differs from the gradient.")
        if start == "logit":
            signal = differentiate(scores.sum(), inputs)
        elif follower.pooled is None:
            raise MethodError("start=features needs a pooling that leaves more than one position; there is none.")
        else:
            signal = differentiate(follower.pooled, inputs, follower.pooled.detach())
    return NORMS[norm](signal)


def lrp_epsilon(batch: Batch, *, epsilon: float, start: str, border: str) -> Float[Tensor, "batch 3 height width"]:
    """LRP-ε: R_i = Σ_j z_ij / (z_j + ε sign z_j) R_j in convolutional and linear layers, biases part of z_j.

    Args:
        epsilon: ε ≥ 0; for 0, 0 / 0 counts as 0.
        start: ``"logit"`` starts at the value of the class logit, ``"one"`` at 1 (the 2021 replication).
        border: ``"dropped"`` sets the last row and column to 0 (the 2021 replication, whose first layer loses them).
    """
    rule = Epsilon(epsilon=stabilised(epsilon))
    relevance = lrp(batch, lambda number, name: rule, start)
    if border == "dropped":
        relevance[..., -1, :] = 0
        relevance[..., :, -1] = 0
    return relevance


def lrp(batch: Batch, rule: Callable[[int, str], Hook], start: str = "logit") -> Float[Tensor, "batch 3 height width"]:
    """Relevance at the inputs under a choice of rules.

    Raises:
        HeatmapError: a relevance sum that exploded; `index` says in which image.
        MethodError: a step of the network that LRP has no rule for.
    """
    follower = LrpFollower(batch.classifier.module, rule)
    with attributable(batch.classifier.module):
        inputs = batch.inputs.clone().requires_grad_()
        logits = follower.logits(batch, inputs)
        scores = batch.scores(logits)
        begin = scores.detach() if start == "logit" else torch.ones_like(scores)
        relevance = differentiate(scores, inputs, begin)
    total = relevance.double().sum((1, 2, 3)).abs()
    limit = EXPLODED * logits.detach().abs().amax(1) if start == "logit" else torch.full_like(total, EXPLODED)
    for row in (total > limit).nonzero().flatten().tolist():
        raise HeatmapError(
            f"the relevance sum exploded to {float(total[row]):.3g} for a logit of {float(scores[row]):.3g}.", row
        )
    return relevance
