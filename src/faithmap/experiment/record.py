"""What is asked for, written down."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from faithmap._version import __version__
from faithmap.experiment.executors import Executor
from faithmap.experiment.task import Experiment
from faithmap.images import Images
from faithmap.measures.measure import Measure
from faithmap.store.folder import Store
from faithmap.store.manifest import (
    ClassifierRecord,
    DamagedError,
    ImageRecord,
    Manifest,
    encodable,
    timestamp,
)


def manifest_before(store: Store) -> Manifest | None:
    """What the folder holds already; where its manifest is damaged or gone, what the parts say."""
    try:
        before = store.read_manifest()
    except DamagedError:
        before = None
    return before if before is not None else store.recover_manifest()


def describe(experiment: Experiment, images: Images, executor: Executor, *, command: str | None) -> Manifest:
    """The manifest of a run that starts now."""
    classifier, protocol = experiment.classifier, experiment.protocol
    # Images are pinned: what cannot be read has its reason for a hash, and is named when its turn comes.
    records = {
        image.id: ImageRecord(
            content=image.content_hash(),
            label=experiment.labels[image.id],
            group=image.group,
            target=experiment.targets.get(image.id),
        )
        for image in images
    }
    return Manifest(
        protocol=protocol,
        fingerprint=protocol.fingerprint(),
        classifier=ClassifierRecord(
            name=classifier.name,
            fingerprint=classifier.fingerprint(),
            code=classifier.code(),
            preprocessing=classifier.preprocessing.to_dict(),
            labels=classifier.labels,
            score=classifier.score_kind,
            score_name=classifier.score_name,
            shown_channels=list(classifier.shown_channels) if classifier.shown_channels else None,
        ),
        image_set=images.name,
        group_noun=images.group_noun,
        images=records,
        methods={method.name: method.spec for method in experiment.methods},
        measures={measure.name: measure_record(measure, experiment.masks) for measure in experiment.measures},
        seed=protocol.seed,
        engine=experiment.engine_name,
        batch_size=experiment.batch_size,
        precision=experiment.precision,
        **{"device": _device_name(classifier.device), **executor.describe()},
        versions=_versions(),
        command=encodable(command),
        started=timestamp(),
    )


def measure_record(measure: Measure, masks: Mapping[str, Tensor | str]) -> dict[str, Any]:
    """What the manifest keeps of a measure; of one that needs masks also which."""
    record = measure.to_dict()
    if measure.needs == "masks":
        digest = hashlib.sha256()
        for name, mask in sorted(masks.items()):
            digest.update(f"{name} {mask if isinstance(mask, str) else tuple(mask.shape)} ".encode())
            digest.update(b"" if isinstance(mask, str) else mask.cpu().to(torch.uint8).numpy().tobytes())
        record["spec"] = {**measure.spec, "masks": digest.hexdigest()[:16]}
    return record


def _versions() -> dict[str, str]:
    packages = ("torch", "torchvision", "zennit", "numpy", "pyarrow", "scipy")
    return {
        "faithmap": __version__,
        "python": platform.python_version(),
        **{package: importlib.metadata.version(package) for package in packages},
    }


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({platform.machine()})"
