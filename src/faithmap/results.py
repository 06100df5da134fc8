"""A run folder, read: `Run`. Loads no model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from torch import Tensor

from faithmap import plots
from faithmap.attribution import random_heatmap
from faithmap.errors import FaithmapError, StoreError, nearest
from faithmap.experiment import Skipped
from faithmap.naming import RANDOM
from faithmap.perturbation import draw_fill, is_imputed
from faithmap.protocol import Direction, Order, Placement, Protocol
from faithmap.regions import removal_steps
from faithmap.segments import segment
from faithmap.statistics import aopc_table
from faithmap.store import Example, Store

if TYPE_CHECKING:
    from faithmap.report import Html

EXAMPLES = 24
FIGURES = ("fig4", "curves", "ranking", "heatmaps", "steps", "agreement")


class Run:
    """A run folder, finished or not; loads no model.

    Args:
        folder: as given to `evaluate` as `out`.
    Raises:
        StoreError: a folder that holds no run.
    """

    def __init__(self, folder: str | Path) -> None:
        self.store = Store(folder)
        manifest = self.store.read_manifest()
        if manifest is None:
            raise no_run(self.store)
        self.manifest: dict[str, Any] = manifest

    @property
    def folder(self) -> Path:
        """Where the run is kept, if it is on a disk."""
        return self.store.folder

    @property
    def protocol(self) -> Protocol:
        """What was measured."""
        return Protocol.from_dict(self.manifest["protocol"])

    @property
    def precision(self) -> str:
        """What scores were computed in; anything but float32 is for screening."""
        return str(self.manifest.get("precision", "float32"))

    @property
    def skipped(self) -> list[Skipped]:
        """What could not be measured, with reasons."""
        return [Skipped(one["image"], one["method"], one["reason"]) for one in self.manifest["skipped"]]

    def __repr__(self) -> str:
        return f"Run({self.store.url}: {len(self.manifest['images'])} images, {', '.join(self.manifest['methods'])})"

    def scores(self) -> pd.DataFrame:
        """One row a score: image, label, predicted, target, method, order, draw, step, logit, probability."""
        return self.store.frame()

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
        from faithmap.report import write_report

        return write_report(self, path, examples=examples)

    def flipbook(self, image: str | None = None) -> Html:
        """Step through what was removed, inline in a notebook; see `faithmap.report.flipbook_html`.

        Args:
            image: an image's id; None takes some of those whose heatmaps are stored.
        """
        from faithmap.report import Html, flipbook_html

        return Html(flipbook_html(self, image))

    def _repr_html_(self) -> str | None:
        from faithmap.report import run_html

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

    def examples(self, count: int | None = EXAMPLES) -> list[Example]:
        """Images with their heatmaps, as far as they were stored; at most `count`, the same ones every time."""
        stored = {image for image, _ in self.store.stored_heatmaps().places}
        return list(self.store.examples(sample(stored, count)))

    def removal_step(
        self, example: Example, method: str, order: Order | str = Order.MORF, draw: int = 0
    ) -> Int[Tensor, "height width"]:
        """The step at which each pixel of an example was removed, 0 for never.

        Raises:
            StoreError: a method without a heatmap for this image.
        """
        if method == RANDOM:
            size = (int(example.pixels.shape[1]), int(example.pixels.shape[2]))
            heatmap = random_heatmap(size, seed=self.protocol.seed, image_id=example.image, draw=draw)
        elif method in example.heatmaps:
            heatmap = example.heatmaps[method]
        else:
            raise StoreError(f"no heatmap of '{method}' is stored for '{example.image}'.")
        maps = None
        if self.protocol.placement is Placement.SEGMENT:
            maps = segment(self.protocol.segments, example.pixels, example.image).unsqueeze(0)
        return removal_steps(heatmap.unsqueeze(0), self.protocol, order, maps)[0]

    def fill(self, example: Example, draw: int = 0, method: str | None = None) -> Float[Tensor, "3 height width"]:
        """What the regions of an example were replaced with (for noisy linear imputation: the noise alone).

        Raises:
            ProtocolError: the fill takes pixels of another image, which a run folder does not hold.
        """
        own = None if self.protocol.paired_fill else method
        return draw_fill(
            self.protocol.fill, example.pixels, seed=self.protocol.seed, image_id=example.image, draw=draw, method=own
        )


def sample(ids: Iterable[str], count: int | None) -> list[str]:
    """The same few images every time, whatever the others are; None takes all."""
    return sorted(ids, key=lambda name: hashlib.sha256(name.encode()).digest())[:count]


def no_run(store: Store) -> StoreError:
    return StoreError(f"{store.url} holds no run (no manifest.json): give a folder that `faithmap run` made.")


def _titled(runs: Sequence[Run]) -> dict[str, pd.DataFrame]:
    """Network and images of each run → its scores; numbered where they are the same."""
    titles = [f"{run.manifest['classifier']['name']}, {run.manifest['image_set']}" for run in runs]
    twice = len(set(titles)) < len(titles)
    names = [f"{run.folder.name}: {title}" if twice else title for run, title in zip(runs, titles, strict=True)]
    return {name: run.scores() for name, run in zip(names, runs, strict=True)}
