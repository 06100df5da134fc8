"""Heatmap methods: registry name → (classifier, pixels, targets) → heatmap (B, H, W)."""

from faithmap.attribution.registry import Method, heatmaps, random_heatmap, resolve_methods

__all__ = ["Method", "heatmaps", "random_heatmap", "resolve_methods"]
