"""From a question to a run folder: what is missing → executor → store. `evaluate` is the public call."""

from __future__ import annotations

import contextlib
import functools
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from faithmap.attribution import resolve_methods
from faithmap.attribution.fitting import refusals
from faithmap.checks import as_text, check_callable, check_flag
from faithmap.classifiers import Classifier, ScoreOnly
from faithmap.errors import (
    ClassifierError,
    ClassifierWarning,
    FaithmapError,
    HeatmapError,
    MethodError,
    MethodWarning,
    StoreError,
)
from faithmap.experiment.executors import Executor, LocalExecutor, Report, as_executor
from faithmap.experiment.planning import Plan, input_size, pending, prepare, telling_task, usable_heatmaps
from faithmap.experiment.progress import Progress, shown
from faithmap.experiment.record import describe, manifest_before
from faithmap.experiment.stages import in_stages
from faithmap.experiment.targets import Targets, by_image
from faithmap.experiment.task import Experiment
from faithmap.grouping import Groups
from faithmap.images import Images, load_images
from faithmap.modes import in_own_modes
from faithmap.protocol import Protocol, as_protocol
from faithmap.run import Run
from faithmap.store.folder import Store
from faithmap.store.manifest import Manifest, Stages, timestamp
from faithmap.store.reading import no_run
from faithmap.store.records import Skipped
from faithmap.store.storage import LocalStorage


@in_own_modes
def evaluate(
    classifier: Classifier,
    images: Images | Tensor | str | Path,
    methods: Any = "fig4",
    protocol: Protocol | str = "srg",
    out: str | Path | None = None,
    *,
    engine: str = "auto",
    batch_size: int | None = None,
    precision: str = "float32",
    memory: int | None = None,
    executor: Executor | None = None,
    progress: Callable[[Progress], None] | bool = False,
    save_heatmaps: bool = False,
    heatmaps_from: str | Path | None = None,
    groups: Groups = None,
    measures: Any = None,
    masks: Any = None,
    on_refusal: str | None = None,
    heatmap_resize: str | None = None,
    targets: Targets = None,
    until: str | tuple[str, str] | None = None,
    at_most: int | None = None,
    command: str | None = None,
) -> Run:
    """Measure heatmap methods on images.

    Args:
        classifier: pixel space in, logits out; see `load_classifier` and `Classifier`.
        images: see `load_images`.
        methods: names such as ``["lrp-epsilon:0.01", "sensitivity:l2"]``, a set (``"fig4"``), callables
            ``(inputs, targets) -> (B, C, H, W) or (B, H, W)``, or a mapping name → callable. Random orders are always
            run, as the reference.
        protocol: a preset's name or a `Protocol`.
        out: the run folder; what it holds already is not computed again. None takes a temporary folder.
        engine, batch_size: how scores are computed; they change speed, not numbers.
        precision: ``"float32"``, or ``"bfloat16"`` for screening: single probabilities move by up to 0.05, and the run
            says so wherever it shows.
        memory: bytes that an engine may take; it changes speed, not numbers. None: half of what is free.
        executor: where tasks are computed; this process by default.
        progress: True shows a bar; a function is called often with how far the run is.
        save_heatmaps: store the heatmaps of all images, instead of a sample of 24 and of those on which the methods are
            best, median and worst.
        heatmaps_from: another run folder whose stored heatmaps are used where they are the same: same classifier,
            image content, method and class.
        groups: which images belong together and are not independent; see `load_images`.
        measures: what is measured besides the scores: names, sets, callables, metrics of Quantus or captum; see
            `faithmap.measures`.
        masks: where the object is, for measures that need it: a folder of PNG masks or VOC boxes, a COCO file, or image
            id → mask (H, W); see `faithmap.measures.masks.load_masks`.
        on_refusal: what happens to a method that means nothing on this network: ``"skip"`` leaves it out, with its
            reason in `run.skipped`; ``"error"`` ends the run. None: methods of a set are left out, others are an error.
        heatmap_resize: ``"nearest"``, ``"bilinear"`` or ``"bicubic"`` for heatmaps from elsewhere that cover the input
            at another size (patch grids); ``"picture:bilinear"`` and so on for maps that cover the whole picture and
            are cropped as it is. None: a map of another size is skipped.
        targets: the class that is scored: ``"predicted"``, ``"label"``, one class for all images (index or name), one
            per image (a tensor or list in their order), image id → class, or a .csv file with lines ``image,class``.
            None: what the protocol says.
        until: add images in stages, and stop when a question is decided: ``"decided"`` (the best method is
            significantly ahead of all others and of random orders), ``"random"`` (it is better than random orders), or
            two methods whose difference is asked for. Looking often is corrected for: `faithmap.statistics.decided`.
        at_most: with `until`, how many groups there are at most; None: all.
        command: the command line, for the record.
    Returns:
        The run. Images that could not be measured are in `run.skipped`.
    Raises:
        FaithmapError: nothing can be measured (an unknown method, no images, a folder of another protocol, …), or, at
            the end, a method that failed on every image.
    """
    executor = as_executor(executor)
    check_callable(progress if not isinstance(progress, bool) else print, "progress", FaithmapError)
    check_flag(save_heatmaps, "save_heatmaps", FaithmapError)
    if command is not None:
        command = as_text(command, "command", FaithmapError)
    images = load_images(images, groups=groups)
    # A temporary folder is made once there is something to compute: a call that is refused leaves none behind.
    store = functools.cache(lambda: Store(out if out is not None else tempfile.mkdtemp(prefix="faithmap-")))
    if out is not None and isinstance(store().storage, LocalStorage):
        images.check_apart(store().folder)
    if heatmaps_from is not None and (source := Store(heatmaps_from)).read_manifest() is None:
        raise no_run(source)
    if until is None and at_most is not None:
        raise FaithmapError("at_most is for runs that stop when decided: give until='decided' as well.")

    if until is not None:
        targets = by_image(targets, images)

    def measure(some: Images, stages: Stages | None = None, image_set: Images | None = None) -> Run:
        asked, experiment = prepare(
            classifier,
            some,
            methods,
            protocol,
            engine=engine,
            batch_size=batch_size,
            precision=precision,
            memory=memory,
            measures=measures,
            masks=masks,
            on_refusal=on_refusal,
            heatmap_resize=heatmap_resize,
            targets=targets,
            image_set=image_set,
        )
        manifest = describe(experiment, asked, executor, command=command).updated(stages=stages)
        return compute(asked, experiment, store(), manifest, executor, save_heatmaps, heatmaps_from, progress)

    if until is None:
        return measure(images)
    seed = as_protocol(protocol).seed
    count = len(resolve_methods(methods, as_protocol(protocol)))
    return in_stages(images, measure, until=until, at_most=at_most, seed=seed, methods=count)


def compute(
    images: Images,
    experiment: Experiment,
    store: Store,
    manifest: Manifest,
    executor: Executor,
    save_heatmaps: bool,
    heatmaps_from: str | Path | None,
    progress: Callable[[Progress], None] | bool,
) -> Run:
    """What the store lacks, computed and stored.

    Args:
        images, experiment, manifest: what is asked for.
        store: what is there.
        executor, save_heatmaps, heatmaps_from, progress: as in `evaluate`.
    """
    with store.lock(), shown(progress) as show:
        if (before := manifest_before(store)) is not None:
            manifest = before.extended(manifest, store.url)
        store.write_manifest(manifest)
        store.repair()
        tasks = pending(images, experiment, store, save_heatmaps, executor)
        stores = [store, *([Store(heatmaps_from)] if heatmaps_from is not None else [])]
        experiment = replace(experiment, stored_heatmaps=usable_heatmaps(stores, manifest))
        state = Progress(
            scores_total=sum(task.scores for task in tasks), images_total=sum(len(task.images) for task in tasks)
        )

        def report(news: Report) -> None:
            state.scores += news.scores
            state.images += news.images
            state.skipped += news.skipped
            show(state)

        def skipped() -> list[Skipped]:
            """What was tried again is judged anew; what was not keeps its old judgement."""
            tried = {image.id for task in tasks for image in task.images}
            asked = {method.name for method in experiment.methods}
            kept = [one for one in manifest.skipped if one.image not in tried]
            kept = [one for one in kept if not one.on_all or one.method not in asked]
            return kept + list(dict.fromkeys(state.skipped))

        try:
            executor.run(experiment, tasks, store, report)
            if store.parts() and (task := telling_task(images, experiment, store)) is not None:
                executor.run(experiment, [task], store, lambda news: None)
        except BaseException as error:
            with contextlib.suppress(StoreError):  # what went wrong first is what counts
                store.write_manifest(manifest.updated(skipped=skipped()))
            if isinstance(error, MethodError) and not isinstance(error, HeatmapError):
                raise MethodError(f"{error}{proposal(experiment, images, str(error))}") from error
            raise
        check_fingerprint(experiment.classifier, manifest)
        store.write_manifest(manifest.updated(skipped=skipped(), finished=timestamp()))
    if not store.parts():
        reasons = "; ".join(dict.fromkeys(one.reason for one in state.skipped[:3]))
        raise FaithmapError(f"not one image could be measured: {reasons}")
    check_methods(experiment, store, state.skipped)
    return Run(store.url)


def check_fingerprint(classifier: Classifier, manifest: Manifest) -> None:
    """Hold the network against the one that the manifest names, once all is computed.

    A function may hold a counter or a cache, which its fingerprint covers as well: that is said, and ends nothing.

    Raises:
        ClassifierError: a network that has changed.
    """
    if classifier.fingerprint() == manifest.classifier.fingerprint:
        return
    functions = isinstance(classifier.module, ScoreOnly) or callable(classifier.score)
    text = (
        f"{classifier.name} is no longer the network that the manifest names ({manifest.classifier.fingerprint}): "
        "something changed it during the run; leave it as it is, and run again"
    )
    if not functions:
        raise ClassifierError(f"{text}.")
    warnings.warn(f"{text}, or ignore this if its functions only count or cache.", ClassifierWarning, stacklevel=4)


def proposal(experiment: Experiment, images: Images, refusal: str) -> str:
    """The end of a refusal of a method of ours: which ones fit."""
    own = [method.name for method in experiment.methods if "method" in method.spec]
    if not any(refusal.startswith(f"{name} on ") for name in own):
        return ""
    fit = [
        name
        for name, why in refusals(experiment.classifier, input_size(images, experiment.classifier)).items()
        if not why
    ]
    if not fit:
        return " No method of faithmap fits on this network."
    return f" On this network fit: {', '.join(fit)}. Give some of these, or on_refusal='skip' (--on-refusal skip)."


def check_methods(experiment: Experiment, store: Store, skipped: Sequence[Skipped]) -> None:
    """Say which methods have no score at all.

    Raises:
        FaithmapError: none of them has, or one failed on every image.
    """
    failed = {one.method: one.reason for one in reversed(skipped) if one.method is not None}
    if not failed:
        return
    measured = set(store.index().names["method"])
    asked = [method.name for method in experiment.methods if not method.is_random]
    missing = [name for name in asked if name not in measured]
    if missing and len(missing) == len(asked):
        reasons = "; ".join(failed[name] for name in missing[:3] if name in failed)
        raise FaithmapError(f"not one heatmap could be computed: {reasons}")
    left_out = {one.method for one in skipped if one.on_all and one.method is not None}
    for name in left_out & set(missing):
        warnings.warn(f"{failed[name].rstrip('.')}. It is left out.", MethodWarning, stacklevel=3)
    if lost := [name for name in missing if name in failed and name not in left_out]:
        reason = failed[lost[0]].rstrip(".")
        raise FaithmapError(f"no image could be measured with '{lost[0]}': {reason}. All else is measured and stored.")


def plan(
    classifier: Classifier,
    images: Images | Tensor | str | Path,
    methods: Any = "fig4",
    protocol: Protocol | str = "srg",
    out: str | Path | None = None,
    *,
    save_heatmaps: bool = False,
    executor: Executor | None = None,
    groups: Groups = None,
    **how: Any,
) -> Plan:
    """What `evaluate` would do with the same arguments. Writes nothing.

    Args:
        classifier, images, methods, protocol, out, save_heatmaps, executor, groups: as in `evaluate`.
        how: the other arguments of `evaluate` that decide what is computed; see `prepare`.
    Raises:
        FaithmapError: as `evaluate`; also a run folder with damaged parts.
    """
    images, experiment = prepare(classifier, load_images(images, groups=groups), methods, protocol, **how)
    executor = as_executor(executor)
    store = Store(out if out is not None else "memory://faithmap-nowhere")
    if (before := store.read_manifest()) is not None:
        before.extended(describe(experiment, images, LocalExecutor(), command=None), store.url)
    return Plan(images, experiment, pending(images, experiment, store, save_heatmaps, executor))
