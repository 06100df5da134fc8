"""Figures of a run. Each is a function on the frame of `Run.scores()`, takes Axes to draw into and returns them."""

from faithmap.plots.lines import curves, fig4, fig4_compare
from faithmap.plots.matrices import reliability, scorecard, study
from faithmap.plots.pictures import heatmaps, steps
from faithmap.plots.registry import FIGURES, draw, figure
from faithmap.plots.series import Series, series_of
from faithmap.plots.style import save
from faithmap.plots.summaries import agreement, ranking

__all__ = [
    "FIGURES",
    "Series",
    "agreement",
    "curves",
    "draw",
    "fig4",
    "fig4_compare",
    "figure",
    "heatmaps",
    "ranking",
    "reliability",
    "save",
    "scorecard",
    "series_of",
    "steps",
    "study",
]
