"""Scores of all steps: `score_curves` is the public call, `score_chains` the one underneath.

Nothing here knows what a heatmap is: an engine receives images, fills and removal steps, and returns logits.
"""

from faithmap.inference.allocator import tune_allocator
from faithmap.inference.chains import Chains, Engine
from faithmap.inference.incremental import LayerCost, NetworkCost, examine
from faithmap.inference.scoring import ENGINES, make_engine, score_chains, score_curves

__all__ = [
    "ENGINES",
    "Chains",
    "Engine",
    "LayerCost",
    "NetworkCost",
    "examine",
    "make_engine",
    "score_chains",
    "score_curves",
    "tune_allocator",
]
