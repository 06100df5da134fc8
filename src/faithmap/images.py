"""Images with stable ids, read one by one: a folder, Imagenette, the embedded photos, or tensors."""

from __future__ import annotations

import copy
import hashlib
import io
import os
import shutil
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from PIL import Image as PillowImage
from PIL import ImageOps, UnidentifiedImageError
from platformdirs import user_cache_dir
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as transforms

from faithmap.arrays import array_in, open_picture
from faithmap.checks import as_integer, as_list, as_shaped_pixels, as_text
from faithmap.errors import DownloadError, ImageError, InputError, missing, shown
from faithmap.files import expanded, files_in, read_bytes
from faithmap.foreign import entries, plain_text
from faithmap.grouping import GROUP_NOUN, Groups, group_noun, groups_by_id, named, suggestion
from faithmap.mosaics import PREFIX, MosaicImage, mosaics
from faithmap.text import first_line, printable

PHOTOS = "photos"
IMAGENETTE = "imagenette"
# The ten classes of Imagenette, folder name → ImageNet class index.
IMAGENETTE_CLASSES = {
    "n01440764": 0,
    "n02102040": 217,
    "n02979186": 482,
    "n03000684": 491,
    "n03028079": 497,
    "n03394916": 566,
    "n03417042": 569,
    "n03425413": 571,
    "n03445777": 574,
    "n03888257": 701,
}
_IMAGENETTE_FOLDER = "imagenette2-320"

_PHOTOS = {
    "astronaut": ("skimage", "data/astronaut.png"),
    "cat": ("skimage", "data/chelsea.png"),
    "coffee": ("skimage", "data/coffee.png"),
    "motorcycle": ("skimage", "data/motorcycle_left.png"),
    "rocket": ("skimage", "data/rocket.jpg"),
    "china": ("sklearn", "datasets/images/china.jpg"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "hopper": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
}
# Square crops of a photo: side as a fraction of the short side, and where the free room goes (0 left or top … 1).
_CUTS = {
    "whole": (1.0, 0.5, 0.5),
    "centre": (0.75, 0.5, 0.5),
    "top-left": (0.75, 0.0, 0.0),
    "top-right": (0.75, 1.0, 0.0),
    "bottom-left": (0.75, 0.0, 1.0),
    "bottom-right": (0.75, 1.0, 1.0),
}
ARRAY_SUFFIX = ".npy"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MAX_PIXELS = 178_956_970  # Pillow's own limit for a decompression bomb
# Stands in place of the hash of a file that could not be read when a run started.
UNREADABLE = "unreadable"


@dataclass(frozen=True)
class ImageFile:
    """One image in a file.

    Attributes:
        id: stable name of the image, unique in its set; printable text, never used as a path.
        path: where the file is.
        label: true class as an index or a name; None where it is not known.
        cut: None for the whole picture, or (side, x, y) of a square crop as in the embedded photos.
        content: the hash that the file must have when it is read; see `Images.pinned`. None takes any.
        group: the independent unit that it belongs to (photo, patient, video); None: the image is its own.
    """

    id: str
    path: Path
    label: int | str | None = None
    cut: tuple[float, float, float] | None = None
    content: str | None = field(default=None, compare=False)
    group: str | None = None

    def absolute(self) -> ImageFile:
        """The same image as processes with another working directory see it."""
        return replace(self, path=self.path.absolute())

    def content_hash(self) -> str:
        """Sixteen hex digits over the file's bytes and the cut.

        Raises:
            OSError: a file that cannot be read, or that is not a regular file.
        """
        return self.content or self._hash(read_bytes(self.path))

    def _hash(self, data: bytes) -> str:
        digest = hashlib.sha256(repr(self.cut).encode() if self.cut else b"")
        digest.update(data)
        return digest.hexdigest()[:16]

    def read(self, preprocessing: Preprocessing) -> Float[Tensor, "channels height width"]:
        """Decode, turn upright (EXIF), convert to the network's channels, resize, crop: float32 in [0, 1].

        A picture becomes RGB, grey, or RGB with alpha, for three, one or four channels. Any number of channels comes
        from an array (.npy) or from the pages of a TIFF.

        Raises:
            ImageError: a file that is not an image, is damaged, is too large or too narrow to decode, has other
                channels, or has changed since it was pinned.
        """
        picture: PillowImage.Image | npt.NDArray[np.float32]
        try:
            data = read_bytes(self.path)
            if self.content is not None and self._hash(data) != self.content:
                raise ImageError("its file has changed since the run started.")
            if self.path.suffix.lower() == ARRAY_SUFFIX:
                return preprocessing.array(_read_array(data, preprocessing.channels))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", PillowImage.DecompressionBombWarning)
                with open_picture(io.BytesIO(data)) as file:
                    width, height = file.size
                    if width * height > _MAX_PIXELS:
                        raise ImageError(f"it is {width}×{height} pixels, more than {_MAX_PIXELS}: make it smaller.")
                    pages, channels = getattr(file, "n_frames", 1), preprocessing.channels
                    if channels not in (1, 3) and pages == channels:
                        return preprocessing.array(_pages(file, channels))
                    if channels not in (1, 3) and data[:4] in _TIFF and (pages > 1 or file.mode != "RGBA"):
                        return preprocessing.array(_tiff(data, channels))
                    file.seek(0)  # the first picture of an animation
                    picture = _converted(ImageOps.exif_transpose(file), preprocessing.channels)
                    if isinstance(picture, np.ndarray):
                        return preprocessing.array(picture)
        except ImageError as error:
            raise ImageError(f"image '{self.id}' cannot be used: {error}") from None
        except PillowImage.DecompressionBombError:
            raise ImageError(f"image '{self.id}' cannot be used: more than {_MAX_PIXELS} pixels.") from None
        except FileNotFoundError:
            raise ImageError(f"image '{self.id}' is no longer at {self.path}.") from None
        except UnidentifiedImageError:
            if data[:4] in _TIFF:  # samples or depths that Pillow does not know
                return self._from_tiff(data, preprocessing)
            raise ImageError(f"image '{self.id}' cannot be used: the file is not an image.") from None
        except MemoryError:
            raise
        except Exception as error:  # Pillow's decoders raise whatever comes to their minds on damaged files
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
            raise ImageError(f"image '{self.id}' cannot be used: {reason}.") from None
        if self.cut is not None:
            picture = cropped(picture, *self.cut)
        return to_pixels(picture, preprocessing, self.id)

    def _from_tiff(self, data: bytes, preprocessing: Preprocessing) -> Tensor:
        try:
            return preprocessing.array(_tiff(data, preprocessing.channels))
        except ImageError as error:
            raise ImageError(f"image '{self.id}' cannot be used: {error}") from None
        except MemoryError:
            raise
        except Exception as error:  # tifffile raises whatever it meets in a damaged file
            raise ImageError(f"image '{self.id}' cannot be used: {first_line(error)}.") from None


@dataclass(frozen=True)
class TensorImage:
    """One image that is in memory already, at the network's input size."""

    id: str
    pixels: Tensor = field(repr=False)
    label: int | str | None = None
    group: str | None = None
    content: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "pixels", as_shaped_pixels(self.pixels, f"image {self.id!r}", (3,)).cpu())

    def absolute(self) -> TensorImage:
        """Itself."""
        return self

    def content_hash(self) -> str:
        """Sixteen hex digits over the values."""
        return self.content or self._hash()

    def _hash(self) -> str:
        return hashlib.sha256(self.pixels.contiguous().numpy().tobytes()).hexdigest()[:16]

    def read(self, preprocessing: Preprocessing) -> Float[Tensor, "channels height width"]:
        """The pixels as they are (float32, [0, 1]).

        Raises:
            ImageError: values that are not finite, outside [0, 1], or others than when the image was pinned.
        """
        if self.content is not None and self._hash() != self.content:
            raise ImageError(f"image '{self.id}' cannot be used: its pixels have changed since the run started.")
        if not self.pixels.isfinite().all():
            raise ImageError(f"image '{self.id}' has pixels that are not finite.")
        if self.pixels.amin() < 0 or self.pixels.amax() > 1:
            raise ImageError(
                f"image '{self.id}' has values in [{self.pixels.amin():g}, {self.pixels.amax():g}], expected [0, 1]: "
                "give pixels before normalisation."
            )
        return self.pixels.to(torch.float32, copy=True)


AnyImage = ImageFile | TensorImage | MosaicImage


class Images(Sequence[AnyImage]):
    """A list of images that have not been read yet.

    Args:
        name: what reports call the set.
        items: the images; ids must be unique.
        group_noun: what a group of them is called: photo, patient.
    """

    def __init__(self, name: str, items: Sequence[AnyImage], group_noun: str = GROUP_NOUN) -> None:
        self.name = as_text(name, "the name of the images")
        self.group_noun = as_text(group_noun, "group_noun")
        self.items: list[AnyImage] = entries(items, "items") if isinstance(items, Sequence) else []
        if not isinstance(items, Sequence) or not all(isinstance(item, AnyImage) for item in self.items):
            raise InputError(f"items is {shown(items)}: give a list of images, or load them with load_images.")
        ids = [as_text(item.id, "an image id") for item in self.items]
        # Random numbers are keyed by ids; others' kinds of text are written differently.
        self.items = [
            item if type(item.id) is str else replace(item, id=name) for item, name in zip(self.items, ids, strict=True)
        ]
        if len(set(ids)) < len(ids):
            twice = next(i for i in ids if ids.count(i) > 1)
            raise InputError(f"two images have the id '{twice}': give every image its own.")

    @overload
    def __getitem__(self, index: int) -> AnyImage: ...
    @overload
    def __getitem__(self, index: slice) -> Images: ...
    def __getitem__(self, index: int | slice) -> AnyImage | Images:
        return self.with_items(self.items[index]) if isinstance(index, slice) else self.items[index]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[AnyImage]:
        return iter(self.items)

    def __repr__(self) -> str:
        return f"Images({self.name}: {len(self)})"

    def with_items(self, items: Sequence[AnyImage]) -> Images:
        """A set of the same name with other images."""
        return Images(self.name, items, self.group_noun)

    def limit(self, count: int | None, seed: int = 0) -> Images:
        """A random subset that depends on the seed and the ids alone; a smaller one is part of a larger one."""
        if count is None or as_integer(count, "limit", 1, sys.maxsize) >= len(self):
            return self
        seed = as_integer(seed, "seed", 0, 2**63 - 1)
        chosen = sorted(self.items, key=lambda item: hashlib.sha256(repr((seed, item.id)).encode()).digest())[:count]
        return self.with_items(sorted(chosen, key=lambda item: item.id))

    def pinned(self) -> Images:
        """The same images, each with the hash of what it holds now; one that holds something else later is refused.

        Reads every file once. A file that cannot be read stays in the list, and is named when its turn comes.
        """
        return self.with_items([replace(item, content=_content(item)) for item in self.items])

    def grouped(self, groups: Groups) -> Images:
        r"""The same images with their groups.

        Args:
            groups: what belongs together and is not independent. ``"folder"``: the images of one folder; a regular
                expression with one capture, searched in the ids; a CSV file with the columns image and group; or a
                mapping id → group. None leaves the groups as they are. A capture with a name,
                ``r"(?P<patient>\d+)_"``, or another name of the CSV's second column says what a group is called.
        Raises:
            InputError: a pattern without exactly one capture or one that takes longer than half a minute, a file that
                cannot be read, or images without a group.
        """
        if groups is None:
            return self
        groups = plain_text(groups) if isinstance(groups, str) else groups
        found = groups_by_id(groups, [item.id for item in self])
        lacking = [name for name, group in found.items() if not group]
        if lacking:
            raise InputError(
                f"groups {named(groups)} gives none for image '{lacking[0]}'"
                f"{f' and {len(lacking) - 1} more' if len(lacking) > 1 else ''}: every image needs one."
            )
        return Images(self.name, [replace(item, group=found[item.id]) for item in self], group_noun(groups))

    def check_apart(self, folder: Path) -> None:
        """A run's figures are written into its folder, and would be images the next time.

        Args:
            folder: of a run or a study.
        Raises:
            InputError: it is the folder that the images are in.
        """
        files = [item for item in self if isinstance(item, ImageFile) and item.cut is None]
        roots = {root for item in files for root in [*item.path.parents][item.id.count("/") :][:1]}
        if folder.resolve() in {root.resolve() for root in roots}:
            raise InputError(
                f"{printable(str(folder))} is the folder of the images, where figures of the run would count as "
                "images: choose another folder for the run."
            )

    def suggested_groups(self) -> str | None:
        """A sentence where names look like several crops of the same photos and no groups are given, else None."""
        given = any(item.group is not None for item in self)
        return None if given else suggestion([item.id for item in self])


def _content(item: AnyImage) -> str:
    try:
        return item.content_hash()
    except OSError as error:
        return f"{UNREADABLE}: {error.strerror}"


class PixelSource:
    """The pixels of a whole image set at one input size, read when they are asked for.

    Args:
        images: the set.
        preprocessing: of the classifier.
    """

    def __init__(self, images: Images, preprocessing: Preprocessing) -> None:
        self.preprocessing = preprocessing
        self._image = {image.id: image for image in images}
        self._mean: Tensor | None = None
        self._shapes: dict[str, tuple[int, ...] | None] = {}

    def absolute(self) -> PixelSource:
        """The same images as processes with another working directory see them."""
        found = copy.copy(self)
        found._image = {name: image.absolute() for name, image in self._image.items()}
        return found

    @property
    def ids(self) -> list[str]:
        """All ids of the set."""
        return list(self._image)

    def read(self, image_id: str) -> Float[Tensor, "channels height width"]:
        """The pixels of one image.

        Raises:
            ImageError: it cannot be read.
        """
        return self._image[image_id].read(self.preprocessing)

    def shape(self, image_id: str) -> tuple[int, ...] | None:
        """Channels, height and width of an image, or None for one that cannot be read; looked at once."""
        if image_id not in self._shapes:
            try:
                self._shapes[image_id] = tuple(self.read(image_id).shape)
            except ImageError:
                self._shapes[image_id] = None
        return self._shapes[image_id]

    def content_hash(self) -> str:
        """Sixteen hex digits over the ids and contents of all images."""
        digest = hashlib.sha256()
        for name, image in sorted(self._image.items()):
            content = _content(image)
            known = UNREADABLE if content.startswith(UNREADABLE) else content
            digest.update(repr((name, known)).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()[:16]

    def mean_colour(self) -> Float[Tensor, "channels"]:
        """The mean of each channel over all images that can be read, float64; reads each once.

        Raises:
            InputError: none can be read.
        """
        if self._mean is None:
            total, count = torch.zeros(1, dtype=torch.float64), 0
            for image in self._image.values():
                try:
                    total = total + image.read(self.preprocessing).double().mean((1, 2))
                except ImageError:
                    continue
                count += 1
            if count == 0:
                raise InputError("the mean colour of the image set was asked for, and no image can be read.")
            self._mean = total / count
        return self._mean


def to_pixels(
    picture: PillowImage.Image, preprocessing: Preprocessing, name: str = "picture"
) -> Float[Tensor, "channels height width"]:
    """A picture in the network's channels → float32 pixels in [0, 1] at the network's input size."""
    try:
        preprocessing.check_size(*picture.size)
    except ImageError as error:
        raise ImageError(f"image '{name}' cannot be used: {error}") from None
    return preprocessing(picture)


def rgb(
    pixels: Float[Tensor, "channels height width"], channels: Sequence[int] | None = None
) -> Float[Tensor, "3 height width"]:
    """An image of any number of channels as colours to look at.

    Args:
        pixels: the image.
        channels: which channels are red, green and blue, or one that is shown in grey, counted from 1. By default the
            first three; of one or two channels the first, in grey.
    Raises:
        InputError: neither one channel nor three, or one that the image does not have.
    """
    chosen = as_shown_channels(channels) or ((1, 2, 3) if len(pixels) > 2 else (1,))
    if max(chosen) > len(pixels):
        raise InputError(
            f"channels asks for channel {max(chosen)} of images with {len(pixels)}: give 1 to {len(pixels)}."
        )
    return pixels[[one - 1 for one in chosen]].expand(3, -1, -1)


def as_shown_channels(channels: Any) -> tuple[int, ...] | None:
    """The channels that pictures show, checked; None where none were chosen.

    Raises:
        InputError: anything but one channel or three, counted from 1.
    """
    if channels is None:
        return None
    given = [channels] if isinstance(channels, int) else as_list(channels, "channels", "one channel, or three")
    if len(given) not in (1, 3):
        raise InputError(f"channels is {shown(channels)}: give one channel, or three for red, green and blue.")
    return tuple(as_integer(one, "a channel (counted from 1)", 1, sys.maxsize) for one in given)


def _read_array(data: bytes, channels: int) -> npt.NDArray[np.float32]:
    """An array (C, H, W) or (H, W, C), or (H, W) for one channel, as (C, H, W).

    Integers are divided by the largest of their type; floating values are taken as they are.

    Raises:
        ImageError: another shape.
        ArrayFileError: not an array of numbers, or a damaged file.
    """
    array = array_in(data)
    if array.ndim not in (2, 3):
        raise ImageError("expected an array of numbers (C, H, W) or (H, W, C).")
    if array.ndim == 2:
        array = array[None]
    if array.shape[0] != channels and array.shape[2] == channels:
        array = array.transpose(2, 0, 1)
    if array.shape[0] != channels or 0 in array.shape:
        raise ImageError(f"it is an array {array.shape}, the network takes {channels} channels.")
    return _scaled(array)


def _tiff(data: bytes, channels: int) -> npt.NDArray[np.float32]:
    """A TIFF with any number of channels, as samples of one page or as pages.

    Raises:
        ImageError: other channels.
        ValueError: a damaged file.
    """
    try:
        import tifffile
    except ImportError:
        raise ImageError(missing("a TIFF with several samples per pixel needs", "tifffile", extra="tiff")) from None
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        first = file.pages[0]
        if first.size * len(file.pages) > _MAX_PIXELS * channels:
            raise ImageError(f"it holds more than {_MAX_PIXELS} pixels: make it smaller.")
        pages = [_planes(page) for page in file.pages]
    shapes = " and ".join(sorted({str(page.shape) for page in pages}))
    if len({page.shape for page in pages}) > 1 or sum(len(page) for page in pages) != channels:
        found = f"{len(pages)} page{'s' * (len(pages) > 1)} of {shapes} (samples, height, width)"
        raise ImageError(f"it has {found}, the network takes {channels} channels: give them as samples or as pages.")
    return np.concatenate(pages)


def _planes(page: Any) -> npt.NDArray[np.float32]:
    """One page of a TIFF as (samples, height, width)."""
    array, axes = page.asarray(), page.axes
    if array.dtype.kind not in "buif" or sorted(axes) not in (["X", "Y"], ["S", "X", "Y"]):
        raise ImageError(f"a page of it holds {array.dtype} over the axes {axes}, expected numbers over (S)YX.")
    planes = array[None] if "S" not in axes else np.moveaxis(array, axes.index("S"), 0)
    return _scaled(planes)


def _scaled(array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Numbers as float32: integers divided by the largest of their type."""
    largest = np.iinfo(array.dtype).max if array.dtype.kind in "ui" else 1
    return (array.astype(np.float64) / largest).astype(np.float32)


def _pages(file: PillowImage.Image, channels: int) -> npt.NDArray[np.float32]:
    """The pages of a file as the channels of one image."""
    pages = []
    for page in range(getattr(file, "n_frames", 1)):
        file.seek(page)
        pages.append(_scaled(np.asarray(file)))
    if len(pages) != channels or any(page.ndim != 2 or page.shape != pages[0].shape for page in pages):
        shapes = " and ".join(sorted({str(page.shape) for page in pages}))
        raise ImageError(f"it has {len(pages)} pages of {shapes}, the network takes {channels} grey ones of one size.")
    return np.stack(pages)


def _converted(picture: PillowImage.Image, channels: int) -> PillowImage.Image | npt.NDArray[np.float32]:
    """The picture in the network's channels: an array where eight bits would lose values."""
    if channels == 3:
        return _to_rgb(picture)
    if channels == 1:
        if picture.mode.startswith("I;16"):
            return _scaled(np.asarray(picture).astype(np.uint16))[None]
        return picture.convert("L") if picture.mode in ("L", "LA", "1") else _to_rgb(picture).convert("L")
    if channels == 4 and picture.mode in ("RGBA", "LA", "PA"):
        return picture.convert("RGBA")
    raise ImageError(f"it is a picture ({picture.mode}), the network takes {channels} channels: give an array (.npy).")


def _to_rgb(picture: PillowImage.Image) -> PillowImage.Image:
    if picture.mode.startswith("I;16") or picture.mode == "I":
        values = np.asarray(picture)
        least, most = int(values.min()), int(values.max())
        if least < 0 or most > 65_535:  # signed, or 32 bits: where black and white are is anybody's guess
            raise ImageError(f"it holds integers from {least} to {most}, expected 8 or 16 bits: convert it to PNG.")
        # Pillow cuts 16-bit grey off at 255 instead of scaling it.
        picture = picture.convert("I").point(lambda value: value / 257.0).convert("L")
    elif picture.mode == "F":
        raise ImageError("it holds floating-point values, expected 8 or 16 bits a channel: convert it to PNG.")
    return picture.convert("RGB")


def cropped(picture: PillowImage.Image, share: float, x: float, y: float) -> PillowImage.Image:
    """A square crop, see `ImageFile.cut`."""
    width, height = picture.size
    side = round(min(width, height) * share)
    left, top = round((width - side) * x), round((height - side) * y)
    return picture.crop((left, top, left + side, top + side))


def load_images(
    source: str | Path | Images | Float[Tensor, "images channels height width"] | Sequence[str | Path],
    limit: int | None = None,
    seed: int = 0,
    data: str | Path | None = None,
    groups: Groups = None,
) -> Images:
    """Images by name, folder or tensor; nothing is decoded yet.

    Args:
        source: ``"photos"`` (embedded: 8 photos, 6 cuts each), ``"imagenette"`` (the 320 px validation images;
            downloaded once and verified), ``"mosaic:FOLDER"`` (four images of the folder in one, see
            `faithmap.mosaics`), a folder (flat, or one folder per class) or file, a list of files, or a
            tensor or array (N, C, H, W) in [0, 1] at the network's input size.
        limit: how many; a random subset that depends on the seed and the ids alone. None takes all.
        seed: of the subset.
        data: where data sets are kept; by default the user's cache folder. A folder ``imagenette2-320`` in `data` or in
            the working directory is used as it is.
        groups: what belongs together (photo, patient, video) and is not independent; see `Images.grouped`. The embedded
            photos come grouped, all others are their own group.
    Raises:
        InputError: a folder that does not exist or holds no image, anything that is no source of images, or groups that
            cannot be.
        DownloadError: no network, or a file with the wrong hash.
    """
    return _loaded(source, data).grouped(groups).limit(limit, seed)


def _loaded(source: Any, data: str | Path | None) -> Images:
    if isinstance(source, Images):
        return source
    source = plain_text(source) if isinstance(source, str) else source
    if isinstance(source, str) and source.startswith(PREFIX):
        parts = _loaded(source.removeprefix(PREFIX), data)
        return Images(source, mosaics(parts.items))
    if isinstance(source, Path) or (isinstance(source, str) and source not in (PHOTOS, IMAGENETTE)):
        return _folder(_path(source))
    if isinstance(source, str):
        return (
            _photos() if source == PHOTOS else _imagenette(_path(data) if data is not None else default_data_folder())
        )
    if isinstance(source, Sequence):
        source = entries(source, "images")
        if all(isinstance(one, str | Path) for one in source):
            return _files([_path(one) for one in source])
    return _tensors(source)


def _path(text: str | Path) -> Path:
    """A path as it was given, `~` written out."""
    text = plain_text(text) if isinstance(text, str) else text
    if not str(text) or "\0" in str(text):
        raise InputError(f"images is {str(text)!r}: give a folder of images, '{PHOTOS}' or '{IMAGENETTE}'.")
    return expanded(text)


def default_data_folder() -> Path:
    """Where downloaded data sets are kept: ``$FAITHMAP_DATA``, else the user's cache folder."""
    return Path(os.environ.get("FAITHMAP_DATA") or user_cache_dir("faithmap"))


def image_id(relative: Path) -> str:
    """A printable, unique id from a path: POSIX slashes, bytes that are not UTF-8 written as ``\\xff``."""
    return os.fsencode(relative.as_posix().replace("\\", "\\\\")).decode("utf-8", "backslashreplace")


def _tensors(source: Any) -> Images:
    pixels = as_shaped_pixels(source, "images")
    digits = len(str(len(pixels) - 1))
    return Images("tensor", [TensorImage(f"{i:0{digits}d}", image) for i, image in enumerate(pixels)])


def _files(paths: Sequence[Path]) -> Images:
    """Single files, named by their names, or by their whole paths where names repeat."""
    if not paths:
        raise InputError("images is an empty list: give at least one file.")
    for path in paths:
        if not os.path.isfile(path):  # False where a name is too long
            raise InputError(f"there is no image file {printable(str(path))}: give files, or one folder.")
    unique = len({path.name for path in paths}) == len(paths)
    items = [ImageFile(image_id(Path(path.name) if unique else path), path) for path in paths]
    return Images("files", sorted(items, key=lambda item: item.id))


def _folder(path: Path, name: str | None = None) -> Images:
    try:
        exists, single = path.exists(), path.exists() and not path.is_dir()
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise InputError(f"{printable(str(path))} cannot be looked at ({error.strerror}).") from None
    if not exists:
        raise InputError(
            f"no folder or file {printable(str(path))}: give a folder of images, '{PHOTOS}' or '{IMAGENETTE}'."
        )
    if single:
        return Images(path.name, [ImageFile(image_id(Path(path.name)), path)])
    suffixes = {*PillowImage.registered_extensions(), ARRAY_SUFFIX}
    items = []
    try:
        found = files_in(path, suffixes)
    except OSError as error:
        where = printable(str(error.filename or path))
        raise InputError(f"{printable(str(path))} is no folder of images: {where}: {error.strerror}.") from None
    for file in found:
        relative = file.relative_to(path)
        label = image_id(Path(relative.parts[0])) if len(relative.parts) > 1 else None
        items.append(ImageFile(image_id(relative), file, label))
    if not items:
        raise InputError(
            f"no image in {printable(str(path))}: expected files such as .jpg or .png, flat or one folder per class."
        )
    return Images(name or path.name, sorted(items, key=lambda item: item.id))


def package_file(package: str, file: str) -> Path | None:
    """A file that an installed package carries; None where it is not installed. Imports nothing of it."""
    spec = find_spec(package)
    path = Path(spec.submodule_search_locations[0]) / file if spec and spec.submodule_search_locations else None
    return path if path is not None and path.exists() else None


def _photos() -> Images:
    items = []
    for photo, (package, file) in _PHOTOS.items():
        path = package_file(package, file)
        if path is None:
            raise InputError(missing("the embedded photos need", package, extra="demo"))
        items += [ImageFile(f"{photo}-{name}", path, cut=cut, group=photo) for name, cut in _CUTS.items()]
    return Images(PHOTOS, sorted(items, key=lambda item: item.id), "photo")


def _imagenette(data: Path) -> Images:
    for place in (data, Path.cwd()):
        if (place / _IMAGENETTE_FOLDER / "val").is_dir():
            return _folder(place / _IMAGENETTE_FOLDER / "val", IMAGENETTE)
    return _folder(_download_imagenette(data) / "val", IMAGENETTE)


def _download_imagenette(data: Path) -> Path:
    """Download, verify and unpack under a temporary name; the folder appears only once it is whole."""
    from torchvision.datasets import Imagenette

    incoming = data / "incoming"
    try:
        incoming.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(incoming / _IMAGENETTE_FOLDER, ignore_errors=True)  # what an interrupted unpacking left
        Imagenette(incoming, split="val", size="320px", download=True)
        os.replace(incoming / _IMAGENETTE_FOLDER, data / _IMAGENETTE_FOLDER)
    except (OSError, RuntimeError, EOFError) as error:
        raise DownloadError(
            f"Imagenette could not be downloaded to {data} ({error}): check the network and the disk and run again, or "
            f"put a folder {_IMAGENETTE_FOLDER} there yourself."
        ) from error
    shutil.rmtree(incoming, ignore_errors=True)
    return data / _IMAGENETTE_FOLDER


IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """How an image file becomes pixels: resize, cut the centre.

    Attributes:
        crop: height and width of the network's input, in pixels.
        resize: length that the short side is resized to before the cut, in pixels; or height and width, where both
            sides are resized whatever the picture's shape; None for no resizing.
        interpolation: ``"bilinear"``, ``"bicubic"``, ``"lanczos"``, ``"box"``, ``"hamming"`` or ``"nearest"``, as
            Pillow does them (antialiased).
        channels: of the network's input.
    """

    crop: tuple[int, int] = (224, 224)
    resize: int | tuple[int, int] | None = 256
    interpolation: str = "bilinear"
    channels: int = 3

    def __call__(self, picture: PillowImage.Image) -> Float[Tensor, "channels height width"]:
        """A picture in the network's channels → float32 pixels in [0, 1], as torchvision's own transforms do it."""
        if self.resize is not None:
            size = self.resize if isinstance(self.resize, int) else list(self.resize)
            picture = transforms.resize(picture, size, interpolation=InterpolationMode(self.interpolation))
        pixels: Tensor = transforms.to_tensor(transforms.center_crop(picture, list(self.crop)))
        return pixels

    def array(
        self, values: Float[npt.NDArray[np.float32], "channels height width"]
    ) -> Float[Tensor, "channels height width"]:
        """Numbers in [0, 1] → pixels, every channel resized and cropped as a picture is.

        Raises:
            ImageError: values outside [0, 1] or not finite, or a shape too narrow to resize.
        """
        if not (values >= 0).all() or not (values <= 1).all():
            raise ImageError(f"it has values in [{values.min():g}, {values.max():g}], expected [0, 1], or integers.")
        self.check_size(values.shape[2], values.shape[1])
        pixels = torch.cat([self(PillowImage.fromarray(channel, mode="F")) for channel in values])
        return pixels.clamp(0, 1)  # bicubic and Lanczos overshoot; Pillow clamps bytes itself

    def check_size(self, width: int, height: int) -> None:
        """Raise an `ImageError` for a picture so narrow that resizing its short side makes it enormous."""
        short, long = sorted((width, height))
        if isinstance(self.resize, int) and self.resize * self.resize * long / max(short, 1) > _MAX_PIXELS:
            raise ImageError(f"{width}×{height} is too narrow.")

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types, without later parts at their default."""
        parts = asdict(self)
        if self.channels == 3:
            del parts["channels"]
        return parts
