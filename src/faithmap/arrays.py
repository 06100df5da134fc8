"""Arrays in files that others wrote (.npy, .npz, .safetensors): what a file claims is checked before memory is taken.

No pickle is ever loaded, and messages never advise to.
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
from safetensors import safe_open

from faithmap.files import open_regular
from faithmap.text import first_line

SUFFIXES = (".npy", ".npz", ".safetensors")
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
    """The names of the arrays in a file; None for a .npy, which holds one array without a name.

    Raises:
        ArrayFileError: not a file of arrays.
    """
    if path.suffix == ".npy":
        stored_array(path)
        return None
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
        tensor = tensors.get_tensor(name)
        if tensor.is_complex():
            raise ArrayFileError(f"it holds {tensor.dtype} values, expected numbers")
        found: Array = (tensor if tensor.dtype == torch.float64 else tensor.float()).numpy()
        return found


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
