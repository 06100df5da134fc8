"""The commands that make, show and list."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from faithmap.cli.app import command
from faithmap.cli.console import files_of, one_line, out, place, show_list
from faithmap.cli.measuring import measure
from faithmap.cli.opening import run_of, studies_of, study_of
from faithmap.cli.options import (
    Channels,
    Data,
    Drawn,
    Executed,
    Files,
    FullyMeasured,
    Inputs,
    Properties,
    RunFolder,
    channels_of,
)
from faithmap.cli.show import show_costs, show_refusals, show_run


@command("run")
def run_command(
    inputs: Inputs,
    measured: FullyMeasured,
    properties: Properties,
    executed: Executed,
    files: Files,
    methods: Annotated[str, "`fig4` or names separated by commas, see `faithmap methods`. `random` is always run."] = (
        "fig4"
    ),
    verbose: Annotated[bool, "Also print the scores themselves and how large heatmaps are as pictures."] = False,
) -> None:
    """Measure heatmap methods on images, then print the verdict, draw Figure 4 and write the page.

    The same command again goes on where it stopped; more images, methods, steps or draws extend the same folder.

    **Examples**

    `faithmap run --draws 1 --out runs/demo`: the embedded network and photos, two minutes on a laptop.

    `faithmap run --model alexnet --images imagenette --limit 1000 --protocol replication2021 --out runs/fig4`

    `faithmap run --model resnet18 --images my/photos --methods lrp-epsilon:0.01,sensitivity:l2 --out runs/mine`
    """
    given = files.given_heatmaps()
    asked = [*([methods] if methods or not given else []), *given]
    protocol, targets = measured.build_with_targets()
    run = measure(inputs, asked, protocol, executed, files, properties=properties, targets=targets)
    if run is not None:
        show_run(run, verbose)


@command("doctor")
def doctor_command(
    run: Annotated[
        Any, typer.Argument(help="A run folder to look at as well.", show_default=False, parser=place, metavar="RUN")
    ] = None,
    data: Data = None,
    model: Annotated[str | None, "A classifier: what a step recomputes in each layer, and what that gains."] = None,
) -> None:
    """Look at what is installed, the devices, weights, data and a run folder; each finding with its remedy."""
    from faithmap.cli.doctor import BAD, findings

    if model is not None:
        show_costs(model)
        return
    marks = {"good": "[green]✓[/]", "hint": "[yellow]·[/]", "bad": "[red]✗[/]"}
    states = set()
    for finding in findings(run, data):
        states.add(finding.state)
        text = Text.from_markup(marks[finding.state] + " ").append(one_line(finding.what))
        out.print(text.append(f" → {one_line(finding.remedy)}" if finding.remedy else "", style="bold"), soft_wrap=True)
    if BAD in states:
        raise typer.Exit(1)


def list_figures(asked: bool) -> None:
    """Name all figures and leave; needs no run."""
    if not asked:
        return
    from faithmap.plots import FIGURES

    for name, known in FIGURES.items():
        out.print(Text.assemble((f"{name:<13}", "bold"), known.line), soft_wrap=True)
    raise typer.Exit


@command("plot")
def plot_command(
    run: RunFolder,
    drawn: Drawn,
    figure: Annotated[
        str | None, "Which one; `faithmap plot --list` names them. Default: `fig4`, or `study` for a study."
    ] = None,
    out_file: Annotated[
        Path | None, typer.Option("--out", "-o", help="png, svg or pdf. Default: FIGURE.png in the run folder.")
    ] = None,
    listed: Annotated[
        bool, typer.Option("--list", callback=list_figures, is_eager=True, help="Name all figures, with a line each.")
    ] = False,
) -> None:
    """Draw a figure from a run folder, finished or not, or from a study; loads no model.

    `faithmap plot runs/demo --figure heatmaps --out heatmaps.pdf --style slides`
    """
    study = study_of(run)
    figure = figure or ("fig4" if study is None else "study")
    file = out_file or files_of(run) / f"{figure}.png"
    (study or run_of(run, "plot")).figure(figure, file, **drawn.arguments())
    out.print(one_line(str(file)), highlight=False, soft_wrap=True)


@command("report")
def report_command(
    run: RunFolder,
    out_file: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="HTML file, or folder. Default: report.html, or report, in the run folder."),
    ] = None,
    examples: Annotated[int | None, "How many images the flipbook shows. Default: a sample; all in a folder."] = None,
    folder: Annotated[
        bool, typer.Option("--folder", help="A folder whose page loads its images as they are looked at, for many.")
    ] = False,
    channels: Channels = None,
) -> None:
    """Write the answer as one HTML page that opens without a network: ranking, flipbook, figure; loads no model.

    The page of a study shows the ranks in all settings, for all of its networks, and the answer and figure of a chosen
    one.
    """
    from faithmap.studies.pages import networks_page

    place = out_file or files_of(run) / ("report" if folder else "report.html")
    study, networks = study_of(run), studies_of(run)
    shown = channels_of(channels)
    if folder or not (study or networks):
        found = run_of(run, "report --folder" if folder else "report")
        file = found.report(place, examples=examples, folder=folder, channels=shown)
    else:
        file = networks_page(networks, Path(place)) if study is None else study.report(place)
    out.print(one_line(str(file)), highlight=False, soft_wrap=True)


@command("measures")
def measures_command() -> None:
    """List the measures by the property that they belong to: which way is good, unit, cost and source.

    `faithmap run --measures complexity,max-sensitivity:n=5` takes sets and names. Cost: per image and draw.
    """
    from faithmap.cli.listing import listed_measures

    rows: list[list[str]] = []
    before = ""
    for package, one in listed_measures():
        name = one.written(one.defaults) + (f" ({package})" if package != "faithmap" else "")
        if one.set != before:
            rows.append([one.set])
        arrow = "↑" if one.higher_is_better else "↓"
        what = f"{one.line} ({one.unit})" if one.unit else one.line
        rows.append([f"  {name} {arrow}", what, one.cost, one.source])
        before = one.set
    show_list("Measures", ("set, name, better", "what it is (unit)", "cost", "source"), rows)


@command("methods")
def methods_command(
    model: Annotated[
        str | None, typer.Option(help="A classifier: which methods mean something on it, and why the others do not.")
    ] = None,
) -> None:
    """List heatmap methods, fills and measures, with one line and the source each; those of other packages too."""
    from faithmap.cli.listing import KINDS

    if model is not None:
        show_refusals(model)
        return
    for kind in KINDS:
        listed = kind.listed()
        columns = ("name", "what it is", "source", *(["package"] if len(listed) > 1 else []))
        rows = [
            [one.written(one.defaults), one.line, one.source, package][: len(columns)]
            for package, declarations in listed.items()
            for one in declarations
        ]
        show_list(kind.title, columns, rows)
