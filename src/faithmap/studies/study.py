"""`Study`: the same classifier, images and heatmap methods under several settings, each an ordinary run."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from faithmap import plots, statistics
from faithmap.arguments import checked
from faithmap.errors import FaithmapError, StoreError
from faithmap.protocol import RANDOM, Score
from faithmap.report import Several, ranks_part, write_several
from faithmap.report.page import page_place
from faithmap.report.sections import beside_grade
from faithmap.run import Run
from faithmap.statistics import Grade, Measured, Settings
from faithmap.statistics.comparing import PAIRS, VS_RANDOM, Comparison, comparison
from faithmap.statistics.power import about
from faithmap.store.folder import Store
from faithmap.store.manifest import damaged
from faithmap.store.storage import LocalStorage, open_storage
from faithmap.studies.settings import is_name
from faithmap.text import display_name, grouped, printable, several

STUDY = "study.json"
# Those that show a study; all others show a run.
FIGURES = ("study", "reliability")
# Images in the flipbook of a setting's own page: twelve pages of a study stay small.
_SETTING_EXAMPLES = 6


class Study:
    """A study folder, finished or not; loads no model.

    Args:
        folder: as given to `study` as `out`.
    Raises:
        StoreError: a folder that holds no study.
    """

    def __init__(self, folder: str | Path) -> None:
        self.storage = open_storage(folder)
        self.url = self.storage.url
        self.settings = read_settings(self.url)
        self._read = Read()

    @property
    def folder(self) -> Path:
        """Where the study is kept, if it is on a disk."""
        if isinstance(self.storage, LocalStorage):
            return self.storage.folder
        raise StoreError(f"{self.url} is not on a disk: say where files are to be written.")

    def __repr__(self) -> str:
        return f"Study({self.url}: {len(self.settings)} settings, {', '.join(self.settings)})"

    def runs(self) -> dict[str, Run]:
        """Setting → its run, of those that have scores."""
        return dict(self._current().runs)

    @checked()
    def measured(self, measure: str = "srg", score: str | None = None) -> dict[str, Measured]:
        """Setting → a measure of every image and method.

        Args:
            measure: one that follows from scores, or one that all runs hold.
            score: ``"logit"`` or ``"probability"``; the protocol's by default.
        """
        read = self._current()
        if (measure, score) not in read.measured:
            found = {name: run.measured(measure, score, frame=read.scores(name)) for name, run in read.runs.items()}
            read.measured[measure, score] = found
        return dict(read.measured[measure, score])

    def _current(self) -> Read:
        """What was read before, if the folder is still the same."""
        self.settings = read_settings(self.url)
        stores = {name: Store(f"{self.url}/{where}") for name, where in self.settings.items()}
        state = {name: found for name, store in stores.items() if (found := store.state()) is not None}
        if not state:
            raise StoreError(f"{self.url} holds no scores yet: run the same command again to go on.")
        if self._read.state != state:
            self._read = Read(state, {name: Run(stores[name].url) for name in state})
        return self._read

    @checked()
    def ranks(self, measure: str = "srg", score: str | None = None) -> pd.DataFrame:
        """The rank of every method in every setting, 1 is best: setting, method, score, rank.

        Args:
            measure, score: as in `measured`; both scores by default, that of the protocol first.
        """
        scores = [score] if score is not None else self.scores
        frames = []
        for one in scores:
            wide = statistics.rank_table(self.measured(measure, one)).reset_index()
            long = wide.melt("method", var_name="setting", value_name="rank").dropna(subset=["rank"])
            frames.append(long.assign(score=one)[["setting", "method", "score", "rank"]])
        return pd.concat(frames, ignore_index=True)

    @property
    def scores(self) -> list[str]:
        """Both scores, that of the protocol first; it alone where there is no probability."""
        first = next(iter(self.runs().values()))
        shown = str(first.protocol.score)
        return [shown, *(str(one) for one in Score if str(one) != shown and first.score_name is None)]

    def own_score(self, score: str) -> str:
        """The score itself; the only one that there is where there is no probability."""
        return score if score in self.scores else self.scores[0]

    @checked()
    def report(self, path: str | Path, measure: str = "srg") -> Path:
        """The answer as one HTML page: the ranks in all settings, the grade, and each setting's answer and figure.

        Each setting's own page, with its pictures, is written into a folder beside it.
        """
        path, runs = page_place(path), self.runs()
        pages = {}
        for name, run in runs.items():
            page = f"{path.stem}-settings/{name}.html"
            run.report(path.parent / page, examples=_SETTING_EXAMPLES)
            pages[name] = quote(page)
        parts = [
            ranks_part(score, self.ranks(measure, score), self.verdict(measure, score), self.graded(measure, score))
            for score in self.scores
        ]
        title = f"{self.network}, {len(runs)} settings"
        return write_several(
            Several(title, "setting", runs, parts, {n: quote(page) for n, page in pages.items()}), path
        )

    @property
    def network(self) -> str:
        """The network's name."""
        return printable(next(iter(self.runs().values())).manifest.classifier.name)

    def graded(self, measure: str, score: str) -> list[dict[str, Any]]:
        """The grade as a page takes it; of the properties that each setting has, the first setting's."""
        first = next(iter(self.runs()))
        return [
            {"name": item.property, "value": item.grade, "text": beside_grade(item)}
            for item in self.grade(measure, score).items
            if item.setting in ("", first)
        ]

    @checked(name=str)
    def figure(self, name: str = "study", path: str | Path | None = None, **options: Any) -> Any:
        """A figure by name; see `faithmap.plots`.

        Args:
            name: ``"study"`` or ``"reliability"``.
            path: png, svg or pdf file to write; None writes none.
            options: what the figure takes besides.
        Raises:
            FaithmapError: an unknown figure, or one of a single run.
        """
        if name in plots.FIGURES and name not in FIGURES:
            setting = f"{self.url}/{next(iter(self.settings.values()))}"
            raise FaithmapError(
                f"figure '{name}' is one of a run, but {self.url} is a study: give a setting's folder, such as "
                f"{setting}, or choose {' or '.join(FIGURES)}."
            )
        axes = plots.draw(name, self, options)
        if path is not None:
            plots.save(axes, path)
        return axes

    @checked()
    def agreement(self, measure: str = "srg", score: str | None = None, confidence: float = 0.95) -> Settings:
        """How far the settings' rankings agree: Kendall's W and mean τ with intervals over groups, and which disagree.

        See `faithmap.statistics.agreement_of_settings`.
        """
        found, known = self.measured(measure, score), self._read.agreements
        if (measure, score, confidence) not in known:
            known[measure, score, confidence] = statistics.agreement_of_settings(found, confidence)
        return known[measure, score, confidence]

    @checked()
    def grade(self, measure: str = "srg", score: str | None = None) -> Grade:
        """How far the measure can be trusted on these images; see `faithmap.statistics.grade`.

        Args:
            measure, score: as in `measured`.
        """
        read, shown = self._current(), score or self.scores[0]
        if (measure, shown) not in read.grades:
            direction = str(next(iter(read.runs.values())).protocol.direction)
            of_scores = measure in statistics.SCORE_MEASURES
            given: Any = {name: read.scores(name) for name in read.runs} if of_scores else self.measured(measure)
            read.grades[measure, shown] = statistics.grade(given, shown, measure=measure, direction=direction)
        return read.grades[measure, shown]

    @checked()
    def winner(self, measure: str = "srg", score: str | None = None) -> Winner:
        """The method that is first most often."""
        return winner(self.agreement(measure, score))

    @checked()
    def verdict(self, measure: str = "srg", score: str | None = None) -> list[str]:
        """What holds in all settings and what does not, by both scores; the first sentence is the answer.

        Args:
            measure, score: as in `measured`.
        """
        runs = self.runs()
        shown, *others = sorted(self.scores, key=lambda one: score is not None and one != score)
        name = next(iter(runs.values())).score_name
        if len(runs) < 2:
            only = next(iter(runs.values()))
            return [*only.verdict(measure, shown), f"Only {len(runs)} of {len(self.settings)} settings."]
        # A measure that comes from no score has one answer.
        scores = [shown, *others] if measure in statistics.SCORE_MEASURES else [None]
        found = [self.agreement(measure, one) for one in scores]
        first, *rest = [winner(agreement) for agreement in found]
        said = [first.sentence(scores[0] and (name or scores[0]))]
        if first.method is not None:
            said.append(self._leads(measure, scores[0], first.method))
        for by, again in zip(scores[1:], rest, strict=True):
            same = again.method == first.method
            said.append(f"{'' if same else 'The scores differ: '}{again.sentence(by, again=same)}")
        if len(runs) < len(self.settings):
            said.append(f"{len(runs)} of {len(self.settings)} settings are there so far: all of this is preliminary.")
        return [line for line in said + found[0].sentences() if line and not line.startswith("First in")]

    def answer(self, measure: str, score: str) -> str:
        """Who is first, in how many settings, and in how many significantly; of one setting, its own answer."""
        said = self.verdict(measure, score)[0]
        method = self.winner(measure, score).method if len(self.runs()) > 1 else None
        return said if method is None else " ".join(filter(None, [said, self._leads(measure, score, method)]))

    def _leads(self, measure: str, score: str | None, method: str) -> str:
        found, known = self.measured(measure, score), self._read.leads
        if (measure, score) not in known:
            known[measure, score] = leads(found, method)
        return known[measure, score]


@dataclass
class Read:
    """What was read of a study's folder, and what was computed from it.

    Attributes:
        state: setting → what its folder held; see `Store.state`.
        runs, frames: setting → run, scores.
        measured, agreements, grades, leads: what was asked for → the answer.
    """

    state: dict[str, Any] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)
    frames: dict[str, pd.DataFrame] = field(default_factory=dict)
    measured: dict[tuple[str, str | None], dict[str, Measured]] = field(default_factory=dict)
    agreements: dict[tuple[str, str | None, float], Settings] = field(default_factory=dict)
    grades: dict[tuple[str, str], Grade] = field(default_factory=dict)
    leads: dict[tuple[str, str | None], str] = field(default_factory=dict)

    def scores(self, setting: str) -> pd.DataFrame:
        """The scores of a setting's run, read when they are asked for."""
        if setting not in self.frames:
            self.frames[setting] = self.runs[setting].scores()
        return self.frames[setting]


@dataclass(frozen=True)
class Winner:
    """The method that is first most often.

    Attributes:
        method: None where no method is first in more settings than every other.
        first: in how many settings it is first, first places that are shared included.
        settings: how many there are.
        others: other methods that are first somewhere → in how many settings.
        shared: in how many settings several methods share the first place.
    """

    method: str | None
    first: int
    settings: int
    others: Mapping[str, int] = field(default_factory=dict)
    shared: int = 0

    def sentence(self, score: str | None, again: bool = False) -> str:
        """The answer in words."""
        by = f" by {score}" if score else ""
        rest = ", ".join(f"{display_name(one)} in {count}" for one, count in self.others.items())
        shared = f" (shared in {self.shared})" if self.shared else ""
        if self.method is None:
            firsts = f"First are {rest}{shared}" if rest else "None has a value in any"
            return f"No method is first in more settings than every other{by}. {firsts} of {self.settings} settings."
        is_first = "Random orders are first" if self.method == RANDOM else f"{display_name(self.method)} is first"
        often = f"all {self.settings}" if self.first == self.settings else f"{self.first} of {self.settings}"
        said = f"{is_first} in {often} settings{by}{', too' if again else ''}{shared}"
        return f"{said}; {rest}." if rest else f"{said}."


def winner(agreement: Settings) -> Winner:
    """Who is first most often."""
    ranks = agreement.ranks
    tops = ranks.eq(ranks.min()) & ranks.notna()
    counts = tops.sum(axis=1).sort_values(ascending=False, kind="stable")
    firsts = {str(name): int(count) for name, count in counts.items() if count}
    shared, settings = int((tops.sum() > 1).sum()), ranks.shape[1]
    if not firsts or list(firsts.values()).count(max(firsts.values())) > 1:
        return Winner(None, 0, settings, firsts, shared)
    best, *_ = firsts
    return Winner(best, firsts.pop(best), settings, firsts, shared)


def leads(by_setting: Mapping[str, Measured], method: str) -> str:
    """In how many settings a method's lead is significant, in words; empty for random orders.

    Where groups are too few for a significant lead, or for one of this size, it says so and how many it takes.
    """
    if method == RANDOM:
        return ""
    found = [comparison(one) for one in by_setting.values()]
    words = {
        VS_RANDOM: ("random orders", "comparisons with random orders can be significant"),
        PAIRS: ("every other method", "pairs of methods can be significantly different"),
    }
    alone = {
        VS_RANDOM: "its comparison with random orders cannot be significant",
        PAIRS: "two methods cannot be significantly different",
    }
    of = {family: _Lead.of(found, method, family) for family in words}
    counts = [text for family, lead in of.items() if (text := lead.counted(words[family][0]))]
    said = [f"It is significantly better than {' and than '.join(counts)}."] if counts else []
    said += [lead.too_few(*words[family], alone[family]) for family, lead in of.items()]
    return " ".join(dict.fromkeys(text for text in said if text))


@dataclass(frozen=True)
class _Lead:
    """A method's lead over random orders, or over every other method, in several settings.

    Attributes:
        tested: settings that have such comparisons of the method.
        significant: settings in which all of them are significant.
        impossible: settings with too few groups for any.
        few, comparisons, fewest: of the settings with too few, the most: groups there are, comparisons that are
            corrected for, groups that these take before any can be significant.
        groups: the most in a setting whose lead is not significant.
        needed: groups at which half of the leads that are not significant would be, with a chance of 0.8; infinite
            where no number is enough, NaN where there are no such leads.
        noun: what one group is called.
    """

    tested: int = 0
    significant: int = 0
    impossible: int = 0
    few: int = 0
    comparisons: int = 0
    fewest: int = 0
    groups: int = 0
    needed: float = math.nan
    noun: str = "image"

    @classmethod
    def of(cls, settings: Sequence[Comparison], method: str, family: str) -> _Lead:
        tested = significant = impossible = few = comparisons = fewest = groups = 0
        noun, needed = cls.noun, []
        for found in settings:
            pairs = found.pairs[(found.pairs["family"] == family) & (found.pairs["groups"] > 0)]
            own = pairs[(pairs["a"] == method) | (pairs["b"] == method)]
            ahead = own["a" if found.measured.higher_is_better else "b"] == method
            tested += bool(len(own))
            if own.empty or (own["significant"] & ahead).all():
                significant += bool(len(own))
                continue
            most = int(own["groups"].max())
            groups, noun = max(groups, most), "image" if (own["groups"] == own["n"]).all() else found.measured.noun
            if found.too_few(family):
                impossible, few = impossible + 1, max(few, most)
                comparisons, fewest = max(comparisons, found.comparisons(family)), max(fewest, found.fewest(family))
            if ahead.all():  # behind another method, no number of groups makes it lead
                counts = own.loc[~own["significant"], "groups_needed"]
                needed.append(math.inf if counts.isna().any() else float(counts.max()))
        middle = float(np.median(needed)) if needed else math.nan
        return cls(tested, significant, impossible, few, comparisons, fewest, groups, middle, noun)

    def counted(self, whom: str) -> str:
        """In how many settings it is significant; empty where it can be in none."""
        return f"{whom} in {self.significant} of {self.tested} settings" if self.tested > self.impossible else ""

    def too_few(self, whom: str, several_can: str, one_cannot: str) -> str:
        """That groups are too few, and how many it takes; empty where that is not what is missing."""
        size = about(self.needed) if math.isfinite(self.needed) and self.needed > self.groups else 0
        if not self.impossible:
            more = f"about {several(size, self.noun)} would show it; here are {grouped(self.groups)}"
            return f"Where it is ahead of {whom} but not significantly, {more}." if size else ""
        if self.few < 2:
            return f"One {self.noun} gives no test."
        none = f"none of {self.comparisons} {several_can}" if self.comparisons > 1 else one_cannot
        where = "" if self.impossible == self.tested else f" in {self.impossible} of {self.tested} settings"
        more = f", and about {grouped(size)} for a lead like this one" if size > self.fewest else ""
        return f"With {several(self.few, self.noun)} {none}{where}; at least {self.fewest} are needed{more}."


def is_study(folder: str | Path) -> bool:
    """Whether a folder holds a study, whole or damaged."""
    try:
        open_storage(folder).read(STUDY)
    except (OSError, StoreError):
        return False
    return True


def read_settings(url: str) -> dict[str, str]:
    """Setting → the folder of its run inside the study's.

    Raises:
        StoreError: no study there, or one that is damaged.
    """
    name = f"{url}/{STUDY}"
    try:
        found: Any = json.loads(open_storage(url).read(STUDY).decode("utf-8"))
    except FileNotFoundError:
        raise StoreError(f"{url} holds no study (no {STUDY}): give a folder that `faithmap study` made.") from None
    except OSError as error:
        raise StoreError(f"{name} cannot be read ({error.strerror or error}).") from error
    except (ValueError, RecursionError):
        raise damaged(name) from None
    settings = found.get("settings") if isinstance(found, dict) else None
    if not isinstance(settings, dict) or not settings or not all(map(is_name, (*settings, *settings.values()))):
        raise damaged(name, "it names no settings")
    if len(set(settings.values())) < len(settings):
        raise damaged(name, "two of its settings are one folder")
    return dict(settings)


def write_settings(url: str, settings: Mapping[str, str]) -> None:
    """Write down the settings of a study, those that it has already included.

    What was asked for before and never measured, because it was refused, or given up, is no part of it any more.
    """
    storage = open_storage(url)
    try:
        before = {name: where for name, where in read_settings(url).items() if Store(f"{url}/{where}").parts()}
    except StoreError:
        before = {}
    text = json.dumps({"format": 1, "settings": {**before, **settings}}, indent=2)
    try:
        storage.put(STUDY, text.encode())
    except OSError as error:
        raise StoreError(f"{url}/{STUDY} could not be written ({error.strerror or error}): make room.") from error
