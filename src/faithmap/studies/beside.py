"""Runs beside each other: the same question asked of several networks, or on several sets of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from faithmap.arguments import checked
from faithmap.errors import ProtocolError, shown
from faithmap.foreign import entries
from faithmap.measures.scorecard import winners
from faithmap.protocol import RANDOM, Steps
from faithmap.run import Run, titles_of
from faithmap.statistics import shown_measure
from faithmap.statistics.significance import fewest_units
from faithmap.text import display_name, words

# Parts that do not change what is asked: they name it, or say how often chance is drawn.
_SAME_QUESTION = frozenset({"name", "draws", "random_draws", "seed", "score", "measure"})


@dataclass(frozen=True)
class Beside:
    """Rankings of several runs.

    Attributes:
        titles: of the runs.
        label: the measure's name.
        measure: the measure.
        score: ``"logit"`` or ``"probability"``.
        named: the score in texts; the runs of each name where they differ.
        relative: whether values of random orders are subtracted.
        table: one row per run and method, with the columns run, method, rank, mean, low, high, letters, groups, and
            measure (the run again, so that the table is a scorecard whose measures are the runs).
    """

    titles: list[str]
    label: str
    measure: str
    score: str
    named: str
    relative: bool
    table: pd.DataFrame

    def methods(self) -> list[str]:
        """Best mean rank first; methods that some run lacks come after those that all have."""
        rank = self.table.groupby("method", sort=True)["rank"].agg(["count", "mean"])
        return [str(name) for name in rank.sort_values(["count", "mean"], ascending=[False, True], kind="stable").index]

    def line(self) -> str:
        """What the numbers of the table are."""
        relative = " relative to random orders" if self.relative else ""
        return (
            f"{self.label} of the {self.named}{relative}, with its 95 % interval; "
            "methods of a run that share a letter are not distinguishable."
        )

    def sentence(self) -> str:
        """Which methods are best everywhere, as far as the tests of each run say."""
        first = winners(self.table)
        none = [title for title in self.titles if not first[title]]
        if none:
            few = [text for title in none if (text := self._too_few(title))]
            said = f"The best method is not significantly better than random orders on {'; '.join(none)}."
            return " ".join([said, *few])
        common = [name for name in first[self.titles[0]] if all(name in some for some in first.values())]
        if not common:
            return f"No method is among the best of all {len(self.titles)} runs."
        names = ", ".join(display_name(name) for name in common)
        return f"Best, or not distinguishable from the best, in all {len(self.titles)} runs: {names}."

    def _too_few(self, title: str) -> str:
        """That a run has too few groups for anything to be better than random orders; empty where it has enough."""
        rows = self.table[(self.table["run"] == title) & (self.table["method"] != RANDOM)]
        rows = rows[rows["groups"] > 0]
        if rows.empty or rows["groups"].max() >= (fewest := fewest_units(len(rows), 0.05)):
            return ""
        most = rows["groups"].max()
        return f"{title} has too few groups of images for that: {most}, and at least {fewest} are needed."


@checked()
def beside(runs: Sequence[Run], measure: str | None = None, score: str | None = None) -> Beside:
    """Rank the methods of several runs by one measure.

    Args:
        runs: at least two, which differ in network, images, methods and draws only.
        measure: as in `Run.measured`; the first run's by default.
        score: ``"logit"`` or ``"probability"``; the first run's by default.
    Raises:
        ProtocolError: fewer than two runs, or runs that ask different questions; the message names the difference.
        CurveError: a measure that a run does not hold.
    """
    given, runs = runs, entries(runs, "runs", ProtocolError) if isinstance(runs, Sequence) else []
    if not isinstance(given, Sequence) or not all(isinstance(run, Run) for run in runs):
        raise ProtocolError(f"runs is {shown(given)}: give a list of runs, such as [Run(folder), Run(other)].")
    if len(runs) < 2:
        raise ProtocolError(f"{len(runs)} run was given: give at least two run folders to compare.")
    titles = titles_of(runs)
    chosen, by = str(score or runs[0].protocol.score), measure or shown_measure(runs[0].protocol)
    first = _question(runs[0], measure, score, by)
    for title, run in zip(titles[1:], runs[1:], strict=True):
        now = _question(run, measure, score, by)
        changed = [
            f"{part}: {first.get(part)} → {now.get(part)}" for part in first | now if first.get(part) != now.get(part)
        ]
        changed += _changed_methods(runs[0], run)
        if changed:
            raise ProtocolError(
                f"'{titles[0]}' and '{title}' ask different questions ({'; '.join(changed[:4])}): "
                "compare runs that differ in network and images only."
            )
    rows = []
    for title, run in zip(titles, runs, strict=True):
        ranked = run.ranking(by, chosen)
        rows.append(
            ranked[["method", "rank", "mean", "low", "high", "letters", "groups"]].assign(run=title, measure=title)
        )
    found = runs[0].measured(by, chosen)
    named = named_score(dict(zip(titles, runs, strict=True)), chosen)
    table = pd.concat(rows, ignore_index=True)
    return Beside(titles, found.label, by, chosen, named, found.has_random, table)


def named_score(runs: Mapping[str, Run], score: str) -> str:
    """What a score is called on several runs, by their titles: one name, or each with the runs that have it."""
    names: dict[str, list[str]] = {}
    for title, run in runs.items():
        names.setdefault(run.score_name or score, []).append(title)
    if len(names) == 1:
        return next(iter(names))
    return " or ".join(f"{name} ({'; '.join(titles)})" for name, titles in names.items())


def _question(run: Run, measure: str | None, score: str | None, by: str) -> dict[str, str]:
    """What a run asks, apart from the network and the images; every region of the image counts as ``all``."""
    protocol = run.protocol
    parts: dict[str, Any] = {k: v for k, v in protocol.to_dict().items() if k not in _SAME_QUESTION}
    crop = run.manifest.classifier.preprocessing.get("crop")
    if isinstance(crop, (list, tuple)) and len(crop) == 2:
        try:
            whole = protocol.override(steps=Steps.ALL).fitted(*map(int, crop)).steps
        except ProtocolError:  # segments: their number is that of each image
            whole = 0
        parts["steps"] = "all" if protocol.steps == whole else protocol.steps
    parts["precision"] = run.precision
    if measure is None:
        parts["measure"] = shown_measure(protocol)
    if score is None:
        parts["score"] = str(protocol.score)
    parts["parameters of the measure"] = run.manifest.measures.get(by, {}).get("spec", {})
    return {name: words(value) for name, value in parts.items()}


def _changed_methods(one: Run, other: Run) -> list[str]:
    """Methods of one name that have other parameters."""
    specs = [{name: spec.get("parameters") for name, spec in run.manifest.methods.items()} for run in (one, other)]
    both = sorted(specs[0].keys() & specs[1].keys())
    return [
        f"{name}: {words(specs[0][name])} → {words(specs[1][name])}"
        for name in both
        if specs[0][name] != specs[1][name]
    ]
