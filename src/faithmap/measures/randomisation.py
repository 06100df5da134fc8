"""The model-randomisation check: does a heatmap change when the network forgets what it has learned?

The top layers of a network are re-drawn, from the last one downwards, and the heatmaps of the half-random network are
compared with those of the trained one. A method whose heatmaps stay alike does not explain what was learned.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from jaxtyping import Float, Int
from scipy.stats import rankdata
from torch import Tensor, nn

from faithmap.attribution import Method, heatmaps, resolve_methods
from faithmap.classifiers import Classifier
from faithmap.errors import HeatmapError, InputError, MethodError

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


def randomisation_check(
    classifier: Classifier,
    pixels: Float[Tensor, "batch 3 height width"],
    methods: Any,
    *,
    targets: Int[Tensor, "batch"] | None = None,
    shares: Sequence[float] = SHARES,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> pd.DataFrame:
    """Rank correlation of each heatmap with that of the network with re-drawn top layers.

    Args:
        classifier: the trained network; it is copied, not changed.
        pixels: images in [0, 1]; they are held in memory.
        methods: as in `evaluate`; random orders are left out.
        targets: the class to explain; by default the trained network's prediction. It stays the same all the way.
        shares: how many of the layers with weights are re-drawn, from the last one down; 0 stands for the last alone.
        seed: key of the new weights, and of methods with randomness of their own.
        progress: called with how many (method, share) pairs are done, and of how many.
    Returns:
        One row a method, share and image: ``method``, ``share``, ``layers`` (how many), ``lowest`` (the deepest layer
        re-drawn), ``image`` (row), ``signed`` and ``absolute`` (Spearman's rank correlation of the relevance and of its
        absolute value; NaN where a heatmap is constant or could not be had).
    Raises:
        MethodError: no method but `random`, or one that means nothing on this network.
        InputError: a network without weights, or a share outside 0 … 1.
    Source:
        Adebayo et al. 2018, "Sanity Checks for Saliency Maps": cascading randomisation, rank correlation with and
        without absolute values.
    """
    resolved = [method for method in resolve_methods(methods) if not method.is_random]
    if not resolved:
        raise MethodError("the check needs a heatmap method besides 'random'.")
    names = weighted_layers(classifier.module)
    if not names:
        raise InputError(f"{classifier.name} has no layer with weights: there is nothing to re-draw.")
    for share in shares:
        if not 0 <= share <= 1:
            raise InputError(f"a share of the layers is {share}, expected 0 … 1.")
    classes = classifier.predict(pixels) if targets is None else targets
    total = len(resolved) * (len(shares) + 1)
    trained = {}
    for done, method in enumerate(resolved, start=1):
        trained[method.name] = _maps(classifier, pixels, classes, method, seed)
        progress(done, total)
    rows: list[dict[str, object]] = []
    for place, share in enumerate(shares):
        count = max(1, round(share * len(names)))
        random = redrawn(classifier, count, seed)
        for at, method in enumerate(resolved, start=1):
            found = _maps(random, pixels, classes, method, seed)
            about = {"method": method.name, "share": share, "layers": count, "lowest": names[-count]}
            rows += [about | row for row in _correlations(trained[method.name], found)]
            progress(len(resolved) * (place + 1) + at, total)
    return pd.DataFrame(rows)


def randomisation_table(check: pd.DataFrame) -> pd.DataFrame:
    """Mean rank correlation per method, one column a share of the layers; the most changed first.

    Args:
        check: from `randomisation_check`; the correlation of absolute values is shown.
    """
    wide = check.pivot_table(index="method", columns="share", values="absolute", aggfunc="mean", dropna=False)
    return wide.sort_values(wide.columns[-1], kind="stable").reset_index()


def redrawn(classifier: Classifier, layers: int, seed: int = 0) -> Classifier:
    """A copy whose last `layers` layers with weights are drawn anew, as their constructors draw them.

    Each layer's numbers depend on the seed and its name alone, so that more layers re-drawn keep those of fewer.
    """
    other = copy.copy(classifier)
    other.module = copy.deepcopy(classifier.module).cpu()
    for name in weighted_layers(other.module)[-layers:]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int.from_bytes(hashlib.sha256(repr(("redraw", seed, name)).encode()).digest()[:8], "big"))
            _redraw(other.module.get_submodule(name))
    return other.to(classifier.device)


def weighted_layers(module: nn.Module) -> list[str]:
    """Paths of the submodules that hold parameters of their own, in the order in which the network lists them."""
    return [name for name, one in module.named_modules() if next(one.parameters(recurse=False), None) is not None]


def _redraw(layer: nn.Module) -> None:
    reset = getattr(layer, "reset_parameters", None)
    if callable(reset):
        reset()
        return
    with torch.no_grad():  # a layer of its own kind: the same mean and spread
        for parameter in layer.parameters(recurse=False):
            spread = float(parameter.std()) if parameter.numel() > 1 else 0.0
            parameter.copy_(torch.randn(parameter.shape) * spread + float(parameter.mean()))


def _maps(
    classifier: Classifier, pixels: Tensor, targets: Tensor, method: Method, seed: int
) -> list[npt.NDArray[np.float64] | None]:
    """Heatmaps one by one, flat; None for one that could not be had."""
    return [
        None if one is None else one.double().cpu().numpy().ravel()
        for one in _one_by_one(classifier, pixels, targets, method, seed)
    ]


def _one_by_one(
    classifier: Classifier, pixels: Tensor, targets: Tensor, method: Method, seed: int, block: int = 8
) -> Iterator[Tensor | None]:
    for start in range(0, len(pixels), block):
        rows = slice(start, start + block)
        ids = [str(row) for row in range(len(pixels))[rows]]
        try:
            yield from heatmaps(classifier, pixels[rows], targets[rows], method, image_ids=ids, seed=seed)
        except HeatmapError:
            if len(ids) == 1:
                yield None
                continue
            for row in range(len(pixels))[rows]:
                try:
                    yield heatmaps(
                        classifier, pixels[row, None], targets[row, None], method, image_ids=[str(row)], seed=seed
                    )[0]
                except HeatmapError:
                    yield None


def _correlations(
    trained: Sequence[npt.NDArray[np.float64] | None], random: Sequence[npt.NDArray[np.float64] | None]
) -> Iterator[dict[str, object]]:
    for image, (a, b) in enumerate(zip(trained, random, strict=True)):
        yield {
            "image": image,
            "signed": float("nan") if a is None or b is None else rank_correlation(a, b),
            "absolute": float("nan") if a is None or b is None else rank_correlation(np.abs(a), np.abs(b)),
        }


def rank_correlation(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """Spearman's ρ: the correlation of the ranks, equal values sharing their mean rank; NaN for a constant."""
    first, second = (ranks - ranks.mean() for ranks in (rankdata(a), rankdata(b)))
    scale = np.sqrt((first @ first) * (second @ second))
    return float(first @ second / scale) if scale > 0 else float("nan")
