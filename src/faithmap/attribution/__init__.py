"""Heatmap methods: registry name → (classifier, pixels, targets) → heatmap (B, H, W)."""

from faithmap.attribution.batch import Batch
from faithmap.attribution.registry import (
    Method,
    batch_heatmaps,
    heatmaps,
    method_table,
    random_heatmap,
    resolve_methods,
)

__all__ = ["Batch", "Method", "batch_heatmaps", "heatmaps", "method_table", "random_heatmap", "resolve_methods"]
