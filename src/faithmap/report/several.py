"""Several runs on one page: the settings of a study, networks, or any runs that are compared.

They are given to the template as plain data:

    parts       one for each score: {score, by, named, text, others: [sentence], lede, groups: [{name, span}],
                 columns: [{group, name}], first_in: bool,
                 rows: [{label, hue_class, mean, first, cells: [{text, interval, letters, value, tint: 0 … 4}]}],
                 grade: [{group, name, value, text}]}
    choices     one for each run: {key, name, page, facts, answers, measure, lede, views, tables}
    noun        what a run is here: "setting", "network" or "run"

A tint is a place within a column: 4 for the best, 0 for the worst.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import pandas as pd

from faithmap.plots.matrices import first_in, rank_matrix
from faithmap.report import sections
from faithmap.report.extras import tinted
from faithmap.report.summary import Line, Summary, lines, summarise
from faithmap.store.reading import StoredRun
from faithmap.text import decimals, interval, number, plain, printable

# In a name between what several runs share, such as a network, and the run's own part.
BETWEEN = ": "


@dataclass(frozen=True)
class Several:
    """What a page says of several runs.

    Attributes:
        title: what the runs are, in a few words.
        noun: what a run is here: ``"setting"``, ``"network"`` or ``"run"``.
        runs: name → run; the first is shown at first, with its flipbook.
        parts: one for each score, from `ranks_part` or `values_part`.
        pages: name → where the run's own page is, relative to this one.
    """

    title: str
    noun: str
    runs: Mapping[str, StoredRun]
    parts: Sequence[Mapping[str, Any]]
    pages: Mapping[str, str] = field(default_factory=dict)


def ranks_part(
    score: str,
    ranks: pd.DataFrame,
    verdict: Sequence[str],
    grade: Sequence[Mapping[str, Any]] = (),
    named: str = "",
) -> dict[str, Any]:
    """Ranks in many settings as the page takes them.

    Args:
        score: ``"logit"`` or ``"probability"``.
        ranks: setting, method, rank, and score where there are several.
        verdict: what holds in all settings, in sentences; the first is the answer.
        grade: name, value, text of each property of the ruler, and the group that it belongs to, if any.
        named: the score in texts, where the runs call it by other names than the first of them.
    """
    wide = rank_matrix(ranks, score if "score" in ranks else "")
    looks = {line.method: line for line in lines(list(wide.index))}
    tints = {setting: tinted(wide[setting], high_is_good=False) for setting in wide}
    digits = {setting: int((wide[setting].dropna() % 1 > 0).any()) for setting in wide}
    rows = [
        {
            "label": looks[name].label,
            "hue_class": looks[name].hue,
            "mean": number(wide.loc[name].mean(), 1),
            "first": first.strip("()").removeprefix("1st in "),
            "cells": [
                _cell(number(rank, digits[setting]), plain(rank), tints[setting].get(name, 0))
                for setting, rank in wide.loc[name].items()
            ],
        }
        for name, first in zip(wide.index, first_in(wide), strict=True)
    ]
    return _part(score, verdict, "The rank of each method; 1 is best.", list(wide), rows, grade, named)


def values_part(
    score: str, table: pd.DataFrame, methods: Sequence[str], verdict: Sequence[str], lede: str, named: str = ""
) -> dict[str, Any]:
    """A measure of every method on several runs as the page takes it.

    Args:
        score: ``"logit"`` or ``"probability"``.
        table: run, method, rank, mean, low, high, letters.
        methods: in the order of the rows.
        verdict: what holds on all runs, in sentences; the first is the answer.
        lede: what the numbers are.
        named: the score in texts, where the runs call it by other names than the first of them.
    """
    looks = {line.method: line for line in lines(methods)}
    runs = [str(name) for name in dict.fromkeys(table["run"])]
    by_run = {name: table[table["run"] == name].set_index("method") for name in runs}
    tints = {name: tinted(rows["rank"], high_is_good=False) for name, rows in by_run.items()}
    digits = {name: decimals(rows["mean"]) for name, rows in by_run.items()}

    def cell(run: str, method: str) -> dict[str, Any]:
        if method not in by_run[run].index:
            return _cell("–", "", 0)
        row: dict[Any, Any] = by_run[run].loc[method].to_dict()
        shown = _cell(number(row["mean"], digits[run]), plain(row["mean"]), tints[run].get(method, 0))
        return {**shown, "interval": interval(row["low"], row["high"], digits[run]), "letters": str(row["letters"])}

    rows = [
        {
            "label": looks[method].label,
            "hue_class": looks[method].hue,
            "mean": number(table.loc[table["method"] == method, "rank"].mean(), 1),
            "first": "",
            "cells": [cell(run, method) for run in runs],
        }
        for method in methods
    ]
    return _part(score, verdict, lede, runs, rows, named=named)


def _cell(text: str, value: str, tint: int) -> dict[str, Any]:
    return {"text": text, "interval": "", "letters": "", "value": value, "tint": tint}


def _column(name: str) -> dict[str, str]:
    group, mark, own = name.partition(BETWEEN)
    return {"group": printable(group), "name": printable(own)} if mark else {"group": "", "name": printable(name)}


def _part(
    score: str,
    verdict: Sequence[str],
    lede: str,
    columns: Sequence[Any],
    rows: Sequence[Mapping[str, Any]],
    grade: Sequence[Mapping[str, Any]] = (),
    named: str = "",
) -> dict[str, Any]:
    heads = [_column(str(name)) for name in columns]
    return {
        "score": score,
        "by": f"by-{score}",
        "named": named,
        "text": verdict[0],
        "others": list(verdict[1:]),
        "lede": lede,
        "groups": [{"name": name, "span": len(list(some))} for name, some in groupby(heads, lambda one: one["group"])],
        "columns": heads,
        "first_in": any(row["first"] for row in rows),
        "rows": list(rows),
        "grade": [{"group": "", **one} for one in grade],
    }


def summaries(several: Several) -> dict[str, Summary]:
    """Name → summary of each run; a method has one id and one look on the whole page."""
    found = {name: summarise(run) for name, run in several.runs.items()}
    order = dict.fromkeys(line.method for summary in found.values() for line in summary.lines)
    shared = {line.method: line for line in lines(list(order))}

    def of(summary: Summary) -> tuple[Line, ...]:
        return tuple(shared[line.method] for line in summary.lines)

    return {name: replace(summary, lines=of(summary)) for name, summary in found.items()}


def choice(key: str, name: str, summary: Summary, page: str) -> dict[str, Any]:
    """What the page says of one of several runs."""
    opening = sections.opening(summary)
    return {
        "key": key,
        "name": printable(name),
        "page": page,
        "kicker": opening["kicker"],
        "facts": opening["facts"],
        "answers": opening["answers"],
        "measure": sections.label_of(summary),
        "lede": sections.lede(summary),
    }
