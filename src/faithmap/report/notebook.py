"""A run in a notebook: the headline, a small figure and the ranking, without script or style sheet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from faithmap import statistics
from faithmap.protocol import RANDOM
from faithmap.report import summary as numbers
from faithmap.report.summary import Line, Summary, summarise
from faithmap.report.templates import template
from faithmap.text import number, printable

if TYPE_CHECKING:
    import pandas as pd

    from faithmap.store.reading import StoredRun

# Middle tones: they must be seen on white and on black.
_COLOURS = ("#2b86cf", "#d56a1f", "#1c9a70", "#c2609b", "#9a7d00", "#6f78e0", "#d15757", "#4b8fa0")
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 640, 280, 46, 22, 38
_LABEL_GAP = 13.0


def run_html(run: StoredRun) -> str:
    """A run as HTML: the headline, a small figure and the ranking."""
    summary = summarise(run)
    return template("notebook.html").render(
        headline=numbers.headline(summary),
        unfinished=numbers.unfinished(summary),
        figure=figure(summary),
        ranking=numbers.ranking(summary),
        folder=printable(run.store.url),
    )


def figure(summary: Summary) -> dict[str, Any]:
    """Paths and labels of AOPC against regions removed, in the units of a 640 by 280 picture."""
    relative = summary.has_random
    table = statistics.aopc_table(summary.frame, summary.score, relative, order=summary.order)
    drawn = [line for line in summary.lines if not (relative and line.method == RANDOM)]
    by_method = {str(name): rows.sort_values("step") for name, rows in table.groupby("method")}
    values = table.loc[table["method"].isin([line.method for line in drawn]), ["mean", "low", "high"]].to_numpy(float)
    low, high = min(0.0, np.nanmin(values, initial=0.0)), max(0.0, np.nanmax(values, initial=0.0))
    span = (high - low) or 1.0
    right = _WIDTH - min(200, 16 + 7 * max((len(line.label) for line in drawn), default=0))
    base = _HEIGHT - _BOTTOM

    def x(step: float) -> float:
        return round(_LEFT + (right - _LEFT) * step / max(1, summary.steps), 1)

    def y(value: float) -> float:
        return float(round(_TOP + (base - _TOP) * (high - value) / span, 1))

    def path(steps: Any, heights: Any) -> str:
        return "M" + "L".join(f"{x(s)} {y(v)}" for s, v in zip(steps, heights, strict=True) if np.isfinite(v))

    ends = {line.method: y(float(by_method[line.method]["mean"].iloc[-1])) for line in drawn}
    heights = spread([height for height in ends.values() if np.isfinite(height)], _LABEL_GAP, _TOP, base)
    label_at = dict(zip([name for name in ends if np.isfinite(ends[name])], heights, strict=True))
    tick = nice(span / 4)
    ticks = np.arange(np.ceil(low / tick - 1e-9), np.floor(high / tick + 1e-9) + 1) * tick
    unit = max(0, -int(np.floor(np.log10(tick))))
    return {
        "title": f"AOPC of {len(drawn)} methods against {summary.axis}; the table has the end values",
        "x_label": summary.axis,
        "y_label": f"AOPC{' relative to random' if relative else ''}, {summary.score}",
        "width": _WIDTH,
        "height": _HEIGHT,
        "left": _LEFT,
        "right": right,
        "base": base,
        "y_ticks": [{"at": y(t), "text": number(t, unit), "zero": abs(t) < tick / 2} for t in ticks],
        "x_ticks": [{"at": x(s), "text": s} for s in range(0, summary.steps + 1, int(max(1, nice(summary.steps / 5))))],
        "lines": [_line(line, by_method[line.method], path, label_at.get(line.method)) for line in drawn],
    }


def _line(line: Line, rows: pd.DataFrame, path: Any, label_at: float | None) -> dict[str, Any]:
    bounded = rows[rows["low"].notna() & rows["high"].notna()]
    back = bounded.iloc[::-1]
    band = path(bounded["step"], bounded["high"]) + path(back["step"], back["low"]).replace("M", "L", 1) + "Z"
    hue = line.hue.removeprefix("hue-")
    return {
        "path": path(rows["step"], rows["mean"]),
        "band": band if len(bounded) else "",
        "colour": "#8a8a8a" if hue == RANDOM else _COLOURS[int(hue)],
        "dash": line.dash,
        "label": line.label if label_at is not None else "",
        "label_at": 0 if label_at is None else round(label_at + 4, 1),
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
