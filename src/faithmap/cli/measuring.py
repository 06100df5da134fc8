"""A measurement from the command line: loaded, announced, and run with a progress bar."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faithmap.cli.console import err, one_line
from faithmap.cli.options import Computed, Files, Inputs, Places, Properties, channels_of
from faithmap.cli.show import show_estimate
from faithmap.protocol import Protocol

if TYPE_CHECKING:
    from faithmap.run import Run


def measure(
    inputs: Inputs,
    methods: Any,
    protocol: Protocol,
    computed: Computed,
    files: Places,
    out: Path | None = None,
    properties: Properties | None = None,
    targets: str | None = None,
) -> Run | None:
    """`evaluate` with a progress bar. What can be refused is refused before anything is loaded or downloaded.

    Args:
        inputs, computed, files, properties: groups of options.
        methods: as `evaluate` takes them.
        protocol: what is measured.
        targets: classes that the caller chose; None: as the protocol says.
        out: the run folder where `files` names none; None: `runs/IMAGES-MODEL`.
    Returns:
        The run; None after a dry run.
    """
    import faithmap
    from faithmap.attribution import resolve_methods
    from faithmap.experiment.progress import ProgressDisplay
    from faithmap.images import IMAGENETTE
    from faithmap.inference import tune_allocator
    from faithmap.measures.registry import resolve_measures
    from faithmap.perturbation import check_fill

    def load_images() -> faithmap.Images:
        return faithmap.load_images(inputs.images, data=files.data, groups=inputs.groups)

    tune_allocator()
    check_fill(protocol.fill)
    further = properties.arguments() if properties is not None else {}
    resolve_methods(methods, protocol, further.get("on_refusal"))
    resolve_measures(further.get("measures"))
    how = computed.arguments() | (files.arguments() if isinstance(files, Files) else {})
    how |= further | {"targets": targets}
    how["out"] = files.out or out or default_out(inputs)
    found = load_images() if inputs.images != IMAGENETTE else None
    classifier = faithmap.load_classifier(inputs.model, computed.device)
    if isinstance(files, Files):
        classifier.shown_channels = channels_of(files.channels)
    found = (found or load_images()).limit(inputs.limit, protocol.seed)
    err.print(
        one_line(
            f"{len(found)} images, {classifier.name} on {classifier.device.type}, {protocol.name}: "
            f"{described_steps(protocol)}, draws: {protocol.draws} → {how['out']}"
        ),
        highlight=False,
        soft_wrap=True,
    )
    if isinstance(files, Files) and files.dry_run:
        from faithmap.experiment.estimate import estimate
        from faithmap.experiment.evaluate import plan

        for name in ("heatmaps_from", "until", "at_most"):
            del how[name]
        show_estimate(estimate(plan(classifier, found, methods, protocol, **how), how["executor"]))
        return None
    with ProgressDisplay(err) as display:
        return faithmap.evaluate(classifier, found, methods, protocol, progress=display, command=command_line(), **how)


def described_steps(protocol: Protocol) -> str:
    """`100 steps of 9×9 pixels`."""
    steps, size = protocol.to_dict()["steps"], protocol.region_size
    what = {"pixel": f"{size} pixels", "segment": "one segment"}.get(protocol.placement, f"{size}×{size} pixels")
    return f"{steps} steps of {what}{', restored' if protocol.direction == 'restore' else ''}"


def default_out(inputs: Inputs) -> Path:
    """`runs/photos-alexnet`."""
    images = Path(inputs.images).name or "images"
    return Path("runs") / f"{images}-{inputs.model.replace(':', '-').replace('/', '-')}"


def command_line() -> str:
    """How this process was started, to be copied into a shell; bytes that are not UTF-8 as ``\\xff``."""
    program = Path(sys.argv[0]).name
    given = (os.fsencode(one).decode("utf-8", "backslashreplace") for one in sys.argv[1:])
    return shlex.join([*(["python"] if program.endswith(".py") else []), program, *given])
