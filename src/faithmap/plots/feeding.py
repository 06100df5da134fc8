"""From a run folder to what the figures with images need: which images, which methods, which steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from faithmap import statistics
from faithmap.errors import FaithmapError, StoreError
from faithmap.perturbation import is_imputed
from faithmap.plots.registry import of_scores
from faithmap.protocol import RANDOM, Direction
from faithmap.store.reading import StoredRun, sample
from faithmap.store.records import Example
from faithmap.text import printable

# Parts of the way at which a film strip shows the image.
_PARTS = (0, 0.1, 0.2, 0.5, 1)


def best_median_worst(run: StoredRun, options: dict[str, Any]) -> dict[str, Any]:
    """Best, median and worst of all images; where their heatmaps are not stored, of those whose are, and a note.

    Raises:
        StoreError: no heatmaps are stored.
    """
    inputs = of_scores(run, options)
    frame, stored = inputs["frame"], stored_images(run)
    score = str(options.get("score", inputs["score"]))
    how = (score, None, inputs["order"], inputs["direction"])
    chosen, note = list(statistics.chosen_images(frame, *how).values()), ""
    if not set(chosen) <= set(stored):
        among = frame[frame["image"].isin(stored)]
        chosen = list(statistics.chosen_images(among, *how).values())
        note = f"{len(stored)} of {frame['image'].nunique()} images whose heatmaps are stored"
    return inputs | {"examples": examples(run, chosen), "labels": class_labels(run), "among": note, **_channels(run)}


def film_strip(run: StoredRun, options: dict[str, Any]) -> dict[str, Any]:
    """The pictures of one stored image, and methods in the order of the ranking.

    Raises:
        StoreError: no heatmaps are stored, or none of this image.
        FaithmapError: the fill follows from the pixels that are left, or a method was not measured on the image.
    """
    protocol = run.protocol
    example = one_example(run, options.pop("image", None))
    if is_imputed(protocol.fill):
        raise FaithmapError(
            f"figure 'steps' shows fills that are drawn beforehand; '{protocol.fill}' follows from the pixels "
            "that are left: choose another figure."
        )
    inputs = of_scores(run, options)
    score = str(options.get("score", inputs["score"]))
    frame, order = inputs["frame"], inputs["order"]
    measured = set(frame.loc[frame["image"] == example.image, "method"])
    ranked = statistics.ranking(frame, score, order=order, direction=inputs["direction"])["method"]
    possible = [name for name in ranked if name in measured and (name == RANDOM or name in example.heatmaps)]
    methods = chosen_methods(possible, options.pop("methods", None))
    fills = {name: run.fill(example, method=name) for name in methods}
    pixels = example.pixels
    if protocol.direction is Direction.RESTORE:
        pixels, fills = fills[methods[0]], dict.fromkeys(methods, example.pixels)
    scored = np.array(sorted(frame["step"].unique()))
    at = sorted({int(scored[np.abs(scored - scored[-1] * part).argmin()]) for part in _PARTS})
    removal_steps = {name: run.removal_step(example, name, order) for name in methods}
    shown = {"pixels": pixels, "removal_steps": removal_steps, "fill": fills, "at": at}
    return inputs | {"image": example.image} | shown | _channels(run)


def _channels(run: StoredRun) -> dict[str, Any]:
    return {"channels": run.manifest.classifier.shown_channels}


def chosen_methods(possible: Sequence[str], asked: Sequence[str] | None, most: int = 6) -> list[str]:
    """The methods that were asked for; by default as many as fit on a page: the first ones, the last one, random."""
    if asked:
        if strange := [name for name in asked if name not in possible]:
            known = ", ".join(possible)
            raise FaithmapError(f"'{printable(strange[0])}' has no heatmap of this image: choose from {known}.")
        return list(asked)
    own = [name for name in possible if name != RANDOM]
    kept = possible if len(possible) <= most else {*own[: most - 2], own[-1], RANDOM}
    return [name for name in possible if name in kept]


def stored_images(run: StoredRun) -> list[str]:
    """Ids of the images whose heatmaps are stored.

    Raises:
        StoreError: there are none.
    """
    stored = sorted({image for image, _ in run.store.stored_heatmaps().places})
    if not stored:
        raise StoreError(f"{run.store.url} holds no heatmaps: run with --save-heatmaps into a new folder.")
    return stored


def one_example(run: StoredRun, image: str | None) -> Example:
    """A stored image by its id, or the first of the sample.

    Raises:
        StoreError: no heatmaps are stored, or none of this image; says which there are.
    """
    stored = stored_images(run)
    if image is not None and image not in stored:
        known = ", ".join(f"'{printable(name, 60)}'" for name in sample(stored, 5))
        raise StoreError(f"no heatmaps are stored for '{printable(image)}': choose another image, such as {known}.")
    return examples(run, [image] if image is not None else sample(stored, 1))[0]


def examples(run: StoredRun, images: Sequence[str]) -> list[Example]:
    """Stored images in the order that was asked for."""
    found = {example.image: example for example in run.store.examples(list(images))}
    return [found[image] for image in images if image in found]


def class_labels(run: StoredRun) -> Any:
    """Class names of a run's network, None where it has none."""
    return run.manifest.classifier.labels
