"""What a run folder lacks, as tasks."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from faithmap.attribution import Method, resolve_methods
from faithmap.checks import as_integer
from faithmap.classifiers import Classifier, check_classifier, kind_of
from faithmap.classifiers.patches import patch_side
from faithmap.errors import EngineError, GroupWarning, InputError, ProtocolError, StoreError
from faithmap.experiment.executors import Executor, blocks
from faithmap.experiment.measuring import asked_measures
from faithmap.experiment.targets import Targets, chosen_targets
from faithmap.experiment.task import BLOCK, TASK_IMAGES, ChainKey, Experiment, MeasureKey, Task
from faithmap.identity import UNKNOWN
from faithmap.images import AnyImage, Images, PixelSource, TensorImage, load_images
from faithmap.inference import make_engine
from faithmap.inference.dropping import DroppingEngine
from faithmap.measures.masks import masks_for
from faithmap.measures.registry import resolve_measures
from faithmap.perturbation import check_fill, is_dropped, resolve_fill
from faithmap.perturbation.regions import check_regions_fit
from faithmap.perturbation.segments import resolve_segments
from faithmap.protocol import PRESETS, PROBABILISTIC, Placement, Protocol, Score, as_protocol
from faithmap.store.folder import HeatmapParts, Store
from faithmap.store.index import Chain, StepRuns
from faithmap.store.manifest import Manifest, plain
from faithmap.store.reading import EXAMPLES, StoredRun, no_run, sample

# Bounds of what an engine may take, in bytes.
LEAST_MEMORY, MOST_MEMORY = 1 << 24, 1 << 50
# Of an image: steps that are missing, the chains that miss them, and the values of measures that are missing.
Lacking = tuple[tuple[int, ...], tuple[ChainKey, ...], tuple[MeasureKey, ...]]


@dataclass(frozen=True)
class Plan:
    """What `evaluate` would do."""

    images: Images
    experiment: Experiment
    tasks: Sequence[Task]


def prepare(
    classifier: Classifier,
    images: Images | Tensor | str | Path,
    methods: Any,
    protocol: Protocol | str,
    *,
    engine: str = "auto",
    batch_size: int | None = None,
    precision: str = "float32",
    memory: int | None = None,
    measures: Any = None,
    masks: Any = None,
    on_refusal: str | None = None,
    heatmap_resize: str | None = None,
    targets: Targets = None,
    image_set: Images | None = None,
) -> tuple[Images, Experiment]:
    """What was asked for, resolved and checked; refuses what cannot be before anything is written.

    Args:
        image_set: where fills that depend on the images take theirs from, for some images of a larger set; by default
            the images themselves.
    """
    classifier = check_classifier(classifier)
    if memory is not None:
        memory = as_integer(memory, "memory", LEAST_MEMORY, MOST_MEMORY, EngineError)
    question = as_protocol(protocol)
    images = load_images(images).pinned()
    if (suggestion := images.suggested_groups()) is not None:
        warnings.warn(suggestion, GroupWarning, stacklevel=3)
    if question.score is Score.PROBABILITY and classifier.score_kind not in PROBABILISTIC:
        raise ProtocolError(
            f"score is 'probability', and the outputs of {classifier.name} have none (its score is "
            f"'{classifier.score_kind}'): give score 'logit', under which the score itself is shown."
        )
    question, given = chosen_targets(targets, images, classifier, question)
    others = PixelSource(images if image_set is None else image_set, classifier.preprocessing)
    size = input_size(images, classifier)
    protocol = settled(aligned(question, classifier, size), others, size)
    asked = resolve_measures(measures)
    experiment = Experiment(
        classifier=classifier,
        methods=resolve_methods(methods, protocol, on_refusal, heatmap_resize),
        protocol=protocol,
        engine_name=engine,
        batch_size=batch_size,
        precision=precision,
        memory=memory,
        labels=classifier.class_indices(images),
        targets=given,
        others=others,
        measures=asked,
        masks=masks_for(asked, images, masks, classifier.preprocessing),
    )
    make_engine(classifier, engine, batch_size, memory=memory, precision=precision)
    return images, experiment


def pending(
    images: Images, experiment: Experiment, store: Store, save_heatmaps: bool, executor: Executor
) -> list[Task]:
    """What the store does not hold, in tasks for the executor."""
    ids = {image.id for image in images}
    keep = ids if save_heatmaps else sample(ids, EXAMPLES)
    tasks = missing(images, experiment, store, keep)
    asked = sum(len(task.images) for task in tasks)
    return list(blocks(tasks, images_of_task(asked, experiment.classifier.device.type, executor.describe())))


def images_of_task(images: int, device: str, executor: Mapping[str, Any]) -> int:
    """How many images a task has, at most: enough tasks for all workers, and enough chains for the engine."""
    most = TASK_IMAGES["device" if "device" in executor else kind_of(torch.device(device))]
    workers = int(executor["workers"])
    return most if workers == 1 else min(most, max(BLOCK, images // (4 * workers)))


def usable_heatmaps(stores: Sequence[Store], manifest: Manifest) -> HeatmapParts:
    """Heatmaps stored before that this run would compute again: same classifier, image content and method."""
    places: dict[tuple[str, str], tuple[str, str, str, int]] = {}
    for store in stores:
        before = store.read_manifest()
        if before is None:
            raise no_run(store)
        if before.classifier.changes(manifest.classifier) or before.seed != manifest.seed:
            continue
        for (image, method), place in store.stored_heatmaps().places.items():
            if same_heatmap(before, manifest, image, method):
                places[image, method] = place
    return HeatmapParts(places)


def same_heatmap(before: Manifest, now: Manifest, image: str, method: str) -> bool:
    """Whether two runs of one network mean the same by an image and a method."""
    if {image} - (before.images.keys() & now.images.keys()) or {method} - (before.methods.keys() & now.methods.keys()):
        return False
    same_image = before.images[image].decides() == now.images[image].decides()
    spec = now.methods[method]
    return same_image and plain(before.methods[method]) == plain(spec) and UNKNOWN not in spec


def input_size(images: Images, classifier: Classifier) -> tuple[int, int]:
    """Height and width of the network's input: tensors come as they are, files are cropped to the classifier's size.

    Raises:
        InputError: tensors of several sizes, or not of the size and channels that the classifier was given.
    """
    shapes = {tuple(image.pixels.shape) for image in images if isinstance(image, TensorImage)}
    if not shapes:
        return classifier.preprocessing.crop
    sizes = {shape[1:] for shape in shapes}
    asked = classifier.asked_size
    if len(sizes) > 1 or len(shapes) != 1 or (any(not isinstance(i, TensorImage) for i in images)):
        raise InputError(f"the images have different shapes ({sorted(shapes)}): give one size and one kind.")
    (shape,) = shapes
    if asked is not None and shape[1:] != tuple(asked):
        raise InputError(
            f"the images are {shape[1]}×{shape[2]} pixels, the classifier's preprocessing makes {asked[0]}×{asked[1]}: "
            "give images of that size, or a Classifier without preprocessing."
        )
    return shape[1], shape[2]


def aligned(protocol: Protocol, classifier: Classifier, size: tuple[int, int]) -> Protocol:
    """The protocol with regions that do not cut the patches of the network.

    Placement `patch` becomes a grid of the network's patches. The preset `srg` with its own region size takes the
    multiple of the patch side that is nearest to it. Fill `drop` needs regions of whole patches.

    Raises:
        ProtocolError: a network without patches, or regions that cut them.
        EngineError: fill `drop` on a network whose tokens cannot be dropped.
    """
    usual = PRESETS["srg"].region_size
    if protocol.placement is Placement.PATCH:
        side = patch_side(classifier, size)
        if side is None:
            raise ProtocolError(
                f"placement is 'patch' and {classifier.name} does not embed an image patch by patch: give 'grid' and "
                "a region_size."
            )
        protocol = protocol.override(placement=Placement.GRID, region_size=side)
    elif (protocol.name, protocol.placement, protocol.region_size) == ("srg", Placement.GRID, usual):
        side = patch_side(classifier, size) or 1
        protocol = protocol.override(region_size=min(side * max(round(usual / side), 1), *size))
    if is_dropped(protocol.fill):
        side = DroppingEngine(classifier, 1).tokens(size).side
        if protocol.placement is not Placement.GRID or protocol.region_size % side:
            raise ProtocolError(
                f"fill is 'drop' and regions cut the network's patches of {side} pixels: give placement 'patch', or "
                f"'grid' with a region_size that is a multiple of {side}."
            )
    return protocol


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


def missing(images: Images, experiment: Experiment, store: Store, keep: Iterable[str] = ()) -> list[Task]:
    """Tasks for all that the store does not hold; images that miss the same go together.

    Args:
        images, experiment: what is asked for.
        store: what is there.
        keep: ids of the images whose heatmaps are stored.
    """
    methods, protocol = experiment.methods, experiment.protocol
    asked = [
        ChainKey(method.name, str(order), draw)
        for method in methods
        for order in protocol.orders
        for draw in range(protocol.draws_of(method.name))
    ]
    heatmaps = missing_heatmaps(keep, methods, store)
    values = asked_measures(methods, experiment.measures, protocol.draws)
    valued = measured_before(store) if values else {}
    index = store.index()
    check_ids_of_tensors(images, index)
    known: dict[bytes, list[tuple[tuple[int, ...], tuple[ChainKey, ...]]]] = {}
    alike: dict[Lacking, list[AnyImage]] = defaultdict(list)
    for image in images:
        stored = index.of_image(image.id)
        signature = stored.signature()
        if signature not in known:  # few sorts of images: nothing stored, all stored, some draws stored, …
            known[signature] = missing_chains(asked, stored.steps(), protocol.scored_steps())
        measures = tuple(key for key in values if key not in valued.get(image.id, ()))
        wanted = known[signature] or ([((), ())] if image.id in heatmaps or measures else [])
        for place, (steps, keys) in enumerate(wanted):
            alike[steps, keys, measures if place == 0 else ()].append(image)
    tasks = []
    for (steps, keys, measures), together in alike.items():
        own = {image.id: heatmaps.pop(image.id) for image in together if image.id in heatmaps}
        tasks.append(Task(tuple(together), keys, steps, own, measures))
    return tasks


def check_ids_of_tensors(images: Images, index: StepRuns) -> None:
    """Refuse a longer tensor whose images would be taken for others than those that are stored.

    Ids of a tensor's images have as many digits as the last of them: those of ten are 0…9, those of eleven 00…10.
    """
    new = next((image.id for image in images if isinstance(image, TensorImage) and image.id.isdecimal()), None)
    stored = next((name for name in index.names["image"] if name.isdecimal() and len(name) != len(new or name)), None)
    if stored is not None:
        raise StoreError(
            f"the run holds images of a tensor that are called like '{stored}', these are called like '{new}', because "
            "there are more or fewer: the same picture would count twice. Take another folder, or give images as "
            "files, which keep their names."
        )


def missing_chains(
    asked: Sequence[ChainKey], stored: Mapping[Chain, Sequence[range]], steps: Sequence[int]
) -> list[tuple[tuple[int, ...], tuple[ChainKey, ...]]]:
    """Of one image: steps, and the chains that miss these."""
    by_steps: dict[tuple[int, ...], list[ChainKey]] = defaultdict(list)
    for key in asked:
        lacking = missing_steps(stored.get((key.method, key.order, key.draw), []), steps)
        if lacking:
            by_steps[lacking].append(key)
    return [(steps, tuple(keys)) for steps, keys in by_steps.items()]


def measured_before(store: Store) -> dict[str, set[MeasureKey]]:
    """Image → the values of measures that are stored."""
    found: dict[str, set[MeasureKey]] = defaultdict(set)
    row: Any
    for row in store.measures().itertuples(index=False):
        found[row.image].add(MeasureKey(row.method, row.measure, int(row.draw)))
    return found


def missing_heatmaps(keep: Iterable[str], methods: Sequence[Method], store: Store) -> dict[str, tuple[str, ...]]:
    """Image id → methods whose heatmaps are to be stored and are not there yet."""
    there = store.stored_heatmaps().places
    names = [method.name for method in methods if not method.is_random]
    lacking = {image: tuple(name for name in names if (image, name) not in there) for image in keep}
    return {image: found for image, found in lacking.items() if found}


def telling_task(images: Images, experiment: Experiment, store: Store) -> Task | None:
    """The heatmaps that the figures of a measured run need and the store lacks; None where it has them all.

    Which images are best, median and worst is known only when all are measured.
    """
    heatmaps = missing_heatmaps(StoredRun(store.url).telling_images(), experiment.methods, store)
    chosen = tuple(image for image in images if image.id in heatmaps)
    return Task(chosen, (), (), heatmaps) if chosen else None


def missing_steps(have: Sequence[range], asked: Sequence[int]) -> tuple[int, ...]:
    """What is missing of the steps that are asked for.

    Example:
        >>> missing_steps([range(0, 3), range(5, 6)], range(8))
        (3, 4, 6, 7)
    """
    stored = {step for steps in have for step in steps}
    return tuple(step for step in asked if step not in stored)
