"""Exact incremental inference: a step recomputes only what its region can reach."""

from faithmap.inference.incremental.costs import LayerCost, NetworkCost
from faithmap.inference.incremental.engine import IncrementalEngine, examine, free_memory

__all__ = ["IncrementalEngine", "LayerCost", "NetworkCost", "examine", "free_memory"]
