"""Random numbers keyed by what they belong to, never by when they are drawn."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


def generator(*key: object) -> np.random.Generator:
    """Random numbers that depend on what they belong to and on nothing else.

    Args:
        key: what the numbers belong to, such as ``("fill", seed, image_id, draw)``; compared by their `repr`.
    """
    digest = hashlib.sha256(repr(key).encode("utf-8", "surrogatepass")).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


def random_heatmap(size: Sequence[int], *, seed: int, image_id: str, draw: int) -> Float[Tensor, "height width"]:
    """A random order of the pixels as a heatmap without ties, on the CPU."""
    height, width = size
    order = generator("order", seed, image_id, draw).permutation(height * width)
    return torch.from_numpy(order).reshape(height, width).float() / (height * width)
