"""Runs for a paper, and many runs beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from faithmap.cli.app import command
from faithmap.cli.console import err, one_line, out, place
from faithmap.cli.opening import run_of
from faithmap.cli.options import RunFolder, Score

if TYPE_CHECKING:
    from faithmap.studies.beside import Beside


@command("cite")
def cite_command(
    run: RunFolder,
    measure: Annotated[str | None, "What the table ranks by, such as `aopc`. Default: the protocol's."] = None,
    score: Score = None,
    folder: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write table.tex, methods.tex, references.bib, example.tex into this folder."),
    ] = None,
) -> None:
    """Print a run as a LaTeX table, a methods paragraph with every parameter, and BibTeX; loads no model.

    `faithmap cite runs/demo --out paper/`
    """
    paper = run_of(run, "cite").paper(measure, score)
    for name in paper.without_entry:
        err.print(Text.assemble(("note: ", "bold yellow"), f"no BibTeX entry for {one_line(name)}: cite it yourself."))
    if folder is not None:
        folder = paper.write(folder)
        for name in ("table.tex", "methods.tex", "references.bib", "example.tex"):
            out.print(one_line(str(folder / name)), highlight=False, soft_wrap=True)
        return
    for part in (paper.table, paper.methods, paper.bibtex):
        out.print(part, markup=False, highlight=False, soft_wrap=True)


@command("compare")
def compare_command(
    runs: Annotated[
        list[Any], typer.Argument(help="Run folders, two or more.", show_default=False, parser=place, metavar="RUN…")
    ],
    measure: Annotated[str | None, "What methods are ranked by, such as `aopc`. Default: the first run's."] = None,
    score: Score = None,
    figure: Annotated[Path | None, "Also draw the runs side by side into this png, svg or pdf file."] = None,
    page: Annotated[Path | None, "Also write them as one HTML page, where a run's answer and figure is chosen."] = None,
) -> None:
    """Show the rankings of several runs beside each other: networks, or sets of images. Loads no model.

    Runs that differ in anything else are refused.

    `faithmap compare runs/squeezenet runs/efficientnet --page compare.html`
    """
    from faithmap.studies.beside import beside
    from faithmap.studies.pages import beside_page

    opened = [run_of(folder, "compare") for folder in runs]
    found = beside(opened, measure, score)
    show_beside(found)
    if figure is not None:
        opened[0].figure("fig4", figure, compare=runs[1:], score=found.score, measure=found.measure)
        out.print(one_line(str(figure)), highlight=False, soft_wrap=True)
    if page is not None:
        out.print(one_line(str(beside_page(opened, page, measure, score))), highlight=False, soft_wrap=True)


def show_beside(found: Beside) -> None:
    """Print one row per method and one column per run; intervals where all fits."""
    from faithmap.text import display_name

    out.print(Text(one_line(found.sentence()), "bold"))
    for place_, title in enumerate(found.titles):
        out.print(Text(f"{_name(place_)}: {one_line(title)}"))
    labels = [one_line(display_name(name)) for name in found.methods()]
    room = out.width - max(map(len, labels))
    columns = _columns(found, intervals=True)
    fits = sum(map(_width, columns)) <= room
    if not fits:
        columns = _columns(found, intervals=False)
    each = len(columns) if fits else max(1, room // max(map(_width, columns)))
    for start in range(0, len(columns), each):
        table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False)
        table.add_column("method", overflow="fold")
        for place_ in range(start, min(start + each, len(columns))):
            table.add_column(_name(place_), no_wrap=True)
        for label, *cells in zip(labels, *columns[start : start + each], strict=True):
            table.add_row(*(Text(cell) for cell in (label, *cells)))
        out.print()
        out.print(table)
    shown = "mean, 95 % interval" if fits else "mean (a wider terminal shows intervals)"
    relative = " relative to random" if found.relative else ""
    what = f"{shown} of {found.label} by {found.named}{relative}"
    out.print(Text(f"Rank, {what}, letters: same letter, not distinguishable within a run.", "dim"))


def _name(place_: int) -> str:
    return f"run {place_ + 1}"


def _width(cells: list[str]) -> int:
    return max(map(len, cells)) + 2


def _columns(found: Beside, *, intervals: bool) -> list[list[str]]:
    """For each run the cells of all methods, aligned; a dash where the run lacks the method."""
    from faithmap.protocol import RANDOM
    from faithmap.text import decimals, interval, number

    columns = []
    for title in found.titles:
        rows = found.table[found.table["run"] == title].set_index("method")
        digits = decimals([*rows["mean"], *(rows["high"] if intervals else ())])
        parts: dict[str, list[str]] = {}
        for name, row in rows.iterrows():
            reference = found.relative and name == RANDOM  # 0 by definition
            span = ["" if reference else interval(row["low"], row["high"], digits)] if intervals else []
            parts[str(name)] = [f"{row['rank']:d}", number(row["mean"], digits), *span, str(row["letters"])]
        widths = [max(map(len, some)) for some in zip(*parts.values(), strict=True)]

        def cell(some: list[str], widths: list[int] = widths) -> str:
            right = [part.rjust(width) for part, width in zip(some[:-1], widths, strict=False)]
            return "  ".join([*right, some[-1]])

        columns.append([cell(parts[name]) if name in parts else "–" for name in found.methods()])
    return columns


@command("leaderboard")
def leaderboard_command(
    folder: Annotated[Path, typer.Argument(help="A folder with run folders, at any depth.", show_default=False)],
    out_file: Annotated[
        Path | None, typer.Option("--out", "-o", help="HTML file. Default: leaderboard.html in the folder.")
    ] = None,
) -> None:
    """Write all runs of a folder as one page that sorts by any column and opens without a network; loads no model.

    `faithmap leaderboard runs`
    """
    from faithmap.studies.leaderboard import leaderboard

    found = leaderboard(folder)
    for name, reason in found.left_out.items():
        err.print(Text.assemble(("left out: ", "bold yellow"), f"{one_line(name)}: {one_line(reason)}"), soft_wrap=True)
    file = found.write(out_file or folder / "leaderboard.html")
    out.print(f"{found.title}: {one_line(str(file))}", highlight=False, soft_wrap=True)
