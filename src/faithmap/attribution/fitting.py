"""Which heatmap methods mean something on a network, and why the others do not."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from faithmap.attribution.batch import Batch
from faithmap.attribution.compute import batch_heatmaps
from faithmap.attribution.method import METHODS
from faithmap.attribution.registry import parse_method
from faithmap.classifiers import CUSTOM, Classifier
from faithmap.errors import FaithmapError, HeatmapError
from faithmap.protocol import RANDOM, Protocol
from faithmap.randomness import generator

# As few variants as a method takes: whether it fits does not depend on how many.
_FEW = {"n": 2, "permutations": 2, "segments": 4}


def refusals(
    classifier: Classifier,
    size: tuple[int, int] | None = None,
    progress: Callable[[str], None] | None = None,
) -> dict[str, str | None]:
    """Method → why it means nothing on this network; None where it fits. Each is tried on one image of noise.

    Args:
        classifier: see `Classifier`.
        size: height and width of the input; by default those of the classifier's preprocessing.
        progress: called with the name of each method before it is tried.
    """
    height, width = size or classifier.preprocessing.crop
    noise = generator("probe").random((1, classifier.channels, height, width), dtype="float32")
    pixels = torch.from_numpy(noise).to(classifier.device)
    target = torch.zeros(1, dtype=torch.int64) if classifier.score_kind == CUSTOM else classifier.predict(pixels)
    batch = Batch.of(classifier, pixels, target, ["probe"])
    found: dict[str, str | None] = {}
    half = max(1, min(height, width) // 2)
    least = {**_FEW, "stride": half, "size": half, "shape": "grid"}
    for name, method in METHODS.items():
        few = [f"{key}={value}" for key, value in least.items() if key in method.parameters]
        if name == RANDOM:
            continue
        if progress is not None:
            progress(name)
        found[name] = None
        try:
            protocol = Protocol.preset("srg", region_size=half)
            with warnings.catch_warnings(), _tiny_is_zero():
                warnings.simplefilter("ignore")
                batch_heatmaps(parse_method(f"{name}:{','.join(few)}" if few else name, protocol), batch)
        except HeatmapError:  # of this image, not of the network
            continue
        except FaithmapError as error:
            found[name] = str(error).partition(f" on {classifier.name}: ")[2] or str(error)
    return found


@contextmanager
def _tiny_is_zero() -> Iterator[None]:
    """Numbers below 1e-38 count as 0 inside: processors compute with them a hundred times slower.

    Relevance that vanishes consists of them. Only for maps that nobody keeps, because it holds for one thread alone.
    """
    was = bool(torch.tensor(1e-39) * 1 == 0)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(was)
