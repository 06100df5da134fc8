"""What is declared: faithmap's own, read from its source files, and what other packages add."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from importlib.metadata import entry_points

from faithmap.declarations import Declaration, Declarations
from faithmap.declared import PACKAGE, declared_in
from faithmap.measures.measure import SETS, MeasureKind


@dataclass(frozen=True)
class Kind:
    """One kind of declarations.

    Attributes:
        title: what a table of them is called.
        room: the package of faithmap that holds them.
        decorator: what declares one.
        group: of the entry points of other packages.
        registry: where they are once imported, as ``"module:NAME"``.
        record: what one is read as.
    """

    title: str
    room: str
    decorator: str
    group: str
    registry: str
    record: type[Declaration] = Declaration

    def listed(self) -> dict[str, list[Declaration]]:
        """Package → its declarations. Imports the registry only where other packages add to it."""
        found = {"faithmap": declared_in(PACKAGE / self.room, self.decorator, self.record)}
        if entry_points(group=self.group):
            registry = self.imported()
            for name, package in registry.packages().items():
                found.setdefault(package, []).append(registry[name])
        return found

    def imported(self) -> Declarations[Declaration]:
        """The registry itself."""
        module, _, name = self.registry.partition(":")
        registry: Declarations[Declaration] = getattr(importlib.import_module(module), name)
        return registry


MEASURES = Kind(
    "Measures", "measures", "measure", "faithmap.measures", "faithmap.measures.measure:MEASURES", MeasureKind
)
KINDS = (
    Kind("Heatmap methods", "attribution", "heatmap_method", "faithmap.methods", "faithmap.attribution.method:METHODS"),
    Kind("Fills", "perturbation", "fill", "faithmap.fills", "faithmap.perturbation.fills:FILLS"),
    MEASURES,
)


def listed_measures() -> list[tuple[str, MeasureKind]]:
    """Package and measure, sorted by set."""
    found = [(package, one) for package, some in MEASURES.listed().items() for one in some]
    measures = [(package, one) for package, one in found if isinstance(one, MeasureKind)]
    return sorted(measures, key=lambda pair: SETS.index(pair[1].set))
