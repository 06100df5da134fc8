"""From a question to a run folder: what is missing → executor → store. `evaluate` is the public call."""

from __future__ import annotations

import contextlib
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from faithmap.attribution import Method, resolve_methods
from faithmap.classifiers import Classifier, kind_of
from faithmap.errors import FaithmapError, ProtocolError, StoreError
from faithmap.executors import Executor, LocalExecutor, Report, blocks
from faithmap.experiment import BLOCK, TASK_IMAGES, ChainKey, Experiment, Task
from faithmap.images import AnyImage, Images, PixelSource, TensorImage, load_images
from faithmap.inference import make_engine
from faithmap.manifest import describe, extend_manifest, manifest_before, plain, timestamp
from faithmap.perturbation import check_fill, resolve_fill
from faithmap.progress import Progress, shown
from faithmap.protocol import Placement, Protocol
from faithmap.regions import check_regions_fit
from faithmap.results import EXAMPLES, Run, no_run, sample
from faithmap.segments import resolve_segments
from faithmap.store import Chain, HeatmapParts, Store


def evaluate(
    classifier: Classifier,
    images: Images | Tensor | str | Path,
    methods: Any = "fig4",
    protocol: Protocol | str = "samek2017",
    out: str | Path | None = None,
    *,
    engine: str = "auto",
    batch_size: int | None = None,
    precision: str = "float32",
    executor: Executor | None = None,
    progress: Callable[[Progress], None] | bool = False,
    save_heatmaps: bool = False,
    heatmaps_from: str | Path | None = None,
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
        executor: where tasks are computed; this process by default.
        progress: True shows a bar; a function is called often with how far the run is.
        save_heatmaps: store the heatmaps of all images instead of a sample of 24.
        heatmaps_from: another run folder whose stored heatmaps are used where they are the same: same classifier,
            image content, method and class.
        command: the command line, for the record.
    Returns:
        The run. Images that could not be measured are in `run.skipped`.
    Raises:
        FaithmapError: nothing can be measured (an unknown method, no images, a folder of another protocol, …).
    """
    images, experiment = prepare(classifier, images, methods, protocol, engine, batch_size, precision)
    executor = executor or LocalExecutor()
    store = Store(out if out is not None else tempfile.mkdtemp(prefix="faithmap-"))
    with store.lock(), shown(progress) as show:
        manifest = describe(experiment, images, executor, command=command)
        if (before := manifest_before(store)) is not None:
            manifest = extend_manifest(before, manifest, store.url)
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

        def verdicts() -> list[dict[str, Any]]:
            """What was tried again has a new verdict; what was not keeps the old one."""
            tried = {image.id for task in tasks for image in task.images}
            kept = [one for one in manifest["skipped"] if one["image"] not in tried]
            return kept + [asdict(one) for one in dict.fromkeys(state.skipped)]

        try:
            executor.run(experiment, tasks, store, report)
        except BaseException:
            with contextlib.suppress(StoreError):  # what went wrong first is what counts
                store.write_manifest({**manifest, "skipped": verdicts()})
            raise
        store.write_manifest({**manifest, "skipped": verdicts(), "finished": timestamp()})
    if not store.parts():
        reasons = "; ".join(dict.fromkeys(one.reason for one in state.skipped[:3]))
        raise FaithmapError(f"not one image could be measured: {reasons}")
    return Run(store.url)


@dataclass(frozen=True)
class Plan:
    """What `evaluate` would do."""

    images: Images
    experiment: Experiment
    tasks: Sequence[Task]


def plan(
    classifier: Classifier,
    images: Images | Tensor | str | Path,
    methods: Any = "fig4",
    protocol: Protocol | str = "samek2017",
    out: str | Path | None = None,
    *,
    engine: str = "auto",
    batch_size: int | None = None,
    precision: str = "float32",
    save_heatmaps: bool = False,
    executor: Executor | None = None,
) -> Plan:
    """What `evaluate` would do with the same arguments. Writes nothing.

    Raises:
        FaithmapError: as `evaluate`; also a run folder with damaged parts.
    """
    images, experiment = prepare(classifier, images, methods, protocol, engine, batch_size, precision)
    store = Store(out if out is not None else "memory://faithmap-nowhere")
    if (before := store.read_manifest()) is not None:
        extend_manifest(before, describe(experiment, images, LocalExecutor(), command=None), store.url)
    return Plan(images, experiment, pending(images, experiment, store, save_heatmaps, executor or LocalExecutor()))


def prepare(
    classifier: Classifier,
    images: Images | Tensor | str | Path,
    methods: Any,
    protocol: Protocol | str,
    engine: str,
    batch_size: int | None,
    precision: str,
) -> tuple[Images, Experiment]:
    """What was asked for, resolved and checked; refuses what cannot be before anything is written."""
    images = load_images(images)
    protocol = Protocol.preset(protocol) if isinstance(protocol, str) else protocol
    others = PixelSource(images, classifier.preprocessing)
    protocol = settled(protocol, others, input_size(images, classifier))
    experiment = Experiment(
        classifier=classifier,
        methods=resolve_methods(methods, protocol),
        protocol=protocol,
        engine_name=engine,
        batch_size=batch_size,
        precision=precision,
        labels=images.class_indices(classifier),
        others=others,
    )
    make_engine(classifier, engine, batch_size, precision=precision)
    return images, experiment


def pending(
    images: Images, experiment: Experiment, store: Store, save_heatmaps: bool, executor: Executor
) -> list[Task]:
    """What the store does not hold, in tasks for the executor."""
    ids = {image.id for image in images}
    keep = ids if save_heatmaps else sample(ids, EXAMPLES)
    tasks = missing(images, experiment.methods, experiment.protocol, store, keep)
    asked = sum(len(task.images) for task in tasks)
    return list(blocks(tasks, images_of_task(asked, experiment.classifier.device.type, executor.describe())))


def images_of_task(images: int, device: str, executor: Mapping[str, Any]) -> int:
    """How many images a task has, at most: enough tasks for all workers, and enough chains for the engine."""
    most = TASK_IMAGES["device" if "device" in executor else kind_of(torch.device(device))]
    workers = int(executor["workers"])
    return most if workers == 1 else min(most, max(BLOCK, images // (4 * workers)))


def usable_heatmaps(stores: Sequence[Store], manifest: Mapping[str, Any]) -> HeatmapParts:
    """Heatmaps stored before that this run would compute again: same classifier, image content and method."""
    places: dict[tuple[str, str], tuple[str, str, str, int]] = {}
    for store in stores:
        before = store.read_manifest()
        if before is None:
            raise no_run(store)
        if plain(before["classifier"]) != plain(manifest["classifier"]) or before["seed"] != manifest["seed"]:
            continue
        for (image, method), place in store.stored_heatmaps().places.items():
            same_image = before["images"].get(image) == manifest["images"].get(image)
            if same_image and before["methods"].get(method) == plain(manifest["methods"].get(method)):
                places[image, method] = place
    return HeatmapParts(places)


def input_size(images: Images, classifier: Classifier) -> tuple[int, int]:
    """Height and width of the network's input: tensors come as they are, files are cut to the classifier's size."""
    first = images[0]
    return (
        (first.pixels.shape[1], first.pixels.shape[2])
        if isinstance(first, TensorImage)
        else classifier.preprocessing.crop
    )


def settled(protocol: Protocol, others: PixelSource, size: tuple[int, int]) -> Protocol:
    """The protocol with all that depends on the image set or the input size written out; refuses what cannot be.

    Raises:
        ProtocolError: an unknown fill or segments, or steps that are not a number.
        RegionError: regions that cannot fit; says how many do.
    """
    check_fill(protocol.fill)
    if protocol.placement is Placement.SEGMENT and not protocol.segments:
        raise ProtocolError("placement is 'segment' and segments are not named: give, for example, 'slic:n=50'.")
    check_regions_fit(protocol, *size)
    return protocol.fitted(*size).override(
        fill=resolve_fill(protocol.fill, others), segments=resolve_segments(protocol.segments)
    )


def missing(
    images: Images, methods: Sequence[Method], protocol: Protocol, store: Store, keep: Iterable[str] = ()
) -> list[Task]:
    """Tasks for all steps that the store does not hold; images that miss the same go together.

    Args:
        images, methods, protocol: what is asked for.
        store: what is there.
        keep: ids of the images whose heatmaps are stored.
    """
    asked = [
        ChainKey(method.name, str(order), draw)
        for method in methods
        for order in protocol.orders
        for draw in range(protocol.draws)
    ]
    heatmaps = missing_heatmaps(keep, methods, store)
    index = store.index()
    known: dict[bytes, list[tuple[range, tuple[ChainKey, ...]]]] = {}
    groups: dict[tuple[range, tuple[ChainKey, ...]], list[AnyImage]] = defaultdict(list)
    for image in images:
        stored = index.of_image(image.id)
        signature = stored.signature()
        if signature not in known:  # few sorts of images: nothing stored, all stored, some draws stored, …
            known[signature] = missing_chains(asked, stored.steps(), protocol.steps + 1)
        wanted = known[signature] or ([(range(0), ())] if image.id in heatmaps else [])
        for steps_and_keys in wanted:
            groups[steps_and_keys].append(image)
    tasks = []
    for (steps, keys), group in groups.items():
        own = {image.id: heatmaps.pop(image.id) for image in group if image.id in heatmaps}
        tasks.append(Task(tuple(group), keys, steps, own))
    return tasks


def missing_chains(
    asked: Sequence[ChainKey], stored: Mapping[Chain, Sequence[range]], points: int
) -> list[tuple[range, tuple[ChainKey, ...]]]:
    """Of one image: steps, and the chains that miss these."""
    by_steps: dict[range, list[ChainKey]] = defaultdict(list)
    for key in asked:
        for steps in gaps(stored.get((key.method, key.order, key.draw), []), points):
            by_steps[steps].append(key)
    return [(steps, tuple(keys)) for steps, keys in by_steps.items()]


def missing_heatmaps(keep: Iterable[str], methods: Sequence[Method], store: Store) -> dict[str, tuple[str, ...]]:
    """Image id → methods whose heatmaps are to be stored and are not there yet."""
    there = store.stored_heatmaps().places
    names = [method.name for method in methods if not method.is_random]
    lacking = {image: tuple(name for name in names if (image, name) not in there) for image in keep}
    return {image: found for image, found in lacking.items() if found}


def gaps(have: Sequence[range], points: int) -> list[range]:
    """What is missing of 0 … points − 1.

    Example:
        >>> gaps([range(0, 3), range(5, 6)], 8)
        [range(3, 5), range(6, 8)]
    """
    missing, reached = [], 0
    for steps in [*sorted(have, key=lambda steps: steps.start), range(points, points)]:
        if reached < min(steps.start, points):
            missing.append(range(reached, min(steps.start, points)))
        reached = max(reached, steps.stop)
    return missing
