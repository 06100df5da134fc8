"""The scorecard in a terminal, and as LaTeX."""

from __future__ import annotations

from typing import Annotated, Any

from rich.table import Table
from rich.text import Text

from faithmap.cli.app import command
from faithmap.cli.console import err, one_line, out
from faithmap.cli.opening import run_of
from faithmap.cli.options import RunFolder, Score


@command("scorecard")
def scorecard_command(
    run: RunFolder,
    sort: Annotated[str | None, "The measure by which methods are sorted, best first."] = None,
    score: Score = None,
    latex: Annotated[bool, "Print a LaTeX table instead."] = False,
) -> None:
    """Show every method by every measure of a run, with intervals and letters; loads no model.

    `faithmap scorecard runs/demo --sort max-sensitivity`
    """
    from faithmap.measures.scorecard import latex as latex_of

    card = run_of(run, "scorecard").scorecard(score)
    if latex:
        out.print(latex_of(card, sort), markup=False, highlight=False, soft_wrap=True, end="")
    else:
        show_scorecard(card, sort)


def show_scorecard(card: Any, sort: str | None = None) -> None:
    """Print methods by measures, what has no values, and what the measures say together.

    Intervals are shown where all fits; measures that do not fit beside each other come in tables below each other.
    """
    from faithmap.measures.scorecard import as_measured, disagreement, wide

    whole = wide(card, sort)
    methods = [one_line(str(method)) for method in whole.index]
    room = out.width - max(map(len, methods), default=6)
    fits = sum(_width(name, whole[name]) for name in whole.columns) <= room
    shown = whole if fits else wide(card, sort, intervals=False)
    tables: list[list[str]] = [[]]
    for name in shown.columns:
        if tables[-1] and sum(_width(one, shown[one]) for one in [*tables[-1], name]) > room:
            tables.append([])
        tables[-1].append(name)
    for names in tables:
        table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False)
        table.add_column("method", no_wrap=True)
        for name in names:
            table.add_column(one_line(name), justify="right", no_wrap=True)
        for place, method in enumerate(methods):
            table.add_row(method, *(one_line(shown[name].iloc[place]) for name in names))
        out.print()
        out.print(table)
    note = "Mean, 95 % interval" if fits else "Mean (a wider terminal shows intervals)"
    out.print(Text(f"{note}, letters: same letter, not distinguishable. ↑ higher is better, ↓ lower.", "dim"))
    if raw := as_measured(card):
        out.print(Text(raw, "dim"))
    for name, reason in card.attrs.get("left_out", {}).items():
        err.print(Text.assemble(("left out: ", "bold yellow"), f"{name}: {one_line(reason)}"), soft_wrap=True)
    if said := disagreement(card):
        out.print(said, highlight=False, soft_wrap=True)


def _width(name: str, cells: Any) -> int:
    return max(len(name), *map(len, cells)) + 2
