"""Images that are computed together: read, explained, ordered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from faithmap.attribution import Batch, Method, batch_heatmaps
from faithmap.classifiers import Classifier
from faithmap.errors import HeatmapError, ImageError, MethodError, RegionError
from faithmap.experiment.task import BLOCK, Experiment, Task
from faithmap.images import AnyImage
from faithmap.perturbation.regions import removal_steps
from faithmap.perturbation.segments import segment
from faithmap.protocol import Order, Placement, Protocol, Target
from faithmap.store.records import EVERY, Example, Skipped


@dataclass(frozen=True)
class Block:
    """Images that could be read, with the class that is scored and, where they are asked for, their segments."""

    ids: list[str]
    groups: list[str]
    pixels: Tensor
    targets: Tensor
    predicted: Tensor
    labels: list[int | None]
    segments: Tensor | None = None

    def keep(self, rows: Sequence[int]) -> Block:
        """Some of the images."""
        at = torch.tensor(rows, dtype=torch.int64, device=self.pixels.device)
        ids, groups = [self.ids[i] for i in rows], [self.groups[i] for i in rows]
        labels = [self.labels[i] for i in rows]
        segments = None if self.segments is None else self.segments[at]
        return Block(ids, groups, self.pixels[at], self.targets[at], self.predicted[at], labels, segments)


# By position in the block: an image whose heatmap failed is missing.
Heatmaps = Mapping[int, Tensor]
# (method, order) → by position in the block.
RemovalSteps = Mapping[tuple[str, str], Mapping[int, Tensor]]


def read_block(experiment: Experiment, images: Sequence[AnyImage]) -> tuple[Block, list[Skipped]]:
    """Decode the images and choose the class that is scored."""
    classifier, protocol = experiment.classifier, experiment.protocol
    ids, groups, pixels, segments, skipped = [], [], [], [], []
    for image in images:
        try:
            read = image.read(classifier.preprocessing)
            if protocol.placement is Placement.SEGMENT:
                segments.append(segment(protocol.segments, read, image.id))
            pixels.append(read)
            ids.append(image.id)
            groups.append(image.group or image.id)
        except ImageError as error:
            skipped.append(Skipped(image.id, None, str(error)))
    if not ids:
        nothing = torch.empty(0, dtype=torch.int64, device=classifier.device)
        return Block([], [], torch.empty(0, classifier.channels, 1, 1), nothing, nothing, []), skipped
    stacked = torch.stack(pixels).to(classifier.device)
    predicted, finite, classes = untouched(classifier, stacked)
    labels = [experiment.labels.get(name) for name in ids]
    asked: list[int | None] = predicted.tolist()
    if protocol.target is not Target.PREDICTED:
        asked = labels if protocol.target is Target.LABEL else [experiment.targets.get(name) for name in ids]
    targets = torch.tensor([target or 0 for target in asked], device=predicted.device)
    maps = torch.stack(segments).to(classifier.device) if segments else None
    block, rows = Block(ids, groups, stacked, targets, predicted, labels, maps), []
    for row, name in enumerate(ids):
        if reason := not_scored(finite[row], asked[row], classes, protocol):
            skipped.append(Skipped(name, None, f"image '{name}' cannot be used: {reason}"))
        else:
            rows.append(row)
    return block.keep(rows), skipped


def untouched(classifier: Classifier, pixels: Tensor) -> tuple[Tensor, list[bool], int | None]:
    """Of the untouched images: the predicted class (−1: there is none), whether all outputs are finite, and how many
    classes the network has (None: its output is not (B, classes))."""
    predicted: list[Tensor] = []
    finite: list[bool] = []
    classes: int | None = None
    for some in torch.split(pixels, BLOCK):
        with torch.no_grad():
            outputs = classifier.outputs(classifier.normalise(padded(some)).to(classifier.dtype))
        per_class = isinstance(outputs, Tensor) and outputs.ndim == 2
        classes = outputs.shape[1] if per_class else None
        best = outputs.argmax(1) if per_class else torch.full((BLOCK,), -1, device=pixels.device)
        predicted.append(best[: len(some)])
        right = outputs.isfinite().flatten(1).all(1).tolist() if isinstance(outputs, Tensor) else [True] * BLOCK
        finite += right[: len(some)]
        classifier.notice_probabilities(outputs)
    return torch.cat(predicted), finite, classes


def not_scored(finite: bool, target: int | None, classes: int | None, protocol: Protocol) -> str | None:
    """Why an image has no class to score, or None."""
    if not finite:
        return "the network's logits are not finite for the untouched image."
    if target is None and protocol.target is Target.GIVEN:
        return "no class is given for it."
    if target is None:
        return "its true class is not known: use one folder per class, or target 'predicted'."
    if target < 0 and protocol.target is Target.PREDICTED:
        return "the network's output has no predicted class: give target 'label', or targets of your own."
    if target < 0 or (classes is not None and target >= classes):
        return f"its class is {target}, the network has {classes or 'other'} classes."
    return None


def block_batch(experiment: Experiment, block: Block) -> Batch | None:
    """What all heatmap methods are given, so that they share what they have in common; None without images."""
    if not block.ids:
        return None
    return Batch.of(experiment.classifier, block.pixels, block.targets, block.ids, experiment.protocol.seed)


def block_heatmaps(
    experiment: Experiment, method: Method, block: Block, batch: Batch | None
) -> tuple[Heatmaps, list[Skipped]]:
    """Heatmaps (H, W) by position in the block; an image without one is skipped alone."""
    stored = [
        experiment.stored_heatmaps.heatmap(name, method.name, target)
        for name, target in zip(block.ids, block.targets.tolist(), strict=True)
    ]
    if batch is None or all(heatmap is not None for heatmap in stored):
        return {row: h.to(block.pixels.device) for row, h in enumerate(stored) if h is not None}, []
    found: dict[int, Tensor] = {}
    failed: list[Skipped] = []
    # Callables are given whole blocks; the others cut what they are given into blocks themselves.
    size = BLOCK if method.batching == "whole" else len(block.ids)
    for start in range(0, len(block.ids), size):
        rows = list(range(start, min(start + size, len(block.ids))))
        places = rows + [start] * (BLOCK - len(rows)) if method.batching == "whole" else rows
        try:
            some, wrong = working_heatmaps(method, block, batch, rows, places)
        except MethodError as error:
            if not method.optional:
                raise
            return {}, [Skipped(EVERY, method.name, str(error))]
        found |= some
        failed += wrong
    return found, failed


def working_heatmaps(
    method: Method, block: Block, batch: Batch, rows: list[int], places: list[int]
) -> tuple[Heatmaps, list[Skipped]]:
    """Heatmaps of some rows of a block; a row that fails gives its places to one that works.

    Args:
        places: the rows that are given to the method, in its order; the first of them are `rows`.
    """
    failed: list[Skipped] = []
    left = rows
    given = batch if places == list(range(len(block.ids))) else batch.select(places)
    while left:
        try:
            maps = batch_heatmaps(method, given)
            return {row: maps[at] for at, row in enumerate(rows) if row in left}, failed
        except HeatmapError as error:
            wrong = {row: str(error) for row in left if error.index is None or row == places[error.index]}
            if error.index is None and len(left) > 1 and method.batching == "whole":
                wrong = failing_alone(method, batch, left, len(places)) or wrong
            failed += [Skipped(block.ids[row], method.name, reason) for row, reason in wrong.items()]
            left = [row for row in left if row not in wrong]
            if left:
                places = [place if place in left else left[0] for place in places]
                given = batch.select(places)
    return {}, failed


def failing_alone(method: Method, batch: Batch, rows: Sequence[int], size: int) -> dict[int, str]:
    """Which images a method fails on that does not say so, and why: each is tried alone, in a block of this size."""
    wrong = {}
    for row in rows:
        try:
            batch_heatmaps(method, batch.select([row] * size))
        except HeatmapError as error:
            wrong[row] = str(error)
    return wrong


def block_removal_steps(
    found: Heatmaps, method: Method, block: Block, protocol: Protocol, order: str
) -> tuple[Mapping[int, Tensor], list[Skipped]]:
    """Removal steps (H, W) by position in the block; a heatmap without an order is skipped alone."""
    if not found:
        return {}, []
    try:
        maps = None if block.segments is None else block.segments[list(found)]
        steps = removal_steps(torch.stack(list(found.values())), protocol, Order(order), maps)
        return dict(zip(found, steps, strict=True)), []
    except (HeatmapError, RegionError) as error:
        if error.index is None:
            raise
        row = list(found)[error.index]
        rest = {other: one for other, one in found.items() if other != row}
        orders, failed = block_removal_steps(rest, method, block, protocol, order)
        return orders, [Skipped(block.ids[row], method.name, str(error)), *failed]


def kept_examples(task: Task, block: Block, found: Mapping[str, Heatmaps]) -> list[Example]:
    """The images of the block whose heatmaps are stored, with the heatmaps that were just computed."""
    targets, predicted = block.targets.tolist(), block.predicted.tolist()
    examples = []
    for row, name in enumerate(block.ids):
        kept = {m: found[m][row].cpu() for m in task.heatmaps.get(name, ()) if row in found.get(m, {})}
        if kept:
            pixels = block.pixels[row].cpu()
            examples.append(Example(name, pixels, block.labels[row], predicted[row], targets[row], kept))
    return examples


def padded(block: Tensor) -> Tensor:
    """A block of `BLOCK` entries, filled up by repeating the first."""
    return torch.cat([block, block[:1].expand(BLOCK - len(block), *block.shape[1:])])
