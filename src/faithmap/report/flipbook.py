"""What the flipbook needs of a run's stored examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from faithmap import statistics
from faithmap.errors import FaithmapError
from faithmap.perturbation import is_imputed
from faithmap.protocol import RANDOM, Placement, Score
from faithmap.report.packing import Packed, pack, thumbnail
from faithmap.report.summary import Summary, as_json
from faithmap.text import printable

if TYPE_CHECKING:
    from faithmap.store.records import Example

# Bytes of base64 that all examples together may take: the page stays below 15 MB.
BUDGET = 13_500_000


def flipbook(
    summary: Summary, examples: Sequence[Example], budget: int = BUDGET
) -> tuple[dict[str, Any], dict[str, str]]:
    """Examples as JSON, and their pictures as base64 by name.

    Args:
        summary: the run's numbers.
        examples: with their heatmaps; as many as fit into the budget are taken, in this order.
        budget: bytes.
    Returns:
        The flipbook's part of the page's data, and blob name → base64.
    """
    aopc = {
        str(score): statistics.per_image_aopc(summary.frame, str(score), summary.order).iloc[:, -1] for score in Score
    }
    scores = summary.frame[summary.frame["image"].isin([example.image for example in examples])]
    first_draw = scores[scores["draw"] == scores["draw"].min()]
    by_image = dict(list(first_draw.groupby("image", sort=False)))
    shown: list[dict[str, Any]] = []
    blobs: dict[str, str] = {}
    spent, left_out = 0, 0
    for place, example in enumerate(examples):
        rows = by_image.get(example.image)
        packed = None if rows is None else pack_example(summary, example, rows)
        if rows is None or packed is None:
            continue
        spent += len(packed.data)
        if shown and spent > budget:
            left_out = len(examples) - place
            break
        name = f"example-{len(shown)}"
        blobs[name] = packed.data
        shown.append(describe(summary, example, rows, packed, aopc) | {"blob": name})
    note = f"{left_out} of the {len(examples)} stored examples are left out to keep the file small." if left_out else ""
    book = {
        "examples": shown,
        "pair": pair(summary),
        "draws": summary.draws,
        "left_out": note,
        "unknown_fill": unknown_fill(summary, examples),
        "restores": summary.restores,
        "veil": summary.run.protocol.placement is Placement.PIXEL,
    }
    return book, blobs


def unknown_fill(summary: Summary, examples: Sequence[Example]) -> str:
    """Why the true fill cannot be shown; empty where it can."""
    protocol = summary.run.protocol
    if is_imputed(protocol.fill):
        return "The fill is computed anew at every step from the pixels that are left; grey stands for it here."
    try:
        for example in examples[:1]:
            summary.run.fill(example, method=summary.lines[0].method)
    except FaithmapError as error:
        return f"Grey stands for the fill: {error}"
    return ""


def pair(summary: Summary) -> list[str]:
    """The methods that are compared at first: the best and the worst, or the only one and random."""
    own = [line.id for line in summary.lines if line.method != RANDOM]
    return [own[0], own[-1]] if len(own) > 1 else [summary.lines[0].id, summary.lines[-1].id]


def pack_example(summary: Summary, example: Example, rows: pd.DataFrame) -> Packed | None:
    """An example with the methods that were measured on it and have an order; None if there are none."""
    run, draw = summary.run, int(rows["draw"].iloc[0])
    measured = set(rows["method"])
    steps = {}
    for line in summary.lines:
        if line.method in measured and (line.method == RANDOM or line.method in example.heatmaps):
            try:
                steps[line.method] = run.removal_step(example, line.method, summary.order, draw)
            except FaithmapError:  # skipped, and named among what was skipped
                continue
    if not steps:
        return None
    heatmaps = {name: example.heatmaps[name] for name in steps if name != RANDOM}
    if unknown_fill(summary, [example]):
        fills = [torch.full_like(example.pixels, 0.5)]
    else:
        fills = [run.fill(example, draw, method) for method in ([None] if run.protocol.paired_fill else list(steps))]
    return pack(example.pixels, steps, heatmaps, fills, whole_fill=summary.restores)


def describe(
    summary: Summary, example: Example, rows: pd.DataFrame, packed: Packed, aopc: dict[str, pd.Series[float]]
) -> dict[str, Any]:
    """Names, curves of the draw that is shown, and AOPC over all draws."""
    ids = {line.method: line.id for line in summary.lines}
    curves: dict[str, dict[str, Any]] = {str(score): {} for score in Score}
    for method, curve in rows.groupby("method"):
        by_step = curve.set_index("step").reindex(range(summary.steps + 1))
        for score in Score:
            curves[str(score)][ids[str(method)]] = as_json(by_step[str(score)])
    last = {
        score: {
            line.id: value
            for line in summary.lines
            if (example.image, line.method) in values.index
            for value in as_json([values[example.image, line.method]])
            if value is not None
        }
        for score, values in aopc.items()
    }
    height, width = example.pixels.shape[1:]
    return {
        "image": printable(example.image),
        "label_name": summary.class_name(example.label),
        "predicted_name": summary.class_name(example.predicted),
        "target_name": summary.class_name(example.target),
        "height": height,
        "width": width,
        "thumbnail": thumbnail(example.pixels),
        "methods": [{"id": ids[method], "levels": levels} for method, levels in packed.levels.items()],
        "shared_fill": packed.shared_fill,
        "curves": curves,
        "aopc": last,
    }
