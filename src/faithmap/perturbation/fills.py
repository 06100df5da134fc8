"""The perturbation operators: one function each, declared by `fill`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor

from faithmap.checks import as_fill, as_floats, as_integer, as_pixels, as_text
from faithmap.declarations import Declaration, Declarations, Parameter, integer, number
from faithmap.errors import ProtocolError
from faithmap.foreign import plain_text
from faithmap.images import IMAGENET_MEAN, IMAGENET_STD, PixelSource
from faithmap.modes import in_own_modes
from faithmap.protocol import FUNCTION, FunctionFill
from faithmap.randomness import generator

Pixels = Float[Tensor, "channels height width"]


@dataclass(frozen=True)
class FillKind(Declaration):
    """A fill by name: (pixels, random numbers, **parameters) → replacement values.

    Attributes:
        needs_partner: the function also takes `partner`, the pixels of another image of the set.
        imputed: the function gives noise only; the values depend on which pixels are left.
        dropped: nothing takes the place of what is removed; the function gives what pictures show there.
    """

    needs_partner: bool = False
    imputed: bool = False
    dropped: bool = False


FILLS: Declarations[FillKind] = Declarations("fill", "faithmap.perturbation", ProtocolError, group="faithmap.fills")
_F = TypeVar("_F", bound=Callable[..., Tensor])


def fill(
    name: str,
    *,
    line: str,
    source: str,
    parameters: Mapping[str, Parameter] | None = None,
    needs_partner: bool = False,
    imputed: bool = False,
    dropped: bool = False,
) -> Callable[[_F], _F]:
    """Declare a function as a fill.

    Args:
        name: on the command line and in tables: lower case, words joined by hyphens.
        line: what it is, in one line.
        source: the paper.
        parameters: name → parameter (numbers); the function takes them by name.
        needs_partner: the function also takes `partner`, the pixels of another image of the set.
        imputed: the function gives noise only, which is added to what `impute` computes from the pixels that are left.
        dropped: the tokens of removed patches are left out; the function gives what pictures show in their place.
    Returns:
        A decorator that registers the function and returns it unchanged. The function takes the untouched image
        (C, H, W) in [0, 1] and a `numpy.random.Generator`, and returns replacement values of the same shape. Its
        randomness comes from that generator alone.
    Raises:
        ProtocolError: the name is taken.
    Example:
        >>> @fill("mirror", line="the image, left and right exchanged", source="no source")
        ... def mirror(pixels: Tensor, random: np.random.Generator) -> Tensor:
        ...     return pixels.flip(2)
    """

    def declare(function: _F) -> _F:
        kind = FillKind(
            name,
            function,
            line,
            source,
            parameters or {},
            needs_partner=needs_partner,
            imputed=imputed,
            dropped=dropped,
        )
        FILLS.add(kind)
        return function

    return declare


@in_own_modes
def draw_fill(
    fill: str,
    pixels: Float[Tensor, "channels height width"],
    *,
    seed: int,
    image_id: str,
    draw: int,
    method: str | None = None,
    others: PixelSource | None = None,
) -> Float[Tensor, "channels height width"]:
    """Replacement values for one image and one draw, in pixel space, on the CPU.

    For ``"noisy-linear"`` they are the noise that is added to what `impute` computes.

    Args:
        fill: a name in `FILLS`, with parameters, such as ``"blur:sigma=5"``.
        pixels: the untouched image, in [0, 1].
        seed, image_id, draw: the key of the randomness.
        method: None shares the fill among all methods; a name draws one for that method alone.
        others: the image set; ``"swap"`` takes its partner from there.
    Raises:
        ProtocolError: an unknown fill, or one that needs the image set where there is none.
        InputError: an image outside [0, 1], or a key that is none.
    """
    fill = plain_text(fill) if isinstance(fill, str) else fill
    kind, parameters = _parse(fill)
    image = as_pixels(pixels, dims=(3,)).cpu()
    seed, draw = as_integer(seed, "seed", 0, 2**63 - 1), as_integer(draw, "draw", 0, 2**31 - 1)
    image_id = as_text(image_id, "image_id")
    if method is not None:
        method = as_text(method, "method")
    own = () if method is None else (method,)
    key = ("fill", seed, image_id, draw, *own)
    # The order of partners is that of the image, whatever the draw.
    set_key = ("partners", seed, image_id, *own)
    partner = {"partner": _partner(fill, set_key, draw, image_id, image, others)} if kind.needs_partner else {}
    # A copy, because a fill may be anybody's code.
    found = as_floats(kind.function(image.clone(), generator(*key), **parameters, **partner), f"fill '{fill}'")
    return as_fill(found.float(), image)


def fill_parameters(fill: str) -> dict[str, Any]:
    """The parameters of a fill, those at their defaults included."""
    return _parse(fill)[1]


def check_fill(name: str) -> None:
    """Raise a `ProtocolError` for a fill that is not in `FILLS`, or whose parameters mean nothing."""
    if name != _DATASET_MEAN:
        _parse(name)


def is_imputed(fill: str) -> bool:
    """True for a fill whose values depend on which pixels are left."""
    if fill.partition(":")[0] == FUNCTION:
        return True
    return _parse(fill)[0].imputed if fill != _DATASET_MEAN else False


def takes_partner(fill: str) -> bool:
    """True for a fill that takes pixels of another image of the set."""
    return fill.partition(":")[0] != FUNCTION and fill != _DATASET_MEAN and _parse(fill)[0].needs_partner


def is_dropped(fill: str) -> bool:
    """True for the fill that leaves tokens out instead of replacing pixels."""
    return _parse(fill)[0].dropped if fill != _DATASET_MEAN else False


def resolve_fill(fill: str, images: PixelSource) -> str:
    """The same fill with all parameters written out, so that equal fills have equal names.

    ``"constant:dataset-mean"`` becomes the colour of this image set, and ``"swap"`` gets a hash of the set; a run that
    later meets another set is then seen to ask for another fill.

    Raises:
        ProtocolError: an unknown fill, or parameters that mean nothing.
    Example:
        >>> resolve_fill("constant:#ff0000", images)
        'constant:1,0,0'
    """
    if fill == _DATASET_MEAN:
        return "constant:" + ",".join(f"{value:.6g}" for value in images.mean_colour().tolist())
    _, parameters = _parse(fill)
    name, _, detail = fill.partition(":")
    if name == FUNCTION:
        return fill
    if name == "swap":
        written = f"partners={images.content_hash()}"
    elif name == "constant":
        written = detail if detail == "mean" else ",".join(f"{value:g}" for value in parameters["colour"])
    else:
        written = ",".join(f"{key}={value:g}" for key, value in parameters.items())
    return f"{name}:{written}" if written else name


@fill(
    "uniform",
    line="every pixel and channel its own draw, uniform over the pixel range [0, 1]",
    source="Samek et al. 2017",
)
def uniform(pixels: Pixels, random: np.random.Generator) -> Pixels:
    """Uniform noise over [0, 1]."""
    return torch.from_numpy(random.random(tuple(pixels.shape), dtype=np.float32))


@fill(
    "uniform-grey",
    line="uniform in ±0.5 after ImageNet normalisation, a low-contrast grey",
    source="the 2021 replication",
)
def uniform_grey(pixels: Pixels, random: np.random.Generator) -> Pixels:
    """Uniform noise around the mean colour of ImageNet."""
    if len(pixels) != 3:
        raise ProtocolError(f"fill 'uniform-grey' is for RGB images, these have {len(pixels)} channels.")
    mean = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD).view(3, 1, 1)
    return mean + (uniform(pixels, random) - 0.5) * std


@fill(
    "dirichlet",
    line="every pixel a random mixture of n colours of the image, weights Dirichlet(alpha)",
    source="Samek et al. 2017, appendix, as read in docs/operators.md",
    parameters={"n": Parameter(3, integer(low=1, high=64)), "alpha": Parameter(1.0, number(low=1e-3, high=1e6))},
)
def dirichlet(pixels: Pixels, random: np.random.Generator, *, n: int, alpha: float) -> Pixels:
    """Every pixel Σ_j w_j c_j: n colours c_j of the image, w from a symmetric Dirichlet distribution."""
    places = pixels[0].numel()
    colours = pixels.flatten(1).double().numpy()
    chosen = colours[:, random.integers(0, places, (places, n))]
    # Normalised gamma draws are Dirichlet; an underflow to all zeros becomes an even mixture.
    weights = random.standard_gamma(alpha, (places, n)) + np.finfo(np.float64).tiny
    mixed = (chosen * weights).sum(2) / weights.sum(1)
    return torch.from_numpy(mixed.astype(np.float32)).view_as(pixels)


@fill(
    "constant",
    line="one colour: 'constant:mean' of the image, 'constant:dataset-mean', or given as '0.5,0.5,0.5' or '#808080'",
    source="Samek et al. 2017, appendix",
)
def constant(pixels: Pixels, random: np.random.Generator, *, colour: tuple[float, ...] | None = None) -> Pixels:
    """One colour; None is the image's mean."""
    values = pixels.double().mean((1, 2)) if colour is None else torch.tensor(colour, dtype=torch.float64)
    if len(values) not in (1, len(pixels)):
        raise ProtocolError(f"fill 'constant' has {len(values)} numbers for images of {len(pixels)} channels.")
    return values.float().view(-1, 1, 1).expand_as(pixels).clone()


@fill(
    "blur",
    line="the image blurred by a Gaussian of sigma pixels (cut off at radius; 0: at four sigma)",
    source="Samek et al. 2017, appendix; Petsiuk et al. 2018",
    parameters={
        "sigma": Parameter(5.0, number(low=1e-3, high=250.0)),
        "radius": Parameter(0, integer(low=0, high=1000)),
    },
)
def blur(pixels: Pixels, random: np.random.Generator, *, sigma: float, radius: int) -> Pixels:
    """The image blurred by a Gaussian."""
    blurred = ndimage.gaussian_filter(
        pixels.double().numpy(), (0, sigma, sigma), mode="reflect", radius=(0, radius, radius) if radius else None
    )
    return torch.from_numpy(blurred.astype(np.float32)).clamp(0, 1)


@fill(
    "noisy-linear",
    line="every removed pixel the weighted mean of its neighbours, solved for all at once, plus Gaussian noise",
    source="Rong et al. 2022, ROAD",
    parameters={"noise": Parameter(0.01, number(low=0.0, high=10.0))},
    imputed=True,
)
def noisy_linear(pixels: Pixels, random: np.random.Generator, *, noise: float) -> Pixels:
    """The noise alone; `impute` computes what it is added to."""
    return torch.from_numpy(random.standard_normal(tuple(pixels.shape), dtype=np.float32)) * noise


@fill(
    "drop",
    line="nothing: the tokens of removed patches are left out (vision transformers)",
    source="Jain et al. 2022",
    dropped=True,
)
def drop(pixels: Pixels, random: np.random.Generator) -> Pixels:
    """Black, which pictures show where tokens are missing."""
    return torch.zeros_like(pixels)


@fill("swap", line="the same place of another image of the set", source="control; no single source", needs_partner=True)
def swap(pixels: Pixels, random: np.random.Generator, *, partner: Pixels) -> Pixels:
    """The partner as it is."""
    return partner


@fill(
    "histogram",
    line="every pixel the colour of a pixel of the image, drawn at random",
    source="control; as dirichlet with n=1",
)
def histogram(pixels: Pixels, random: np.random.Generator) -> Pixels:
    """Colours as often as they are in the image, at places that say nothing."""
    places = pixels[0].numel()
    return pixels.flatten(1)[:, torch.from_numpy(random.integers(0, places, places))].view_as(pixels)


def _nothing(pixels: Pixels, random: np.random.Generator) -> Pixels:
    return torch.zeros_like(pixels)


_FUNCTIONS = FillKind(FUNCTION, _nothing, "a function of the image and of what is removed", "your own", imputed=True)
_DATASET_MEAN = "constant:dataset-mean"


def _parse(fill: str) -> tuple[FillKind, dict[str, Any]]:
    """The declaration of a fill and its parameters, or a `ProtocolError` that says what is wrong."""
    if not isinstance(fill, str):
        raise ProtocolError(f"fill is a {type(fill).__name__}: give a name, one of {', '.join(FILLS)}.")
    name, _, detail = fill.partition(":")
    if name == FUNCTION:
        if not isinstance(fill, FunctionFill):
            raise ProtocolError(f"fill '{fill}' is a function, which a run folder does not hold: give it in Python.")
        return _FUNCTIONS, {}
    kind = FILLS.find(name)
    if name == "constant":
        return kind, _colour(fill, detail)
    if name == "swap" and re.fullmatch(r"partners=[0-9a-f]{16}", detail):
        return kind, {}
    return kind, kind.defaults | FILLS.given(kind, fill, detail)


def _colour(fill: str, detail: str) -> dict[str, Any]:
    """The colour in [0, 1]; none for the image's own mean."""
    if detail == "mean":
        return {}
    if detail == "dataset-mean":
        raise ProtocolError(f"fill '{fill}' depends on the image set: name its colour first, with `resolve_fill`.")
    try:
        if detail.startswith("#"):
            if len(detail) != 7:
                raise ValueError
            values = [byte / 255 for byte in bytes.fromhex(detail[1:])]
        else:
            values = [float(part) for part in detail.split(",")]
        if not all(0 <= value <= 1 for value in values):
            raise ValueError
    except ValueError:
        raise ProtocolError(
            f"fill '{fill}': '{detail}' is no colour; give 'mean', 'dataset-mean', one number in [0, 1] per channel "
            "such as '0.5,0.5,0.5', or '#808080'."
        ) from None
    return {"colour": tuple(values)}


def _partner(
    fill: str, key: tuple[object, ...], draw: int, image_id: str, pixels: Tensor, others: PixelSource | None
) -> Tensor:
    """The draw-th other image that can be read, in an order that depends on the key and the ids alone.

    Draws count on through this order, so that no partner comes twice before all have come once.
    """
    if not isinstance(others, PixelSource):
        raise ProtocolError(f"fill '{fill}' takes pixels of another image: pass the image set as `others`.")
    usable: list[str] = []
    for other in _ranked(key, (name for name in others.ids if name != image_id)):
        if others.shape(other) == tuple(pixels.shape):
            usable.append(other)
            if len(usable) > draw:
                break
    if not usable:
        raise ProtocolError(f"fill '{fill}' takes pixels of another image, and the set has none that can be read.")
    return others.read(usable[draw % len(usable)]).cpu()


def _ranked(key: tuple[object, ...], names: Iterator[str]) -> list[str]:
    return sorted(names, key=lambda name: hashlib.sha256(repr((*key, name)).encode("utf-8", "surrogatepass")).digest())
