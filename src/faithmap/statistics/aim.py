"""Which way is good: decided by the direction of the steps and the order of the regions."""

from __future__ import annotations

from faithmap.errors import CurveError

# (direction, order) → sign of a good AOPC, and what the best method does.
_AIMS = {
    ("remove", "morf"): (1, "removes evidence fastest", "removes evidence faster"),
    ("remove", "lerf"): (-1, "keeps evidence longest", "keeps evidence longer"),
    ("restore", "morf"): (-1, "brings evidence back fastest", "brings evidence back faster"),
    ("restore", "lerf"): (1, "brings evidence back last", "brings evidence back later"),
}


def aim_of(direction: str, order: str) -> tuple[int, str, str]:
    if (str(direction), str(order)) not in _AIMS:
        raise CurveError(f"direction '{direction}' with order '{order}': give 'remove' or 'restore', 'morf' or 'lerf'.")
    return _AIMS[str(direction), str(order)]
