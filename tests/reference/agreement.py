"""Slow twins of agreement between rankings; nothing from src is imported."""

from __future__ import annotations

import itertools
import math


def average_ranks(values: list[float]) -> list[float]:
    """1 is the smallest; ties share the mean of their places."""
    return [
        sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2 for value in values
    ]


def kendalls_w(rankings: list[list[float]]) -> float:
    """W with Kendall's correction for ties, from its definition."""
    m, n = len(rankings), len(rankings[0])
    ranks = [average_ranks(row) for row in rankings]
    totals = [sum(row[i] for row in ranks) for i in range(n)]
    s = sum((total - m * (n + 1) / 2) ** 2 for total in totals)
    ties = 0
    for row in ranks:
        for value in set(row):
            t = row.count(value)
            ties += t**3 - t
    return 12 * s / (m**2 * (n**3 - n) - m * ties)


def tau_b(a: list[float], b: list[float]) -> float:
    """Kendall's τ-b, pair by pair."""
    agree, in_a, in_b = 0, 0, 0
    for i, j in itertools.combinations(range(len(a)), 2):
        first, second = (a[i] > a[j]) - (a[i] < a[j]), (b[i] > b[j]) - (b[i] < b[j])
        agree += first * second
        in_a += first != 0
        in_b += second != 0
    return agree / math.sqrt(in_a * in_b)


def krippendorff_ordinal(raters: list[list[float | None]]) -> float:
    """α by listing all pairs of values within a unit and in all (Krippendorff 2011)."""
    units = [[row[u] for row in raters if row[u] is not None] for u in range(len(raters[0]))]
    units = [unit for unit in units if len(unit) >= 2]
    pooled = [value for unit in units for value in unit]
    levels = sorted(set(pooled))
    count = {level: pooled.count(level) for level in levels}

    def distance(c: float, k: float) -> float:
        low, high = min(c, k), max(c, k)
        between = sum(count[g] for g in levels if low <= g <= high)
        return (between - (count[c] + count[k]) / 2) ** 2

    observed = sum(
        distance(unit[i], unit[j]) / (len(unit) - 1)
        for unit in units
        for i in range(len(unit))
        for j in range(len(unit))
        if i != j
    ) / len(pooled)
    expected = sum(distance(pooled[i], pooled[j]) for i in range(len(pooled)) for j in range(len(pooled)) if i != j) / (
        len(pooled) * (len(pooled) - 1)
    )
    return 1 - observed / expected


def icc_1(cells: list[list[float]]) -> float:
    """ICC(1,1) of Shrout and Fleiss: rows are targets, columns are repetitions."""
    k, n = len(cells[0]), len(cells)
    grand = sum(map(sum, cells)) / (n * k)
    means = [sum(row) / k for row in cells]
    between = k * sum((mean - grand) ** 2 for mean in means) / (n - 1)
    within = sum((value - mean) ** 2 for row, mean in zip(cells, means, strict=True) for value in row) / (n * (k - 1))
    return (between - within) / (between + (k - 1) * within)


def split_half_tau(table: list[list[float]]) -> float:
    """Mean τ between the means of all pairs of halves of the rows; the number of rows is even."""
    n, found = len(table), []
    for half in itertools.combinations(range(n), n // 2):
        rest = [i for i in range(n) if i not in half]
        first, second = ([sum(table[i][m] for i in rows) for m in range(len(table[0]))] for rows in (half, rest))
        found.append(tau_b(first, second))
    return sum(found) / len(found)
