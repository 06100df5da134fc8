"""What is measured together: an experiment, its tasks, and what a task yields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd
from torch import Tensor

from faithmap.attribution import Method
from faithmap.classifiers import Classifier
from faithmap.images import AnyImage, PixelSource
from faithmap.inference import Engine, make_engine
from faithmap.measures.measure import Measure
from faithmap.protocol import Protocol
from faithmap.store.folder import HeatmapParts
from faithmap.store.records import Example, Skipped

# Images of a task: as many as give the engine enough chains to work on at a time.
TASK_IMAGES = {"cpu": 16, "device": 64}
# Where a network runs on the images themselves it runs on blocks of one fixed shape, padded by repeating, so that no
# number depends on which images happen to be computed together.
BLOCK = 8


@dataclass(frozen=True, order=True)
class ChainKey:
    """What is removed from an image: in the order of which method's heatmap, in which direction, in which draw."""

    method: str
    order: str
    draw: int


@dataclass(frozen=True, order=True)
class MeasureKey:
    """One value of an image: of which method, by which measure, in which draw."""

    method: str
    measure: str
    draw: int


@dataclass(frozen=True)
class Task:
    """Some images and the chains that they miss, computed together.

    Attributes:
        steps: the steps that are missing, in ascending order; others are stored already, or not asked for.
        heatmaps: image id → methods whose heatmaps are to be stored.
        measures: the values that each of the images lacks.
    """

    images: tuple[AnyImage, ...]
    chains: tuple[ChainKey, ...]
    steps: tuple[int, ...]
    heatmaps: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    measures: tuple[MeasureKey, ...] = ()

    @property
    def draws(self) -> list[int]:
        """The draws that are missing."""
        return sorted({key.draw for key in self.chains})

    @property
    def scores(self) -> int:
        """How many scores that is, if no image is skipped."""
        return len(self.images) * len(self.chains) * len(self.steps)


@dataclass(frozen=True)
class Experiment:
    """All that decides a number, but for the images.

    Attributes:
        engine_name, batch_size, precision: how scores are computed; see `make_engine`.
        labels: image id → true class, None where it is not known.
        targets: image id → class that is scored, for `Target.GIVEN`.
        others: the image set, for fills that take pixels of another image.
        stored_heatmaps: heatmaps that were stored before, used instead of computing them again.
        memory: bytes that the engine may take; None: half of what is free.
        measures: what is measured besides the scores.
        masks: image id → mask of the object (H, W), or why it cannot be used, for measures that need one.
    """

    classifier: Classifier
    methods: Sequence[Method]
    protocol: Protocol
    engine_name: str
    batch_size: int | None
    precision: str
    labels: Mapping[str, int | None]
    targets: Mapping[str, int | None] = field(default_factory=dict)
    others: PixelSource | None = None
    stored_heatmaps: HeatmapParts = field(default_factory=HeatmapParts)
    memory: int | None = None
    measures: Sequence[Measure] = ()
    masks: Mapping[str, Tensor | str] = field(default_factory=dict)

    @cached_property
    def engine(self) -> Engine:
        """Built where it is used, so that an experiment can be sent to another process."""
        return make_engine(
            self.classifier, self.engine_name, self.batch_size, memory=self.memory, precision=self.precision
        )


@dataclass(frozen=True)
class Result:
    """A piece of a task that is whole: worth storing at once. Scores are those of one draw."""

    draw: int | None = None
    scores: pd.DataFrame | None = None
    examples: list[Example] = field(default_factory=list)
    measures: pd.DataFrame | None = None
    skipped: list[Skipped] = field(default_factory=list)
