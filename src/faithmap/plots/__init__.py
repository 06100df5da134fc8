"""Figures of a run. Each is a function on the frame of `Run.scores()`, takes Axes to draw into and returns them."""

from faithmap.plots.lines import curves, fig4, fig4_compare
from faithmap.plots.pictures import heatmaps, steps
from faithmap.plots.style import save
from faithmap.plots.summaries import agreement, ranking

__all__ = ["agreement", "curves", "fig4", "fig4_compare", "heatmaps", "ranking", "save", "steps"]
