"""Which class is scored in each image, where the caller says it."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

from faithmap.checks import as_integers, each_once
from faithmap.classifiers import Classifier
from faithmap.errors import InputError, ProtocolError, among, nearest, shown
from faithmap.files import read_bytes
from faithmap.foreign import entries, pairs, plain_text
from faithmap.images import Images
from faithmap.protocol import Protocol, Target

Targets: TypeAlias = str | int | Path | Tensor | Sequence[int | str] | Mapping[str, int | str] | None


def chosen_targets(
    targets: Targets, images: Images, classifier: Classifier, protocol: Protocol
) -> tuple[Protocol, dict[str, int | None]]:
    """The protocol with its target, and image id → class, None where none is given; empty without `targets`.

    Args:
        targets: ``"predicted"``, ``"label"``, one class for all (an index or a name), one class per image (a tensor or
            list in the order of the images), image id → class, or a .csv file with lines ``image,class``.
        images, classifier: of the run.
        protocol: its target is used without `targets`.
    Raises:
        InputError: a class that the network does not have by this name, or not one class per image.
    """
    if targets is None and protocol.target is Target.GIVEN:
        raise ProtocolError("target is 'given' and no class is given: give targets, or target 'predicted' or 'label'.")
    targets = plain_text(targets) if isinstance(targets, str) else targets
    if targets is None or (isinstance(targets, str) and targets in (Target.PREDICTED, Target.LABEL)):
        return protocol.override(target=targets), {}
    ids = [image.id for image in images]
    given: Mapping[str, Any]
    if isinstance(targets, Path) or (isinstance(targets, str) and targets.endswith(".csv")):
        given = _matched(_of_file(Path(targets)), ids)
    elif isinstance(targets, Mapping):
        given = _matched({str(name): one for name, one in pairs(targets, "targets").items()}, ids)
    elif isinstance(targets, str | int | np.integer):
        given = dict.fromkeys(ids, targets)
    else:
        given = dict(zip(ids, _one_each(targets, len(ids)), strict=True))
    found = {name: class_of(given[name], classifier) if name in given else None for name in ids}
    if all(target is None for target in found.values()):
        raise InputError(f"targets name none of the {len(ids)} images, such as '{ids[0]}': name them by their ids.")
    return protocol.override(target=Target.GIVEN), found


def by_image(targets: Targets, images: Images) -> Targets:
    """The same targets, those in the order of the images as image id → class, so that they hold for some of them."""
    if targets is None or isinstance(targets, str | int | np.integer | Path | Mapping):
        return targets
    return dict(zip([image.id for image in images], _one_each(targets, len(images)), strict=True))


def class_of(value: Any, classifier: Classifier) -> int:
    """The index of a class.

    Raises:
        InputError: a name that the network does not have, or no class at all.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | np.integer):
        raise InputError(f"target is {shown(value)}: give a class index or name.")
    value = plain_text(value) if isinstance(value, str) else value
    index = classifier.class_index(value.strip() if isinstance(value, str) else int(value))
    known = classifier.labels or []
    if index is None:
        # A word that is nearly an option is more likely meant than one of a thousand classes.
        options = [Target.PREDICTED.value, Target.LABEL.value]
        near = nearest(str(value), options)
        end = near if near != "." else (among if len(known) <= 20 else nearest)(str(value), known)
        raise InputError(f"unknown class {value!r}{end} The classes of {classifier.name} go by index or name.")
    if not 0 <= index < (len(known) or 2**31):
        raise InputError(f"target is class {index}, {classifier.name} has classes 0…{max(len(known) - 1, 0)}.")
    return index


def _one_each(targets: Any, count: int) -> list[Any]:
    """One class per image; many-hot rows are asked about."""
    targets = entries(targets, "targets") if isinstance(targets, Sequence) else targets
    if isinstance(targets, list) and all(isinstance(one, str) for one in targets):
        found: list[Any] = targets
        shape: tuple[int, ...] = (len(found),)
    else:
        tensor = as_integers(targets, "targets") if not isinstance(targets, Tensor) else targets
        shape = tuple(tensor.shape)
        if len(shape) == 2:
            raise InputError(
                f"targets have shape {shape}, as labels with several classes per image do: give the one class that is "
                "to be explained in each image, and score='sigmoid' to the Classifier of a network of many labels."
            )
        found = as_integers(tensor, "targets").tolist()
    if shape != (count,):
        raise InputError(f"targets have shape {shape} for {count} images: give one class per image.")
    return found


def _of_file(path: Path) -> dict[str, str]:
    try:
        rows = list(csv.reader(io.StringIO(read_bytes(path).decode("utf-8-sig"))))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as targets: {error}.") from None
    rows = [row for row in rows if row]
    if rows and [cell.strip().lower() for cell in rows[0][:1]] == ["image"]:
        rows = rows[1:]
    wrong = next((number for number, row in enumerate(rows, 1) if len(row) != 2), None)
    if wrong is not None or not rows:
        raise InputError(f"{path} holds no lines image,class (line {wrong or 1}).")
    return each_once([(name, target.strip()) for name, target in rows], str(path))


def _matched(given: Mapping[str, Any], ids: Sequence[str]) -> dict[str, Any]:
    """By id, with or without the suffix of the image file."""
    stems = {name: str(PurePosixPath(name).with_suffix("")) if PurePosixPath(name).name else name for name in ids}
    return {name: given[key] for name in ids for key in (name, stems[name])[::-1] if key in given}
