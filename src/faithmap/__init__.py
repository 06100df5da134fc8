"""faithmap: which heatmap can you trust?"""

from faithmap._version import __version__
from faithmap.attribution import heatmaps
from faithmap.classifiers import Classifier, Preprocessing, load_classifier
from faithmap.complexity import complexity_table
from faithmap.curves import abpc, aopc, relative_to_random
from faithmap.errors import FaithmapError
from faithmap.images import Images, load_images
from faithmap.inference import score_curves
from faithmap.operators import operator_table
from faithmap.perturbation import draw_fill, perturb
from faithmap.protocol import Order, Placement, Protocol, Score, Target
from faithmap.randomisation import randomisation_check
from faithmap.regions import removal_steps
from faithmap.results import Run
from faithmap.run import evaluate
from faithmap.store import Example

__all__ = [
    "Classifier",
    "Example",
    "FaithmapError",
    "Images",
    "Order",
    "Placement",
    "Preprocessing",
    "Protocol",
    "Run",
    "Score",
    "Target",
    "__version__",
    "abpc",
    "aopc",
    "complexity_table",
    "draw_fill",
    "evaluate",
    "heatmaps",
    "load_classifier",
    "load_images",
    "operator_table",
    "perturb",
    "randomisation_check",
    "relative_to_random",
    "removal_steps",
    "score_curves",
]
