"""Do the intervals hold what they promise? Simulated data sets of known truth through the functions that tables use.

    python benchmarks/coverage.py                 # 4000 data sets for each figure, some ten minutes on one free core
    python benchmarks/coverage.py --kinds         # why this interval: all kinds side by side

Coverage: how often a 95 % interval holds the true mean. False alarms: how often two methods are told apart that should
not be, (a) when both have the same distribution on every image, so that differences are symmetric around zero, and
(b) when their means are equal but the differences are skewed. Exits with 1 when a figure is outside its limits.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import numpy as np

from faithmap.statistics.bootstrap import mean_intervals
from faithmap.statistics.significance import holm, images_needed, signed_rank_p

Sampler = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]

EXTREME = "lognormal 1"  # shown, but beyond what is promised: no interval is known to hold here at n = 20
# Name → (per-image scores, their true mean, skewness).
POPULATIONS: dict[str, tuple[Sampler, float, str]] = {
    "normal": (lambda r, s: r.normal(0.3, 1, s), 0.3, "0"),
    "t, 4 degrees": (lambda r, s: r.standard_t(4, s), 0.0, "0"),
    "uniform": (lambda r, s: r.random(s), 0.5, "0"),
    "beta(0.5, 2)": (lambda r, s: r.beta(0.5, 2, s), 0.2, "1.2"),
    "lognormal 0.5": (lambda r, s: r.lognormal(0, 0.5, s), float(np.exp(0.125)), "1.8"),
    "exponential": (lambda r, s: r.exponential(size=s), 1.0, "2"),
    "−exponential": (lambda r, s: -r.exponential(size=s), -1.0, "−2"),
    "gamma(0.5)": (lambda r, s: r.gamma(0.5, size=s), 0.5, "2.8"),
    EXTREME: (lambda r, s: r.lognormal(0, 1, s), float(np.exp(0.5)), "6.2"),
}
SIZES = (20, 100, 1000)
COVERAGE, FALSE_ALARMS = (0.93, 0.97), 0.055
BLOCK = 50  # data sets that share resamples


def covered(sample: Sampler, truth: float, n: int, sets: int, seed: int, kind: str = "auto") -> tuple[float, float]:
    """Share of intervals that hold the truth, and their mean length."""
    generator = np.random.default_rng([seed, n])
    hits, lengths = [], []
    for block in range(-(-sets // BLOCK)):
        found = mean_intervals(sample(generator, (n, BLOCK)), seed=block, interval=kind)
        hits.append((found.low <= truth) & (truth <= found.high))
        lengths.append(found.high - found.low)
    return float(np.concatenate(hits)[:sets].mean()), float(np.concatenate(lengths)[:sets].mean())


def false_alarms(differences: Sampler, n: int, sets: int, seed: int) -> tuple[float, float, float]:
    """Share of data sets without a difference in which one is found: signed-rank test, test of the mean, both."""
    generator = np.random.default_rng([seed, n, 1])
    rank, mean = [], []
    for block in range(-(-sets // BLOCK)):
        difference = differences(generator, (n, BLOCK))
        rank.append(signed_rank_p(difference) < 0.05)
        mean.append(mean_intervals(difference, seed=block).p < 0.05)
    first, second = np.concatenate(rank)[:sets], np.concatenate(mean)[:sets]
    return float(first.mean()), float(second.mean()), float((first & second).mean())


def family_alarms(sample: Sampler, n: int, sets: int, seed: int, methods: int = 8) -> float:
    """Share of data sets of equal methods in which any pair at all is told apart."""
    generator = np.random.default_rng([seed, n, 2])
    a, b = np.triu_indices(methods, 1)
    found = 0
    for block in range(-(-sets // BLOCK)):
        scores = sample(generator, (n, BLOCK * methods)) + np.repeat(sample(generator, (n, BLOCK)), methods, 1)
        scores = scores.reshape(n, BLOCK, methods)
        difference = (scores[:, :, a] - scores[:, :, b]).reshape(n, -1)
        rank = signed_rank_p(difference).reshape(BLOCK, -1)
        mean = mean_intervals(difference, seed=block).p.reshape(BLOCK, -1)
        told = [(holm(r) < 0.05) & (holm(m) < 0.05) for r, m in zip(rank, mean, strict=True)]
        found += sum(bool(pairs.any()) for pairs in told)
    return found / (BLOCK * -(-sets // BLOCK))


def power_at_needed(effect: float, sets: int, seed: int) -> tuple[int, float]:
    """How often a true difference of this size is told apart with as many images as are said to be needed."""
    n = int(images_needed(np.array([effect]), 0.05)[0])
    _, _, found = false_alarms(lambda r, s: r.normal(effect, 1, s), n, sets, seed)
    return n, found


def main() -> int:
    """Print all tables; 0 when every figure is within its limits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=4000, help="data sets for each figure")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", action="store_true", help="compare the kinds of interval instead")
    options = parser.parse_args()
    sets, seed, start = options.sets, options.seed, time.perf_counter()
    if options.kinds:
        return compare_kinds(sets, seed)
    outside = []

    def judged(value: float, good: bool, name: str) -> str:
        if not good and EXTREME not in name:
            outside.append(f"{name}: {value:.3f}")
        return f"{value:>9.3f}{' ' if good else '!'}"

    print(f"coverage of 95 % intervals, {sets} data sets; limits {COVERAGE[0]}–{COVERAGE[1]}")
    print(f"{'scores':<16}{'skewness':>9}" + "".join(f"{'n = ' + str(n):>10}" for n in SIZES))
    for name, (sample, truth, skewness) in POPULATIONS.items():
        row = [covered(sample, truth, n, sets, seed)[0] for n in SIZES]
        cells = [
            judged(v, COVERAGE[0] <= v <= COVERAGE[1], f"coverage, {name}, n = {n}")
            for v, n in zip(row, SIZES, strict=True)
        ]
        print(f"{name:<16}{skewness:>9}" + "".join(cells), flush=True)
    for title, make in (
        ("same distribution for both methods", lambda f, m: lambda r, s: f(r, s) - f(r, s)),
        ("equal means, skewed differences", lambda f, m: lambda r, s: f(r, s) - m),
    ):
        print(f"\nfalse alarms at 5 %: {title}; told apart (signed-rank alone, mean alone); limit {FALSE_ALARMS}")
        print(f"{'scores':<16}" + "".join(f"{'n = ' + str(n):>24}" for n in SIZES))
        for name, (sample, truth, _) in POPULATIONS.items():
            cells = []
            for n in SIZES:
                rank, mean, both = false_alarms(make(sample, truth), n, sets, seed)
                cells.append(
                    f"{judged(both, both <= FALSE_ALARMS, f'{title}, {name}, n = {n}')} ({rank:.3f}, {mean:.3f})"
                )
            print(f"{name:<16}" + "".join(f"{cell:>26}" for cell in cells), flush=True)
    print(f"\nany of 28 pairs told apart, eight equal methods, {min(sets, 1000)} data sets; limit {FALSE_ALARMS}")
    for name in ("normal", "exponential"):
        row = [family_alarms(POPULATIONS[name][0], n, min(sets, 1000), seed) for n in SIZES]
        cells = [judged(v, v <= FALSE_ALARMS, f"family, {name}, n = {n}") for v, n in zip(row, SIZES, strict=True)]
        print(f"{name:<25}" + "".join(cells), flush=True)
    print("\ntold apart with the number of images said to be needed for a chance of 0.8; limits 0.75–0.85")
    for effect in (0.8, 0.5, 0.2):
        n, found = power_at_needed(effect, sets, seed)
        print(f"effect size {effect}: {n:>4} images {judged(found, 0.75 <= found <= 0.85, f'power, {effect}')}")
    print(f"\n{time.perf_counter() - start:.0f} s; outside the limits: {'; '.join(outside) or 'nothing'}")
    return bool(outside)


def compare_kinds(sets: int, seed: int) -> int:
    """Coverage, and length relative to Student's t, of every kind of interval."""
    kinds = ("student", "percentile", "bca", "studentised")
    for n in SIZES:
        print(f"n = {n:<14}" + "".join(f"{kind:>18}" for kind in kinds))
        for name, (sample, truth, _) in POPULATIONS.items():
            found = [covered(sample, truth, n, sets, seed, kind) for kind in kinds]
            cells = [f"{share:.3f} ({length / found[0][1]:.2f})" for share, length in found]
            print(f"{name:<18}" + "".join(f"{cell:>18}" for cell in cells), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
