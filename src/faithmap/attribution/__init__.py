"""Heatmap methods: registry name → (classifier, pixels, targets) → heatmap (B, H, W)."""

from faithmap.attribution.batch import Batch
from faithmap.attribution.compute import batch_heatmaps, heatmaps
from faithmap.attribution.method import Method
from faithmap.attribution.registry import method_table, resolve_methods

__all__ = ["Batch", "Method", "batch_heatmaps", "heatmaps", "method_table", "resolve_methods"]
