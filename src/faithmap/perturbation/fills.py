"""The perturbation operators: one row a fill in `FILLS`, one function each."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import torch
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor

from faithmap.errors import ImageError, ProtocolError, nearest
from faithmap.images import IMAGENET_MEAN, IMAGENET_STD, PixelSource
from faithmap.randomness import generator

# What a fill is made of: the image, its random numbers, the parameters, and a partner image where it asks for one.
Draw = Callable[[Tensor, np.random.Generator, Mapping[str, float], Tensor], Tensor]


@dataclass(frozen=True)
class FillKind:
    """A row of `FILLS`.

    Attributes:
        text: what it does, in one line.
        source: where it comes from.
        draw: makes the replacement values.
        parameters: name → (default, smallest value); a name such as ``"blur:sigma=5"`` overrides them.
        needs_partner: it takes the pixels of another image of the set.
        imputed: `draw` gives noise only; the values depend on which pixels are left.
    """

    text: str
    source: str
    draw: Draw
    parameters: Mapping[str, tuple[float, float]] = field(default_factory=lambda: MappingProxyType({}))
    needs_partner: bool = False
    imputed: bool = False


def draw_fill(
    fill: str,
    pixels: Float[Tensor, "3 height width"],
    *,
    seed: int,
    image_id: str,
    draw: int,
    method: str | None = None,
    others: PixelSource | None = None,
) -> Float[Tensor, "3 height width"]:
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
    """
    kind, parameters = _parse(fill)
    key = ("fill", seed, image_id, draw) if method is None else ("fill", seed, image_id, draw, method)
    pixels = pixels.cpu()
    partner = _partner(fill, key, image_id, pixels, others) if kind.needs_partner else pixels
    return kind.draw(pixels, generator(*key), parameters, partner)


def check_fill(name: str) -> None:
    """Raise a `ProtocolError` for a fill that is not in `FILLS`, or whose parameters mean nothing."""
    if name != _DATASET_MEAN:
        _parse(name)


def is_imputed(fill: str) -> bool:
    """True for a fill whose values depend on which pixels are left."""
    return _parse(fill)[0].imputed if fill != _DATASET_MEAN else False


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
    if name == "swap":
        written = f"set={images.content_hash()}"
    elif name == "constant":
        written = detail if detail == "mean" else ",".join(f"{parameters[c]:g}" for c in "rgb")
    else:
        written = ",".join(f"{key}={value:g}" for key, value in parameters.items())
    return f"{name}:{written}" if written else name


def _uniform(pixels: Tensor, random: np.random.Generator, parameters: Mapping[str, float], partner: Tensor) -> Tensor:
    return torch.from_numpy(random.random(tuple(pixels.shape), dtype=np.float32))


def _uniform_grey(
    pixels: Tensor, random: np.random.Generator, parameters: Mapping[str, float], partner: Tensor
) -> Tensor:
    mean = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD).view(3, 1, 1)
    return mean + (_uniform(pixels, random, parameters, partner) - 0.5) * std


def _dirichlet(pixels: Tensor, random: np.random.Generator, parameters: Mapping[str, float], partner: Tensor) -> Tensor:
    """Every pixel Σ_j w_j c_j: n colours c_j of the image, w from a symmetric Dirichlet distribution."""
    count, places = int(parameters["n"]), pixels[0].numel()
    colours = pixels.reshape(3, -1).double().numpy()
    chosen = colours[:, random.integers(0, places, (places, count))]
    # Normalised gamma draws are Dirichlet; an underflow to all zeros becomes an even mixture.
    weights = random.standard_gamma(parameters["alpha"], (places, count)) + np.finfo(np.float64).tiny
    mixed = (chosen * weights).sum(2) / weights.sum(1)
    return torch.from_numpy(mixed.astype(np.float32)).view_as(pixels)


def _constant(pixels: Tensor, random: np.random.Generator, parameters: Mapping[str, float], partner: Tensor) -> Tensor:
    colour = (
        torch.tensor([parameters[c] for c in "rgb"], dtype=torch.float64)
        if parameters
        else pixels.double().mean((1, 2))
    )
    return colour.float().view(3, 1, 1).expand_as(pixels).clone()


def _blur(pixels: Tensor, random: np.random.Generator, parameters: Mapping[str, float], partner: Tensor) -> Tensor:
    sigma, radius = parameters["sigma"], int(parameters["radius"])
    blurred = ndimage.gaussian_filter(
        pixels.double().numpy(), (0, sigma, sigma), mode="reflect", radius=(0, radius, radius) if radius else None
    )
    return torch.from_numpy(blurred.astype(np.float32)).clamp(0, 1)


def _noise(pixels: Tensor, random: np.random.Generator, parameters: Mapping[str, float], partner: Tensor) -> Tensor:
    return torch.from_numpy(random.standard_normal(tuple(pixels.shape), dtype=np.float32)) * parameters["noise"]


def _swap(pixels: Tensor, random: np.random.Generator, parameters: Mapping[str, float], partner: Tensor) -> Tensor:
    return partner


_PAPER = "Samek et al. 2017"
FILLS: Mapping[str, FillKind] = MappingProxyType(
    {
        "uniform": FillKind(
            "every pixel and channel its own draw, uniform over the pixel range [0, 1]", _PAPER, _uniform
        ),
        "uniform-grey": FillKind(
            "uniform in ±0.5 after ImageNet normalisation, a low-contrast grey", "the 2021 replication", _uniform_grey
        ),
        "dirichlet": FillKind(
            "every pixel a random mixture of n colours of the image, weights Dirichlet(alpha)",
            f"{_PAPER}, appendix, as read in docs/operators.md",
            _dirichlet,
            MappingProxyType({"n": (3.0, 1.0), "alpha": (1.0, 1e-3)}),
        ),
        "constant": FillKind(
            "one colour: 'constant:mean' of the image, 'constant:dataset-mean', or given as '0.5,0.5,0.5' or '#808080'",
            f"{_PAPER}, appendix",
            _constant,
        ),
        "blur": FillKind(
            "the image blurred by a Gaussian of sigma pixels (cut off at radius; 0: at four sigma)",
            f"{_PAPER}, appendix; Petsiuk et al. 2018",
            _blur,
            MappingProxyType({"sigma": (5.0, 1e-3), "radius": (0.0, 0.0)}),
        ),
        "noisy-linear": FillKind(
            "every removed pixel the weighted mean of its neighbours, solved for all at once, plus Gaussian noise",
            "Rong et al. 2022, ROAD",
            _noise,
            MappingProxyType({"noise": (0.01, 0.0)}),
            imputed=True,
        ),
        "swap": FillKind(
            "the same place of another image of the set", "control; no single source", _swap, needs_partner=True
        ),
    }
)
_DATASET_MEAN = "constant:dataset-mean"
_WHOLE = ("n", "radius")


def _parse(fill: str) -> tuple[FillKind, Mapping[str, float]]:
    """The row of a fill and its parameters, or a `ProtocolError` that says what is wrong."""
    name, colon, detail = fill.partition(":")
    if name not in FILLS:
        raise ProtocolError(f"unknown fill '{name}'{nearest(name, FILLS)} Known: {', '.join(FILLS)}.")
    kind = FILLS[name]
    if name == "constant":
        return kind, _colour(fill, detail)
    if name == "swap" and re.fullmatch(r"set=[0-9a-f]{16}", detail):
        return kind, {}
    parameters = {key: default for key, (default, _) in kind.parameters.items()}
    for part in detail.split(",") if colon else ():
        key, _, text = part.partition("=")
        if key not in parameters:
            known = ", ".join(parameters) or "none"
            raise ProtocolError(f"fill '{fill}' has no parameter '{key}'{nearest(key, parameters)} Known: {known}.")
        parameters[key] = _number(fill, key, text, kind.parameters[key][1])
    return kind, parameters


def _number(fill: str, key: str, text: str, least: float) -> float:
    kind = "whole number" if key in _WHOLE else "number"
    try:
        value = float(int(text)) if key in _WHOLE else float(text)
        if not least <= value < float("inf"):
            raise ValueError
    except ValueError:
        raise ProtocolError(f"fill '{fill}': {key} is '{text}', give a {kind} of at least {least:g}.") from None
    return value


def _colour(fill: str, detail: str) -> Mapping[str, float]:
    """Parameters r, g, b in [0, 1]; none for the image's own mean."""
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
        if len(values) != 3 or not all(0 <= value <= 1 for value in values):
            raise ValueError
    except ValueError:
        raise ProtocolError(
            f"fill '{fill}': '{detail}' is no colour; give 'mean', 'dataset-mean', three numbers in [0, 1] such as "
            "'0.5,0.5,0.5', or '#808080'."
        ) from None
    return dict(zip("rgb", map(float, values), strict=True))


def _partner(fill: str, key: tuple[object, ...], image_id: str, pixels: Tensor, others: PixelSource | None) -> Tensor:
    """The first other image that can be read, in an order that depends on the key and the ids alone."""
    if others is None:
        raise ProtocolError(f"fill '{fill}' takes pixels of another image: pass the image set as `others`.")
    for other in _ranked(key, (name for name in others.ids if name != image_id)):
        try:
            partner = others.read(other).cpu()
        except ImageError:
            continue
        if partner.shape == pixels.shape:
            return partner
    raise ProtocolError(f"fill '{fill}' takes pixels of another image, and the set has none that can be read.")


def _ranked(key: tuple[object, ...], names: Iterator[str]) -> list[str]:
    return sorted(names, key=lambda name: hashlib.sha256(repr((*key, name)).encode("utf-8", "surrogatepass")).digest())
