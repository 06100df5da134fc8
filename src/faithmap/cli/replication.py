"""`python main.py`: the figure of the paper and its replication of 2021."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from faithmap.cli.console import guarded
from faithmap.cli.measuring import measure
from faithmap.cli.options import Computed, FullyMeasured, Inputs, Places, grouped
from faithmap.cli.show import show_run, show_window
from faithmap.errors import DownloadError

replication = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")


@replication.command(context_settings={"help_option_names": ["-h", "--help"]})
@guarded
@grouped
def reproduce(
    measured: FullyMeasured,
    computed: Computed,
    places: Places,
    images: Annotated[int, "How many Imagenette images."] = 100,
) -> None:
    """Figure 4 of Samek et al. (2017) on a pretrained AlexNet and Imagenette.

    Downloads what is missing, once; runs on a GPU where there is one; ends with the graph.
    `python main.py --images 1000 --protocol replication2021` is the 2021 replication with all its departures.
    """
    inputs = Inputs("alexnet", "imagenette", images)
    protocol = measured.build("samek2017")
    default = Path("runs") / f"{protocol.name}-alexnet-imagenette"
    try:
        run = measure(inputs, "fig4", protocol, computed, places, default)
    except DownloadError as error:
        raise DownloadError(
            f"{error} Figure 4 needs two downloads, once each: the weights of AlexNet and Imagenette (320 px). "
            "Without a network, `make demo` makes it on a network and photos that are here already."
        ) from error
    assert run is not None
    show_run(run)
    show_window(run)
