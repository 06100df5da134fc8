"""Measures by name: what a name, a set, a callable or another tool's metric stands for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial, update_wrapper
from typing import Any

from faithmap.checks import DEEPEST, as_text
from faithmap.declarations import split_names
from faithmap.errors import MeasureError
from faithmap.foreign import entries, pairs, plain_text
from faithmap.measures.adapters import foreign
from faithmap.measures.measure import MEASURES, SETS, Measure, MeasureKind


def resolve_measures(measures: Any) -> list[Measure]:
    """What was asked for, as measures, each once.

    Args:
        measures: a name such as ``"infidelity:n=50"``, the name of a set, names with commas between them, a `Measure`,
            a mapping name → callable, a metric of Quantus or captum, or a list of these; None is none.
    Raises:
        MeasureError: an unknown name, a parameter that cannot be, or two measures of one name.
    """
    found: dict[str, Measure] = {}
    for one in _flat(measures):
        if one.name in found and found[one.name].spec != one.spec:
            raise MeasureError(f"two measures are called '{one.name}': give each its own name.")
        found[one.name] = one
    return list(found.values())


def measure_table() -> list[dict[str, str]]:
    """One row per known measure: set, name with its parameters, arrow, unit, line, cost and source."""
    rows = []
    for kind in sorted(MEASURES.values(), key=lambda kind: (SETS.index(kind.set), kind.name)):
        rows.append(
            {
                "set": kind.set,
                "name": kind.written(kind.defaults),
                "better": "↑" if kind.higher_is_better else "↓",
                "unit": kind.unit,
                "line": kind.line,
                "cost": kind.cost,
                "source": kind.source,
            }
        )
    return rows


def members(name: str) -> list[str]:
    """The measures that the name of a set stands for."""
    return [kind.name for kind in MEASURES.values() if kind.set == name and kind.in_set]


def parse_measure(text: str) -> Measure:
    """A measure from its name and parameters.

    Raises:
        MeasureError: an unknown measure or parameter (the nearest is proposed), or a value that cannot be.
    """
    base, _, rest = text.partition(":")
    kind = MEASURES.find(base, *SETS)
    said = MEASURES.given(kind, text, rest)
    values = kind.defaults | said
    return of_kind(kind, kind.written(values, said), values)


def of_kind(kind: MeasureKind, name: str, values: Mapping[str, Any]) -> Measure:
    """A measure of a kind, with its parameters."""
    function = partial(kind.function, **values) if values else kind.function
    return Measure(
        name=name,
        line=kind.line,
        unit=kind.unit,
        higher_is_better=kind.higher_is_better,
        source=kind.source,
        set=kind.set,
        needs=kind.needs,
        spec={"measure": kind.name, "parameters": dict(values)},
        drawn=kind.drawn,
        applies=kind.applies,
        function=update_wrapper(function, kind.function) if values else function,
        forward=kind.forward,
        heatmaps=kind.heatmaps,
    )


def _flat(measures: Any, depth: int = 0) -> Iterable[Measure]:
    if measures is None:
        return
    if depth > DEEPEST:
        raise MeasureError("measures is a list in itself, or in too many others: give a plain list.")
    if isinstance(measures, str):
        names = split_names(plain_text(measures))
        if not names:
            raise MeasureError(f"no measure was given: give a name such as 'infidelity', or a set: {', '.join(SETS)}.")
        for name in names:
            yield from map(parse_measure, members(name) if name in SETS else [name])
    elif isinstance(measures, Measure):
        yield measures
    elif isinstance(measures, Mapping):
        for name, one in pairs(measures, "measures", MeasureError).items():
            found = list(_flat(one, depth + 1))
            if len(found) != 1:
                raise MeasureError(f"'{name}' stands for {len(found)} measures, expected one.")
            yield replace(found[0], name=as_text(str(name), "the name of a measure", MeasureError))
    elif callable(measures):
        yield foreign(measures)
    elif isinstance(measures, list | tuple | Iterator):
        for one in entries(measures, "measures", MeasureError):
            yield from _flat(one, depth + 1)
    else:
        raise MeasureError(
            f"a measure is a name, a callable or a metric of Quantus or captum; received {type(measures).__name__}."
        )
