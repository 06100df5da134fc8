"""Slow twins of the statistics, in plain loops; nothing from src is imported."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import numpy as np


def per_image_aopc(rows: list[dict[str, Any]], score: str, order: str) -> dict[tuple[str, str], list[float]]:
    """(image, method) → AOPC at every step, draws averaged; images that miss a draw or a finite score are absent."""
    curves: dict[tuple[str, str], dict[int, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    draws_of = defaultdict(set)
    last = 0
    for row in rows:
        if row["order"] == order:
            curves[row["image"], row["method"]][row["draw"]][row["step"]] = float(row[score])
            draws_of[row["method"]].add(row["draw"])
            last = max(last, row["step"])
    found = {}
    for (image, method), draws in curves.items():
        values = []
        for k in range(last + 1):
            per_draw = []
            for draw in draws_of[method]:
                total = 0.0
                for i in range(k + 1):
                    curve = draws.get(draw, {})
                    total += curve.get(0, math.nan) - curve.get(i, math.nan)
                per_draw.append(total / (k + 1))
            values.append(sum(per_draw) / len(per_draw))
        if all(math.isfinite(value) for value in values):
            found[image, method] = values
    return found


def studentised(x: list[float], confidence: float, seed: int, resamples: int) -> tuple[float, float]:
    """The bootstrap-t interval of a mean, with the same resamples."""
    n = len(x)
    mean = sum(x) / n
    error = math.sqrt(sum((v - mean) ** 2 for v in x) / (n - 1) / n)
    chosen = np.random.default_rng(seed).integers(0, n, (resamples, n))
    t = []
    for row in chosen:
        again = [x[i] for i in row]
        mean_again = sum(again) / n
        error_again = math.sqrt(sum((v - mean_again) ** 2 for v in again) / (n - 1) / n)
        t.append((mean_again - mean) / error_again)
    t.sort()
    tail = (1 - confidence) / 2
    q_low, q_high = t[math.floor(tail * (resamples - 1))], t[math.ceil((1 - tail) * (resamples - 1))]
    return mean - q_high * error, mean - q_low * error


def holm(p: list[float]) -> list[float]:
    """p-values corrected one by one, smallest first."""
    corrected = [0.0] * len(p)
    before = 0.0
    for place, index in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        before = max(before, min(1.0, p[index] * (len(p) - place)))
        corrected[index] = before
    return corrected


def wins(a: list[float], b: list[float]) -> float:
    """Share of images on which a is higher, ties count half."""
    total = 0.0
    for first, second in zip(a, b, strict=True):
        total += 1.0 if first > second else 0.5 if first == second else 0.0
    return total / len(a)
