"""The image at step k, for every fill that is drawn beforehand."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from faithmap.checks import LARGEST_STEP, as_fill, as_floats, as_integer, as_removal_steps
from faithmap.errors import InputError
from faithmap.images import PixelSource
from faithmap.modes import in_own_modes
from faithmap.perturbation.fills import draw_fill
from faithmap.perturbation.regions import removal_steps
from faithmap.perturbation.segments import segment
from faithmap.protocol import Order, Placement, Protocol
from faithmap.randomness import random_heatmap


@in_own_modes
def perturb(
    pixels: Float[Tensor, "*batch channels height width"],
    removal_step: Int[Tensor, "*batch height width"],
    fill: Float[Tensor, "*batch channels height width"],
    step: int,
) -> Float[Tensor, "*batch channels height width"]:
    """x⁽ᵏ⁾: the image with every region up to step k replaced.

    Args:
        pixels: x⁽⁰⁾, in pixel space.
        removal_step: the step at which a pixel is replaced, 1…L; 0 for never.
        fill: replacement values, in pixel space.
        step: k; 0 gives the untouched image.
    Raises:
        InputError: images, steps and fill that do not belong together.
    Source:
        Samek et al. 2017, x⁽ᵏ⁾ = g(x⁽ᵏ⁻¹⁾, r_k), in closed form.
    """
    images = as_floats(pixels, "pixels")
    if images.ndim < 3:
        raise InputError(f"pixels has shape {tuple(images.shape)}, expected (C, H, W) or (B, C, H, W).")
    steps, k = as_removal_steps(removal_step, images), as_integer(step, "step", 0, LARGEST_STEP)
    return torch.where(((steps > 0) & (steps <= k)).unsqueeze(-3), as_fill(fill, images), images)


@in_own_modes
def chain_removal_step(
    protocol: Protocol,
    heatmap: Float[Tensor, "height width"] | None,
    pixels: Float[Tensor, "channels height width"],
    *,
    image_id: str,
    order: Order | str,
    draw: int,
    segments: Int[Tensor, "height width"] | None = None,
) -> Int[Tensor, "height width"]:
    """The step at which each pixel of one image is removed under a protocol, 0 for never.

    Args:
        heatmap: None for a random order, drawn from the protocol's seed, the image's id and the draw.
        pixels: the untouched image.
        segments: of this image, where they are known already.
    """
    if heatmap is None:
        size = (int(pixels.shape[-2]), int(pixels.shape[-1]))
        heatmap = random_heatmap(size, seed=protocol.seed, image_id=image_id, draw=draw)
    if segments is None and protocol.placement is Placement.SEGMENT:
        segments = segment(protocol.segments, pixels, image_id)
    maps = None if segments is None else segments.to(heatmap.device).unsqueeze(0)
    return removal_steps(heatmap.unsqueeze(0), protocol, order, maps)[0]


@in_own_modes
def chain_fill(
    protocol: Protocol,
    pixels: Float[Tensor, "channels height width"],
    *,
    image_id: str,
    draw: int,
    method: str | None,
    others: PixelSource | None = None,
) -> Float[Tensor, "channels height width"]:
    """What replaces the regions of one image under a protocol: shared by all methods, or one for each.

    Args:
        method: whose chain it is; it matters only where fills are not paired.
        others: the image set, for fills that take pixels of another image.
    """
    own = None if protocol.paired_fill else method
    return draw_fill(protocol.fill, pixels, seed=protocol.seed, image_id=image_id, draw=draw, method=own, others=others)
