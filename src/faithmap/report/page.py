"""The page itself: one HTML file that asks nothing of any network."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faithmap._version import __version__
from faithmap.checks import as_integer
from faithmap.errors import StoreError
from faithmap.files import as_path, open_regular, replacing, writable
from faithmap.protocol import RANDOM
from faithmap.report import extras, sections
from faithmap.report.flipbook import FOLDER, flipbook, flipbook_files
from faithmap.report.several import Several, choice, summaries
from faithmap.report.summary import Summary, summarise
from faithmap.report.templates import asset, palette, policy, script_json, template
from faithmap.store.reading import EXAMPLES, StoredRun
from faithmap.text import decimals, number, printable

if TYPE_CHECKING:
    from faithmap.store.records import Example

_TABLE_COLUMNS = 10
_HEIGHT = 700
# On a page of several runs, whose flipbook is that of the first.
SEVERAL_EXAMPLES = 12
_BEGINS = b"<!doctype html>"
SCRIPTS = ("numbers.js", "chart.js", "pictures.js", "flipbook.js", "page.js")


def write_report(
    run: StoredRun,
    path: str | Path,
    *,
    examples: int | None = None,
    folder: bool = False,
    channels: Sequence[int] | None = None,
) -> Path:
    """Write the answer of a run, finished or not, as one HTML file, or as a folder that loads its examples lazily.

    Args:
        run: a run folder; no model is loaded.
        path: of the file, which is replaced as a whole; or of the folder.
        examples: how many of the stored images the flipbook shows; by default 24 in a file, fewer when it would pass
            15 MB, and all of them in a folder.
        folder: write `index.html` and a folder of examples into `path`.
        channels: which channels of the images are shown, see `faithmap.images.rgb`; by default those that the
            classifier names.
    Returns:
        The path of the page.
    Raises:
        StoreError: a run without scores, or a path that cannot be written.
    """
    if examples is not None:
        examples = as_integer(examples, "examples", 0, 2**31 - 1)
    if folder:
        return _write_folder(run, as_path(path, "path"), examples, channels)
    path = page_place(path)
    write_text(path, report_html(run, examples=EXAMPLES if examples is None else examples, channels=channels))
    return path


def write_several(several: Several, path: str | Path, *, examples: int = SEVERAL_EXAMPLES) -> Path:
    """Write several runs as one HTML file: what holds on all of them, and the answer and figure of a chosen one.

    Args:
        several: the runs, the first of which is shown at first, and its flipbook.
        path: of the file, which is replaced as a whole.
        examples: how many of the stored images the flipbook shows.
    Raises:
        StoreError: a run without scores, or a path that cannot be written.
    """
    path = page_place(path)
    found = summaries(several)
    first = next(iter(found.values()))
    book, blobs = flipbook(first, first.run.examples(examples) if examples else [])
    write_text(path, _page(first, book, blobs, several=(several, found)))
    return path


def _write_folder(run: StoredRun, path: Path, examples: int | None, channels: Sequence[int] | None) -> Path:
    def beside(name: str, data: bytes) -> None:
        write_text(path / FOLDER / name, data)

    if path.exists() and not path.is_dir():
        raise StoreError(f"{path} is a file, expected a folder: choose another place.")
    summary = summarise(run, channels)
    book = flipbook_files(summary, run.store.examples(run.example_ids(examples)), beside)
    write_text(path / "index.html", _page(summary, book, {}, files=True))
    return path / "index.html"


def page_place(value: object) -> Path:
    """Where a page is to be written: a new name, or a page that may be replaced.

    Raises:
        StoreError: no path, or a file that is there and is no page, such as a run's manifest.
    """
    path = writable(value, "path")
    try:
        if path.suffix.lower() in (".html", ".htm") or not path.exists():
            return path
        with open_regular(path) as file:
            if file.read(len(_BEGINS)).lower() == _BEGINS:
                return path
    except OSError as error:
        raise StoreError(f"{path} cannot be looked at ({error.strerror or error}): choose another place.") from error
    raise StoreError(f"{path} is there already and is no page: choose the name of a new file, such as report.html.")


def write_text(path: Path, content: str | bytes) -> None:
    """Replace a file as a whole; whatever is not a regular file is left alone.

    Raises:
        StoreError: a path that cannot be written.
    """
    path = writable(path)
    data = content if isinstance(content, bytes) else content.encode("utf-8", "backslashreplace")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise StoreError(f"{path} could not be written ({error.strerror or error}): choose another place.") from error


def report_html(run: StoredRun, *, examples: int = EXAMPLES, channels: Sequence[int] | None = None) -> str:
    """The page as text; see `write_report`."""
    summary = summarise(run, channels)
    book, blobs = flipbook(summary, run.examples(examples) if examples else [])
    return _page(summary, book, blobs)


def _page(
    summary: Summary,
    book: Mapping[str, Any],
    blobs: Mapping[str, str],
    *,
    files: bool = False,
    several: tuple[Several, Mapping[str, Summary]] | None = None,
) -> str:
    opening = sections.opening(summary)
    data = _figure_data(summary, opening["answers"])
    context = {
        **opening,
        "lede": sections.lede(summary),
        "measure": sections.label_of(summary),
        "views": data["views"],
        "subsets": [found for score in summary.shown_scores if (found := sections.subsets(summary, score))["tables"]],
        "scorecard": extras.scorecard(summary),
        "several": None,
        "details": sections.details(summary),
        "value_tables": [value_table(summary, data["curves"], score) for score in summary.shown_scores],
    }
    if several is not None:
        context["several"], shared = _choices(*several)
        context["scores"] = {part["score"]: _all_names(part["score"], several[1]) for part in several[0].parts}
        context["score"] = shared["score"] = next(iter(context["scores"]))
        data |= shared
        context["title"] = context["kicker"] = printable(several[0].title)
    return render(summary, book, blobs, data, context, files=files)


def _figure_data(summary: Summary, answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the script draws the figure of a run from."""
    best = {
        answer["score"]: next((row["id"] for row in answer["ranking"]["rows"] if not row["reference"]), None)
        for answer in answers
    }
    views = sections.curve_names(summary)
    return {
        "curves": sections.curves(summary),
        "best": best,
        "views": views,
        "score_names": summary.score_names,
        "points": summary.points,
        "x_label": summary.axis,
    }


def _choices(several: Several, found: Mapping[str, Summary]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the template, and what the script needs to show any of several runs."""
    choices: list[dict[str, Any]] = []
    figures: dict[str, Any] = {}
    for place, (name, summary) in enumerate(found.items()):
        one = choice(f"r{place}", name, summary, several.pages.get(name, ""))
        figure = figures[one["key"]] = _figure_data(summary, one["answers"])
        tables = [value_table(summary, figure["curves"], score) for score in summary.shown_scores]
        choices.append(one | {"tables": tables, "views": figure["views"]})
    names = next(iter(found.values())).score_names
    parts = [
        {
            **part,
            "named": part["named"] or names.get(part["score"], part["score"]),
            "by": f"by-{part['score']}" if len(several.parts) > 1 else "",
        }
        for part in several.parts
    ]
    context = {"noun": several.noun, "parts": parts, "choices": choices}
    shared = {line.id: line.to_json() for summary in found.values() for line in summary.lines}
    return context, {"choices": figures, "methods": list(shared.values())}


def _all_names(score: str, found: Mapping[str, Summary]) -> str:
    """What a score is called on any of several runs."""
    names = (one.score_names.get(score, next(iter(one.score_names.values()))) for one in found.values())
    return " or ".join(dict.fromkeys(names))


def flipbook_html(
    run: StoredRun,
    image: str | None = None,
    *,
    examples: int = 8,
    height: int | None = None,
    channels: Sequence[int] | None = None,
) -> str:
    """The flipbook alone, as a frame that a notebook shows inline.

    Args:
        run: a run folder.
        image: an image's id; None takes the stored sample, as far as `examples` goes.
        examples: how many images are embedded when none is named.
        height: of the frame in pixels; by default what a wide notebook needs.
        channels: as in `write_report`.
    Raises:
        StoreError: no heatmaps are stored, or none of this image; the message says which there are.
    """
    summary = summarise(run, channels)
    book, blobs = flipbook(summary, stored(run, image, examples))
    page = render(summary, book, blobs, {}, {"embedded": True, "title": printable(image or "flipbook")})
    height = height or (_HEIGHT if len(book["examples"]) > 1 else _HEIGHT - 170)
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


def value_table(summary: Summary, curves: Mapping[str, Any], score: str) -> dict[str, Any]:
    """The figure's values at some steps, for those who do not see it."""
    shown = curves[score].get("relative") or curves[score]["raw"]
    stride = max(1, -(-(len(summary.points) - 1) // _TABLE_COLUMNS))
    places = sorted({*range(stride, len(summary.points), stride), len(summary.points) - 1})
    unit = decimals([value for curve in shown.values() for value in curve["mean"] if value is not None])

    def row(values: Sequence[float | None]) -> list[str]:
        found = [values[place] for place in places]
        return ["–" if value is None else number(value, unit) for value in found]

    rows = [{"label": line.label, "cells": row(shown[line.id]["mean"])} for line in summary.lines if line.id in shown]
    steps = [summary.points[place] for place in places]
    named, by = summary.score_names[score], summary.by(score)
    return {"score": score, "by": by, "named": named, "steps": steps, "rows": rows}


def render(
    summary: Summary,
    book: Mapping[str, Any],
    blobs: Mapping[str, str],
    data: Mapping[str, Any],
    context: Mapping[str, Any],
    *,
    files: bool = False,
) -> str:
    """Fill the template; everything from outside is escaped, and a policy forbids what might slip through."""
    lines = [line.to_json() for line in summary.lines]
    everything = {
        "methods": lines,
        "reference": next((line.id for line in summary.lines if line.method == RANDOM), None),
        "best": {},
        "views": {},
        "score": summary.score,
        "score_names": summary.score_names,
        "points": summary.points,
        "sign": summary.sign,
        "x_label": summary.axis,
        "label_width": min(250, 44 + 8 * max(len(line.label) for line in summary.lines)),
        "flipbook": book,
        **data,
    }
    style = palette() + asset("page.css")
    script = '"use strict";\n' + "".join(asset(name) for name in SCRIPTS)
    return template("page.html").render(
        {
            "embedded": False,
            "files": files,
            "version": __version__,
            "policy": policy(style, script, files=files),
            "style": style,
            "script": script,
            "data": script_json(everything),
            "methods": lines,
            "score": summary.score,
            "scores": summary.score_names,
            "steps": summary.steps,
            "points": summary.points,
            "has_random": summary.has_random,
            "restores": summary.restores,
            "flipbook": book,
            "blobs": blobs,
            **context,
        }
    )
