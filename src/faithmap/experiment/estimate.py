"""What a run would cost, from what is missing and half a minute of measuring."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch

from faithmap.attribution import Method
from faithmap.experiment.block import Block, RemovalSteps, block_batch, block_heatmaps, block_removal_steps, read_block
from faithmap.experiment.chains import BlockChain, chains_of_draw, engine_chains, score_frame
from faithmap.experiment.executors import Executor, LocalExecutor
from faithmap.experiment.planning import Plan, input_size
from faithmap.experiment.task import Experiment, Task
from faithmap.inference import score_chains
from faithmap.measures.compute import measure_cost
from faithmap.protocol import RANDOM
from faithmap.store.folder import Store

SECONDS = 20.0


@dataclass(frozen=True)
class Estimate:
    """What is left to do, and what it takes.

    Attributes:
        images, methods, orders, draws, random_draws, points: what is asked for; points are the steps that are scored.
        scores: rows that are not stored yet.
        forward_passes: what the dense engine would need for them (step 0 is shared by all methods of a draw).
        heatmaps: how many are computed.
        measure_passes, measure_heatmaps: what measures take beyond that: forward passes, and heatmaps computed anew.
        scores_per_second: of one worker.
        seconds_per_task: for reading the images of a task and computing their heatmaps.
        workers: over which the work is spread.
        seconds: how long it takes with its measures, start-up left out.
        bytes: what it takes on the disk.
    """

    images: int
    methods: int
    orders: int
    draws: int
    random_draws: int
    points: int
    scores: int
    forward_passes: int
    heatmaps: int
    measure_passes: int
    measure_heatmaps: int
    scores_per_second: float
    seconds_per_task: float
    workers: int
    seconds: float
    bytes: int


def estimate(planned: Plan, executor: Executor | None = None, seconds: float = SECONDS) -> Estimate:
    """What a run would cost. Writes nothing.

    Args:
        planned: see `faithmap.run.plan`.
        executor: where it would be computed; measured is one worker's work in this process.
        seconds: how long to measure, at most (the heatmaps of a task are always computed).
    """
    experiment, tasks, protocol = planned.experiment, planned.tasks, planned.experiment.protocol
    workers = int((executor or LocalExecutor()).describe()["workers"])
    scores = sum(task.scores for task in tasks)
    rate, task_seconds, row_bytes = measured(experiment, tasks, seconds) if tasks else (float("inf"), 0.0, 0.0)
    height, width = input_size(planned.images, experiment.classifier)
    passes, anew = (
        sum(found)
        for found in zip((0, 0), *(measure_passes(experiment, task, (height, width)) for task in tasks), strict=True)
    )
    computed = sum(len(task.images) * len(heatmap_methods(experiment, task)) for task in tasks)
    per_heatmap = task_seconds * len(tasks) / computed if computed else 0.0
    spent = (scores + passes) / rate + task_seconds * len(tasks) + anew * per_heatmap
    kept = (
        sum(experiment.classifier.channels + 4 * len(methods) for task in tasks for methods in task.heatmaps.values())
        * height
        * width
    )
    return Estimate(
        images=len(planned.images),
        methods=len(experiment.methods),
        orders=len(protocol.orders),
        draws=protocol.draws,
        random_draws=protocol.draws_of(RANDOM),
        points=len(protocol.scored_steps()),
        scores=scores,
        forward_passes=sum(map(forward_passes, tasks)),
        heatmaps=computed,
        measure_passes=passes,
        measure_heatmaps=anew,
        scores_per_second=rate,
        seconds_per_task=task_seconds,
        workers=workers,
        seconds=spent / min(workers, max(1, len(tasks))),
        bytes=int(scores * row_bytes) + kept,
    )


def forward_passes(task: Task) -> int:
    """Of the dense engine: step 0 once per image and draw, or the step before the first missing one per chain."""
    chains, steps = len(task.chains), len(task.steps)
    alone = chains * (steps - 1) + len(task.draws) if task.steps[0] == 0 else chains * (steps + 1)
    return len(task.images) * alone if chains else 0


def measure_passes(experiment: Experiment, task: Task, size: tuple[int, int]) -> tuple[int, int]:
    """Forward passes and heatmaps that the measures of a task take."""
    known = {measure.name: measure for measure in experiment.measures}
    # How many methods: most measures score the same perturbed images for all of them.
    together = Counter((key.measure, key.draw) for key in task.measures)
    forward = anew = 0
    for (name, _), methods in together.items():
        passes, heatmaps = measure_cost(known[name], experiment.classifier, size, methods)
        forward, anew = forward + passes, anew + methods * heatmaps
    return len(task.images) * forward, len(task.images) * anew


def heatmap_methods(experiment: Experiment, task: Task) -> list[Method]:
    """The methods whose heatmaps a task needs."""
    names = {key.method for key in task.chains} | {key.method for key in task.measures}
    names |= {name for names in task.heatmaps.values() for name in names}
    return [method for method in experiment.methods if method.name in names and not method.is_random]


class _EnoughError(Exception):
    pass


def measured(experiment: Experiment, tasks: Sequence[Task], seconds: float) -> tuple[float, float, float]:
    """Scores a second, seconds for the images of a task, bytes a row; from the largest task."""
    task = max(tasks, key=lambda one: one.scores)
    block, orders, task_seconds = heatmaps_of(experiment, task, seconds / 4)  # the first time, everything is slower
    if task_seconds < seconds / 4:
        block, orders, task_seconds = heatmaps_of(experiment, task, seconds / 4)
    keys = [key for key in task.chains if key.draw == min(task.draws, default=0)]
    chains = chains_of_draw(experiment, block, keys, orders)
    if not chains:  # measures alone
        return passes_per_second(experiment, block) if task.measures else float("inf"), task_seconds, 0.0
    score_chains(experiment.engine, engine_chains(experiment, block, chains, task.steps[:3]))
    found, begun = 0, time.perf_counter()

    def count(scores: int) -> None:
        nonlocal found
        found += scores
        if time.perf_counter() - begun > seconds / 2:
            raise _EnoughError

    with suppress(_EnoughError):
        score_chains(experiment.engine, engine_chains(experiment, block, chains, task.steps), count)
    rate = found / (time.perf_counter() - begun)
    return rate, task_seconds, row_bytes(block, chains, task.steps)


def passes_per_second(experiment: Experiment, block: Block) -> float:
    """Inputs that go through the network in a second, as many at a time as a block has, the first pass left out."""
    inputs = experiment.classifier.normalise(block.pixels).to(experiment.classifier.dtype)
    times = []
    for _ in range(2):
        begun = time.perf_counter()
        with torch.no_grad():
            experiment.classifier.outputs(inputs)
        times.append(time.perf_counter() - begun)
    return len(inputs) / times[-1] if len(inputs) else float("inf")


def heatmaps_of(experiment: Experiment, task: Task, budget: float) -> tuple[Block, RemovalSteps, float]:
    """Read the images of a task and compute heatmaps and orders, and how long it takes for all methods.

    Methods that the budget, in seconds, leaves no time for are taken to be like the others.
    """
    begun = time.perf_counter()
    block, _ = read_block(experiment, task.images)
    batch = block_batch(experiment, block)
    reading = time.perf_counter() - begun
    methods, orders, done = heatmap_methods(experiment, task), {}, 0
    for method in methods:
        found, _ = block_heatmaps(experiment, method, block, batch)
        for order in sorted({key.order for key in task.chains if key.method == method.name}):
            orders[method.name, order], _ = block_removal_steps(found, method, block, experiment.protocol, order)
        done += 1
        if time.perf_counter() - begun > budget:
            break
    computing = time.perf_counter() - begun - reading
    return block, orders, reading + computing * len(methods) / max(done, 1)


def row_bytes(block: Block, chains: Sequence[BlockChain], steps: Sequence[int]) -> float:
    """What a row takes in a part, by writing one to memory (scores hardly compress, so random ones do)."""
    noise = np.random.default_rng(0).random((2, len(chains), len(steps)), dtype=np.float32)
    frame = score_frame(block, chains, steps, noise[0], noise[1])
    store = Store("memory://faithmap-estimate")
    name = store.write_part(frame)
    size = len(store.storage.read(name))
    store.storage.remove(name)
    return size / len(frame)
