"""One block of images through all stages. Read this first: it is the experiment.

images ─► heatmaps ─► removal steps ─► fills ─► scores, one row each
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from faithmap.attribution import unchanged_network
from faithmap.errors import CurveError
from faithmap.experiment.block import (
    Block,
    Heatmaps,
    Orders,
    block_batch,
    block_heatmaps,
    block_orders,
    kept_examples,
    read_block,
)
from faithmap.experiment.chains import draw_chains, draw_orders, score_frame
from faithmap.experiment.task import ChainKey, Experiment, Result, Task
from faithmap.inference import score_chains
from faithmap.store.records import Skipped


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
    with unchanged_network(experiment.classifier, experiment.methods):
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
