"""`faithmap study`: the same question under many settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.table import Table
from rich.text import Text

from faithmap.cli.app import command
from faithmap.cli.console import err, files_of, one_line, out, place
from faithmap.cli.measuring import command_line
from faithmap.cli.options import Executed, Inputs, Options, Places, Score, Seed, integer_or_word, is_integer
from faithmap.errors import FaithmapError
from faithmap.text import display_name

if TYPE_CHECKING:
    from faithmap.studies.study import Study


@dataclass(frozen=True)
class Varied(Options, panel="What is measured"):
    """The settings of a study."""

    settings: Annotated[
        str,
        "`consistency`: four fills × three region sizes, both orders, to full removal; `quick`: two × two.",
    ] = "consistency"
    fills: Annotated[str | None, "Names separated by commas, instead of the settings' own."] = None
    region_sizes: Annotated[str | None, "Sides in pixels, separated by commas, instead of the settings' own."] = None
    points: Annotated[str | None, "Steps that are scored, or `all`; see `faithmap run`. Default: 13."] = None
    score: Score = None
    seed: Seed = 0

    def build(self) -> Any:
        """What `study` takes as settings."""
        from faithmap.studies.settings import GRIDS, grid

        if self.fills is None and self.region_sizes is None:
            return self.settings
        own, _ = GRIDS.get(self.settings, GRIDS["consistency"])
        fills = own if self.fills is None else [part.strip() for part in self.fills.split(",")]
        sides = (9, 16, 32) if self.region_sizes is None else list(map(self.side, self.region_sizes.split(",")))
        return grid(fills, sides)

    def side(self, text: str) -> int:
        """One of `--region-sizes`."""
        if not is_integer(text.strip()):
            raise FaithmapError(f"--region-sizes is '{self.region_sizes}': give sides in pixels, such as 9,16,32.")
        return int(text)


@command("study")
def study_command(
    inputs: Inputs,
    varied: Varied,
    executed: Executed,
    places: Places,
    methods: Annotated[str, "`families` (one of each), `fig4`, or names separated by commas."] = "families",
    models: Annotated[str | None, "Several networks, separated by commas, instead of `--model`."] = None,
    heatmaps_from: Annotated[Path | None, "Use the heatmaps that a run folder holds."] = None,
) -> None:
    """Ask the same question under many settings, and say what holds in all of them.

    Heatmaps are computed once. Every setting is an ordinary run in a folder of the study. The same command again goes
    on where it stopped; more images, methods or settings extend the folder.

    **Examples**

    `faithmap study --limit 16 --settings quick --out runs/study`: four settings, a few minutes on a laptop.

    `faithmap study --model resnet18 --images my/photos --methods families,smoothgrad:n=25 --out runs/study`

    `faithmap study --models resnet18,convnext_tiny --images my/photos --out runs/two`: a study for each network, then
    what holds on both, and one page.
    """
    from faithmap.studies.pages import networks_page, networks_verdict, scores_of, studies_in

    networks = [name.strip() for name in models.split(",")] if models else [inputs.model]
    base = places.out or Path(f"runs/study-{Path(inputs.images).name or 'images'}")
    for name in networks:
        folder = base
        if len(networks) > 1:
            folder = base / one_folder(name) if isinstance(base, Path) else f"{base}/{one_folder(name)}"
        show_study(run_study(replace(inputs, model=name), varied, executed, places, methods, folder, heatmaps_from))
    if len(networks) > 1:
        studies = studies_in(base)
        first, *each = networks_verdict(studies, "srg", scores_of(studies)[0])
        out.print(Text(one_line(first), style="bold"))
        for line in each:
            out.print(Text(one_line(line)))
        out.print(networks_table(studies))
        page = networks_page(studies, base / "report.html")
        out.print(Text.assemble(("all networks ", "dim"), one_line(str(page))), soft_wrap=True)


def run_study(
    inputs: Inputs, varied: Varied, executed: Executed, places: Places, methods: str, folder: Any, heatmaps_from: Any
) -> Study:
    """A study with a progress bar for each setting."""
    import faithmap
    from faithmap.experiment.progress import ProgressDisplay
    from faithmap.inference import tune_allocator

    tune_allocator()
    classifier = faithmap.load_classifier(inputs.model, executed.device)
    images = faithmap.load_images(inputs.images, data=places.data, groups=inputs.groups)
    images = images.limit(inputs.limit, varied.seed)
    open_displays: list[ProgressDisplay] = []

    def bar(name: str) -> ProgressDisplay:
        close()
        err.print(one_line(f"{classifier.name}, {name}"), highlight=False)
        open_displays.append(ProgressDisplay(err).__enter__())
        return open_displays[-1]

    def close() -> None:
        while open_displays:
            open_displays.pop().__exit__(None, None, None)

    points = varied.points
    try:
        return faithmap.study(
            classifier,
            images,
            methods,
            varied.build(),
            folder,
            heatmaps_from=heatmaps_from,
            progress=bar,
            seed=varied.seed,
            score=varied.score,
            points=integer_or_word(points),
            command=command_line(),
            **executed.arguments(),
        )
    finally:
        close()


def show_study(study: Study) -> None:
    """Print what holds, the places of every method, and the grade of the ruler."""
    first, *rest = study.verdict()
    out.print(Text(one_line(first), style="bold"))
    for line in rest:
        out.print(Text(one_line(line)))
    if len(study.runs()) > 1:
        table = Table(title="Ranks by SRG; 1 is best", title_justify="left", box=None, padding=(0, 2, 0, 0))
        table.add_column("method", overflow="fold")
        for name in ("first in", "last in", "best", "mean", "worst"):
            table.add_column(name, justify="right", no_wrap=True)
        agreement = study.agreement()
        row: Any
        for row in agreement.places().itertuples():
            ranks = [f"{row.best:g}", f"{row.mean:.1f}", f"{row.worst:g}"]
            table.add_row(one_line(display_name(str(row.Index))), f"{row.first}/{row.settings}", f"{row.last}", *ranks)
        out.print(table)
    out.print(Text("How far this can be trusted:", style="bold"))
    for line in study.grade().sentences():
        out.print(Text(f"· {one_line(line)}"))
    page = study.report(files_of(place(study.url)) / "report.html")
    study.figure("study", page.with_name("study.png"))
    for name, file in (("figure", page.with_name("study.png")), ("open", page)):
        out.print(
            Text.assemble((f"{name:<7}", "dim"), (one_line(str(file)), "bold" * (name == "open"))), soft_wrap=True
        )


def networks_table(studies: Mapping[str, Study]) -> Table:
    """Mean rank of every method on each network, and how often it is first there; best mean rank on top."""
    places = {name: study.agreement().places() for name, study in studies.items() if len(study.runs()) > 1}
    means = {name: found["mean"] for name, found in places.items()}
    methods = sorted({name for mean in means.values() for name in mean.index})
    table = Table(title="Mean rank by SRG (first in)", title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("method", overflow="fold")
    for name in places:
        table.add_column(one_line(name), justify="right", overflow="fold")
    for method in sorted(methods, key=lambda name: sum(mean.get(name, len(methods)) for mean in means.values())):
        cells = [
            f"{found['mean'][method]:.1f} ({found['first'][method]}/{found['settings'][method]})"
            if method in found.index
            else "–"
            for found in places.values()
        ]
        table.add_row(one_line(display_name(method)), *cells)
    return table


def one_folder(name: str) -> str:
    """A network's name as one folder."""
    return name.replace(":", "-").replace("/", "-")
