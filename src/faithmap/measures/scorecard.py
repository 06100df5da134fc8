"""The scorecard: one verdict per property. Rows are methods, columns measures; there is no total score."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from faithmap.errors import CurveError
from faithmap.measures.measure import Measure
from faithmap.protocol import RANDOM
from faithmap.statistics.comparing import comparison
from faithmap.statistics.measured import SCORE_MEASURES, Measured, measured, measured_from
from faithmap.statistics.significance import split_letters
from faithmap.statistics.tables import measure_table
from faithmap.text import decimals, display_name, interval, number, tex

COLUMNS = (
    "method",
    "measure",
    "mean",
    "low",
    "high",
    "groups",
    "letters",
    "rank",
    "higher_is_better",
    "unit",
    "line",
    "set",
)

SRG = Measure(
    name="srg",
    line="mean over the removed fraction of the score with least relevant removed first minus most relevant first",
    unit="score",
    higher_is_better=True,
    source="Blücher et al. 2024",
    set="faithfulness",
    needs="scores",
    spec={"measure": "srg"},
)
"""The one measure from scores that every run with both orders has."""


def scorecard(
    values: pd.DataFrame,
    measures: Iterable[Measure],
    scores: pd.DataFrame | None = None,
    *,
    score: str = "logit",
    direction: str = "remove",
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Every method by every measure: mean over groups, its interval, and letters.

    Args:
        values: from `Run.measures()`; columns image, group, method, measure, draw, value.
        measures: what is shown, in this order; those from scores need `scores`.
        scores: from `Run.scores()`.
        score, direction: for measures from scores, see `faithmap.statistics.measured`.
        confidence: of the intervals; the tests' level is 1 − confidence.
        seed: of the bootstrap over groups.
    Returns:
        One row per measure and method, best first: the columns `COLUMNS`. Methods that share a letter are not
        distinguishable by that measure. ``attrs["left_out"]`` says which measures have no values, and why.
    """
    rows, left_out = [], {}
    for one in measures:
        try:
            found = _measured(one, values, scores, score, direction)
            rows.append(_column(one, found, confidence, seed))
        except CurveError as error:
            left_out[one.name] = str(error)
    table = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=list(COLUMNS))
    table.attrs["left_out"] = left_out
    return table


def as_measured(card: pd.DataFrame) -> str:
    """How measures from scores become those of a ranking, which are relative to random; empty where there are none."""
    rows = card[(card["method"] == RANDOM) & card["measure"].isin(list(SCORE_MEASURES))]
    if not len(rows):
        return ""
    names = [str(name) for name in rows["measure"]]
    digits = [decimals(card.loc[card["measure"] == name, "mean"]) for name in names]
    parts = [
        f"{SCORE_MEASURES[name].label} {number(mean, unit)}"
        for name, mean, unit in zip(names, rows["mean"], digits, strict=True)
    ]
    return f"Values as measured; the ranking subtracts those of random orders ({', '.join(parts)})."


def wide(card: pd.DataFrame, sort: str | None = None, *, intervals: bool = True) -> pd.DataFrame:
    """The scorecard as text: rows methods, columns measures with their arrows.

    Args:
        card: from `scorecard`.
        sort: the measure by which methods are sorted, best first; the first by default.
        intervals: show them between mean and letters.
    Returns:
        Cells such as ``"0.84  0.79 … 0.90  a"``; empty where a measure means nothing for a method.
    Raises:
        CurveError: a measure that the scorecard does not hold.
    """
    names = list(dict.fromkeys(card["measure"]))
    if not names:
        return pd.DataFrame(index=pd.Index([], name="method"))
    if sort is not None and sort not in names:
        raise CurveError(f"the scorecard holds no measure '{sort}'. Known: {', '.join(names)}.")
    by = card[card["measure"] == (sort or names[0])].sort_values("rank")["method"].tolist()
    methods = [*by, *(name for name in dict.fromkeys(card["method"]) if name not in by)]
    columns = {}
    for name in names:
        rows = card[card["measure"] == name]
        digits = decimals(rows["mean"])
        cells = {}
        for row in rows.itertuples():
            span = f"  {interval(row.low, row.high, digits)}" if intervals else ""
            cells[row.method] = f"{number(row.mean, digits)}{span}  {row.letters}"
        arrow = "↑" if rows["higher_is_better"].iloc[0] else "↓"
        columns[f"{name} {arrow}"] = [cells.get(method, "") for method in methods]
    return pd.DataFrame(columns, index=pd.Index(methods, name="method"))


def latex(card: pd.DataFrame, sort: str | None = None) -> str:
    """The scorecard as a LaTeX table (booktabs); letters are superscripts.

    Args:
        card, sort: as in `wide`.
    """
    shown = wide(card, sort)
    lines = [r"\begin{tabular}{l" + "r" * shown.shape[1] + "}", r"\toprule"]
    lines.append(" & ".join(["method", *map(tex, shown.columns)]) + r" \\")
    lines.append(r"\midrule")
    for method, cells in zip(shown.index, shown.to_numpy(), strict=True):
        parts = [cell.split("  ") if cell else ["", "", ""] for cell in cells]
        texts = [f"{tex(mean)} [{tex(span)}]$^{{{tex(letters)}}}$" if mean else "" for mean, span, letters in parts]
        lines.append(" & ".join([tex(display_name(str(method))), *texts]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def winners(card: pd.DataFrame) -> dict[str, list[str]]:
    """Measure → the best method and those that are not distinguishable from it, best first.

    Empty where the best is not distinguishable from random: then nothing won.
    """
    found = {}
    for name, rows in card.groupby("measure", sort=False):
        ranked = rows.sort_values("rank")
        best = set(split_letters(str(ranked["letters"].iloc[0])))
        first = [str(row.method) for row in ranked.itertuples() if best & set(split_letters(str(row.letters)))]
        found[str(name)] = [] if RANDOM in first else first
    return found


def disagreement(card: pd.DataFrame) -> str:
    """What the measures say together: one sentence, empty for fewer than two measures with a winner.

    Two measures disagree when no method is among the best of both.
    """
    found = {name: first for name, first in winners(card).items() if first}
    if len(found) < 2:
        return ""
    common = set.intersection(*map(set, found.values()))
    held = {name: set(rows["method"]) - {RANDOM} for name, rows in card.groupby("measure", sort=False)}
    if all(set(first) == held[name] for name, first in found.items()):
        return "No measure distinguishes a best method: there are too few groups of images, or no difference."
    if common:
        best = [name for name in next(iter(found.values())) if name in common]
        verb = "is" if len(best) == 1 else "are"
        return f"{_listed(best)} {verb} best, or not distinguishable from the best, by all {len(found)} measures."
    apart = any(not set(a) & set(b) for a, b in itertools.combinations(found.values(), 2))
    by_first: dict[tuple[str, ...], list[str]] = {}
    for name, first in found.items():
        by_first.setdefault(tuple(first), []).append(name)
    said = "; ".join(f"{_listed(first)} by {', '.join(names)}" for first, names in by_first.items())
    start = "The measures disagree about the best method" if apart else "No method is among the best by every measure"
    return f"{start}: {said}."


def _measured(one: Measure, values: pd.DataFrame, scores: pd.DataFrame | None, score: str, direction: str) -> Measured:
    if one.needs != "scores":
        return measured_from(values, one.name, higher_is_better=one.higher_is_better)
    base = str(one.spec.get("measure", one.name))
    if scores is None or base not in SCORE_MEASURES:
        raise CurveError(f"'{one.name}' follows from scores, and none are given.")
    return measured(scores, base, score, direction=direction)


def _column(one: Measure, found: Measured, confidence: float, seed: int) -> pd.DataFrame:
    means = measure_table(found, confidence=confidence, seed=seed).set_index("method")
    ranked = comparison(found, confidence, seed).table.set_index("method")
    held = [name for name in ranked.index if np.isfinite(means.loc[name, "mean"])]
    rows = means.loc[held]
    return pd.DataFrame(
        {
            "method": held,
            "measure": one.name,
            "mean": rows["mean"].to_numpy(),
            "low": rows["low"].to_numpy(),
            "high": rows["high"].to_numpy(),
            "groups": rows["groups"].to_numpy(),
            "letters": ranked.loc[held, "letters"].to_numpy(),
            "rank": range(1, len(held) + 1),
            "higher_is_better": found.higher_is_better,
            "unit": found.unit if one.needs == "scores" else one.unit,
            "line": one.line,
            "set": one.set,
        }
    )


def _listed(methods: Sequence[str], most: int = 4) -> str:
    names = [display_name(name) for name in methods]
    shown = names if len(names) <= most else [*names[: most - 1], f"{len(names) - most + 1} more"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
