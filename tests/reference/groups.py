"""Slow twins of the group statistics and of the measures that come from scores; nothing from src is imported."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from typing import Any

from tests.reference.statistics import studentised


def curve(rows: list[dict[str, Any]], score: str) -> dict[int, float]:
    """step → mean over the draws of one image, method and order."""
    found = defaultdict(list)
    for row in rows:
        found[row["step"]].append(float(row[score]))
    return {step: sum(values) / len(values) for step, values in sorted(found.items())}


def area(points: dict[int, float]) -> float:
    """Trapezoids over k/L, one after the other."""
    steps, total = sorted(points), 0.0
    for before, after in itertools.pairwise(steps):
        total += (points[before] + points[after]) / 2 * (after - before)
    return total / steps[-1]


def of_image(rows: list[dict[str, Any]], image: str, method: str, order: str, score: str) -> dict[int, float]:
    return curve([r for r in rows if (r["image"], r["method"], r["order"]) == (image, method, order)], score)


def srg(rows: list[dict[str, Any]], image: str, method: str, score: str) -> float:
    """Mean over the removed fraction of LeRF − MoRF, difference first."""
    morf, lerf = (of_image(rows, image, method, order, score) for order in ("morf", "lerf"))
    return area({step: lerf[step] - morf[step] for step in morf})


def r_oms(rows: list[dict[str, Any]], image: str) -> float:
    """Mean probability along all random orders of an image."""
    return area(curve([r for r in rows if (r["image"], r["method"]) == (image, "random")], "probability"))


def aopc_all_steps(points: dict[int, float]) -> float:
    """AOPC over every step, those between two points filled in one by one."""
    steps, total = sorted(points), 0.0
    for step in range(steps[-1] + 1):
        below = max(s for s in steps if s <= step)
        above = min(s for s in steps if s >= step)
        weight = 0.0 if above == below else (step - below) / (above - below)
        total += points[0] - ((1 - weight) * points[below] + weight * points[above])
    return total / (steps[-1] + 1)


def group_means(values: dict[str, float], group_of: dict[str, str]) -> dict[str, float]:
    """group → mean over its images."""
    found = defaultdict(list)
    for image, value in values.items():
        found[group_of[image]].append(value)
    return {group: sum(of) / len(of) for group, of in found.items()}


def cluster_bootstrap(
    values: dict[str, float], group_of: dict[str, str], confidence: float, seed: int, resamples: int
) -> tuple[float, float]:
    """The bootstrap-t interval of the mean over groups: whole groups are drawn, in the order of their first image."""
    means = group_means(values, group_of)
    order = list(dict.fromkeys(group_of[image] for image in sorted(values)))
    return studentised([means[group] for group in order], confidence, seed, resamples)


def signed_rank_p(difference: list[float]) -> float:
    """Two-sided p by listing the signs that the differences could have had; zeros dropped, ties share a mean rank."""
    difference = [value for value in difference if value != 0]
    sizes = sorted(abs(value) for value in difference)
    rank = [sizes.index(abs(value)) + (sizes.count(abs(value)) + 1) / 2 for value in difference]
    observed = sum(rank[i] for i, value in enumerate(difference) if value > 0)
    middle = len(difference) * (len(difference) + 1) / 4
    extreme = 0
    for signs in itertools.product((False, True), repeat=len(difference)):
        total = sum(rank[i] for i, positive in enumerate(signs) if positive)
        extreme += math.fabs(total - middle) >= math.fabs(observed - middle) - 1e-9
    return extreme / 2 ** len(difference)
