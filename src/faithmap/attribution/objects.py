"""Methods that a user brings: callables, and the objects of captum and zennit with their arguments."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from zennit.attribution import Attributor, identity

from faithmap.attribution.batch import Batch
from faithmap.attribution.method import Method
from faithmap.errors import MethodError
from faithmap.foreign import has_attribute
from faithmap.identity import UNKNOWN, callable_identity, callable_name
from faithmap.randomness import generator

# Of captum's: what draws random numbers or evaluates many variants of an image runs on one image at a time, so that no
# map depends on which images are computed together.
_ALONE = {
    "Occlusion", "FeatureAblation", "ShapleyValues", "ShapleyValueSampling", "Lime", "LimeBase", "KernelShap",
    "GradientShap", "DeepLiftShap", "LayerGradientShap", "LayerDeepLiftShap", "LayerFeatureAblation", "NoiseTunnel",
}  # fmt: skip
_ON_A_COPY = {"LRP", "LayerLRP"}  # they do not leave the network's weights as they were
_GRID = 7  # squares along each side, where features are not given
_REFUSED = {
    "FeaturePermutation": "it exchanges features between the images of a batch, so that a map would depend on which "
    "images are computed together",
    "LayerFeaturePermutation": "it exchanges features between the images of a batch, so that a map would depend on "
    "which images are computed together",
    "LimeBase": "it does not say what is perturbed: give Lime",
}


def from_callable(function: Any, arguments: Mapping[str, Any] | None = None) -> Method:
    """A method from a callable or an object of captum or zennit.

    Args:
        function: (inputs, targets) → heatmaps; or an object with `attribute`; or zennit's attributors.
        arguments: passed on to each call.
    Raises:
        MethodError: an object that cannot explain a class of an image.
    """
    arguments = dict(arguments or {})
    named = partial(function, **arguments) if arguments and callable(function) else function
    found = callable_identity((function, arguments) if arguments else function)
    about = function.func if isinstance(function, partial) else function
    about = about if has_attribute(about, "__qualname__") else type(about)
    spec = {"callable": f"{about.__module__}.{about.__qualname__}", "identity": found.digest}
    if found.unknown is not None:
        spec[UNKNOWN] = found.unknown
    name = callable_name(named)
    if not callable(function) and arguments:
        name = callable_name(partial(_nothing, **arguments)).replace("_nothing", name, 1)
    if isinstance(function, Attributor):
        return Method(name, spec, partial(_zennit, function), batching="whole")
    if has_attribute(function, "attribute"):
        kind = type(function).__name__
        if kind in _REFUSED:
            raise MethodError(f"{kind} is refused: {_REFUSED[kind]}.")
        if "neuron_selector" in inspect.signature(function.attribute).parameters and "neuron_selector" not in arguments:
            raise MethodError(
                f"{kind} explains a neuron, not a class: give it as ({kind}(…), {{'neuron_selector': …}})."
            )
        alone = kind in _ALONE
        return Method(name, spec, partial(_captum, function, arguments, alone), batching="single" if alone else "whole")
    return Method(name, spec, partial(_call, named), batching="whole")


def _nothing() -> None:
    """Stands for an object in `callable_name`."""


def _call(function: Callable[[Tensor, Tensor], Any], batch: Batch) -> Any:
    with torch.enable_grad():
        return function(batch.inputs.clone(), batch.targets.clone())


def _zennit(attributor: Attributor, batch: Batch) -> Tensor:
    """An attributor starts at what it was made with; where it was made with nothing, at 1 for the class logit."""

    def start(output: Tensor) -> Tensor:
        return torch.zeros_like(output).scatter_(1, batch.targets.unsqueeze(1), 1.0)

    inputs = batch.inputs.clone().requires_grad_()
    with torch.enable_grad():
        _, relevance = attributor(inputs, start if attributor.attr_output_fn is identity else None)
    found: Tensor = relevance.detach()
    return found


def _captum(method: Any, arguments: Mapping[str, Any], alone: bool, batch: Batch) -> Any:
    """Attributions to a layer, which are coarser than the image, are summed over channels and enlarged (bilinear)."""
    taken = inspect.signature(method.attribute).parameters
    takes_any = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in taken.values())
    given: dict[str, Any] = {"target": batch.targets.clone()} if "target" in taken or takes_any else {}
    method = copy.deepcopy(method) if type(method).__name__ in _ON_A_COPY else _fresh(method)
    inner = method
    while hasattr(inner, "attribution_method"):  # of NoiseTunnel
        inner = inner.attribution_method
    given |= _defaults(type(inner).__name__, batch)
    given |= arguments
    with torch.enable_grad(), _seeded(batch if alone else None):
        found = method.attribute(batch.inputs.clone().requires_grad_(), **given)
    if isinstance(found, tuple) and len(found) == 1:
        found = found[0]
    size = list(batch.inputs.shape[-2:])
    if isinstance(found, Tensor) and found.ndim == 4 and list(found.shape[-2:]) != size and hasattr(method, "layer"):
        found = F.interpolate(found.sum(1, keepdim=True), size, mode="bilinear", align_corners=False)
    if isinstance(found, Tensor) and found.ndim == 4 and found.shape[0] == 1 < len(batch.inputs):
        raise MethodError("it returned one map for several images: give it return_input_shape=True.")
    return found


def _fresh(method: Any) -> Any:
    """A copy that keeps what a call leaves behind, of the same network: the object stays what it was, and so does its
    identity."""
    memo = {id(one): one for one in _networks(method)}
    return copy.deepcopy(method, memo)


def _networks(method: Any) -> Iterator[nn.Module]:
    """The network that an object of captum explains, held by itself or by another one."""
    for name, value in vars(method).items():
        for one in (value, getattr(value, "__self__", None)):
            if isinstance(one, nn.Module) and name in ("forward_func", "model", "layer"):  # Lime fits one of its own
                yield from one.modules()
        if hasattr(value, "attribute"):  # of NoiseTunnel
            yield from _networks(value)


@contextmanager
def _seeded(batch: Batch | None) -> Any:
    """Inside, random numbers of torch and NumPy belong to the image; afterwards they go on as before."""
    if batch is None:
        yield
        return
    devices = [batch.inputs.device] if batch.inputs.device.type == "cuda" else []
    key = generator("captum", batch.seed, batch.image_ids[0])
    before = np.random.get_state()
    try:
        with torch.random.fork_rng(devices):
            torch.manual_seed(int(key.integers(2**63)))
            np.random.seed(int(key.integers(2**32)))  # captum draws baselines with NumPy's global generator
            yield
    finally:
        np.random.set_state(before)


def _defaults(kind: str, batch: Batch) -> dict[str, Any]:
    """What captum's methods want to be told, where it is not given: windows, features, references."""
    channels, height, width = batch.inputs.shape[1:]
    if kind == "Occlusion":
        window = (channels, max(1, height // _GRID), max(1, width // _GRID))
        return {"sliding_window_shapes": window, "strides": (channels, *(max(1, side // 2) for side in window[1:]))}
    if kind == "ShapleyValues":
        raise MethodError(
            "it counts n! orders of n features: give features, as (ShapleyValues(…), {'feature_mask': …})."
        )
    if kind in ("FeatureAblation", "ShapleyValueSampling", "Lime", "KernelShap"):
        rows, columns = (torch.arange(side, device=batch.inputs.device) * _GRID // side for side in (height, width))
        return {"feature_mask": (rows.unsqueeze(1) * _GRID + columns).repeat(1, channels, 1, 1)}
    if kind in ("GradientShap", "DeepLiftShap", "LayerGradientShap", "LayerDeepLiftShap"):
        return {"baselines": torch.cat([batch.reference("zero")[:1], batch.reference("black")[:1]])}
    return {}
