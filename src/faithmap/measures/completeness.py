"""Completeness: does the relevance add up to what the method promises?"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from faithmap.attribution import Batch, Method
from faithmap.measures.measure import measure
from faithmap.measures.subject import Subject

# What the relevance of an image adds up to, apart from what biases and stabilisers take.
LOGIT = (
    "lrp-epsilon",
    "lrp-gamma",
    "lrp-alpha-beta",
    "lrp-z-plus",
    "lrp-epsilon-plus",
    "lrp-epsilon-plus-flat",
    "lrp-epsilon-alpha2-beta1",
)
DIFFERENCE = ("integrated-gradients", "deeplift", "kernelshap")


def promises_nothing(method: Method) -> str | None:
    """Why completeness means nothing for a method; None where the method promises a sum."""
    base, parameters = method.spec.get("method"), method.spec.get("parameters", {})
    if base in LOGIT and parameters.get("start", "logit") == "logit":
        return None
    return None if base in DIFFERENCE else f"'{method.name}' does not promise what its relevance adds up to."


@measure(
    "completeness",
    line="relative error of the summed relevance, where a method promises what it adds up to",
    source="Bach et al. 2015 (the logit, LRP); Sundararajan et al. 2017 (the difference from a reference)",
    set="faithfulness",
    needs="method",
    higher_is_better=False,
    unit="relative error",
    applies=promises_nothing,
    forward=(2,),
)
def completeness(subject: Subject, maps: Mapping[Method, Mapping[int, Tensor]]) -> dict[tuple[str, int], float | str]:
    """|Σ R − s| / |s|, with s the logit f(x), or f(x) − f(x₀) for methods with a reference x₀."""
    found: dict[tuple[str, int], float | str] = {}
    for row in range(len(subject)):
        one = subject.row(row)
        batch = Batch.of(one.classifier, one.pixels, one.targets, one.ids, one.seed)
        for method, heatmaps in maps.items():
            if row in heatmaps:
                promised = _promised(method, batch)
                total = float(heatmaps[row].double().sum())
                error = abs(total - promised) / abs(promised) if promised else "the promised sum is 0."
                found[method.name, row] = error
    return found


def _promised(method: Method, batch: Batch) -> float:
    """The sum that a method promises for the (one) image of a batch."""
    logit = _logit(batch, batch.inputs)
    if method.spec["method"] in LOGIT:
        return logit
    reference = batch.reference(method.spec["parameters"].get("reference", "zero"))
    return logit - _logit(batch, reference)


def _logit(batch: Batch, inputs: Tensor) -> float:
    with torch.no_grad():
        return float(batch.scores(batch.classifier.outputs(inputs))[0])
