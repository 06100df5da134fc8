"""Measures: a number per image and heatmap method, with a unit and a direction."""
