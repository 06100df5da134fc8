"""How scores are rounded: float32 means float32, unless less is asked for."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from faithmap.classifiers import Classifier
from faithmap.classifiers.watch import signature
from faithmap.inference.chains import Chains, Engine

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


class RoundedEngine:
    """Runs a copy of the network in bfloat16, renewed whenever the network has changed.

    Args:
        classifier: stays as it is.
        build: makes the engine for the copy.
    """

    def __init__(self, classifier: Classifier, build: Callable[[Classifier], Engine]) -> None:
        self.classifier = classifier
        self.build = build
        self._engine: Engine | None = None
        self._prepared: Any = None

    def logits(self, chains: Chains) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """See `Engine.logits`; in float32, rounded to bfloat16."""
        now = signature(self.classifier.module)
        if self._engine is None or now != self._prepared:
            rounded = copy.copy(self.classifier)
            rounded.module = copy.deepcopy(self.classifier.module).to(torch.bfloat16)
            self._prepared, self._engine = now, self.build(rounded)
        for chain, step, logits in self._engine.logits(chains):
            yield chain, step, logits.float()
