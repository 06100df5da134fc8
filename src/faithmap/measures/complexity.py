"""How complex a heatmap is: entropy and file size of its picture, and how few pixels carry its relevance.

Of two heatmaps that are equally faithful, the simpler one is easier to read. A picture is drawn the same way for all
methods: relevance is divided by its largest absolute value, cut into 255 levels around 0, and coloured from blue over
white to red; so neither its unit nor a colour bar matters.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from faithmap.errors import HeatmapError

MEASURES = ("entropy", "png", "jpeg", "gini")


def complexity(heatmap: Float[Tensor, "batch height width"]) -> pd.DataFrame:
    """Four measures of complexity, one row a heatmap.

    Args:
        heatmap: signed relevance.
    Returns:
        Columns ``entropy`` (bits a pixel, of the 255 levels of the picture), ``png`` and ``jpeg`` (bytes of the picture
        as a file: zlib level 6; quality 75, no chroma subsampling), ``gini`` (sparsity of the absolute relevance: 0
        when it is the same everywhere, near 1 when one pixel holds it all).
    Raises:
        HeatmapError: a value that is not finite, or a heatmap that is 0 everywhere; `index` says which.
    Source:
        Entropy and file size: Samek et al. 2017, section on heatmap complexity. Gini index: Hurley and Rickard 2009;
        for heatmaps: Chalasani et al. 2020.
    """
    rows = []
    for index, one in enumerate(heatmap.detach().double().cpu().numpy()):
        if not np.isfinite(one).all():
            raise HeatmapError("heatmap has values that are not finite: it has no complexity.", index)
        if not one.any():
            raise HeatmapError("heatmap is 0 everywhere: it has no complexity.", index)
        level = levels(one)
        picture = Image.fromarray(_COLOURS[level + 127])
        rows.append((entropy(level), _bytes(picture, "PNG"), _bytes(picture, "JPEG"), gini(np.abs(one))))
    return pd.DataFrame(rows, columns=list(MEASURES))


def complexity_table(heatmaps: Mapping[str, Float[Tensor, "batch height width"]]) -> pd.DataFrame:
    """Mean complexity per method, simplest PNG first.

    Args:
        heatmaps: method → its heatmaps, of the same images for every method.
    Returns:
        Columns ``method``, ``heatmaps``, and mean and standard error (``entropy``, ``entropy_se``, …) of each measure.
    """
    rows = []
    for method, maps in heatmaps.items():
        try:
            found = complexity(maps)
        except HeatmapError as error:
            raise HeatmapError(f"{method}: {error}", error.index) from error
        row: dict[str, object] = {"method": method, "heatmaps": len(found)}
        for measure in MEASURES:
            values = found[measure].to_numpy(dtype=np.float64)
            row[measure] = values.mean()
            row[f"{measure}_se"] = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
        rows.append(row)
    return pd.DataFrame(rows).sort_values("png", ignore_index=True, kind="stable")


def by_method(heatmaps: Iterable[Mapping[str, Tensor]]) -> dict[str, Float[Tensor, "batch height width"]]:
    """Per-image dictionaries (as `Example.heatmaps`) → one batch a method, of the images that have all methods."""
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


def _palette() -> npt.NDArray[np.uint8]:
    """Blue (−127) over white (0) to red (127)."""
    fade = np.rint(255 * (1 - np.abs(np.arange(-127, 128)) / 127)).astype(np.uint8)
    full = np.full_like(fade, 255)
    negative = np.arange(-127, 128) < 0
    return np.stack([np.where(negative, fade, full), fade, np.where(negative, full, fade)], axis=1)


_COLOURS = _palette()


def _bytes(picture: Image.Image, kind: str) -> int:
    buffer = io.BytesIO()
    settings = {"compress_level": 6} if kind == "PNG" else {"quality": 75, "subsampling": 0}
    picture.save(buffer, kind, **settings)
    return len(buffer.getvalue())
