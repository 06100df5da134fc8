"""How a network divides an image into patches, and which of its inner values all else depends on."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from faithmap.classifiers.base import Classifier, ScoreOnly, evaluation_mode


class _FirstConvolution(TorchFunctionMode):
    """Remembers the first convolution that a network calls."""

    def __init__(self) -> None:
        super().__init__()
        self.side: int | None = None
        self.seen = False

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function in (F.conv2d, torch.conv2d) and not self.seen:
            self.seen = True
            names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
            given: dict[str, Any] = (
                {"stride": 1, "padding": 0, "groups": 1} | dict(zip(names, args, strict=False)) | kwargs
            )
            sides = {*given["weight"].shape[2:], *_pair(given["stride"])}
            if len(sides) == 1 and _pair(given["padding"]) == (0, 0) and given["groups"] == 1 and sides != {1}:
                self.side = sides.pop()
        return function(*args, **kwargs)


def patch_side(classifier: Classifier, size: tuple[int, int]) -> int | None:
    """The side of the square patches that a network embeds one by one, in pixels; None where it does not.

    Found from the first convolution: its kernel is as large as its stride, and it pads nothing. Patches start at the
    top left.
    """
    if isinstance(classifier.module, ScoreOnly):
        return None
    watch = _FirstConvolution()
    example = torch.full((1, len(classifier.mean), *size), 0.5, dtype=classifier.dtype, device=classifier.device)
    quiet = contextlib.suppress(Exception, SystemExit)
    with torch.no_grad(), evaluation_mode(classifier.module), watch, quiet:
        classifier.module(classifier.normalise(example))  # what is wrong with a network is said where it is scored
    return watch.side


def _pair(value: Any) -> tuple[Any, ...]:
    return (value, value) if isinstance(value, int | str) else tuple(value) * (2 // len(value))


def all_passes(output: Tensor, value: Tensor) -> bool:
    """Whether an output depends on its leaves through this value alone: without it, no way leads back to a leaf."""
    left, visited = [output.grad_fn], set()
    while left:
        node = left.pop()
        for before, number in node.next_functions if node is not None else ():
            if before is None or (before is value.grad_fn and number == value.output_nr) or before in visited:
                continue
            if hasattr(before, "variable"):
                return False
            visited.add(before)
            left.append(before)
    return True
