"""Groups: images of one photo, patient or video are not independent, so one value per group is what is resampled."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float

from faithmap.errors import CurveError
from faithmap.grouping import GROUP_NOUN


def groups_of(frame: pd.DataFrame, images: np.ndarray) -> np.ndarray:
    """The group of each image.

    Args:
        frame: with the column image; without a column group, or where it is missing, an image is its own group.
        images: for which; each is in the frame.
    Raises:
        CurveError: an image that is in two groups.
    """
    own = np.array([f"image {image}" for image in images], dtype=object)
    if "group" not in frame:
        return own
    pairs = frame[["image", "group"]].drop_duplicates().dropna()
    twice = pairs.loc[pairs["image"].duplicated(), "image"]
    if len(twice):
        found = ", ".join(sorted(map(str, pairs.loc[pairs["image"] == twice.iloc[0], "group"])))
        raise CurveError(f"image '{twice.iloc[0]}' is in the groups {found}: give it one, or none.")
    named = pairs.set_index("image")["group"].reindex(images)
    text = np.array([f"group {name}" for name in named.tolist()], dtype=object)
    return np.where(named.notna().to_numpy(), text, own)


def noun_of(frame: pd.DataFrame) -> str:
    """What one group is called: what `Run.scores()` noted in the frame's attributes, else "group"."""
    return str(frame.attrs.get("group", GROUP_NOUN))


def group_means(values: Float[np.ndarray, "images columns"], groups: np.ndarray) -> Float[np.ndarray, "groups columns"]:
    """One value per group and column: the mean over its images that have one.

    Args:
        values: NaN where an image has no value.
        groups: of each image.
    Returns:
        Groups in order of their first image; NaN where none of a group's images has a value. Where every image is its
        own group, the values themselves.
    """
    code, names = pd.factorize(groups)
    if len(names) == len(values):
        return values
    finite = np.isfinite(values)
    order = np.argsort(code, kind="stable")
    starts = np.searchsorted(code[order], np.arange(len(names)))
    total = np.add.reduceat(np.where(finite, values, 0.0)[order], starts, axis=0)
    count = np.add.reduceat(finite[order].astype(np.int64), starts, axis=0)
    means: np.ndarray = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return means
