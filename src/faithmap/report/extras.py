"""A section of the page that only some runs have: a scorecard of measures.

It is given to the template as plain data:

    scorecard   {text, measures: [{name, unit, line, good: "high" | "low" | ""}],
                 rows: [{label, hue_class, cells: [{text, interval, value, tint: 0 … 4}]}]}

A tint is a place within a measure: 4 for the best, 0 for the worst and where there is no better or worse.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from faithmap.measures.scorecard import as_measured
from faithmap.report.summary import Summary, lines
from faithmap.text import decimals, interval, number, plain, printable

_TINTS = 4


def scorecard(summary: Summary) -> dict[str, Any] | None:
    """The measures of a run, None where it has none."""
    measured = getattr(summary.run, "scorecard", None)
    table = measured() if measured is not None else None
    if table is None or set(table["measure"]) <= {summary.measure}:
        return None  # what the ranking says already
    return scorecard_of(table, [line.method for line in summary.lines])


def scorecard_of(table: pd.DataFrame, methods: Sequence[str]) -> dict[str, Any]:
    """A scorecard as the page takes it.

    Args:
        table: method, measure, mean, low, high, higher_is_better (None where neither is good), unit, line.
        methods: in the order of the rows.
    """
    looks = {line.method: line for line in lines(methods)}
    measures = list(dict.fromkeys(table["measure"]))
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in methods}
    heads = []
    for measure in measures:
        part = table[table["measure"] == measure].set_index("method")
        good, unit = part["higher_is_better"].iloc[0], decimals(part["mean"])
        known = good is not None and not pd.isna(good)
        tints = tinted(part["mean"], bool(good)) if known else {}
        heads.append(
            {
                "name": printable(str(measure)),
                "unit": printable(str(part["unit"].iloc[0] if "unit" in part else "")),
                "line": printable(str(part["line"].iloc[0] if "line" in part else "")),
                "good": ("high" if good else "low") if known else "",
            }
        )
        for name in methods:
            rows[name].append(_cell(part, name, unit, tints.get(name, 0)))
    said = (
        "Means over the images with their 95 % intervals; the darker, the better within a measure. "
        "Measures ask different questions, so there is no total."
    )
    return {
        "text": f"{said} {as_measured(table)}".strip(),
        "measures": heads,
        "rows": [
            {"label": looks[name].label, "hue_class": looks[name].hue, "cells": rows[name]}
            for name in methods
            if any(cell["value"] for cell in rows[name])
        ],
    }


def _cell(part: pd.DataFrame, name: str, unit: int, tint: int) -> dict[str, Any]:
    row: dict[Any, Any] = part.loc[name].to_dict() if name in part.index else {"mean": math.nan}
    if not math.isfinite(row["mean"]):
        return {"text": "–", "interval": "", "value": "", "tint": 0}
    low, high = float(row.get("low", math.nan)), float(row.get("high", math.nan))
    return {
        "text": number(row["mean"], unit),
        "interval": interval(low, high, unit),
        "value": plain(row["mean"]),
        "tint": tint,
    }


def tinted(values: pd.Series, high_is_good: bool) -> dict[Any, int]:
    """The place of each value among all: 4 for the best, 0 for the worst."""
    rank = values.rank(ascending=high_is_good)
    count = values.notna().sum()
    return {name: round(_TINTS * (place - 1) / max(1, count - 1)) for name, place in rank.items() if place == place}
