"""AOPC relative to random on parts of the images."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from faithmap.arguments import checked
from faithmap.errors import CurveError
from faithmap.statistics.per_image import PerImage, aopc_of
from faithmap.statistics.tables import table_of


@checked(CurveError)
def subsets(
    frame: pd.DataFrame,
    score: str = "logit",
    step: int | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    labels: Mapping[int, str] | Sequence[str] | None = None,
) -> pd.DataFrame:
    """Mean AOPC relative to random on parts of the images.

    Args:
        frame, score, step, confidence, seed: as in `compare`.
        labels: class index → name; the number itself where there is none.
    Returns:
        Columns by, subset, then as in `aopc_table` without step (left_out counts within the subset). `by` is "class"
        (of images whose class is known), "prediction" ("right", "wrong") and, where there are images named
        ILSVRC2012_val_*, "split" ("clean": ImageNet's validation images; "training": the rest, which the network has
        seen if it was trained on ImageNet).
    """
    per_image = aopc_of(frame, score)
    at = [per_image.place(step)]
    values = per_image.relative()[:, :, at]
    tables = []
    for by, names in _subset_names(frame, per_image.images, labels).items():
        for name in sorted(set(names[pd.notna(names)])):
            rows = names == name
            images, groups = per_image.images[rows], per_image.groups[rows]
            part = PerImage(images, groups, per_image.methods, per_image.steps[at], values[rows])
            tables.append(table_of(part, part.values, None, confidence, seed).assign(by=by, subset=name))
    columns = ["by", "subset", "method", "mean", "low", "high", "groups", "n", "left_out", "interval"]
    return pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=columns)


def _subset_names(
    frame: pd.DataFrame, images: np.ndarray, labels: Mapping[int, str] | Sequence[str] | None
) -> dict[str, np.ndarray]:
    """By what → the name of each image's subset, missing where it is in none."""
    first = frame.drop_duplicates("image").set_index("image").loc[images]
    by: dict[str, np.ndarray] = {}
    if "label" in first and first["label"].notna().any():
        known = first["label"].notna().to_numpy()
        label = first["label"].fillna(-1).to_numpy(dtype=np.int64)
        names = _class_names(sorted(set(label[known].tolist())), labels)
        by["class"] = np.array([names.get(i) for i in label.tolist()], dtype=object)
        if "predicted" in first:
            right = np.where(label == first["predicted"].to_numpy(), "right", "wrong").astype(object)
            right[~known] = None
            by["prediction"] = right
    clean = np.array([bool(re.search(r"(^|/)ILSVRC2012_val_[^/]*$", str(image))) for image in images])
    if clean.any():
        by["split"] = np.where(clean, "clean", "training").astype(object)
    return by


def _class_names(indices: Sequence[int], labels: Mapping[int, str] | Sequence[str] | None) -> dict[int, str]:
    """Class index → name; a name that two classes share is followed by the index."""
    given = dict(labels) if isinstance(labels, Mapping) else dict(enumerate(labels or ()))
    names = {index: str(given.get(index, index)) for index in indices}
    shared = [name for name, count in Counter(names.values()).items() if count > 1]
    return {index: f"{name} ({index})" if name in shared else name for index, name in names.items()}
