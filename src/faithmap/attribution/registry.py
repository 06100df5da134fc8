"""Heatmap methods by name: what a name, a callable or a file stands for."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any, Literal

from faithmap.attribution import given, objects
from faithmap.attribution.method import METHODS, HeatmapMethod, Method
from faithmap.checks import DEEPEST, as_text, one_of
from faithmap.declarations import split_names
from faithmap.errors import MethodError, MethodWarning
from faithmap.files import as_path
from faithmap.foreign import entries, has_attribute, pairs, plain_text
from faithmap.identity import UNKNOWN
from faithmap.protocol import RANDOM, Protocol, as_protocol

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
    ),
    # One of each family, so that a ranking is not one of near-twins.
    "families": (
        "lrp-epsilon:0.01",
        "lrp-epsilon:100",
        "lrp-epsilon-plus",
        "deconvolution:l2",
        "sensitivity:l2",
        "grad-cam",
        "gradient-x-input",
        "edge",
        RANDOM,
    ),
}


def resolve_methods(
    methods: Any, protocol: Protocol | None = None, on_refusal: str | None = None, heatmap_resize: str | None = None
) -> list[Method]:
    """What was asked for, as methods; `random` is always among them, last.

    Args:
        methods: a name, a set's name, names with commas between them, a callable, an object of captum or zennit, one of
            these with its arguments ``(Occlusion(module), {"sliding_window_shapes": (3, 16, 16)})``, the path of
            precomputed heatmaps, a `Method`, a mapping name → one of these or a mapping image id → heatmap, or a list
            of these.
        protocol: its `method_defaults` are parameters where the name does not say; methods that depend on its regions
            or its fill are given it. None: the preset ``"srg"``.
        on_refusal: what happens to a method that means nothing on the network: ``"skip"`` leaves it out, ``"error"``
            ends the run. None: methods of a set are left out, others are an error.
        heatmap_resize: how heatmaps that are there already and have another size become the network's input size:
            ``"nearest"``, ``"bilinear"``, ``"bicubic"`` for maps that cover the input, ``"picture:bilinear"`` and so on
            for maps that cover the whole picture. None refuses them.
    Raises:
        MethodError: an unknown name, a parameter that cannot be, or two methods of one name. Callables of one name
            that are not the same get numbers.
    """
    if on_refusal is not None:
        on_refusal = one_of(on_refusal, "on_refusal", ("skip", "error"), MethodError)
    if heatmap_resize is not None:
        heatmap_resize = one_of(heatmap_resize, "heatmap_resize", given.RESIZES, MethodError)
    protocol = None if protocol is None else as_protocol(protocol)
    found: dict[str, Method] = {}
    for method in _flat(methods, protocol):
        if heatmap_resize is not None and isinstance(method.compute, given.Precomputed):
            spec = {**method.spec, "resize": heatmap_resize}
            method = replace(method, spec=spec, compute=method.compute.resized(heatmap_resize))
        if on_refusal is not None:
            method = replace(method, optional=on_refusal == "skip")
        same = [one for one in found.values() if one.spec == method.spec and one.name.startswith(method.name)]
        if same and UNKNOWN not in method.spec:
            continue
        if method.name in found and "callable" not in method.spec:
            raise MethodError(f"two methods are called '{method.name}': give each its own name.")
        name = next(name for name in _numbered(method.name) if name not in found)
        found[name] = replace(method, name=name)
    for method in found.values():
        if unknown := method.spec.get(UNKNOWN):
            warnings.warn(
                f"method '{method.name}' holds {unknown}, of which nobody can know whether it stays the same: a stored "
                "run cannot be extended by it.",
                MethodWarning,
                stacklevel=2,
            )
    reference = found.pop(RANDOM, None) or as_method(RANDOM)
    return [*found.values(), reference]


def _numbered(name: str) -> Iterator[str]:
    """Names for callables that are called alike: the name, then with 2, 3, …"""
    yield name
    for number in count(2):
        yield f"{name}-{number}"


def _is_object(one: Any) -> bool:
    return callable(one) or has_attribute(one, "attribute")


def _has_arguments(one: Any) -> bool:
    """Whether something is (callable or object, its arguments)."""
    return isinstance(one, tuple) and len(one) == 2 and _is_object(one[0]) and isinstance(one[1], Mapping)


def _flat(methods: Any, protocol: Protocol | None, depth: int = 0) -> Iterable[Method]:
    if depth > DEEPEST:
        raise MethodError("methods is a list in itself, or in too many others: give a plain list.")
    if isinstance(methods, str):
        names = split_names(plain_text(methods))
        if not names:
            raise MethodError("no method was given: give a name such as 'lrp-epsilon:0.01', or the set 'fig4'.")
        for name in names:
            for member in SETS.get(name, (name,)):
                yield replace(as_method(member, protocol), optional=name in SETS)
    elif isinstance(methods, Mapping):
        for name, one in pairs(methods, "methods", MethodError).items():
            yield as_method(one, protocol, as_text(str(name), "the name of a method", MethodError))
    elif isinstance(methods, Method | os.PathLike) or _is_object(methods) or _has_arguments(methods):
        yield as_method(methods, protocol)
    elif isinstance(methods, list | tuple | Iterator):
        for one in entries(methods, "methods", MethodError):
            yield from _flat(one, protocol, depth + 1)
    else:
        yield as_method(methods, protocol)


def method_table() -> list[tuple[str, str, str]]:
    """Name with parameters and their defaults, one line, and source of every method."""
    return [(method.written(method.defaults), method.line, method.source) for method in METHODS.values()]


def as_method(one: Any, protocol: Protocol | None = None, name: str | None = None) -> Method:
    """One method from whatever stands for it; `name` is what it is called instead of its own name."""
    one = plain_text(one) if isinstance(one, str) else one
    if isinstance(one, Method):
        found = one
    elif isinstance(one, os.PathLike | Mapping) or (isinstance(one, str) and given.is_path(one)):
        found = _from_heatmaps(one)
    elif isinstance(one, str):
        found = parse_method(one, protocol)
    elif _is_object(one):
        found = objects.from_callable(one)
    elif _has_arguments(one):
        found = objects.from_callable(*one)
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


def parse_method(text: str, protocol: Protocol | None = None) -> Method:
    """A method from its name and parameters.

    Args:
        protocol: as in `resolve_methods`.
    Raises:
        MethodError: an unknown method or parameter (the nearest is proposed), or a value that cannot be.
    """
    base, _, rest = METHODS.aliases.get(text, text).partition(":")
    method = METHODS.find(base, *SETS)
    if base == RANDOM and not rest:
        return Method(RANDOM, {"method": RANDOM}, method.function)
    usual = protocol.method_defaults.get(base, "") if protocol is not None else ""
    inner = None
    if method.of_another:
        of, rest = _of_another(method, rest)
        inner = parse_method(of or str(method.defaults["of"]), protocol)
        if inner.is_random or METHODS[inner.name.partition(":")[0]].of_another:
            raise MethodError(f"'{text}' is made from '{inner.name}': name a method that computes heatmaps of its own.")
    said = METHODS.given(method, text, rest)
    values = method.defaults | METHODS.given(method, text, usual) | said
    spec: dict[str, Any] = {"method": base, "parameters": values}
    if (package := method.module.partition(".")[0]) != "faithmap":
        spec["package"] = package  # another package's method of this name is another method
    bound = dict(values)
    batching: Literal["fixed", "single", "whole"] = method.batching
    if inner is not None:
        values["of"], bound["of"], batching = inner.name, inner.compute, inner.batching
        said = {"of": inner.name, **said}
        spec["of"] = inner.spec
    if method.reads:
        bound["protocol"] = protocol or Protocol.preset("srg")
        parts = bound["protocol"].to_dict()
        spec["protocol"] = {part: parts[part] for part in method.reads}
    return Method(method.written(values, said), spec, partial(method.function, **bound), batching)


def _of_another(method: HeatmapMethod, rest: str) -> tuple[str, str]:
    """What stands behind the colon: the other method with its parameters, and this method's own, which come last."""
    pieces = rest.split(",") if rest else []
    own: list[str] = []
    while pieces and pieces[-1].partition("=")[0] in method.parameters and len(own) < len(method.parameters) - 1:
        own.insert(0, pieces.pop())
    return ",".join(pieces), ",".join(own)


def _from_heatmaps(source: Any) -> Method:
    """Heatmaps that are there already."""
    if isinstance(source, Mapping):
        found, digest = given.from_arrays(source)
        return Method("arrays", {"heatmaps": digest}, found, batching="whole")
    path = as_path(source, "a method")
    found, digest = given.from_path(path)
    return Method(path.stem, {"heatmaps": digest}, found, batching="whole")
