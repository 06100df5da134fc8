"""The command line: `faithmap run | plot | report | methods | doctor`. Only this module prints."""

from __future__ import annotations

import functools
import os
import shlex
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from faithmap._version import __version__
from faithmap.errors import EngineWarning, FaithmapError, StoreWarning
from faithmap.protocol import Protocol

if TYPE_CHECKING:
    import pandas as pd

    from faithmap.estimate import Estimate
    from faithmap.run import Run

RANDOM = "random"

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
out = Console()
err = Console(stderr=True)
_F = TypeVar("_F", bound=Callable[..., Any])


def place(text: str) -> Path | str:
    """A run folder as it was given: a path, or a URL."""
    return text if "://" in text else Path(text)


def files_of(run: Path | str) -> Path:
    """Where the pictures of a run go: into its folder; for a URL, into a folder of that name here."""
    if isinstance(run, Path):
        return run
    folder = Path(run.rstrip("/").rpartition("/")[2])
    folder.mkdir(exist_ok=True)
    return folder


RunFolder = Annotated[
    Any,
    typer.Argument(
        help="A run folder, as given to `faithmap run --out`.", show_default=False, parser=place, metavar="RUN"
    ),
]


def main() -> None:
    """The command `faithmap`."""
    signal.signal(signal.SIGTERM, terminated)
    warnings.showwarning = show_warning
    app()


def terminated(*_: Any) -> None:
    """What a batch system sends before it kills: stop as on Ctrl-C."""
    raise KeyboardInterrupt


def show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """Our own warnings as one line; others are not for the user."""
    if issubclass(category, (EngineWarning, StoreWarning)):
        err.print(Text.assemble(("note: ", "bold yellow"), one_line(str(message))), soft_wrap=True)


def guarded(command: _F) -> _F:
    """Turn what can be expected to go wrong into one sentence and an exit code."""

    @functools.wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except FaithmapError as error:
            fail(str(error))
        except KeyboardInterrupt:
            fail("stopped. What is finished is stored: run the same command again to go on.", 130)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            fail(f"{where}{error.strerror or error}.")
        except MemoryError:
            fail("out of memory: give a smaller --batch-size.")

    return wrapper  # type: ignore[return-value]


def fail(message: str, code: int = 1) -> None:
    """Say what is wrong on standard error and leave."""
    err.print(Text.assemble(("error: ", "bold red"), printable(message)), soft_wrap=True)
    raise typer.Exit(code)


def printable(text: str) -> str:
    """Text with control characters and lone surrogates written out, so that a file name cannot move the cursor."""
    shown = text.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in shown)


def one_line(text: str) -> str:
    """The same on one line."""
    return printable(text).replace("\n", "\\n")


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


MEASURED, SPEED, FILES = "What is measured", "How it is computed", "Where things are"


def option(*names: str, panel: str, text: str) -> Any:
    """An option of a panel of `--help`."""
    return typer.Option(*names, help=text, rich_help_panel=panel)


# Options that several commands share.
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
    from faithmap.cluster import RayExecutor
    from faithmap.errors import nearest
    from faithmap.executors import LocalExecutor

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
    from faithmap.images import IMAGENETTE
    from faithmap.inference import tune_allocator
    from faithmap.perturbation import check_fill
    from faithmap.progress import ProgressDisplay

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
        from faithmap.estimate import estimate
        from faithmap.run import plan

        planned = plan(
            classifier,
            found,
            resolved,
            protocol,
            **{name: how[name] for name in ("out", "engine", "batch_size", "precision", "save_heatmaps")},
        )
        show_estimate(estimate(planned, how["executor"]))
        return None
    with ProgressDisplay(err) as display:
        return faithmap.evaluate(classifier, found, resolved, protocol, progress=display, command=command_line(), **how)


def show_estimate(found: Estimate) -> None:
    """What a run would take."""
    table = Table(box=None, show_header=False)
    table.add_column(style="bold")
    table.add_column()
    asked = f"{found.images} images × {found.methods} methods × {found.orders} orders × {found.draws} draws"
    rows = {
        "asked for": f"{asked} × {found.steps + 1} points",
        "not stored yet": f"{found.scores:,} scores, {found.heatmaps:,} heatmaps",
        "forward passes": f"{found.forward_passes:,} of the whole network, if none were saved",
        "measured": f"{found.scores_per_second:,.0f} scores/s, {found.seconds_per_block:.2f} s a block of heatmaps",
        "time": f"{duration(found.seconds)} with {found.workers} worker{'s' * (found.workers > 1)}",
        "disk": f"{found.bytes / 1e6:,.1f} MB",
    }
    for name, text in rows.items():
        table.add_row(name, text)
    out.print(table, highlight=False)


def duration(seconds: float) -> str:
    """`3 h 5 min`, `12 min`, `40 s`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


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
    from faithmap.doctor import BAD, findings

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


def show_costs(model: str) -> None:
    """Per layer: the changed share and which path is taken; then the expected gain."""
    import faithmap
    from faithmap.inference import examine

    cost = examine(faithmap.load_classifier(model, "cpu"))
    table = Table(
        title=f"{model}: one region of 9×9 pixels changes; millions of multiply-adds of an image and of a step",
        title_justify="left",
        box=None,
    )
    for name in ("layer", "operation", "path"):
        table.add_column(name, overflow="fold")
    for name in ("map", "changed", "image", "step"):
        table.add_column(name, justify="right", no_wrap=True)
    for layer in cost.layers:
        size = f"{layer.size[0]}×{layer.size[1]}" if layer.size else ""
        numbers = [f"{layer.multiply_adds / 1e6:.1f}", f"{layer.changed_multiply_adds / 1e6:.1f}"]
        table.add_row(layer.name, layer.operation, layer.path, size, f"{layer.changed:.0%}", *numbers)
    out.print(table)
    text = f"{cost.stop}\n" if cost.stop else ""
    text += f"a step takes {cost.multiply_adds / max(cost.changed_multiply_adds, 1):.1f} times less work than an image"
    if cost.reason:
        text += f"; runs dense all the same: {cost.reason}"
    out.print(text, highlight=False, soft_wrap=True)


def command_line() -> str:
    """How this process was started, to be copied into a shell."""
    program = Path(sys.argv[0]).name
    return shlex.join([*(["python"] if program.endswith(".py") else []), program, *sys.argv[1:]])


def show_run(run: Run) -> None:
    """Print the table, draw the figure, name what was skipped."""
    from faithmap.statistics import headline

    frame = run.scores()
    score = str(run.protocol.score)
    out.print(aopc_rich(run, frame))
    order, direction = str(run.protocol.shown_order), str(run.protocol.direction)
    out.print(headline(frame, score, order=order, direction=direction), highlight=False, soft_wrap=True)
    folder = files_of(place(run.store.url))
    run.plot(folder / "fig4.png", frame=frame)
    run.store.export(folder / "scores.parquet")
    for name in ("fig4.png", "scores.parquet"):
        out.print(str(folder / name), highlight=False, soft_wrap=True)
    out.print(f"{run.store.url}/manifest.json", highlight=False, soft_wrap=True)
    show_skipped(run.skipped)


def aopc_rich(run: Run, frame: pd.DataFrame) -> Table:
    """Best method first: AOPC relative to random with its interval, AOPC, ABPC where both orders were measured."""
    from faithmap.statistics import abpc_table, aopc_table, ranking

    protocol, order = run.protocol, str(run.protocol.shown_order)
    score, last = str(protocol.score), int(frame["step"].max())
    title = f"AOPC at step {last}, {score}, {frame['image'].nunique()} images, {run.manifest['classifier']['name']}"
    if run.precision != "float32":
        title += f", {run.precision}: for screening only"
    columns = {"AOPC": aopc_table(frame, score, order=order, relative=False, steps=[last])}
    if len(protocol.orders) > 1:
        columns["ABPC"] = abpc_table(frame, score, steps=[last])
    values = {name: table.set_index("method")["mean"].to_dict() for name, table in columns.items()}
    simple = complexity_of(run)
    good = "higher" if (protocol.direction == "remove") == (order == "morf") else "lower"
    table = Table(
        title=title,
        title_justify="left",
        caption=f"{good} is better; methods that share a letter cannot be told apart",
        caption_justify="left",
    )
    table.add_column("method")
    for name in ("relative to random", "95 % interval", *values):
        table.add_column(name, justify="right")
    table.add_column("group")
    for name in ("PNG, kB", "entropy, bits") if simple else ():
        table.add_column(name, justify="right")
    for row in ranking(frame, score, order=order, direction=str(protocol.direction)).itertuples():
        method = str(row.method)
        interval = "the reference" if method == RANDOM else f"{row.low:.4g} … {row.high:.4g}"
        means = [f"{value[method]:.4g}" for value in values.values()]
        cells = [one_line(method), f"{row.mean:.4g}", interval, *means, str(row.group)]
        table.add_row(*cells, *(simple.get(method, ("", "")) if simple else ()))
    return table


def complexity_of(run: Run) -> dict[str, tuple[str, str]]:
    """Method → size and entropy of its heatmaps' pictures, as far as the run stored heatmaps."""
    from faithmap.complexity import by_method, complexity_table
    from faithmap.errors import HeatmapError

    try:
        frame = complexity_table(by_method(example.heatmaps for example in run.examples()))
    except HeatmapError:
        return {}
    rows = zip(frame["method"], frame["png"].to_numpy(dtype=float), frame["entropy"].to_numpy(dtype=float), strict=True)
    return {str(method): (f"{png / 1000:.1f}", f"{entropy:.2f}") for method, png, entropy in rows}


def show_skipped(skipped: Sequence[Any], most: int = 10) -> None:
    """Count and name what could not be measured."""
    if not skipped:
        return
    images = {one.image for one in skipped if one.method is None}
    pairs = Counter(one.method for one in skipped if one.method is not None)
    counted = [f"{len(images)} images"] * bool(images) + [f"{method} on {n} images" for method, n in pairs.items()]
    err.print(Text.assemble(("skipped: ", "bold yellow"), printable(", ".join(counted))), soft_wrap=True)
    for one in skipped[:most]:
        method = f"{one.method}: " if one.method else ""
        err.print(Text(f"  {one_line(one.image)}: {method}{one_line(one.reason)}"), soft_wrap=True)
    if len(skipped) > most:
        err.print(f"  … and {len(skipped) - most} more, in manifest.json", highlight=False)


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
    from faithmap.operators import ALL, PAPER
    from faithmap.progress import ProgressDisplay

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
    from faithmap.randomisation import randomisation_table

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
        title=f"Rank correlation with the trained {classifier.name}, {len(pixels)} images",
        title_justify="left",
        caption="near 1: the heatmap does not depend on what the network has learned; –: no heatmap there, because the "
        "score of the re-drawn network does not depend on the image",
        caption_justify="left",
    )
    table.add_column("method")
    for share in wide.columns[1:]:
        table.add_column(f"top {layers[share]} re-drawn", justify="right")
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


def show_window(run: Run) -> None:
    """The graph in a window, where there is a display."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return
    from matplotlib import pyplot

    run.plot()
    pyplot.show()
