"""From a question to a run folder: what is missing → executor → store. `evaluate` is the public call."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import platform
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from torch import Tensor

from faithmap import plots
from faithmap._version import __version__
from faithmap.attribution import Method, random_heatmap, resolve_methods
from faithmap.classifiers import Classifier
from faithmap.errors import FaithmapError, ProtocolError, StoreError, nearest
from faithmap.executors import Executor, LocalExecutor, Report, blocks
from faithmap.experiment import BLOCK, ChainKey, Experiment, Skipped, Task
from faithmap.images import AnyImage, Images, PixelSource, TensorImage, load_images
from faithmap.inference import make_engine
from faithmap.perturbation import check_fill, draw_fill, is_imputed, resolve_fill
from faithmap.progress import Progress, shown
from faithmap.protocol import Direction, Order, Placement, Protocol
from faithmap.regions import check_regions_fit, removal_steps
from faithmap.segments import resolve_segments, segment
from faithmap.statistics import aopc_table
from faithmap.store import Chain, DamagedError, Example, HeatmapParts, Store

if TYPE_CHECKING:
    from faithmap.report import Html

EXAMPLES = 24
FIGURES = ("fig4", "curves", "ranking", "heatmaps", "steps", "agreement")
RANDOM = "random"
UNREADABLE = "unreadable"


class Run:
    """A run folder, finished or not; loads no model.

    Args:
        folder: as given to `evaluate` as `out`.
    Raises:
        StoreError: a folder that holds no run.
    """

    def __init__(self, folder: str | Path) -> None:
        self.store = Store(folder)
        manifest = self.store.read_manifest()
        if manifest is None:
            raise _no_run(self.store)
        self.manifest: dict[str, Any] = manifest

    @property
    def folder(self) -> Path:
        """Where the run is kept, if it is on a disk."""
        return self.store.folder

    @property
    def protocol(self) -> Protocol:
        """What was measured."""
        return Protocol.from_dict(self.manifest["protocol"])

    @property
    def precision(self) -> str:
        """What scores were computed in; anything but float32 is for screening."""
        return str(self.manifest.get("precision", "float32"))

    @property
    def skipped(self) -> list[Skipped]:
        """What could not be measured, with reasons."""
        return [Skipped(one["image"], one["method"], one["reason"]) for one in self.manifest["skipped"]]

    def __repr__(self) -> str:
        return f"Run({self.store.url}: {len(self.manifest['images'])} images, {', '.join(self.manifest['methods'])})"

    def scores(self) -> pd.DataFrame:
        """One row a score: image, label, predicted, target, method, order, draw, step, logit, probability."""
        return self.store.frame()

    def aopc(self, score: str | None = None, relative: bool = True, confidence: float = 0.95) -> pd.DataFrame:
        """Per method and step: mean AOPC over the images, relative to random, with its interval.

        See `faithmap.statistics.aopc_table`.
        """
        return aopc_table(self.scores(), str(score or self.protocol.score), relative=relative, confidence=confidence)

    def plot(
        self,
        path: str | Path | None = None,
        ax: Axes | None = None,
        *,
        score: str | None = None,
        frame: pd.DataFrame | None = None,
        **how: Any,
    ) -> Axes:
        """Figure 4: AOPC relative to random against perturbation steps; see `faithmap.plots.fig4`.

        Args:
            path: png, svg or pdf file to write; None writes none.
            ax: drawn into; a new figure by default.
            score: ``"logit"`` or ``"probability"``; the protocol's by default.
            frame: the run's scores, where they were read before.
            how: passed on to `faithmap.plots.fig4`.
        """
        shown = {"score": str(score or self.protocol.score), "order": str(self.protocol.shown_order)}
        if self.precision != "float32":
            shown["title"] = f"scores in {self.precision}, for screening only"
        ax = plots.fig4(self.scores() if frame is None else frame, ax, **{**shown, **how})
        if path is not None:
            plots.save(ax, path)
        return ax

    def report(self, path: str | Path, *, examples: int = EXAMPLES) -> Path:
        """The answer as one self-contained HTML page; see `faithmap.report.write_report`."""
        from faithmap.report import write_report

        return write_report(self, path, examples=examples)

    def flipbook(self, image: str | None = None) -> Html:
        """Step through what was removed, inline in a notebook; see `faithmap.report.flipbook_html`.

        Args:
            image: an image's id; None takes some of those whose heatmaps are stored.
        """
        from faithmap.report import Html, flipbook_html

        return Html(flipbook_html(self, image))

    def _repr_html_(self) -> str | None:
        from faithmap.report import run_html

        try:
            return run_html(self)
        except FaithmapError:  # a run without scores: its `repr` says all there is
            return None

    def figure(
        self,
        name: str,
        path: str | Path | None = None,
        *,
        score: str | None = None,
        style: str = "paper",
        compare: Sequence[str | Path] = (),
        image: str | None = None,
    ) -> Any:
        """A figure by name; see `faithmap.plots` for each.

        Args:
            name: ``"fig4"``, ``"curves"``, ``"ranking"``, ``"heatmaps"``, ``"steps"`` or ``"agreement"``.
            path: png, svg or pdf file to write; None writes none.
            score: ``"logit"`` or ``"probability"``; the protocol's by default.
            style: ``"paper"`` or ``"slides"``.
            compare: run folders beside this one, for ``"fig4"``.
            image: for ``"steps"``, an example's id; the first one by default.
        Returns:
            The Axes, or a list of them.
        Raises:
            FaithmapError: an unknown figure, or one for which the run holds no heatmaps.
        """
        if name not in FIGURES:
            raise FaithmapError(f"unknown figure '{name}'{nearest(name, FIGURES)} Known: {', '.join(FIGURES)}.")
        how: dict[str, Any] = {"score": str(score or self.protocol.score), "style": style}
        if compare and name != "fig4":
            raise FaithmapError(f"runs are compared in figure 'fig4', not in '{name}'.")
        if compare:
            runs = [self, *(Run(folder) for folder in compare)]
            axes: Any = plots.fig4_compare(_titled(runs), **how)
        elif name == "heatmaps":
            axes = plots.heatmaps(self.scores(), self.examples(), labels=self.manifest["classifier"]["labels"], **how)
        elif name == "steps":
            axes = self._film_strip(image, **how)
        elif name == "ranking":
            axes = plots.ranking(self.scores(), direction=str(self.protocol.direction), **how)
        else:
            draw: Callable[..., Axes] = getattr(plots, name)
            axes = draw(self.scores(), **how)
        if path is not None:
            first = axes
            while isinstance(first, list):
                first = first[0]
            plots.save(first, path)
        return axes

    def _film_strip(self, image: str | None, **how: Any) -> Any:
        examples = {example.image: example for example in self.examples(None)}
        if not examples or (image is not None and image not in examples):
            raise StoreError(
                f"no heatmaps are stored for {'any image' if image is None else repr(image)}: run with --save-heatmaps."
            )
        example = examples[image] if image is not None else self.examples(1)[0]
        frame = self.scores()
        last = int(frame["step"].max())
        at = sorted({0, last // 10, last // 5, last // 2, last})
        methods = [*example.heatmaps, RANDOM]
        order = self.protocol.orders[0]
        if is_imputed(self.protocol.fill):
            raise FaithmapError(
                f"figure 'steps' shows fills that are drawn beforehand; '{self.protocol.fill}' follows from the pixels "
                "that are left: choose another figure."
            )
        fills = {method: self.fill(example, method=method) for method in methods}
        steps = {method: self.removal_step(example, method, order) for method in methods}
        how |= {"frame": frame, "image": example.image, "order": str(order)}
        if self.protocol.direction is Direction.RESTORE:
            fill = fills[methods[0]]
            return plots.steps(fill, steps, example.pixels, at, **how)
        return plots.steps(example.pixels, steps, fills, at, **how)

    def examples(self, count: int | None = EXAMPLES) -> list[Example]:
        """Images with their heatmaps, as far as they were stored; at most `count`, the same ones every time."""
        stored = {image for image, _ in self.store.stored_heatmaps().places}
        return list(self.store.examples(sample(stored, count)))

    def removal_step(
        self, example: Example, method: str, order: Order | str = Order.MORF, draw: int = 0
    ) -> Int[Tensor, "height width"]:
        """The step at which each pixel of an example was removed, 0 for never.

        Raises:
            StoreError: a method without a heatmap for this image.
        """
        if method == RANDOM:
            size = (int(example.pixels.shape[1]), int(example.pixels.shape[2]))
            heatmap = random_heatmap(size, seed=self.protocol.seed, image_id=example.image, draw=draw)
        elif method in example.heatmaps:
            heatmap = example.heatmaps[method]
        else:
            raise StoreError(f"no heatmap of '{method}' is stored for '{example.image}'.")
        maps = None
        if self.protocol.placement is Placement.SEGMENT:
            maps = segment(self.protocol.segments, example.pixels, example.image).unsqueeze(0)
        return removal_steps(heatmap.unsqueeze(0), self.protocol, order, maps)[0]

    def fill(self, example: Example, draw: int = 0, method: str | None = None) -> Float[Tensor, "3 height width"]:
        """What the regions of an example were replaced with (for noisy linear imputation: the noise alone).

        Raises:
            ProtocolError: the fill takes pixels of another image, which a run folder does not hold.
        """
        own = None if self.protocol.paired_fill else method
        return draw_fill(
            self.protocol.fill, example.pixels, seed=self.protocol.seed, image_id=example.image, draw=draw, method=own
        )


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
        tasks = pending(images, experiment, store, save_heatmaps)
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
        store.write_manifest({**manifest, "skipped": verdicts(), "finished": _now()})
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
) -> Plan:
    """What `evaluate` would do with the same arguments. Writes nothing.

    Raises:
        FaithmapError: as `evaluate`; also a run folder with damaged parts.
    """
    images, experiment = prepare(classifier, images, methods, protocol, engine, batch_size, precision)
    store = Store(out if out is not None else "memory://faithmap-nowhere")
    if (before := store.read_manifest()) is not None:
        extend_manifest(before, describe(experiment, images, LocalExecutor(), command=None), store.url)
    return Plan(images, experiment, pending(images, experiment, store, save_heatmaps))


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


def pending(images: Images, experiment: Experiment, store: Store, save_heatmaps: bool) -> list[Task]:
    """What the store does not hold, in tasks of at most `BLOCK` images."""
    ids = {image.id for image in images}
    keep = ids if save_heatmaps else sample(ids, EXAMPLES)
    return list(blocks(missing(images, experiment.methods, experiment.protocol, store, keep), BLOCK))


def sample(ids: Iterable[str], count: int | None) -> list[str]:
    """The same few images every time, whatever the others are; None takes all."""
    return sorted(ids, key=lambda name: hashlib.sha256(name.encode()).digest())[:count]


def usable_heatmaps(stores: Sequence[Store], manifest: Mapping[str, Any]) -> HeatmapParts:
    """Heatmaps stored before that this run would compute again: same classifier, image content and method."""
    places: dict[tuple[str, str], tuple[str, str, str, int]] = {}
    for store in stores:
        before = store.read_manifest()
        if before is None:
            raise _no_run(store)
        if _plain(before["classifier"]) != _plain(manifest["classifier"]) or before["seed"] != manifest["seed"]:
            continue
        for (image, method), place in store.stored_heatmaps().places.items():
            same_image = before["images"].get(image) == manifest["images"].get(image)
            if same_image and before["methods"].get(method) == _plain(manifest["methods"].get(method)):
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


def manifest_before(store: Store) -> dict[str, Any] | None:
    """What the folder holds already; where its manifest is damaged or gone, what the parts say."""
    try:
        before = store.read_manifest()
    except DamagedError:
        before = None
    return before if before is not None else store.recover_manifest()


def describe(experiment: Experiment, images: Images, executor: Executor, *, command: str | None) -> dict[str, Any]:
    """The manifest of a run that starts now."""
    classifier, protocol = experiment.classifier, experiment.protocol
    content = {}
    for image in images:
        try:
            content[image.id] = image.content_hash()
        except OSError as error:  # unreadable: named when its turn comes
            content[image.id] = f"{UNREADABLE}: {error.strerror}"
    return {
        "protocol": protocol.to_dict(),
        "fingerprint": protocol.fingerprint(),
        "classifier": {
            "name": classifier.name,
            "fingerprint": classifier.fingerprint(),
            "preprocessing": asdict(classifier.preprocessing),
            "labels": classifier.labels,
        },
        "image_set": images.name,
        "images": {image.id: {"content": content[image.id], "label": experiment.labels[image.id]} for image in images},
        "methods": {method.name: method.spec for method in experiment.methods},
        "seed": protocol.seed,
        "engine": experiment.engine_name,
        "batch_size": experiment.batch_size,
        "precision": experiment.precision,
        "device": _device_name(classifier.device),
        **executor.describe(),
        "versions": _versions(),
        "command": command,
        "started": _now(),
        "finished": None,
        "skipped": [],
    }


def extend_manifest(before: Mapping[str, Any], now: dict[str, Any], url: str) -> dict[str, Any]:
    """The manifest of a folder that goes on, or a refusal that names what changed.

    Raises:
        StoreError: another protocol, classifier, or other content under the same image id or method name.
    """
    changed: list[str] = []
    old, new = (Protocol.from_dict(m["protocol"]).measured() for m in (before, now))
    changed += [f"{part}: {old[part]} → {new[part]}" for part in new if old[part] != new[part]]
    for part in ("name", "fingerprint", "preprocessing"):
        if _plain(before["classifier"][part]) != _plain(now["classifier"][part]):
            changed.append(f"classifier {part}: {before['classifier'][part]} → {now['classifier'][part]}")
    if before.get("precision", "float32") != now["precision"]:
        changed.append(f"precision: {before.get('precision', 'float32')} → {now['precision']}")
    unmeasured = {one["image"] for one in before["skipped"] if one["method"] is None}
    unmeasured |= {name for m in (before, now) for name, one in m["images"].items() if UNREADABLE in one["content"]}
    for what in ("images", "methods"):
        for name in now[what].keys() & before[what].keys() - (unmeasured if what == "images" else set()):
            if _plain(before[what][name]) != _plain(now[what][name]):
                changed.append(f"{what[:-1]} '{name}': {before[what][name]} → {now[what][name]}")
    if changed:
        raise StoreError(
            f"run folder {url} holds protocol {before['fingerprint']}, this run asks for {now['fingerprint']} "
            f"(changed: {'; '.join(sorted(changed)[:4])}): choose a new folder."
        )
    union = {what: {**before[what], **now[what]} for what in ("images", "methods")}
    parts = dict(now["protocol"])
    for part in ("steps", "draws"):
        parts[part] = max(before["protocol"][part], parts[part])
    parts["orders"] = list(dict.fromkeys([*before["protocol"]["orders"], *parts["orders"]]))
    started = before["started"] or now["started"]
    return {**before, **now, **union, "protocol": parts, "started": started, "skipped": before["skipped"]}


def _titled(runs: Sequence[Run]) -> dict[str, pd.DataFrame]:
    """Network and images of each run → its scores; numbered where they are the same."""
    titles = [f"{run.manifest['classifier']['name']}, {run.manifest['image_set']}" for run in runs]
    twice = len(set(titles)) < len(titles)
    names = [f"{run.folder.name}: {title}" if twice else title for run, title in zip(runs, titles, strict=True)]
    return {name: run.scores() for name, run in zip(names, runs, strict=True)}


def _no_run(store: Store) -> StoreError:
    return StoreError(f"{store.url} holds no run (no manifest.json): give a folder that `faithmap run` made.")


def _plain(value: Any) -> Any:
    """Tuples as JSON knows them."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, Iterable) and not isinstance(value, str) else value


def _versions() -> dict[str, str]:
    packages = ("torch", "torchvision", "zennit", "numpy", "pyarrow", "scipy")
    return {
        "faithmap": __version__,
        "python": platform.python_version(),
        **{package: importlib.metadata.version(package) for package in packages},
    }


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({platform.machine()})"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
