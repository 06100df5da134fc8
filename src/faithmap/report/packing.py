"""One example as few bytes: the picture, the noise where anything is removed, removal steps and heatmaps.

A browser rebuilds x⁽ᵏ⁾ from them for every method and step. Two runs of bytes, each deflated and in base64, with a dot
between them; H, W and the names of the M methods travel beside them:

    steps     uint16 (M, H, W)      removal steps: all low bytes first, then all high bytes
    .
    picture   uint8 (3, H, W)       planes G, R − G, B − G, each as differences along rows and columns, modulo 256
    heatmaps  int8 (M, H, W)        relevance in ±levels; zeros for a method without one (random orders)
    fills     uint8 (pixels, 3)     RGB, row-major, where a method that uses this fill removes something, or everywhere;
                                    one fill for all methods, or one for each
"""

from __future__ import annotations

import base64
import io
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from jaxtyping import Float
from PIL import Image as PillowImage
from torch import Tensor

from faithmap.images import rgb

# Relevance is shown in ±levels. Noise-like heatmaps hardly deflate, so they get the fewest levels.
_LEVELS = (127, 31, 15)
_SMALL = 22_000
# The colour scale of a heatmap ends at this quantile of |relevance|: single pixels must not make the rest invisible.
SCALE_QUANTILE = 0.995


@dataclass(frozen=True)
class Packed:
    """An example ready for the page.

    Attributes:
        data: as the module says.
        levels: method → the number of levels of its heatmap on either side of zero; 0 without a heatmap.
        shared_fill: one fill for all methods, or one for each.
    """

    data: str
    levels: dict[str, int]
    shared_fill: bool


def pack(
    pixels: Float[Tensor, "channels height width"],
    removal_step: Mapping[str, Tensor],
    heatmaps: Mapping[str, Tensor],
    fills: Sequence[Tensor],
    *,
    whole_fill: bool = False,
    channels: Sequence[int] | None = None,
) -> Packed:
    """Bytes from which every x⁽ᵏ⁾ of an image can be rebuilt to 1/255.

    Args:
        pixels: the untouched image, in [0, 1].
        removal_step: method → (H, W) integers.
        heatmaps: method → (H, W) signed relevance; methods without one are left out.
        fills: one (C, H, W) fill for all methods, or one for each, in the order of `removal_step`.
        whole_fill: keep the fill of all pixels, also of those that are never replaced.
        channels: which are shown; see `faithmap.images.rgb`.
    """
    steps = np.stack([step.cpu().numpy() for step in removal_step.values()]).astype("<u2")
    shared = len(fills) == 1
    removed = [(steps > 0).any(0)] if shared else list(steps > 0)
    if whole_fill:
        removed = [np.ones_like(mask) for mask in removed]
    levels, maps = {}, []
    for method, step in removal_step.items():
        if method in heatmaps:
            levels[method], quantised = quantise(heatmaps[method].double().cpu().numpy())
            maps.append(quantised.tobytes())
        else:
            levels[method] = 0
            maps.append(bytes(step.numel()))
    places = (steps & 255).astype(np.uint8).tobytes() + (steps >> 8).astype(np.uint8).tobytes()
    colours = b"".join(
        [
            _differences(to_bytes(pixels, channels)).tobytes(),
            *maps,
            *(to_bytes(fill, channels)[:, mask].T.tobytes() for fill, mask in zip(fills, removed, strict=True)),
        ]
    )
    deflated = (zlib.compress(places, 9), deflate_noise(colours))
    return Packed(".".join(base64.b64encode(part).decode("ascii") for part in deflated), levels, shared)


def deflate_noise(raw: bytes) -> bytes:
    """Deflate without looking for repeats: there are none in noise, and this is thirty times as fast."""
    compressor = zlib.compressobj(6, zlib.DEFLATED, 15, 9, zlib.Z_RLE)
    return compressor.compress(raw) + compressor.flush()


def to_bytes(
    pixels: Float[Tensor, "channels height width"], channels: Sequence[int] | None = None
) -> npt.NDArray[np.uint8]:
    """Pixels in [0, 1] → RGB in 0 … 255, to the nearest; other channels as `rgb` shows them."""
    values: npt.NDArray[np.float64] = rgb(pixels, channels).double().cpu().numpy()
    return np.clip(np.rint(values * 255), 0, 255).astype(np.uint8)


def quantise(heatmap: npt.NDArray[np.float64]) -> tuple[int, npt.NDArray[np.int8]]:
    """Relevance in whole levels of its own scale, with as many levels as stay small."""
    scale = np.quantile(np.abs(heatmap), SCALE_QUANTILE) or np.abs(heatmap).max() or 1.0
    quantised = np.zeros(heatmap.shape, dtype=np.int8)
    for levels in _LEVELS:
        quantised = np.rint(np.clip(heatmap / scale, -1, 1) * levels).astype(np.int8)
        if len(deflate_noise(quantised.tobytes())) <= _SMALL:
            break
    return levels, quantised


def thumbnail(
    pixels: Float[Tensor, "channels height width"], side: int = 112, channels: Sequence[int] | None = None
) -> str:
    """A small JPEG as a data URI."""
    picture = PillowImage.fromarray(to_bytes(pixels, channels).transpose(1, 2, 0).copy())
    picture.thumbnail((side, side))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _differences(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    red, green, blue = rgb
    planes = np.stack([green, red - green, blue - green])
    for axis in (1, 2):
        planes = np.diff(planes, axis=axis, prepend=np.zeros_like(planes.take([0], axis=axis)))
    return planes
