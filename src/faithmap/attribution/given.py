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
from torch import Tensor

from faithmap.arrays import SUFFIXES, ArrayFileError, StoredArray, array_names, stored_array
from faithmap.attribution.batch import Batch
from faithmap.checks import as_tensor
from faithmap.errors import HeatmapError, MethodError
from faithmap.files import file_digest, files_in, read_bytes, state_of

CHANNELS = 1024  # more of them in a heatmap are a mistake, and would take memory without end


class Precomputed:
    """Heatmaps by image id.

    Args:
        source: what messages call them.
        read: image id → stored array (H, W) or (C, H, W), or None where there is none.
    """

    def __init__(self, source: str, read: Callable[[str], StoredArray | None]) -> None:
        self.source, self.read = source, read

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
            size = tuple(batch.pixels.shape[-2:])
            # Checked before it is read, because a file may claim anything.
            if stored.shape[-2:] != size or len(stored.shape) not in (2, 3) or math.prod(stored.shape[:-2]) > CHANNELS:
                raise HeatmapError(
                    f"the heatmap of image '{name}' in {self.source} is {stored.shape}, the image is {size}: "
                    "attribute at the network's input size.",
                    row,
                )
            array = stored.read()
        except ArrayFileError as error:
            raise HeatmapError(
                f"the heatmap of image '{name}' in {self.source} cannot be used: {error}.", row
            ) from None
        found = as_tensor(array, f"the heatmap of image '{name}'", HeatmapError)
        found = found if found.dtype == torch.float64 else found.float()
        return found.sum(0) if found.ndim == 3 else found


def is_path(text: str) -> bool:
    """Whether a string names a file or folder of heatmaps rather than a method."""
    return text.endswith(SUFFIXES) or (os.sep in text and os.path.isdir(text))


def from_path(path: Path) -> tuple[Precomputed, str]:
    """Heatmaps in a folder or a file, and a hash of their content.

    A folder holds one .npy, .npz or .safetensors an image, named by the image's id (with or without the suffix of the
    image). A .npz or .safetensors holds arrays named by image id. A .npy holds heatmaps (N, H, W) of images whose ids
    are the numbers 0…N − 1, as images given as a tensor have.

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

    def numbered(name: str) -> StoredArray | None:
        if not name.isdecimal() or len(name) > 18 or int(name) >= shape[0]:
            return None
        return StoredArray(shape[1:], lambda: file.stored(None).read()[int(name)])

    return Precomputed(str(path), numbered), file.digest


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
    for name, array in sorted((str(name), array) for name, array in arrays.items()):
        # A copy: whoever gave the arrays may go on to use them.
        tensors[name] = as_tensor(array, f"the heatmap of image '{name}'", MethodError).cpu().clone()
        if tensors[name].dtype in (torch.float16, torch.bfloat16):
            tensors[name] = tensors[name].float()
        values = tensors[name].numpy()
        digest.update(f"{name} {values.shape} {values.dtype}".encode("utf-8", "surrogatepass") + values.tobytes())

    def stored(name: str) -> StoredArray:
        return StoredArray(tuple(tensors[name].shape), lambda: tensors[name].numpy())

    return Precomputed("the arrays given", lambda name: _look_up(tensors, name, stored)), digest.hexdigest()[:16]


def _folder(path: Path) -> tuple[Precomputed, str]:
    try:
        found = [file for file in files_in(path, SUFFIXES) if file.is_file()]
    except OSError as error:
        raise MethodError(f"{path} is no folder of heatmaps: {error.strerror}.") from None
    files = {file.relative_to(path).with_suffix("").as_posix(): file for file in found}
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
