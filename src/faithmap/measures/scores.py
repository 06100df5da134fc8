"""Measures that follow from a run's scores. Not stored: `statistics.measured` computes them from the curves."""

from __future__ import annotations

import pandas as pd

from faithmap.measures.measure import measure
from faithmap.statistics.measured import Measured, measured


@measure(
    "srg",
    line="mean over the removed fraction of the score with least relevant removed first minus most relevant first",
    source="Blücher et al. 2024",
    set="faithfulness",
    needs="scores",
    higher_is_better=True,
    unit="score",
)
def srg(scores: pd.DataFrame, score: str = "logit", direction: str = "remove") -> Measured:
    """Symmetric relevance gain; 0 for random orders."""
    return measured(scores, "srg", score, direction=direction)


@measure(
    "morf",
    line="mean fall of the score over the removed fraction, most relevant regions first",
    source="Samek et al. 2017; over the removed fraction Blücher et al. 2024",
    set="faithfulness",
    needs="scores",
    higher_is_better=True,
    unit="score",
)
def morf(scores: pd.DataFrame, score: str = "logit", direction: str = "remove") -> Measured:
    """Mean of f(x) − f(x⁽ᵏ⁾), most relevant first."""
    return measured(scores, "morf", score, direction=direction)


@measure(
    "lerf",
    line="mean fall of the score over the removed fraction, least relevant regions first",
    source="Samek et al. 2017; over the removed fraction Blücher et al. 2024",
    set="faithfulness",
    needs="scores",
    higher_is_better=False,
    unit="score",
)
def lerf(scores: pd.DataFrame, score: str = "logit", direction: str = "remove") -> Measured:
    """Mean of f(x) − f(x⁽ᵏ⁾), least relevant first."""
    return measured(scores, "lerf", score, direction=direction)


@measure(
    "deletion",
    line="mean score over the removed fraction, most relevant regions removed first",
    source="Petsiuk et al. 2018",
    set="faithfulness",
    needs="scores",
    higher_is_better=False,
    unit="score",
    in_set=False,
)
def deletion(scores: pd.DataFrame, score: str = "logit", direction: str = "remove") -> Measured:
    """Area under the deletion curve."""
    return measured(scores, "deletion", score, direction=direction)


@measure(
    "insertion",
    line="mean score over the restored fraction, most relevant regions restored first",
    source="Petsiuk et al. 2018",
    set="faithfulness",
    needs="scores",
    higher_is_better=True,
    unit="score",
    in_set=False,
)
def insertion(scores: pd.DataFrame, score: str = "logit", direction: str = "remove") -> Measured:
    """Area under the insertion curve."""
    return measured(scores, "insertion", score, direction=direction)
