"""faithmap: which heatmap can you trust?"""

from faithmap._version import __version__
from faithmap.attribution import heatmaps
from faithmap.classifiers import Classifier, Preprocessing, load_classifier
from faithmap.curves import abpc, aopc, relative_to_random
from faithmap.errors import FaithmapError
from faithmap.inference import score_curves
from faithmap.perturbation import draw_fill, perturb
from faithmap.protocol import Order, Placement, Protocol, Score, Target
from faithmap.regions import removal_steps

__all__ = [
    "Classifier",
    "FaithmapError",
    "Order",
    "Placement",
    "Preprocessing",
    "Protocol",
    "Score",
    "Target",
    "__version__",
    "abpc",
    "aopc",
    "draw_fill",
    "heatmaps",
    "load_classifier",
    "perturb",
    "relative_to_random",
    "removal_steps",
    "score_curves",
]
