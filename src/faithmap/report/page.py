"""The page itself: one HTML file that asks nothing of any network."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import jinja2

from faithmap._version import __version__
from faithmap.errors import StoreError
from faithmap.naming import RANDOM, printable
from faithmap.report import summary as numbers
from faithmap.report.flipbook import flipbook
from faithmap.report.summary import Summary, summarise

if TYPE_CHECKING:
    from faithmap.run import Run
    from faithmap.store import Example

EXAMPLES = 24
_TABLE_COLUMNS = 10
_SCRIPTS = ("chart.js", "flipbook.js", "page.js")


def write_report(run: Run, path: str | Path, *, examples: int = EXAMPLES) -> Path:
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
        temporary.unlink(missing_ok=True)
        raise StoreError(f"{path} could not be written ({error.strerror or error}): choose another place.") from error
    return path


def report_html(run: Run, *, examples: int = EXAMPLES) -> str:
    """The page as text; see `write_report`."""
    summary = summarise(run)
    curves = numbers.curves(summary)
    book, blobs = flipbook(summary, run.examples(examples) if examples else [])
    images = summary.frame["image"].nunique()
    draws, steps = summary.draws, summary.steps
    classifier = printable(run.manifest["classifier"]["name"])
    image_set = run.manifest.get("image_set")
    facts = [
        ("images", numbers.grouped(images)),
        ("methods", str(sum(line.method != RANDOM for line in summary.lines))),
        ("steps", str(steps)),
        ("draws", str(draws)),
        ("scores", numbers.grouped(len(summary.frame))),
        ("protocol", run.protocol.name),
    ]
    context = {
        "title": f"{classifier}, {images} images",
        "kicker": f"{classifier} on {images} images" + (f" of {printable(image_set)}" if image_set else ""),
        "headline": numbers.headline(summary),
        "unfinished": unfinished(run, summary),
        "facts": facts,
        "ranking": numbers.ranking(summary),
        "subsets": numbers.subsets(summary),
        "details": numbers.details(run, summary),
        **value_table(summary, curves),
    }
    return render(summary, book, blobs, {"curves": curves}, context)


def flipbook_html(run: Run, image: str | None = None, *, examples: int = 8, height: int = 860) -> str:
    """The flipbook alone, as a frame that a notebook shows inline.

    Args:
        run: a run folder.
        image: an image's id; None takes the stored sample, as far as `examples` goes.
        examples: how many images are embedded when none is named.
        height: of the frame, in pixels.
    Raises:
        StoreError: no heatmaps are stored, or none of this image; the message says which there are.
    """
    summary = summarise(run)
    book, blobs = flipbook(summary, stored(run, image, examples))
    page = render(summary, book, blobs, {}, {"embedded": True, "title": printable(image or "flipbook")})
    return (
        f'<iframe title="faithmap flipbook" sandbox="allow-scripts" width="100%" height="{height:d}" '
        f'style="border:0" srcdoc="{html.escape(page)}"></iframe>'
    )


def stored(run: Run, image: str | None, count: int) -> Sequence[Example]:
    """Examples with heatmaps: one by its id, or the sample.

    Raises:
        StoreError: none.
    """
    found = run.examples(None if image is not None else count)
    if image is None and found:
        return found
    chosen = [example for example in found if example.image == image]
    if chosen:
        return chosen
    if not found:
        raise StoreError(f"{run.folder} holds no heatmaps: run again into a new folder.")
    known = ", ".join(f"'{printable(example.image)}'" for example in found[:24])
    raise StoreError(f"no heatmaps of image '{printable(str(image))}' are stored; there are heatmaps of {known}.")


def run_html(run: Run) -> str:
    """A run in a notebook: the headline, a small figure and the ranking. No script, no style sheet."""
    summary = summarise(run)
    table = numbers.ranking(summary)
    headline = numbers.headline(summary)
    return template("notebook.html").render(
        headline=headline, ranking=table, folder=printable(str(run.folder)), unfinished=unfinished(run, summary)
    )


def unfinished(run: Run, summary: Summary) -> str:
    """A sentence about a run that is not done; empty otherwise."""
    if run.manifest.get("finished"):
        return ""
    have, asked = summary.frame["image"].nunique(), len(run.manifest["images"])
    return f"This run is not finished: {have} of {asked} images are there so far. All numbers are preliminary."


def value_table(summary: Summary, curves: Mapping[str, Any]) -> dict[str, Any]:
    """The figure's values at some steps, for those who do not see it."""
    shown = curves[summary.score].get("relative") or curves[summary.score]["raw"]
    stride = max(1, -(-summary.steps // _TABLE_COLUMNS))
    steps = sorted({*range(stride, summary.steps + 1, stride), summary.steps})
    unit = numbers.decimals([value for curve in shown.values() for value in curve["mean"] if value is not None])

    def row(values: Sequence[float | None]) -> list[str]:
        found = [values[step] for step in steps]
        return ["–" if value is None else numbers.number(value, unit) for value in found]

    rows = [{"label": line.label, "values": row(shown[line.id]["mean"])} for line in summary.lines if line.id in shown]
    return {"table_steps": steps, "table_rows": rows}


def render(
    summary: Summary, book: dict[str, Any], blobs: Mapping[str, str], data: Mapping[str, Any], context: Mapping[str, Any]
) -> str:
    """Fill the template; everything from outside is escaped, and a policy forbids what might slip through."""
    lines = [line.to_json() for line in summary.lines]
    reference = next((line.id for line in summary.lines if line.method == RANDOM), None)
    longest = max(len(line.label) for line in summary.lines)
    everything = {
        "methods": lines,
        "reference": reference,
        "score": summary.score,
        "steps": summary.steps,
        "label_width": min(230, 34 + 8 * longest),
        "flipbook": book,
        **data,
    }
    style = asset("page.css")
    script = '"use strict";\n' + "".join(asset(name) for name in _SCRIPTS)
    return template("page.html").render(
        {
            "version": __version__,
            "policy": policy(style, script),
            "style": style,
            "script": script,
            "data": script_json(everything),
            "methods": lines,
            "score": summary.score,
            "steps": summary.steps,
            "has_random": summary.has_random,
            "flipbook": book,
            "blobs": blobs,
            **context,
        }
    )


def policy(style: str, script: str) -> str:
    """A Content Security Policy: no network at all, and only our own style sheet and script run."""
    return (
        f"default-src 'none'; img-src data:; style-src {source_hash(style)}; script-src {source_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )


def source_hash(text: str) -> str:
    """A source expression that admits exactly this text."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def script_json(value: object) -> str:
    """JSON that cannot end the script element that it stands in."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@cache
def asset(name: str) -> str:
    """A file of this package."""
    return resources.files("faithmap.report").joinpath(name).read_text(encoding="utf-8")


@cache
def template(name: str) -> jinja2.Template:
    """A template that escapes whatever is put into it."""
    loader = jinja2.FunctionLoader(asset)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.Undefined)
    return environment.get_template(name)
