"""Exact incremental inference: a step recomputes only what its region can reach."""

from faithmap.inference.incremental.costs import LayerCost, NetworkCost
from faithmap.inference.incremental.engine import IncrementalEngine, examine

__all__ = ["IncrementalEngine", "LayerCost", "NetworkCost", "examine"]
