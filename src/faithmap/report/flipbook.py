"""What the flipbook needs of a run's stored examples."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from faithmap.errors import FaithmapError
from faithmap.perturbation import is_imputed
from faithmap.protocol import RANDOM, Placement
from faithmap.report.packing import Packed, pack, thumbnail
from faithmap.report.summary import Summary, as_json
from faithmap.report.templates import script_json
from faithmap.text import printable

if TYPE_CHECKING:
    from faithmap.store.records import Example

# Bytes of base64 that all examples together may take: the page stays below 15 MB.
BUDGET = 13_500_000
# Beside the page, where the examples are files of their own.
FOLDER = "flipbook"


def flipbook(
    summary: Summary, examples: Iterable[Example], budget: int = BUDGET
) -> tuple[dict[str, Any], dict[str, str]]:
    """Examples as JSON, and what is needed to show each as text by name.

    Args:
        summary: the run's numbers.
        examples: with their heatmaps; as many as fit into the budget are taken, in this order.
        budget: bytes.
    Returns:
        The flipbook's part of the page's data, and name → JSON of one example.
    """
    examples = list(examples)
    shown: list[dict[str, Any]] = []
    blobs: dict[str, str] = {}
    spent = 0
    for place, (entry, details, _) in entries(summary, examples):
        text = script_json(details)
        spent += len(text)
        if shown and spent > budget:
            left = len(examples) - place
            note = f"{left} of the {len(examples)} stored examples are left out to keep the file small; "
            return book(summary, examples[:1], shown, note + "faithmap report --folder shows them all."), blobs
        name = f"example-{len(shown)}"
        blobs[name] = text
        shown.append(entry | {"blob": name})
    return book(summary, examples[:1], shown), blobs


def flipbook_files(
    summary: Summary, examples: Iterable[Example], write: Callable[[str, bytes], None]
) -> dict[str, Any]:
    """Examples as files that the page loads when they are looked at: a script and a thumbnail for each.

    Args:
        summary: the run's numbers.
        examples: with their heatmaps; one at a time is in memory.
        write: (name, bytes) → a file beside the page.
    Returns:
        The flipbook's part of the page's data.
    """
    shown: list[dict[str, Any]] = []
    first: list[Example] = []
    for _, (entry, details, example) in entries(summary, examples):
        first = first or [example]
        name = f"{len(shown):05d}"
        write(f"{name}.js", f"faithmapExample({len(shown)}, {script_json(details)});\n".encode("ascii"))
        _, _, picture = entry.pop("thumbnail").partition(",")
        write(f"{name}.jpg", base64.b64decode(picture))
        shown.append(entry | {"file": f"{FOLDER}/{name}.js", "thumbnail": f"{FOLDER}/{name}.jpg"})
    return book(summary, first, shown)


def entries(
    summary: Summary, examples: Iterable[Example]
) -> Iterator[tuple[int, tuple[dict[str, Any], dict[str, Any], Example]]]:
    """For each example that can be shown its place, what the page holds of it, and what it loads to show it."""
    first_draw = summary.frame[summary.frame["draw"] == summary.frame["draw"].min()]
    by_image = dict(list(first_draw.groupby("image", sort=False, observed=True)))
    for place, example in enumerate(examples):
        rows = by_image.get(example.image)
        packed = None if rows is None else pack_example(summary, example, rows)
        if rows is not None and packed is not None:
            yield place, (outlined(summary, example), detailed(summary, rows, packed), example)


def book(
    summary: Summary, examples: Sequence[Example], shown: Sequence[dict[str, Any]], left_out: str = ""
) -> dict[str, Any]:
    """What all examples share."""
    return {
        "examples": shown,
        "pair": pair(summary),
        "wins": {str(score): wins(summary, score) for score in summary.shown_scores},
        "draws": summary.draws,
        "left_out": left_out,
        "unknown_fill": unknown_fill(summary, examples),
        "restores": summary.restores,
        "veil": summary.run.protocol.placement is Placement.PIXEL,
    }


def wins(summary: Summary, score: str) -> dict[str, dict[str, list[int]]]:
    """For each two methods: on how many images the first is better, and on how many both were measured."""
    measured = summary.measured(score)
    columns = {line.id: measured.column(line.method) for line in summary.lines if line.method in measured.methods}
    found: dict[str, dict[str, list[int]]] = {}
    for a, first in columns.items():
        found[a] = {}
        for b, second in columns.items():
            difference = measured.sign * (first - second)
            found[a][b] = [int((difference > 0).sum()), int(np.isfinite(difference).sum())]
    return found


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
    return pack(example.pixels, steps, heatmaps, fills, whole_fill=summary.restores, channels=summary.channels)


def outlined(summary: Summary, example: Example) -> dict[str, Any]:
    """What the strip of pictures needs: names, a thumbnail, the measure over all draws."""
    ids = {line.method: line.id for line in summary.lines}
    values: dict[str, dict[str, float]] = {}
    for score in summary.shown_scores:
        measured = summary.measured(score)
        row = int(np.searchsorted(measured.images.astype(str), example.image))
        found = zip(measured.methods, as_json(measured.values[row]), strict=True)
        values[score] = {ids[name]: value for name, value in found if value is not None}
    height, width = example.pixels.shape[1:]
    return {
        "image": printable(example.image),
        "label_name": summary.output_name(example.label),
        "predicted_name": summary.output_name(example.predicted),
        "target_name": summary.output_name(example.target),
        "height": height,
        "width": width,
        "thumbnail": thumbnail(example.pixels, channels=summary.channels),
        "values": values,
    }


def detailed(summary: Summary, rows: pd.DataFrame, packed: Packed) -> dict[str, Any]:
    """What is needed to leaf through an example: its bytes, and the curves of the draw that is shown."""
    ids = {line.method: line.id for line in summary.lines}
    curves: dict[str, dict[str, Any]] = {score: {} for score in summary.shown_scores}
    for method, curve in rows.groupby("method", observed=True):
        by_step = curve.set_index("step").reindex(summary.points)
        for score in summary.shown_scores:
            curves[score][ids[str(method)]] = as_json(by_step[score])
    return {
        "methods": [{"id": ids[method], "levels": levels} for method, levels in packed.levels.items()],
        "shared_fill": packed.shared_fill,
        "curves": curves,
        "packed": packed.data,
    }
