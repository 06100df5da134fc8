"""Methods that look at scores alone: what the class logit does when parts of the image are hidden.

Hidden is what has the mean colour (0 after normalisation). Images come one by one. A hidden window is one step from
the untouched image, which the incremental engine scores by what it changes; other variants come in batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from faithmap.attribution.batch import Batch, attributable, import_captum
from faithmap.attribution.method import heatmap_method
from faithmap.attribution.variants import VARIANTS, target_logits, variant_scores
from faithmap.declarations import Parameter, choice, integer, number
from faithmap.errors import HeatmapError, MethodError, missing
from faithmap.inference import Chains
from faithmap.randomness import generator

_AT_A_TIME = 256  # regions whose steps are written down together


@heatmap_method(
    "occlusion",
    line="fall of the class logit behind a sliding window",
    source="Zeiler & Fergus 2014",
    parameters={"size": Parameter(32, integer(low=1)), "stride": Parameter(16, integer(low=1))},
    batching="single",
)
def occlusion(batch: Batch, *, size: int, stride: int) -> Float[Tensor, "batch height width"]:
    """Fall of the class logit when a window hides part of the image, averaged over the windows on a pixel.

    Args:
        batch: images and classes.
        size: side of the square window, in pixels.
        stride: step of the window, in pixels; at most `size`, so that every pixel is hidden once.
    """
    channels, height, width = batch.inputs.shape[1:]
    if stride > size or size > min(height, width):
        raise MethodError(
            f"size={size}, stride={stride} leave pixels out of a {height}×{width} image: stride must be at most size, "
            "size at most the image."
        )
    mean = batch.pixels.new_tensor(batch.classifier.mean).view(-1, 1, 1).expand(channels, height, width)
    windows = list(sliding_windows(height, width, size, stride))
    found = []
    for row in range(len(batch.pixels)):
        one = batch.rows(row, 1)
        fall = falls(one, windows, mean)
        total, count = torch.zeros(2, height, width, dtype=torch.float64, device=one.pixels.device)
        for window, value in zip(windows, fall.double(), strict=True):
            total[window] += value
            count[window] += 1
        found.append((total / count).to(batch.inputs.dtype))
    return torch.stack(found)


def sliding_windows(height: int, width: int, size: int, stride: int) -> Iterator[tuple[slice, slice]]:
    """Squares `stride` apart, until every pixel is in one; the last ones end at the border."""
    starts = [range(0, max(length - size, 0) + stride, stride) for length in (height, width)]
    for top, left in product(*starts):
        yield slice(top, min(top + size, height)), slice(left, min(left + size, width))


def falls(
    batch: Batch, regions: Sequence[tuple[slice, slice]], fill: Float[Tensor, "channels height width"]
) -> Float[Tensor, "regions"]:
    """By how much the class logit of an image falls when a region alone is replaced.

    Args:
        batch: one image.
        regions: rows and columns of each region.
        fill: replacement values in pixel space.
    """
    found = []
    for start in range(0, len(regions), _AT_A_TIME):
        some = regions[start : start + _AT_A_TIME]
        zeros = torch.zeros(len(some), dtype=torch.int64, device=batch.pixels.device)
        removal_step = torch.zeros((len(some), *batch.pixels.shape[-2:]), dtype=torch.int32, device=zeros.device)
        for row, region in enumerate(some):
            removal_step[row][region] = 1
        chains = Chains(batch.pixels, fill[None], zeros, zeros, removal_step, batch.targets[zeros], steps=1)
        logit = target_logits(batch, chains)
        found.append(logit[:, 0] - logit[:, 1])
    return torch.cat(found)


@heatmap_method(
    "rise",
    line="random masks weighted by the class probability behind them",
    source="Petsiuk et al. 2018",
    parameters={
        "n": Parameter(1000, integer(low=1)),
        "cells": Parameter(7, integer(low=1, high=256)),
        "p": Parameter(0.5, number(0.01, 0.99)),
    },
    batching="single",
)
def rise(batch: Batch, *, n: int, cells: int, p: float) -> Float[Tensor, "batch height width"]:
    """Mean of random smooth masks, each weighted by the probability of the class behind it, divided by p.

    Args:
        batch: images and classes.
        n: masks.
        cells: side of the coarse grid that is drawn and enlarged.
        p: fraction of the cells that stay visible.
    """
    found = []
    for row, name in enumerate(batch.image_ids):
        one = batch.rows(row, 1)
        draw = generator("rise", batch.seed, name)
        probability_of = variant_scores(one, probability=True)
        total = torch.zeros_like(one.inputs[0, 0])
        for start in range(0, n, VARIANTS):
            count = min(VARIANTS, n - start)
            masks = torch.stack([rise_mask(draw, one.inputs.shape[-2:], cells, p) for _ in range(count)])
            masks = masks.to(one.inputs)
            weight = probability_of(one.inputs * masks.unsqueeze(1))
            total += (weight.view(-1, 1, 1) * masks).sum(0)
        found.append(total / (n * p))
    return torch.stack(found)


def rise_mask(draw: np.random.Generator, size: tuple[int, ...], cells: int, p: float) -> Float[Tensor, "height width"]:
    """A coarse grid of visible (1) and hidden (0) cells, enlarged by bilinear interpolation, randomly shifted."""
    height, width = size
    cell_height, cell_width = -(-height // cells), -(-width // cells)
    grid = torch.from_numpy((draw.random((cells, cells)) < p).astype(np.float32))
    enlarged = ((cells + 1) * cell_height, (cells + 1) * cell_width)
    mask = F.interpolate(grid[None, None], enlarged, mode="bilinear", align_corners=False)[0, 0]
    top, left = int(draw.integers(cell_height)), int(draw.integers(cell_width))
    return mask[top : top + height, left : left + width]


@heatmap_method(
    "kernelshap",
    line="Shapley values of segments, by weighted regression over coalitions",
    source="Lundberg & Lee 2017",
    parameters={
        "n": Parameter(500, integer(low=2)),
        "segments": Parameter(50, integer(low=2, high=1000)),
        "shape": Parameter("slic", choice("slic", "grid")),
    },
    batching="single",
)
def kernelshap(batch: Batch, *, n: int, segments: int, shape: str) -> Float[Tensor, "batch height width"]:
    """Shapley values of segments for the class logit, by captum's KernelSHAP; a pixel has its segment's share.

    Args:
        batch: images and classes.
        n: coalitions.
        segments: about how many.
        shape: ``"slic"`` superpixels, or ``"grid"`` squares.
    """
    captum = import_captum()
    if find_spec("sklearn") is None:
        raise MethodError(missing("needs", "scikit-learn", extra="captum"))
    found = []
    for row, name in enumerate(batch.image_ids):
        one = batch.rows(row, 1)
        labels = segment(one.pixels[0], segments, shape).to(one.inputs.device)
        if int(labels.max()) == 0:
            raise HeatmapError("the whole image is one segment: give more segments, or shape=grid.", row)
        draw = generator("kernelshap", batch.seed, name)
        devices = [one.inputs.device] if one.inputs.device.type == "cuda" else []
        with attributable(one.classifier.module), torch.no_grad(), torch.random.fork_rng(devices):
            torch.manual_seed(int(draw.integers(2**63)))
            values = captum.KernelShap(variant_scores(one)).attribute(
                one.inputs,
                baselines=0,
                feature_mask=labels.expand(1, one.inputs.shape[1], -1, -1),
                n_samples=n,
                perturbations_per_eval=VARIANTS,
            )
        found.append(values[0, 0].to(one.inputs.dtype) / torch.bincount(labels.flatten())[labels])
    return torch.stack(found)


def segment(pixels: Float[Tensor, "channels height width"], count: int, shape: str) -> Int[Tensor, "height width"]:
    """Labels 0, 1, … of about `count` segments."""
    height, width = pixels.shape[-2:]
    if shape == "grid":
        side = max(1, round(count**0.5))
        rows, columns = (torch.arange(length) * side // length for length in (height, width))
        squares: Tensor = rows.unsqueeze(1) * side + columns
        return squares
    if find_spec("skimage") is None:
        raise MethodError(missing("shape=slic needs", "scikit-image", extra="captum"))
    from skimage.segmentation import slic

    labels = slic(pixels.permute(1, 2, 0).double().cpu().numpy(), n_segments=count, start_label=0)
    _, dense = np.unique(labels, return_inverse=True)
    return torch.from_numpy(dense.reshape(height, width).astype(np.int64))
