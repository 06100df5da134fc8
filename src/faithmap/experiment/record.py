"""What was run, written down; and whether a run folder may go on with another question."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import torch

from faithmap._version import __version__
from faithmap.errors import StoreError
from faithmap.experiment.executors import Executor
from faithmap.experiment.task import Experiment
from faithmap.images import Images
from faithmap.protocol import Protocol
from faithmap.store.folder import DamagedError, Store

UNREADABLE = "unreadable"


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
        "started": timestamp(),
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
        if plain(before["classifier"][part]) != plain(now["classifier"][part]):
            changed.append(f"classifier {part}: {before['classifier'][part]} → {now['classifier'][part]}")
    if before.get("precision", "float32") != now["precision"]:
        changed.append(f"precision: {before.get('precision', 'float32')} → {now['precision']}")
    unmeasured = {one["image"] for one in before["skipped"] if one["method"] is None}
    unmeasured |= {name for m in (before, now) for name, one in m["images"].items() if UNREADABLE in one["content"]}
    for what in ("images", "methods"):
        for name in now[what].keys() & before[what].keys() - (unmeasured if what == "images" else set()):
            if plain(before[what][name]) != plain(now[what][name]):
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


def plain(value: Any) -> Any:
    """Tuples as JSON knows them."""
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, Iterable) and not isinstance(value, str) else value


def _versions() -> dict[str, str]:
    packages = ("torch", "torchvision", "zennit", "numpy", "pyarrow", "scipy")
    return {
        "faithmap": __version__,
        "python": platform.python_version(),
        **{package: importlib.metadata.version(package) for package in packages},
    }


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({platform.machine()})"


def timestamp() -> str:
    """Now, in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
