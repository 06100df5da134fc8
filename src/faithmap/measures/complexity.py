"""How complex a heatmap is: entropy and file size of its picture, and how few pixels carry its relevance.

Of two heatmaps that are equally faithful, the simpler one is easier to read. A picture is drawn the same way for all
methods: relevance is divided by its largest absolute value, cut into 255 levels around 0, and coloured from blue over
white to red; so neither its unit nor a colour bar matters.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from faithmap.checks import as_floats
from faithmap.errors import HeatmapError, shown
from faithmap.foreign import pairs
from faithmap.measures.measure import measure
from faithmap.modes import in_own_modes
from faithmap.perturbation.regions import check_finite

COLUMNS = ("entropy", "png", "jpeg", "gini")


def _checked(heatmap: npt.NDArray[np.float64], index: int) -> npt.NDArray[np.float64]:
    if not np.isfinite(heatmap).all():
        raise HeatmapError("heatmap has values that are not finite: it has no complexity.", index)
    if not heatmap.any():
        raise HeatmapError("heatmap is 0 everywhere: it has no complexity.", index)
    return heatmap


def _each(
    heatmaps: Float[Tensor, "batch height width"], compute: Callable[[npt.NDArray[np.float64]], float]
) -> Float[Tensor, "batch"]:
    maps = heatmaps.detach().double().cpu().numpy()
    return torch.tensor([compute(_checked(one, index)) for index, one in enumerate(maps)], dtype=torch.float64)


@measure(
    "entropy",
    line="entropy of the heatmap's picture in 255 levels",
    source="Samek et al. 2017",
    set="complexity",
    needs="heatmap",
    higher_is_better=False,
    unit="bits per pixel",
)
def picture_entropy(heatmaps: Float[Tensor, "batch height width"]) -> Float[Tensor, "batch"]:
    """−Σ p log₂ p over the levels of the picture, see `levels`."""
    return _each(heatmaps, lambda one: entropy(levels(one)))


@measure(
    "png",
    line="size of the heatmap's picture as a PNG file",
    source="Samek et al. 2017",
    set="complexity",
    needs="heatmap",
    higher_is_better=False,
    unit="bytes",
)
def png_size(heatmaps: Float[Tensor, "batch height width"]) -> Float[Tensor, "batch"]:
    """Bytes of the picture, zlib level 6."""
    return _each(heatmaps, lambda one: _bytes(_picture(levels(one)), "PNG"))


@measure(
    "jpeg",
    line="size of the heatmap's picture as a JPEG file",
    source="Samek et al. 2017",
    set="complexity",
    needs="heatmap",
    higher_is_better=False,
    unit="bytes",
)
def jpeg_size(heatmaps: Float[Tensor, "batch height width"]) -> Float[Tensor, "batch"]:
    """Bytes of the picture, quality 75, no chroma subsampling."""
    return _each(heatmaps, lambda one: _bytes(_picture(levels(one)), "JPEG"))


@measure(
    "gini",
    line="Gini index of the absolute relevance: 0 when it is the same everywhere, near 1 when one pixel holds it all",
    source="Hurley & Rickard 2009; for heatmaps Chalasani et al. 2020",
    set="complexity",
    needs="heatmap",
    higher_is_better=True,
)
def sparsity(heatmaps: Float[Tensor, "batch height width"]) -> Float[Tensor, "batch"]:
    """The Gini index of the absolute relevance, see `gini`."""
    return _each(heatmaps, lambda one: gini(np.abs(one)))


@measure(
    "effective-pixels",
    line="number of pixels over which the absolute relevance is spread, as a fraction of the image",
    source="entropy of the relevance: Bhatt et al. 2020; its exponential: Hill 1973",
    set="complexity",
    needs="heatmap",
    higher_is_better=False,
    unit="fraction of the pixels",
)
def effective_pixels(heatmaps: Float[Tensor, "batch height width"]) -> Float[Tensor, "batch"]:
    """exp(−Σ p ln p) / n, with p the absolute relevance divided by its sum.

    1 when the relevance is the same everywhere, 1/n when one of n pixels holds it all.
    """
    return _each(heatmaps, lambda one: spread(np.abs(one)))


def complexity(heatmap: Float[Tensor, "batch height width"]) -> pd.DataFrame:
    """Four measures of complexity, one row per heatmap.

    Args:
        heatmap: signed relevance.
    Returns:
        Columns ``entropy`` (bits per pixel, of the 255 levels of the picture), ``png`` and ``jpeg`` (bytes of the
        picture as a file: zlib level 6; quality 75, no chroma subsampling), ``gini`` (sparsity of the absolute
        relevance: 0 when it is the same everywhere, near 1 when one pixel holds it all).
    Raises:
        HeatmapError: a value that is not finite, or a heatmap that is 0 everywhere; `index` says which.
    Source:
        Entropy and file size: Samek et al. 2017, section on heatmap complexity. Gini index: Hurley and Rickard 2009;
        for heatmaps: Chalasani et al. 2020.
    """
    of = {"entropy": picture_entropy, "png": png_size, "jpeg": jpeg_size, "gini": sparsity}
    return pd.DataFrame({column: of[column](heatmap).numpy() for column in COLUMNS})


@in_own_modes
def complexity_table(heatmaps: Mapping[str, Float[Tensor, "batch height width"]]) -> pd.DataFrame:
    """Mean complexity per method, simplest PNG first.

    Args:
        heatmaps: method → its heatmaps, of the same images for every method.
    Returns:
        Columns ``method``, ``heatmaps``, and mean and standard error (``entropy``, ``entropy_se``, …) of each measure.
    """
    given_maps = pairs(heatmaps, "heatmaps", HeatmapError) if isinstance(heatmaps, Mapping) else {}
    if not given_maps:
        raise HeatmapError(f"heatmaps is {shown(heatmaps)}: give a mapping from a method to its heatmaps.")
    rows = []
    for method, maps in given_maps.items():
        try:
            given = as_floats(maps, f"the heatmaps of {method}", HeatmapError)
            check_finite(given)
            found = complexity(given)
        except HeatmapError as error:
            raise HeatmapError(f"{method}: {error}", error.index) from error
        row: dict[str, object] = {"method": method, "heatmaps": len(found)}
        for column in COLUMNS:
            values = found[column].to_numpy(dtype=np.float64)
            row[column] = values.mean()
            row[f"{column}_se"] = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
        rows.append(row)
    return pd.DataFrame(rows).sort_values("png", ignore_index=True, kind="stable")


def by_method(heatmaps: Iterable[Mapping[str, Tensor]]) -> dict[str, Float[Tensor, "batch height width"]]:
    """Per-image dictionaries (as `Example.heatmaps`) → one batch per method, of the images that have all methods."""
    images = list(heatmaps)
    methods = list(dict.fromkeys(method for one in images for method in one))
    whole = [one for one in images if all(method in one for method in methods)]
    if not whole:
        raise HeatmapError("no image has a heatmap of every method: run with --save-heatmaps, or fewer methods.")
    return {method: torch.stack([one[method] for one in whole]) for method in methods}


def levels(heatmap: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Relevance as one of 255 levels, −127 … 127, 0 for no relevance."""
    level: npt.NDArray[np.int64] = np.rint(heatmap / np.abs(heatmap).max() * 127).astype(np.int64)
    return level


def entropy(level: npt.NDArray[np.int64]) -> float:
    """−Σ p log₂ p over the levels that occur, in bits."""
    p = np.unique(level, return_counts=True)[1] / level.size
    return float(-(p * np.log2(p)).sum())


def gini(weight: npt.NDArray[np.float64]) -> float:
    """Σ_i (2i − n − 1) w_(i) / (n Σ w) over the n weights in ascending order; 0 … 1 − 1/n."""
    ascending = np.sort(weight, axis=None)
    ascending = ascending / ascending[-1]  # so that relevance near 1e-29 does not underflow
    n = ascending.size
    rank = 2.0 * np.arange(1, n + 1) - n - 1
    return float((rank * ascending).sum() / (n * ascending.sum()))


def spread(weight: npt.NDArray[np.float64]) -> float:
    """exp(−Σ p ln p) / n of n weights p that sum to one."""
    p = weight / weight.max()
    p = p[p > 0] / p.sum()
    return float(np.exp(-(p * np.log(p)).sum()) / weight.size)


def _palette() -> npt.NDArray[np.uint8]:
    """Blue (−127) over white (0) to red (127)."""
    fade = np.rint(255 * (1 - np.abs(np.arange(-127, 128)) / 127)).astype(np.uint8)
    full = np.full_like(fade, 255)
    negative = np.arange(-127, 128) < 0
    return np.stack([np.where(negative, fade, full), fade, np.where(negative, full, fade)], axis=1)


_COLOURS = _palette()


def _picture(level: npt.NDArray[np.int64]) -> Image.Image:
    return Image.fromarray(_COLOURS[level + 127])


def _bytes(picture: Image.Image, kind: str) -> int:
    buffer = io.BytesIO()
    settings = {"compress_level": 6} if kind == "PNG" else {"quality": 75, "subsampling": 0}
    picture.save(buffer, kind, **settings)
    return len(buffer.getvalue())
