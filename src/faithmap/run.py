"""A run folder, read: `Run`. Loads no model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from faithmap import plots
from faithmap.errors import FaithmapError, StoreError, nearest
from faithmap.perturbation import is_imputed
from faithmap.protocol import RANDOM, Direction
from faithmap.report import Html, flipbook_html, run_html, write_report
from faithmap.statistics import aopc_table
from faithmap.store.reading import EXAMPLES, StoredRun

FIGURES = ("fig4", "curves", "ranking", "heatmaps", "steps", "agreement")


class Run(StoredRun):
    """A run folder, finished or not; loads no model.

    Args:
        folder: as given to `evaluate` as `out`.
    Raises:
        StoreError: a folder that holds no run.
    """

    def aopc(self, score: str | None = None, relative: bool = True, confidence: float = 0.95) -> pd.DataFrame:
        """Per method and step: mean AOPC over the images, relative to random, with its interval.

        See `faithmap.statistics.aopc_table`.
        """
        return aopc_table(self.scores(), str(score or self.protocol.score), relative=relative, confidence=confidence)

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
        if self.precision != "float32":
            shown["title"] = f"scores in {self.precision}, for screening only"
        ax = plots.fig4(self.scores() if frame is None else frame, ax, **{**shown, **how})
        if path is not None:
            plots.save(ax, path)
        return ax

    def report(self, path: str | Path, *, examples: int = EXAMPLES) -> Path:
        """The answer as one self-contained HTML page; see `faithmap.report.write_report`."""
        return write_report(self, path, examples=examples)

    def flipbook(self, image: str | None = None) -> Html:
        """Step through what was removed, inline in a notebook; see `faithmap.report.flipbook_html`.

        Args:
            image: an image's id; None takes some of those whose heatmaps are stored.
        """
        from faithmap.report import Html

        return Html(flipbook_html(self, image))

    def _repr_html_(self) -> str | None:
        try:
            return run_html(self)
        except FaithmapError:  # a run without scores: its `repr` says all there is
            return None

    def figure(
        self,
        name: str,
        path: str | Path | None = None,
        *,
        score: str | None = None,
        style: str = "paper",
        compare: Sequence[str | Path] = (),
        image: str | None = None,
    ) -> Any:
        """A figure by name; see `faithmap.plots` for each.

        Args:
            name: ``"fig4"``, ``"curves"``, ``"ranking"``, ``"heatmaps"``, ``"steps"`` or ``"agreement"``.
            path: png, svg or pdf file to write; None writes none.
            score: ``"logit"`` or ``"probability"``; the protocol's by default.
            style: ``"paper"`` or ``"slides"``.
            compare: run folders beside this one, for ``"fig4"``.
            image: for ``"steps"``, an example's id; the first one by default.
        Returns:
            The Axes, or a list of them.
        Raises:
            FaithmapError: an unknown figure, or one for which the run holds no heatmaps.
        """
        if name not in FIGURES:
            raise FaithmapError(f"unknown figure '{name}'{nearest(name, FIGURES)} Known: {', '.join(FIGURES)}.")
        how: dict[str, Any] = {"score": str(score or self.protocol.score), "style": style}
        if compare and name != "fig4":
            raise FaithmapError(f"runs are compared in figure 'fig4', not in '{name}'.")
        if compare:
            runs = [self, *(Run(folder) for folder in compare)]
            axes: Any = plots.fig4_compare(_titled(runs), **how)
        elif name == "heatmaps":
            axes = plots.heatmaps(self.scores(), self.examples(), labels=self.manifest["classifier"]["labels"], **how)
        elif name == "steps":
            axes = self._film_strip(image, **how)
        elif name == "ranking":
            axes = plots.ranking(self.scores(), direction=str(self.protocol.direction), **how)
        else:
            draw: Callable[..., Axes] = getattr(plots, name)
            axes = draw(self.scores(), **how)
        if path is not None:
            first = axes
            while isinstance(first, list):
                first = first[0]
            plots.save(first, path)
        return axes

    def _film_strip(self, image: str | None, **how: Any) -> Any:
        examples = {example.image: example for example in self.examples(None)}
        if not examples or (image is not None and image not in examples):
            raise StoreError(
                f"no heatmaps are stored for {'any image' if image is None else repr(image)}: run with --save-heatmaps."
            )
        example = examples[image] if image is not None else self.examples(1)[0]
        frame = self.scores()
        last = int(frame["step"].max())
        at = sorted({0, last // 10, last // 5, last // 2, last})
        methods = [*example.heatmaps, RANDOM]
        order = self.protocol.orders[0]
        if is_imputed(self.protocol.fill):
            raise FaithmapError(
                f"figure 'steps' shows fills that are drawn beforehand; '{self.protocol.fill}' follows from the pixels "
                "that are left: choose another figure."
            )
        fills = {method: self.fill(example, method=method) for method in methods}
        steps = {method: self.removal_step(example, method, order) for method in methods}
        how |= {"frame": frame, "image": example.image, "order": str(order)}
        if self.protocol.direction is Direction.RESTORE:
            fill = fills[methods[0]]
            return plots.steps(fill, steps, example.pixels, at, **how)
        return plots.steps(example.pixels, steps, fills, at, **how)


def _titled(runs: Sequence[Run]) -> dict[str, pd.DataFrame]:
    """Network and images of each run → its scores; numbered where they are the same."""
    titles = [f"{run.manifest['classifier']['name']}, {run.manifest['image_set']}" for run in runs]
    twice = len(set(titles)) < len(titles)
    names = [f"{run.folder.name}: {title}" if twice else title for run, title in zip(runs, titles, strict=True)]
    return {name: run.scores() for name, run in zip(names, runs, strict=True)}
