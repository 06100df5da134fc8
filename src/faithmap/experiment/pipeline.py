"""One block of images through all stages. Read this first: it is the experiment.

images ─► heatmaps ─► removal steps ─► fills ─► scores, one row each
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from faithmap.attribution import unchanged_network
from faithmap.errors import CurveError
from faithmap.experiment.block import (
    Block,
    Heatmaps,
    RemovalSteps,
    block_batch,
    block_heatmaps,
    block_removal_steps,
    kept_examples,
    read_block,
)
from faithmap.experiment.chains import chains_of_draw, engine_chains, score_frame
from faithmap.experiment.measuring import measure_block
from faithmap.experiment.task import ChainKey, Experiment, Result, Task
from faithmap.inference import score_chains
from faithmap.store.records import Skipped


def evaluate_task(
    experiment: Experiment, task: Task, progress: Callable[[int], None] = lambda scores: None
) -> Iterator[Result]:
    """Measure a task, yielding heatmaps and measures first, then the scores of each draw as soon as it is done.

    Args:
        experiment: classifier, methods, protocol and engine.
        task: images and the chains that they miss.
        progress: called with the number of scores computed since the last call.
    """
    # Images.
    block, skipped = read_block(experiment, task.images)
    # Heatmaps, and in which order each removes the regions.
    heatmaps, removal_steps, failed = explain(experiment, task, block)
    skipped += failed
    # What is measured besides the scores.
    measured, failed = measure_block(experiment, task, block, heatmaps)
    skipped = list(dict.fromkeys(skipped + failed))
    yield Result(examples=kept_examples(task, block, heatmaps), measures=measured, skipped=skipped)
    del heatmaps, measured
    # Fills and scores, draw by draw.
    for draw in task.draws:
        keys = [key for key in task.chains if key.draw == draw]
        yield replace(score_draw(experiment, block, keys, removal_steps, task.steps, progress), draw=draw)


def explain(
    experiment: Experiment, task: Task, block: Block
) -> tuple[dict[str, Heatmaps], RemovalSteps, list[Skipped]]:
    """Heatmaps and removal steps of all methods but `random`, whose orders are drawn with each draw."""
    heatmaps: dict[str, Heatmaps] = {}
    removal_steps: dict[tuple[str, str], Heatmaps] = {}
    skipped: list[Skipped] = []
    batch = block_batch(experiment, block)
    wanted = {(key.method, key.order) for key in task.chains}
    kept = {method for methods in task.heatmaps.values() for method in methods}
    kept |= {key.method for key in task.measures}
    with unchanged_network(experiment.classifier, experiment.methods):
        for method in experiment.methods:
            orders = [order for name, order in sorted(wanted) if name == method.name]
            if (orders or method.name in kept) and not method.is_random:
                heatmaps[method.name], failed = block_heatmaps(experiment, method, block, batch)
                skipped += failed
                for order in orders:
                    removal_steps[method.name, order], failed = block_removal_steps(
                        heatmaps[method.name], method, block, experiment.protocol, order
                    )
                    skipped += failed
    return heatmaps, removal_steps, skipped


def score_draw(
    experiment: Experiment,
    block: Block,
    keys: Sequence[ChainKey],
    removal_steps: RemovalSteps,
    steps: Sequence[int],
    progress: Callable[[int], None],
) -> Result:
    """Score one draw of all chains: every method of an image meets the same fill."""
    chains = chains_of_draw(experiment, block, keys, removal_steps)
    if not chains:
        return Result()
    try:
        scored = score_chains(experiment.engine, engine_chains(experiment, block, chains, steps), progress)
    except CurveError as error:
        if error.index is None:
            raise
        # One image at fault: the others are scored without it.
        at = error.index if steps[0] == 0 else chains[error.index].row
        rest = [row for row in range(len(block.ids)) if row != at]
        left = {key: {new: of[old] for new, old in enumerate(rest) if old in of} for key, of in removal_steps.items()}
        result = score_draw(experiment, block.keep(rest), keys, left, steps, progress)
        return replace(result, skipped=[Skipped(block.ids[at], None, str(error)), *result.skipped])
    # A chain that goes on begins at the step before the first missing one, which is stored already.
    logit, probability = (score[:, -len(steps) :].cpu().numpy() for score in scored)
    return Result(scores=score_frame(block, chains, steps, logit, probability))
