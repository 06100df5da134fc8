"""The grade of a measure in words: for each question its number, its interval and its threshold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from faithmap.arguments import checked
from faithmap.errors import CurveError
from faithmap.protocol import RANDOM, Direction
from faithmap.statistics.bootstrap import mean_intervals
from faithmap.statistics.groups import group_means
from faithmap.statistics.known_answers import blends, smoothed_copies
from faithmap.statistics.measured import Measured, measured, r_oms
from faithmap.statistics.per_image import curves_of, has_probability
from faithmap.statistics.power import about
from faithmap.statistics.reliability import (
    AIM,
    NOTHING,
    Value,
    between_draws,
    both_ends,
    draws_of,
    per_image_agreement,
    split_half,
)
from faithmap.statistics.settings import agreement_of_settings
from faithmap.text import display_name, grouped, number, plural

_HARDLY_KNOWN = 0.1  # of its confidence: along nearly all of the path the network no longer knows the images
# Property → from where it is good, from where it is fair; below it is poor. docs/statistics.md says why.
THRESHOLDS: Mapping[str, tuple[float, float]] = {
    "between images": (0.8, 0.6),
    "between draws": (0.75, 0.5),
    "per image": (0.8, 0.667),
    "both ends": (0.8, 0.6),
    "between settings": (0.8, 0.6),
    "known answers": (1.0, 0.75),
}


@dataclass(frozen=True)
class Graded:
    """One question about a measure, answered.

    Attributes:
        property: a name in `THRESHOLDS`, or "smoothness" or "in scope", which have no grade.
        setting: which one; empty for a single run and for what is between settings.
        value, low, high: the number and its interval over groups; NaN where there is none.
        grade: "good", "fair", "poor", or "" where there is no number.
        sentence: in words.
    """

    property: str
    setting: str
    value: float
    low: float
    high: float
    grade: str
    sentence: str


@dataclass(frozen=True)
class Grade:
    """How far a measure can be trusted on these images.

    Attributes:
        label: the measure.
        items: one per property, and per setting where there are several.
        blends: see `known_answers.blends`, with the column setting.
        smoothed: see `known_answers.smoothed_copies`, with the column setting.
    """

    label: str
    items: list[Graded]
    blends: pd.DataFrame
    smoothed: pd.DataFrame

    def table(self) -> pd.DataFrame:
        """Columns property, setting, value, low, high, grade."""
        rows = [(i.property, i.setting, i.value, i.low, i.high, i.grade) for i in self.items]
        return pd.DataFrame(rows, columns=["property", "setting", "value", "low", "high", "grade"])

    def sentences(self) -> list[str]:
        """One per property; of several settings the median, and the worst where it is another grade."""
        said = []
        for name in dict.fromkeys(item.property for item in self.items):
            of = [item for item in self.items if item.property == name]
            numbers = sorted((item for item in of if np.isfinite(item.value)), key=lambda item: item.value)
            if not numbers:
                said.append(of[0].sentence)
                continue
            middle, worst = numbers[(len(numbers) - 1) // 2], numbers[0]
            among = f" (median of {len(numbers)} settings)" if len(numbers) > 1 else ""
            text = f"{middle.sentence.removesuffix('.')}{among}."
            if worst.grade != middle.grade:
                text += f" Worst in {worst.setting}: {number(worst.value, 2)}, {worst.grade}."
            said.append(text)
        return said


@checked(CurveError)
def grade(
    frames: pd.DataFrame | Measured | Mapping[str, pd.DataFrame | Measured],
    score: str = "logit",
    step: int | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    direction: str = "remove",
    measure: str = "srg",
) -> Grade:
    """How far a measure's ranking can be trusted: between images, draws and settings, per image, at both ends of the
    order, and against known answers.

    Args:
        frames: from `Run.scores()`; or a measure that does not come from scores, as `measured_from` or `Run.measured`
            gives it: it is graded by all but draws, ends of the order and scope, which are about scores. Or setting →
            one of these, for a study.
        score, step, direction, measure: as in `measured`; not looked at where a measure is given.
        confidence, seed: of the intervals over groups.
    Raises:
        CurveError: no frame, or one without the rows that the measure needs.
    """
    by_setting = {"": frames} if isinstance(frames, pd.DataFrame | Measured) else dict(frames)
    if not by_setting:
        raise CurveError("a grade needs at least one run, received none.")
    how = {"score": score, "direction": direction}
    items, blended, smoothed, found = [], [], [], {}
    for name, given in by_setting.items():
        one = found[name] = given if isinstance(given, Measured) else measured(given, measure, step=step, **how)
        scores = None if isinstance(given, Measured) else given
        items.append(between_images_item(one, name, confidence, seed))
        if scores is not None:
            items.append(_between_draws(scores, measure, name, confidence, seed, how))
        items.append(_per_image(one, name, confidence, seed))
        if scores is not None:
            items.append(_both_ends(scores, name, confidence, seed, how))
        blended.append(blends(one, confidence, seed).assign(setting=name))
        smoothed.append(smoothed_copies(one, confidence, seed).assign(setting=name))
        items += [_known_answers(blended[-1], name), _smoothness(smoothed[-1], name)]
        if scores is not None:
            items.append(_in_scope(scores, name, confidence, seed, direction))
    if len(found) > 1:
        items.append(_between_settings(found, confidence, seed))
    label = next(iter(found.values())).label
    return Grade(label, items, pd.concat(blended, ignore_index=True), pd.concat(smoothed, ignore_index=True))


def between_images_item(one: Measured, setting: str = "", confidence: float = 0.95, seed: int = 0) -> Graded:
    """Would other images rank the methods alike?"""
    found = split_half(one, confidence, seed)
    unit = "images" if len(set(one.groups.tolist())) == len(one.images) else plural(one.noun)
    if not np.isfinite(found.whole.value):
        why = f"{found.groups} {unit} are too few, or methods fewer than three"
        return _graded("between images", setting, NOTHING, f"Whether other images give the same ranking: {why}.")
    said = f"Two sets of {grouped(found.groups)} {unit} would rank the methods with a Kendall τ of {_of(found.whole)}"
    if found.whole.value < AIM and np.isfinite(found.groups_needed):
        said += f"; about {grouped(about(found.groups_needed))} {unit} would bring it to {AIM}"
    return _graded("between images", setting, found.whole, f"{said}{{}}.")


def _between_draws(
    frame: pd.DataFrame, measure: str, setting: str, confidence: float, seed: int, how: Mapping[str, str]
) -> Graded:
    value = between_draws(draws_of(frame, measure, **how), confidence, seed)
    said = "Whether another draw of the fill gives the same differences: every method needs two draws or more."
    if np.isfinite(value.value):
        said = f"Draws of the fill agree on the differences between methods with an ICC of {_of(value)}{{}}."
    return _graded("between draws", setting, value, said)


def _per_image(one: Measured, setting: str, confidence: float, seed: int) -> Graded:
    value = per_image_agreement(one, confidence, seed)
    said = "Whether single images rank the methods alike: it takes two images and two methods."
    if np.isfinite(value.value):
        said = f"Single images agree on the ranking with Krippendorff's α of {_of(value)}{{}}"
        said += "." if value.value >= THRESHOLDS["per image"][1] else ": one image's ranking says little."
    return _graded("per image", setting, value, said)


def _both_ends(frame: pd.DataFrame, setting: str, confidence: float, seed: int, how: Mapping[str, str]) -> Graded:
    value = both_ends(frame, **how, confidence=confidence, seed=seed)
    said = "Whether MoRF and LeRF rank the methods alike: it takes both orders and three methods."
    if np.isfinite(value.value):
        said = f"On the same image MoRF and LeRF rank the methods with a mean Kendall τ of {_of(value)}{{}}."
    return _graded("both ends", setting, value, said)


def _between_settings(found: Mapping[str, Measured], confidence: float, seed: int) -> Graded:
    agreed = agreement_of_settings(found, confidence, seed)
    value = Value(agreed.tau, agreed.tau_low, agreed.tau_high)
    said = "Whether settings rank the methods alike: it takes two methods that all settings have."
    if np.isfinite(value.value):
        said = f"{len(found)} settings rank the methods with a mean Kendall τ of {_of(value)}{{}}."
    return _graded("between settings", "", value, said)


def _known_answers(pairs: pd.DataFrame, setting: str) -> Graded:
    known = pairs[np.isfinite(pairs["gain"])]
    said = (
        "Whether it puts maps with less noise first: no map was blended with random ranks ('blend:METHOD,share=0.5')."
    )
    if known.empty:
        return _graded("known answers", setting, NOTHING, said)
    right, clearly = int(known["right"].sum()), int((known["right"] & known["significant"]).sum())
    said = f"Of {len(known)} pairs of maps with more and less noise it puts {right} the right way round"
    said += f" ({clearly} significantly){{}}."
    return _graded("known answers", setting, Value(right / len(known)), said)


def _smoothness(copies: pd.DataFrame, setting: str) -> Graded:
    """How much of the methods' leads is smoothness; described, not graded."""
    known = copies[np.isfinite(copies["gain"])]
    if known.empty:
        said = "How much smoothness alone gains: no blurred copy of a map was measured ('smoothed:METHOD,sigma=16')."
        return Graded("smoothness", setting, np.nan, np.nan, np.nan, "", said)
    higher = known[(known["gain"] > 0) & known["significant"]]
    top = known.loc[known["of_lead"].idxmax()] if known["of_lead"].notna().any() else known.loc[known["gain"].idxmax()]
    if higher.empty:
        said = f"None of {len(known)} blurred copies is significantly better than its map."
    else:
        names = ", ".join(display_name(str(name)) for name in dict.fromkeys(higher["method"]))
        said = f"A blurred copy is significantly better than the map itself for {names}: that much is smoothness."
    if np.isfinite(top["of_lead"]) and top["of_lead"] > 0:
        said += (
            f" Blurring {display_name(str(top['method']))} (σ = {top['sigma']:g} pixels) alone makes up "
            f"{100 * top['of_lead']:.0f} % of the best method's lead over it."
        )
    return Graded("smoothness", setting, float(top["of_lead"]), np.nan, np.nan, "", said)


def _in_scope(frame: pd.DataFrame, setting: str, confidence: float, seed: int, direction: str) -> Graded:
    """How much of its confidence the network keeps along random orders (R-OMS); described, not graded."""
    if "probability" not in frame or not has_probability(frame):
        said = "Whether the network still knows the images while regions go: it takes a probability, and there is none."
        return Graded("in scope", setting, np.nan, np.nan, np.nan, "", said)
    rows = frame[(frame["method"] == RANDOM) & np.isfinite(frame["probability"])]
    if rows.empty:
        said = "Whether the network still knows the images while regions go: it takes the method 'random'."
        return Graded("in scope", setting, np.nan, np.nan, np.nan, "", said)
    kept, curves = r_oms(rows), curves_of(rows, "probability", str(rows["order"].iloc[0]))
    whole = curves.values[:, 0, 0 if direction == Direction.REMOVE else -1]
    means = mean_intervals(group_means(np.stack([kept.to_numpy(), whole], 1), curves.groups), confidence, seed)
    share = float(means.mean[0] / means.mean[1])
    said = (
        f"Along random orders the mean probability is {number(means.mean[0], 3)} (R-OMS), {100 * share:.0f} % of that "
        "of the whole images"
    )
    if share < _HARDLY_KNOWN:
        said += ": the network hardly knows these inputs, so its scores say little about any order; try a milder fill"
    return Graded("in scope", setting, float(means.mean[0]), float(means.low[0]), float(means.high[0]), "", f"{said}.")


def _graded(name: str, setting: str, value: Value, sentence: str) -> Graded:
    """With its grade, which stands in the sentence where it has room for it."""
    word = grade_of(name, value.value)
    return Graded(
        name, setting, value.value, value.low, value.high, word, sentence.format(f": {word}") if word else sentence
    )


def grade_of(name: str, value: float) -> str:
    """The grade of a number.

    Example:
        >>> grade_of("between settings", 0.7)
        'fair'
    """
    if not np.isfinite(value):
        return ""
    good, fair = THRESHOLDS[name]
    return "good" if value >= good else "fair" if value >= fair else "poor"


def _of(value: Value) -> str:
    text = number(value.value, 2)
    if np.isfinite(value.low) and np.isfinite(value.high):
        text += f" (interval {number(value.low, 2)} to {number(value.high, 2)})"
    return text
