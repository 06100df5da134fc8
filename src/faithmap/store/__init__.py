"""The run folder: written by `folder`, read and replayed by `reading`."""

from faithmap.store.folder import DAMAGED, HeatmapParts, Store
from faithmap.store.index import Chain
from faithmap.store.manifest import ClassifierRecord, DamagedError, ImageRecord, Manifest
from faithmap.store.records import FORMAT, SCHEMA, Example, Skipped
from faithmap.store.storage import absolute

__all__ = [
    "DAMAGED",
    "FORMAT",
    "SCHEMA",
    "Chain",
    "ClassifierRecord",
    "DamagedError",
    "Example",
    "HeatmapParts",
    "ImageRecord",
    "Manifest",
    "Skipped",
    "Store",
    "absolute",
]
