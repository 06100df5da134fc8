"""Whole groups drawn again, for statistics of several tables at once; intervals of correlations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import special

from faithmap.statistics.groups import group_means
from faithmap.statistics.measured import Measured


def by_group(one: Measured) -> pd.DataFrame:
    """Groups × methods: the mean over the images of each group."""
    names = list(dict.fromkeys(one.groups))
    return pd.DataFrame(group_means(one.values, one.groups), index=names, columns=one.methods)


def counts_of(groups: int, resamples: int, seed: int, block: int = 500) -> Iterator[Float[np.ndarray, "rows groups"]]:
    """How often each group is drawn in each resample, some resamples at a time."""
    generator = np.random.default_rng(seed)
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        chosen = generator.integers(0, groups, (rows, groups)) + groups * np.arange(rows)[:, None]
        yield np.bincount(chosen.ravel(), minlength=rows * groups).reshape(rows, groups).astype(float)


def weighted_means(
    counts: Float[np.ndarray, "rows groups"], values: Float[np.ndarray, "groups columns"]
) -> Float[np.ndarray, "rows columns"]:
    """The mean of each column in each resample, over the groups that have a value; NaN where none was drawn."""
    finite = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        means: np.ndarray = (counts @ np.where(finite, values, 0.0)) / (counts @ finite)
    return means


def aligned(
    tables: Mapping[str, pd.DataFrame],
) -> tuple[list[str], list[str], Float[np.ndarray, "tables groups methods"]]:
    """Tables of `by_group` over the same groups and methods: names of both, and the values, NaN where missing."""
    groups = list(dict.fromkeys(name for table in tables.values() for name in table.index))
    methods = sorted({name for table in tables.values() for name in table.columns})
    values = np.stack([table.reindex(index=groups, columns=methods).to_numpy(dtype=float) for table in tables.values()])
    return groups, methods, values


def correlation_interval(
    value: float, resampled: np.ndarray, confidence: float, scale: float = 1.0
) -> tuple[float, float]:
    """An interval of a correlation from resamples: symmetric on the arcsine scale, with the resamples' standard error.

    Percentiles would sit too low: a resample adds noise to both sides of a correlation, so that most fall below it.

    Args:
        value: −1…1.
        resampled: values of the resamples, or of a jackknife.
        confidence: of the interval.
        scale: from the standard deviation of `resampled` to the standard error: 1 for a bootstrap.
    """
    finite = resampled[np.isfinite(resampled)]
    if not np.isfinite(value) or len(finite) < 2:
        return np.nan, np.nan
    error = scale * float(np.arcsin(np.clip(finite, -1, 1)).std(ddof=1))
    ends = np.arcsin(np.clip(value, -1, 1)) + float(special.ndtri((1 + confidence) / 2)) * error * np.array([-1, 1])
    low, high = np.sin(np.clip(ends, -np.pi / 2, np.pi / 2))
    return float(low), float(high)
