"""What an engine receives, and what it yields."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from faithmap.classifiers import Classifier
from faithmap.errors import EngineError
from faithmap.perturbation import Imputer


@dataclass(frozen=True)
class Chains:
    """Perturbation chains that are scored together. A chain is one image × method × order × draw.

    Images and fills are stored once and shared by index, so that step 0 can be computed once an image.

    Attributes:
        pixels: untouched images in pixel space, (I, C, H, W).
        fill: replacement values in pixel space, (F, C, H, W).
        image: which image a chain perturbs, (B,), int64.
        fill_index: which fill a chain uses, (B,), int64.
        removal_step: the step at which a pixel is replaced, 0 for never, (B, H, W).
        targets: the class that is scored, (B,), int64.
        steps: L; the highest step at which a chain may be scored.
        dropped: nothing replaces a removed region: the tokens of its patches are left out, and `fill` is not used.
        imputed: replacement values are computed from the pixels that are left, and `fill` is the noise added to them.
        imputer: what computes them, from the untouched image and which pixels are gone; None: noisy linear imputation.
        restore: start from the fill, and let every step bring a region of the image back. Engines never see it: they
            receive the `swapped` chains.
        points: the steps that are scored, ascending, 0 first; None for all of 0…L.

    Raises:
        EngineError: points that are not ascending, do not begin with 0 or exceed L.
    """

    pixels: Float[Tensor, "images channels height width"]
    fill: Float[Tensor, "fills channels height width"]
    image: Int[Tensor, "chains"]
    fill_index: Int[Tensor, "chains"]
    removal_step: Int[Tensor, "chains height width"]
    targets: Int[Tensor, "chains"]
    steps: int
    imputed: bool = False
    imputer: Imputer | None = None
    dropped: bool = False
    restore: bool = False
    points: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        points = self.scored
        if points[:1] != (0,) or list(points) != sorted(set(points)) or points[-1] > self.steps:
            raise EngineError(
                f"points are {list(points)}, expected ascending steps from 0 to at most {self.steps}, 0 included."
            )

    @property
    def scored(self) -> tuple[int, ...]:
        """The steps that are scored, ascending; the first is 0."""
        return tuple(range(self.steps + 1)) if self.points is None else self.points

    def take(self, rows: Int[Tensor, "some"]) -> Chains:
        """Some of the chains, images and fills as before."""
        per_chain = ("image", "fill_index", "removal_step", "targets")
        return replace(self, **{name: getattr(self, name)[rows] for name in per_chain})

    def swapped(self) -> Chains:
        """Chains that remove regions, with image and fill in each other's place."""
        return replace(
            self, pixels=self.fill, fill=self.pixels, image=self.fill_index, fill_index=self.image, restore=False
        )

    def __len__(self) -> int:
        return len(self.image)


@runtime_checkable
class Engine(Protocol):
    """Runs a network over chains.

    Attributes:
        classifier: says what is scored.
    """

    classifier: Classifier

    def logits(
        self, chains: Chains
    ) -> Iterator[tuple[Int[Tensor, "rows"], Int[Tensor, "rows"], Float[Tensor, "rows classes"]]]:
        """Yield (chain, step, logits) for every chain at every scored step, each pair exactly once, in any order.

        Where the classifier has a score function, yield its values (rows, 1) at the chains' targets instead of logits.

        Step 0 of chains that share an image may be computed once, but is yielded for each of them.
        """
        ...
