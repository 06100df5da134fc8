"""One function over both engines."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from faithmap.checks import (
    LARGEST_STEP,
    as_fill,
    as_integer,
    as_pixels,
    as_points,
    as_removal_steps,
    as_targets,
    check_flag,
    one_of,
)
from faithmap.classifiers import CUSTOM, Classifier, check_classifier
from faithmap.errors import ClassifierError, CurveError, EngineError
from faithmap.inference.chains import Chains, Engine
from faithmap.inference.dense import DenseEngine
from faithmap.inference.dropping import DroppingEngine
from faithmap.inference.imputed import ImputedEngine
from faithmap.inference.incremental.engine import IncrementalEngine
from faithmap.inference.precision import PRECISIONS, RoundedEngine
from faithmap.modes import in_own_modes

ENGINES = ("auto", "incremental", "dense")
MOST_INPUTS = 65_536  # of a forward pass


def make_engine(
    classifier: Classifier,
    engine: str = "auto",
    batch_size: int | None = None,
    *,
    memory: int | None = None,
    precision: str = "float32",
    tf32: bool = False,
) -> Engine:
    """The engine by name.

    Args:
        classifier: pixel space in, logits out.
        engine: ``"incremental"`` recomputes only what a step changes; ``"dense"`` runs the whole network at every
            step; ``"auto"`` is incremental where that is possible and pays, and says why where it is not.
        batch_size: inputs a forward pass of the dense engine; by default from the free memory, at most 32 on a CPU and
            128 elsewhere.
        memory: bytes that the engine may take, besides the chains that it is given; changes speed, not numbers. By
            default half of what is free. At least 16 inputs go through the network together.
        precision: ``"float32"`` computes in the network's own type; ``"bfloat16"`` is for screening: single
            probabilities move by some hundredths.
        tf32: let a CUDA device round float32 products to TensorFloat-32.
    Raises:
        EngineError: an unknown engine or precision.
    """
    classifier = check_classifier(classifier)
    engine = one_of(engine, "engine", ENGINES, EngineError)
    precision = one_of(precision, "precision", PRECISIONS, EngineError)
    if batch_size is not None:
        batch_size = as_integer(batch_size, "batch_size", 1, MOST_INPUTS, EngineError)
    required = engine == "incremental"

    def build(of: Classifier) -> Engine:
        dense = DenseEngine(of, batch_size, memory=memory, tf32=tf32)
        if engine == "dense":
            return dense
        return IncrementalEngine(of, dense, memory=memory, required=required, tf32=tf32)

    return build(classifier) if precision == "float32" else RoundedEngine(classifier, build)


def score_chains(
    engine: Engine, chains: Chains, progress: Callable[[int], None] = lambda scores: None
) -> tuple[Float[Tensor, "chains points"], Float[Tensor, "chains points"]]:
    """Logit and probability of the target class at the scored steps (by default k = 0…L), in order.

    What these are the classifier's `score` says.

    Args:
        engine: runs the network.
        chains: what is perturbed.
        progress: called with the number of scores computed since the last call.
    Raises:
        ClassifierError: a target that is not a class of the network.
        CurveError: logits that are not finite; `index` is the chain's image.
    """
    points = chains.scored
    shape, device = (len(chains), len(points)), chains.pixels.device
    column = torch.full((chains.steps + 1,), -1, device=device)
    column[list(points)] = torch.arange(len(points), device=device)
    logit = torch.empty(shape, dtype=torch.float32, device=device)
    probability = torch.empty(shape, dtype=torch.float32, device=device)
    classifier = engine.classifier
    runner = _runner(engine, chains)
    highest = int(chains.targets.max()) if len(chains) else 0
    for chain, step, logits in runner.logits(chains.swapped() if chains.restore else chains):
        custom = classifier.score_kind == CUSTOM
        if highest >= logits.shape[1] and not custom:
            raise ClassifierError(f"a target is class {highest}, the network has classes 0…{logits.shape[1] - 1}.")
        at_target = logits.squeeze(1) if custom else classifier.scores(logits, chains.targets[chain])
        logit[chain, column[step]] = at_target.float()
        probability[chain, column[step]] = classifier.probabilities(logits, at_target).float()
        progress(len(chain))
    # A NaN in any class makes the softmax NaN, so looking at both is looking at all logits.
    wrong = ~(logit.isfinite() & probability.isfinite())
    if wrong.any():
        first, at = (int(i) for i in wrong.nonzero()[0])
        raise CurveError(f"the network's logits are not finite at step {points[at]}.", int(chains.image[first]))
    return logit, probability


def _runner(engine: Engine, chains: Chains) -> Engine:
    """The engine, or what stands between it and chains of another kind."""
    if chains.imputed:
        return ImputedEngine(engine)
    if not chains.dropped:
        return engine
    if isinstance(engine, RoundedEngine):
        raise EngineError("fill is 'drop' and precision 'bfloat16': tokens are dropped in float32 only.")
    dense = engine.dense if isinstance(engine, IncrementalEngine) else engine
    if not isinstance(dense, DenseEngine):
        raise EngineError(f"fill is 'drop' and the engine is {type(engine).__name__}: give 'auto' or 'dense'.")
    return DroppingEngine(dense.classifier, dense.batch_size, dense.tf32)


@in_own_modes
def score_curves(
    classifier: Classifier,
    pixels: Float[Tensor, "batch channels height width"],
    targets: Int[Tensor, "batch"],
    removal_step: Int[Tensor, "batch height width"],
    fill: Float[Tensor, "batch channels height width"],
    *,
    engine: str = "auto",
    steps: int | None = None,
    points: Sequence[int] | None = None,
    batch_size: int | None = None,
    precision: str = "float32",
    restore: bool = False,
    imputed: bool = False,
    dropped: bool = False,
) -> tuple[Float[Tensor, "batch points"], Float[Tensor, "batch points"]]:
    """Scores of the target class while regions are removed: (logits, probabilities), each (B, points).

    Args:
        classifier: pixel space in, logits out.
        pixels: untouched images in [0, 1].
        targets: class indices, int64.
        removal_step: the step at which a pixel is replaced, 1…L; 0 for never; see `faithmap.removal_steps`.
        fill: replacement values in pixel space.
        engine: ``"auto"``, ``"incremental"`` or ``"dense"``; see `make_engine`.
        steps: L; the highest removal step by default.
        points: the steps that are scored, ascending, 0 first; by default all of 0…L. The fewer, the faster.
        batch_size: inputs a forward pass of the dense engine; changes speed and memory, not numbers.
        precision: ``"float32"``, or ``"bfloat16"`` for screening; see `make_engine`.
        restore: start from the fill and bring regions of the image back (insertion).
        imputed: compute replacement values from the pixels that are left (noisy linear imputation); `fill` is the
            noise added to them.
        dropped: leave out the tokens of removed patches (vision transformers); `fill` is not used.
    Raises:
        InputError: images outside [0, 1], or targets, removal steps and fills that do not belong to them.
        ClassifierError: the network's output is not (B, classes), or a target is not among the classes.
        CurveError: logits that are not finite (`index` says for which image).
        EngineError: an unknown engine or precision, or points that are not ascending steps from 0 on.
    Source:
        Samek et al. 2017, f(x⁽ᵏ⁾) for k = 0…L.
    """
    classifier = check_classifier(classifier)
    check_flag(restore, "restore")
    check_flag(imputed, "imputed")
    check_flag(dropped, "dropped")
    images = as_pixels(pixels)
    removal = as_removal_steps(removal_step, images)
    rows = torch.arange(len(images), device=images.device)
    chains = Chains(
        pixels=images,
        fill=as_fill(fill, images),
        image=rows,
        fill_index=rows,
        removal_step=removal,
        targets=as_targets(targets, len(images), images.device),
        steps=int(removal.max()) if steps is None else as_integer(steps, "steps", 0, LARGEST_STEP),
        imputed=imputed,
        dropped=dropped,
        restore=restore,
        points=None if points is None else as_points(points),
    )
    return score_chains(make_engine(classifier, engine, batch_size, precision=precision), chains)
