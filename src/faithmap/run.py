"""A run folder, read: `Run`. Loads no model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from faithmap import plots, statistics
from faithmap.arguments import checked
from faithmap.errors import CurveError, FaithmapError, among
from faithmap.measures.measure import Measure
from faithmap.measures.scorecard import SRG, scorecard
from faithmap.report import Html, Paper, flipbook_html, paper_of, run_html, write_report
from faithmap.statistics import Decision, Grade, Measured, aopc_table, decided
from faithmap.store.reading import StoredRun
from faithmap.text import printable


class Run(StoredRun):
    """A run folder, finished or not; loads no model.

    Args:
        folder: as given to `evaluate` as `out`.
    Raises:
        StoreError: a folder that holds no run.
    """

    @checked()
    def aopc(self, score: str | None = None, relative: bool = True, confidence: float = 0.95) -> pd.DataFrame:
        """Per method and step: mean AOPC over the images, relative to random, with its interval.

        See `faithmap.statistics.aopc_table`.
        """
        return aopc_table(self.scores(), str(score or self.protocol.score), relative=relative, confidence=confidence)

    @checked()
    def measured(
        self,
        measure: str | None = None,
        score: str | None = None,
        step: int | None = None,
        *,
        frame: pd.DataFrame | None = None,
    ) -> Measured:
        """A measure of every image and method, draws averaged.

        Args:
            measure: one that follows from scores (``"srg"``, ``"morf"``, ``"lerf"``, ``"aopc"``, …), or one that the
                run holds; the protocol's by default.
            score: ``"logit"`` or ``"probability"``; the protocol's by default.
            step: over the steps 0…step; the last by default.
            frame: the run's scores, where they were read before.
        Raises:
            CurveError: an unknown measure, or scores that it cannot be computed from.
        """
        measure = measure or statistics.shown_measure(self.protocol)
        if measure in self.manifest.measures:
            better = bool(self.manifest.measures[measure]["higher_is_better"])
            return statistics.measured_from(self.measures(), measure, higher_is_better=better)
        if measure not in statistics.SCORE_MEASURES:
            known = [*statistics.SCORE_MEASURES, *self.manifest.measures]
            raise CurveError(f"this run holds no measure '{measure}'{among(measure, known)}")
        shown, protocol = str(score or self.protocol.score), self.protocol
        order, direction = str(protocol.shown_order), str(protocol.direction)
        frame = self.scores() if frame is None else frame
        return statistics.measured(frame, measure, shown, step, order, direction)

    @checked()
    def ranking(
        self, measure: str | None = None, score: str | None = None, step: int | None = None, confidence: float = 0.95
    ) -> pd.DataFrame:
        """Methods from best to worst, with intervals over groups and letters; see `faithmap.statistics.ranking`.

        Args:
            measure, score, step: as in `measured`.
            confidence: of intervals and tests.
        """
        return statistics.ranking(self.measured(measure, score, step), confidence=confidence)

    @checked()
    def verdict(self, measure: str | None = None, score: str | None = None) -> list[str]:
        """The answer in sentences: for the score that is shown, and whether the other score agrees.

        Args:
            measure, score: as in `measured`.
        """
        measure = measure or statistics.shown_measure(self.protocol)
        if measure in self.manifest.measures:
            return [statistics.headline(self.measured(measure))]
        protocol = self.protocol
        order, direction = str(protocol.shown_order), str(protocol.direction)
        shown = str(score or protocol.score)
        frame = self.scores()
        said = statistics.verdict(frame, shown, order=order, direction=direction, measure=measure)
        further = [statistics.attainable_sentence(self.measured(measure, shown, frame=frame))]
        if (decision := self.decision()) is not None:
            further.append(decision.sentence)
        return [*said, *filter(None, further)]

    def decision(self) -> Decision | None:
        """Whether the question of a run that stops when it is decided is answered; None for other runs.

        It rests on the images of the last look; the folder may hold more. See `evaluate` (``until``) and
        `faithmap.statistics.decided`.
        """
        stages = self.manifest.stages
        if stages is None:
            return None
        return decided(self.measured().of_images(stages.images), stages.looks, stages.at_most, stages.contrast)

    @checked()
    def grade(self, measure: str | None = None, score: str | None = None) -> Grade:
        """How far a measure can be trusted on these images; see `faithmap.statistics.grade`.

        Args:
            measure, score: as in `measured`; any measure of the run.
        """
        measure = measure or statistics.shown_measure(self.protocol)
        if measure not in statistics.SCORE_MEASURES:
            return statistics.grade(self.measured(measure))
        shown, direction = str(score or self.protocol.score), str(self.protocol.direction)
        return statistics.grade(self.scores(), shown, direction=direction, measure=measure)

    @checked()
    def scorecard(self, score: str | None = None, confidence: float = 0.95) -> pd.DataFrame:
        """Every method by every measure of the run, and by SRG where it holds both orders: no total score.

        See `faithmap.measures.scorecard` for its columns, for `wide` (as text, sorted by any measure) and for
        `disagreement` (what the measures say together).
        """
        kept = [Measure.from_dict(name, facts) for name, facts in self.manifest.measures.items()]
        if len(self.protocol.orders) > 1 and "srg" not in self.manifest.measures:
            kept.insert(0, SRG)
        return scorecard(
            self.measures(),
            kept,
            self.scores(),
            score=str(score or self.protocol.score),
            direction=str(self.protocol.direction),
            confidence=confidence,
        )

    @checked()
    def paper(self, measure: str | None = None, score: str | None = None, confidence: float = 0.95) -> Paper:
        """The run for a paper: a LaTeX table, a methods paragraph with every parameter, and BibTeX of what it rests on.

        Args:
            measure, score: as in `measured`.
            confidence: of intervals and tests.
        Raises:
            StoreError: a run that holds no value of the measure.
        """
        measure, shown = measure or statistics.shown_measure(self.protocol), str(score or self.protocol.score)
        found = self.measured(measure, shown)
        return paper_of(self, statistics.ranking(found, confidence=confidence), found, measure, shown, confidence)

    @checked(ax=Axes)
    def plot(
        self,
        path: str | Path | None = None,
        ax: Axes | None = None,
        *,
        score: str | None = None,
        frame: pd.DataFrame | None = None,
        **how: Any,
    ) -> Axes:
        """Figure 4: AOPC relative to random against perturbation steps; see `faithmap.plots.fig4`.

        Args:
            path: png, svg or pdf file to write; None writes none.
            ax: drawn into; a new figure by default.
            score: ``"logit"`` or ``"probability"``; the protocol's by default.
            frame: the run's scores, where they were read before.
            how: passed on to `faithmap.plots.fig4`.
        """
        shown = {"score": str(score or self.protocol.score), "order": str(self.protocol.shown_order)}
        shown |= {"direction": str(self.protocol.direction), "measure": statistics.shown_measure(self.protocol)}
        if self.precision != "float32":
            shown["title"] = f"scores in {self.precision}, for screening only"
        ax = plots.fig4(self.scores() if frame is None else frame, ax, **{**shown, **how})
        if path is not None:
            plots.save(ax, path)
        return ax

    @checked()
    def report(
        self,
        path: str | Path,
        *,
        examples: int | None = None,
        folder: bool = False,
        channels: Sequence[int] | None = None,
    ) -> Path:
        """The answer as one self-contained HTML page, or as a folder; see `faithmap.report.write_report`."""
        return write_report(self, path, examples=examples, folder=folder, channels=channels)

    @checked()
    def flipbook(self, image: str | None = None, *, channels: Sequence[int] | None = None) -> Html:
        """Step through what was removed, inline in a notebook; see `faithmap.report.flipbook_html`.

        Args:
            image: an image's id; None takes some of those whose heatmaps are stored.
            channels: which are shown, such as ``(3, 2, 1)``, counted from 1; see `faithmap.images.rgb`.
        """
        from faithmap.report import Html

        return Html(flipbook_html(self, image, channels=channels))

    def _repr_html_(self) -> str | None:
        try:
            return run_html(self)
        except FaithmapError:  # a run without scores: its `repr` says all there is
            return None

    @checked(name=str)
    def figure(
        self,
        name: str,
        path: str | Path | None = None,
        *,
        score: str | None = None,
        style: str | None = None,
        compare: Sequence[str | Path] = (),
        **options: Any,
    ) -> Any:
        """A figure by name; see `faithmap.plots` for each.

        Args:
            name: one of `faithmap.plots.FIGURES`.
            path: png, svg or pdf file to write; None writes none.
            score: ``"logit"`` or ``"probability"``; the protocol's by default.
            style: ``"paper"``, ``"wide"`` or ``"slides"``.
            compare: run folders beside this one, for ``"fig4"``.
            options: what the figure takes besides, such as ``image`` for ``"steps"`` or ``bands`` for ``"fig4"``.
        Returns:
            The Axes, or a list of them.
        Raises:
            FaithmapError: an unknown figure, an option it does not take, or heatmaps that the run does not hold.
        """
        if compare and name != "fig4":
            raise FaithmapError(f"runs are compared in figure 'fig4', not in '{name}'.")
        if compare:
            shown = str(score or self.protocol.score)
            runs = [self, *(Run(folder) for folder in compare)]
            axes: Any = plots.fig4_compare(_titled(runs), score=shown, style=style or "paper", **options)
        else:
            axes = plots.draw(name, self, {"score": score, "style": style, **options})
        if path is not None:
            plots.save(axes, path)
        return axes


def titles_of(runs: Sequence[StoredRun]) -> list[str]:
    """Network and images of each run; with its folder or a number where they are the same."""
    titles = [f"{run.manifest.classifier.name}, {run.manifest.image_set}" for run in runs]
    if len(set(titles)) < len(titles):
        titles = [f"{run.folder.name}: {title}" for run, title in zip(runs, titles, strict=True)]
    if len(set(titles)) < len(titles):
        titles = [f"{place} {title}" for place, title in enumerate(titles, 1)]
    return [printable(title) for title in titles]


def _titled(runs: Sequence[Run]) -> dict[str, pd.DataFrame]:
    return {title: run.scores() for title, run in zip(titles_of(runs), runs, strict=True)}
