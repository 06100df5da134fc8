"""Heatmaps of a batch: computed in blocks of a fixed size, and checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from faithmap.attribution.batch import Batch
from faithmap.attribution.method import Method
from faithmap.attribution.registry import as_method
from faithmap.classifiers import Classifier
from faithmap.errors import FaithmapError, HeatmapError, MethodError
from faithmap.text import first_line


def heatmaps(
    classifier: Classifier,
    pixels: Float[Tensor, "batch 3 height width"],
    targets: Int[Tensor, "batch"],
    method: str | Method | Callable[[Tensor, Tensor], Tensor],
    *,
    image_ids: Sequence[str] | None = None,
    seed: int = 0,
) -> Float[Tensor, "batch height width"]:
    """Heatmaps of a batch.

    Args:
        classifier: see `Classifier`.
        pixels: images in [0, 1] at the network's input size.
        targets: the class to explain in each.
        method: a name such as ``"lrp-epsilon:0.01"``, a `Method`, or a callable (inputs, targets) → (B, C, H, W) or
            (B, H, W) on normalised inputs.
        image_ids, seed: the key of a method's randomness; by default images are named by their row.
    Returns:
        Signed relevance summed over channels, float32 (float64 for a network in float64), on the images' device.
    Raises:
        MethodError: an unknown method, or one that means nothing on this network.
        HeatmapError: a map that is not finite, of the wrong shape, or whose relevance exploded; `index` says for which
            image.
    Example:
        >>> heatmaps(classifier, pixels, classifier.predict(pixels), "sensitivity:l2").shape
        torch.Size([8, 224, 224])
    """
    method = method if isinstance(method, Method) else as_method(method)
    return batch_heatmaps(method, Batch.of(classifier, pixels, targets, image_ids, seed))


def batch_heatmaps(method: Method, batch: Batch) -> Float[Tensor, "batch height width"]:
    """Heatmaps of a batch, see `heatmaps`; methods that are given the same batch share what they have in common."""
    classifier = batch.classifier
    if method.batching != "whole" and classifier.dtype not in (torch.float32, torch.float64):
        raise MethodError(
            f"{method.name} on {classifier.name}: the network is in {classifier.dtype}, too coarse to order "
            "pixels: give it in float32."
        )
    try:
        found = in_blocks(method, batch)
    except HeatmapError as error:
        raise HeatmapError(f"{method.name}: {error}", error.index) from error
    except MethodError as error:
        raise MethodError(f"{method.name} on {classifier.name}: {error}") from error
    except (torch.cuda.OutOfMemoryError, MemoryError, FaithmapError):
        raise
    except Exception as error:  # a method may be anybody's code
        if "out of memory" in str(error) or "can't allocate memory" in str(error):
            raise
        raise MethodError(f"{method.name} fails on {classifier.name}: {first_line(error)}") from error
    return checked_heatmap(found, batch.pixels, method.name)


def in_blocks(method: Method, batch: Batch) -> Any:
    """Computed in blocks of one fixed size, so that no map depends on the batch it came in.

    Kernels round differently for other batch sizes, and a ReLU or a maximum may then choose another side.
    """
    if method.batching == "whole":
        return method.compute(batch)
    size = 1 if method.batching == "single" else batch.block_size()
    found = []
    for start in range(0, len(batch.pixels), size):
        try:
            found.append(method.compute(batch.rows(start, size))[: len(batch.pixels) - start])
        except HeatmapError as error:
            raise HeatmapError(str(error), None if error.index is None else start + error.index) from error
    return torch.cat(found)


def checked_heatmap(found: Any, pixels: Tensor, name: str) -> Tensor:
    """Channels summed, half precision turned to float32, shape and values checked."""
    if not isinstance(found, Tensor) or not found.is_floating_point():
        kind = f"{found.dtype} tensor" if isinstance(found, Tensor) else type(found).__name__
        raise HeatmapError(f"{name}: returned a {kind}, expected a floating tensor (B, C, H, W) or (B, H, W).")
    size = (len(pixels), *pixels.shape[-2:])
    heatmap = found.detach()
    heatmap = heatmap if heatmap.dtype in (torch.float32, torch.float64) else heatmap.float()
    if heatmap.ndim == 4:
        heatmap = heatmap.sum(1)
    if tuple(heatmap.shape) != size:
        raise HeatmapError(
            f"{name}: heatmap is {tuple(found.shape)} but images are {tuple(pixels.shape)}: attribute at the network's "
            "input size."
        )
    finite = heatmap.isfinite().flatten(1).all(1)
    if not finite.all():
        raise HeatmapError(f"{name}: the heatmap has values that are not finite.", int((~finite).nonzero()[0]))
    return heatmap.to(pixels.device)
