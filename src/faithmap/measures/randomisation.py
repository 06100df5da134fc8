"""Model randomisation: does a heatmap change when the network forgets what it has learned?

Layers with weights are drawn anew, one after the other in the order in which the network runs them, from the top (the
last layer first) or from the bottom; each layer that was drawn stays so. A method whose heatmaps stay alike does not
explain what was learned. Weights depend on the seed, the draw and the layer's name alone: all images and methods meet
the same networks.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from jaxtyping import Float, Int
from scipy.stats import rankdata
from torch import Tensor, nn

from faithmap.attribution import Batch, Method, resolve_methods
from faithmap.checks import as_integer, as_numbers, as_pixels, as_targets, check_callable
from faithmap.classifiers import Classifier, check_classifier
from faithmap.declarations import Parameter, integer, number
from faithmap.errors import FaithmapError, InputError, MeasureError, MethodError
from faithmap.measures.correlation import correlation, rank_correlation
from faithmap.measures.measure import measure
from faithmap.measures.subject import Subject, heatmaps_by_row, heatmaps_of_methods
from faithmap.modes import in_own_modes

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
BINS = 100
"""Of the histogram of `histogram_entropy`, as in Hedström et al. 2024."""

Maps = Mapping[Method, Mapping[int, Tensor]]
Rows = dict[tuple[str, int], float | str]
_CASCADE = {
    "n": Parameter(1, integer(low=1)),
    "noise": Parameter(0.1, number(low=0.0)),
    "stages": Parameter(0, integer(low=0)),
}


@measure(
    "randomisation-top-down",
    line="rank correlation with the heatmap of the network whose layers are drawn anew from the last one, mean over "
    "the layers",
    source="Adebayo et al. 2018; n > 1: noisy copies averaged, Hedström et al. 2024",
    set="randomisation",
    needs="method",
    higher_is_better=False,
    unit="rank correlation",
    parameters=_CASCADE,
    drawn=True,
    heatmaps=("layers", "n"),
)
def randomisation_top_down(subject: Subject, maps: Maps, *, n: int, noise: float, stages: int) -> Rows:
    """See `cascade`."""
    return cascade(subject, maps, from_top=True, n=n, noise=noise, stages=stages)


@measure(
    "randomisation-bottom-up",
    line="rank correlation with the heatmap of the network whose layers are drawn anew from the first one, mean over "
    "the layers",
    source="Hedström et al. 2024, whose correction of the order it is; n > 1: noisy copies averaged, as there",
    set="randomisation",
    needs="method",
    higher_is_better=False,
    unit="rank correlation",
    parameters=_CASCADE,
    drawn=True,
    heatmaps=("layers", "n"),
)
def randomisation_bottom_up(subject: Subject, maps: Maps, *, n: int, noise: float, stages: int) -> Rows:
    """See `cascade`."""
    return cascade(subject, maps, from_top=False, n=n, noise=noise, stages=stages)


@measure(
    "randomisation-complexity",
    line="relative rise of the heatmap's entropy when all layers are drawn anew",
    source="Hedström et al. 2024 (eMPRT)",
    set="randomisation",
    needs="method",
    higher_is_better=True,
    unit="relative rise",
    drawn=True,
    heatmaps=(1,),
)
def randomisation_complexity(subject: Subject, maps: Maps) -> Rows:
    """(H(random) − H(trained)) / H(trained), with H the entropy of the heatmap's histogram of 100 bins."""
    layers = forward_order(subject.classifier, subject.pixels[:1])
    random = redraw_layers(subject.classifier, layers, subject.seed, subject.draw)
    batch = Batch.of(random, subject.pixels, subject.targets, subject.ids, subject.seed)
    found: Rows = {}
    for method, trained in maps.items():
        for row, (one, other) in _pairs(trained, heatmaps_by_row(method, batch)).items():
            if isinstance(other, Tensor):
                before, after = histogram_entropy(one), histogram_entropy(other)
                found[method.name, row] = (after - before) / before if before > 0 else "its entropy is 0."
            else:
                found[method.name, row] = str(other)
    return found


@measure(
    "random-logit",
    line="rank correlation with the heatmap of another class, drawn at random",
    source="Sixt et al. 2020, with rank correlation instead of SSIM",
    set="randomisation",
    needs="method",
    higher_is_better=False,
    unit="rank correlation",
    drawn=True,
    heatmaps=(1,),
)
def random_logit(subject: Subject, maps: Maps) -> Rows:
    """Spearman's ρ of the signed relevance for the explained class and for another one."""
    with torch.no_grad():
        outputs = subject.classifier(subject.pixels[:1])
    classes = 0 if subject.classifier.score_kind == "custom" else outputs.shape[1]
    if classes < 2:
        raise MeasureError(f"{subject.classifier.name} has one score: there is no other class to explain.")
    others = []
    for row, target in enumerate(subject.targets.tolist()):
        drawn = int(subject.generator("random-logit", row).integers(classes - 1))
        others.append(drawn + (drawn >= target))
    targets = torch.tensor(others, device=subject.targets.device)
    batch = Batch.of(subject.classifier, subject.pixels, targets, subject.ids, subject.seed)
    found: Rows = {}
    for method, trained in maps.items():
        for row, (one, other) in _pairs(trained, heatmaps_by_row(method, batch)).items():
            found[method.name, row] = (
                rank_correlation(_flat(one), _flat(other)) if isinstance(other, Tensor) else str(other)
            )
    return found


def cascade(subject: Subject, maps: Maps, *, from_top: bool, n: int, noise: float, stages: int) -> Rows:
    """Mean, over the stages, of Spearman's ρ of the absolute relevance of the trained and the half-random network.

    Args:
        subject, maps: as for every measure of methods.
        from_top: draw the last layer first.
        n: noisy copies of the image whose heatmaps are averaged, for the trained network as well; 1 takes the image.
        noise: their standard deviation, as a fraction of the image's range.
        stages: how many half-random networks, evenly spread over the layers, the last one with all layers drawn; 0
            takes one for every layer.
    Returns:
        Stages at which a heatmap is constant, or could not be computed, are left out of the mean.
    """
    layers = forward_order(subject.classifier, subject.pixels[:1])
    order = layers[::-1] if from_top else layers
    noisy = [] if n == 1 else [_noisy(subject, row, n, noise) for row in range(len(subject))]
    trained = _averaged(subject, subject.classifier, maps, noisy) if n > 1 else maps
    ranks = {(m.name, row): rankdata(abs(_flat(one))) for m, rows in trained.items() for row, one in rows.items()}
    values: dict[tuple[str, int], list[float]] = {key: [] for key in ranks}
    random = _copied(subject.classifier)
    done = 0
    for count in stage_counts(len(order), stages):
        _redraw_in_place(random, order[done:count], subject.seed, subject.draw)
        done = count
        found = _averaged(subject, random, trained, noisy)
        for method, rows in found.items():
            for row, one in rows.items():
                key = method.name, row
                values[key].append(correlation(ranks[key], rankdata(abs(_flat(one)))))
    outcome: Rows = {}
    for key, each in values.items():
        finite = [value for value in each if value == value]
        outcome[key] = float(np.mean(finite)) if finite else "no network with redrawn layers gives a heatmap."
    return outcome


def stage_counts(layers: int, stages: int) -> list[int]:
    """How many layers are drawn at each stage; the last is all of them."""
    count = layers if stages == 0 else min(stages, layers)
    return [round((at + 1) * layers / count) for at in range(count)]


def _averaged(
    subject: Subject, classifier: Classifier, wanted: Maps, noisy: Sequence[Tensor]
) -> dict[Method, dict[int, Tensor]]:
    """Heatmaps of a network, averaged over noisy copies where there are any; rows that fail are missing."""
    rows, copies = list(range(len(subject))), len(noisy[0]) if noisy else 1
    pixels = torch.cat(list(noisy)) if noisy else subject.pixels
    targets = subject.targets.repeat_interleave(copies)
    ids = [subject.ids[row] for row in rows for _ in range(copies)]
    batch = Batch.of(classifier, pixels, targets, ids, subject.seed)
    every = heatmaps_of_methods(list(wanted), batch)
    found: dict[Method, dict[int, Tensor]] = {}
    for method, maps in wanted.items():
        each = every[method]
        if isinstance(each, FaithmapError):
            found[method] = {}
            continue
        mine = {row: each[row * copies : (row + 1) * copies] for row in rows if row in maps}
        found[method] = {
            row: torch.stack([one for one in some if isinstance(one, Tensor)]).mean(0)
            for row, some in mine.items()
            if all(isinstance(one, Tensor) for one in some)
        }
    return found


def _noisy(subject: Subject, row: int, n: int, noise: float) -> Float[Tensor, "copies channels height width"]:
    pixels = subject.pixels[row]
    spread = noise * float(pixels.max() - pixels.min())
    normal = subject.generator("randomisation", row).standard_normal((n, *pixels.shape))
    return pixels + spread * torch.from_numpy(normal).to(pixels)


def _pairs(
    trained: Mapping[int, Tensor], other: Sequence[Tensor | FaithmapError]
) -> dict[int, tuple[Tensor, Tensor | FaithmapError]]:
    return {row: (one, other[row]) for row, one in trained.items()}


def _flat(heatmap: Tensor) -> npt.NDArray[np.float64]:
    flat: npt.NDArray[np.float64] = heatmap.detach().double().cpu().numpy().ravel()
    return flat


def histogram_entropy(heatmap: Float[Tensor, "height width"]) -> float:
    """−Σ p ln p over 100 bins of equal width from the smallest to the largest relevance."""
    count = np.histogram(_flat(heatmap), bins=BINS)[0]
    p = count[count > 0] / count.sum()
    return float(-(p * np.log(p)).sum())


def forward_order(classifier: Classifier, pixels: Float[Tensor, "batch channels height width"]) -> list[str]:
    """The layers with weights, in the order in which the network runs them.

    A layer that runs inside another module without being called, as in attention, stands where that module is called;
    one that does not run at all stands last.

    Raises:
        MeasureError: a network without weights.
    """
    module, names = classifier.module, weighted_layers(classifier.module)
    if not names:
        raise MeasureError(f"{classifier.name} has no layer with weights: there is nothing to draw anew.")
    called: dict[str, int] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            called.setdefault(name, len(called))

        return hook

    handles = [one.register_forward_pre_hook(note(name)) for name, one in module.named_modules()]
    try:
        with torch.no_grad():
            classifier(pixels)
    finally:
        for handle in handles:
            handle.remove()

    def place(name: str) -> int:
        at = name
        while at and at not in called:
            at = at.rpartition(".")[0]
        return called[at] if at or not name else len(called)  # the network as a whole says nothing of a layer

    return sorted(names, key=lambda name: (place(name), names.index(name)))


def redraw_layers(classifier: Classifier, layers: Sequence[str], seed: int = 0, draw: int = 0) -> Classifier:
    """A copy whose `layers` are drawn anew, as their constructors draw them.

    Each layer's numbers depend on the seed, the draw and its name alone, so that more layers redrawn keep those of
    fewer.
    """
    other = _copied(classifier)
    _redraw_in_place(other, layers, seed, draw)
    return other


def redrawn(classifier: Classifier, layers: int, seed: int = 0) -> Classifier:
    """A copy whose last `layers` layers with weights, in the order in which they are listed, are drawn anew."""
    return redraw_layers(classifier, weighted_layers(classifier.module)[-layers:], seed)


def weighted_layers(module: nn.Module) -> list[str]:
    """Paths of the submodules that hold parameters of their own, in the order in which the network lists them."""
    return [name for name, one in module.named_modules() if next(one.parameters(recurse=False), None) is not None]


def _copied(classifier: Classifier) -> Classifier:
    other = copy.copy(classifier)
    other.module = copy.deepcopy(classifier.module)
    return other


def _redraw_in_place(classifier: Classifier, layers: Sequence[str], seed: int, draw: int) -> None:
    device = classifier.device
    for name in layers:
        key = ("redraw", seed, name) if draw == 0 else ("redraw", seed, name, draw)
        layer = classifier.module.get_submodule(name)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8], "big"))
            layer.cpu()  # the same numbers on every device
            _redraw(layer)
        layer.to(device)


def _redraw(layer: nn.Module) -> None:
    reset = getattr(layer, "reset_parameters", None)
    if callable(reset):
        reset()
        return
    with torch.no_grad():  # a layer of its own kind: the same mean and spread
        for parameter in layer.parameters(recurse=False):
            spread = float(parameter.std()) if parameter.numel() > 1 else 0.0
            parameter.copy_(torch.randn(parameter.shape) * spread + float(parameter.mean()))


@in_own_modes
def randomisation_check(
    classifier: Classifier,
    pixels: Float[Tensor, "batch channels height width"],
    methods: Any,
    *,
    targets: Int[Tensor, "batch"] | None = None,
    shares: Sequence[float] = SHARES,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> pd.DataFrame:
    """Rank correlation of each heatmap with that of the network with redrawn top layers.

    Args:
        classifier: the trained network; it is copied, not changed.
        pixels: images in [0, 1]; they are held in memory.
        methods: as in `evaluate`; random orders are left out.
        targets: the class to explain; by default the trained network's prediction. It stays the same all the way.
        shares: which fraction of the layers with weights is redrawn, from the last one down; 0 stands for the last
            alone.
        seed: key of the new weights, and of methods with randomness of their own.
        progress: called with how many (method, fraction) pairs are done, and of how many.
    Returns:
        One row per method, fraction and image: ``method``, ``share``, ``layers`` (how many), ``lowest`` (the deepest
        layer redrawn), ``image`` (row), ``signed`` and ``absolute`` (Spearman's rank correlation of the relevance and
        of its absolute value; NaN where a heatmap is constant or could not be computed).
    Raises:
        MethodError: no method but `random`, or one that means nothing on this network.
        InputError: a network without weights, or a fraction outside 0 … 1.
    Source:
        Adebayo et al. 2018, "Sanity Checks for Saliency Maps": cascading randomisation, rank correlation with and
        without absolute values.
    """
    classifier, pixels = check_classifier(classifier), as_pixels(pixels)
    seed, shares = as_integer(seed, "seed", 0, 2**63 - 1), as_numbers(shares, "shares")
    check_callable(progress, "progress")
    resolved = [method for method in resolve_methods(methods) if not method.is_random]
    if not resolved:
        raise MethodError("the check needs a heatmap method besides 'random'.")
    for share in shares:
        if not 0 <= share <= 1:
            raise InputError(f"a share of the layers is {share}, expected 0 … 1.")
    if not weighted_layers(classifier.module):
        raise InputError(f"{classifier.name} has no layer with weights: there is nothing to re-draw.")
    names = forward_order(classifier, pixels[:1])
    classes = classifier.predict(pixels) if targets is None else as_targets(targets, len(pixels), pixels.device)
    total = len(resolved) * (len(shares) + 1)
    batch = Batch.of(classifier, pixels, classes, seed=seed)
    trained = {}
    for done, method in enumerate(resolved, start=1):
        trained[method.name] = heatmaps_by_row(method, batch)
        progress(done, total)
    rows: list[dict[str, object]] = []
    for place, share in enumerate(shares):
        count = max(1, round(share * len(names)))
        random = Batch.of(redraw_layers(classifier, names[-count:], seed), pixels, classes, seed=seed)
        for at, method in enumerate(resolved, start=1):
            found = heatmaps_by_row(method, random)
            about = {"method": method.name, "share": share, "layers": count, "lowest": names[-count]}
            rows += [about | row for row in _correlations(trained[method.name], found)]
            progress(len(resolved) * (place + 1) + at, total)
    return pd.DataFrame(rows)


def randomisation_table(check: pd.DataFrame) -> pd.DataFrame:
    """Mean rank correlation per method, one column per fraction of the layers; the most changed first.

    Args:
        check: from `randomisation_check`; the correlation of absolute values is shown.
    """
    wide = check.pivot_table(index="method", columns="share", values="absolute", aggfunc="mean", dropna=False)
    return wide.sort_values(wide.columns[-1], kind="stable").reset_index()


def _correlations(
    trained: Sequence[Tensor | FaithmapError], random: Sequence[Tensor | FaithmapError]
) -> Iterator[dict[str, object]]:
    for image, (a, b) in enumerate(zip(trained, random, strict=True)):
        signed = absolute = float("nan")
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            signed = rank_correlation(_flat(a), _flat(b))
            absolute = rank_correlation(abs(_flat(a)), abs(_flat(b)))
        yield {"image": image, "signed": signed, "absolute": absolute}
