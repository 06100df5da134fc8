"""Heatmaps of a batch: computed in blocks of a fixed size, and checked."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from faithmap.attribution.batch import Batch
from faithmap.attribution.given import Precomputed
from faithmap.attribution.method import Method
from faithmap.attribution.registry import as_method
from faithmap.checks import as_floats, as_integer, as_pixels, as_targets, as_tensor
from faithmap.classifiers import Classifier, check_classifier
from faithmap.classifiers.watch import left_as_it_was, weights_signature
from faithmap.errors import ClassifierError, EngineWarning, FaithmapError, HeatmapError, MethodError
from faithmap.foreign import attribute
from faithmap.modes import in_own_modes
from faithmap.text import first_line


@in_own_modes
def heatmaps(
    classifier: Classifier,
    pixels: Float[Tensor, "batch channels height width"],
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
        InputError: images outside [0, 1], or targets that are not one class per image.
        MethodError: an unknown method, or one that means nothing on this network.
        HeatmapError: a map that is not finite, of the wrong shape, or whose relevance exploded; `index` says for which
            image.
    Example:
        >>> heatmaps(classifier, pixels, classifier.predict(pixels), "sensitivity:l2").shape
        torch.Size([8, 224, 224])
    """
    classifier = check_classifier(classifier)
    images = as_pixels(pixels)
    method = method if isinstance(method, Method) else as_method(method)
    seed = as_integer(seed, "seed", 0, 2**63 - 1)
    batch = Batch.of(classifier, images, as_targets(targets, len(images), images.device), image_ids, seed)
    with unchanged_network(classifier, [method]):
        return batch_heatmaps(method, batch)


def batch_heatmaps(method: Method, batch: Batch) -> Float[Tensor, "batch height width"]:
    """Heatmaps of a batch, see `heatmaps`; methods that are given the same batch share what they have in common."""
    classifier = batch.classifier
    if method.batching != "whole" and classifier.dtype not in (torch.float32, torch.float64):
        raise MethodError(
            f"{method.name} on {classifier.name}: the network is in {classifier.dtype}, too coarse to order "
            "pixels: give it in float32."
        )
    batch.let_go(but=method.spec.get("method"))
    changed: list[str] = []
    try:
        with left_as_it_was(classifier.module) as changed:
            found = checked_heatmap(computed(method, batch), batch.pixels, method.name)
    finally:  # what it did to the network counts for more than what it says
        check_network(method, classifier, changed)
    return found


def computed(method: Method, batch: Batch) -> Any:
    """What the method returns; whatever goes wrong in it becomes a `MethodError` that names it."""
    classifier, foreign = batch.classifier, is_foreign(method)
    try:
        return in_blocks(method, batch.copied() if foreign else batch)
    except HeatmapError as error:
        raise HeatmapError(f"{method.name}: {error}", error.index) from error
    except MethodError as error:
        raise MethodError(f"{method.name} on {classifier.name}: {error}") from error
    except (torch.cuda.OutOfMemoryError, MemoryError, FaithmapError):
        raise
    except (Exception, SystemExit) as error:  # a method may be anybody's code
        if "out of memory" in str(error) or "can't allocate memory" in str(error):
            raise
        text = f"{method.name} fails on {classifier.name}: {first_line(error)}"
        # Perhaps for one image of the batch only; whoever asked finds out for which.
        raise (HeatmapError(text) if foreign else MethodError(text)) from error


def is_foreign(method: Method) -> bool:
    """Whether a method is other people's code, which is given copies and may fail on single images."""
    function: Any = method.compute
    while isinstance(function, partial):
        function = function.func
    module = attribute(function, "__module__") or type(function).__module__
    return method.batching == "whole" or not str(module).startswith("faithmap.")


@contextmanager
def unchanged_network(classifier: Classifier, methods: Sequence[Method]) -> Iterator[None]:
    """Other people's methods run inside; afterwards every weight is compared with what it was.

    Raises:
        ClassifierError: one of them changed the network.
    """
    names = [
        f"'{method.name}'" for method in methods if is_foreign(method) and not isinstance(method.compute, Precomputed)
    ]
    before = weights_signature(classifier.module) if names else None
    yield
    if names and weights_signature(classifier.module) != before:
        raise ClassifierError(
            f"heatmap method {' or '.join(names)} changed the weights of {classifier.name}: let it work on a copy, "
            "made with copy.deepcopy."
        )


def check_network(method: Method, classifier: Classifier, changed: Sequence[str]) -> None:
    """Name what a method left behind on the network.

    Raises:
        ClassifierError: changed weights or layers; scores computed from now on would be those of another network.
    """
    hooks = [one for one in changed if one.startswith("hooks")]
    if len(hooks) < len(changed):
        what = ", ".join([one for one in changed if one not in hooks][:3])
        raise ClassifierError(
            f"heatmap method '{method.name}' changed the network {classifier.name} ({what}): let it work on a copy, "
            "made with copy.deepcopy."
        )
    if hooks:
        text = f"heatmap method '{method.name}' left hooks on {classifier.name} ({', '.join(hooks[:3])}): removed."
        warnings.warn(text, EngineWarning, stacklevel=3)


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
            # A copy, because the next block may be written where this one is.
            found.append(method.compute(batch.rows(start, size))[: len(batch.pixels) - start].clone())
        except HeatmapError as error:
            raise HeatmapError(str(error), None if error.index is None else start + error.index) from error
    return torch.cat(found)


def checked_heatmap(found: Any, pixels: Tensor, name: str) -> Tensor:
    """Channels summed, half precision turned to float32, shape and values checked; shares memory with nothing."""
    if isinstance(found, np.ndarray):
        found = as_tensor(found, f"the heatmap of {name}", HeatmapError)
    if not isinstance(found, Tensor) or not (found.is_floating_point() or found.is_quantized):
        kind = f"{found.dtype} tensor" if isinstance(found, Tensor) else type(found).__name__
        raise HeatmapError(f"{name}: returned a {kind}, expected a floating tensor (B, C, H, W) or (B, H, W).")
    size = (len(pixels), *pixels.shape[-2:])
    shape = tuple(found.shape)
    heatmap = as_floats(found, f"the heatmap of {name}", HeatmapError)
    if heatmap.ndim == 4:
        heatmap = heatmap.sum(1)
    if tuple(heatmap.shape) != size:
        raise HeatmapError(
            f"{name}: heatmap is {shape} but images are {tuple(pixels.shape)}: attribute at the network's input size."
        )
    finite = heatmap.isfinite().flatten(1).all(1)
    if not finite.all():
        raise HeatmapError(f"{name}: the heatmap has values that are not finite.", int((~finite).nonzero()[0]))
    return heatmap.to(pixels.device).clone()
