"""Split a traced network into front and tail."""

from __future__ import annotations

from faithmap.inference.incremental import rearranging  # noqa: F401  declares its operations
from faithmap.inference.incremental.front import Front
from faithmap.inference.incremental.geometry import Pair
from faithmap.inference.incremental.layers import Network
from faithmap.inference.incremental.operations import HANDLERS, rowwise
from faithmap.inference.incremental.tracing import Traced


def cut(traced: Traced, size: Pair, region: int = 9, until: int | None = None) -> Network:
    """Split a traced network into front and tail.

    Args:
        size: rows and columns of the input.
        region: side of the square region that decides where maps change as a whole, in pixels.
        until: the last operation of the graph that may be in the front, by number; by default all that can be.
    """
    return Front(traced, size, region, HANDLERS, rowwise, until).run()
