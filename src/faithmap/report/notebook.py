"""A run in a notebook: the answer, a small figure and the ranking, without script or style sheet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from faithmap.protocol import RANDOM
from faithmap.report import sections
from faithmap.report.summary import Line, Summary, summarise
from faithmap.report.templates import template
from faithmap.text import number, printable

if TYPE_CHECKING:
    import pandas as pd

    from faithmap.store.reading import StoredRun

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 640, 280, 46, 22, 38
_LABEL_GAP = 14.0
_STROKE = 1.8


def run_html(run: StoredRun) -> str:
    """A run as HTML: the answer, a small figure and the ranking."""
    summary = summarise(run)
    answer = sections.answer(summary, summary.score)
    return template("notebook.html").render(
        answer=answer,
        measure=sections.label_of(summary),
        unfinished=sections.unfinished(summary),
        figure=figure(summary, answer["ranking"]["rows"]),
        missing=sections.missing(summary),
        folder=printable(run.store.url),
    )


def figure(summary: Summary, ranked: list[dict[str, Any]]) -> dict[str, Any]:
    """Paths and labels of AOPC against regions removed, in the units of a 640 by 280 picture."""
    views = sections.curve_names(summary)
    relative = "relative" in views
    table = sections.curve_table(summary, summary.score, "relative" if relative else "raw")
    drawn = [line for line in summary.lines if not (relative and line.method == RANDOM)]
    by_method = {str(name): rows.sort_values("step") for name, rows in table.groupby("method", observed=True)}
    best = next((row["id"] for row in ranked if not row["reference"]), "")
    values = [by_method[line.method]["mean"].to_numpy(float) for line in drawn]
    values += [by_method[line.method][["low", "high"]].to_numpy(float).ravel() for line in drawn if line.id == best]
    every = np.concatenate(values) if values else np.zeros(1)
    low, high = min(0.0, np.nanmin(every, initial=0.0)), max(0.0, np.nanmax(every, initial=0.0))
    span = (high - low) or 1.0
    right = _WIDTH - min(220, 34 + 7 * max((len(line.label) for line in drawn), default=0))
    base = _HEIGHT - _BOTTOM

    def x(step: float) -> float:
        return round(_LEFT + (right - _LEFT) * step / max(1, summary.steps), 1)

    def y(value: float) -> float:
        return float(round(_TOP + (base - _TOP) * (high - value) / span, 1))

    ends = {line.method: y(float(by_method[line.method]["mean"].iloc[-1])) for line in drawn}
    heights = spread([height for height in ends.values() if np.isfinite(height)], _LABEL_GAP, _TOP, base)
    label_at = dict(zip([name for name in ends if np.isfinite(ends[name])], heights, strict=True))
    tick = nice(span / 4)
    ticks = np.arange(np.ceil(low / tick - 1e-9), np.floor(high / tick + 1e-9) + 1) * tick
    unit = max(0, -int(np.floor(np.log10(tick))))
    place = {"x": x, "y": y}
    return {
        "title": f"Curves of {len(drawn)} methods against {summary.axis}; the table has the end values",
        "x_label": summary.axis,
        "y_label": f"{views['relative' if relative else 'raw']}, {summary.score_names[summary.score]}",
        "width": _WIDTH,
        "height": _HEIGHT,
        "left": _LEFT,
        "right": right,
        "base": base,
        "y_ticks": [{"at": y(t), "text": number(t, unit), "zero": abs(t) < tick / 2} for t in ticks],
        "x_ticks": [{"at": x(s), "text": s} for s in range(0, summary.steps + 1, int(max(1, nice(summary.steps / 5))))],
        "lines": [
            _line(line, by_method[line.method], place, label_at.get(line.method), strong=line.id == best)
            for line in drawn
        ],
    }


def _line(line: Line, rows: pd.DataFrame, place: Any, label_at: float | None, *, strong: bool) -> dict[str, Any]:
    def points(steps: Any, heights: Any) -> list[tuple[float, float]]:
        pairs = zip(steps, heights, strict=True)
        return [(place["x"](step), place["y"](value)) for step, value in pairs if np.isfinite(value)]

    def path(found: list[tuple[float, float]]) -> str:
        return "M" + "L".join(f"{x} {y}" for x, y in found)

    bounded = rows[rows["low"].notna() & rows["high"].notna()] if strong else rows.iloc[:0]
    back = bounded.iloc[::-1]
    ring = points(bounded["step"], bounded["high"]) + points(back["step"], back["low"])
    mean = points(rows["step"], rows["mean"])
    stroke = _STROKE * (1.7 if strong else 1)
    return {
        "path": path(mean),
        "band": path(ring) + "Z" if ring else "",
        "colour": line.look.colour,
        "dash": line.look.svg_dash(stroke),
        "stroke": stroke,
        "marker": line.marker,
        "marks": mean[:: max(1, len(mean) // 5)],
        "strong": strong,
        "label": line.label if label_at is not None else "",
        "label_at": 0 if label_at is None else round(label_at, 1),
    }


def spread(places: list[float], gap: float, lowest: float, highest: float) -> list[float]:
    """Places moved apart to at least a gap, in their order, within bounds as far as they fit."""
    order = np.argsort(places, kind="stable")
    moved = np.array(places, dtype=float)
    for i, index in enumerate(order):
        moved[index] = max(moved[index], moved[order[i - 1]] + gap if i else lowest)
    for i, index in reversed(list(enumerate(order))):
        ceiling = moved[order[i + 1]] - gap if i + 1 < len(order) else highest
        moved[index] = min(moved[index], ceiling)
    return [float(place) for place in moved]


def nice(step: float) -> float:
    """The next 1, 2, 5 or 10 times a power of ten."""
    power = 10.0 ** np.floor(np.log10(step))
    return float(next(m * power for m in (1, 2, 5, 10) if m * power >= step * 0.999))
