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
from faithmap.classifiers import CUSTOM, Classifier
from faithmap.errors import EngineWarning, HeatmapError
from faithmap.inference import Chains, Engine, make_engine
from faithmap.inference.dense import DenseEngine, default_batch, free_memory
from faithmap.inference.imputed import ImputedEngine

VARIANTS = 64  # of an image that are run together
_STATE_BYTES = 1_000_000_000  # of maps; a run's own engine keeps its maps at the same time

# The engine refers to a copy of the classifier, so that an entry goes when the classifier does.
_engines: WeakKeyDictionary[Classifier, Engine] = WeakKeyDictionary()


def engine_of(classifier: Classifier) -> Engine:
    """An engine for a classifier, made when it is first asked for."""
    if classifier not in _engines:
        weights = sum(one.numel() * one.element_size() for one in classifier.module.parameters())
        bound = min(_STATE_BYTES + 2 * weights, free_memory(classifier.device) // 4)
        _engines[classifier] = make_engine(copy.copy(classifier), memory=bound)
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
            batch.check_targets(logits)
            at = torch.tensor([column[one] for one in step.tolist()], device=chain.device)
            wrong = ~logits.isfinite().all(1)
            if wrong.any():
                raise HeatmapError("the network's logits are not finite.", int(chains.image[chain[wrong][0]]))
            custom = batch.classifier.score_kind == CUSTOM
            found[chain, at] = logits.squeeze(1) if custom else batch.classifier.scores(logits, chains.targets[chain])
    return found


def variant_scores(
    batch: Batch, probability: bool = False
) -> Callable[[Float[Tensor, "variants channels height width"]], Float[Tensor, "variants"]]:
    """A function from normalised variants of one image to the target's score, in the fastest format and batches.

    Args:
        batch: one image.
        probability: what is stored as probability, instead of the logit.
    """
    classifier = batch.classifier
    engine = DenseEngine(classifier, min(VARIANTS, default_batch(batch.pixels)))

    def scores(inputs: Tensor) -> Tensor:
        targets = batch.targets.expand(len(inputs))
        outputs = engine.forward(inputs.permute(0, 2, 3, 1).contiguous(), targets)
        batch.check_targets(outputs)
        found = outputs.squeeze(1) if classifier.score_kind == CUSTOM else classifier.scores(outputs, targets)
        if probability:
            found = classifier.probabilities(outputs, found).to(found.dtype)
        return found.clone()  # no inference tensor: others may go on computing with it

    return scores
