"""Do intervals and tests hold what they promise? Simulated data sets of known truth, through the tables' functions.

    python benchmarks/coverage.py                       # all parts, 2000 data sets for each figure
    python benchmarks/coverage.py --part coverage       # or false-alarms, any-pair, other-shapes, power, kinds
    python benchmarks/coverage.py --quick               # 300 data sets

Data sets are groups of six images with a given intra-group correlation (ICC), or images that are their own groups. The
values of an image are a part that its group shares and a part of its own, both of the named shape. `other-shapes` has
groups of 1 to 12 images, heavier tails, ties and missing images. `kinds` shows all kinds of interval side by side.
Exits with 1 when a figure is outside its limits.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import numpy as np

from faithmap.statistics.bootstrap import mean_intervals
from faithmap.statistics.comparing import compared
from faithmap.statistics.groups import group_means
from faithmap.statistics.measured import Measured
from faithmap.statistics.power import units_needed
from faithmap.statistics.significance import holm, signed_rank

Sampler = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]

# Name → values with mean 0 and standard deviation 1, skewness.
SHAPES: dict[str, tuple[Sampler, str]] = {
    "normal": (lambda r, s: r.normal(size=s), "0"),
    "t, 5 degrees": (lambda r, s: r.standard_t(5, s) / np.sqrt(5 / 3), "0"),
    "beta(0.5, 2)": (lambda r, s: (r.beta(0.5, 2, s) - 0.2) / np.sqrt(0.16 / 3.5), "1.2"),
    "lognormal 0.5": (lambda r, s: (r.lognormal(0, 0.5, s) - np.exp(0.125)) / 0.60393, "1.8"),
    "exponential": (lambda r, s: r.exponential(size=s) - 1, "2"),
    "−exponential": (lambda r, s: 1 - r.exponential(size=s), "−2"),
}
OTHERS: dict[str, tuple[Sampler, str]] = {
    "t, 3 degrees": (lambda r, s: r.standard_t(3, s) / np.sqrt(3), "0"),
    "gamma(1)": (lambda r, s: r.gamma(1, size=s) - 1, "2"),
    "gamma(0.5)": (lambda r, s: (r.gamma(0.5, size=s) - 0.5) / np.sqrt(0.5), "2.8"),
    "lognormal 1": (lambda r, s: (r.lognormal(0, 1, s) - np.exp(0.5)) / np.sqrt(np.exp(2) - np.exp(1)), "6.2"),
    "integers": (lambda r, s: r.poisson(1, s) - 1.0, "1"),
}
OTHER_GROUPS, OTHER_ICCS, MISSING = (9, 12, 30, 75), (0.0, 0.3, 0.9), 0.1
GRID_SHAPES = ("normal", "lognormal 0.5", "exponential", "−exponential")
GROUPS, IMAGES, ICCS = (8, 20, 50, 200), 6, (0.0, 0.4, 0.8)
COVERAGE, FEW, FALSE_ALARMS = (0.93, 0.97), (0.92, 0.98), 0.055
METHODS = 8
PILOTS = 401
BLOCK = 50  # data sets that share resamples


def grouped(shape: Sampler, r: np.random.Generator, groups: int, columns: int, icc: float) -> np.ndarray:
    """(groups × images, columns), mean 0 and standard deviation 1, images of a group together."""
    shared = np.repeat(shape(r, (groups, columns)), IMAGES, axis=0)
    return np.sqrt(icc) * shared + np.sqrt(1 - icc) * shape(r, (groups * IMAGES, columns))


def groups_of(groups: int) -> np.ndarray:
    return np.repeat(np.arange(groups), IMAGES).astype(str)


def of_other_sizes(
    shape: Sampler, r: np.random.Generator, groups: int, columns: int, icc: float, missing: float
) -> tuple[np.ndarray, np.ndarray]:
    """Values of groups of 1 to 12 images, a fraction of them missing but the first image of each group; and groups."""
    sizes = r.integers(1, 13, groups)
    of = np.repeat(np.arange(groups), sizes)
    values = np.sqrt(icc) * shape(r, (groups, columns))[of] + np.sqrt(1 - icc) * shape(r, (len(of), columns))
    first = np.r_[True, np.diff(of) > 0]
    values[(r.random(values.shape) < missing) & ~first[:, None]] = np.nan
    return values, of.astype(str)


def blocks(sets: int) -> range:
    return range(-(-sets // BLOCK))


def covered(name: str, groups: int, icc: float | None, sets: int, seed: int, kind: str = "auto") -> tuple[float, float]:
    """Fraction of intervals that hold the true mean, and their mean length; ICC None: one image in each group."""
    generator, shape = np.random.default_rng([seed, groups]), SHAPES[name][0]
    hits, lengths = [], []
    for block in blocks(sets):
        if icc is None:
            values = shape(generator, (groups, BLOCK))
        else:
            values = group_means(grouped(shape, generator, groups, BLOCK, icc), groups_of(groups))
        found = mean_intervals(values + 0.3, seed=block, interval=kind)
        hits.append((found.low <= 0.3) & (found.high >= 0.3))
        lengths.append(found.high - found.low)
    return float(np.mean(hits)), float(np.mean(lengths))


def false_alarms(differences: Sampler, n: int, sets: int, seed: int) -> tuple[float, float, float]:
    """Fraction of data sets without a difference in which one is found: signed ranks, mean, both (as in the tables)."""
    generator = np.random.default_rng([seed, n, 1])
    rank, mean, both = [], [], []
    for block in blocks(sets):
        difference = differences(generator, (n, BLOCK))
        (p, side), found = signed_rank(difference), mean_intervals(difference, seed=block)
        rank.append(p < 0.05)
        mean.append(found.p < 0.05)
        both.append(rank[-1] & mean[-1] & (side * found.mean > 0) & (found.low * found.high > 0))
    return float(np.mean(rank)), float(np.mean(mean)), float(np.mean(both))


def significant_pairs(units: np.ndarray, seed: int, *, with_random: bool) -> np.ndarray:
    """(data sets, pairs): what `compare` calls significant in the family that decides, many data sets at once.

    Args:
        units: (units, data sets, methods). With random, the last one, that is each other method against it: pairs of
            methods are asked about only where this finds something. Else all pairs.
    """
    first, second = np.triu_indices(METHODS, 1)
    if with_random:
        first, second = first[second == METHODS - 1], second[second == METHODS - 1]
    return significant_of((units[:, :, first] - units[:, :, second]).reshape(len(units), -1), len(first), seed)


def significant_of(difference: np.ndarray, family: int, seed: int) -> np.ndarray:
    """(data sets, pairs), from differences (units, data sets × pairs) and the number of pairs."""
    (p, side), found = signed_rank(difference), mean_intervals(difference, seed=seed)
    clear = (side * found.mean > 0) & (found.low * found.high > 0)
    p, p_mean, clear = (part.reshape(-1, family) for part in (p, found.p, clear))
    both = [(holm(a) < 0.05) & (holm(b) < 0.05) for a, b in zip(p, p_mean, strict=True)]
    return np.array(both) & clear


def any_pair(name: str, groups: int, icc: float, sets: int, seed: int) -> tuple[float, float, float]:
    """Fraction of data sets of eight equal methods in which anything is significant.

    Returns:
        With random among the eight; without; and with random if images were taken for groups (NaN where that is slow).
    """
    generator, shape = np.random.default_rng([seed, groups, 2]), SHAPES[name][0]
    found: tuple[list[float], ...] = ([], [], [])
    for block in blocks(sets):
        values = grouped(shape, generator, groups, BLOCK * METHODS, icc)
        units = group_means(values, groups_of(groups)).reshape(groups, BLOCK, METHODS)
        for with_random, rates in zip((True, False), found, strict=False):
            significant = significant_pairs(units, block, with_random=with_random).any(1)
            rates.append(float(significant.mean()))
            if block == 0:
                check_against_tables(values.reshape(-1, BLOCK, METHODS), groups_of(groups), significant, with_random)
        if groups <= 20:
            by_image = significant_pairs(values.reshape(-1, BLOCK, METHODS), block, with_random=True)
            found[2].append(float(by_image.any(1).mean()))
    return tuple(float(np.mean(rates)) if rates else np.nan for rates in found)  # type: ignore[return-value]


def other_shape(shape: Sampler, groups: int, icc: float, sets: int, seed: int) -> tuple[float, float, float]:
    """Coverage, and how often anything is significant among eight equal methods: with random among them, and without.

    Data of `of_other_sizes`: each block of data sets has sizes of its own.
    """
    generator = np.random.default_rng([seed, groups, 4])
    hits: list[float] = []
    rates: tuple[list[float], list[float]] = ([], [])
    first, second = np.triu_indices(METHODS, 1)
    against = second == METHODS - 1
    for block in blocks(sets):
        values, of = of_other_sizes(shape, generator, groups, BLOCK * METHODS, icc, MISSING)
        means = mean_intervals(group_means(values[:, :BLOCK], of), seed=block)
        hits += ((means.low <= 0) & (means.high >= 0)).tolist()
        each = values.reshape(-1, BLOCK, METHODS)
        for kept, found in zip((against, np.full(len(first), True)), rates, strict=True):
            difference = (each[:, :, first[kept]] - each[:, :, second[kept]]).reshape(len(values), -1)
            significant = significant_of(group_means(difference, of), int(kept.sum()), block).any(1)
            found.append(float(significant.mean()))
            if block == 0:
                check_against_tables(each, of, significant, kept is against)
    return float(np.mean(hits)), float(np.mean(rates[0])), float(np.mean(rates[1]))


def check_against_tables(values: np.ndarray, groups: np.ndarray, expected: np.ndarray, with_random: bool) -> None:
    """`compare` finds something in the same data sets, one with and one without where there are such."""
    names = [*(f"m{i}" for i in range(METHODS - 1)), "random" if with_random else "last"]
    images = np.arange(len(values)).astype(str)
    for data in {int(expected.argmax()), int(expected.argmin())}:
        one = Measured("", True, images, groups, names, values[:, data])
        table = compared(one, 0.95, 0, power=None)
        assert table["significant"].any() == expected[data], f"data set {data}: the tables find another answer"


def power_at_needed(
    name: str, effect: float, level: float, seen: int | None, sets: int, seed: int
) -> tuple[float, float]:
    """Needed groups, and how often a difference is found with as many.

    Args:
        seen: from how many groups the number is computed; None: from so many that their shape is known.
    """
    generator, shape = np.random.default_rng([seed, 3]), SHAPES[name][0]
    pilots = [units_needed(effect + shape(generator, (seen or 20_000,)), level) for _ in range(PILOTS if seen else 1)]
    n = int(np.median(np.where(np.isnan(pilots), np.inf, pilots)))  # no number: no difference was seen
    found = []
    for block in blocks(sets):
        x = effect + shape(generator, (n, BLOCK))
        found.append((signed_rank(x)[0] < level) & (mean_intervals(x, seed=block).p < level))
    return n, float(np.mean(found))


class Report:
    """Prints figures and remembers those outside their limits."""

    def __init__(self) -> None:
        self.outside: list[str] = []

    def cell(self, value: float, good: bool, name: str) -> str:
        if not good:
            self.outside.append(f"{name}: {value:.3f}")
        return f"{value:.3f}{'' if good else ' !'}"

    def row(self, *cells: str) -> None:
        print("| " + " | ".join(cells) + " |", flush=True)

    def head(self, *cells: str) -> None:
        self.row(*cells)
        self.row(*["---"] * len(cells))


def coverage_part(report: Report, sets: int, seed: int) -> None:
    print(f"\ncoverage of 95 % intervals, groups of {IMAGES} images; limits {COVERAGE}, {FEW} for 8 groups\n")
    report.head("values", "skewness", "ICC", *(f"{n} groups" for n in GROUPS))
    for name in GRID_SHAPES:
        for icc in ICCS:
            cells = []
            for n in GROUPS:
                value, _ = covered(name, n, icc, sets, seed)
                low, high = FEW if n == 8 else COVERAGE
                good = low <= value <= high or (n == 8 and name != "normal")  # 8 groups are promised for normal values
                cells.append(report.cell(value, good, f"coverage, {name}, ICC {icc}, {n} groups"))
            report.row(name, SHAPES[name][1], f"{icc:g}", *cells)
    print("\nimages that are their own groups\n")
    sizes = (10, 20, 50, 200, 1000)
    report.head("values", "skewness", *(f"n = {n}" for n in sizes))
    for name in SHAPES:
        cells = []
        for n in sizes:
            value, _ = covered(name, n, None, sets, seed)
            cells.append(report.cell(value, n == 10 or COVERAGE[0] <= value <= COVERAGE[1], f"{name}, n = {n}"))
        report.row(name, SHAPES[name][1], *cells)


def false_alarms_part(report: Report, sets: int, seed: int) -> None:
    sizes = (8, 20, 50, 200)
    for title, make in (
        ("same distribution for both methods", lambda f: lambda r, s: f(r, s) - f(r, s)),
        ("equal means, skewed differences", lambda f: f),
    ):
        print(f"\nsignificant at 5 %: {title} (signed ranks alone, mean alone); limit {FALSE_ALARMS}\n")
        report.head("values", *(f"{n} groups" for n in sizes))
        for name, (shape, skewness) in SHAPES.items():
            cells = []
            for n in sizes:
                rank, mean, both = false_alarms(make(shape), n, sets, seed)
                promised = n > 8 or skewness == "0"  # 8 groups are promised for symmetric values
                good = both <= FALSE_ALARMS or not promised
                cells.append(f"{report.cell(both, good, f'{title}, {name}, {n}')} ({rank:.3f}, {mean:.3f})")
            report.row(name, *cells)


def any_pair_part(report: Report, sets: int, seed: int) -> None:
    print(f"\nanything significant among {METHODS} equal methods: random among them; without random (by image)\n")
    report.head("values", "ICC", *(f"{n} groups" for n in GROUPS))
    for name in ("normal", "exponential"):
        for icc in ICCS:
            cells = []
            for n in GROUPS:
                *found, by_image = any_pair(name, n, icc, sets, seed)
                limit = FALSE_ALARMS + 2 * np.sqrt(FALSE_ALARMS * (1 - FALSE_ALARMS) / sets)
                shown = [report.cell(value, value <= limit, f"any pair, {name}, {icc}, {n} groups") for value in found]
                cells.append("; ".join(shown) + ("" if np.isnan(by_image) else f" ({by_image:.3f})"))
            report.row(name, f"{icc:g}", *cells)


def other_shapes_part(report: Report, sets: int, seed: int) -> None:
    print(f"\ngroups of 1 to 12 images, {MISSING:.0%} missing: coverage; anything significant, with random; without\n")
    report.head("values", "skewness", "ICC", *(f"{n} groups" for n in OTHER_GROUPS))
    limit = FALSE_ALARMS + 2 * np.sqrt(FALSE_ALARMS * (1 - FALSE_ALARMS) / sets)
    for name, (shape, skewness) in OTHERS.items():
        for icc in OTHER_ICCS:
            cells = []
            for n in OTHER_GROUPS:
                held, *alarms = other_shape(shape, n, icc, sets, seed)
                good = COVERAGE[0] <= held <= COVERAGE[1] or n < 20
                shown = [report.cell(held, good, f"other shapes, coverage, {name}, ICC {icc}, {n} groups")]
                shown += [report.cell(x, x <= limit, f"other shapes, any, {name}, {icc}, {n} groups") for x in alarms]
                cells.append("; ".join(shown))
            report.row(name, skewness, f"{icc:g}", *cells)


def power_part(report: Report, sets: int, seed: int) -> None:
    print("\nfound with the number of groups said to be needed for a chance of 0.8\n")
    report.head("values", "effect", "level", "groups needed", "found", "needed by 40 groups (median)", "found")
    for name in ("normal", "lognormal 0.5", "exponential", "−exponential"):
        for effect, level in ((0.8, 0.05), (0.4, 0.05), (0.4, 0.05 / 28)):
            n, found = power_at_needed(name, effect, level, None, sets, seed)
            seen_n, seen_found = power_at_needed(name, effect, level, 40, sets, seed)
            good = report.cell(found, 0.72 <= found <= 0.88, f"power, {name}, {effect}, {level:.4f}")
            report.row(name, f"{effect}", f"{level:.2g}", f"{n}", good, f"{seen_n}", f"{seen_found:.3f}")


def kinds_part(report: Report, sets: int, seed: int) -> None:
    kinds = ("student", "percentile", "bca", "studentised", "auto")
    for n in (20, 200):
        print(f"\ncoverage and length relative to Student's t, n = {n}\n")
        report.head("values", *kinds)
        for name in SHAPES:
            found = [covered(name, n, None, sets, seed, kind) for kind in kinds]
            report.row(name, *(f"{held:.3f} ({length / found[0][1]:.2f})" for held, length in found))


PARTS = {
    "coverage": coverage_part,
    "false-alarms": false_alarms_part,
    "any-pair": any_pair_part,
    "other-shapes": other_shapes_part,
    "power": power_part,
    "kinds": kinds_part,
}


def main() -> int:
    """Print all tables; 0 when every figure is within its limits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, action="append", help="which part; all by default")
    parser.add_argument("--sets", type=int, default=2000, help="data sets for each figure")
    parser.add_argument("--quick", action="store_true", help="300 data sets for each figure")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    report, start = Report(), time.perf_counter()
    for name in options.part or PARTS:
        PARTS[name](report, 300 if options.quick else options.sets, options.seed)
    print(f"\n{time.perf_counter() - start:.0f} s; outside the limits: {'; '.join(report.outside) or 'nothing'}")
    return bool(report.outside)


if __name__ == "__main__":
    sys.exit(main())
