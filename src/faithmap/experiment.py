"""One block of images through all stages. Read this first: it is the experiment.

images ─► heatmaps ─► removal steps ─► fills ─► scores, one row each
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from faithmap.attribution import Method, heatmaps, random_heatmap
from faithmap.classifiers import Classifier
from faithmap.errors import CurveError, HeatmapError, ImageError, RegionError
from faithmap.images import AnyImage
from faithmap.inference import Chains, Engine, score_chains
from faithmap.perturbation import draw_fill
from faithmap.protocol import Order, Protocol, Target
from faithmap.regions import removal_steps

# Networks run on blocks of one fixed shape, padded by repeating, so that no number depends on which images happen to
# be computed together.
BLOCK = 8


@dataclass(frozen=True, order=True)
class ChainKey:
    """What is removed from an image: in the order of which method's heatmap, in which direction, in which draw."""

    method: str
    order: str
    draw: int


@dataclass(frozen=True)
class Task:
    """At most `BLOCK` images and the chains that they miss; computed together and stored as one part.

    Attributes:
        first_step: rows of earlier steps are stored already and left out.
    """

    images: tuple[AnyImage, ...]
    chains: tuple[ChainKey, ...]
    first_step: int = 0


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
        labels: image id → true class, None where it is not known.
    """

    classifier: Classifier
    methods: Sequence[Method]
    protocol: Protocol
    engine: Engine
    labels: Mapping[str, int | None]


@dataclass(frozen=True)
class Block:
    """Images that could be read, with the class that is scored; B ≤ `BLOCK`."""

    ids: list[str]
    pixels: Tensor
    targets: Tensor
    predicted: Tensor
    labels: list[int | None]

    def keep(self, rows: Sequence[int]) -> Block:
        """Some of the images."""
        at = torch.tensor(rows, dtype=torch.int64, device=self.pixels.device)
        ids, labels = [self.ids[i] for i in rows], [self.labels[i] for i in rows]
        return Block(ids, self.pixels[at], self.targets[at], self.predicted[at], labels)


def evaluate_task(
    experiment: Experiment, task: Task, progress: Callable[[int], None] = lambda scores: None
) -> tuple[pd.DataFrame, list[Skipped]]:
    """Measure a task.

    Args:
        experiment: classifier, methods, protocol and engine.
        task: images and the chains that they miss.
        progress: called with the number of scores computed since the last call.
    Returns:
        One row a score, and what was skipped, with reasons.
    """
    block, skipped = read_block(experiment, task.images)
    wanted = {key.method for key in task.chains}
    orders: dict[tuple[str, str], dict[int, Tensor]] = {}
    for method in experiment.methods:
        if method.name in wanted and not method.is_random and block.ids:
            heatmap, failed = block_heatmaps(experiment.classifier, method, block)
            skipped += failed
            for order in {key.order for key in task.chains if key.method == method.name}:
                orders[method.name, order], failed = block_orders(heatmap, method, block, experiment.protocol, order)
                skipped += failed
    frames = []
    for draw in sorted({key.draw for key in task.chains}):
        keys = [key for key in task.chains if key.draw == draw]
        frame, failed = score_draw(experiment, block, keys, orders, progress)
        frames.append(frame)
        skipped += failed
    scores = pd.concat(frames, ignore_index=True)
    return scores[scores["step"] >= task.first_step], list(dict.fromkeys(skipped))


def read_block(experiment: Experiment, images: Sequence[AnyImage]) -> tuple[Block, list[Skipped]]:
    """Decode the images and choose the class that is scored."""
    classifier = experiment.classifier
    ids, pixels, skipped = [], [], []
    for image in images:
        try:
            pixels.append(image.read(classifier.preprocessing))
            ids.append(image.id)
        except ImageError as error:
            skipped.append(Skipped(image.id, None, str(error)))
    if not ids:
        nothing = torch.empty(0, dtype=torch.int64, device=classifier.device)
        return Block([], torch.empty(0, 3, *classifier.preprocessing.crop), nothing, nothing, []), skipped
    stacked = torch.stack(pixels).to(classifier.device)
    with torch.no_grad():
        logits = classifier(padded(stacked))[: len(ids)]
    labels = [experiment.labels.get(name) for name in ids]
    predicted = targets = logits.argmax(1)
    rows = []
    for row, name in enumerate(ids):
        if not logits[row].isfinite().all():
            skipped.append(Skipped(name, None, "the network's logits are not finite for the untouched image."))
        elif experiment.protocol.target is Target.LABEL and not 0 <= (labels[row] or 0) < logits.shape[1]:
            skipped.append(Skipped(name, None, f"its class is {labels[row]}, the network has {logits.shape[1]}."))
        elif experiment.protocol.target is Target.LABEL and labels[row] is None:
            reason = "its true class is not known: use one folder a class, or target 'predicted'."
            skipped.append(Skipped(name, None, reason))
        else:
            rows.append(row)
    if experiment.protocol.target is Target.LABEL:
        targets = torch.tensor([label or 0 for label in labels], device=predicted.device)
    return Block(ids, stacked, targets, predicted, labels).keep(rows), skipped


def block_heatmaps(classifier: Classifier, method: Method, block: Block) -> tuple[dict[int, Tensor], list[Skipped]]:
    """Heatmaps (H, W) by position in the block; an image without one is skipped alone."""
    pixels, targets = padded(block.pixels).clone(), padded(block.targets).clone()
    failed: list[Skipped] = []
    left = list(range(len(block.ids)))
    while left:
        try:
            maps = heatmaps(classifier, pixels, targets, method)
            return {row: maps[row] for row in left}, failed
        except HeatmapError as error:
            at_fault = left if error.index is None else [error.index]
            failed += [Skipped(block.ids[row], method.name, str(error)) for row in at_fault if row in left]
            left = [row for row in left if row not in at_fault]
            if left:  # who failed gives the place to one that works
                pixels[at_fault], targets[at_fault] = pixels[left[0]].clone(), targets[left[0]].clone()
    return {}, failed


def block_orders(
    heatmap: Mapping[int, Tensor], method: Method, block: Block, protocol: Protocol, order: str
) -> tuple[dict[int, Tensor], list[Skipped]]:
    """Removal steps (H, W) by position in the block; a heatmap without an order is skipped alone."""
    try:
        steps = removal_steps(torch.stack(list(heatmap.values())), protocol, Order(order)) if heatmap else []
        return dict(zip(heatmap, steps, strict=True)), []
    except (HeatmapError, RegionError) as error:
        if error.index is None:
            raise
        row = list(heatmap)[error.index]
        rest = {other: one for other, one in heatmap.items() if other != row}
        found, failed = block_orders(rest, method, block, protocol, order)
        return found, [Skipped(block.ids[row], method.name, str(error)), *failed]


def score_draw(
    experiment: Experiment,
    block: Block,
    keys: Sequence[ChainKey],
    orders: Mapping[tuple[str, str], Mapping[int, Tensor]],
    progress: Callable[[int], None],
) -> tuple[pd.DataFrame, list[Skipped]]:
    """Score one draw of all chains: every method of an image meets the same fill."""
    protocol = experiment.protocol
    rows: list[tuple[int, ChainKey, Tensor]] = []
    fills: dict[tuple[int, str | None], Tensor] = {}
    for row, name in enumerate(block.ids):
        for key in keys:
            if key.method == "random":
                heatmap = random_heatmap(block.pixels.shape[-2:], seed=protocol.seed, image_id=name, draw=key.draw)
                steps = removal_steps(heatmap.unsqueeze(0), protocol, Order(key.order))[0].to(block.pixels.device)
            elif row in orders.get((key.method, key.order), {}):
                steps = orders[key.method, key.order][row]
            else:
                continue
            own = None if protocol.paired_fill else key.method
            if (row, own) not in fills:
                fills[row, own] = draw_fill(
                    protocol.fill, block.pixels[row], seed=protocol.seed, image_id=name, draw=key.draw, method=own
                )
            rows.append((row, key, steps))
    if not rows:
        return score_frame(block, [], np.empty((0, 1)), np.empty((0, 1))), []
    device = block.pixels.device
    places = {place: index for index, place in enumerate(fills)}
    image = torch.tensor([row for row, _, _ in rows], device=device)
    chains = Chains(
        pixels=block.pixels,
        fill=torch.stack(list(fills.values())).to(device),
        image=image,
        fill_index=torch.tensor(
            [places[row, None if protocol.paired_fill else key.method] for row, key, _ in rows], device=device
        ),
        removal_step=torch.stack([steps for _, _, steps in rows]),
        targets=block.targets[image],
        steps=protocol.steps,
    )
    try:
        logit, probability = score_chains(experiment.engine, chains, progress)
    except CurveError as error:
        if error.index is None:
            raise
        rest = [row for row in range(len(block.ids)) if row != error.index]
        left = {key: {new: steps[old] for new, old in enumerate(rest) if old in steps} for key, steps in orders.items()}
        frame, failed = score_draw(experiment, block.keep(rest), keys, left, progress)
        return frame, [Skipped(block.ids[error.index], None, str(error)), *failed]
    return score_frame(block, [(row, key) for row, key, _ in rows], logit.cpu().numpy(), probability.cpu().numpy()), []


def score_frame(
    block: Block,
    chains: Sequence[tuple[int, ChainKey]],
    logit: np.ndarray[tuple[int, int], np.dtype[np.float32]],
    probability: np.ndarray[tuple[int, int], np.dtype[np.float32]],
) -> pd.DataFrame:
    """One row a score: image, label, predicted, target, method, order, draw, step, logit, probability."""
    points = logit.shape[1]
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
            "step": np.tile(np.arange(points, dtype=np.int16), len(rows)),
            "logit": logit.reshape(-1).astype(np.float32),
            "probability": probability.reshape(-1).astype(np.float32),
        }
    )


def padded(block: Tensor) -> Tensor:
    """A block of `BLOCK` entries, filled up by repeating the first."""
    return torch.cat([block, block[:1].expand(BLOCK - len(block), *block.shape[1:])])
