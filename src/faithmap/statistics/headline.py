"""The answer in sentences, made from the same table and tests that stand beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from faithmap.arguments import checked
from faithmap.errors import CurveError
from faithmap.protocol import RANDOM, Score
from faithmap.statistics.comparing import PAIRS, VS_RANDOM, Comparison, comparison
from faithmap.statistics.measured import Measured, measured
from faithmap.statistics.per_image import has_probability
from faithmap.text import counted, display_name, percent, several, significant


@checked(CurveError)
def headline(
    frame: pd.DataFrame | Measured,
    score: str = "logit",
    step: int | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    order: str = "morf",
    direction: str = "remove",
    measure: str = "aopc",
) -> str:
    """The answer for one score.

    Args:
        frame, score, step, confidence, seed, order, direction, measure: as in `compare`.
    Example:
        "LRP-ε (0.01) has the highest SRG by probability: 0.083 above random, 95 % interval 0.071 to 0.095, from 1000
        images. It is not distinguishable from LRP-ε (0)."
    """
    one = frame if isinstance(frame, Measured) else measured(frame, measure, score, step, order, direction)
    return sentence(comparison(one, confidence, seed))


@checked(CurveError)
def verdict(
    frame: pd.DataFrame,
    score: str = "logit",
    step: int | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    order: str = "morf",
    direction: str = "remove",
    measure: str = "aopc",
) -> list[str]:
    """The answer for the score that is shown, and whether the other score gives the same one.

    Args:
        frame, step, confidence, seed, order, direction, measure: as in `compare`.
        score: that of the first sentence; the only one where there is no probability.
    """
    scores = [str(score), *(str(other) for other in Score if str(other) != str(score) and has_probability(frame))]
    found = [
        comparison(measured(frame, measure, name, step, order, direction), confidence, seed)
        for name in scores
        if name == str(score) or name in frame
    ]
    return [sentence(found[0]), *(second_opinion(found[0], other) for other in found[1:])]


def sentence(found: Comparison) -> str:
    """The headline of a comparison: who is first, by how much, and what the tests say."""
    say = _Facts.of(found)
    if say.best is None:
        return say.nothing()
    parts = [say.opening(), say.beside_random(), say.beside_others(), say.worse_than_random()]
    if not say.has_interval:
        parts = [say.opening(), f"One {say.unit_name()} gives no interval and no test"]
    return " ".join(f"{part}." for part in parts if part)


def second_opinion(first: Comparison, second: Comparison) -> str:
    """How another score answers the same question: the same, or what differs."""
    one, other = _Facts.of(first), _Facts.of(second)
    by = f"by {second.measured.unit}"
    if one.best is None or other.best is None:
        return f"By {second.measured.unit}: {sentence(second)}"
    said = f"{other.name} is first" + other.standing_in_words()
    if one.name != other.name:
        return f"The scores differ: {by} {said}{other.alike_in_words()}."
    if one.tested() == other.tested():
        return f"By {second.measured.unit} the answer is the same: {said}."
    if one.standing() == other.standing():
        return f"By {second.measured.unit}, too, {said}{other.alike_in_words()}."
    return f"The scores agree on the first and differ in the tests: {by} {said}{other.alike_in_words()}."


@dataclass(frozen=True)
class _Facts:
    """What a comparison holds, in the words of its sentences.

    Attributes:
        best: the row of the ranking of the best method; None where no method has a value.
        better, worse: methods that are significantly better (worse) than random orders.
        alike: other methods that the best one is not distinguishable from.
        above: other methods that are significantly better than the best one on the images that both have.
        others: the other methods that have values.
    """

    found: Comparison
    best: dict[str, Any] | None
    better: list[str]
    worse: list[str]
    alike: list[str]
    above: list[str]
    others: list[str]

    @classmethod
    def of(cls, found: Comparison) -> _Facts:
        table = found.table
        rows = table[(table["method"] != RANDOM) & (table["n"] > 0)]
        if rows.empty:
            return cls(found, None, [], [], [], [], [])
        best = {str(name): value for name, value in rows.iloc[0].items()}
        pairs = found.pairs[(found.pairs["family"] == PAIRS) & (found.pairs["n"] > 0)]
        of_best = pairs[(pairs["a"] == best["method"]) | (pairs["b"] == best["method"])]
        good = "a" if found.measured.higher_is_better else "b"
        others = rows["method"].iloc[1:].tolist()
        alike, above = [], []
        for name in others:
            pair = of_best[(of_best["a"] == name) | (of_best["b"] == name)]
            if pair.empty or not pair["significant"].iloc[0]:
                alike.append(name)
            elif pair[good].iloc[0] == name:
                above.append(name)
        better, worse = (list(rows.loc[rows["vs_random"] == word, "method"]) for word in ("better", "worse"))
        return cls(found, best, better, worse, alike, above, others)

    @property
    def name(self) -> str:
        return display_name(self._row["method"])

    @property
    def has_interval(self) -> bool:
        return bool(np.isfinite(self._row["low"]))

    @property
    def _row(self) -> dict[str, Any]:
        assert self.best is not None
        return self.best

    @property
    def _gain(self) -> float:
        """How much better than random the best is: positive is better."""
        return float(self.found.measured.sign * self._row["mean"])

    def nothing(self) -> str:
        measure = self.found.measured
        if set(measure.methods) - {RANDOM}:
            return f"No heatmap method has a value of {measure.label} yet."
        return "No heatmap method was measured, only random orders."

    def tested(self) -> tuple[Any, ...]:
        """All that the tests say, to be the same in two scores or not."""
        return self.standing(), set(self.better), set(self.worse), set(self.alike), set(self.above)

    def standing(self) -> str:
        """Of the best method beside random orders: "better", "worse", "unclear" or "alone" (no reference)."""
        if not self.found.measured.has_random:
            return "alone"
        method = self._row["method"]
        return "better" if method in self.better else "worse" if method in self.worse else "unclear"

    def standing_in_words(self) -> str:
        if not self.has_interval or (self.standing() == "unclear" and self._too_few_for_random()):
            return ""
        words = {
            "better": ", significantly better than random orders",
            "worse": ", significantly worse than random orders",
            "unclear": ", not distinguishable from random orders",
            "alone": "",
        }
        return words[self.standing()]

    def alike_in_words(self) -> str:
        if self.standing() not in ("better", "alone") or not self.others or not self.has_interval:
            return ""
        if not self._enough_for_pairs():
            return ""
        return f"{',' if self.standing() == 'alone' else ' and'} {self._among_others()}"

    def opening(self) -> str:
        """Who is first and by how much, unless that would sound as if it were better than random orders."""
        extreme = "highest" if self.found.measured.higher_is_better else "lowest"
        lead = f"{self.name} has the {extreme} {self._measure()}: {self._amount()}"
        if self.standing() in ("better", "alone") or self.better or self._too_few_for_random():
            return lead
        claim = "significantly better" if self._gain > 0 else "better"
        return f"No method is {claim} than random orders. The best is {self.name}: {self._measure()} {self._amount()}"

    def _measure(self) -> str:
        measure = self.found.measured
        return f"{measure.label} by {measure.unit}" if measure.unit else measure.label

    def _amount(self) -> str:
        """The number, its interval, and what it rests on."""
        row, noun = self._row, self.found.measured.noun
        mean, low, high = _rounded(*(float(row[part]) for part in ("mean", "low", "high")))
        parts = [mean]
        if self.found.measured.has_random:
            parts = [f"{mean} above random" if row["mean"] > 0 else f"{mean} relative to random"]
        if self.has_interval:
            parts.append(f"{percent(self.found.confidence)} interval {low} to {high}")
        parts.append(f"from {counted(int(row['groups']), int(row['n']), noun)}")
        if row["left_out"]:
            parts.append(f"{several(int(row['left_out']), 'image')} left out")
        return ", ".join(parts)

    def unit_name(self) -> str:
        return "image" if self._row["groups"] == self._row["n"] else self.found.measured.noun

    def beside_random(self) -> str:
        """Why the best is not significantly better than random orders; empty where it is, or the opening says it."""
        if self.standing() in ("better", "alone"):
            return ""
        if self.standing() == "worse":
            return "It is significantly worse than random orders"
        tests, fewest = self.found.comparisons(VS_RANDOM), self.found.fewest(VS_RANDOM)
        if self._too_few_for_random():
            what = f"none of {tests} comparisons with random orders can"
            if tests == 1 or self._most(VS_RANDOM) >= fewest:
                what = "its comparison with random orders cannot"
            return f"With {self._have()} {what} be significant; at least {fewest} are needed"
        if self.better:
            better = f"{_listed(self.better)} {'is' if len(self.better) == 1 else 'are'} significantly better"
            return f"It is not distinguishable from random orders, while {better}"
        if self._row["low"] * self._row["high"] > 0:
            if tests == 1:
                return "This interval excludes 0, but the signed ranks do not confirm it"
            return f"This interval excludes 0, but the tests, corrected for {tests} methods, do not confirm it"
        return "" if self._gain > 0 else "It is not distinguishable from random orders"

    def beside_others(self) -> str:
        """How the best stands to the other methods; empty where nothing is better than random orders."""
        if self.standing() != "alone" and not self.better:
            return ""
        if not self.others:
            return "It is the only method"
        return f"It is {self._among_others()}" if self._enough_for_pairs() else self._too_few_for_pairs()

    def _among_others(self) -> str:
        if self.above:
            return f"significantly worse than {_listed(self.above)} on the images that both have"
        if self.alike:
            return f"not distinguishable from {_listed(self.alike)}"
        return f"significantly better than {_listed(self.others) if len(self.others) == 1 else 'every other method'}"

    def _too_few_for_random(self) -> bool:
        return bool(self._row["groups"] < self.found.fewest(VS_RANDOM))

    def _enough_for_pairs(self) -> bool:
        return not self.found.too_few(PAIRS)

    def _most(self, family: str) -> int:
        """Groups of the pair that has most of them; a run that is half finished has fewer for some."""
        return int(self.found.pairs.loc[self.found.pairs["family"] == family, "groups"].max())

    def _have(self) -> str:
        """ "8 groups", or "8 images" where each image is its own."""
        return several(int(self._row["groups"]), self.unit_name())

    def _too_few_for_pairs(self) -> str:
        tests, fewest = self.found.comparisons(PAIRS), self.found.fewest(PAIRS)
        what = f"none of {tests} pairs of methods can be" if tests > 1 else "two methods cannot be"
        return f"With {self._have()} {what} significantly different; at least {fewest} are needed"

    def worse_than_random(self) -> str:
        rest = [name for name in self.worse if name != self._row["method"]]
        if not rest:
            return ""
        return f"{_listed(rest)} {'is' if len(rest) == 1 else 'are'} significantly worse than random orders"


def _rounded(mean: float, low: float, high: float) -> list[str]:
    """With two digits of the interval's half width, and one more where an end would show as zero."""
    width = abs(high - low) / 2 or abs(mean)
    if not np.isfinite(width):
        return [significant(value) for value in (mean, low, high)]
    smallest = min((abs(end) for end in (low, high) if end), default=1.0)
    digits = max(0, 1 - _magnitude(width), min(-_magnitude(smallest), 2 - _magnitude(width)))
    return [f"{value:z.{digits}f}".replace("-", "−") for value in (mean, low, high)]


def _magnitude(value: float) -> int:
    return int(np.floor(np.log10(value))) if value else 0


def _listed(methods: Sequence[str], most: int = 3) -> str:
    names = [display_name(name) for name in methods]
    shown = names if len(names) <= most else [*names[: most - 1], f"{len(names) - most + 1} others"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
