"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from faithmap.cli.console import place

MEASURED, SPEED, FILES = "What is measured", "How it is computed", "Where things are"


def option(*names: str, panel: str, text: str) -> Any:
    """An option of a panel of `--help`."""
    return typer.Option(*names, help=text, rich_help_panel=panel)


ProtocolName = Annotated[
    str,
    option(
        "--protocol",
        panel=MEASURED,
        text="`samek2017`, `replication2021`, `deletion` or `insertion`; any part can be overridden.",
    ),
]
Steps = Annotated[str | None, option("--steps", panel=MEASURED, text="Regions removed, L, or `all` that fit.")]
Draws = Annotated[
    int | None, option("--draws", panel=MEASURED, text="Repetitions with new noise and a new random order.")
]
RegionSize = Annotated[
    int | None,
    option("--region-size", panel=MEASURED, text="Side of a region in pixels; with placement `pixel`, pixels a step."),
]
Placement = Annotated[
    str | None,
    option(
        "--placement",
        panel=MEASURED,
        text="`grid`: cells of a fixed grid; `centre`: windows centred on the highest remaining pixel; `pixel`: single "
        "pixels; `segment`: segments of any shape.",
    ),
]
Segments = Annotated[
    str | None,
    option("--segments", panel=MEASURED, text="For placement `segment`: `slic:n=50`, or `folder:PATH` of label maps."),
]
Direction = Annotated[
    str | None,
    option("--direction", panel=MEASURED, text="`remove` regions from the image, or `restore` them onto the fill."),
]
Fill = Annotated[
    str | None,
    option(
        "--fill",
        panel=MEASURED,
        text="What replaces a region: `uniform`, `uniform-grey`, `dirichlet`, `constant:mean`, `constant:dataset-mean`,"
        " `constant:#808080`, `blur:sigma=5`, `noisy-linear`, `swap`.",
    ),
]
Target = Annotated[str | None, option("--target", panel=MEASURED, text="Score the `predicted` class or the `label`.")]
Orders = Annotated[
    str | None,
    option("--orders", panel=MEASURED, text="`morf` (most relevant first), `lerf` (least), or `morf,lerf`."),
]
Score = Annotated[str | None, option("--score", panel=MEASURED, text="Show `logit` or `probability`; both are stored.")]
Seed = Annotated[int, option("--seed", panel=MEASURED, text="Key of all randomness.")]
Device = Annotated[str, option("--device", panel=SPEED, text="`auto`, `cpu`, `cuda`, `cuda:1`, …")]
BatchSize = Annotated[
    int | None, option("--batch-size", panel=SPEED, text="Inputs a forward pass; changes speed and memory only.")
]
EngineName = Annotated[
    str,
    option(
        "--engine",
        panel=SPEED,
        text="`auto`: recompute only what a step changes, where that is possible; `incremental`, or fail; `dense`: "
        "run the whole network at every step.",
    ),
]
Precision = Annotated[
    str, option("--precision", panel=SPEED, text="`float32`, or `bfloat16` for screening (marked wherever it shows).")
]
Out = Annotated[
    Any,
    typer.Option(
        "--out",
        help="Run folder: a path, or a URL such as `s3://…`. Default: `runs/IMAGES-MODEL`.",
        rich_help_panel=FILES,
        parser=place,
        metavar="FOLDER",
        show_default=False,
    ),
]
Data = Annotated[Path | None, option("--data", panel=FILES, text="Where downloaded data are kept and looked for.")]
SaveHeatmaps = Annotated[
    bool, option("--save-heatmaps", panel=FILES, text="Store the heatmaps of all images, not of a sample of 24.")
]
ExecutorName = Annotated[
    str, option("--executor", panel=SPEED, text="`local`, or `ray`: spread over the workers of a Ray cluster.")
]
Address = Annotated[
    str | None,
    option(
        "--address",
        panel=SPEED,
        text="Ray cluster: `auto` (of this machine) or `host:port`. Default: one is started for this run.",
    ),
]
Workers = Annotated[
    int | None, option("--workers", panel=SPEED, text="Ray workers. Default: one a GPU, else one a CPU core.")
]
Threads = Annotated[
    int | None,
    option("--threads", panel=SPEED, text="CPU threads, of each worker. Other threads may round otherwise."),
]
DryRun = Annotated[
    bool, option("--dry-run", panel=FILES, text="Say what it would take, from half a minute's measuring.")
]
HeatmapsFrom = Annotated[
    Path | None, option("--heatmaps-from", panel=FILES, text="Use the heatmaps that another run folder holds.")
]
RunFolder = Annotated[
    Any,
    typer.Argument(
        help="A run folder, as given to `faithmap run --out`.", show_default=False, parser=place, metavar="RUN"
    ),
]
