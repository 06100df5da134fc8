"""From a run to what the page says in words and numbers; all statistics come from `faithmap.statistics`."""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd

from faithmap import statistics
from faithmap.errors import CurveError
from faithmap.protocol import RANDOM, Order, Placement
from faithmap.report.summary import Line, Summary, as_json
from faithmap.statistics import SCORE_MEASURES, attainable_sentence, decided
from faithmap.statistics.comparing import Comparison, comparison
from faithmap.statistics.grade import Graded
from faithmap.statistics.headline import second_opinion, sentence
from faithmap.statistics.power import about
from faithmap.statistics.significance import split_letters
from faithmap.store.reading import StoredRun
from faithmap.text import (
    counted,
    decimals,
    display_name,
    grouped,
    interval,
    moment,
    number,
    of_set,
    plain,
    printable,
    several,
    words,
)

_MOST_SUBSETS = 200
_MANY = 100_000
# Images that were skipped for one reason are named up to so many.
_NAMED_IMAGES = 5
# How to read the curves: (whether regions are restored, whether the most relevant go first) → what a good heatmap does.
_GOOD = {
    (False, True): ("most relevant first", "makes the score fall early: a high curve is good"),
    (False, False): ("least relevant first", "keeps the score up: a low curve is good"),
    (True, True): ("most relevant first", "brings the score back early: a low curve is good"),
    (True, False): ("least relevant first", "brings the score back late: a high curve is good"),
}


def opening(summary: Summary) -> dict[str, Any]:
    """What stands at the top of the page."""
    manifest = summary.run.manifest
    classifier, image_set = printable(manifest.classifier.name), manifest.image_set
    images, noun = how_many(summary), manifest.group_noun
    protocol = summary.run.protocol
    return {
        "title": f"{classifier}, {images}",
        "kicker": f"{classifier} on {images}{of_set(image_set, noun)}",
        "answers": [answer(summary, score) for score in summary.shown_scores],
        "unfinished": unfinished(summary),
        "missing": missing(summary),
        "facts": f"{protocol.name}: {summary.steps} steps of {region(summary)}, fill {printable(protocol.fill)}, "
        f"{summary.draws} {'draw' if summary.draws == 1 else 'draws'}; {grouped(len(summary.frame))} scores",
    }


def how_many(summary: Summary) -> str:
    """`48 images`, or `8 groups (48 images)` where some belong together."""
    images = summary.frame["image"].nunique()
    groups = summary.frame["group"].nunique() if "group" in summary.frame else images
    return counted(groups, images, summary.run.manifest.group_noun)


def region(summary: Summary) -> str:
    """What one step removes: `9×9 pixels`."""
    protocol = summary.run.protocol
    size = protocol.region_size
    if protocol.placement is Placement.PIXEL:
        return f"{size} pixels"
    return "one superpixel" if protocol.placement is Placement.SEGMENT else f"{size}×{size} pixels"


def answer(summary: Summary, score: str) -> dict[str, Any]:
    """The verdict by one score: the sentence, what the other score says, the unit of the number, the ranking."""
    try:
        found = compared(summary, score)
        said = sentence(found)
        others = [second_opinion(found, compared(summary, other)) for other in summary.shown_scores if other != score]
        others = [other for other in others if not other.endswith(said)]  # no method at all, by either score
        if attained := attainable_sentence(summary.measured(score)):
            others.append(attained)
        if score == summary.score and (stages := summary.run.manifest.stages) is not None:
            one = summary.measured(score).of_images(stages.images)
            others.append(decided(one, stages.looks, stages.at_most, stages.contrast).sentence)
    except CurveError as error:
        return {
            "score": score,
            "by": summary.by(score),
            "named": summary.score_names[score],
            "sentence": f"No answer yet: {error}",
            "others": [],
            "unit": unit_of(summary, score),
            "ranking": {"rows": []},
            "grade": {"line": "", "items": []},
        }
    ranked = ranking(summary, found)
    return {
        "score": score,
        "by": summary.by(score),
        "named": summary.score_names[score],
        "sentence": said,
        "others": others,
        "unit": unit_of(summary, score),
        "ranking": ranked,
        "grade": graded(summary, score),
    }


def compared(summary: Summary, score: str) -> Comparison:
    """Ranking and tests of the run's measure by one score."""
    if score not in summary.comparisons:
        summary.comparisons[score] = comparison(summary.measured(score))
    return summary.comparisons[score]


def label_of(summary: Summary) -> str:
    """The measure's name."""
    return SCORE_MEASURES[summary.measure].label


def unit_of(summary: Summary, score: str) -> str:
    """What the number is, in one line."""
    of = summary.of_target(score)
    minus = "minus the same for random orders" if summary.has_random else "without random orders to compare with"
    if summary.measure == "srg":
        undone = "brought back" if summary.restores else "removed"
        return (
            f"SRG: by how much {of} is higher when the least relevant regions are {undone} first than when the most "
            f"relevant are, mean over the fraction {undone}, {minus}; high is good."
            if not summary.restores
            else f"SRG: by how much {of} is higher when the most relevant regions are {undone} first than when the "
            f"least relevant are, mean over the fraction {undone}, {minus}; high is good."
        )
    if summary.measure != "aopc":
        good = "high" if summary.sign > 0 else "low"
        return f"{label_of(summary)}: {SCORE_MEASURES[summary.measure].line} Of {of}, {minus}; {good} is good."
    if summary.restores:
        what = f"AOPC: how far {of} stays from where it starts, mean over {summary.steps} regions brought back"
    else:
        what = f"AOPC: how far {of} falls, mean over {summary.steps} removed regions"
    return f"{what}, {minus}; {'high' if summary.sign > 0 else 'low'} is good."


def graded(summary: Summary, score: str) -> dict[str, Any]:
    """How far the ranking can be trusted: a line of words, and every property with its number and sentence."""
    try:
        grade = statistics.grade(summary.scores, score, direction=summary.direction, measure=summary.measure)
    except CurveError:
        return {"line": "", "items": []}
    items = [
        {"name": item.property, "value": number(item.value, 2), "grade": item.grade, "sentence": beside_grade(item)}
        for item in grade.items
    ]
    said = [f"{item['name']} {item['grade']} ({item['value']})" for item in items if item["grade"]]
    line = f"How far this ranking can be trusted: {', '.join(said)}." if said else ""
    return {"line": line, "items": items}


def beside_grade(item: Graded) -> str:
    """The sentence of a property that stands beside its grade, without the word again."""
    return re.sub(rf": {item.grade}(?=[:.])", "", item.sentence, count=1) if item.grade else item.sentence


def unfinished(summary: Summary) -> str:
    """A sentence about a run that is not done; empty otherwise."""
    manifest = summary.run.manifest
    if manifest.finished:
        return ""
    have, asked = summary.frame["image"].nunique(), len(manifest.images)
    return f"This run is not finished: {have} of {asked} images are there so far. All numbers are preliminary."


def missing(summary: Summary) -> list[str]:
    """Methods without a single score, and why."""
    shown = {line.method for line in summary.lines}
    reasons: dict[str, Counter[str]] = {}
    for one in summary.run.skipped:
        if one.method is not None and one.method not in shown:
            reasons.setdefault(str(one.method), Counter())[one.reason] += 1
    said = []
    for name, found in sorted(reasons.items()):
        reason = printable(found.most_common(1)[0][0], 300)
        named = reason.startswith((f"{printable(name)} ", f"{display_name(name)} "))
        said.append(f"Not measured: {reason}" if named else f"{display_name(name)} is missing: {reason}")
    return said


def lede(summary: Summary) -> str:
    """What the curves show, and which way is good."""
    if summary.measure == "srg":
        what = "brought back onto the fill" if summary.restores else "removed"
        return (
            f"Regions are {what} in both orders of a heatmap. The curve is the difference between the two scores: the "
            "higher, the better the heatmap sorts what the network looks at from what it does not."
        )
    first, good = _GOOD[summary.restores, summary.order == Order.MORF]
    what = "are brought back onto the fill" if summary.restores else "are removed"
    return f"Regions {what}, {first}. A heatmap that knows what the network looks at {good}."


def curve_names(summary: Summary) -> dict[str, str]:
    """What the curves of each view are called on their axis; the views that the run does not have are left out."""
    if summary.measure == "srg":
        ends = ("most", "least") if summary.restores else ("least", "most")
        return {"relative": f"score, {ends[0]} minus {ends[1]} relevant first", "raw": "score, most relevant first"}
    names = {"relative": "AOPC relative to random", "raw": "AOPC"}
    return names if summary.has_random else {"raw": names["raw"]}


def curves(summary: Summary) -> dict[str, dict[str, dict[str, Any]]]:
    """Score → view → method → mean, low, high at every scored step."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for score in summary.shown_scores:
        found[score] = {}
        for view in curve_names(summary):
            table = curve_table(summary, score, view)
            zero = view == "relative" and summary.measure != "srg"  # random orders are the line at 0
            by_method = {str(name): rows.set_index("step") for name, rows in table.groupby("method", observed=True)}
            found[score][view] = {
                line.id: {
                    part: as_json(by_method[line.method][part].reindex(summary.points))
                    for part in ("mean", "low", "high")
                }
                for line in summary.lines
                if line.method in by_method and not (zero and line.method == RANDOM)
            }
    return found


def curve_table(summary: Summary, score: str, view: str) -> pd.DataFrame:
    """Means and intervals of the curves of one view."""
    if summary.measure == "srg":
        if view == "raw":
            return statistics.curve_table(summary.frame, score, summary.order)
        return statistics.gap_table(summary.scores, score, summary.direction)
    return statistics.aopc_table(summary.frame, score, view == "relative", order=summary.order)


def ranking(summary: Summary, found: Comparison) -> dict[str, Any]:
    """Rows of the ranking, best first, and where their whiskers go in a plot, in per cent of its width."""
    table, pairs = found.table, found.pairs
    ends = table[["mean", "low", "high"]].to_numpy(dtype=float)
    low, high = min(0.0, np.nanmin(ends, initial=0.0)), max(0.0, np.nanmax(ends, initial=0.0))
    width = (high - low) or 1.0

    def place(value: float) -> float | None:
        return round(3 + 94 * (value - low) / width, 2) if math.isfinite(value) else None

    by_method = {line.method: line for line in summary.lines}
    wins = {name: wins_over_random(pairs, name, found.measured.sign) for name in table["method"]}
    unit = decimals(ends.ravel())
    noun = found.measured.noun
    rows = [_row(row, by_method[row["method"]], wins, unit, place, noun) for row in table.to_dict("records")]
    if rows:
        rows[-1]["next"] = rows[-1]["next_value"] = ""
    return {"rows": rows, "zero": place(0.0)}


def _row(row: Any, line: Line, wins: dict[str, float | None], unit: int, place: Any, noun: str) -> dict[str, Any]:
    share = wins[row["method"]]
    more = float(row["more_groups"])
    differs = pd.notna(row["differs_from_next"]) and bool(row["differs_from_next"])
    unit_name = "image" if row["groups"] == row["n"] else noun
    return {
        "id": line.id,
        "rank": row["rank"],
        "label": line.label,
        "hue_class": line.hue,
        "dash": line.dash,
        "marker": line.marker,
        "value": plain(row["mean"]),
        "mean": number(row["mean"], unit),
        "interval": "the reference" if row["method"] == RANDOM else interval(row["low"], row["high"], unit),
        "reference": row["method"] == RANDOM,
        "x": place(row["mean"]),
        "x_low": place(row["low"]),
        "x_high": place(row["high"]),
        "letters": split_letters(row["letters"]),
        "letters_value": row["letters"],
        "wins": "" if share is None else f"{share * 100:.0f} %",
        "wins_value": "" if share is None else plain(share),
        "next": from_next(differs, more, unit_name),
        "next_value": "" if math.isnan(more) else plain(more),
    }


def wins_over_random(pairs: pd.DataFrame, method: str, sign: int = 1) -> float | None:
    """On which proportion of the groups a method is better than random orders; ties count half."""
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
        return "no"
    if more > _MANY:
        return f"no, over {several(_MANY, unit)} more"
    return f"no, about {several(about(more), unit)} more"


def subsets(summary: Summary, score: str) -> dict[str, Any]:
    """Tables of AOPC above random on parts of the images."""
    nothing: dict[str, Any] = {"tables": []}
    try:
        table = statistics.subsets(summary.frame, score, labels=summary.labels)
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
    text = f"AOPC relative to random ({summary.score_names[score]}) with its 95 % interval; the best of a row is bold."
    if not tables:
        return nothing
    named, by = summary.score_names[score], summary.by(score)
    return {"score": score, "by": by, "named": named, "tables": tables, "text": text}


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
    alike: dict[tuple[str, str], list[str]] = {}
    for one in run.skipped:
        which = "every image" if one.on_all else printable(one.image)
        alike.setdefault((display_name(one.method) if one.method else "all", one.reason), []).append(which)
    skipped = [
        {
            "image": ", ".join(images) if len(images) <= _NAMED_IMAGES else several(len(images), "image"),
            "method": method,
            "reason": printable(reason, 2_000),
        }
        for (method, reason), images in alike.items()
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
        "protocol": parameters(run),
        "run": [(name, words(value)) for name, value in about.items() if value is not None],
        "versions": [(name, words(value)) for name, value in manifest.versions.items()],
        "methods": [(display_name(name), words(spec)) for name, spec in manifest.methods.items()],
        "skipped": skipped,
        "skipped_text": f"{len(skipped)} {'entry' if len(skipped) == 1 else 'entries'}",
    }


def parameters(run: StoredRun) -> list[tuple[str, str]]:
    """The protocol's parameters as pairs of text; a score without a probability under its own name."""
    asked = run.protocol.to_dict()
    if run.score_name is not None:
        asked["score"] = run.score_name
    return [(name.replace("_", " "), words(value)) for name, value in asked.items()]


def python_call(run: StoredRun) -> str:
    """The call of a run that was not started from the command line."""
    methods = [name for name in run.manifest.methods if name != RANDOM]
    return (
        f"faithmap.evaluate(classifier, images, methods={methods!r}, "
        f"protocol=faithmap.Protocol.from_dict({run.protocol.to_dict()!r}))"
    )
