"""Figures of a run. Each is a function on the frame of `Run.scores()`, takes Axes to draw into and returns them."""

from faithmap.plots.lines import curves, fig4, fig4_compare
from faithmap.plots.style import save

__all__ = ["curves", "fig4", "fig4_compare", "save"]
