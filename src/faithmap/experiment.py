"""One block of images through all stages. Read this first: it is the experiment.

images ─► heatmaps ─► removal steps ─► fills ─► scores, one row each
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from faithmap.attribution import Batch, Method, batch_heatmaps, random_heatmap
from faithmap.classifiers import Classifier
from faithmap.errors import CurveError, HeatmapError, ImageError, RegionError
from faithmap.images import AnyImage, PixelSource
from faithmap.inference import Chains, Engine, make_engine, score_chains
from faithmap.perturbation import draw_fill, is_imputed, perturb
from faithmap.protocol import Direction, Order, Placement, Protocol, Target
from faithmap.regions import removal_steps
from faithmap.segments import segment
from faithmap.store import Example, HeatmapParts

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


@dataclass(frozen=True)
class Task:
    """Some images and the chains that they miss, computed together.

    Attributes:
        steps: the steps that are missing; others are stored already, or not asked for.
        heatmaps: image id → methods whose heatmaps are to be stored.
    """

    images: tuple[AnyImage, ...]
    chains: tuple[ChainKey, ...]
    steps: range
    heatmaps: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def draws(self) -> list[int]:
        """The draws that are missing."""
        return sorted({key.draw for key in self.chains})

    @property
    def scores(self) -> int:
        """How many scores that is, if no image is skipped."""
        return len(self.images) * len(self.chains) * len(self.steps)


@dataclass(frozen=True)
class Skipped:
    """An image, or one method on an image, that could not be measured."""

    image: str
    method: str | None
    reason: str


@dataclass(frozen=True)
class Experiment:
    """All that decides a number, but for the images.

    Attributes:
        engine_name, batch_size, precision: how scores are computed; see `make_engine`.
        labels: image id → true class, None where it is not known.
        others: the image set, for fills that take pixels of another image.
        stored_heatmaps: heatmaps that were stored before, used instead of computing them again.
    """

    classifier: Classifier
    methods: Sequence[Method]
    protocol: Protocol
    engine_name: str
    batch_size: int | None
    precision: str
    labels: Mapping[str, int | None]
    others: PixelSource | None = None
    stored_heatmaps: HeatmapParts = field(default_factory=HeatmapParts)

    @cached_property
    def engine(self) -> Engine:
        """Built where it is used, so that an experiment can be sent to another process."""
        return make_engine(self.classifier, self.engine_name, self.batch_size, precision=self.precision)


@dataclass(frozen=True)
class Block:
    """Images that could be read, with the class that is scored and, where they are asked for, their segments."""

    ids: list[str]
    pixels: Tensor
    targets: Tensor
    predicted: Tensor
    labels: list[int | None]
    segments: Tensor | None = None

    def keep(self, rows: Sequence[int]) -> Block:
        """Some of the images."""
        at = torch.tensor(rows, dtype=torch.int64, device=self.pixels.device)
        ids, labels = [self.ids[i] for i in rows], [self.labels[i] for i in rows]
        segments = None if self.segments is None else self.segments[at]
        return Block(ids, self.pixels[at], self.targets[at], self.predicted[at], labels, segments)


@dataclass(frozen=True)
class Result:
    """A piece of a task that is whole: worth storing at once. Scores are those of one draw."""

    draw: int | None = None
    scores: pd.DataFrame | None = None
    examples: list[Example] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


# By position in the block: an image whose heatmap or order failed is missing.
Heatmaps = Mapping[int, Tensor]
Orders = Mapping[tuple[str, str], Mapping[int, Tensor]]


def evaluate_task(
    experiment: Experiment, task: Task, progress: Callable[[int], None] = lambda scores: None
) -> Iterator[Result]:
    """Measure a task, yielding heatmaps that are to be kept, then the scores of each draw as soon as it is done.

    Args:
        experiment: classifier, methods, protocol and engine.
        task: images and the chains that they miss.
        progress: called with the number of scores computed since the last call.
    """
    block, skipped = read_block(experiment, task.images)
    batch = block_batch(experiment, block)
    found: dict[str, Heatmaps] = {}
    orders: dict[tuple[str, str], Mapping[int, Tensor]] = {}
    wanted = {(key.method, key.order) for key in task.chains}
    kept = {method for methods in task.heatmaps.values() for method in methods}
    for method in experiment.methods:
        directions = [order for name, order in sorted(wanted) if name == method.name]
        if (directions or method.name in kept) and not method.is_random:
            found[method.name], failed = block_heatmaps(experiment, method, block, batch)
            skipped += failed
            for order in directions:
                orders[method.name, order], failed = block_orders(
                    found[method.name], method, block, experiment.protocol, order
                )
                skipped += failed
    yield Result(examples=kept_examples(task, block, found), skipped=list(dict.fromkeys(skipped)))
    del batch, found
    for draw in task.draws:
        keys = [key for key in task.chains if key.draw == draw]
        yield replace(score_draw(experiment, block, keys, orders, task.steps, progress), draw=draw)


def read_block(experiment: Experiment, images: Sequence[AnyImage]) -> tuple[Block, list[Skipped]]:
    """Decode the images and choose the class that is scored."""
    classifier, protocol = experiment.classifier, experiment.protocol
    ids, pixels, segments, skipped = [], [], [], []
    for image in images:
        try:
            read = image.read(classifier.preprocessing)
            if protocol.placement is Placement.SEGMENT:
                segments.append(segment(protocol.segments, read, image.id))
            pixels.append(read)
            ids.append(image.id)
        except ImageError as error:
            skipped.append(Skipped(image.id, None, str(error)))
    if not ids:
        nothing = torch.empty(0, dtype=torch.int64, device=classifier.device)
        return Block([], torch.empty(0, 3, *classifier.preprocessing.crop), nothing, nothing, []), skipped
    stacked = torch.stack(pixels).to(classifier.device)
    with torch.no_grad():
        logits = torch.cat([classifier(padded(some))[: len(some)] for some in torch.split(stacked, BLOCK)])
    labels = [experiment.labels.get(name) for name in ids]
    predicted = targets = logits.argmax(1)
    if protocol.target is Target.LABEL:
        targets = torch.tensor([label or 0 for label in labels], device=predicted.device)
    maps = torch.stack(segments).to(classifier.device) if segments else None
    block, rows = Block(ids, stacked, targets, predicted, labels, maps), []
    for row, name in enumerate(ids):
        if reason := not_scored(logits[row], labels[row], protocol):
            skipped.append(Skipped(name, None, f"image '{name}' cannot be used: {reason}"))
        else:
            rows.append(row)
    return block.keep(rows), skipped


def not_scored(logits: Tensor, label: int | None, protocol: Protocol) -> str | None:
    """Why an image has no class to score, or None."""
    if not logits.isfinite().all():
        return "the network's logits are not finite for the untouched image."
    if protocol.target is Target.LABEL and label is None:
        return "its true class is not known: use one folder a class, or target 'predicted'."
    if protocol.target is Target.LABEL and label is not None and not 0 <= label < len(logits):
        return f"its class is {label}, the network has {len(logits)} classes."
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
    # Methods of one's own are given whole blocks; the others cut what they are given into blocks themselves.
    size = BLOCK if method.blocks == "whole" else len(block.ids)
    for start in range(0, len(block.ids), size):
        rows = list(range(start, min(start + size, len(block.ids))))
        places = rows + [start] * (BLOCK - len(rows)) if method.blocks == "whole" else rows
        some, wrong = working_heatmaps(method, block, batch, rows, places)
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
            wrong = [row for row in left if error.index is None or row == places[error.index]]
            failed += [Skipped(block.ids[row], method.name, str(error)) for row in wrong]
            left = [row for row in left if row not in wrong]
            if left:
                places = [place if place in left else left[0] for place in places]
                given = batch.select(places)
    return {}, failed


def block_orders(
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
        orders, failed = block_orders(rest, method, block, protocol, order)
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


def score_draw(
    experiment: Experiment,
    block: Block,
    keys: Sequence[ChainKey],
    orders: Orders,
    steps: range,
    progress: Callable[[int], None],
) -> Result:
    """Score one draw of all chains: every method of an image meets the same fill."""
    rows = draw_orders(experiment, block, keys, orders)
    if not rows:
        return Result()
    try:
        logit, probability = score_chains(experiment.engine, draw_chains(experiment, block, rows, steps), progress)
    except CurveError as error:
        if error.index is None:
            raise
        at = error.index if steps.start == 0 else rows[error.index][0]
        rest = [row for row in range(len(block.ids)) if row != at]
        left = {key: {new: order[old] for new, old in enumerate(rest) if old in order} for key, order in orders.items()}
        result = score_draw(experiment, block.keep(rest), keys, left, steps, progress)
        return replace(result, skipped=[Skipped(block.ids[at], None, str(error)), *result.skipped])
    # Points before the first missing step are stored already.
    logit, probability = logit[:, -len(steps) :], probability[:, -len(steps) :]
    chains = [(row, key) for row, key, _ in rows]
    return Result(scores=score_frame(block, chains, steps, logit.cpu().numpy(), probability.cpu().numpy()))


def draw_orders(
    experiment: Experiment, block: Block, keys: Sequence[ChainKey], orders: Orders
) -> list[tuple[int, ChainKey, Tensor]]:
    """(position in the block, key, removal steps) of all chains that have an order; random orders are drawn here."""
    protocol, rows = experiment.protocol, []
    for row, name in enumerate(block.ids):
        for key in keys:
            if key.method == "random":
                heatmap = random_heatmap(block.pixels.shape[-2:], seed=protocol.seed, image_id=name, draw=key.draw)
                maps = None if block.segments is None else block.segments[row : row + 1].cpu()
                steps = removal_steps(heatmap.unsqueeze(0), protocol, Order(key.order), maps)[0]
                steps = steps.to(block.pixels.device)
                rows.append((row, key, steps))
            elif row in orders.get((key.method, key.order), {}):
                rows.append((row, key, orders[key.method, key.order][row]))
    return rows


def draw_chains(
    experiment: Experiment, block: Block, rows: Sequence[tuple[int, ChainKey, Tensor]], steps: range
) -> Chains:
    """Images, fills and removal steps of all chains of one draw, from the step before the first missing one on."""
    protocol, device = experiment.protocol, block.pixels.device
    fills: dict[tuple[int, str | None], Tensor] = {}
    fill_index = []
    places: dict[tuple[int, str | None], int] = {}
    for row, key, _ in rows:
        own = None if protocol.paired_fill else key.method
        if (row, own) not in fills:
            places[row, own] = len(fills)
            fills[row, own] = draw_fill(
                protocol.fill,
                block.pixels[row],
                seed=protocol.seed,
                image_id=block.ids[row],
                draw=key.draw,
                method=own,
                others=experiment.others,
            )
        fill_index.append(places[row, own])
    image = torch.tensor([row for row, _, _ in rows], device=device)
    chains = Chains(
        pixels=block.pixels,
        fill=torch.stack(list(fills.values())).to(device),
        image=image,
        fill_index=torch.tensor(fill_index, device=device),
        removal_step=torch.stack([steps for _, _, steps in rows]),
        targets=block.targets[image],
        steps=steps[-1],
        imputed=is_imputed(protocol.fill),
        restore=protocol.direction is Direction.RESTORE,
    )
    return chains if steps.start == 0 else resumed(chains, steps.start - 1)


def resumed(chains: Chains, done: int) -> Chains:
    """The same chains from step `done` on, each with its own image; imputed ones start anew."""
    rows = torch.arange(len(chains), device=chains.image.device)
    pixels, fill, removal_step = chains.pixels[chains.image], chains.fill[chains.fill_index], chains.removal_step
    chains = replace(chains, pixels=pixels, fill=fill, image=rows, fill_index=rows)
    if chains.imputed:
        return chains
    left = (removal_step - done).clamp(min=0)
    chains = replace(chains, removal_step=left, steps=chains.steps - done)
    return (
        replace(chains, fill=perturb(fill, removal_step, pixels, done))
        if chains.restore
        else replace(chains, pixels=perturb(pixels, removal_step, fill, done))
    )


def score_frame(
    block: Block,
    chains: Sequence[tuple[int, ChainKey]],
    steps: range,
    logit: np.ndarray[tuple[int, int], np.dtype[np.float32]],
    probability: np.ndarray[tuple[int, int], np.dtype[np.float32]],
) -> pd.DataFrame:
    """One row a score: image, label, predicted, target, method, order, draw, step, logit, probability."""
    points = len(steps)
    rows = [row for row, _ in chains]
    predicted, targets = block.predicted.tolist(), block.targets.tolist()
    return pd.DataFrame(
        {
            "image": np.repeat(np.array([block.ids[row] for row in rows], dtype=object), points),
            "label": pd.array([block.labels[row] for row in rows], dtype="Int32").repeat(points),
            "predicted": np.repeat(np.array([predicted[row] for row in rows], dtype=np.int32), points),
            "target": np.repeat(np.array([targets[row] for row in rows], dtype=np.int32), points),
            "method": np.repeat(np.array([key.method for _, key in chains], dtype=object), points),
            "order": np.repeat(np.array([key.order for _, key in chains], dtype=object), points),
            "draw": np.repeat(np.array([key.draw for _, key in chains], dtype=np.int16), points),
            "step": np.tile(np.array(steps, dtype=np.int16), len(rows)),
            "logit": logit.reshape(-1).astype(np.float32),
            "probability": probability.reshape(-1).astype(np.float32),
        }
    )


def padded(block: Tensor) -> Tensor:
    """A block of `BLOCK` entries, filled up by repeating the first."""
    return torch.cat([block, block[:1].expand(BLOCK - len(block), *block.shape[1:])])
