"""Heatmaps that are there already: arrays in memory, files, folders."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as transforms

from faithmap.arrays import SUFFIXES, ArrayFileError, StoredArray, array_names, stored_array
from faithmap.attribution.batch import Batch
from faithmap.checks import as_tensor
from faithmap.errors import HeatmapError, MethodError
from faithmap.files import by_id, file_digest, files_in, read_bytes, state_of
from faithmap.foreign import pairs
from faithmap.images import Preprocessing

RESIZES = tuple(f"{covers}{mode}" for covers in ("", "picture:") for mode in ("nearest", "bilinear", "bicubic"))
FEW = 4  # channels of a picture
LARGEST = 1 << 28  # numbers in a heatmap
MOST_FILES = 100_000  # and folders, that are looked through for heatmaps
CHANNELS = 1024  # more of them in a heatmap are a mistake, and would take memory without end


class Precomputed:
    """Heatmaps by image id.

    Args:
        source: what messages call them.
        read: image id → stored array (H, W), (C, H, W) or (H, W, C), or None where there is none.
        resize: how maps of another size become the network's input size, one of `RESIZES`; None refuses them.
    """

    def __init__(self, source: str, read: Callable[[str], StoredArray | None], resize: str | None = None) -> None:
        self.source, self.read, self.resize = source, read, resize

    def resized(self, how: str | None) -> Precomputed:
        """The same maps, resized."""
        return Precomputed(self.source, self.read, how)

    def __call__(self, batch: Batch) -> Tensor:
        """Heatmaps of the batch, float32 or float64.

        Raises:
            HeatmapError: none for an image, or one of another size; `index` says for which.
        """
        return torch.stack([self._one(batch, row, name) for row, name in enumerate(batch.image_ids)])

    def _one(self, batch: Batch, row: int, name: str) -> Tensor:
        try:
            stored = self.read(name)
            if stored is None:
                raise HeatmapError(f"no heatmap of image '{name}' in {self.source}: name it by the image's id.", row)
            size = (int(batch.pixels.shape[-2]), int(batch.pixels.shape[-1]))
            last = channels_last(stored.shape, size)
            shape = (stored.shape[2], *stored.shape[:2]) if last else stored.shape
            # Checked before it is read, because a file may claim anything.
            good = len(shape) in (2, 3) and math.prod(shape[:-2]) <= CHANNELS and 0 < math.prod(shape) <= LARGEST
            if not good or (shape[-2:] != size and self.resize is None):
                raise HeatmapError(
                    f"the heatmap of image '{name}' in {self.source} is {stored.shape}, the image is {size}: "
                    "attribute at the network's input size, or say how to resize (heatmap_resize='bilinear').",
                    row,
                )
            array = stored.read()
        except ArrayFileError as error:
            raise HeatmapError(
                f"the heatmap of image '{name}' in {self.source} cannot be used: {error}.", row
            ) from None
        found = as_tensor(array, f"the heatmap of image '{name}'", HeatmapError)
        found = found if found.dtype == torch.float64 else found.float()
        found = found.sum(2 if last else 0) if found.ndim == 3 else found
        if tuple(found.shape) == size or self.resize is None:
            return found
        return resized(found, self.resize, size, batch.classifier.preprocessing)


def channels_last(shape: tuple[int, ...], size: tuple[int, int]) -> bool:
    """Whether an array is (H, W, C): its first two sides are the image's and its last two are not, or it ends in few
    channels and does not begin with few."""
    if len(shape) != 3 or shape[1:] == size:
        return False
    return shape[:2] == size or (shape[2] <= FEW < min(shape[:2]))


def resized(
    heatmap: Float[Tensor, "rows columns"], how: str, size: tuple[int, int], preprocessing: Preprocessing
) -> Float[Tensor, "height width"]:
    """A map of another size at the network's input size.

    Args:
        heatmap: covers the network's input, or the whole picture.
        how: one of `RESIZES`: ``"bilinear"`` stretches the map over the input; ``"picture:bilinear"`` resizes and crops
            it as the preprocessing does the picture. Shrinking is antialiased.
        size: of the input.
        preprocessing: how pictures become inputs.
    """
    covers, _, mode = how.rpartition(":")
    sides: list[int] = list(size)
    if covers == "picture" and preprocessing.resize is not None:
        wanted = preprocessing.resize
        short = min(heatmap.shape)
        sides = [wanted * side // short for side in heatmap.shape] if isinstance(wanted, int) else list(wanted)
    elif covers == "picture":
        sides = list(heatmap.shape)
    one = heatmap.unsqueeze(0)
    found: Tensor = transforms.resize(one, sides, InterpolationMode(mode), antialias=mode != "nearest")
    return transforms.center_crop(found, list(size))[0] if covers == "picture" else found[0]


def is_path(text: str) -> bool:
    """Whether a string names a file or folder of heatmaps rather than a method."""
    return text.endswith(SUFFIXES) or (os.sep in text and os.path.isdir(text))


def from_path(path: Path) -> tuple[Precomputed, str]:
    """Heatmaps in a folder or a file, and a hash of their content.

    A folder holds one .npy, .npz or .safetensors an image, named by the image's id (with or without the suffix of the
    image). A .npz or .safetensors holds arrays named by image id. A .npy holds heatmaps (N, H, W) of images whose ids
    are the numbers 0…N − 1, as images given as a tensor have; with a text file of the same name beside it (maps.npy and
    maps.txt), of the images whose ids are its lines. Instead of .npy there may be .pt, grey .png or .tif.

    Raises:
        MethodError: nothing there, or a file that holds no heatmaps.
    """
    if path.is_dir():
        return _folder(path)
    if not path.exists():
        raise MethodError(f"no file or folder {path}: give heatmaps as {', '.join(SUFFIXES)} or a folder of these.")
    file = HeatmapFile.of(path)
    if file.names is not None:
        return Precomputed(str(path), lambda name: _look_up(file.names or (), name, file.stored)), file.digest
    shape = file.stored(None).shape
    if len(shape) not in (3, 4):
        raise MethodError(f"{path} holds an array {shape}, expected heatmaps (N, H, W).")
    listed = path.with_suffix(".txt")
    ids = _ids(listed, shape[0]) if listed.is_file() else None

    def row_of(name: str) -> int | None:
        if ids is not None:
            found: int | None = _look_up(ids, name, ids.__getitem__)
            return found
        return int(name) if name.isdecimal() and len(name) <= 18 and int(name) < shape[0] else None

    def numbered(name: str) -> StoredArray | None:
        row = row_of(name)
        return None if row is None else StoredArray(shape[1:], lambda: file.stored(None).read()[row])

    digest = file.digest if ids is None else hashlib.sha256(repr((file.digest, ids)).encode()).hexdigest()[:16]
    return Precomputed(str(path), numbered), digest


def _ids(path: Path, count: int) -> dict[str, int]:
    """Image id → row, from a file with one id per line.

    Raises:
        MethodError: not one line per heatmap, or an id twice.
    """
    try:
        lines = read_bytes(path).decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise MethodError(f"{path} cannot be read as a list of image ids: {error}.") from None
    if len(lines) != count or len(set(lines)) != count:
        raise MethodError(
            f"{path} names {len(set(lines))} images in {len(lines)} lines for {count} heatmaps: one each."
        )
    return {name: row for row, name in enumerate(lines)}


@dataclass(frozen=True)
class HeatmapFile:
    """A file of heatmaps as it was when its hash was taken.

    Attributes:
        names: of its arrays; None for one array without a name.
        state: changes when the file is replaced.
    """

    path: Path
    names: list[str] | None
    digest: str
    state: tuple[int, ...]

    @classmethod
    def of(cls, path: Path) -> HeatmapFile:
        """Hash a file and look into it.

        Raises:
            MethodError: a file that holds no heatmaps.
        """
        try:
            state = state_of(path)
            return cls(path, array_names(path), file_digest(path)[:16], state)
        except (ArrayFileError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise MethodError(f"{path} cannot be read as heatmaps: {reason}.") from None

    def stored(self, name: str | None) -> StoredArray:
        """One of its arrays.

        Raises:
            ArrayFileError: damaged, or no longer what was hashed.
        """
        found = stored_array(self.path, name)
        return StoredArray(found.shape, lambda: unchanged(self.path, self.state, found.read()))


def unchanged(path: Path, state: tuple[int, ...], array: Any) -> Any:
    """What was just read from a file, if the file is still the one that was hashed."""
    try:
        same = state_of(path) == state
    except OSError:
        same = False
    if not same:
        raise ArrayFileError(f"{path} has changed since the run started")
    return array


def from_arrays(arrays: Mapping[str, Any]) -> tuple[Precomputed, str]:
    """Heatmaps in memory, image id → array, and a hash of their content.

    Raises:
        MethodError: something that is no array of numbers.
    """
    digest, tensors = hashlib.sha256(), {}
    given = {str(name): array for name, array in pairs(arrays, "the heatmaps", MethodError).items()}
    for name in sorted(given):
        # A copy: whoever gave the arrays may go on to use them.
        tensors[name] = as_tensor(given[name], f"the heatmap of image '{name}'", MethodError).cpu().clone()
        if tensors[name].dtype in (torch.float16, torch.bfloat16):
            tensors[name] = tensors[name].float()
        values = tensors[name].numpy()
        digest.update(f"{name} {values.shape} {values.dtype}".encode("utf-8", "surrogatepass") + values.tobytes())

    def stored(name: str) -> StoredArray:
        return StoredArray(tuple(tensors[name].shape), lambda: tensors[name].numpy())

    return Precomputed("the arrays given", lambda name: _look_up(tensors, name, stored)), digest.hexdigest()[:16]


def _folder(path: Path) -> tuple[Precomputed, str]:
    try:
        files = by_id(path, [file for file in files_in(path, SUFFIXES, MOST_FILES) if file.is_file()])
    except OSError as error:
        raise MethodError(f"{path} is no folder of heatmaps: {error.strerror}.") from None
    if not files:
        raise MethodError(f"no heatmap in folder {path}: expected {', '.join(SUFFIXES)} files named by image id.")
    digest, states = hashlib.sha256(), {}
    for name, file in files.items():
        try:
            states[name] = state_of(file)
            digest.update(name.encode("utf-8", "surrogateescape") + read_bytes(file))
        except OSError as error:
            raise MethodError(f"{file} cannot be read as a heatmap: {error.strerror}.") from None

    def stored(name: str) -> StoredArray:
        names = array_names(files[name])
        if names is not None and len(names) != 1:
            raise ArrayFileError(f"{files[name].name} holds {len(names)} arrays, expected one")
        found = stored_array(files[name], None if names is None else names[0])
        return StoredArray(found.shape, lambda: unchanged(files[name], states[name], found.read()))

    return Precomputed(f"folder {path}", lambda name: _look_up(files, name, stored)), digest.hexdigest()[:16]


def _look_up(names: Collection[str], image_id: str, get: Callable[[str], Any]) -> Any:
    """What stands under an image's id, which may lack the suffix of the image file; else None."""
    stem = str(PurePosixPath(image_id).with_suffix("")) if PurePosixPath(image_id).name else image_id
    for key in (image_id, stem):
        if key in names:
            return get(key)
    return None
