"""Heatmap methods by name: what a name, a callable or a file stands for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from faithmap.attribution import given
from faithmap.attribution.method import METHODS, Method
from faithmap.declarations import split_names
from faithmap.errors import MethodError
from faithmap.protocol import RANDOM, Protocol

SETS = {
    "fig4": (
        "lrp-epsilon:0",
        "lrp-epsilon:0.01",
        "lrp-epsilon:100",
        "deconvolution:l2",
        "deconvolution:linf",
        "sensitivity:l2",
        "sensitivity:linf",
        RANDOM,
    )
}


def resolve_methods(methods: Any, protocol: Protocol | None = None) -> list[Method]:
    """What was asked for, as methods; `random` is always among them, last.

    Args:
        methods: a name, a set's name, names with commas between them, a callable, an object of captum or zennit, the
            path of precomputed heatmaps, a `Method`, a mapping name → one of these or a mapping image id → heatmap, or
            a list of these.
        protocol: its `method_defaults` are parameters where the name does not say.
    Raises:
        MethodError: an unknown name, a parameter that cannot be, or two methods of one name.
    """
    defaults = protocol.method_defaults if protocol is not None else {}
    found: dict[str, Method] = {}
    for method in _flat(methods, defaults):
        if method.name in found and found[method.name].spec != method.spec:
            raise MethodError(f"two methods are called '{method.name}': give each its own name.")
        found[method.name] = method
    reference = found.pop(RANDOM, None) or as_method(RANDOM)
    return [*found.values(), reference]


def _flat(methods: Any, defaults: Mapping[str, str]) -> Iterable[Method]:
    if isinstance(methods, str):
        names = split_names(methods)
        if not names:
            raise MethodError("no method was given: give a name such as 'lrp-epsilon:0.01', or the set 'fig4'.")
        for name in names:
            for member in SETS.get(name, (name,)):
                yield as_method(member, defaults)
    elif isinstance(methods, Mapping):
        for name, one in methods.items():
            yield as_method(one, defaults, str(name))
    elif isinstance(methods, Method | os.PathLike) or callable(methods) or hasattr(methods, "attribute"):
        yield as_method(methods, defaults)
    elif isinstance(methods, Iterable):
        for one in methods:
            yield from _flat(one, defaults)
    else:
        yield as_method(methods, defaults)


def method_table() -> list[tuple[str, str, str]]:
    """Name with parameters and their defaults, one line, and source of every method."""
    return [(method.written(method.defaults), method.line, method.source) for method in METHODS.values()]


def as_method(one: Any, defaults: Mapping[str, str] | None = None, name: str | None = None) -> Method:
    """One method from whatever stands for it; `name` is what it is called instead of its own name."""
    if isinstance(one, Method):
        found = one
    elif isinstance(one, os.PathLike | Mapping) or (isinstance(one, str) and given.is_path(one)):
        found = _from_heatmaps(one)
    elif isinstance(one, str):
        found = parse_method(one, defaults or {})
    elif callable(one) or hasattr(one, "attribute"):
        found = _from_callable(one)
    else:
        raise MethodError(
            "a method is a name, a callable, an object of captum or zennit, or heatmaps; "
            f"received {type(one).__name__}."
        )
    if name is None or name == found.name:
        return found
    if name == RANDOM:
        raise MethodError(f"'{RANDOM}' is the reference that every run has: call your method something else.")
    return replace(found, name=name)


def parse_method(text: str, defaults: Mapping[str, str]) -> Method:
    """A method from its name and parameters.

    Raises:
        MethodError: an unknown method or parameter (the nearest is proposed), or a value that cannot be.
    """
    base, _, rest = METHODS.aliases.get(text, text).partition(":")
    method = METHODS.find(base, *SETS)
    if base == RANDOM and not rest:
        return Method(RANDOM, {"method": RANDOM}, method.function)
    said = METHODS.given(method, text, rest)
    values = method.defaults | METHODS.given(method, text, defaults.get(base, "")) | said
    spec = {"method": base, "parameters": values}
    return Method(method.written(values, said), spec, partial(method.function, **values), method.batching)


def _from_callable(function: Any) -> Method:
    named = function if hasattr(function, "__qualname__") else type(function)
    name = str(named.__qualname__)
    spec = {"callable": f"{named.__module__}.{name}"}
    return Method(name.replace("<locals>.", ""), spec, given.from_callable(function), batching="whole")


def _from_heatmaps(source: Any) -> Method:
    """Heatmaps that are there already."""
    if isinstance(source, Mapping):
        found, digest = given.from_arrays(source)
        return Method("arrays", {"heatmaps": digest}, found, batching="whole")
    path = Path(source)
    found, digest = given.from_path(path)
    return Method(path.stem, {"heatmaps": digest}, found, batching="whole")
