"""Heatmap methods: registry name → (classifier, pixels, targets) → heatmap (B, H, W)."""

from faithmap.attribution.registry import Method, heatmaps, method_table, random_heatmap, resolve_methods

__all__ = ["Method", "heatmaps", "method_table", "random_heatmap", "resolve_methods"]
