"""Arrays in files that others wrote (.npy, .npz, .safetensors, .pt, grey pictures).

What a file claims is checked before memory is taken. No pickle is loaded but for PyTorch's own, restricted to tensors,
and messages never advise to.
"""

from __future__ import annotations

import io
import math
import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image as PillowImage
from safetensors import safe_open

from faithmap.files import open_regular
from faithmap.text import first_line

SUFFIXES = (".npy", ".npz", ".safetensors", ".pt", ".png", ".tif", ".tiff")
PICTURES = (".png", ".tif", ".tiff")
Array: TypeAlias = npt.NDArray[Any]
Layout: TypeAlias = tuple[tuple[int, ...], bool, np.dtype[Any]]


class ArrayFileError(Exception):
    """A file that holds no such array; says why, as the end of a sentence about the file."""


@dataclass(frozen=True)
class StoredArray:
    """An array in a file: what its header says, and a function that reads it (memory is taken only then)."""

    shape: tuple[int, ...]
    read: Callable[[], Array]


def array_names(path: Path) -> list[str] | None:
    """The names of the arrays in a file; None for one array without a name.

    Raises:
        ArrayFileError: not a file of arrays.
    """
    if path.suffix == ".npy" or path.suffix in PICTURES:
        stored_array(path)
        return None
    if path.suffix == ".pt":
        with _named_errors():
            found = _torch_file(path)
            return None if isinstance(found, torch.Tensor) else list(found)
    with _named_errors(), open_regular(path) as file:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as tensors:
                return list(tensors.keys())
        with zipfile.ZipFile(file) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]


def stored_array(path: Path, name: str | None = None) -> StoredArray:
    """What a file says of one of its arrays.

    Raises:
        ArrayFileError: no such array, one that is cut off, or one that holds no numbers.
    """
    with _named_errors(), open_regular(path) as file:
        if path.suffix in PICTURES:
            return _picture(path, file)
        if path.suffix == ".pt":
            tensor = _one_tensor(path, name)
            return StoredArray(tuple(tensor.shape), lambda: _numbers_of(_one_tensor(path, name)))
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as tensors:
                shape = tuple(tensors.get_slice(name).get_shape())
            return StoredArray(shape, lambda: _read_tensor(path, str(name)))
        if path.suffix == ".npy":
            layout = _layout(file, os.fstat(file.fileno()).st_size)
            start = file.tell()
            return StoredArray(layout[0], lambda: _mapped(path, layout, start))
        with zipfile.ZipFile(file) as archive:
            member = _member(archive, str(name))
            with archive.open(member) as inside:
                return StoredArray(_layout(inside, member.file_size)[0], lambda: _unpacked(path, str(name)))


def _read_tensor(path: Path, name: str) -> Array:
    with _named_errors(), safe_open(path, "pt") as tensors:
        return _numbers_of(tensors.get_tensor(name))


def _numbers_of(tensor: torch.Tensor) -> Array:
    if tensor.is_complex():
        raise ArrayFileError(f"it holds {tensor.dtype} values, expected numbers")
    found: Array = (tensor if tensor.dtype == torch.float64 else tensor.float()).detach().numpy()
    return found


def _torch_file(path: Path) -> Any:
    """A tensor, or name → tensor; the numbers stay in the file until they are looked at."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # its messages advise to load pickles
        raise ArrayFileError("it is not a file of tensors that torch.save wrote (PyTorch 1.6 or later)") from None
    if isinstance(found, torch.Tensor):
        return found
    if isinstance(found, dict) and all(isinstance(one, torch.Tensor) for one in found.values()):
        return {str(name): one for name, one in found.items()}
    raise ArrayFileError(f"it holds a {type(found).__name__}, expected a tensor or name → tensor")


def _one_tensor(path: Path, name: str | None) -> torch.Tensor:
    with _named_errors():
        found = _torch_file(path)
        tensor: torch.Tensor = found if name is None else found[name]
        return tensor


def array_in(data: bytes) -> Array:
    """The array of a .npy file that has been read already.

    Raises:
        ArrayFileError: something else, or fewer numbers than it claims.
    """
    file = io.BytesIO(data)
    shape, fortran, dtype = _layout(file, len(data))
    if 0 in shape:
        return np.empty(shape, dtype)
    return np.frombuffer(data, dtype, math.prod(shape), file.tell()).reshape(shape, order="F" if fortran else "C")


def open_picture(file: IO[bytes]) -> PillowImage.Image:
    """A picture that Pillow decodes itself. PostScript is a program, whatever the file is called: Pillow would start
    Ghostscript, which may never end."""
    PillowImage.init()
    return PillowImage.open(file, formats=[name for name in PillowImage.ID if name != "EPS"])


def _picture(path: Path, file: IO[bytes]) -> StoredArray:
    """A grey picture as numbers, whatever its depth."""
    with open_picture(file) as picture:
        if picture.mode not in ("1", "L", "I", "F", "I;16", "I;16B", "I;16L"):
            raise ArrayFileError(
                f"it is a picture in colours ({picture.mode}), expected grey: colours are no relevance"
            )
        return StoredArray((picture.height, picture.width), lambda: _grey(path))


def _grey(path: Path) -> Array:
    with _named_errors(), open_regular(path) as file, open_picture(file) as picture:
        return np.asarray(picture).astype(np.float32)


def _mapped(path: Path, layout: Layout, start: int) -> Array:
    """The array as it lies in the file; only what is looked at is read."""
    shape, fortran, dtype = layout
    if 0 in shape:
        return np.empty(shape, dtype)
    with _named_errors(), open_regular(path) as file:
        return np.memmap(file, dtype, "r", start, shape, "F" if fortran else "C")


def _unpacked(path: Path, name: str) -> Array:
    with _named_errors(), open_regular(path) as file, zipfile.ZipFile(file) as archive:
        member = _member(archive, name)
        with archive.open(member) as inside:
            shape, fortran, dtype = _layout(inside, member.file_size)
            data = inside.read(math.prod(shape) * dtype.itemsize)
            while inside.read(1 << 16):  # to the end, where the checksum is compared
                pass
        return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def _layout(file: IO[bytes], size: int) -> Layout:
    """Shape, order and type of the array that starts here, which must fit into the `size` bytes of its file."""
    try:
        version = np.lib.format.read_magic(file)
        read, width = _HEADERS[version]
        length = file.read(width)
        # NumPy would ask for as many bytes as the file says, and get memory for them.
        text = file.read(min(int.from_bytes(length, "little"), _LONGEST_HEADER))
        shape, fortran, dtype = read(io.BytesIO(length + text))
    except Exception:  # NumPy's parser raises many things, and some of them advise to load pickles
        raise ArrayFileError("it is not an array of NumPy") from None
    if dtype.kind not in "fiub":
        raise ArrayFileError(f"it holds {dtype} values, expected numbers")
    claimed = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or claimed > size - file.tell():
        raise ArrayFileError(f"it claims {claimed:,} bytes and holds fewer")
    return tuple(shape), bool(fortran), dtype


_LONGEST_HEADER = 10_000
_HEADERS = {
    (1, 0): (np.lib.format.read_array_header_1_0, 2),
    (2, 0): (np.lib.format.read_array_header_2_0, 4),
}


def _member(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    known = archive.NameToInfo
    return known[f"{name}.npy"] if f"{name}.npy" in known else archive.getinfo(name)


@contextmanager
def _named_errors() -> Iterator[None]:
    """Whatever zipfile, zlib, safetensors and the system raise becomes an `ArrayFileError`."""
    try:
        yield
    except (ArrayFileError, MemoryError):
        raise
    except OSError as error:
        raise ArrayFileError(f"it cannot be read: {error.strerror or error}") from None
    except Exception as error:
        raise ArrayFileError(f"it is damaged: {first_line(error)}") from None
