"""The page itself: one HTML file that asks nothing of any network."""

from __future__ import annotations

import contextlib
import html
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from faithmap._version import __version__
from faithmap.errors import StoreError
from faithmap.protocol import RANDOM
from faithmap.report import summary as numbers
from faithmap.report.flipbook import flipbook
from faithmap.report.summary import Summary, summarise
from faithmap.report.templates import asset, policy, script_json, template
from faithmap.store.reading import EXAMPLES, StoredRun
from faithmap.text import decimals, number, printable

if TYPE_CHECKING:
    from faithmap.store.records import Example

_TABLE_COLUMNS = 10
_HEIGHT = 1060
_SCRIPTS = ("chart.js", "flipbook.js", "page.js")


def write_report(run: StoredRun, path: str | Path, *, examples: int = EXAMPLES) -> Path:
    """Write the answer of a run, finished or not, as one HTML file.

    Args:
        run: a run folder; no model is loaded.
        path: of the file; replaced as a whole.
        examples: how many of the stored images the flipbook shows; fewer when the file would pass 15 MB.
    Returns:
        The path.
    Raises:
        StoreError: a run without scores, or a path that cannot be written.
    """
    path = Path(path)
    page = report_html(run, examples=examples)
    temporary = path.with_name(f".tmp-{uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(page.encode("utf-8", "backslashreplace"))
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise StoreError(f"{path} could not be written ({error.strerror or error}): choose another place.") from error
    return path


def report_html(run: StoredRun, *, examples: int = EXAMPLES) -> str:
    """The page as text; see `write_report`."""
    summary = summarise(run)
    curves = numbers.curves(summary)
    book, blobs = flipbook(summary, run.examples(examples) if examples else [])
    context = {
        **numbers.opening(summary),
        "ranking": numbers.ranking(summary),
        "subsets": numbers.subsets(summary),
        "details": numbers.details(summary),
        **value_table(summary, curves),
    }
    return render(summary, book, blobs, {"curves": curves}, context)


def flipbook_html(run: StoredRun, image: str | None = None, *, examples: int = 8, height: int | None = None) -> str:
    """The flipbook alone, as a frame that a notebook shows inline.

    Args:
        run: a run folder.
        image: an image's id; None takes the stored sample, as far as `examples` goes.
        examples: how many images are embedded when none is named.
        height: of the frame in pixels; by default what a wide notebook needs.
    Raises:
        StoreError: no heatmaps are stored, or none of this image; the message says which there are.
    """
    summary = summarise(run)
    book, blobs = flipbook(summary, stored(run, image, examples))
    page = render(summary, book, blobs, {}, {"embedded": True, "title": printable(image or "flipbook")})
    height = height or (_HEIGHT if len(book["examples"]) > 1 else _HEIGHT - 150)
    return (
        f'<iframe title="faithmap flipbook" sandbox="allow-scripts" width="100%" height="{height:d}" '
        f'style="border:0" srcdoc="{html.escape(page)}"></iframe>'
    )


def stored(run: StoredRun, image: str | None, count: int) -> Sequence[Example]:
    """Examples with heatmaps: one by its id, or the sample.

    Raises:
        StoreError: none.
    """
    found = run.examples(None if image is not None else count)
    chosen = [example for example in found if image in (None, example.image)]
    if chosen:
        return chosen
    if not found:
        raise StoreError(f"{run.store.url} holds no heatmaps: run again into a new folder.")
    known = ", ".join(f"'{printable(example.image)}'" for example in found[:EXAMPLES])
    raise StoreError(f"no heatmaps of image '{printable(str(image))}' are stored; there are heatmaps of {known}.")


def value_table(summary: Summary, curves: Mapping[str, Any]) -> dict[str, Any]:
    """The figure's values at some steps, for those who do not see it."""
    shown = curves[summary.score].get("relative") or curves[summary.score]["raw"]
    stride = max(1, -(-summary.steps // _TABLE_COLUMNS))
    steps = sorted({*range(stride, summary.steps + 1, stride), summary.steps})
    unit = decimals([value for curve in shown.values() for value in curve["mean"] if value is not None])

    def row(values: Sequence[float | None]) -> list[str]:
        found = [values[step] for step in steps]
        return ["–" if value is None else number(value, unit) for value in found]

    rows = [{"label": line.label, "cells": row(shown[line.id]["mean"])} for line in summary.lines if line.id in shown]
    return {"table_steps": steps, "table_rows": rows}


def render(
    summary: Summary,
    book: Mapping[str, Any],
    blobs: Mapping[str, str],
    data: Mapping[str, Any],
    context: Mapping[str, Any],
) -> str:
    """Fill the template; everything from outside is escaped, and a policy forbids what might slip through."""
    lines = [line.to_json() for line in summary.lines]
    everything = {
        "methods": lines,
        "reference": next((line.id for line in summary.lines if line.method == RANDOM), None),
        "score": summary.score,
        "steps": summary.steps,
        "sign": summary.sign,
        "x_label": summary.axis,
        "label_width": min(230, 34 + 8 * max(len(line.label) for line in summary.lines)),
        "flipbook": book,
        **data,
    }
    style = asset("page.css")
    script = '"use strict";\n' + "".join(asset(name) for name in _SCRIPTS)
    return template("page.html").render(
        {
            "embedded": False,
            "version": __version__,
            "policy": policy(style, script),
            "style": style,
            "script": script,
            "data": script_json(everything),
            "methods": lines,
            "score": summary.score,
            "steps": summary.steps,
            "has_random": summary.has_random,
            "restores": summary.restores,
            "does": summary.does,
            "flipbook": book,
            "blobs": blobs,
            **context,
        }
    )
