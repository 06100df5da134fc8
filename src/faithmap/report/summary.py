"""What all parts of the page share: a run's scores, the order that is shown, the methods and how they are drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from faithmap.errors import CurveError
from faithmap.images import as_shown_channels
from faithmap.plots.series import COLOURS, Series, series_of
from faithmap.protocol import RANDOM, Direction, Order, Score
from faithmap.statistics import Measured, measured, shown_measure
from faithmap.statistics.comparing import Comparison, comparison
from faithmap.statistics.per_image import has_probability, score_name, score_of_target
from faithmap.store.reading import StoredRun
from faithmap.text import printable

# The stroke of a line on the page, in pixels; dashes are told in line widths.
STROKE = 2.25


@dataclass(frozen=True)
class Line:
    """A method on the page.

    Attributes:
        id: short and harmless, unlike the method's name.
        look: as in all figures.
    """

    id: str
    look: Series

    @property
    def method(self) -> str:
        """Its name."""
        return self.look.method

    @property
    def label(self) -> str:
        """Its name for people."""
        return self.look.label

    @property
    def hue(self) -> str:
        """A class of the style sheet, ``hue-0`` … ``hue-7`` or ``hue-random``."""
        return "hue-random" if self.method == RANDOM else f"hue-{_PLACES[self.look.colour]}"

    @property
    def dash(self) -> str:
        """SVG dash pattern."""
        return self.look.svg_dash(STROKE)

    @property
    def marker(self) -> str:
        """SVG path within −1 … 1; empty for random orders."""
        return self.look.outline

    def to_json(self) -> dict[str, Any]:
        """As the script takes it."""
        colour = f"var(--{'random' if self.method == RANDOM else f'c{_PLACES[self.look.colour]}'})"
        return {"id": self.id, "label": self.label, "hue": colour, "dash": self.dash, "marker": self.marker}


_PLACES = {light: place for place, (light, _) in enumerate(COLOURS)}


@dataclass(frozen=True)
class Summary:
    """A run as the page shows it.

    Attributes:
        scores: all of the run's scores.
        frame: those in one order.
        order: the order that is shown, MoRF if the run has it.
        measure: what methods are ranked by: the protocol's, or AOPC where that cannot be computed yet.
        score: the score that the protocol shows.
        channels: which channels of the images are shown; see `faithmap.images.rgb`.
        points: the steps that were scored, 0 and L among them.
        draws: how many draws the run has so far.
        lines: the methods, best first, random last.
    """

    run: StoredRun
    scores: pd.DataFrame
    frame: pd.DataFrame
    order: str
    measure: str
    score: str
    channels: tuple[int, ...] | None
    points: tuple[int, ...]
    draws: int
    lines: tuple[Line, ...]
    comparisons: dict[str, Comparison] = field(default_factory=dict, repr=False, compare=False)
    _measured: dict[str, Measured] = field(default_factory=dict, repr=False, compare=False)

    @property
    def steps(self) -> int:
        """L."""
        return self.points[-1]

    @property
    def has_random(self) -> bool:
        """Whether there is a reference."""
        return any(line.method == RANDOM for line in self.lines)

    @property
    def restores(self) -> bool:
        """Whether steps bring regions back instead of removing them."""
        return self.run.protocol.direction is Direction.RESTORE

    @property
    def sign(self) -> int:
        """1 where a high value of the measure is good, −1 where a low one is: the score should stay, or come back."""
        return self.measured(self.score).sign

    def measured(self, score: str) -> Measured:
        """The measure of every image and method."""
        if score not in self._measured:
            self._measured[score] = measured(
                self.scores, self.measure, score, order=self.order, direction=self.direction
            )
        return self._measured[score]

    @property
    def direction(self) -> str:
        """As the statistics take it."""
        return str(self.run.protocol.direction)

    @property
    def shown_scores(self) -> list[str]:
        """Both scores; the protocol's alone where there is no probability."""
        return [str(score) for score in Score] if has_probability(self.scores) else [self.score]

    def by(self, score: str) -> str:
        """The class of what belongs to one score: the switch hides it, where there is something to switch to."""
        return f"by-{score}" if len(self.shown_scores) > 1 else ""

    @property
    def score_names(self) -> dict[str, str]:
        """What each score is called in texts."""
        return {score: score_name(self.scores, score) for score in self.shown_scores}

    def of_target(self, score: str) -> str:
        """A score and what of, in words."""
        return f"the {score_of_target(self.scores, score, str(self.run.protocol.target))}"

    @property
    def axis(self) -> str:
        """What steps count."""
        return "regions restored" if self.restores else "regions removed"

    @property
    def labels(self) -> Sequence[str] | None:
        """Class names."""
        return self.run.manifest.classifier.labels

    def output_name(self, index: int | None) -> str:
        """A class as people know it; nothing where outputs are no classes that have names, as in a regression."""
        return self.class_name(index) if has_probability(self.scores) or self.labels else ""

    def class_name(self, index: int | None) -> str:
        """A class as people know it."""
        if index is None or pd.isna(index):
            return ""
        if self.labels is None or not 0 <= index < len(self.labels):
            return f"class {index}"
        return printable(self.labels[index])


def summarise(run: StoredRun, channels: Sequence[int] | None = None) -> Summary:
    """Read the scores of a run.

    Args:
        run: a run folder.
        channels: which channels pictures show; by default those that the classifier names.
    Raises:
        StoreError: a run folder without scores.
    """
    scores = frame = run.scores()
    orders = sorted(str(order) for order in frame["order"].unique())
    order = str(Order.MORF) if Order.MORF in orders else orders[0]
    if len(orders) > 1:
        frame = frame[frame["order"] == order].reset_index(drop=True)
    score = str(run.protocol.score)
    own = frame[frame["method"] != RANDOM]
    methods = sorted(frame["method"].unique())
    summary = Summary(
        run=run,
        scores=scores,
        frame=frame,
        order=order,
        measure=shown_measure(run.protocol),
        score=score,
        channels=as_shown_channels(run.manifest.classifier.shown_channels if channels is None else channels),
        points=tuple(int(step) for step in np.sort(frame["step"].unique())),
        draws=int((own if len(own) else frame)["draw"].nunique()),
        lines=lines(methods),
    )
    try:
        summary.comparisons[score] = comparison(summary.measured(score))
    except CurveError:  # an unfinished run may lack the other order
        summary = replace(summary, measure="aopc")
        summary.comparisons[score] = comparison(summary.measured(score))
    ranked = {name: place for place, name in enumerate(summary.comparisons[score].table["method"])}
    methods.sort(key=lambda name: (name == RANDOM, ranked.get(name, len(ranked)), name))
    return replace(summary, lines=lines(methods))


def lines(methods: Sequence[str]) -> tuple[Line, ...]:
    """Methods in their order, each drawn as everywhere."""
    looks = series_of(methods)
    return tuple(Line(f"m{index}", looks[name]) for index, name in enumerate(methods))


def as_json(values: Any) -> list[float | None]:
    """Numbers to five digits, None where there is none."""
    return [float(f"{value:.5g}") if math.isfinite(value) else None for value in np.asarray(values, dtype=float)]
