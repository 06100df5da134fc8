"""The commands themselves."""

from __future__ import annotations

import shlex
import signal
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from faithmap._version import __version__
from faithmap.cli.console import err, files_of, guarded, one_line, out, place, printable, show_warning, terminated
from faithmap.cli.options import (
    FILES,
    Address,
    BatchSize,
    Data,
    Device,
    Direction,
    Draws,
    DryRun,
    EngineName,
    ExecutorName,
    Fill,
    HeatmapsFrom,
    Orders,
    Out,
    Placement,
    Precision,
    ProtocolName,
    RegionSize,
    RunFolder,
    SaveHeatmaps,
    Score,
    Seed,
    Segments,
    Steps,
    Target,
    Threads,
    Workers,
    option,
)
from faithmap.cli.show import show_costs, show_estimate, show_run, show_window
from faithmap.errors import FaithmapError
from faithmap.protocol import Protocol

if TYPE_CHECKING:
    from faithmap.run import Run

app = typer.Typer(
    name="faithmap",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""**Which heatmap can you trust?** faithmap removes regions of an image in the order that a heatmap gives and
measures how fast the class score falls (AOPC, Samek et al. 2017), relative to a random order.

Try it without any download:

    faithmap run --model squeezenet1_1-embedded --images photos --draws 1 --out runs/demo

then look at `runs/demo/fig4.png`. The same command again goes on where it stopped.""",
)


def main() -> None:
    """The command `faithmap`."""
    signal.signal(signal.SIGTERM, terminated)
    warnings.showwarning = show_warning
    app()


def version(asked: bool) -> None:
    """Print the version and leave."""
    if asked:
        out.print(f"faithmap {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options of all commands."""


@app.command("run")
@guarded
def run_command(
    model: Annotated[
        str,
        typer.Option(
            help="`squeezenet1_1-embedded` or `efficientnet-lite0-embedded` (no download), a torchvision classifier "
            "such as `alexnet`, `timm:NAME`, `hf:NAME` or `hf:FOLDER`, `onnx:FILE?norm=imagenet` (scores only)."
        ),
    ] = "squeezenet1_1-embedded",
    images: Annotated[
        str,
        typer.Option(
            help="`photos` (embedded), `imagenette` (downloaded once), or a folder: flat, or one folder a class."
        ),
    ] = "photos",
    limit: Annotated[
        int | None, typer.Option(help="How many images; a random choice that depends on the seed. Default: all.")
    ] = None,
    methods: Annotated[
        str, typer.Option(help="`fig4` or names separated by commas, see `faithmap methods`. `random` is always run.")
    ] = "fig4",
    protocol: ProtocolName = "samek2017",
    steps: Steps = None,
    draws: Draws = None,
    region_size: RegionSize = None,
    placement: Placement = None,
    segments: Segments = None,
    direction: Direction = None,
    fill: Fill = None,
    target: Target = None,
    orders: Orders = None,
    score: Score = None,
    seed: Seed = 0,
    device: Device = "auto",
    batch_size: BatchSize = None,
    engine: EngineName = "auto",
    precision: Precision = "float32",
    out_folder: Out = None,
    data: Data = None,
    heatmaps: Annotated[
        list[str] | None,
        option(
            "--heatmaps",
            panel=FILES,
            text="`NAME=PATH`: heatmaps that are there already, a file or a folder; images are matched by name. May be "
            "given several times.",
        ),
    ] = None,
    executor: ExecutorName = "local",
    address: Address = None,
    workers: Workers = None,
    threads: Threads = None,
    save_heatmaps: SaveHeatmaps = False,
    heatmaps_from: HeatmapsFrom = None,
    dry_run: DryRun = False,
) -> None:
    """Measure heatmap methods on images, then print a table and draw Figure 4.

    The same command again goes on where it stopped; more images, methods, steps or draws extend the same folder.

    **Examples**

    `faithmap run --draws 1 --out runs/demo`: the embedded network and photos, two minutes on a laptop.

    `faithmap run --model alexnet --images imagenette --limit 1000 --protocol replication2021 --out runs/fig4`

    `faithmap run --model resnet18 --images my/photos --methods lrp-epsilon:0.01,sensitivity:l2 --out runs/mine`
    """
    run = measure(
        model,
        images,
        limit=limit,
        data=data,
        methods=[*([methods] if methods else []), *given_heatmaps(heatmaps or [])],
        protocol=build_protocol(
            protocol,
            steps=steps,
            draws=draws,
            region_size=region_size,
            placement=placement,
            segments=segments,
            direction=direction,
            fill=fill,
            target=target,
            orders=orders,
            score=score,
            seed=seed,
        ),
        out=out_folder or default_out(images, model),
        device=device,
        engine=engine,
        batch_size=batch_size,
        precision=precision,
        save_heatmaps=save_heatmaps,
        heatmaps_from=heatmaps_from,
        executor=build_executor(executor, address, workers, threads),
        dry_run=dry_run,
    )
    if run is not None:
        show_run(run)


def given_heatmaps(pairs: Sequence[str]) -> list[dict[str, Path]]:
    """`--heatmaps NAME=PATH`."""
    found = []
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not (name and equals and path):
            raise FaithmapError(f"--heatmaps is '{pair}', expected NAME=PATH, such as tf-ig=heatmaps/ig.npz.")
        found.append({name: Path(path)})
    return found


def build_executor(name: str, address: str | None, workers: int | None, threads: int | None) -> Any:
    """Where tasks are computed."""
    from faithmap.errors import nearest
    from faithmap.experiment.cluster import RayExecutor
    from faithmap.experiment.executors import LocalExecutor

    if name == "ray":
        return RayExecutor(address, workers, threads or 1)
    if name != "local":
        raise FaithmapError(f"unknown executor '{name}'{nearest(name, ['local', 'ray'])} Known: local, ray.")
    if address is not None or workers is not None:
        raise FaithmapError("--address and --workers are for --executor ray.")
    return LocalExecutor(threads)


def build_protocol(name: str, *, steps: str | None = None, orders: str | None = None, **overrides: Any) -> Protocol:
    """A preset with the options that were given."""
    if steps is not None:
        overrides["steps"] = int(steps) if steps.lstrip("-").isdecimal() else steps
    if orders is not None:
        overrides["orders"] = tuple(part.strip() for part in orders.split(","))
    return Protocol.preset(name, **overrides)


def described_steps(protocol: Protocol) -> str:
    """`100 steps of 9×9 pixels`."""
    steps, size = protocol.to_dict()["steps"], protocol.region_size
    what = {"pixel": f"{size} pixels", "segment": "one segment"}.get(protocol.placement, f"{size}×{size} pixels")
    return f"{steps} steps of {what}{', restored' if protocol.direction == 'restore' else ''}"


def default_out(images: str, model: str) -> Path:
    """`runs/photos-alexnet`."""
    return Path("runs") / f"{Path(images).name or 'images'}-{model.replace(':', '-').replace('/', '-')}"


def measure(
    model: str,
    images: str,
    *,
    limit: int | None,
    data: Path | None,
    methods: Any,
    protocol: Protocol,
    device: str,
    dry_run: bool = False,
    **how: Any,
) -> Run | None:
    """`evaluate` with a progress bar. What can be refused is refused before anything is loaded or downloaded."""
    import faithmap
    from faithmap.attribution import resolve_methods
    from faithmap.experiment.progress import ProgressDisplay
    from faithmap.images import IMAGENETTE
    from faithmap.inference import tune_allocator
    from faithmap.perturbation import check_fill

    tune_allocator()
    check_fill(protocol.fill)
    resolved = resolve_methods(methods, protocol)
    found = faithmap.load_images(images, data=data) if images != IMAGENETTE else None
    classifier = faithmap.load_classifier(model, device)
    found = (found or faithmap.load_images(images, data=data)).limit(limit, protocol.seed)
    err.print(
        f"{len(found)} images, {classifier.name} on {classifier.device.type}, {protocol.name}: "
        f"{described_steps(protocol)}, draws: {protocol.draws} → {how['out']}",
        highlight=False,
        soft_wrap=True,
    )
    if dry_run:
        from faithmap.experiment.estimate import estimate
        from faithmap.experiment.evaluate import plan

        planned = plan(
            classifier,
            found,
            resolved,
            protocol,
            **{name: how[name] for name in ("out", "engine", "batch_size", "precision", "save_heatmaps", "executor")},
        )
        show_estimate(estimate(planned, how["executor"]))
        return None
    with ProgressDisplay(err) as display:
        return faithmap.evaluate(classifier, found, resolved, protocol, progress=display, command=command_line(), **how)


@app.command("doctor")
@guarded
def doctor_command(
    run: Annotated[
        Any, typer.Argument(help="A run folder to look at as well.", show_default=False, parser=place, metavar="RUN")
    ] = None,
    data: Data = None,
    model: Annotated[
        str | None, typer.Option(help="A classifier: what a step recomputes in each layer, and what that gains.")
    ] = None,
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
        out.print(text.append(f" → {finding.remedy}" if finding.remedy else "", style="bold"), soft_wrap=True)
    if BAD in states:
        raise typer.Exit(1)


def command_line() -> str:
    """How this process was started, to be copied into a shell."""
    program = Path(sys.argv[0]).name
    return shlex.join([*(["python"] if program.endswith(".py") else []), program, *sys.argv[1:]])


@app.command("plot")
@guarded
def plot_command(
    run: RunFolder,
    figure: Annotated[
        str,
        typer.Option(
            help="`fig4`; `curves`: scores themselves; `ranking`: methods with intervals and groups; `heatmaps`: best, "
            "median and worst images; `steps`: a film strip of one image; `agreement`: of the methods over images."
        ),
    ] = "fig4",
    out_file: Annotated[
        Path | None, typer.Option("--out", "-o", help="png, svg or pdf. Default: FIGURE.png in the run folder.")
    ] = None,
    score: Score = None,
    style: Annotated[str, typer.Option(help="`paper` (column width) or `slides`.")] = "paper",
    compare: Annotated[
        list[Path] | None, typer.Option(help="Another run folder beside this one, for `fig4`; several times for more.")
    ] = None,
    image: Annotated[str | None, typer.Option(help="For `steps`: an image's id. Default: the first example.")] = None,
) -> None:
    """Draw a figure from a run folder, finished or not; loads no model.

    `faithmap plot runs/demo --figure heatmaps --out heatmaps.pdf --style slides`
    """
    from faithmap.run import Run

    file = out_file or files_of(run) / f"{figure}.png"
    Run(run).figure(figure, file, score=score, style=style, compare=compare or (), image=image)
    out.print(str(file), highlight=False, soft_wrap=True)


@app.command("report")
@guarded
def report_command(
    run: RunFolder,
    out_file: Annotated[
        Path | None, typer.Option("--out", "-o", help="The HTML file. Default: report.html in the run folder.")
    ] = None,
    examples: Annotated[int, typer.Option(min=0, help="How many images the flipbook shows.")] = 24,
) -> None:
    """Write the answer as one HTML page that opens without a network: figure, ranking, flipbook; loads no model."""
    from faithmap.run import Run

    file = Run(run).report(out_file or files_of(run) / "report.html", examples=examples)
    out.print(str(file), highlight=False, soft_wrap=True)


@app.command("methods")
@guarded
def methods_command() -> None:
    """List the heatmap methods, with one line and the citation each."""
    from faithmap.attribution import method_table

    table = Table(box=None)
    for column in ("name", "what it is", "source"):
        table.add_column(column, overflow="fold")
    for name, line, citation in method_table():
        table.add_row(name, line, citation)
    out.print(table)


@app.command("operators")
@guarded
def operators_command(
    model: Annotated[str, typer.Option(help="As for `faithmap run`.")] = "squeezenet1_1-embedded",
    images: Annotated[str, typer.Option(help="As for `faithmap run`.")] = "photos",
    limit: Annotated[int | None, typer.Option(help="How many images. Default: all.")] = None,
    method: Annotated[str, typer.Option(help="One heatmap method.")] = "lrp-epsilon:0.01",
    fill: Annotated[
        list[str] | None,
        typer.Option(help="A perturbation operator; give it several times. `paper`: the appendix's four; `all`."),
    ] = None,
    protocol: ProtocolName = "samek2017",
    steps: Steps = None,
    draws: Draws = None,
    region_size: RegionSize = None,
    placement: Placement = None,
    segments: Segments = None,
    target: Target = None,
    score: Score = None,
    seed: Seed = 0,
    device: Device = "auto",
    batch_size: BatchSize = None,
    engine: EngineName = "auto",
    out_folder: Annotated[
        Path | None, option("--out", panel=FILES, text="Keep a run folder for each operator in here.")
    ] = None,
    data: Data = None,
) -> None:
    """Compare perturbation operators: the area between the LeRF and the MoRF curve (ABPC) for each.

    The table of the appendix of Samek et al. (2017). A larger area means that the operator takes away what the heatmap
    points at.

    `faithmap operators --limit 10 --draws 1 --fill paper --fill noisy-linear`
    """
    import faithmap
    from faithmap.experiment.progress import ProgressDisplay
    from faithmap.study.operators import ALL, PAPER

    sets = {"paper": PAPER, "all": ALL}
    fills = [name for one in fill or ["paper"] for name in sets.get(one, (one,))]
    found = faithmap.load_images(images, data=data).limit(limit, seed)
    classifier = faithmap.load_classifier(model, device)
    asked = build_protocol(
        protocol,
        steps=steps,
        draws=draws,
        region_size=region_size,
        placement=placement,
        segments=segments,
        target=target,
        score=score,
        seed=seed,
    )
    displays: dict[str, ProgressDisplay] = {}

    def show(name: str, state: Any) -> None:
        if name not in displays:
            for display in displays.values():
                display.__exit__(None, None, None)
            err.print(name, highlight=False)
            displays[name] = ProgressDisplay(err).__enter__()
        displays[name](state)

    try:
        frame = faithmap.operator_table(
            classifier,
            found,
            method,
            asked,
            list(dict.fromkeys(fills)),
            out=out_folder,
            progress=show,
            engine=engine,
            batch_size=batch_size,
        )
    finally:
        for display in displays.values():
            display.__exit__(None, None, None)
    table = Table(
        title=f"ABPC of {method}, {asked.score}, {classifier.name}, {frame['images'].max()} images",
        title_justify="left",
        caption="higher: the operator takes away what the heatmap points at",
        caption_justify="left",
    )
    table.add_column("operator")
    for name in ("ABPC", "95 % interval"):
        table.add_column(name, justify="right")
    for row in frame.itertuples():
        table.add_row(str(row.fill), f"{row.mean:.4g}", f"{row.low:.4g} … {row.high:.4g}")
    out.print(table)


@app.command("sanity")
@guarded
def sanity_command(
    model: Annotated[str, typer.Option(help="As for `faithmap run`.")] = "squeezenet1_1-embedded",
    images: Annotated[str, typer.Option(help="As for `faithmap run`.")] = "photos",
    limit: Annotated[int, typer.Option(help="How many images.")] = 8,
    methods: Annotated[str, typer.Option(help="`fig4` or names separated by commas.")] = "fig4",
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

    classifier = faithmap.load_classifier(model, device)
    pixels = []
    for image in faithmap.load_images(images, data=data).limit(limit, seed):
        try:
            pixels.append(image.read(classifier.preprocessing))
        except ImageError as error:
            err.print(Text.assemble(("skipped: ", "bold yellow"), printable(str(error))), soft_wrap=True)
    if not pixels:
        raise ImageError("not one image could be read.")
    with err.status("re-drawing layers"):
        check = faithmap.randomisation_check(classifier, torch.stack(pixels).to(classifier.device), methods, seed=seed)
    wide = randomisation_table(check)
    layers = check.groupby("share")["layers"].first()
    table = Table(
        title=f"Rank correlation with the trained {classifier.name}, {len(pixels)} images; top layers re-drawn",
        title_justify="left",
        caption="near 1: the heatmap does not depend on what the network has learned; –: no heatmap there, because the "
        "score of the re-drawn network does not depend on the image",
        caption_justify="left",
    )
    table.add_column("method")
    for share in wide.columns[1:]:
        table.add_column(f"top {layers[share]}", justify="right", no_wrap=True)
    for row in wide.itertuples(index=False):
        table.add_row(one_line(str(row[0])), *["–" if value != value else f"{value:.2f}" for value in row[1:]])
    out.print(table)


replication = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")


@replication.command(context_settings={"help_option_names": ["-h", "--help"]})
@guarded
def reproduce(
    images: Annotated[int, typer.Option(help="How many Imagenette images.")] = 100,
    protocol: ProtocolName = "samek2017",
    steps: Steps = None,
    draws: Draws = None,
    region_size: RegionSize = None,
    placement: Placement = None,
    fill: Fill = None,
    target: Target = None,
    seed: Seed = 0,
    device: Device = "auto",
    batch_size: BatchSize = None,
    engine: EngineName = "auto",
    out_folder: Out = None,
    data: Data = None,
) -> None:
    """Figure 4 of Samek et al. (2017) on a pretrained AlexNet and Imagenette.

    Downloads what is missing, once; runs on a GPU where there is one; ends with the graph.
    `python main.py --images 1000 --protocol replication2021` is the 2021 replication with all its departures.
    """
    run = measure(
        "alexnet",
        "imagenette",
        limit=images,
        data=data,
        methods="fig4",
        protocol=build_protocol(
            protocol,
            steps=steps,
            draws=draws,
            region_size=region_size,
            placement=placement,
            fill=fill,
            target=target,
            seed=seed,
        ),
        out=out_folder or Path("runs") / f"{protocol}-alexnet-imagenette",
        device=device,
        engine=engine,
        batch_size=batch_size,
    )
    assert run is not None
    show_run(run)
    show_window(run)
