"""What a measure is: a number per image and heatmap method, with a unit and a direction. Loads no network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal, TypeVar

from faithmap.declarations import Declaration, Declarations, Parameter
from faithmap.errors import MeasureError

SETS = ("faithfulness", "robustness", "randomisation", "complexity", "localisation")
"""Properties of a heatmap method; each measure belongs to one."""

Needs = Literal["scores", "heatmap", "masks", "network", "method"]
"""What a measure is computed from: the run's scores; the heatmap alone; the heatmap and the mask of the object; the
heatmap and the network; or the method itself, whose heatmaps it computes anew."""


@dataclass(frozen=True)
class Measure:
    """A measure with its parameters.

    Attributes:
        name: canonical, as in tables, such as ``"infidelity:n=50"``.
        line: what it is, in one line.
        unit: of the value; empty for a plain number.
        higher_is_better: the direction, said here and nowhere else.
        source: the paper.
        set: the property that it measures, one of `SETS`.
        needs: see `Needs`.
        spec: plain JSON; all that decides its numbers besides network, images, method and seed.
        drawn: whether it has randomness of its own; otherwise draw 0 is the only one.
        function: what computes it; None for a measure that was read from a run folder.
        applies: heatmap method → why the measure means nothing for it, or None.
        forward, heatmaps: factors of its cost; see `passes`.
    """

    name: str
    line: str
    unit: str
    higher_is_better: bool
    source: str
    set: str
    needs: Needs
    spec: dict[str, Any] = field(compare=False)
    drawn: bool = False
    function: Callable[..., Any] | None = field(default=None, compare=False, repr=False)
    applies: Callable[[Any], str | None] | None = field(default=None, compare=False, repr=False)
    forward: tuple[int | str, ...] = field(default=(0,), compare=False)
    heatmaps: tuple[int | str, ...] = field(default=(0,), compare=False)

    @property
    def arrow(self) -> str:
        """Which way is good: ↑ or ↓."""
        return "↑" if self.higher_is_better else "↓"

    def passes(self, *, layers: int = 1, cells: int = 1, methods: int = 1) -> tuple[int, int]:
        """Cost of one draw on one image: forward passes, for all methods together; and heatmaps, for each method.

        Args:
            layers: of the network, those with weights.
            cells: regions of the grid that an image holds.
            methods: heatmap methods that are measured.
        """
        known = {**self.spec.get("parameters", {}), "layers": layers, "cells": cells, "methods": methods}
        forward, heatmaps = (
            prod(int(known[one]) if isinstance(one, str) else one for one in factors)
            for factors in (self.forward, self.heatmaps)
        )
        return forward, heatmaps

    def to_dict(self) -> dict[str, Any]:
        """All but the function, as plain JSON types: what a run folder keeps, so that reading it loads no measure."""
        return {
            "line": self.line,
            "unit": self.unit,
            "higher_is_better": self.higher_is_better,
            "source": self.source,
            "set": self.set,
            "needs": self.needs,
            "drawn": self.drawn,
            "spec": self.spec,
        }

    @classmethod
    def from_dict(cls, name: str, parts: Mapping[str, Any]) -> Measure:
        """The inverse of `to_dict`; it can be shown, not computed."""
        return cls(name=name, **parts)


@dataclass(frozen=True)
class MeasureKind(Declaration):
    """A measure by name; see `measure` for what its function takes."""

    unit: str = ""
    higher_is_better: bool = True
    set: str = "faithfulness"
    needs: Needs = "heatmap"
    drawn: bool = False
    in_set: bool = True
    applies: Callable[[Any], str | None] | None = None
    forward: tuple[int | str, ...] = (0,)
    heatmaps: tuple[int | str, ...] = (0,)

    @property
    def cost(self) -> str:
        """Passes per image in words, for tables."""
        parts = []
        for factors, what in ((self.forward, "forward"), (self.heatmaps, "heatmaps per method")):
            if factors != (0,):
                parts.append(f"{' × '.join(map(str, factors))} {what}")
        return ", ".join(parts) or "none"


MEASURES: Declarations[MeasureKind] = Declarations(
    "measure", "faithmap.measures", MeasureError, group="faithmap.measures"
)
_F = TypeVar("_F", bound=Callable[..., Any])


def measure(
    name: str,
    *,
    line: str,
    source: str,
    set: str,
    needs: Needs,
    higher_is_better: bool,
    unit: str = "",
    parameters: Mapping[str, Parameter] | None = None,
    drawn: bool = False,
    in_set: bool = True,
    applies: Callable[[Any], str | None] | None = None,
    forward: Sequence[int | str] = (0,),
    heatmaps: Sequence[int | str] = (0,),
) -> Callable[[_F], _F]:
    """Declare a function as a measure.

    What the function takes depends on what it needs, followed by its parameters by name:

    - ``"scores"``: the frame of `Run.scores()` with one order of points, see `scores`; returns image × method;
    - ``"heatmap"``: heatmaps (B, H, W); returns (B,);
    - ``"masks"``: heatmaps (B, H, W) and masks (B, H, W), true on the object; returns (B,);
    - ``"network"``: a `Subject` of one image and the heatmaps of all methods (M, H, W) of it; returns (M,);
    - ``"method"``: a `Subject` and, for each `Method`, its heatmaps by row; returns values, or reasons, by method and
      row. It may compute heatmaps anew.

    Args:
        name: on the command line and in tables: lower case, words joined by hyphens.
        line: what it is, in one line.
        source: the paper.
        set: the property that it measures, one of `SETS`.
        needs: see `Needs`.
        higher_is_better: which way is good.
        unit: of the value.
        parameters: name → parameter.
        drawn: whether it has randomness, keyed by `Subject.generator`.
        in_set: whether the name of the set stands for it as well; False where it says the same as another member.
        applies: heatmap method → why the measure means nothing for it, or None; always None by default.
        forward: factors of the number of forward passes per image: integers, names of parameters, ``"layers"`` (of
            the network), ``"cells"`` (of the grid) or ``"methods"``, where methods do not share their passes.
        heatmaps: factors of the number of heatmaps per image and method.
    Returns:
        A decorator that registers the function and returns it unchanged.
    Raises:
        MeasureError: the name is taken, or the set is unknown.
    Example:
        >>> @measure("peak", line="largest relevance", source="no source", set="complexity", needs="heatmap",
        ...          higher_is_better=True)
        ... def peak(heatmaps: Tensor) -> Tensor:
        ...     return heatmaps.amax((1, 2))
    """
    if set not in SETS:
        raise MeasureError(f"measure '{name}' belongs to set '{set}', expected one of {', '.join(SETS)}.")

    def declare(function: _F) -> _F:
        MEASURES.add(
            MeasureKind(
                name=name,
                function=function,
                line=line,
                source=source,
                parameters=parameters or {},
                unit=unit,
                higher_is_better=higher_is_better,
                set=set,
                needs=needs,
                drawn=drawn,
                in_set=in_set,
                applies=applies,
                forward=tuple(forward),
                heatmaps=tuple(heatmaps),
            )
        )
        return function

    return declare
