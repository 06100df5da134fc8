"""Known answers: maps whose right place is known, because they were made from other maps.

`blend:METHOD,share=0.5` mixes the ranks of a map with random ranks; the larger the share of random, the worse it is.
`smoothed:METHOD,sigma=16` is a blurred copy: it knows nothing more, so what it gains is smoothness.
"""

from __future__ import annotations

import itertools
import re

import numpy as np
import pandas as pd

from faithmap.protocol import RANDOM
from faithmap.statistics.bootstrap import mean_intervals
from faithmap.statistics.groups import group_means
from faithmap.statistics.measured import Measured

# A parameter that a method's name leaves out has its default.
_BLEND = re.compile(r"blend:(?P<method>.+?)(,share=(?P<share>[0-9.]+))?$")
_SMOOTHED = re.compile(r"smoothed:(?P<method>.+?)(,sigma=(?P<sigma>[0-9.]+))?$")
_SHARE, _SIGMA = 0.5, 16.0


def blends(one: Measured, confidence: float = 0.95, seed: int = 0) -> pd.DataFrame:
    """Adjacent blends of each map with random ranks: does the measure put the one with less noise first?

    Args:
        one: with methods named ``blend:METHOD,share=…``; the method itself counts as share 0, and random orders as
            share 1, where they were measured.
        confidence, seed: of the intervals over groups.
    Returns:
        One row per adjacent pair: method, share, next_share, gain (mean over groups of how much better the blend with
        the smaller share is), low, high, groups, right (gain above 0), significant (the interval excludes 0).
    """
    by_method: dict[str, dict[float, str]] = {}
    for name in one.methods:
        if found := _BLEND.match(name):
            by_method.setdefault(found["method"], {})[float(found["share"] or _SHARE)] = name
    rows = []
    for method, shares in sorted(by_method.items()):
        if method in one.methods:
            shares.setdefault(0.0, method)
        if one.has_random:
            shares.setdefault(1.0, RANDOM)
        rows += [(method, a, b, shares[a], shares[b]) for a, b in itertools.pairwise(sorted(shares))]
    columns = ["method", "share", "next_share", "better", "worse"]
    pairs = pd.DataFrame(rows, columns=columns)
    gains = _gains(one, pairs["better"].tolist(), pairs["worse"].tolist(), confidence, seed)
    return pd.concat([pairs[columns[:3]], gains], axis=1).assign(right=gains["gain"] > 0)


def smoothed_copies(one: Measured, confidence: float = 0.95, seed: int = 0) -> pd.DataFrame:
    """How much better a blurred copy of a map scores than the map, beside the lead of the best method.

    Args:
        one: with methods named ``smoothed:METHOD,sigma=…`` and the methods themselves.
        confidence, seed: of the intervals over groups.
    Returns:
        One row per copy: method, sigma (pixels), gain (mean over groups of copy − map, positive is better), low, high,
        groups, significant (the interval excludes 0), lead (how much better the best other candidate is than the map;
        negative where the map leads), of_lead (gain / lead: the fraction of that lead that smoothing alone makes up;
        NaN where the map leads).
    """
    rows = [
        (found["method"], float(found["sigma"] or _SIGMA), name)
        for name in one.methods
        if (found := _SMOOTHED.match(name)) and found["method"] in one.methods
    ]
    copies = pd.DataFrame(rows, columns=["method", "sigma", "copy"])
    table = pd.concat(
        [copies, _gains(one, copies["copy"].tolist(), copies["method"].tolist(), confidence, seed)], axis=1
    )
    plain = [name for name in one.candidates().methods if name != RANDOM]
    mean = {name: _mean(one.sign * group_means(one.column(name)[:, None], one.groups)) for name in one.methods}
    lead = [max((mean[name] for name in plain if name != of), default=np.nan) - mean[of] for of in table["method"]]
    table["lead"] = np.array(lead, dtype=float)
    table["of_lead"] = (table["gain"] / table["lead"]).where(table["lead"] > 0)
    return table.drop(columns="copy")


def _gains(one: Measured, better: list[str], worse: list[str], confidence: float, seed: int) -> pd.DataFrame:
    """How much better the first of each pair is, with intervals over groups."""
    columns = [one.sign * (one.column(a) - one.column(b)) for a, b in zip(better, worse, strict=True)]
    values = np.stack(columns, 1) if columns else np.empty((len(one.images), 0))
    means = mean_intervals(group_means(values, one.groups), confidence, seed)
    return pd.DataFrame(
        {
            "gain": means.mean,
            "low": means.low,
            "high": means.high,
            "groups": means.n,
            "significant": means.low * means.high > 0,
        }
    )


def _mean(column: np.ndarray) -> float:
    finite = column[np.isfinite(column)]
    return float(finite.mean()) if finite.size else np.nan
