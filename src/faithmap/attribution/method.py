"""What a heatmap method is: a name, its parameters, and the function that computes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from faithmap.attribution.batch import Batch
from faithmap.protocol import RANDOM


@dataclass(frozen=True)
class Method:
    """A heatmap method with its parameters.

    Attributes:
        name: canonical, as in tables.
        spec: plain JSON; all that decides its numbers besides network, images and seed.
        compute: batch → relevance (B, C, H, W), summed over channels, or heatmap (B, H, W).
        blocks: ``"fixed"`` computes it in blocks of one size, ``"single"`` image by image (for methods that evaluate
            many variants of an image), ``"whole"`` on the batch as it is.
    """

    name: str
    spec: dict[str, Any] = field(compare=False)
    compute: Callable[[Batch], Tensor] = field(compare=False, repr=False)
    blocks: Literal["fixed", "single", "whole"] = field(default="fixed", compare=False, repr=False)

    @property
    def is_random(self) -> bool:
        """Whether this is the reference, whose order is drawn anew for each draw."""
        return self.name == RANDOM


@dataclass(frozen=True)
class Parameter:
    """A parameter of a method.

    Attributes:
        default: what it is where neither the name nor the protocol says.
        check: text → value, or a `ValueError` that says what is expected.
    """

    default: Any
    check: Callable[[str], Any]


def number(low: float = float("-inf"), high: float = float("inf")) -> Callable[[str], float]:
    """A finite number within bounds."""

    def check(text: str) -> float:
        value = float(text)
        if not low <= value <= high or value in (float("inf"), float("-inf")):
            raise ValueError(f"a number of at least {low:g}" if high == float("inf") else f"{low:g} to {high:g}")
        return value

    return check


def whole(low: int) -> Callable[[str], int]:
    """A whole number of at least `low`."""

    def check(text: str) -> int:
        if not text.isdecimal() or int(text) < low:
            raise ValueError(f"a whole number of at least {low}")
        return int(text)

    return check


def choice(*known: str) -> Callable[[str], str]:
    """One of a few words."""

    def check(text: str) -> str:
        if text not in known:
            raise ValueError(" or ".join(known))
        return text

    return check
