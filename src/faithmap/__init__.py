"""faithmap: which heatmap can you trust?

The public names are imported when they are first used, so that ``import faithmap`` and the command line start at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from faithmap._version import __version__

if TYPE_CHECKING:
    from faithmap.attribution import heatmaps
    from faithmap.classifiers import Classifier, load_classifier
    from faithmap.errors import FaithmapError
    from faithmap.experiment.evaluate import evaluate
    from faithmap.images import Images, Preprocessing, load_images
    from faithmap.inference import score_curves
    from faithmap.measures.complexity import complexity_table
    from faithmap.measures.randomisation import randomisation_check
    from faithmap.perturbation import draw_fill, perturb, removal_steps
    from faithmap.protocol import Order, Placement, Protocol, Score, Target
    from faithmap.run import Run
    from faithmap.statistics import abpc, aopc, relative_to_random
    from faithmap.store import Example
    from faithmap.studies.operators import operator_table
    from faithmap.studies.running import study
    from faithmap.studies.study import Study

# Public name → the module that defines it. A test compares this table with the imports above.
_MODULES = {
    "Classifier": "classifiers",
    "Example": "store",
    "FaithmapError": "errors",
    "Images": "images",
    "Order": "protocol",
    "Placement": "protocol",
    "Preprocessing": "images",
    "Protocol": "protocol",
    "Run": "run",
    "Score": "protocol",
    "Study": "studies.study",
    "Target": "protocol",
    "abpc": "statistics",
    "aopc": "statistics",
    "complexity_table": "measures.complexity",
    "draw_fill": "perturbation",
    "evaluate": "experiment.evaluate",
    "heatmaps": "attribution",
    "load_classifier": "classifiers",
    "load_images": "images",
    "operator_table": "studies.operators",
    "perturb": "perturbation",
    "randomisation_check": "measures.randomisation",
    "relative_to_random": "statistics",
    "removal_steps": "perturbation",
    "score_curves": "inference",
    "study": "studies.running",
}

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
    "Study",
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
    "study",
]


# Modules that are reached as attributes, as in ``faithmap.statistics.ranking``.
_SUBMODULES = (
    "attribution",
    "classifiers",
    "errors",
    "experiment",
    "images",
    "inference",
    "measures",
    "mosaics",
    "perturbation",
    "plots",
    "protocol",
    "report",
    "statistics",
    "store",
    "studies",
    "testbeds",
    "text",
)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value = getattr(import_module(f"faithmap.{_MODULES[name]}"), name)
    elif name in _SUBMODULES:
        value = import_module(f"faithmap.{name}")
    else:
        raise AttributeError(f"module 'faithmap' has no attribute '{name}'")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
