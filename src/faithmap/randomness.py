"""Random numbers keyed by what they belong to, never by when they are drawn.

A generator is made from a key and used for one thing: the noise of one image and draw, one random order, the masks of
one image. No generator outlives that, and none is shared. So a number does not depend on how many numbers were drawn
before it: not on the batch, the worker, the order of the images, or whether the run was resumed or extended.

What must be the same is keyed the same, what must differ has it in its key. The fill has no method in its key: all
methods are compared on the same noise (`paired_fill=False` adds the method). A random order has no fill in its key:
the same orders serve every fill. The first part of a key says what the numbers are for, so that two uses of one seed,
image and draw are independent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from faithmap.foreign import plain_text


def generator(*key: object) -> np.random.Generator:
    """Random numbers that depend on what they belong to and on nothing else.

    Args:
        key: what the numbers belong to, such as ``("fill", seed, image_id, draw)``: strings and integers, compared by
            their `repr`; NumPy's strings and integers count as Python's. Changing the parts of a key, their order or
            their types changes every number.
    """
    # Hashed, because keys that are close (draw 0, draw 1) must give streams that have nothing in common. Python's own
    # `hash` of a string differs from process to process.
    digest = hashlib.sha256(repr(tuple(map(_plain, key))).encode("utf-8", "surrogatepass")).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


def _plain(part: object) -> object:
    if isinstance(part, str):
        return plain_text(part)
    return int(part) if isinstance(part, np.integer) else part


def random_heatmap(size: Sequence[int], *, seed: int, image_id: str, draw: int) -> Float[Tensor, "height width"]:
    """A random order of the pixels as a heatmap without ties, on the CPU."""
    height, width = size
    order = generator("order", seed, image_id, draw).permutation(height * width)
    return torch.from_numpy(order).reshape(height, width).float() / (height * width)
