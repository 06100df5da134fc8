"""Stop when decided: how often a run stops where nothing differs, and how many groups it saves where something does.

    python benchmarks/sequential.py            # 2000 runs for each figure
    python benchmarks/sequential.py --quick    # 200 runs

Each run looks at its groups after every stage, with the tests of `decided`, computed for many runs at once; a few runs
go through `decided` itself and must give the same. `naive` looks as often without a correction.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np

from faithmap.statistics import Measured, boundary, decided
from faithmap.statistics.bootstrap import mean_intervals
from faithmap.statistics.significance import holm, signed_rank

METHODS = 5  # and random, which is the last
AT_MOST, STAGES = 100, 5
LOOKS = [AT_MOST * (stage + 1) // STAGES for stage in range(STAGES)]
LIMIT = 0.05
BLOCK = 50  # runs that share resamples


def values_of(effects: list[float], shape: str, generator: np.random.Generator) -> np.ndarray:
    """(groups, runs, methods)."""
    size = (AT_MOST, BLOCK, len(effects))
    noise = generator.normal(size=size) if shape == "normal" else generator.exponential(size=size) - 1
    return np.array(effects) + noise


def tests(values: np.ndarray, first: np.ndarray, second: np.ndarray, level: float) -> np.ndarray:
    """Whether the first of each pair of methods is significantly better (1) or worse (−1): (runs, pairs)."""
    difference = (values[:, :, first] - values[:, :, second]).reshape(len(values), -1)
    found = mean_intervals(difference, 1 - level)
    p, side = signed_rank(difference)
    shape = (values.shape[1], len(first))
    p, p_mean = p.reshape(shape), found.p.reshape(shape)
    both = np.array([(holm(a) < level) & (holm(b) < level) for a, b in zip(p, p_mean, strict=True)])
    clear = ((found.low * found.high > 0) & (side * found.mean > 0)).reshape(shape)
    result: np.ndarray = (both & clear) * np.sign(found.mean).reshape(shape)
    return result


def decisions(values: np.ndarray, level: float) -> dict[str, np.ndarray]:
    """Contrast → whether it is decided, for each run."""
    runs, random = np.arange(values.shape[1]), values.shape[2] - 1
    leader = values[:, :, :random].mean(0).argmax(1)
    first, second = np.triu_indices(random, 1)
    pairs = tests(values, first, second, level)
    beats = np.where(first == leader[:, None], pairs, np.where(second == leader[:, None], -pairs, 1))
    above = tests(values, np.arange(random), np.full(random, random), level)[runs, leader] > 0
    return {
        "pair": tests(values, np.array([0]), np.array([1]), level)[:, 0] != 0,
        "leader": (beats > 0).all(1) & above,
        "random": above,
    }


def stops(values: np.ndarray, levels: tuple[float, ...]) -> dict[str, np.ndarray]:
    """Contrast → after how many groups each run stops; 0 where it never does."""
    found: dict[str, np.ndarray] = {}
    for look, level in zip(LOOKS, levels, strict=True):
        for contrast, yes in decisions(values[:look], level).items():
            stopped = found.setdefault(contrast, np.zeros(values.shape[1], dtype=int))
            stopped[(stopped == 0) & yes] = look
    return found


def same_as_decided(values: np.ndarray, levels: tuple[float, ...]) -> bool:
    """Whether `decided` stops the first runs where `stops` does."""
    expected = stops(values[:, :2], levels)
    names = [*(f"m{i}" for i in range(values.shape[2] - 1)), "random"]
    images = np.array([f"{i:04d}" for i in range(AT_MOST)], dtype=object)
    for run in range(2):
        for contrast, asked in (("pair", ("m0", "m1")), ("leader", "leader"), ("random", "random")):
            seen = 0
            for at, look in enumerate(LOOKS, 1):
                one = Measured("", True, images[:look], images[:look], names, values[:look, run])
                if decided(one, LOOKS[:at], AT_MOST, asked).decided:
                    seen = look
                    break
            if seen != expected[contrast][run]:
                return False
    return True


def main() -> int:
    """Print both tables; 0 when false alarms are within the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--quick", action="store_true", help="200 runs for each figure")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    blocks, start, worst = (200 if options.quick else options.runs) // BLOCK, time.perf_counter(), 0.0
    fractions = [look / AT_MOST for look in LOOKS]
    print(f"looks after {LOOKS} groups at p < {', '.join(f'{p:.2g}' for p in boundary(fractions))}")
    print(f"{blocks * BLOCK} runs for each figure\n\nfalse alarms: {METHODS} methods and random, all equal\n")
    print("| values | levels | pair | leader | better than random |\n| --- | --- | --- | --- | --- |")
    for shape in ("normal", "exponential"):
        for name in ("obrien-fleming", "pocock", "naive"):
            levels = (0.05,) * STAGES if name == "naive" else boundary(fractions, spending=name)
            generator = np.random.default_rng(options.seed)
            found = [stops(values_of([0.0] * (METHODS + 1), shape, generator), levels) for _ in range(blocks)]
            rates = [float(np.mean([one[key] > 0 for one in found])) for key in ("pair", "leader", "random")]
            worst = worst if name == "naive" else max(worst, *rates)
            print(f"| {shape} | {name} | " + " | ".join(f"{rate:.3f}" for rate in rates) + " |", flush=True)
    print(f"\nthe first ahead of {METHODS - 1} equal methods by so many standard deviations of a value, normal\n")
    print("| ahead by | levels | decided | mean groups | saved | decided by one look at all groups |")
    print("| --- | --- | --- | --- | --- | --- |")
    same = True
    for ahead in (0.5, 0.8, 1.2):
        effects = [1 + ahead, *[1.0] * (METHODS - 1), 0.0]
        for name in ("obrien-fleming", "pocock"):
            generator, levels = np.random.default_rng(options.seed + 1), boundary(fractions, spending=name)
            groups, yes, fixed = [], [], []
            for _ in range(blocks // 2):
                values = values_of(effects, "normal", generator)
                at = stops(values, levels)["leader"]
                groups.append(np.where(at == 0, AT_MOST, at))
                yes.append(at > 0)
                fixed.append(decisions(values, 0.05)["leader"])
            if name == "obrien-fleming":
                same &= same_as_decided(values, levels)
            mean = float(np.mean(groups))
            cells = [f"{np.mean(yes):.3f}", f"{mean:.0f}", f"{1 - mean / AT_MOST:.0%}", f"{np.mean(fixed):.3f}"]
            print(f"| {ahead} | {name} | " + " | ".join(cells) + " |", flush=True)
    noise = 2 * np.sqrt(LIMIT * (1 - LIMIT) / (blocks * BLOCK))
    print(f"\n`decided` gives the same: {'yes' if same else 'NO'}")
    print(f"{time.perf_counter() - start:.0f} s; most false alarms {worst:.3f}, limit {LIMIT} + {noise:.3f} (2 s.e.)")
    return bool(worst > LIMIT + noise or not same)


if __name__ == "__main__":
    sys.exit(main())
