"""Heatmap methods: a name or a callable → (classifier, pixels, targets) → heatmap (B, H, W)."""

from faithmap.attribution.batch import Batch
from faithmap.attribution.compute import batch_heatmaps, heatmaps, unchanged_network
from faithmap.attribution.method import Method, heatmap_method
from faithmap.attribution.registry import method_table, resolve_methods

__all__ = [
    "Batch",
    "Method",
    "batch_heatmaps",
    "heatmap_method",
    "heatmaps",
    "method_table",
    "resolve_methods",
    "unchanged_network",
]
