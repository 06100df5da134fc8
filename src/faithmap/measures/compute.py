"""Measures of a block of images, as rows: one value per image, method, measure and draw."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from faithmap.attribution import Method
from faithmap.classifiers import Classifier
from faithmap.errors import MeasureError
from faithmap.measures.measure import Measure
from faithmap.measures.subject import Subject, recomputable
from faithmap.randomness import random_heatmap
from faithmap.text import first_line

COLUMNS = ("image", "group", "method", "measure", "draw", "value")
Outcome = float | str
"""A value, or the reason why there is none."""


@dataclass(frozen=True)
class Value:
    """What one measure says of one method on one image."""

    image: str
    method: str
    measure: str
    draw: int
    value: float


@dataclass(frozen=True)
class Unmeasured:
    """What could not be measured."""

    image: str
    method: str
    measure: str
    reason: str


def compute_measures(
    subject: Subject,
    methods: Sequence[Method],
    heatmaps: Mapping[str, Mapping[int, Tensor]],
    measures: Sequence[Measure],
    draws: int = 1,
) -> tuple[list[Value], list[Unmeasured]]:
    """Measure all methods on a block of images.

    Every value depends on its image, method, measure, draw and the seed alone; not on what else is in the block.

    Args:
        subject: images, classes, network and masks; its `draw` is not used.
        methods: heatmap methods; orders of `random` are drawn here.
        heatmaps: method → row of the subject → heatmap (H, W); images without a heatmap are missing.
        measures: those from scores are left out: they follow from the run's scores.
        draws: repetitions of measures that have randomness.
    Returns:
        The values, and what could not be measured, with reasons. A failure concerns one image, method and measure. A
        method to which a measure does not apply (see `why_not`) has neither.
    """
    values: list[Value] = []
    failed: list[Unmeasured] = []
    asked = [one for one in measures if one.needs != "scores"]
    for draw in range(max([draws if one.drawn else 1 for one in asked], default=0)):
        now = subject.at(draw)
        if draw == 0 or any(method.is_random for method in methods):
            maps = {method: _maps(now, method, heatmaps) for method in methods}
        for one in asked:
            if draw > 0 and not one.drawn:
                continue
            fitting = {method: found for method, found in maps.items() if found and why_not(one, method) is None}
            for (method_name, row), outcome in _outcomes(now, one, fitting).items():
                image = subject.ids[row]
                if isinstance(outcome, str):
                    failed.append(Unmeasured(image, method_name, one.name, outcome))
                else:
                    values.append(Value(image, method_name, one.name, draw, outcome))
    return values, failed


def why_not(measure: Measure, method: Method) -> str | None:
    """Why a measure means nothing for a method, whatever the image; None where it does."""
    if measure.applies is not None and (reason := measure.applies(method)) is not None:
        return reason
    if measure.heatmaps == (0,):
        return None
    if method.is_random:
        return f"{measure.name} asks how heatmaps react; those of '{method.name}' are drawn, whatever the network."
    if not recomputable(method):
        return f"{measure.name} computes heatmaps anew; those of '{method.name}' are given."
    return None


def measure_cost(measure: Measure, classifier: Classifier, size: tuple[int, int], methods: int) -> tuple[int, int]:
    """Forward passes per image, and heatmaps per image and method, of one draw.

    Args:
        measure: see `Measure.passes`.
        classifier: its layers with weights count.
        size: height and width of the images, in pixels.
        methods: how many heatmap methods are measured.
    """
    cell = int(measure.spec.get("parameters", {}).get("cell", 1))
    layers = sum(1 for one in classifier.module.modules() if next(one.parameters(recurse=False), None) is not None)
    return measure.passes(layers=layers, cells=(size[0] // cell) * (size[1] // cell), methods=methods)


def value_frame(values: Sequence[Value], groups: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Values as a tidy frame with the columns `COLUMNS`; an image without a group is its own."""
    known = groups or {}
    rows = [(v.image, known.get(v.image, v.image), v.method, v.measure, v.draw, v.value) for v in values]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _maps(subject: Subject, method: Method, heatmaps: Mapping[str, Mapping[int, Tensor]]) -> Mapping[int, Tensor]:
    if not method.is_random:
        return heatmaps.get(method.name, {})
    drawn = {
        row: random_heatmap(subject.size, seed=subject.seed, image_id=name, draw=subject.draw)
        for row, name in enumerate(subject.ids)
    }
    return {row: one.to(subject.pixels.device) for row, one in drawn.items()}


Maps = Mapping[Method, Mapping[int, Tensor]]


def _outcomes(subject: Subject, measure: Measure, maps: Maps) -> dict[tuple[str, int], Outcome]:
    """By method and row."""
    if measure.function is None:
        raise MeasureError(f"'{measure.name}' was read from a run folder: name it to compute it.")
    compute = {"heatmap": _of_heatmaps, "masks": _of_masks, "network": _of_network, "method": _of_methods}
    found: dict[tuple[str, int], Outcome] = {}
    for key, outcome in compute[measure.needs](subject, measure.function, maps).items():
        finite = isinstance(outcome, str) or torch.isfinite(torch.tensor(outcome, dtype=torch.float64)).item()
        found[key] = outcome if finite else f"{measure.name} is {outcome:g}: it is not defined here."
    return found


def _of_heatmaps(subject: Subject, function: Callable[..., Any], maps: Maps) -> dict[tuple[str, int], Outcome]:
    def value(heatmap: Tensor) -> float:
        return _number(function(heatmap.unsqueeze(0)))

    return {(m.name, row): _guarded(value, heatmap) for m, found in maps.items() for row, heatmap in found.items()}


def _of_masks(subject: Subject, function: Callable[..., Any], maps: Maps) -> dict[tuple[str, int], Outcome]:
    def value(row: int, heatmap: Tensor) -> float:
        mask = subject.masks.get(subject.ids[row])
        if mask is None:
            raise MeasureError(f"image '{subject.ids[row]}' has no mask: give one with --masks, named by its id.")
        if isinstance(mask, str):
            raise MeasureError(mask)
        if tuple(mask.shape) != tuple(heatmap.shape):
            raise MeasureError(
                f"the mask of image '{subject.ids[row]}' is {tuple(mask.shape)}, its heatmap is "
                f"{tuple(heatmap.shape)}: give masks at the network's input size."
            )
        return _number(function(heatmap.unsqueeze(0), mask.to(heatmap.device).unsqueeze(0)))

    return {(m.name, row): _guarded(value, row, heatmap) for m, found in maps.items() for row, heatmap in found.items()}


def _of_network(subject: Subject, function: Callable[..., Any], maps: Maps) -> dict[tuple[str, int], Outcome]:
    """Image by image, with the heatmaps of all methods together; one by one where they fail together."""
    found: dict[tuple[str, int], Outcome] = {}
    for row in range(len(subject)):
        mine = {method.name: rows[row] for method, rows in maps.items() if row in rows}
        if not mine:
            continue
        one = subject.row(row)
        together = _guarded(function, one, torch.stack(list(mine.values())))
        for place, (name, heatmap) in enumerate(mine.items()):
            alone = isinstance(together, str)
            outcome = _guarded(function, one, heatmap.unsqueeze(0)) if alone else together[place]
            found[name, row] = outcome if isinstance(outcome, str) else _number(outcome)
    return found


def _of_methods(subject: Subject, function: Callable[..., Any], maps: Maps) -> dict[tuple[str, int], Outcome]:
    outcome = _guarded(function, subject, maps)
    if not isinstance(outcome, str):
        return dict(outcome)
    # A method that fails as a whole does not take the others with it.
    if len(maps) > 1:
        return {
            k: v for method, rows in maps.items() for k, v in _of_methods(subject, function, {method: rows}).items()
        }
    return {(method.name, row): outcome for method, rows in maps.items() for row in rows}


def _number(found: Any) -> float:
    return float(torch.as_tensor(found).reshape(()))


def _guarded(compute: Callable[..., Any], *arguments: Any) -> Any:
    """What it returns, or in words why it fails; running out of memory is not the measure's fault."""
    try:
        return compute(*arguments)
    except (torch.cuda.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # a measure may be anybody's code
        if "out of memory" in str(error) or "can't allocate memory" in str(error):
            raise
        return first_line(error)
