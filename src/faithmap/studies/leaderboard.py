"""Many runs of a folder as one page that sorts by any column and asks nothing of any network."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from faithmap._version import __version__
from faithmap.errors import FaithmapError, StoreError
from faithmap.files import as_folder
from faithmap.protocol import RANDOM, Placement
from faithmap.report.page import page_place, write_text
from faithmap.report.summary import lines
from faithmap.report.templates import asset, palette, policy, script_json, template
from faithmap.run import Run
from faithmap.statistics import shown_measure
from faithmap.text import counted, decimals, interval, number, of_set, plain, printable

_MOST_FOLDERS = 100_000


@dataclass(frozen=True)
class Row:
    """A method of a run.

    Attributes:
        folder: of the run, below the folder that was given.
        facts: network, images, groups, protocol, question, rank, letters, page.
        values: (name, unit) of a measure → mean, low, high.
    """

    folder: str
    method: str
    facts: dict[str, Any]
    values: dict[tuple[str, str], tuple[float, float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Leaderboard:
    """Rows of all runs of a folder.

    Attributes:
        rows: runs of one question beside each other, best method first.
        heads: (name, unit) of each measure → its line, and whether a high value is good.
        left_out: folder → why it has no rows.
    """

    rows: list[Row]
    heads: dict[tuple[str, str], tuple[str, bool]]
    left_out: dict[str, str]

    @property
    def title(self) -> str:
        """How many runs and methods."""
        runs, methods = len({row.folder for row in self.rows}), len({row.method for row in self.rows})
        return f"{runs} run{'s' * (runs != 1)}, {methods} method{'s' * (methods != 1)}"

    def html(self, beside: Path | None = None) -> str:
        """The page as text.

        Args:
            beside: the folder that it will lie in, so that it links to the pages of runs; None: no links.
        """
        style, script = palette() + asset("page.css"), '"use strict";\n' + asset("page.js")
        return template("leaderboard.html").render(
            title=self.title,
            version=__version__,
            policy=policy(style, script),
            style=style,
            script=script,
            data=script_json({"score": "logit"}),
            left_out=[(printable(name), printable(why, 600)) for name, why in self.left_out.items()],
            heads=self._heads(),
            rows=self._rows(beside),
        )

    def write(self, path: str | Path) -> Path:
        """Write the page.

        Raises:
            StoreError: a path that cannot be written.
        """
        path = page_place(path)
        write_text(path, self.html(path.absolute().parent))
        return path

    def _heads(self) -> list[dict[str, Any]]:
        plain_heads = [("Network", False), ("Images", True), ("Protocol", False), ("Question", False), ("Rank", True)]
        heads = [_head(name, num=num) for name, num in plain_heads]
        heads.append(_head("Letters"))
        for (name, unit), (line, high) in self.heads.items():
            good = f"{unit}, " * bool(unit) + ("high is good" if high else "low is good")
            first = "descending" if high else ""
            label = f"{name} ({unit})" if unit else name
            heads.append(_head(name, num=True, label=label, unit=printable(good), line=printable(line), first=first))
        return [*heads, _head("Run")]

    def _rows(self, beside: Path | None) -> list[dict[str, Any]]:
        looks = {line.method: line for line in lines(sorted({row.method for row in self.rows}))}
        # A run's numbers have as many decimals as they need: those of another network may be a hundred times as large.
        values: dict[tuple[str, tuple[str, str]], list[float]] = {}
        for row in self.rows:
            for name, value in row.values.items():
                values.setdefault((row.folder, name), []).append(value[0])
        digits = {key: decimals(found) for key, found in values.items()}
        return [
            {
                "label": looks[row.method].label,
                "hue_class": looks[row.method].hue,
                "cells": [
                    *(_cell(row.facts[name]) for name in ("network",)),
                    _cell(row.facts["images"], str(row.facts["count"]), unbroken=True),
                    *(_cell(row.facts[name]) for name in ("protocol", "question", "rank", "letters")),
                    *(_value(row.values.get(name), digits.get((row.folder, name), 0)) for name in self.heads),
                    _cell(row.folder) | {"link": _link(row.facts["page"], beside)},
                ],
            }
            for row in self.rows
        ]


def leaderboard(folder: str | Path) -> Leaderboard:
    """All runs of a folder, and of the folders in it, as rows.

    A run that cannot be read or ranked is named and left out.

    Args:
        folder: on a disk.
    Raises:
        StoreError: no folder, or one without any run.
    """
    base = as_folder(folder, "the folder")
    places = list(_run_folders(base))
    if not places:
        raise StoreError(f"{base} holds no run (no manifest.json in it or below): give a folder with run folders.")
    rows: list[Row] = []
    heads: dict[tuple[str, str], tuple[str, bool]] = {}
    left_out: dict[str, str] = {}
    for place in places:
        name = place.relative_to(base).as_posix()
        try:
            found, said = _rows_of(Run(place), place.name if name == "." else name)
        except (FaithmapError, OSError) as error:
            left_out[place.name if name == "." else name] = str(error)
            continue
        rows += found
        heads = said | heads
    rows.sort(key=lambda row: (row.facts["question"], row.facts["network"], row.folder, row.facts["rank"]))
    order = sorted(heads, key=lambda head: -sum(head in row.values for row in rows))
    return Leaderboard(rows, {head: heads[head] for head in order}, left_out)


def _run_folders(base: Path) -> Iterator[Path]:
    """Folders with a manifest, in name order; what lies inside a run belongs to it."""
    for seen, (root, folders, files) in enumerate(os.walk(base)):
        if seen >= _MOST_FOLDERS:
            raise StoreError(f"{base} holds more than {_MOST_FOLDERS:,} folders: give one with fewer.")
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if "manifest.json" in files:
            folders.clear()
            yield Path(root)


def _rows_of(run: Run, name: str) -> tuple[list[Row], dict[tuple[str, str], tuple[str, bool]]]:
    """The methods of a run, best first, and the measures that it has."""
    facts = _facts(run)
    protocol, score = run.protocol, str(run.protocol.score)
    shown = shown_measure(protocol)
    heads, rows = {}, {}
    for measure in dict.fromkeys([shown, *(["srg"] if len(protocol.orders) > 1 else [])]):
        found, ranked = run.measured(measure), run.ranking(measure)
        head = (found.label, found.unit or "")
        heads[head] = ("", found.higher_is_better)
        for row in ranked.to_dict("records"):
            method = str(row["method"])
            if method not in rows:  # the protocol's measure comes first and gives the rank
                own = facts | {"rank": int(row["rank"]), "letters": str(row["letters"])}
                rows[method] = Row(name, method, own)
            ends = (np.nan, np.nan) if method == RANDOM and found.has_random else (row["low"], row["high"])
            rows[method].values[head] = (row["mean"], *ends)
    if run.manifest.measures:
        card = run.scorecard(score)
        for row in card[card["measure"].isin(list(run.manifest.measures))].to_dict("records"):
            if row["method"] not in rows or row["measure"] == shown:
                continue
            head = (str(row["measure"]), str(row["unit"] or ""))
            heads[head] = (str(row["line"]), bool(row["higher_is_better"]))
            rows[row["method"]].values[head] = (row["mean"], row["low"], row["high"])
    return list(rows.values()), heads


def _facts(run: Run) -> dict[str, Any]:
    manifest, protocol = run.manifest, run.protocol
    images = [name for name, one in manifest.images.items() if not one.content.startswith("unreadable")]
    groups = manifest.groups()
    said = counted(len({groups[name] for name in images}), len(images), manifest.group_noun)
    size = protocol.region_size
    region = {Placement.PIXEL: f"{size} pixels", Placement.SEGMENT: "segments"}.get(
        protocol.placement, f"{size}×{size}"
    )
    some = f"{protocol.points} of " if protocol.points <= protocol.steps else ""
    steps = f"{some}{protocol.steps} steps of {region}"
    orders = "+".join(str(order) for order in protocol.orders)
    screening = f", {run.precision}" if run.precision != "float32" else ""
    whole = "" if manifest.finished else " (unfinished)"
    page = run.folder / "report.html"
    return {
        "network": printable(manifest.classifier.name),
        "images": f"{said}{of_set(manifest.image_set, manifest.group_noun)}",
        "count": len(images),
        "protocol": f"{protocol.name}: {steps}, {orders}, {protocol.fill}{screening}{whole}",
        "question": manifest.fingerprint[:8],
        "page": page.absolute() if page.is_file() else None,
    }


def _head(name: str, *, num: bool = False, **more: str) -> dict[str, Any]:
    return {"name": name, "label": name, "unit": "", "line": "", "first": "", "num": num, **more}


def _link(page: Path | None, beside: Path | None) -> str:
    return "" if page is None or beside is None else quote(Path(os.path.relpath(page, beside)).as_posix())


def _cell(text: Any, value: str | None = None, *, unbroken: bool = False) -> dict[str, str]:
    """A cell of text; an unbroken one goes to a new line before a bracket alone."""
    shown = printable(str(text))
    kept = shown.replace(" ", "\u00a0").replace("\u00a0(", " (") if unbroken else shown
    return {"text": kept, "value": shown if value is None else value, "interval": "", "link": ""}


def _value(found: Sequence[float] | None, digits: int) -> dict[str, str]:
    if found is None or not np.isfinite(found[0]):
        return {"text": "–", "value": "", "interval": "", "link": ""}
    mean, low, high = found
    return {"text": number(mean, digits), "value": plain(mean), "interval": interval(low, high, digits), "link": ""}
