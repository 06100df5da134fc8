"""The image at step k, for every fill that is drawn beforehand."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def perturb(
    pixels: Float[Tensor, "*batch 3 height width"],
    removal_step: Int[Tensor, "*batch height width"],
    fill: Float[Tensor, "*batch 3 height width"],
    step: int,
) -> Float[Tensor, "*batch 3 height width"]:
    """x⁽ᵏ⁾: the image with every region up to step k replaced.

    Args:
        pixels: x⁽⁰⁾, in pixel space.
        removal_step: the step at which a pixel is replaced, 1…L; 0 for never.
        fill: replacement values, in pixel space.
        step: k; 0 gives the untouched image.
    Source:
        Samek et al. 2017, x⁽ᵏ⁾ = g(x⁽ᵏ⁻¹⁾, r_k), in closed form.
    """
    removed = (removal_step > 0) & (removal_step <= step)
    return torch.where(removed.unsqueeze(-3), fill, pixels)
