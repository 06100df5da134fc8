"""Scores of many variants of one image, by the engines that score removal curves."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor

from faithmap.attribution.batch import Batch
from faithmap.classifiers import Classifier
from faithmap.errors import EngineWarning, HeatmapError
from faithmap.inference import Chains, Engine, make_engine
from faithmap.inference.dense import DenseEngine
from faithmap.inference.imputed import ImputedEngine
from faithmap.inference.incremental.engine import free_memory
from faithmap.inference.scoring import default_batch

VARIANTS = 64  # of an image that are run together
_STATE_BYTES = 500_000_000  # a run's own engine keeps its maps at the same time

# The engine refers to a copy of the classifier, so that an entry goes when the classifier does.
_engines: WeakKeyDictionary[Classifier, Engine] = WeakKeyDictionary()


def engine_of(classifier: Classifier) -> Engine:
    """An engine for a classifier, made when it is first asked for."""
    if classifier not in _engines:
        bound = min(_STATE_BYTES, free_memory(classifier.device) // 4)
        _engines[classifier] = make_engine(copy.copy(classifier), state_bytes=bound)
    return _engines[classifier]


def target_logits(batch: Batch, chains: Chains, engine: Engine | None = None) -> Float[Tensor, "chains points"]:
    """Logit of the target class at the scored steps, in the network's own precision.

    Args:
        batch: the chains' images.
        engine: by default that of `engine_of`.
    Raises:
        InputError: a target that is not a class of the network.
        HeatmapError: logits that are not finite; `index` says for which image.
    """
    column = {step: at for at, step in enumerate(chains.scored)}
    found: Tensor = chains.pixels.new_empty((len(chains), len(column)), dtype=batch.classifier.dtype)
    runner = engine or engine_of(batch.classifier)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EngineWarning)  # a run says it about the engine of its scores
        for chain, step, logits in (ImputedEngine(runner) if chains.imputed else runner).logits(chains):
            batch.check_targets(logits.shape[1])
            at = torch.tensor([column[one] for one in step.tolist()], device=chain.device)
            wrong = ~logits.isfinite().all(1)
            if wrong.any():
                raise HeatmapError("the network's logits are not finite.", int(chains.image[chain[wrong][0]]))
            found[chain, at] = logits.gather(1, chains.targets[chain].unsqueeze(1)).squeeze(1)
    return found


def variant_logits(batch: Batch) -> Callable[[Float[Tensor, "variants 3 height width"]], Tensor]:
    """A function from normalised inputs to logits, in the memory format and the batches that are fastest."""
    engine = DenseEngine(batch.classifier, min(VARIANTS, default_batch(batch.classifier)))

    def logits(inputs: Tensor) -> Tensor:
        found = engine.forward(inputs.permute(0, 2, 3, 1).contiguous())
        batch.check_targets(found.shape[1])
        return found.clone()  # no inference tensor: others may go on computing with it

    return logits
