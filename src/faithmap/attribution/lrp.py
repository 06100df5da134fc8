"""Layer-wise relevance propagation: which zennit rule stands on which layer, and what comes out at the input."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from zennit.rules import AlphaBeta, Flat, Gamma, ZPlus

from faithmap.attribution.batch import Batch, attributable, differentiate
from faithmap.attribution.method import heatmap_method
from faithmap.attribution.relevance import EpsilonRule, LayerRule, LrpFollower, no_zero
from faithmap.declarations import Parameter, choice, number
from faithmap.errors import HeatmapError, MethodError

# |Σ R| may exceed the largest logit by what biases absorb; beyond this factor it is rounding that was amplified.
EXPLODED = 1e4
# Biases may absorb relevance too; when less than this fraction of the logit is left, the map no longer explains it.
VANISHED = 1e-3
# An ε that only keeps denominators from 0.
SMALL = 1e-6
SMALL_EPSILON = Parameter(SMALL, number(low=0.0))


def propagate(
    batch: Batch,
    rule: Callable[[int, str], LayerRule],
    start: str = "logit",
    softmax: str | None = None,
    absorbing: bool = False,
) -> Float[Tensor, "batch channels height width"]:
    """Relevance at the inputs.

    Args:
        batch: images and classes.
        rule: (number of a convolution or linear layer in the forward pass, name of its function) → zennit rule.
        start: relevance of the class logit: ``"logit"`` its value, ``"one"`` 1.
        softmax: see `LrpFollower`; if given, the network must have one.
        absorbing: the rule was asked to absorb relevance (a large ε), so that little may be left.
    Raises:
        HeatmapError: relevance that exploded or vanished; `index` says in which image.
        MethodError: a step of the network that LRP has no rule for.
    """
    with attributable(batch.classifier.module):
        return _sent_back(*_followed(batch, rule, softmax), start, absorbing)


def _followed(
    batch: Batch, rule: Callable[[int, str], LayerRule], softmax: str | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, logits and scores of the target, with the graph that relevance takes back."""
    follower = LrpFollower(batch.classifier.module, rule, softmax or "taylor")
    inputs = batch.inputs.clone().requires_grad_()
    logits = follower.logits(batch, inputs)
    if softmax is not None and follower.softmaxes == 0:
        raise MethodError("the network has no softmax, so that the method would be LRP-ε: ask for lrp-epsilon.")
    return inputs, logits, batch.scores(logits)


def _sent_back(
    inputs: Tensor, logits: Tensor, scores: Tensor, start: str, absorbing: bool, again: bool = False
) -> Tensor:
    """Relevance at the inputs; `again` keeps the graph for another time."""
    begin = scores.detach() if start == "logit" else torch.ones_like(scores)
    relevance = differentiate(scores, inputs, begin, retain_graph=again)
    _check_sums(
        relevance,
        scores.detach(),
        torch.maximum(logits.detach().abs().flatten(1).amax(1), scores.detach().abs()),
        start,
        absorbing,
    )
    return relevance


def _check_sums(relevance: Tensor, scores: Tensor, largest: Tensor, start: str, absorbing: bool) -> None:
    """Raise for relevance far from what it started as."""
    total = relevance.double().sum((1, 2, 3)).abs()
    left = relevance.double().abs().sum((1, 2, 3))
    began = scores.abs() if start == "logit" else torch.ones_like(scores)
    most = EXPLODED * (largest if start == "logit" else began)
    for row, score in enumerate(scores.tolist()):
        if total[row] > most[row]:
            raise HeatmapError(
                f"the relevance sum exploded to {float(total[row]):.3g} for a logit of {score:.3g}.", row
            )
        if not absorbing and left[row] < VANISHED * began[row]:
            raise HeatmapError(
                f"relevance vanished: {float(left[row]):.3g} is left of {float(began[row]):.3g}, biases absorbed the "
                "rest, so the map does not explain the logit: lrp-epsilon or gradient-x-input fit such a network.",
                row,
            )


@heatmap_method(
    "lrp-epsilon",
    line="LRP, ε-rule in convolutional and linear layers",
    source="Bach et al. 2015, PLoS ONE 10(7)",
    parameters={
        "epsilon": Parameter(0.01, number(low=0.0)),
        "start": Parameter("logit", choice("logit", "one")),
        "border": Parameter("kept", choice("kept", "dropped")),
    },
    first_shown=True,
)
def lrp_epsilon(
    batch: Batch, *, epsilon: float, start: str, border: str
) -> Float[Tensor, "batch channels height width"]:
    """LRP-ε: R_i = Σ_j z_ij / (z_j + ε sign z_j) R_j in convolutional and linear layers, biases part of z_j.

    Args:
        batch: images and classes.
        epsilon: ε ≥ 0; for 0, 0 / 0 counts as 0.
        start: ``"logit"`` starts at the value of the class logit, ``"one"`` at 1 (the 2021 replication).
        border: ``"dropped"`` sets the last row and column to 0 (the 2021 replication, whose first layer loses them).
    """

    def followed() -> tuple[EpsilonRule, tuple[Tensor, Tensor, Tensor]]:
        rule = EpsilonRule(epsilon)
        return rule, _followed(batch, lambda number, name: rule)

    with attributable(batch.classifier.module):
        rule, (inputs, logits, scores) = batch.held("lrp-epsilon", followed)
        rule.epsilon = epsilon  # the forward pass is the same for all
        relevance = _sent_back(inputs, logits, scores, start, epsilon > 0, again=True)
    if border == "dropped":
        relevance[..., -1, :] = 0
        relevance[..., :, -1] = 0
    return relevance


@heatmap_method(
    "lrp-gamma",
    line="LRP, γ-rule in convolutional and linear layers",
    source="Montavon et al. 2019; for inputs of any sign Andéol et al. 2021",
    parameters={"gamma": Parameter(0.25, number(low=0.0))},
    first_shown=True,
)
def lrp_gamma(batch: Batch, *, gamma: float) -> Float[Tensor, "batch channels height width"]:
    """LRP-γ in every layer: w + γ w⁺ instead of w where z_j > 0, w + γ w⁻ where z_j < 0 (for any sign of the input)."""
    rule = Gamma(gamma=gamma, stabilizer=no_zero)
    return propagate(batch, lambda number, name: rule)


@heatmap_method(
    "lrp-alpha-beta",
    line="LRP, αβ-rule (β = α − 1) in convolutional and linear layers",
    source="Bach et al. 2015, PLoS ONE 10(7)",
    parameters={"alpha": Parameter(2.0, number(low=1.0))},
    first_shown=True,
    aliases={"lrp-alpha2-beta1": "lrp-alpha-beta:2", "lrp-alpha1-beta0": "lrp-alpha-beta:1"},
)
def lrp_alpha_beta(batch: Batch, *, alpha: float) -> Float[Tensor, "batch channels height width"]:
    """LRP-αβ in every layer, β = α − 1: R_i = Σ_j (α z_ij⁺ / z_j⁺ − β z_ij⁻ / z_j⁻) R_j."""
    rule = AlphaBeta(alpha=alpha, beta=alpha - 1, stabilizer=no_zero)
    return propagate(batch, lambda number, name: rule)


@heatmap_method(
    "lrp-z-plus",
    line="LRP, z⁺-rule in convolutional and linear layers",
    source="Montavon et al. 2017, Pattern Recognition 65",
)
def lrp_z_plus(batch: Batch) -> Float[Tensor, "batch channels height width"]:
    """LRP-z⁺ in every layer: R_i = Σ_j z_ij⁺ / z_j⁺ R_j."""
    rule = ZPlus(stabilizer=no_zero)
    return propagate(batch, lambda number, name: rule)


@heatmap_method(
    "excitation-backprop",
    line="probabilities sent back through excitatory weights",
    source="Zhang et al. 2016",
)
def excitation_backprop(batch: Batch) -> Float[Tensor, "batch channels height width"]:
    """Probabilities sent back through excitatory weights alone: LRP-z⁺ without biases, started at 1."""
    rule = ZPlus(stabilizer=no_zero, zero_params="bias")
    return propagate(batch, lambda number, name: rule, start="one")


@heatmap_method(
    "lrp-epsilon-plus",
    line="LRP, ε-rule in linear layers, z⁺-rule in convolutions",
    source="Kohlbrenner et al. 2020",
    parameters={"epsilon": SMALL_EPSILON},
)
def lrp_epsilon_plus(batch: Batch, *, epsilon: float) -> Float[Tensor, "batch channels height width"]:
    """ε in linear layers, z⁺ in convolutions (zennit's EpsilonPlus)."""
    return propagate(batch, by_kind(epsilon, ZPlus(stabilizer=no_zero)), absorbing=epsilon > SMALL)


@heatmap_method(
    "lrp-epsilon-plus-flat",
    line="as lrp-epsilon-plus, with the flat rule in the first layer",
    source="Kohlbrenner et al. 2020; flat rule Lapuschkin et al. 2019",
    parameters={"epsilon": SMALL_EPSILON},
)
def lrp_epsilon_plus_flat(batch: Batch, *, epsilon: float) -> Float[Tensor, "batch channels height width"]:
    """As `lrp_epsilon_plus`, and flat in the first layer: all its inputs share alike (zennit's EpsilonPlusFlat)."""
    first, rule = Flat(stabilizer=no_zero), by_kind(epsilon, ZPlus(stabilizer=no_zero))
    return propagate(
        batch,
        lambda number, name: first if number == 0 else rule(number, name),
        absorbing=epsilon > SMALL,
    )


@heatmap_method(
    "lrp-epsilon-alpha2-beta1",
    line="LRP, ε-rule in linear layers, α2β1-rule in convolutions",
    source="Kohlbrenner et al. 2020",
    parameters={"epsilon": SMALL_EPSILON},
)
def lrp_epsilon_alpha2_beta1(batch: Batch, *, epsilon: float) -> Float[Tensor, "batch channels height width"]:
    """ε in linear layers, α2β1 in convolutions (zennit's EpsilonAlpha2Beta1)."""
    return propagate(
        batch,
        by_kind(epsilon, AlphaBeta(alpha=2, beta=1, stabilizer=no_zero)),
        absorbing=epsilon > SMALL,
    )


def by_kind(epsilon: float, convolution: LayerRule) -> Callable[[int, str], LayerRule]:
    """LRP-ε in linear layers, another rule in convolutions."""
    linear = EpsilonRule(epsilon)
    return lambda number, name: linear if name == "linear" else convolution


@heatmap_method(
    "attn-lrp",
    line="LRP through attention: ε-rule, Taylor rule in softmax",
    source="Achtibat et al. 2024",
    parameters={
        "epsilon": SMALL_EPSILON,
        "gamma": Parameter(0.0, number(low=0.0)),
        "softmax": Parameter("taylor", choice("taylor", "constant")),
    },
)
def attn_lrp(
    batch: Batch, *, epsilon: float, gamma: float, softmax: str
) -> Float[Tensor, "batch channels height width"]:
    """AttnLRP: LRP-ε (or γ) in linear layers, relevance through attention's products and softmax.

    Args:
        batch: images and classes.
        epsilon: ε of linear layers and convolutions; unused with γ.
        gamma: above 0, the γ-rule takes the place of the ε-rule.
        softmax: ``"taylor"``, or ``"constant"`` for CP-LRP (Ali et al. 2022): attention weights are constants, and all
            relevance goes to what is attended to.
    Raises:
        MethodError: a network without a softmax, on which the method would be LRP-ε.
    """
    rule = Gamma(gamma=gamma, stabilizer=no_zero) if gamma > 0 else EpsilonRule(epsilon)
    return propagate(batch, lambda number, name: rule, softmax=softmax, absorbing=epsilon > SMALL)
