"""Where the object is: masks from PNG files, VOC boxes or COCO annotations, brought to the network's input size.

A mask goes through the same crop and resizing as its image, without interpolation.
"""

from __future__ import annotations

import io
import json
import os
import warnings
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Bool
from PIL import Image as PillowImage
from torch import Tensor

from faithmap.arrays import open_picture
from faithmap.checks import as_tensor
from faithmap.errors import FaithmapError, MeasureError, MethodWarning, shown
from faithmap.files import as_path, by_id, files_in, read_bytes
from faithmap.foreign import pairs
from faithmap.images import AnyImage, ImageFile, Preprocessing, cropped
from faithmap.measures.measure import Measure
from faithmap.mosaics import MosaicImage
from faithmap.text import first_line, printable

MOST_PIXELS = 178_956_970  # as of an image
_FAR = 100_000  # pixels; a corner of a polygon further away is no corner of anything in an image


class MaskSource(Protocol):
    """Where masks come from."""

    def key(self, image: AnyImage) -> str | None:
        """The name under which an image's mask is found; None where there is none."""
        ...

    def picture(self, image: AnyImage) -> PillowImage.Image | None:
        """The mask of an image before any crop or resizing, white on the object; None where there is none."""
        ...


def load_masks(source: Any, category: str | None = None) -> MaskSource | None:
    """Masks from a folder, a COCO file or memory.

    Args:
        source: a folder of PNG masks (non-zero on the object) or of VOC annotations (.xml), named by image id with or
            without the suffix of the image; a COCO annotation file (.json), whose images are found by file name; a
            mapping image id → mask (H, W) at the network's input size; None where there are none. Mosaics know their
            own.
        category: objects of this class alone; by default all. ``"label"`` takes those of the image's own class name.
    Raises:
        MeasureError: nothing there, or a file that holds no annotations.
    """
    if source is None:
        return None
    if isinstance(source, Mapping):
        return _Given(
            {
                str(name): as_tensor(mask, f"the mask of image '{name}'", MeasureError).bool()
                for name, mask in pairs(source, "masks", MeasureError).items()
            }
        )
    if not isinstance(source, str | os.PathLike):
        raise MeasureError(f"masks is {shown(source)}: give a folder, a COCO file, or image id → mask.")
    path = as_path(source, "masks")
    if path.is_file() and path.suffix == ".json":
        return _Coco(path, category)
    if path.is_dir():
        try:
            inside = [file for file in files_in(path, (".png", ".xml")) if file.is_file()]
            pictures, boxes = ([file for file in inside if file.suffix.lower() == one] for one in (".png", ".xml"))
            files = by_id(path, pictures) | by_id(path, boxes)
        except OSError as error:
            raise MeasureError(f"{path} is no folder of masks: {error.strerror}.") from None
        for kind, suffix in ((_Png, ".png"), (_Voc, ".xml")):
            mine = {name: file for name, file in files.items() if file.suffix.lower() == suffix}
            if mine:
                return kind(mine, category)
        raise MeasureError(
            f"no mask in {printable(str(path))}: expected .png masks or VOC .xml files named by image id."
        )
    raise MeasureError(
        f"no masks at {printable(str(path))}: give a folder of .png or VOC .xml files, or a COCO .json file."
    )


def masks_of(
    images: Iterable[AnyImage], source: MaskSource | None, preprocessing: Preprocessing
) -> dict[str, Tensor | str]:
    """The masks of some images at the network's input size, or why there is none.

    Args:
        images: mosaics bring their own mask.
        source: from `load_masks`.
        preprocessing: of the classifier.
    Returns:
        Image id → mask (H, W), true on the object, or a reason. Images without a mask are missing.
    """
    found: dict[str, Tensor | str] = {}
    for image in images:
        try:
            mask = mask_of(image, source, preprocessing)
        except Exception as error:  # files from outside
            reason = str(error) if isinstance(error, FaithmapError) else _why(error)
            found[image.id] = f"the mask of image '{image.id}' cannot be used: {reason}"
        else:
            if mask is not None:
                found[image.id] = mask
    return found


def masks_for(
    measures: Iterable[Measure], images: Iterable[AnyImage], source: Any, preprocessing: Preprocessing
) -> dict[str, Tensor | str]:
    """The masks that some measures need, see `masks_of`; none where none is needed.

    Args:
        measures: what is asked for.
        images, preprocessing: as in `masks_of`.
        source: as in `load_masks`.
    Raises:
        MeasureError: a measure needs masks, and no image has one.
    """
    found = load_masks(source)
    needy = [measure.name for measure in measures if measure.needs == "masks"]
    if not needy:
        return {}
    images = list(images)
    masks = masks_of(images, found, preprocessing)
    if found is not None:
        note_shared(images, found)
    if not masks:
        raise MeasureError(
            f"measure '{needy[0]}' needs to know where the object is, and no image has a mask: give masks by image id "
            "(--masks FOLDER), or images as mosaics (mosaic:FOLDER)."
        )
    return masks


def note_shared(images: Iterable[AnyImage], source: MaskSource) -> None:
    """Say which images have one mask, because it is named without a folder or suffix: they may be other photos."""
    first: dict[str, AnyImage] = {}
    for image in images:
        key = None if isinstance(image, MosaicImage) else source.key(image)
        if key is not None and (other := first.setdefault(key, image)) is not image:
            warnings.warn(
                f"images '{other.id}' and '{image.id}' have the same mask, '{key}': if they show other things, give "
                "each its own, named with its folder.",
                MethodWarning,
                stacklevel=4,
            )
            return


def mask_of(
    image: AnyImage, source: MaskSource | None, preprocessing: Preprocessing
) -> Bool[Tensor, "height width"] | None:
    """The mask of one image at the network's input size.

    Raises:
        MeasureError: a mask whose size is neither the image's nor the network's input size.
    """
    if isinstance(image, MosaicImage):
        return image.mask(*image.read(preprocessing).shape[-2:])
    picture = None if source is None else source.picture(image)
    if picture is None:
        return None
    height, width = _input_size(image, preprocessing)
    if isinstance(image, ImageFile) and picture.size == upright_size(image.path):
        picture = picture if image.cut is None else cropped(picture, *image.cut)
        return replace(preprocessing, interpolation="nearest")(picture)[0] > 0
    if picture.size != (width, height):
        raise MeasureError(
            f"it is {picture.size[0]}×{picture.size[1]} pixels, expected the size of the image or {width}×{height}."
        )
    return torch.from_numpy(np.asarray(picture) > 0)


def upright_size(path: Path) -> tuple[int, int]:
    """Width and height of an image file as it is shown, its orientation (EXIF) followed."""
    with open_picture(io.BytesIO(read_bytes(path))) as file:
        width, height = file.size
        turned = file.getexif().get(0x0112, 1) >= 5
    return (height, width) if turned else (width, height)


def _input_size(image: AnyImage, preprocessing: Preprocessing) -> tuple[int, int]:
    if isinstance(image, ImageFile):
        return preprocessing.crop
    height, width = image.read(preprocessing).shape[-2:]
    return int(height), int(width)


def _key(names: Mapping[str, Any], image: AnyImage) -> str | None:
    """Under which name an image's mask stands: its id, which may lack its suffix or its folder."""
    path = PurePosixPath(image.id)
    for name in (image.id, str(path.with_suffix("")), path.name, path.stem):
        if name in names:
            return name
    return None


def _why(error: Exception) -> str:
    """What is wrong with a file that holds something else than it should."""
    return f"it lacks {error}" if isinstance(error, KeyError) else first_line(error)


def _white(mask: Any) -> PillowImage.Image:
    return PillowImage.fromarray(np.where(np.asarray(mask), 255, 0).astype(np.uint8))


@dataclass
class _Given:
    masks: Mapping[str, Tensor] = field(repr=False)

    def key(self, image: AnyImage) -> str | None:
        return _key(self.masks, image)

    def picture(self, image: AnyImage) -> PillowImage.Image | None:
        key = self.key(image)
        return None if key is None else _white(self.masks[key])


@dataclass
class _Files:
    files: Mapping[str, Path] = field(repr=False)
    category: str | None = None

    def key(self, image: AnyImage) -> str | None:
        return _key(self.files, image)

    def _wanted(self, image: AnyImage) -> str | None:
        return str(image.label) if self.category == "label" else self.category


class _Png(_Files):
    def picture(self, image: AnyImage) -> PillowImage.Image | None:
        key = self.key(image)
        if key is None:
            return None
        with open_picture(io.BytesIO(read_bytes(self.files[key]))) as file:
            # The index of a palette says what a pixel is; its colour does not.
            values = np.asarray(file if file.mode in ("P", "1", "L", "I", "I;16") else file.convert("L"))
        return _white(values > 0)


def empty_mask(height: int, width: int, name: str) -> Any:
    """Nothing masked, of a size that a file states.

    Raises:
        MeasureError: no size of an image.
    """
    if min(height, width) < 1 or height * width > MOST_PIXELS:
        raise MeasureError(f"{name} is said to be {width}×{height} pixels, expected 1 to {MOST_PIXELS:,}.")
    return np.zeros((height, width), dtype=bool)


def four(box: Any) -> list[int]:
    """The numbers of a box, or of what a file says is one, as whole pixels.

    Raises:
        MeasureError: anything else.
    """
    try:
        found = [round(float(one)) for one in box]
    except (TypeError, ValueError, OverflowError):
        found = []
    if len(found) != 4:
        raise MeasureError(f"a box is {shown(box)}: expected four numbers.")
    return found


def fill_box(mask: Any, left: int, top: int, right: int, bottom: int) -> None:
    """Mask the pixels of a box, from left to before right and from top to before bottom.

    Raises:
        MeasureError: it ends before it begins.
    """
    if right < left or bottom < top:
        raise MeasureError(f"a box reaches from ({left}, {top}) to ({right}, {bottom}): it ends before it begins.")
    mask[max(0, top) : max(0, bottom), max(0, left) : max(0, right)] = True


class _Voc(_Files):
    """Boxes; coordinates are of pixels, from 1, both ends included."""

    def picture(self, image: AnyImage) -> PillowImage.Image | None:
        key = self.key(image)
        if key is None:
            return None
        root = ElementTree.fromstring(read_bytes(self.files[key]))
        height, width = (round(float(root.findtext(f"size/{side}") or 0)) for side in ("height", "width"))
        mask, wanted = empty_mask(height, width, self.files[key].name), self._wanted(image)
        for one in root.iter("object"):
            if wanted is None or one.findtext("name") == wanted:
                ends = [one.findtext(f"bndbox/{end}") for end in ("xmin", "ymin", "xmax", "ymax")]
                left, top, right, bottom = four(ends)
                fill_box(mask, left - 1, top - 1, right, bottom)
        return _white(mask)


class _Coco(_Files):
    """Segmentations, or boxes where there are none, through pycocotools."""

    def __init__(self, path: Path, category: str | None) -> None:
        super().__init__({path.name: path}, category)
        try:
            content = json.loads(read_bytes(path))
            self.images = {str(one["file_name"]): one for one in content["images"]}
            seen = Counter(f"{fact} '{one[fact]}'" for one in content["images"] for fact in ("file_name", "id"))
            ids = dict.fromkeys(one["id"] for one in content["images"])
            self.names = {one["id"]: one["name"] for one in content.get("categories", [])}
            self.annotations: dict[Any, list[dict[str, Any]]] = {}
            for one in content["annotations"]:
                self.annotations.setdefault(one["image_id"], []).append(one)
        except Exception as error:  # whatever a file holds instead
            raise MeasureError(f"{path} is no COCO annotation file: {_why(error)}.") from error
        if twice := [what for what, count in seen.items() if count > 1]:  # either could be meant
            raise MeasureError(f"{path} has two images of {twice[0]}: keep one.")
        if self.annotations and self.annotations.keys().isdisjoint(ids):
            given = f"image_id {shown(next(iter(self.annotations)))}, id {shown(next(iter(ids), None))}"
            raise MeasureError(f"{path} has no annotation of any of its images ({given}).")
        for name in list(self.images):
            self.images.setdefault(str(PurePosixPath(name).with_suffix("")), self.images[name])

    def key(self, image: AnyImage) -> str | None:
        return _key(self.images, image)

    def picture(self, image: AnyImage) -> PillowImage.Image | None:
        key = self.key(image)
        if key is None:
            return None
        about, wanted = self.images[key], self._wanted(image)
        height, width = int(about["height"]), int(about["width"])
        mask = empty_mask(height, width, str(about["file_name"]))
        for one in self.annotations.get(about["id"], []):
            if wanted is None or self.names.get(one.get("category_id")) == wanted:
                mask |= self._mask(one, height, width)
        return _white(mask)

    @staticmethod
    def _mask(annotation: Mapping[str, Any], height: int, width: int) -> Any:
        shape = annotation.get("segmentation")
        if not shape:
            left, top, wide, high = four(annotation["bbox"])
            box = np.zeros((height, width), dtype=bool)
            fill_box(box, left, top, left + wide, top + high)
            return box
        try:
            from pycocotools import mask as coco
        except ImportError as error:
            raise MeasureError("COCO masks need the package pycocotools: run `pip install pycocotools`.") from error
        # pycocotools is C that trusts what it is given: what does not fit the image would be written beside it.
        if isinstance(shape, list):
            for polygon in shape:
                corners = np.asarray(polygon, dtype=float)
                if corners.ndim != 1 or len(corners) < 6 or len(corners) % 2 or not np.abs(corners).max() <= _FAR:
                    raise MeasureError(f"a polygon is {shown(polygon)}: expected x, y of at least three corners.")
            encoded = coco.merge(coco.frPyObjects([list(map(float, polygon)) for polygon in shape], height, width))
            return coco.decode(encoded).astype(bool)
        counts = run_lengths(shape["counts"])
        if list(shape["size"]) != [height, width] or min(counts, default=0) < 0 or sum(counts) != height * width:
            raise MeasureError(f"a mask has runs of {sum(counts)} pixels, expected {height}×{width} of the image.")
        return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(width, height).T


def run_lengths(counts: Any) -> list[int]:
    """How long the runs of pixels off and on are, column by column, from the list or the text of a COCO file.

    Source:
        rleFrString of the COCO API: five bits per character, lowest first, a sixth for more; from the fourth on, the
        difference to the run before the last.
    """
    if isinstance(counts, list):
        return [int(one) for one in counts]
    found: list[int] = []
    value, shift = 0, 0
    for byte in counts.encode("ascii"):
        value |= (byte - 48 & 0x1F) << shift
        shift += 5
        if byte - 48 & 0x20:
            continue
        value -= 1 << shift if byte - 48 & 0x10 else 0
        found.append(value + (found[-2] if len(found) > 2 else 0))
        value, shift = 0, 0
    return found
