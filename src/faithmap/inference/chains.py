"""What an engine receives, and what it yields."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Chains:
    """Perturbation chains that are scored together. A chain is one image × method × order × draw.

    Images and fills are stored once and shared by index, so that step 0 can be computed once an image.

    Attributes:
        pixels: untouched images in pixel space, (I, 3, H, W).
        fill: replacement values in pixel space, (F, 3, H, W).
        image: which image a chain perturbs, (B,), int64.
        fill_index: which fill a chain uses, (B,), int64.
        removal_step: the step at which a pixel is replaced, 0 for never, (B, H, W).
        targets: the class that is scored, (B,), int64.
        steps: L; every chain is scored at k = 0…L.
        imputed: replacement values are computed from the pixels that are left, and `fill` is the noise added to them.
        restore: start from the fill, and let every step bring a region of the image back. Engines never see it: they
            receive the `swapped` chains.
    """

    pixels: Float[Tensor, "images 3 height width"]
    fill: Float[Tensor, "fills 3 height width"]
    image: Int[Tensor, "chains"]
    fill_index: Int[Tensor, "chains"]
    removal_step: Int[Tensor, "chains height width"]
    targets: Int[Tensor, "chains"]
    steps: int
    imputed: bool = False
    restore: bool = False

    def swapped(self) -> Chains:
        """Chains that remove regions, with image and fill in each other's place."""
        return replace(
            self, pixels=self.fill, fill=self.pixels, image=self.fill_index, fill_index=self.image, restore=False
        )

    def __len__(self) -> int:
        return len(self.image)


@runtime_checkable
class Engine(Protocol):
    """Runs a network over chains."""

    def logits(
        self, chains: Chains
    ) -> Iterator[tuple[Int[Tensor, "rows"], Int[Tensor, "rows"], Float[Tensor, "rows classes"]]]:
        """Yield (chain, step, logits) for every chain at every step, each pair exactly once, in any order.

        Step 0 of chains that share an image may be computed once, but is yielded for each of them.
        """
        ...
