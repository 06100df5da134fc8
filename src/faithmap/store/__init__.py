"""The run folder: written by `folder`, read and replayed by `reading`."""

from faithmap.store.folder import DAMAGED, DamagedError, HeatmapParts, Store
from faithmap.store.index import Chain
from faithmap.store.records import FORMAT, SCHEMA, Example, Skipped
from faithmap.store.storage import absolute

__all__ = [
    "DAMAGED",
    "FORMAT",
    "SCHEMA",
    "Chain",
    "DamagedError",
    "Example",
    "HeatmapParts",
    "Skipped",
    "Store",
    "absolute",
]
