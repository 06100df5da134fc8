"""A run folder, read and replayed. Draws nothing and loads no model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from jaxtyping import Float, Int
from torch import Tensor

from faithmap.errors import StoreError
from faithmap.perturbation import draw_fill, removal_steps, segment
from faithmap.protocol import RANDOM, Order, Placement, Protocol
from faithmap.randomness import random_heatmap
from faithmap.store.folder import Store
from faithmap.store.records import Example, Skipped

EXAMPLES = 24


class StoredRun:
    """A run folder, finished or not: what was measured, and every stage of it rebuilt by the functions that made it.

    Args:
        folder: as given to `evaluate` as `out`.
    Raises:
        StoreError: a folder that holds no run.
    """

    def __init__(self, folder: str | Path) -> None:
        self.store = Store(folder)
        manifest = self.store.read_manifest()
        if manifest is None:
            raise no_run(self.store)
        self.manifest: dict[str, Any] = manifest

    @property
    def folder(self) -> Path:
        """Where the run is kept, if it is on a disk."""
        return self.store.folder

    @property
    def protocol(self) -> Protocol:
        """What was measured."""
        return Protocol.from_dict(self.manifest["protocol"])

    @property
    def precision(self) -> str:
        """What scores were computed in; anything but float32 is for screening."""
        return str(self.manifest.get("precision", "float32"))

    @property
    def skipped(self) -> list[Skipped]:
        """What could not be measured, with reasons."""
        return [Skipped(one["image"], one["method"], one["reason"]) for one in self.manifest["skipped"]]

    def __repr__(self) -> str:
        images, methods = len(self.manifest["images"]), ", ".join(self.manifest["methods"])
        return f"{type(self).__name__}({self.store.url}: {images} images, {methods})"

    def scores(self) -> pd.DataFrame:
        """One row a score: image, label, predicted, target, method, order, draw, step, logit, probability."""
        return self.store.frame()

    def examples(self, count: int | None = EXAMPLES) -> list[Example]:
        """Images with their heatmaps, as far as they were stored; at most `count`, the same ones every time."""
        stored = {image for image, _ in self.store.stored_heatmaps().places}
        return list(self.store.examples(sample(stored, count)))

    def removal_step(
        self, example: Example, method: str, order: Order | str = Order.MORF, draw: int = 0
    ) -> Int[Tensor, "height width"]:
        """The step at which each pixel of an example was removed, 0 for never.

        Raises:
            StoreError: a method without a heatmap for this image.
        """
        if method == RANDOM:
            size = (int(example.pixels.shape[1]), int(example.pixels.shape[2]))
            heatmap = random_heatmap(size, seed=self.protocol.seed, image_id=example.image, draw=draw)
        elif method in example.heatmaps:
            heatmap = example.heatmaps[method]
        else:
            raise StoreError(f"no heatmap of '{method}' is stored for '{example.image}'.")
        maps = None
        if self.protocol.placement is Placement.SEGMENT:
            maps = segment(self.protocol.segments, example.pixels, example.image).unsqueeze(0)
        return removal_steps(heatmap.unsqueeze(0), self.protocol, order, maps)[0]

    def fill(self, example: Example, draw: int = 0, method: str | None = None) -> Float[Tensor, "3 height width"]:
        """What the regions of an example were replaced with (for noisy linear imputation: the noise alone).

        Raises:
            ProtocolError: the fill takes pixels of another image, which a run folder does not hold.
        """
        own = None if self.protocol.paired_fill else method
        return draw_fill(
            self.protocol.fill, example.pixels, seed=self.protocol.seed, image_id=example.image, draw=draw, method=own
        )


def sample(ids: Iterable[str], count: int | None) -> list[str]:
    """The same few images every time, whatever the others are; None takes all."""
    return sorted(ids, key=lambda name: hashlib.sha256(name.encode()).digest())[:count]


def no_run(store: Store) -> StoreError:
    return StoreError(f"{store.url} holds no run (no manifest.json): give a folder that `faithmap run` made.")
