"""What the commands print: tables, and what was skipped."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from faithmap.cli.console import err, files_of, one_line, out, place, printable
from faithmap.protocol import RANDOM
from faithmap.text import significant

if TYPE_CHECKING:
    import pandas as pd

    from faithmap.experiment.estimate import Estimate
    from faithmap.run import Run


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
        "measures": f"{found.measure_passes:,} forward passes, {found.measure_heatmaps:,} heatmaps; not in the time",
        "measured": f"{found.scores_per_second:,.0f} scores/s, {found.seconds_per_task:.2f} s a task for heatmaps",
        "time": f"{duration(found.seconds)} with {found.workers} worker{'s' * (found.workers > 1)}",
        "disk": f"{found.bytes / 1e6:,.1f} MB",
    }
    if not found.measure_passes + found.measure_heatmaps:
        del rows["measures"]
    for name, text in rows.items():
        table.add_row(name, text)
    out.print(table, highlight=False)


def duration(seconds: float) -> str:
    """`3 h 5 min`, `12 min`, `40 s`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


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
    title = f"AOPC at step {last}, {score}, {frame['image'].nunique()} images, {run.manifest.classifier.name}"
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
        caption=f"{good} is better; methods that share a letter are not distinguishable"
        + ("; heatmaps as pictures: PNG size in kB, entropy in bits" if simple else ""),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("method", overflow="fold", min_width=18)
    for name in ("vs. random", "95 % interval", *values):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("letters", no_wrap=True)
    for name in ("PNG", "bits") if simple else ():
        table.add_column(name, justify="right", no_wrap=True)
    for row in ranking(frame, score, order=order, direction=str(protocol.direction)).itertuples():
        method = str(row.method)
        interval = "reference" if method == RANDOM else f"{significant(row.low)} … {significant(row.high)}"
        means = [significant(value[method], 4) for value in values.values()]
        cells = [one_line(method), significant(row.mean), interval, *means, str(row.letters)]
        table.add_row(*cells, *(simple.get(method, ("", "")) if simple else ()))
    return table


def complexity_of(run: Run) -> dict[str, tuple[str, str]]:
    """Method → size and entropy of its heatmaps' pictures, as far as the run stored heatmaps."""
    from faithmap.errors import HeatmapError
    from faithmap.measures.complexity import by_method, complexity_table

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


def show_window(run: Run) -> None:
    """The graph in a window, where there is a display."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return
    from matplotlib import pyplot

    run.plot()
    pyplot.show()
