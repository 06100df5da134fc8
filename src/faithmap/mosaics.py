"""Mosaics: four images of known classes in one, so that it is known which quarters speak for a class.

Two quarters show images of the target class, two show other classes. No annotation is needed beyond the classes.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from faithmap.checks import as_integer
from faithmap.errors import ImageError, InputError, shown
from faithmap.foreign import entries, has_attribute
from faithmap.randomness import generator

PREFIX = "mosaic:"


@dataclass(frozen=True)
class MosaicImage:
    """Four images of half the size, in a square.

    Attributes:
        id: stable name, made of the names of the two images of the target class.
        parts: top left, top right, bottom left, bottom right; each an image of faithmap.
        target: the quarters that show the target class, true for those.
        label: the target class.
        group: the independent unit; None: the mosaic is its own.
        content: the hash that it must have when it is read; None takes any.
    """

    id: str
    parts: tuple[Any, Any, Any, Any]
    target: tuple[bool, bool, bool, bool]
    label: int | str | None = None
    group: str | None = None
    content: str | None = field(default=None, compare=False)

    def absolute(self) -> MosaicImage:
        """The same image as processes with another working directory see it."""
        first, second, third, fourth = (part.absolute() for part in self.parts)
        return replace(self, parts=(first, second, third, fourth))

    def content_hash(self) -> str:
        """Sixteen hex digits over the contents of the parts and their places."""
        return self.content or self._hash()

    def _hash(self) -> str:
        parts = [part.content_hash() for part in self.parts]
        return hashlib.sha256(repr((parts, self.target)).encode()).hexdigest()[:16]

    def read(self, preprocessing: Any) -> Float[Tensor, "channels height width"]:
        """Each part read as an image of its own, shrunk to a quarter by averaging: float32 in [0, 1].

        Raises:
            ImageError: a part cannot be read, or has changed since the mosaic was pinned.
        """
        try:
            read = [part.read(preprocessing) for part in self.parts]
            if self.content is not None and self._hash() != self.content:
                raise ImageError("a part has changed since the run started.")
        except ImageError as error:
            raise ImageError(f"mosaic '{self.id}' cannot be used: {error}") from None
        height, width = read[0].shape[-2:]
        mosaic = torch.empty_like(read[0])
        for part, (rows, columns) in zip(read, quarters(height, width), strict=True):
            size = (rows.stop - rows.start, columns.stop - columns.start)
            mosaic[:, rows, columns] = F.interpolate(part.unsqueeze(0), size, mode="area")[0]
        return mosaic

    def mask(self, height: int, width: int) -> Bool[Tensor, "height width"]:
        """True on the quarters that show the target class."""
        mask = torch.zeros(height, width, dtype=torch.bool)
        for is_target, (rows, columns) in zip(self.target, quarters(height, width), strict=True):
            mask[rows, columns] = is_target
        return mask


def quarters(height: int, width: int) -> list[tuple[slice, slice]]:
    """Rows and columns of the four quarters, row-major."""
    rows = (slice(0, height // 2), slice(height // 2, height))
    columns = (slice(0, width // 2), slice(width // 2, width))
    return [(row, column) for row in rows for column in columns]


def mosaics(images: Sequence[Any], seed: int = 0) -> list[MosaicImage]:
    """Every image once in a mosaic of its class, with one other of its class and two of other classes.

    Args:
        images: with classes as labels.
        seed: with the names of the images, the key of which are put together and where.
    Returns:
        In the order of their ids; the last image of a class with an odd number is left out.
    Raises:
        InputError: an image without a class, or fewer than two classes with an image or two.
    Source:
        Arias-Duart et al. 2022, Focus: two images of the target class and two of other classes, at random places.
    """
    seed = as_integer(seed, "seed", 0, 2**63 - 1)
    if not isinstance(images, Iterable) or isinstance(images, str) or not has_attribute(images, "__len__"):
        raise InputError(f"images is {shown(images)}: give images with classes, as `load_images` returns them.")
    classes: dict[Any, list[Any]] = defaultdict(list)
    images = entries(images, "images")
    for image in images:
        if not (has_attribute(image, "label") and has_attribute(image, "id")):
            raise InputError(f"images holds {shown(image)}: give images with classes, as `load_images` returns them.")
        if image.label is None:
            raise InputError(f"image '{image.id}' has no class: mosaics need one folder per class.")
        classes[image.label].append(image)
    made = []
    for label, own in classes.items():
        shuffled = sorted(own, key=lambda image: hashlib.sha256(repr((seed, image.id)).encode()).digest())
        others = [image for image in images if image.label != label]
        for first, second in zip(shuffled[::2], shuffled[1::2], strict=False):
            if len(others) < 2:
                raise InputError(f"mosaics of class '{label}' need two images of other classes, there are fewer.")
            made.append(_mosaic(first, second, others, seed))
    if not made:
        raise InputError("no class has two images: mosaics need two of the target class.")
    return sorted(made, key=lambda one: one.id)


def _mosaic(first: Any, second: Any, others: Sequence[Any], seed: int) -> MosaicImage:
    name = f"{first.id}+{second.id}"
    random = generator("mosaic", seed, name)
    drawn = random.choice(len(others), 2, replace=False)
    four = [(first, True), (second, True), *((others[int(at)], False) for at in drawn)]
    one, two, three, four_th = (four[int(place)] for place in random.permutation(4))
    parts, targets = zip(one, two, three, four_th, strict=True)
    return MosaicImage(name, tuple(parts), tuple(targets), first.label)
