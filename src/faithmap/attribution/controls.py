"""Heatmaps that know nothing of the network: a method that is no better than these explains nothing."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from faithmap.attribution.batch import Batch
from faithmap.attribution.method import heatmap_method
from faithmap.declarations import Parameter, number
from faithmap.protocol import RANDOM
from faithmap.randomness import random_heatmap

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


@heatmap_method(
    "brightness",
    line="control: brightness of the image",
    source="luma, ITU-R BT.601",
)
def brightness(batch: Batch) -> Float[Tensor, "batch height width"]:
    """Luma of the image; the mean over the channels where there are not three."""
    channels = batch.pixels.shape[1]
    shares = LUMA if channels == 3 else (1 / channels,) * channels
    weights = torch.tensor(shares, dtype=batch.pixels.dtype, device=batch.pixels.device)
    return torch.einsum("bchw,c->bhw", batch.pixels, weights)


@heatmap_method(
    "edge",
    line="control: Sobel edges of the image",
    source="Adebayo et al. 2018 (edge detector)",
)
def edge(batch: Batch) -> Float[Tensor, "batch height width"]:
    """Length of the Sobel gradient of the luma; the border is continued by its own values."""
    luma = F.pad(brightness(batch).unsqueeze(1), (1, 1, 1, 1), mode="replicate")
    across = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]).to(luma)
    kernels = torch.stack([across, across.T]).unsqueeze(1)
    return F.conv2d(luma, kernels).square().sum(1).sqrt()


@heatmap_method(
    "centre",
    line="control: a Gaussian at the centre of the image",
    source="Judd et al. 2009 (centre bias)",
    parameters={"sigma": Parameter(0.25, number(low=0.001))},
)
def centre(batch: Batch, *, sigma: float) -> Float[Tensor, "batch height width"]:
    """exp(−r² / 2σ²) with r the distance from the image's centre.

    Args:
        batch: images; only their size matters.
        sigma: σ, as a fraction of the short side.
    """
    count, _, height, width = batch.pixels.shape
    y = torch.arange(height, dtype=torch.float64) - (height - 1) / 2
    x = torch.arange(width, dtype=torch.float64) - (width - 1) / 2
    squared = y.square().unsqueeze(1) + x.square()
    gaussian = torch.exp(-squared / (2 * (sigma * min(height, width)) ** 2))
    return gaussian.to(batch.pixels).expand(count, -1, -1)


@heatmap_method(
    RANDOM,
    line="random order, drawn anew for each draw; the reference of every run",
    source="Samek et al. 2017",
)
def random(batch: Batch) -> Float[Tensor, "batch height width"]:
    """The order of draw 0; a run draws those of its other draws itself."""
    size = batch.pixels.shape[-2:]
    return torch.stack([random_heatmap(size, seed=batch.seed, image_id=name, draw=0) for name in batch.image_ids])
