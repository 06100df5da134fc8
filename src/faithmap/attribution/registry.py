"""Heatmap methods by name: what a name means, and the heatmaps it gives."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from faithmap.attribution import controls, given, gradients, lrp, perturbing
from faithmap.attribution.batch import Batch
from faithmap.attribution.method import Method, Parameter, choice, number, whole
from faithmap.errors import MethodError, nearest
from faithmap.protocol import RANDOM, Protocol
from faithmap.randomness import random_heatmap


@dataclass(frozen=True)
class Row:
    """A registered method: `faithmap methods` prints `line` and `citation`.

    Attributes:
        function: (batch, **parameters) → relevance or heatmap.
        blocks: see `Method`.
        parameters: the first may be given without its name, as in ``lrp-epsilon:0.01``.
    """

    function: Callable[..., Tensor]
    line: str
    citation: str
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    blocks: Literal["fixed", "single"] = "fixed"


NORM = Parameter("l2", choice("l2", "linf"))
REFERENCE = Parameter("zero", choice("zero", "black"))
SMALL_EPSILON = Parameter(1e-6, number(low=0.0))

METHODS: dict[str, Row] = {
    "lrp-epsilon": Row(
        lrp.lrp_epsilon,
        "LRP, ε-rule in convolutional and linear layers",
        "Bach et al. 2015, PLoS ONE 10(7)",
        {
            "epsilon": Parameter(0.01, number(low=0.0)),
            "start": Parameter("logit", choice("logit", "one")),
            "border": Parameter("kept", choice("kept", "dropped")),
        },
    ),
    "lrp-gamma": Row(
        lrp.lrp_gamma,
        "LRP, γ-rule in convolutional and linear layers",
        "Montavon et al. 2019; for inputs of any sign Andéol et al. 2021",
        {"gamma": Parameter(0.25, number(low=0.0))},
    ),
    "lrp-alpha-beta": Row(
        lrp.lrp_alpha_beta,
        "LRP, αβ-rule (β = α − 1) in convolutional and linear layers",
        "Bach et al. 2015, PLoS ONE 10(7)",
        {"alpha": Parameter(2.0, number(low=1.0))},
    ),
    "lrp-z-plus": Row(
        lrp.lrp_z_plus,
        "LRP, z⁺-rule in convolutional and linear layers",
        "Montavon et al. 2017, Pattern Recognition 65",
    ),
    "lrp-epsilon-plus": Row(
        lrp.lrp_epsilon_plus,
        "LRP, ε-rule in linear layers, z⁺-rule in convolutions",
        "Kohlbrenner et al. 2020",
        {"epsilon": SMALL_EPSILON},
    ),
    "lrp-epsilon-plus-flat": Row(
        lrp.lrp_epsilon_plus_flat,
        "as lrp-epsilon-plus, with the flat rule in the first layer",
        "Kohlbrenner et al. 2020; flat rule Lapuschkin et al. 2019",
        {"epsilon": SMALL_EPSILON},
    ),
    "lrp-epsilon-alpha2-beta1": Row(
        lrp.lrp_epsilon_alpha2_beta1,
        "LRP, ε-rule in linear layers, α2β1-rule in convolutions",
        "Kohlbrenner et al. 2020",
        {"epsilon": SMALL_EPSILON},
    ),
    "excitation-backprop": Row(
        lrp.excitation_backprop,
        "probabilities sent back through excitatory weights",
        "Zhang et al. 2016",
    ),
    "deconvolution": Row(
        gradients.deconvolution,
        "signal sent back through ReLUs that act on the signal; norm over channels",
        "Zeiler & Fergus 2014",
        {"norm": NORM, "start": Parameter("logit", choice("logit", "features"))},
    ),
    "guided-backpropagation": Row(
        gradients.guided_backpropagation,
        "gradient of which ReLUs pass positive values only; norm over channels",
        "Springenberg et al. 2015",
        {"norm": NORM},
    ),
    "sensitivity": Row(
        gradients.sensitivity,
        "gradient of the class logit; norm over channels",
        "Simonyan et al. 2014",
        {"norm": NORM},
    ),
    "gradient-x-input": Row(
        gradients.gradient_x_input,
        "gradient of the class logit times the input",
        "Shrikumar et al. 2016",
    ),
    "integrated-gradients": Row(
        gradients.integrated_gradients,
        "gradient averaged on the line from a reference to the input, times their difference",
        "Sundararajan et al. 2017",
        {"n": Parameter(50, whole(low=1)), "reference": REFERENCE},
        "single",
    ),
    "smoothgrad": Row(
        gradients.smoothgrad,
        "gradient averaged over noisy copies of the input; norm over channels",
        "Smilkov et al. 2017",
        {"n": Parameter(25, whole(low=1)), "sigma": Parameter(0.15, number(low=0.0)), "norm": NORM},
        "single",
    ),
    "deeplift": Row(
        gradients.deeplift,
        "contributions to the change from a reference, rescale rule",
        "Shrikumar et al. 2017",
        {"reference": REFERENCE},
    ),
    "grad-cam": Row(
        gradients.grad_cam,
        "last feature maps weighted by their mean gradients, enlarged",
        "Selvaraju et al. 2017",
    ),
    "occlusion": Row(
        perturbing.occlusion,
        "fall of the class logit behind a sliding window",
        "Zeiler & Fergus 2014",
        {"size": Parameter(32, whole(low=1)), "stride": Parameter(16, whole(low=1))},
        "single",
    ),
    "rise": Row(
        perturbing.rise,
        "random masks weighted by the class probability behind them",
        "Petsiuk et al. 2018",
        {
            "n": Parameter(1000, whole(low=1)),
            "cells": Parameter(7, whole(low=1)),
            "p": Parameter(0.5, number(0.01, 0.99)),
        },
        "single",
    ),
    "kernelshap": Row(
        perturbing.kernelshap,
        "Shapley values of segments, by weighted regression over coalitions",
        "Lundberg & Lee 2017",
        {
            "n": Parameter(500, whole(low=2)),
            "segments": Parameter(50, whole(low=2)),
            "shape": Parameter("slic", choice("slic", "grid")),
        },
        "single",
    ),
    "centre": Row(
        controls.centre,
        "control: a Gaussian at the centre of the image",
        "Judd et al. 2009 (centre bias)",
        {"sigma": Parameter(0.25, number(low=0.001))},
    ),
    "edge": Row(
        controls.edge,
        "control: Sobel edges of the image",
        "Adebayo et al. 2018 (edge detector)",
    ),
    "brightness": Row(
        controls.brightness,
        "control: brightness of the image",
        "luma, ITU-R BT.601",
    ),
}

# Whose first parameter is always part of the name.
FIRST_SHOWN = {"lrp-epsilon", "lrp-gamma", "lrp-alpha-beta", "deconvolution", "guided-backpropagation", "sensitivity"}
# Other names of methods.
ALIASES = {"lrp-alpha2-beta1": "lrp-alpha-beta:2", "lrp-alpha1-beta0": "lrp-alpha-beta:1"}

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


def _random(batch: Batch) -> Tensor:
    size = batch.pixels.shape[-2:]
    return torch.stack([random_heatmap(size, seed=batch.seed, image_id=name, draw=0) for name in batch.image_ids])


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
        for name in split_names(methods):
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
    """Name with parameters and their defaults, one line, and citation of every method."""
    rows = []
    for name, row in METHODS.items():
        first = name in FIRST_SHOWN
        shown = [
            _text(p.default) if place == 0 and first else f"{key}={_text(p.default)}"
            for place, (key, p) in enumerate(row.parameters.items())
        ]
        rows.append((f"{name}:{','.join(shown)}" if shown else name, row.line, row.citation))
    return [*rows, (RANDOM, "random order, drawn anew for each draw; the reference of every run", "Samek et al. 2017")]


def split_names(text: str) -> list[str]:
    """Names between commas; ``n=25,sigma=0.1`` goes with the name before it.

    Example:
        >>> split_names("smoothgrad:n=25,sigma=0.1,random")
        ['smoothgrad:n=25,sigma=0.1', 'random']
    """
    names: list[str] = []
    for piece in (part.strip() for part in text.split(",")):
        if names and "=" in piece.split(":")[0]:
            names[-1] += f",{piece}"
        elif piece:
            names.append(piece)
    if not names:
        raise MethodError("no method was given: give a name such as 'lrp-epsilon:0.01', or the set 'fig4'.")
    return names


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
    base, _, rest = ALIASES.get(text, text).partition(":")
    if base == RANDOM and not rest:
        return Method(RANDOM, {"method": RANDOM}, _random)
    if base not in METHODS:
        known = [*METHODS, *ALIASES, *SETS, RANDOM]
        raise MethodError(f"unknown method '{text}'{nearest(base, known)} Known: {', '.join(known)}.")
    row = METHODS[base]
    given = _parameters(text, row, defaults.get(base, ""))
    usual = {key: parameter.default for key, parameter in row.parameters.items()} | given
    said = _parameters(text, row, rest)
    values = usual | said
    first = next(iter(row.parameters), None)
    lone = base in FIRST_SHOWN
    shown = [_text(values[first])] if first is not None and lone else []
    shown += [f"{key}={_text(values[key])}" for key in row.parameters if key in said and not (lone and key == first)]
    name = f"{base}:{','.join(shown)}" if shown else base
    return Method(name, {"method": base, "parameters": values}, partial(row.function, **values), row.blocks)


def _parameters(text: str, row: Row, rest: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for place, piece in enumerate(rest.split(",") if rest else []):
        key, equals, value = piece.partition("=")
        if not equals:
            if place > 0 or not row.parameters:
                raise MethodError(f"'{text}': '{piece}' is not understood: write parameters as name=value.")
            key, value = next(iter(row.parameters)), piece
        if key not in row.parameters:
            known = ", ".join(row.parameters) or "none"
            raise MethodError(f"'{text}' has no parameter '{key}'{nearest(key, row.parameters)} Known: {known}.")
        try:
            values[key] = row.parameters[key].check(value)
        except ValueError as error:
            expected = str(error) if "could not convert" not in str(error) else "a number"
            raise MethodError(f"'{text}': {key} is {value!r}, expected {expected}.") from None
    return values


def _text(value: Any) -> str:
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def _from_callable(function: Any) -> Method:
    named = function if hasattr(function, "__qualname__") else type(function)
    name = str(named.__qualname__)
    spec = {"callable": f"{named.__module__}.{name}"}
    return Method(name.replace("<locals>.", ""), spec, given.from_callable(function), blocks="whole")


def _from_heatmaps(source: Any) -> Method:
    """Heatmaps that are there already."""
    if isinstance(source, Mapping):
        found, digest = given.from_arrays(source)
        return Method("arrays", {"heatmaps": digest}, found, blocks="whole")
    path = Path(source)
    found, digest = given.from_path(path)
    return Method(path.stem, {"heatmaps": digest}, found, blocks="whole")
