"""How scores are rounded: float32 means float32, unless less is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

PRECISIONS = ("float32", "bfloat16")


@contextmanager
def inference(tf32: bool = False) -> Iterator[None]:
    """No gradients; TensorFloat-32 is off inside (or on, if asked for), and as it was outside."""
    matmul, convolution = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, convolution.allow_tf32
    matmul.allow_tf32 = convolution.allow_tf32 = tf32
    try:
        with torch.inference_mode():
            yield
    finally:
        matmul.allow_tf32, convolution.allow_tf32 = before
