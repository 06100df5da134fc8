"""Runs for a paper, and many runs beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from rich.text import Text

from faithmap.cli.app import command
from faithmap.cli.console import err, one_line, out
from faithmap.cli.options import RunFolder, Score


@command("cite")
def cite_command(
    run: RunFolder,
    measure: Annotated[str | None, "What the table ranks by, such as `aopc`. Default: the protocol's."] = None,
    score: Score = None,
    to: Annotated[Path | None, "Write table.tex, methods.tex, references.bib and example.tex into this folder."] = None,
) -> None:
    """Print a run as a LaTeX table, a methods paragraph with every parameter, and BibTeX; loads no model.

    `faithmap cite runs/demo --to paper/`
    """
    from faithmap.run import Run

    paper = Run(run).paper(measure, score)
    for name in paper.without_entry:
        err.print(Text.assemble(("note: ", "bold yellow"), f"no BibTeX entry for {one_line(name)}: cite it yourself."))
    if to is not None:
        folder = paper.write(to)
        for name in ("table.tex", "methods.tex", "references.bib", "example.tex"):
            out.print(str(folder / name), highlight=False, soft_wrap=True)
        return
    for part in (paper.table, paper.methods, paper.bibtex):
        out.print(part, markup=False, highlight=False, soft_wrap=True)
