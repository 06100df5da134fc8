"""What a measure is given: images, the class that is explained in each, the network, masks, and keyed randomness."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from faithmap.attribution import Batch, Method, batch_heatmaps
from faithmap.classifiers import Classifier
from faithmap.errors import FaithmapError, HeatmapError, MethodError
from faithmap.inference import Chains, Engine, make_engine, score_chains
from faithmap.randomness import generator

# Rows that a method is given at a time where it takes whole batches, padded by repeating, so that no number depends on
# which images are measured together. The other methods compute in blocks of a fixed size of their own.
WHOLE_ROWS = 8


@dataclass(frozen=True)
class Subject:
    """Images with the class that is explained, and the network.

    Attributes:
        classifier: the network.
        pixels: untouched images in [0, 1], (B, 3, H, W).
        targets: the class that is explained, (B,), int64.
        ids: one a row; with `seed` and `draw`, the key of all randomness.
        seed, draw: see `ids`.
        masks: image id → mask (H, W), true on the object, or why it cannot be used; images without one are missing.
        engine: what scores perturbed images; by default the fastest one that is exact, see `make_engine`.

    What several methods or measures of an image have in common is computed once (see `shared`).
    """

    classifier: Classifier
    pixels: Float[Tensor, "batch channels height width"]
    targets: Int[Tensor, "batch"]
    ids: Sequence[str]
    seed: int = 0
    draw: int = 0
    masks: Mapping[str, Tensor | str] = field(default_factory=dict)
    engine: Engine | None = field(default=None, repr=False)
    _shared: dict[Any, Any] = field(init=False, default_factory=dict, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""
        return int(self.pixels.shape[2]), int(self.pixels.shape[3])

    def row(self, at: int) -> Subject:
        """One image as a subject of its own."""
        pixels, targets = self.pixels[at : at + 1], self.targets[at : at + 1]
        one: Subject = self.shared(
            ("row", at), lambda: replace(self, pixels=pixels, targets=targets, ids=[self.ids[at]], engine=self.scorer)
        )
        return one

    def at(self, draw: int) -> Subject:
        """The same images in another draw."""
        other: Subject = self.shared(("draw", draw), lambda: replace(self, draw=draw, engine=self.scorer))
        return other

    def shared(self, key: Any, compute: Callable[[], Any]) -> Any:
        """What `compute` returns, computed when it is first asked for; nobody may change it."""
        if key not in self._shared:
            self._shared[key] = compute()
        return self._shared[key]

    def generator(self, measure: str, row: int = 0) -> np.random.Generator:
        """Random numbers of one image, draw and measure."""
        return generator("measure", measure, self.seed, self.ids[row], self.draw)

    @cached_property
    def scorer(self) -> Engine:
        """The engine; built once."""
        return self.engine or make_engine(self.classifier)

    @property
    def mean_colour(self) -> Float[Tensor, "channels height width"]:
        """The mean colour of the network's training images in pixel space: 0 after normalisation."""
        return torch.tensor(self.classifier.mean).view(-1, 1, 1).expand(self.pixels.shape[1:]).contiguous()

    def scores_without(
        self, removed: Bool[Tensor, "variants height width"], fill: Float[Tensor, "channels height width"]
    ) -> tuple[Float[Tensor, "variants points"], Float[Tensor, "variants points"]]:
        """Logit and probability of the target class of the (one) image, untouched and with pixels replaced.

        Args:
            removed: which pixels each variant loses.
            fill: what they are replaced with, in pixel space.
        Returns:
            (logits, probabilities), each (variants, 2): untouched first.
        """
        device, rows = self.pixels.device, torch.zeros(len(removed), dtype=torch.int64)
        chains = Chains(
            pixels=self.pixels[:1],
            fill=fill.unsqueeze(0).to(device),
            image=rows.to(device),
            fill_index=rows.to(device),
            removal_step=removed.int().to(device),
            targets=self.targets[:1].expand(len(removed)),
            steps=1,
        )
        return score_chains(self.scorer, chains)

    def drops(
        self, removed: Bool[Tensor, "variants height width"], fill: Float[Tensor, "channels height width"]
    ) -> Float[Tensor, "variants"]:
        """f(x) − f(x with pixels replaced), the logit of the target class, float64, on the CPU."""
        logits, _ = self.scores_without(removed, fill)
        return (logits[:, 0].double() - logits[:, 1].double()).cpu()


def recomputable(method: Method) -> bool:
    """Whether a method computes heatmaps for other images or another network: not `random`, nor heatmaps from files."""
    return not method.is_random and "heatmaps" not in method.spec


def heatmaps_by_row(method: Method, batch: Batch) -> list[Tensor | FaithmapError]:
    """A heatmap for every row of a batch, or why there is none; a row that fails does not disturb the others."""
    found: list[Tensor | FaithmapError] = []
    rows = WHOLE_ROWS if method.batching == "whole" else batch.block_size()
    for start in range(0, len(batch.pixels), rows):
        count = min(rows, len(batch.pixels) - start)
        found += _block(method, batch.rows(start, rows))[:count]
    return found


def heatmaps_of_methods(
    methods: Sequence[Method], batch: Batch
) -> dict[Method, list[Tensor | FaithmapError] | MethodError]:
    """As `heatmaps_by_row` for several methods, block by block, so that they share what is large; or why one fails."""
    rows = batch.block_size()
    found: dict[Method, list[Tensor | FaithmapError] | MethodError] = {}
    for method in methods:
        if method.batching == "whole":
            found[method] = _or_error(method, batch)
    in_blocks = [method for method in methods if method.batching != "whole"]
    each: dict[Method, list[Tensor | FaithmapError]] = {method: [] for method in in_blocks}
    for start in range(0, len(batch.pixels), rows):
        count = min(rows, len(batch.pixels) - start)
        piece = batch.select([start + row if row < count else start for row in range(rows)])  # let go of afterwards
        for method in in_blocks:
            maps = found[method] if method in found else _or_error(method, piece)
            if isinstance(maps, MethodError):
                found[method] = maps
            else:
                each[method] += maps[:count]
    return {**each, **found}


def _or_error(method: Method, batch: Batch) -> list[Tensor | FaithmapError] | MethodError:
    try:
        return heatmaps_by_row(method, batch)
    except MethodError as error:
        return error


def _block(method: Method, batch: Batch) -> list[Tensor | FaithmapError]:
    count = len(batch.pixels)
    places, failed = list(range(count)), dict[int, FaithmapError]()
    while len(failed) < count:
        given = batch if not failed else batch.select(places)
        try:
            maps = batch_heatmaps(method, given)
        except HeatmapError as error:
            left = [row for row in range(count) if row not in failed]
            wrong = left if error.index is None else [row for row in left if row == places[error.index]]
            failed |= dict.fromkeys(wrong, error)
            left = [row for row in left if row not in failed]
            # A row that failed gives its place to one that works, so that the block keeps its size.
            places = [place if place in left else left[0] for place in places] if left else places
        else:
            return [failed.get(row, maps[row]) for row in range(count)]
    return [failed[row] for row in range(count)]
