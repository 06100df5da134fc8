"""Correlations of rows: arrays of relevance against changes of the score."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from scipy.stats import rankdata
from torch import Tensor


def pearson(a: Float[Tensor, "rows values"], b: Float[Tensor, "values"]) -> Float[Tensor, "rows"]:
    """Pearson's correlation of every row with b; NaN for a constant."""
    return torch.tensor([correlation(row, b.double().numpy()) for row in a.double().numpy()], dtype=torch.float64)


def spearman(a: Float[Tensor, "rows values"], b: Float[Tensor, "values"]) -> Float[Tensor, "rows"]:
    """Spearman's rank correlation of every row with b."""
    return torch.tensor([rank_correlation(row, b.double().numpy()) for row in a.double().numpy()], dtype=torch.float64)


def rank_correlation(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """Spearman's ρ: the correlation of the ranks, equal values sharing their mean rank; NaN for a constant."""
    return correlation(rankdata(a), rankdata(b))


def correlation(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """Pearson's correlation; NaN for a constant."""
    if a.min() == a.max() or b.min() == b.max():
        return float("nan")
    first, second = ((one - one.mean()) / np.abs(one).max() for one in (a, b))
    scale = np.sqrt((first @ first) * (second @ second))
    return float(first @ second / scale) if scale > 0 else float("nan")
