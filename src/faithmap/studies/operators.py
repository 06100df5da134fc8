"""The table of the paper's appendix: how well each perturbation operator tells an order from its reverse."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from faithmap.attribution import resolve_methods
from faithmap.checks import as_fraction, as_texts, check_callable
from faithmap.classifiers import Classifier, check_classifier
from faithmap.errors import InputError, MethodError
from faithmap.experiment.evaluate import evaluate
from faithmap.experiment.progress import Progress
from faithmap.files import as_folder
from faithmap.images import Images, PixelSource, load_images
from faithmap.modes import in_own_modes
from faithmap.perturbation import check_fill, resolve_fill
from faithmap.protocol import Direction, Order, Protocol, as_protocol
from faithmap.statistics import abpc_table

PAPER = ("uniform", "dirichlet", "constant:mean", "blur:sigma=5")
ALL = (*PAPER, "constant:dataset-mean", "noisy-linear", "swap")


@in_own_modes
def operator_table(
    classifier: Classifier,
    images: Images | Tensor | str | Path,
    method: Any,
    protocol: Protocol | str = "samek2017",
    fills: Sequence[str] = PAPER,
    *,
    out: str | Path | None = None,
    confidence: float = 0.95,
    progress: Callable[[str, Progress], None] | None = None,
    **how: Any,
) -> pd.DataFrame:
    """ABPC at the last step for each perturbation operator, one method, one data set.

    Args:
        classifier, images: as in `evaluate`.
        method: one heatmap method, as in `evaluate`; its heatmaps are computed once.
        protocol: all but its fill and orders.
        fills: perturbation operators, see `faithmap.perturbation.FILLS`.
        out: a run folder for each fill is kept in there, so that the table can be extended; None keeps none.
        confidence: of the intervals.
        progress: called with the fill and how far its run is.
        how: passed on to `evaluate` (engine, batch_size, executor).
    Returns:
        One row a fill, largest ABPC first: ``fill`` (with its parameters), ``images``, ``mean`` (score units, averaged
        over the steps 0…L), ``low``, ``high``. A larger area means that the operator takes away what the order says.
    Raises:
        MethodError: more than one method, or `random`.
    Source:
        Samek et al. 2017, appendix on perturbation operators (there: uniform > Dirichlet > constant > blur on SUN397).
    """
    classifier = check_classifier(classifier)
    confidence, fills = as_fraction(confidence, "confidence"), as_texts(fills, "fills")
    if not fills:
        raise InputError("fills is empty: give at least one perturbation operator.")
    if progress is not None:
        check_callable(progress, "progress")
    methods = [one for one in resolve_methods(method) if not one.is_random]
    if len(methods) != 1:
        raise MethodError(f"the table is of one heatmap method, received {[one.name for one in methods]}.")
    base = as_protocol(protocol)
    base = base.override(orders=(Order.MORF, Order.LERF), direction=Direction.REMOVE)
    for fill in fills:
        check_fill(fill)
    found = load_images(images)
    others = PixelSource(found, classifier.preprocessing)
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(prefix="faithmap-") as temporary:
        folder = as_folder(out, "out") if out is not None else Path(temporary)
        first: Path | None = None
        for fill in fills:
            name = resolve_fill(fill, others)
            run = evaluate(
                classifier,
                found,
                methods,
                base.override(fill=name),
                folder / _folder_name(name),
                save_heatmaps=True,
                heatmaps_from=first,
                progress=False if progress is None else _about(progress, fill),
                **how,
            )
            first = first or run.folder
            table = abpc_table(run.scores(), str(base.score), [run.protocol.steps], confidence)
            row = table[table["method"] == methods[0].name].iloc[0]
            rows.append({"fill": name, "images": int(row["n"]), **{c: float(row[c]) for c in ("mean", "low", "high")}})
    return pd.DataFrame(rows).sort_values("mean", ascending=False, ignore_index=True, kind="stable")


def _about(progress: Callable[[str, Progress], None], fill: str) -> Callable[[Progress], None]:
    return lambda state: progress(fill, state)


def _folder_name(fill: str) -> str:
    return fill.replace(":", "-").replace(",", "_").replace("#", "")
