"""A run folder, read and replayed. Draws nothing and loads no model."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from jaxtyping import Float, Int
from torch import Tensor

from faithmap.errors import CurveError, StoreError
from faithmap.perturbation import chain_fill, chain_removal_step
from faithmap.protocol import PROBABILISTIC, RANDOM, Order, Protocol, Score
from faithmap.statistics import chosen_images
from faithmap.statistics.per_image import SCORE_NAME
from faithmap.store.folder import Store
from faithmap.store.manifest import Manifest
from faithmap.store.parts import GROUP
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
        self.manifest: Manifest = manifest

    @property
    def folder(self) -> Path:
        """Where the run is kept, if it is on a disk."""
        return self.store.folder

    @property
    def protocol(self) -> Protocol:
        """What was measured."""
        return self.manifest.protocol

    @property
    def score_name(self) -> str | None:
        """What the score is called where it has no probability; None where there are logits and probabilities."""
        classifier = self.manifest.classifier
        return None if classifier.score in PROBABILISTIC else classifier.score_name or "score"

    @property
    def precision(self) -> str:
        """What scores were computed in; anything but float32 is for screening."""
        return self.manifest.precision

    @property
    def skipped(self) -> list[Skipped]:
        """What could not be measured, with reasons."""
        return list(self.manifest.skipped)

    def __repr__(self) -> str:
        images, methods = len(self.manifest.images), ", ".join(self.manifest.methods)
        return f"{type(self).__name__}({self.store.url}: {images} images, {methods})"

    def scores(self) -> pd.DataFrame:
        """One row per score: image, group, label, predicted, target, method, order, draw, step, logit, probability.

        Only the steps that the protocol asks for; a folder may hold others, of an earlier question.
        """
        self._check_same()
        frame = self.store.frame()
        protocol = self.protocol
        if protocol.points <= protocol.steps:
            frame = frame[frame["step"].isin(protocol.scored_steps())].reset_index(drop=True)
        frame.insert(1, GROUP, pd.Series(self._groups(frame["image"].cat)))
        frame.attrs[GROUP] = self.manifest.group_noun
        if self.score_name is not None:
            frame.attrs[SCORE_NAME] = self.score_name
        return frame

    def _check_same(self) -> None:
        """Refuse a folder that was deleted or holds another run since this one was opened.

        Raises:
            StoreError: says which.
        """
        now, was = self.store.read_manifest(), self.manifest
        if now is None:
            raise StoreError(f"{self.store.url} was opened, and holds no run any more: it was deleted or moved.")
        if (now.fingerprint, now.classifier.fingerprint) != (was.fingerprint, was.classifier.fingerprint):
            raise StoreError(f"{self.store.url} was opened, and holds another run since: open it again.")

    def _groups(self, images: Any) -> pd.Categorical:
        """The group of every row: that of its image."""
        group_of = self.manifest.groups()
        groups = [group_of.get(name, name) for name in images.categories]
        names = sorted(set(groups))
        code = pd.Index(names).get_indexer(pd.Index(groups))
        return pd.Categorical.from_codes(code[images.codes], pd.Index(names, dtype="str"))

    def measures(self) -> pd.DataFrame:
        """One row per value of a measure: image, group, method, measure, draw, value.

        Measures that follow from the scores (SRG, MoRF, …) are not among them; see `Run.ranking`.
        """
        self._check_same()
        frame = self.store.measures()
        frame[GROUP] = frame["image"].map(self.manifest.groups()).fillna(frame["image"])
        frame.attrs[GROUP] = self.manifest.group_noun
        return frame

    def examples(self, count: int | None = EXAMPLES) -> list[Example]:
        """Images with their heatmaps, as far as they were stored; at most `count`, the same ones every time.

        Those on which the methods are best, median and worst come first.
        """
        return list(self.store.examples(self.example_ids(count)))

    def example_ids(self, count: int | None = EXAMPLES) -> list[str]:
        """The images of `examples`."""
        self._check_same()
        stored = {image for image, _ in self.store.stored_heatmaps().places}
        telling = [image for image in self.telling_images() if image in stored] if stored else []
        return [*telling, *sample(stored - set(telling), None)][:count]

    def telling_images(self) -> list[str]:
        """The images on which the methods are best, median and worst, by the score that is shown, then by the other."""
        if not self.store.parts():
            return []
        frame, protocol = self.scores(), self.protocol
        found: dict[str, None] = {}
        for score in sorted(Score, key=lambda one: one != protocol.score):
            with contextlib.suppress(CurveError):  # a part of a run may lack the order that is shown
                order, direction = str(protocol.shown_order), str(protocol.direction)
                found |= dict.fromkeys(chosen_images(frame, str(score), None, order, direction).values())
        return list(found)

    def removal_step(
        self, example: Example, method: str, order: Order | str = Order.MORF, draw: int = 0
    ) -> Int[Tensor, "height width"]:
        """The step at which each pixel of an example was removed, 0 for never.

        Raises:
            StoreError: a method without a heatmap for this image.
        """
        if method != RANDOM and method not in example.heatmaps:
            raise StoreError(f"no heatmap of '{method}' is stored for '{example.image}'.")
        heatmap = None if method == RANDOM else example.heatmaps[method]
        return chain_removal_step(
            self.protocol, heatmap, example.pixels, image_id=example.image, order=order, draw=draw
        )

    def fill(
        self, example: Example, draw: int = 0, method: str | None = None
    ) -> Float[Tensor, "channels height width"]:
        """What the regions of an example were replaced with (for noisy linear imputation: the noise alone).

        Raises:
            ProtocolError: the fill takes pixels of another image, which a run folder does not hold.
        """
        return chain_fill(self.protocol, example.pixels, image_id=example.image, draw=draw, method=method)


def sample(ids: Iterable[str], count: int | None) -> list[str]:
    """The same few images every time, whatever the others are; None takes all."""
    return sorted(ids, key=lambda name: hashlib.sha256(name.encode()).digest())[:count]


def no_run(store: Store) -> StoreError:
    return StoreError(f"{store.url} holds no run (no manifest.json): give a folder that `faithmap run` made.")
