"""What the commands print: tables, and what was skipped."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from faithmap.cli.console import err, one_line, out
from faithmap.text import duration, several

if TYPE_CHECKING:
    from faithmap.experiment.estimate import Estimate
    from faithmap.run import Run


def show_estimate(found: Estimate) -> None:
    """What a run would take."""
    table = Table(box=None, show_header=False)
    table.add_column(style="bold")
    table.add_column()
    draws = several(found.draws, "draw") + f" ({found.random_draws} of random)" * (found.random_draws > found.draws)
    each = [several(found.images, "image"), several(found.methods, "method"), several(found.orders, "order"), draws]
    rows = {
        "asked for": " × ".join([*each, several(found.points, "point")]),
        "not stored yet": f"{found.scores:,} scores, {found.heatmaps:,} heatmaps",
        "forward passes": f"{found.forward_passes:,} of the whole network, if none were saved",
        "measures": f"{found.measure_passes:,} forward passes, {found.measure_heatmaps:,} heatmaps",
        "measured": f"{found.scores_per_second:,.0f} scores/s, {found.seconds_per_task:.2f} s a task for heatmaps",
        "time": f"{duration(found.seconds)} with {found.workers} worker{'s' * (found.workers > 1)}",
        "disk": f"{found.bytes / 1e6:,.1f} MB",
    }
    if not found.measure_passes + found.measure_heatmaps:
        del rows["measures"]
    for name, text in rows.items():
        table.add_row(name, text)
    out.print(table, highlight=False)


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


def show_refusals(model: str) -> None:
    """Which methods fit on a network, and why the others do not."""
    import faithmap
    from faithmap.attribution.fitting import refusals

    classifier = faithmap.load_classifier(model)
    with err.status("trying each method on one image") as status:
        found = refusals(classifier, progress=lambda name: status.update(f"trying {name} on one image"))
    table = Table(box=None, title=f"Methods on {one_line(classifier.name)}", title_justify="left")
    table.add_column("method", no_wrap=True)
    table.add_column("fits", overflow="fold")
    for name, why in found.items():
        table.add_row(one_line(name), "✓" if why is None else Text(one_line(why)))
    out.print(table)


def show_run(run: Run, verbose: bool = False) -> None:
    """Print the answer, draw the figure, write the page, name what was skipped."""
    from faithmap.cli.answer import show_answer
    from faithmap.cli.scorecards import show_scorecard

    show_answer(run, verbose)
    if run.manifest.measures:
        show_scorecard(run.scorecard())
    show_skipped(run.skipped)


def show_skipped(skipped: Sequence[Any], most: int = 10) -> None:
    """Count and name what could not be measured."""
    if not skipped:
        return
    for one in skipped:
        if one.on_all:
            err.print(Text.assemble(("left out: ", "bold yellow"), one_line(one.reason)), soft_wrap=True)
    skipped = [one for one in skipped if not one.on_all]
    if not skipped:
        return
    images = {one.image for one in skipped if one.method is None}
    pairs = Counter(one.method for one in skipped if one.method is not None)
    counted = [f"{len(images)} images"] * bool(images) + [f"{method} on {n} images" for method, n in pairs.items()]
    err.print(Text.assemble(("skipped: ", "bold yellow"), one_line(", ".join(counted))), soft_wrap=True)
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
