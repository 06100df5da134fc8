"""From a run to what the page says in numbers and words; all statistics come from `faithmap.statistics`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from faithmap import statistics
from faithmap.errors import CurveError
from faithmap.protocol import RANDOM, Direction, Order, Score
from faithmap.statistics.power import about
from faithmap.statistics.significance import split_letters
from faithmap.store.reading import StoredRun
from faithmap.text import counted, decimals, display_name, grouped, interval, moment, number, plain, printable, words

_HUES = 8
_DASHES = ("", "7 4", "10 3 2.5 3", "3 2", "14 4")
_FAMILIES = {"lrp": 0, "deconvolution": 1, "sensitivity": 2}
# How to read the figure: (whether regions are restored, whether the most relevant go first) → what happens.
_REMOVED = "Regions are removed in the order that a heatmap gives"
_RESTORED = "Regions of the image are brought back onto the fill in the order that a heatmap gives"
_KNOWS = "A heatmap that knows what the network looks at"
_LEDES = {
    (
        False,
        True,
    ): f"{_REMOVED}, most relevant first. {_KNOWS} makes the score fall early: its AOPC, the mean drop so far, "
    "is high.",
    (
        False,
        False,
    ): f"{_REMOVED}, least relevant first. {_KNOWS} keeps the score up: its AOPC, the mean drop so far, is low.",
    (
        True,
        True,
    ): f"{_RESTORED}, most relevant first. {_KNOWS} makes the score rise early: its AOPC, the mean drop so far, "
    "is low.",
    (
        True,
        False,
    ): f"{_RESTORED}, least relevant first. {_KNOWS} makes the score rise late: its AOPC, the mean drop so far, "
    "is high.",
}
_MOST_SUBSETS = 200
_MANY = 100_000


@dataclass(frozen=True)
class Line:
    """How a method is drawn: methods of one family share a hue and differ in their dashes.

    Attributes:
        id: short and harmless, unlike the method's name.
        label: for people.
        hue: a class of the style sheet, ``hue-0`` … ``hue-7`` or ``hue-random``.
        dash: SVG dash pattern.
    """

    id: str
    method: str
    label: str
    hue: str
    dash: str

    def to_json(self) -> dict[str, Any]:
        colour = "var(--random)" if self.method == RANDOM else f"var(--c{self.hue.removeprefix('hue-')})"
        return {"id": self.id, "label": self.label, "hue": colour, "dash": self.dash}


@dataclass(frozen=True)
class Summary:
    """What all parts of the page share.

    Attributes:
        frame: the run's scores in one order.
        order: the order that is shown, MoRF if the run has it.
        score: the score that the protocol shows.
        steps: L.
        draws: how many draws the run has so far.
        lines: the methods, best first, random last.
    """

    run: StoredRun
    frame: pd.DataFrame
    order: str
    score: str
    steps: int
    draws: int
    lines: tuple[Line, ...]

    @property
    def has_random(self) -> bool:
        """Whether there is a reference."""
        return any(line.method == RANDOM for line in self.lines)

    @property
    def restores(self) -> bool:
        """Whether steps bring regions back instead of removing them."""
        return self.run.protocol.direction is Direction.RESTORE

    @property
    def sign(self) -> int:
        """1 where a high AOPC is good, −1 where a low one is: the score should stay, or come back."""
        return -1 if self.restores == (self.order == Order.MORF) else 1

    @property
    def direction(self) -> str:
        """As the statistics take it."""
        return str(self.run.protocol.direction)

    @property
    def does(self) -> str:
        """What steps do, and what a good heatmap makes of it."""
        return _LEDES[self.restores, self.order == Order.MORF]

    @property
    def axis(self) -> str:
        """What steps count."""
        return "regions restored" if self.restores else "regions removed"

    @property
    def labels(self) -> Sequence[str] | None:
        """Class names."""
        return self.run.manifest.classifier.labels

    def class_name(self, index: int | None) -> str:
        """A class as people know it."""
        if index is None or pd.isna(index):
            return ""
        if self.labels is None or not 0 <= index < len(self.labels):
            return f"class {index}"
        return printable(self.labels[index])


def summarise(run: StoredRun) -> Summary:
    """Read the scores of a run.

    Raises:
        StoreError: a run folder without scores.
    """
    frame = run.scores()
    orders = sorted(frame["order"].unique())
    order = str(Order.MORF) if Order.MORF in orders else orders[0]
    if len(orders) > 1:
        frame = frame[frame["order"] == order].reset_index(drop=True)
    score = str(run.protocol.score)
    methods = sorted(frame["method"].unique())
    summary = Summary(
        run=run,
        frame=frame,
        order=order,
        score=score,
        steps=int(frame["step"].max()),
        draws=int(frame["draw"].nunique()),
        lines=lines(methods),
    )
    aopc = statistics.per_image_aopc(frame, score, order)
    last = aopc[aopc.columns[-1]].groupby(level="method").mean() * summary.sign
    methods.sort(key=lambda name: (name == RANDOM, -last.get(name, -math.inf), name))
    return replace(summary, lines=lines(methods))


def lines(methods: Sequence[str]) -> tuple[Line, ...]:
    """Hues and dashes for methods, different for up to 40; the hue belongs to the family, unless there is only one."""
    own = sorted(name for name in methods if name != RANDOM)
    families = sorted({family_of(name) for name in own}, key=lambda name: (_FAMILIES.get(name, 9), name))
    free = [(hue, dash) for dash in range(len(_DASHES)) for hue in range(_HUES)]
    styles: dict[str, tuple[int, int]] = {}
    for name in own:
        siblings = [other for other in own if family_of(other) == family_of(name)]
        wanted = (families.index(family_of(name)), siblings.index(name)) if len(families) > 1 else (own.index(name), 0)
        styles[name] = wanted if wanted in free else (free or [(0, 0)])[0]
        free = [style for style in free if style != styles[name]]
    return tuple(
        Line(f"m{index}", name, display_name(name), *_style(styles.get(name))) for index, name in enumerate(methods)
    )


def _style(style: tuple[int, int] | None) -> tuple[str, str]:
    return ("hue-random", "1.5 3.5") if style is None else (f"hue-{style[0]}", _DASHES[style[1]])


def family_of(method: str) -> str:
    """The part of a method's name that its relatives share."""
    return method.split(":")[0].split("-")[0]


def curves(summary: Summary) -> dict[str, dict[str, dict[str, Any]]]:
    """Score → relative or raw → method → mean, low, high at every step."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for score in Score:
        found[str(score)] = {}
        for against in ("relative", "raw"):
            relative = against == "relative"
            if relative and not summary.has_random:
                continue
            table = statistics.aopc_table(summary.frame, str(score), relative, order=summary.order)
            by_method = dict(list(table.sort_values("step").groupby("method")))
            found[str(score)][against] = {
                line.id: {part: as_json(by_method[line.method][part]) for part in ("mean", "low", "high")}
                for line in summary.lines
                if line.method in by_method and not (relative and line.method == RANDOM)
            }
    return found


def opening(summary: Summary) -> dict[str, Any]:
    """What stands at the top of the page."""
    manifest = summary.run.manifest
    images = summary.frame["image"].nunique()
    classifier, image_set = printable(manifest.classifier.name), manifest.image_set
    counted = f"{grouped(images)} {'image' if images == 1 else 'images'}"
    return {
        "title": f"{classifier}, {counted}",
        "kicker": f"{classifier} on {counted}" + (f" of {printable(image_set)}" if image_set else ""),
        "headline": headline(summary),
        "unfinished": unfinished(summary),
        "facts": [
            ("images", grouped(images)),
            ("methods", str(sum(line.method != RANDOM for line in summary.lines))),
            ("steps", str(summary.steps)),
            ("draws", str(summary.draws)),
            ("scores", grouped(len(summary.frame))),
            ("protocol", summary.run.protocol.name),
        ],
    }


def unfinished(summary: Summary) -> str:
    """A sentence about a run that is not done; empty otherwise."""
    manifest = summary.run.manifest
    if manifest.finished:
        return ""
    have, asked = summary.frame["image"].nunique(), len(manifest.images)
    return f"This run is not finished: {have} of {asked} images are there so far. All numbers are preliminary."


def headline(summary: Summary) -> str:
    """The answer in one sentence, or why there is none."""
    try:
        return statistics.headline(summary.frame, summary.score, order=summary.order, direction=summary.direction)
    except CurveError as error:
        return f"No answer yet: {error}"


def ranking(summary: Summary) -> dict[str, Any]:
    """Rows of the ranking, best first, and where their whiskers go in a plot 200 wide."""
    try:
        table = statistics.ranking(summary.frame, summary.score, order=summary.order, direction=summary.direction)
        pairs = statistics.compare(summary.frame, summary.score, order=summary.order)
    except CurveError:
        return {"rows": []}
    ends = table[["mean", "low", "high"]].to_numpy(dtype=float)
    low, high = min(0.0, np.nanmin(ends, initial=0.0)), max(0.0, np.nanmax(ends, initial=0.0))
    width = (high - low) or 1.0

    def place(value: float) -> float | None:
        return round(6 + 188 * (value - low) / width, 2) if math.isfinite(value) else None

    unit = decimals(ends)
    by_method = {line.method: line for line in summary.lines}
    rows = []
    row: Any
    for row in table.itertuples(index=False):
        line = by_method[row.method]
        wins = wins_over_random(pairs, row.method, summary.sign)
        rows.append(
            {
                "rank": row.rank,
                "label": line.label,
                "hue_class": line.hue,
                "dash": line.dash,
                "value": plain(row.mean),
                "mean": number(row.mean, unit),
                "interval": "the reference" if row.method == RANDOM else interval(row.low, row.high, unit),
                "reference": row.method == RANDOM,
                "x": place(row.mean),
                "x_low": place(row.low),
                "x_high": place(row.high),
                "group": split_letters(row.letters),
                "group_value": row.letters,
                "wins": "" if wins is None else f"{wins * 100:.0f} %",
                "wins_value": "" if wins is None else plain(wins),
                "next": from_next(
                    pd.notna(row.differs_from_next) and bool(row.differs_from_next),
                    float(row.more_groups),
                    "image" if row.groups == row.n else "group",
                ),
                "next_value": "" if pd.isna(row.more_groups) else plain(float(row.more_groups)),
            }
        )
    if rows:
        rows[-1]["next"] = rows[-1]["next_value"] = ""
    text = (
        f"AOPC after {summary.steps} regions relative to random orders ({summary.score}), mean over "
        f"{counted(int(table['groups'].max()), int(table['n'].max()))}; {'high' if summary.sign > 0 else 'low'} "
        "is good. Methods that share a letter are not distinguishable."
    )
    return {"rows": rows, "zero": place(0.0), "text": text}


def wins_over_random(pairs: pd.DataFrame, method: str, sign: int = 1) -> float | None:
    """On which share of the images a method's AOPC is better than that of random orders; ties count half."""
    for a, b, share in ((RANDOM, method, sign < 0), (method, RANDOM, sign > 0)):
        found = pairs[(pairs["a"] == a) & (pairs["b"] == b)]
        if len(found) and pd.notna(found["a_beats_b"].iloc[0]):
            value = float(found["a_beats_b"].iloc[0])
            return value if share else 1 - value
    return None


def from_next(differs: bool, more: float, unit: str) -> str:
    """How a method stands to the one below it; `unit` is what more of would show a difference."""
    if differs:
        return "yes"
    if math.isnan(more):
        return "no difference seen"
    if more > _MANY:
        return f"no, nor by {grouped(_MANY)} more {unit}s"
    return f"no, about {grouped(about(more))} more {unit}{'' if more == 1 else 's'} would"


def subsets(summary: Summary) -> dict[str, Any]:
    """Tables of AOPC above random on parts of the images."""
    nothing: dict[str, Any] = {"tables": []}
    try:
        table = statistics.subsets(summary.frame, summary.score, labels=summary.labels)
    except CurveError:
        return nothing
    titles = {
        "split": "ImageNet's validation and training images",
        "prediction": "Right and wrong predictions",
        "class": "Classes",
    }
    shown = [line for line in summary.lines if line.method != RANDOM]
    tables = []
    for by, title in titles.items():
        part = table[(table["by"] == by) & (table["n"] > 0)]
        if part["subset"].nunique() < 2:
            continue
        unit = decimals(part["mean"].to_numpy(dtype=float))
        sizes = part.groupby("subset", sort=False)["n"].max().sort_values(ascending=False, kind="stable")
        kept = list(sizes.index[:_MOST_SUBSETS])
        if len(sizes) > len(kept):
            title += f" (the {len(kept)} largest of {len(sizes)})"
        cells: dict[Any, Any] = {(row.subset, row.method): row for row in part.itertuples(index=False)}
        rows = []
        for name in kept:
            found = [cells.get((name, line.method)) for line in shown]
            best = max((cell.mean * summary.sign for cell in found if cell is not None and cell.n), default=math.nan)
            rows.append(
                {
                    "name": printable(str(name)),
                    "n": int(sizes[name]),
                    "cells": [_subset_cell(cell, best * summary.sign, unit) for cell in found],
                }
            )
        tables.append({"title": title, "methods": [line.label for line in shown], "rows": rows})
    text = f"AOPC relative to random ({summary.score}) with its 95 % interval; the best of a row is bold."
    return {"tables": tables, "text": text} if tables else nothing


def _subset_cell(cell: Any, best: float, unit: int) -> dict[str, Any]:
    if cell is None or not math.isfinite(cell.mean):
        return {"text": "–", "interval": "", "value": "", "best": False}
    return {
        "text": number(cell.mean, unit),
        "interval": interval(cell.low, cell.high, unit),
        "value": plain(cell.mean),
        "best": cell.mean == best,
    }


def details(summary: Summary) -> dict[str, Any]:
    """What was run, as pairs of text."""
    run = summary.run
    manifest = run.manifest
    skipped = [
        {
            "image": printable(one.image),
            "method": display_name(one.method) if one.method else "all",
            "reason": printable(one.reason, 2_000),
        }
        for one in run.skipped
    ]
    about = {
        "classifier": manifest.classifier.name,
        "images": manifest.image_set,
        "protocol fingerprint": manifest.fingerprint,
        "device": manifest.device,
        "engine": manifest.engine,
        "precision": manifest.precision,
        "started": moment(manifest.started),
        "finished": moment(manifest.finished) or "not yet",
    }
    return {
        "command": printable(manifest.command or python_call(run), 20_000),
        "protocol": [(name.replace("_", " "), words(value)) for name, value in run.protocol.to_dict().items()],
        "run": [(name, words(value)) for name, value in about.items() if value is not None],
        "versions": [(name, words(value)) for name, value in manifest.versions.items()],
        "methods": [(display_name(name), words(spec)) for name, spec in manifest.methods.items()],
        "skipped": skipped,
        "skipped_text": f"{len(skipped)} {'entry' if len(skipped) == 1 else 'entries'}",
    }


def python_call(run: StoredRun) -> str:
    """The call of a run that was not started from the command line."""
    methods = [name for name in run.manifest.methods if name != RANDOM]
    return (
        f"faithmap.evaluate(classifier, images, methods={methods!r}, "
        f"protocol=faithmap.Protocol.from_dict({run.protocol.to_dict()!r}))"
    )


def as_json(values: Any) -> list[float | None]:
    """Numbers to five digits, None where there is none."""
    return [float(f"{value:.5g}") if math.isfinite(value) else None for value in np.asarray(values, dtype=float)]
