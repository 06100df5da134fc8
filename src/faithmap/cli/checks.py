"""The commands that examine the measurement itself: its operators, and whether heatmaps depend on the network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from rich.table import Table
from rich.text import Text

from faithmap.cli.app import command
from faithmap.cli.console import err, one_line, out
from faithmap.cli.options import Computed, Data, Device, Inputs, Measured, Places, Seed
from faithmap.text import number, significant


@dataclass(frozen=True)
class OperatorPlaces(Places):
    """A run folder for each operator, and downloaded data."""

    out: Annotated[Path | None, "Keep a run folder for each operator in here."] = None


@dataclass(frozen=True)
class FewInputs(Inputs):
    """A network and some images."""

    limit: Annotated[int | None, "How many images."] = 8


@command("operators")
def operators_command(
    inputs: Inputs,
    measured: Measured,
    computed: Computed,
    places: OperatorPlaces,
    method: Annotated[str, "One heatmap method."] = "lrp-epsilon:0.01",
    fill: Annotated[
        list[str] | None, "A perturbation operator; give it several times. `paper`: the appendix's four; `all`."
    ] = None,
) -> None:
    """Compare perturbation operators: the area between the LeRF and the MoRF curve (ABPC) for each.

    The table of the appendix of Samek et al. (2017). A larger area means that the operator takes away what the heatmap
    points at.

    `faithmap operators --limit 10 --draws 1 --fill paper --fill noisy-linear`
    """
    import faithmap
    from faithmap.studies.operators import ALL, PAPER

    sets = {"paper": PAPER, "all": ALL}
    fills = [name for one in fill or ["paper"] for name in sets.get(one, (one,))]
    asked = measured.build("samek2017")
    found = faithmap.load_images(inputs.images, data=places.data).limit(inputs.limit, asked.seed)
    classifier = faithmap.load_classifier(inputs.model, computed.device)
    with one_bar_each() as show:
        frame = faithmap.operator_table(
            classifier,
            found,
            method,
            asked,
            list(dict.fromkeys(fills)),
            out=places.out,
            progress=show,
            **computed.arguments(),
        )
    score = classifier.score_name or asked.score
    table = Table(
        title=one_line(f"ABPC of {method}, {score}, {classifier.name}, {frame['images'].max()} images"),
        title_justify="left",
        caption="higher: the operator takes away what the heatmap points at",
        caption_justify="left",
    )
    table.add_column("operator")
    for name in ("ABPC", "95 % interval"):
        table.add_column(name, justify="right")
    for row in frame.itertuples():
        table.add_row(
            one_line(str(row.fill)), significant(row.mean, 4), f"{significant(row.low, 4)} … {significant(row.high, 4)}"
        )
    out.print(table)


@contextmanager
def one_bar_each() -> Iterator[Callable[[str, Any], None]]:
    """What shows the progress of several runs, one after the other: a bar each, under the run's name."""
    from faithmap.experiment.progress import ProgressDisplay

    bars: dict[str, ProgressDisplay] = {}
    with ExitStack() as shown:

        def show(name: str, state: Any) -> None:
            if name not in bars:
                shown.close()
                err.print(one_line(name), highlight=False)
                bars[name] = shown.enter_context(ProgressDisplay(err))
            bars[name](state)

        yield show


@command("sanity")
def sanity_command(
    inputs: FewInputs,
    methods: Annotated[str, "`fig4` or names separated by commas."] = "fig4",
    seed: Seed = 0,
    device: Device = "auto",
    data: Data = None,
) -> None:
    """Check that heatmaps change when the network forgets (model randomisation, Adebayo et al. 2018).

    Layers are re-drawn from the last one down; the table shows the rank correlation of the absolute relevance with that
    of the trained network. A method that stays near 1 does not explain what the network has learned.
    """
    import torch

    import faithmap
    from faithmap.errors import ImageError
    from faithmap.measures.randomisation import randomisation_table

    classifier = faithmap.load_classifier(inputs.model, device)
    pixels = []
    for image in faithmap.load_images(inputs.images, data=data).limit(inputs.limit, seed):
        try:
            pixels.append(image.read(classifier.preprocessing))
        except ImageError as error:
            err.print(Text.assemble(("skipped: ", "bold yellow"), one_line(str(error))), soft_wrap=True)
    if not pixels:
        raise ImageError("not one image could be read.")
    with err.status("re-drawing layers"):
        check = faithmap.randomisation_check(classifier, torch.stack(pixels).to(classifier.device), methods, seed=seed)
    wide = randomisation_table(check)
    layers = check.groupby("share")["layers"].first()
    table = Table(
        title=one_line(
            f"Rank correlation with the trained {classifier.name}, {len(pixels)} images; top layers re-drawn"
        ),
        title_justify="left",
        caption="near 1: the heatmap does not depend on what the network has learned; –: no heatmap there, because the "
        "score of the re-drawn network does not depend on the image",
        caption_justify="left",
    )
    table.add_column("method")
    for share in wide.columns[1:]:
        table.add_column(f"top {layers[share]}", justify="right", no_wrap=True)
    for row in wide.itertuples(index=False):
        table.add_row(one_line(str(row[0])), *[number(value, 2) for value in row[1:]])
    out.print(table)
