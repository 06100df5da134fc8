"""Fills whose values depend on which pixels are left: OpenCV's inpainting, and functions that a user brings."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from faithmap.checks import as_fill, as_floats
from faithmap.declarations import Parameter, number
from faithmap.errors import ProtocolError, missing
from faithmap.perturbation.fills import fill, fill_parameters
from faithmap.protocol import FunctionFill
from faithmap.text import first_line

Pixels: TypeAlias = Float[Tensor, "channels height width"]
Removed: TypeAlias = Bool[Tensor, "height width"]
# (untouched image, which pixels are removed) → the image with these replaced.
Imputer: TypeAlias = Callable[[Tensor, Tensor], Tensor]

RADIUS = {"radius": Parameter(3.0, number(low=1, high=100))}
_FLAGS = {"cv2-telea": "INPAINT_TELEA", "cv2-navier-stokes": "INPAINT_NS"}


@fill(
    "cv2-telea",
    line="removed pixels inpainted from their border inwards, in 8 bits, by OpenCV (radius in pixels)",
    source="Telea 2004",
    parameters=RADIUS,
    imputed=True,
)
def cv2_telea(pixels: Pixels, random: np.random.Generator, *, radius: float) -> Pixels:
    """No noise is added to what `inpainted` computes."""
    return torch.zeros_like(pixels)


@fill(
    "cv2-navier-stokes",
    line="removed pixels inpainted along lines of equal brightness, in 8 bits, by OpenCV (radius in pixels)",
    source="Bertalmio et al. 2001",
    parameters=RADIUS,
    imputed=True,
)
def cv2_navier_stokes(pixels: Pixels, random: np.random.Generator, *, radius: float) -> Pixels:
    """No noise is added to what `inpainted` computes."""
    return torch.zeros_like(pixels)


def imputer_of(fill: str) -> Imputer | None:
    """What replaces removed pixels at every step; None for noisy linear imputation and for fills drawn beforehand."""
    if isinstance(fill, FunctionFill):
        return partial(by_function, fill)
    name = fill.partition(":")[0]
    return partial(inpainted, name=name, **fill_parameters(fill)) if name in _FLAGS else None


def inpainted(pixels: Pixels, removed: Removed, *, name: str, radius: float) -> Pixels:
    """The image with its removed pixels inpainted by OpenCV; the others stay as they are.

    Three channels are inpainted together, others one by one. Where nothing is left, all become the mean colour.

    Args:
        pixels: the untouched image.
        removed: which pixels to replace.
        name: ``"cv2-telea"`` or ``"cv2-navier-stokes"``.
        radius: of the neighbourhood, in pixels.
    Raises:
        ProtocolError: OpenCV is not installed.
    """
    if find_spec("cv2") is None:
        raise ProtocolError(missing(f"fill '{name}' needs", "opencv-python-headless", extra="cv2"))
    import cv2

    if bool(removed.all()):
        return pixels.mean((1, 2), keepdim=True).expand_as(pixels).clone()
    mask = removed.cpu().numpy().astype(np.uint8)
    values = (pixels.cpu().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    groups = [values] if values.shape[2] == 3 else [values[:, :, channel] for channel in range(values.shape[2])]
    found = [cv2.inpaint(np.ascontiguousarray(one), mask, radius, getattr(cv2, _FLAGS[name])) for one in groups]
    whole = torch.from_numpy(np.dstack(found)).permute(2, 0, 1).to(pixels) / 255
    return torch.where(removed, whole, pixels)


def by_function(fill: FunctionFill, pixels: Pixels, removed: Removed) -> Pixels:
    """The image with its removed pixels replaced by a function's; the others stay as they are.

    Raises:
        ProtocolError: the function fails, or returns something else than an image of this shape with finite values.
    """
    try:
        found = as_fill(as_floats(fill.function(pixels.clone(), removed.clone()), f"fill '{fill}'"), pixels)
    except Exception as error:  # a fill may be anybody's code
        raise ProtocolError(f"fill '{fill}' fails: {first_line(error)}") from error
    if not found.isfinite().all():
        raise ProtocolError(f"fill '{fill}' returned values that are not finite.")
    return torch.where(removed, found.to(pixels.dtype), pixels)
