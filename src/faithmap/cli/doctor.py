"""Is everything here and intact? Each finding comes with its remedy."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from faithmap import images
from faithmap.classifiers.loading import EMBEDDED
from faithmap.classifiers.weights import check_weights, weights_path
from faithmap.cli.listing import KINDS
from faithmap.errors import ClassifierError, FaithmapError, PluginWarning, StoreError, install
from faithmap.run import Run
from faithmap.store.folder import DAMAGED, Store
from faithmap.store.manifest import Manifest
from faithmap.text import first_line

GOOD, HINT, BAD = "good", "hint", "bad"
# What is needed always, and what an extra brings: package → extra.
NEEDED = ("torch", "torchvision", "zennit", "numpy", "pandas", "pyarrow", "scipy", "matplotlib", "safetensors")
EXTRAS = {"captum": "captum", "ray": "ray", "ndf": "demo", "scikit-image": "demo", "scikit-learn": "demo"}
IMAGENETTE_COUNT = 3925  # images in the validation folder


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: what was found.
        state: ``"good"``, ``"hint"`` (something that could be had) or ``"bad"`` (something that is wrong).
        remedy: what to do; empty where nothing needs to be done.
    """

    what: str
    state: str = GOOD
    remedy: str = ""


def findings(folder: str | Path | None = None, data: Path | None = None) -> Iterator[Finding]:
    """All findings, one after the other.

    Args:
        folder: a run folder to look at as well.
        data: where data sets are kept.
    """
    yield from packages()
    yield from plugins()
    yield from devices()
    yield from weights()
    yield from data_sets(data)
    if folder is not None:
        yield from run_folder(folder)


def packages() -> Iterator[Finding]:
    """What is installed."""
    yield Finding(f"Python {platform.python_version()} on {platform.system()} {platform.machine()}, {sys.executable}")
    found = []
    for package in NEEDED:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            yield Finding(f"{package} is not installed", BAD, f"pip install {package}")
    yield Finding(", ".join(found))
    for package, extra in EXTRAS.items():
        try:
            yield Finding(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            yield Finding(f"{package} is not installed", HINT, install(extra))


def plugins() -> Iterator[Finding]:
    """Other packages that add heatmap methods, fills or measures."""
    for kind in KINDS:
        registry = kind.imported()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PluginWarning)  # said below
            names = registry.packages()
        for package in dict.fromkeys(names.values()):
            added = ", ".join(name for name, owner in names.items() if owner == package)
            yield Finding(f"{package} adds {kind.title.lower()}: {added}")
        for package, reason in registry.left_out.items():
            remedy = f"repair or remove it: pip uninstall {package}"
            yield Finding(f"{package} cannot add {kind.title.lower()}: {reason}", BAD, remedy)


def devices() -> Iterator[Finding]:
    """Which devices there are and how fast they are."""
    threads = torch.get_num_threads()
    cpu = torch.device("cpu")
    yield Finding(
        f"CPU: {os.cpu_count()} cores, {threads} threads, {gemm_rate(cpu):.0f} GFLOP/s in matrix products, "
        f"{convolution_rate(cpu):.0f} GFLOP/s in convolutions (float32)"
    )
    for number in range(torch.cuda.device_count()):
        device = torch.device("cuda", number)
        try:
            free, total = torch.cuda.mem_get_info(device)
            yield Finding(
                f"{torch.cuda.get_device_name(device)} (cuda:{number}): {free / 2**30:.0f} of {total / 2**30:.0f} GiB "
                f"free, {gemm_rate(device):.0f} GFLOP/s in matrix products, {convolution_rate(device):.0f} GFLOP/s in "
                "convolutions (float32)"
            )
        except RuntimeError as error:
            yield Finding(f"cuda:{number} cannot be used: {first_line(error)}", BAD, "check the driver")
    if not torch.cuda.is_available():
        built = torch.version.cuda
        yield Finding(
            "no CUDA device" + ("" if built else ": this PyTorch is built for the CPU"),
            HINT,
            "a GPU makes runs many times faster; see pytorch.org for a build with CUDA",
        )


def gemm_rate(device: torch.device, size: int = 1024) -> float:
    """GFLOP/s of a product of square float32 matrices."""
    matrix = torch.rand(size, size, device=device)
    return 2 * size**3 / seconds_each(lambda: matrix @ matrix, device) / 1e9


def convolution_rate(device: torch.device, batch: int = 16) -> float:
    """GFLOP/s of a 3×3 convolution, 64 → 64 channels on 56×56, channels last."""
    inputs = torch.rand(batch, 64, 56, 56, device=device).contiguous(memory_format=torch.channels_last)
    layer = torch.nn.Conv2d(64, 64, 3, padding=1).to(device)
    with torch.inference_mode():
        return 2 * batch * 64 * 64 * 9 * 56 * 56 / seconds_each(lambda: layer(inputs), device) / 1e9


def seconds_each(work: Callable[[], object], device: torch.device, budget: float = 0.3) -> float:
    """The shortest of the repetitions that fit into the budget."""
    found: list[float] = []
    begun = time.perf_counter()
    while not found or time.perf_counter() - begun < budget:
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append(time.perf_counter() - start)
    return min(found)


def weights() -> Iterator[Finding]:
    """Weights that are here, and whether their hashes are right."""
    for name, load in EMBEDDED.items():
        try:
            yield checked(f"weights of {name}", load)
        except ClassifierError as error:  # the package is not installed
            yield Finding(f"weights of {name}: {error}", HINT)
    for path in sorted(weights_path("any.pth").parent.glob("*.pth")):
        yield checked(f"weights {path}", partial(check_weights, path))


def checked(what: str, check: Callable[[], object]) -> Finding:
    """A finding from a check that raises where something is wrong."""
    try:
        check()
    except ClassifierError:
        raise
    except FaithmapError as error:
        return Finding(f"{what}: {error}", BAD, "delete the file and run again" if "delete" not in str(error) else "")
    except OSError as error:
        return Finding(f"{what}: {error.strerror or error}", BAD, "check the file's rights, or fetch it again")
    return Finding(f"{what}: intact")


def data_sets(data: Path | None = None) -> Iterator[Finding]:
    """Images that are here."""
    try:
        photos = images.load_images(images.PHOTOS)
        broken = [image.id for image in photos if not readable(image)]
        if broken:
            remedy = install("demo").replace("install", "install --force-reinstall")
            yield Finding(f"embedded photos: cannot be read: {', '.join(broken)}", BAD, remedy)
        else:
            yield Finding(f"embedded photos: {len(photos)} images, intact")
    except FaithmapError as error:
        yield Finding(f"embedded photos: {error}", HINT)
    places = [data or images.default_data_folder(), Path.cwd()]
    found = [place / "imagenette2-320" / "val" for place in places if (place / "imagenette2-320" / "val").is_dir()]
    if not found:
        yield Finding(f"Imagenette is not in {places[0]}", HINT, "it is downloaded by the first run that needs it")
    for folder in found[:1]:
        count = sum(1 for _ in folder.glob("*/*.JPEG"))
        whole = count == IMAGENETTE_COUNT
        remedy = "" if whole else f"delete {folder.parent} and run again to download it"
        what = f"Imagenette in {folder.parent}: {count} of {IMAGENETTE_COUNT} validation images"
        yield Finding(what, GOOD if whole else HINT, remedy)


def readable(image: images.AnyImage) -> bool:
    """Whether an image can be decoded."""
    try:
        image.read(images.Preprocessing())
    except FaithmapError:
        return False
    return True


def run_folder(folder: str | Path) -> Iterator[Finding]:
    """Whether a run folder is whole."""
    again = "run the same command again"
    try:
        run = Run(folder)
    except StoreError as error:
        yield Finding(str(error), BAD, "" if again in str(error) else "give a folder that `faithmap run` made")
        return
    store, manifest = run.store, run.manifest
    try:
        damaged = store.damaged_parts()
    except StoreError as error:
        yield Finding(str(error), BAD)
        return
    parts = len(store.parts()) + len(store.heatmap_parts())
    for name in damaged:
        yield Finding(f"{store.url}/{name} is damaged", BAD, f"{again}: it is set aside and computed anew")
    if not damaged:
        yield Finding(f"{store.url}: {parts} parts, all whole")
        yield completeness(store, manifest)
    skipped = [one for one in run.skipped if not one.on_all]
    if skipped:
        named = ", ".join(dict.fromkeys(one.image for one in skipped[:3]))
        more = f" and {len(skipped) - 3} more" if len(skipped) > 3 else ""
        yield Finding(f"skipped: {named}{more} ({skipped[0].reason})", HINT, f"mend these images, then {again}")
    aside = store.storage.names(DAMAGED)
    if aside:
        yield Finding(f"{len(aside)} damaged parts were set aside earlier", HINT, f"delete {store.url}/{DAMAGED}")
    if "://" not in store.url:
        free = shutil.disk_usage(store.folder).free
        state, remedy = (GOOD, "") if free > 10**9 else (BAD, "make room")
        yield Finding(f"{free / 1e9:.1f} GB free where the run is kept", state, remedy)


def completeness(store: Store, manifest: Manifest) -> Finding:
    """How many of the rows that the manifest speaks of are there."""
    protocol = manifest.protocol
    draws = sum(protocol.draws_of(method) for method in manifest.methods)
    expected = len(manifest.images) * draws * len(protocol.orders) * len(protocol.scored_steps())
    found = int(store.index().count.sum())
    if found >= expected:
        return Finding(f"{found} scores, none missing")
    return Finding(f"{found} of {expected} scores", HINT, "run the same command again to go on")
