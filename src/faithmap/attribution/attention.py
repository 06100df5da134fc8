"""Maps of attention weights: over which patches the tokens that the class is read from look."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from faithmap.attribution.batch import Batch, attributable
from faithmap.attribution.features import FeatureFollower, Layout
from faithmap.attribution.following import Call
from faithmap.attribution.method import heatmap_method
from faithmap.errors import MethodError


class AttentionFollower(FeatureFollower):
    """Collects the attention weights of every layer.

    Attributes:
        weights: per layer (B, heads, tokens, tokens), in order; rows sum to 1.
        patches: which tokens are patches of the image, and on which grid.
    """

    unfused = True

    def __init__(self, batch: Batch) -> None:
        super().__init__(batch.classifier.module)
        self.images = len(batch.inputs)
        self.weights: list[Tensor] = []
        self.patches: Layout | None = None

    def run(self, call: Call) -> Any:
        """See `Follower`."""
        result = super().run(call)
        if call.name == "softmax" and result.ndim > 2:
            self._collect(result)
        return result

    def _collect(self, weights: Tensor) -> None:
        queries, keys = weights.shape[-2:]
        if queries != keys:
            raise self.refuse("softmax", f"attention of {queries} tokens over {keys}: the method needs all over all.")
        if (
            weights.ndim not in (3, 4)
            or len(weights) % self.images
            or (weights.ndim == 4 and len(weights) != self.images)
        ):
            raise self.refuse("softmax", "attention within windows: no matrix over all tokens of an image exists.")
        patches = self._tokens(keys)
        if patches is None or (self.patches is not None and self.patches != patches):
            raise self.refuse("softmax", f"attention over {keys} values that are not the patches of one grid.")
        self.patches = patches
        self.weights.append(weights)

    def _tokens(self, tokens: int) -> Layout | None:
        """The layout of the last tokens that were seen, if there are as many."""
        for value, layout in reversed(self.seen):
            if len(layout.axes) == 1:
                there = value.shape[layout.axes[0]] == tokens
                return Layout((1,), layout.grid, layout.first) if there else None
        return None


def _attention(batch: Batch) -> tuple[list[Tensor], list[Tensor], Layout]:
    """Attention weights (B, heads, N, N) per layer, the class logit's gradients by them, and where the patches are."""
    follower = AttentionFollower(batch)
    with attributable(batch.classifier.module):
        scores = batch.scores(follower.logits(batch, batch.inputs.clone().requires_grad_()))
        if not follower.weights or follower.patches is None:
            raise MethodError("the network has no attention between the patches of the image.")
        found = torch.autograd.grad(scores.sum(), follower.weights, allow_unused=True)
        weights, patches = [one.detach() for one in follower.weights], follower.patches
    gradients = [torch.zeros_like(w) if g is None else g for w, g in zip(weights, found, strict=True)]
    size = (len(batch.inputs), -1, *weights[0].shape[-2:])
    return [one.reshape(size) for one in weights], [one.reshape(size) for one in gradients], patches


def _map(batch: Batch, between: Tensor, gradient: Tensor, patches: Layout) -> Tensor:
    """The rows of the tokens that the class is read from, on the grid of patches, every pixel with its patch's value.

    Args:
        batch: gives the size.
        between: from which token (columns) how much reached which (rows), (B, N, N).
        gradient: of the class logit by the last attention weights, (B, heads, N, N): its rows are zero for tokens that
            the class is not read from.
        patches: where the patches are among the tokens.
    """
    read = (gradient != 0).any(-1).any(1).to(between.dtype)
    row = torch.einsum("bi,bij->bj", read / read.sum(1, keepdim=True).clamp(min=1), between)
    grid = patches.maps(row.unsqueeze(2))
    return F.interpolate(grid, batch.inputs.shape[-2:], mode="nearest").squeeze(1)


@heatmap_method(
    "attention-rollout",
    line="attention weights of all layers multiplied, residual included; the same for every class",
    source="Abnar & Zuidema 2020",
)
def attention_rollout(batch: Batch) -> Float[Tensor, "batch height width"]:
    """∏ (½ mean over heads of A + ½ I) over the layers, at the row of the class token.

    Without a class token, the mean over the rows that the class is read from.
    """
    weights, gradients, patches = _attention(batch)
    identity = torch.eye(weights[0].shape[-1]).to(weights[0])
    between = identity.expand(len(batch.inputs), -1, -1)
    for layer in weights:
        between = (0.5 * layer.mean(1) + 0.5 * identity) @ between
    return _map(batch, between, gradients[-1], patches)


@heatmap_method(
    "attention-gradient",
    line="attention weights times their gradients, positive part, summed over the layers",
    source="Chefer et al. 2021, generic attention-model explainability",
)
def attention_gradient(batch: Batch) -> Float[Tensor, "batch height width"]:
    """R ← R + mean over heads of (∂logit/∂A ⊙ A)⁺ · R from R = I, at the row of the class token.

    Without a class token, the mean over the rows that the class is read from.
    """
    weights, gradients, patches = _attention(batch)
    between = torch.eye(weights[0].shape[-1]).to(weights[0]).expand(len(batch.inputs), -1, -1)
    for layer, gradient in zip(weights, gradients, strict=True):
        between = between + (gradient * layer).clamp(min=0).mean(1) @ between
    return _map(batch, between, gradients[-1], patches)
