"""What regions are replaced with (`draw_fill`), and the image at step k (`perturb`).

A fill is drawn once per (seed, image, draw) for every pixel and channel and kept over all steps, so that x⁽ᵏ⁾ and
x⁽ᵏ⁻¹⁾ differ in one region only, and all methods are compared on the same noise.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from faithmap.classifiers import IMAGENET_MEAN, IMAGENET_STD
from faithmap.errors import ProtocolError, nearest

FILLS = {
    "uniform": "every pixel and channel its own draw, uniform over the pixel range [0, 1] (Samek et al. 2017)",
    "uniform-grey": "uniform in ±0.5 after ImageNet normalisation, a low-contrast grey (the 2021 replication)",
}


def generator(*key: object) -> np.random.Generator:
    """Random numbers that depend on what they belong to and on nothing else.

    Args:
        key: what the numbers belong to, such as ``("fill", seed, image_id, draw)``; compared by their `repr`.
    """
    digest = hashlib.sha256(repr(key).encode("utf-8", "surrogatepass")).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


def check_fill(name: str) -> None:
    """Raise a `ProtocolError` for a fill that is not in `FILLS`."""
    if name not in FILLS:
        raise ProtocolError(f"unknown fill '{name}'{nearest(name, FILLS)} Known: {', '.join(FILLS)}.")


def draw_fill(
    fill: str,
    pixels: Float[Tensor, "3 height width"],
    *,
    seed: int,
    image_id: str,
    draw: int,
    method: str | None = None,
) -> Float[Tensor, "3 height width"]:
    """Replacement values for one image and one draw, in pixel space, on the CPU.

    Args:
        fill: a name in `FILLS`.
        pixels: the untouched image, in [0, 1].
        seed, image_id, draw: the key of the randomness.
        method: None shares the fill among all methods; a name draws one for that method alone.
    Raises:
        ProtocolError: an unknown fill.
    """
    check_fill(fill)
    key = ("fill", seed, image_id, draw) if method is None else ("fill", seed, image_id, draw, method)
    uniform = torch.from_numpy(generator(*key).random(tuple(pixels.shape), dtype=np.float32))
    if fill == "uniform":
        return uniform
    mean = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD).view(3, 1, 1)
    return mean + (uniform - 0.5) * std


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
