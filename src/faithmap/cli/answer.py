"""The answer of a run in a terminal: the verdict, the ranking with intervals as bars, and the page to open."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from faithmap.cli.console import err, files_of, one_line, out, place
from faithmap.errors import FaithmapError
from faithmap.text import decimals, number

if TYPE_CHECKING:
    from faithmap.report.summary import Summary
    from faithmap.run import Run
    from faithmap.store.reading import StoredRun

# No line of prose is longer; the table fits a terminal of 80 columns.
_PROSE, _BAR, _SHORTEST_BAR = 100, 24, 9


def show_answer(run: Run, verbose: bool = False) -> None:
    """Print the verdict and the ranking, write the figure, the scores and the page, and say where they are."""
    from faithmap.report import sections
    from faithmap.report.summary import summarise

    summary = summarise(run)
    found = sections.answer(summary, summary.score)
    if run.precision != "float32":
        out.print(Text(f"Scores in {run.precision}: for screening only.", "bold yellow"))
    width = min(out.width, _PROSE)
    out.print()
    for line, style in ((found["sentence"], "bold"), *((other, "") for other in found["others"])):
        out.print(Text(one_line(line), style), width=width)
    out.print()
    if found["ranking"]["rows"]:
        out.print(ranking_table(found["ranking"], sections.label_of(summary), out.width))
        letters = (
            "Same letter: not distinguishable, with all comparisons corrected for; intervals are of one method each."
        )
        out.print(Text(f"{found['unit']} {letters}", "dim"), width=width)
    if verbose:
        out.print()
        out.print(details_table(summary))
    out.print()
    leave_files(run, summary)


def ranking_table(ranking: dict[str, Any], measure: str, width: int) -> Table:
    """Best method first; intervals as bars, as wide as there is room for.

    Args:
        ranking: from `report.sections.ranking`.
        measure: its name.
        width: of the terminal.
    """
    rows = ranking["rows"]
    low, high = (max((len(part[i]) for row in rows if (part := _ends(row))), default=0) for i in (0, 1))
    intervals = [f"{ends[0]:>{low}} … {ends[1]:>{high}}" if (ends := _ends(row)) else row["interval"] for row in rows]
    letters = max((len(row["letters_value"]) for row in rows), default=0)
    label = min(30, max(len(row["label"]) for row in rows))
    value = max(len(measure), *(len(row["mean"]) for row in rows))
    room = width - label - value - max(map(len, intervals)) - max(letters, len("letters")) - 9
    table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False)
    table.add_column("method", overflow="fold", max_width=label)
    table.add_column(measure, justify="right", no_wrap=True)
    if room >= _SHORTEST_BAR:
        table.add_column("", no_wrap=True)
    table.add_column("95 % interval", justify="right", no_wrap=True)
    table.add_column("letters", no_wrap=True)
    for place_, (row, interval) in enumerate(zip(rows, intervals, strict=True)):
        bar = [interval_bar(row, ranking["zero"], min(room, _BAR))] if room >= _SHORTEST_BAR else []
        cells = [row["label"], row["mean"], *bar, interval, row["letters_value"]]
        style = "dim" if row["reference"] else "bold" if place_ == 0 else ""
        table.add_row(*(Text(cell, style) for cell in cells))
    return table


def _ends(row: dict[str, Any]) -> tuple[str, str] | None:
    low, mark, high = row["interval"].partition(" … ")
    return (low, high) if mark else None


def interval_bar(row: dict[str, Any], zero: float | None, width: int) -> str:
    """An interval as text: ``──●── ┊``, with a mark where random orders are.

    Args:
        row: x, x_low, x_high in per cent, None where there is none.
        zero: where 0 is, in per cent.
        width: characters.
    Example:
        >>> interval_bar({"x": 50, "x_low": 25, "x_high": 75, "reference": False}, 0, 9)
        '┊ ──●──  '
    """

    def at(per_cent: float) -> int:
        return round(per_cent / 100 * (width - 1))

    cells = [" "] * width
    if zero is not None:
        cells[at(zero)] = "┊"
    if row["x_low"] is not None and row["x_high"] is not None and not row["reference"]:
        for i in range(at(row["x_low"]), at(row["x_high"]) + 1):
            cells[i] = "┼" if cells[i] == "┊" else "─"
    if row["x"] is not None and not row["reference"]:
        cells[at(row["x"])] = "●"
    return "".join(cells)


def details_table(summary: Summary) -> Table:
    """The score itself at the last step, and how large heatmaps are as pictures."""
    from faithmap.statistics import curve_table

    curves = curve_table(summary.frame, summary.score, summary.order, steps=[0, summary.steps])
    start, last = (curves[curves["step"] == step].set_index("method")["mean"] for step in (0, summary.steps))
    simple, unit = complexity_of(summary.run), decimals(start)
    table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False)
    table.add_column("method", overflow="fold")
    names = [
        f"{summary.score_names[summary.score]} at 0",
        f"at {summary.steps}",
        *(("PNG, kB", "entropy, bits") if simple else ()),
    ]
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for line in summary.lines:
        if line.method in start.index:
            cells = [number(start[line.method], unit), number(last[line.method], unit)]
            table.add_row(Text(line.label), *cells, *(simple.get(line.method, ("", "")) if simple else ()))
    return table


def leave_files(run: Run, summary: Summary) -> None:
    """Figure, scores and page beside the run; the page comes last, to be opened."""
    folder = files_of(place(run.store.url))
    made: list[tuple[str, Path | str]] = [("figure", folder / "fig4.png"), ("scores", folder / "scores.parquet")]
    run.plot(folder / "fig4.png", frame=summary.scores)
    run.store.export(folder / "scores.parquet")
    made.append(("record", f"{run.store.url}/manifest.json"))
    try:
        made.append(("open", run.report(folder / "report.html")))
    except FaithmapError as error:
        err.print(Text.assemble(("note: ", "bold yellow"), f"no page was written: {one_line(str(error))}"))
    for name, file in made:
        style = "bold" if name == "open" else ""
        out.print(Text.assemble((f"{name:<7}", "dim"), (one_line(str(file)), style)), soft_wrap=True)


def complexity_of(run: StoredRun) -> dict[str, tuple[str, str]]:
    """Method → size and entropy of its heatmaps' pictures, as far as the run stored heatmaps."""
    from faithmap.errors import HeatmapError
    from faithmap.measures.complexity import by_method, complexity_table

    try:
        frame = complexity_table(by_method(example.heatmaps for example in run.examples()))
    except HeatmapError:
        return {}
    rows = zip(frame["method"], frame["png"].to_numpy(dtype=float), frame["entropy"].to_numpy(dtype=float), strict=True)
    return {str(method): (f"{png / 1000:.1f}", f"{entropy:.2f}") for method, png, entropy in rows}
