"""Measures of a block: what a heatmap is worth beyond the curves, as rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import pandas as pd

from faithmap.attribution import Method
from faithmap.experiment.block import Block, Heatmaps
from faithmap.experiment.task import Experiment, MeasureKey, Task
from faithmap.measures.compute import compute_measures, value_frame, why_not
from faithmap.measures.measure import Measure
from faithmap.measures.subject import Subject
from faithmap.store.records import Skipped


def asked_measures(methods: Sequence[Method], measures: Sequence[Measure], draws: int) -> list[MeasureKey]:
    """Every value that one image should have; measures that follow from the scores are not stored."""
    return [
        MeasureKey(method.name, measure.name, draw)
        for method in methods
        for measure in measures
        if measure.needs != "scores" and why_not(measure, method) is None
        for draw in range(draws if measure.drawn else 1)
    ]


def measure_block(
    experiment: Experiment, task: Task, block: Block, heatmaps: Mapping[str, Heatmaps]
) -> tuple[pd.DataFrame | None, list[Skipped]]:
    """The values that a task lacks; None where there are none. What fails is named, one image and method at a time."""
    if not task.measures or not block.ids:
        return None, []
    subject = Subject(
        classifier=experiment.classifier,
        pixels=block.pixels,
        targets=block.targets,
        ids=block.ids,
        seed=experiment.protocol.seed,
        masks=experiment.masks,
        engine=experiment.engine if experiment.precision == "float32" else None,
    )
    lacking: dict[str, set[str]] = defaultdict(set)  # measure → the methods that lack it
    for key in task.measures:
        lacking[key.measure].add(key.method)
    values, skipped = [], []
    for measure in (one for one in experiment.measures if one.name in lacking):
        methods = [method for method in experiment.methods if method.name in lacking[measure.name]]
        draws = 1 + max(key.draw for key in task.measures if key.measure == measure.name)
        found, failed = compute_measures(subject, methods, heatmaps, [measure], draws)
        asked = {(key.method, key.draw) for key in task.measures if key.measure == measure.name}
        values += [value for value in found if (value.method, value.draw) in asked]
        skipped += [Skipped(one.image, one.method, f"{one.measure}: {one.reason}") for one in failed]
    groups = dict(zip(block.ids, block.groups, strict=True))
    return (value_frame(values, groups) if values else None), skipped
