"""Label maps for placement ``"segment"``: computed from the image (`slic`), or given as files."""

from __future__ import annotations

import hashlib
import io
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from faithmap.arrays import open_picture, stored_array
from faithmap.checks import as_pixels, as_text
from faithmap.errors import ImageError, ProtocolError, missing
from faithmap.files import files_in, read_bytes, state_of
from faithmap.modes import in_own_modes
from faithmap.text import first_line

_SLIC = {"n": 50.0, "compactness": 10.0}
_LARGEST = {"n": 32_767.0, "compactness": 1e6}


def check_segments(name: str) -> None:
    """Raise a `ProtocolError` for a name that means no segments, or a package that is missing."""
    kind, _, detail = name.partition(":")
    if kind == "slic":
        _slic_parameters(name, detail)
        if find_spec("skimage") is None:
            raise ProtocolError(missing(f"segments '{name}' need", "scikit-image", extra="demo"))
    elif kind == "folder" and detail:
        if not _path(detail).is_dir():
            raise ProtocolError(f"segments '{name}': there is no folder {_path(detail)}.")
    else:
        raise ProtocolError(
            f"segments is '{name}': give 'slic:n=50' (scikit-image's SLIC) or 'folder:PATH' with one label map an "
            "image, PATH/IMAGE.npy or .png, named as the image."
        )


@in_own_modes
def segment(name: str, pixels: Float[Tensor, "channels height width"], image_id: str) -> Int[Tensor, "height width"]:
    """The label map of one image: one integer per pixel; below 0 for "never removed".

    Args:
        name: ``"slic:n=50,compactness=10"``: about n segments of similar colour (Achanta et al. 2012), by scikit-image;
            ``"folder:PATH"``: read from PATH/IMAGE.npy or PATH/IMAGE.png, at the network's input size.
        pixels: the image in pixel space.
        image_id: names the file.
    Raises:
        ProtocolError: a name that means no segments.
        ImageError: an image without a label map, or one of another size.
    """
    name, image_id = as_text(name, "segments", ProtocolError), as_text(image_id, "image_id")
    check_segments(name)
    pixels = as_pixels(pixels, dims=(3,))
    kind, _, detail = name.partition(":")
    size = (int(pixels.shape[1]), int(pixels.shape[2]))
    labels = _slic(pixels, **_slic_parameters(name, detail)) if kind == "slic" else _read(detail, image_id, size)
    return torch.from_numpy(labels.astype(np.int64)).to(pixels.device)


def resolve_segments(name: str) -> str:
    """The same name with parameters written out; a folder gets a hash of its label maps."""
    if not name:
        return name
    check_segments(name)
    kind, _, detail = name.partition(":")
    if kind == "slic":
        return "slic:" + ",".join(f"{key}={value:g}" for key, value in _slic_parameters(name, detail).items())
    path = _path(detail)
    try:
        digest, _ = _label_maps(path)
    except OSError as error:
        raise ProtocolError(f"segments '{name}': {error.filename or path}: {error.strerror}.") from None
    return f"folder:{path}#{digest}"


def _label_maps(path: Path) -> tuple[str, dict[str, tuple[int, ...]]]:
    """A hash of all label maps of a folder, and file → a state that changes when it is replaced."""
    digest, states = hashlib.sha256(), {}
    for file in files_in(path, (".npy", ".png")):
        relative = file.relative_to(path).as_posix()
        states[relative] = state_of(file)
        digest.update(repr(relative).encode() + read_bytes(file))
    return digest.hexdigest()[:16], states


@lru_cache(maxsize=4)
def _states(path: Path, digest: str) -> dict[str, tuple[int, ...]]:
    """File → state, of the label maps that were hashed when the run started; looked at once per process."""
    found, states = _label_maps(path)
    if found != digest:
        raise ImageError(f"the label maps in {path} have changed since the run started.")
    return states


def _path(detail: str) -> Path:
    """The folder without the hash that `resolve_segments` appends."""
    path, _, digest = detail.rpartition("#")
    return Path(path if path and len(digest) == 16 else detail)


def _slic_parameters(name: str, detail: str) -> dict[str, float]:
    parameters = dict(_SLIC)
    for part in detail.split(",") if detail else ():
        key, _, text = part.partition("=")
        try:
            parameters[key] = float(text) if key in _SLIC else float("nan")
            if not 0 < parameters[key] <= _LARGEST[key] or (key == "n" and parameters[key] % 1):
                raise ValueError
        except ValueError:
            raise ProtocolError(
                f"segments '{name}': '{part}' is not understood; give n (an integer up to {_LARGEST['n']:g}) and "
                f"compactness (up to {_LARGEST['compactness']:g}), above 0, as in 'slic:n=50,compactness=10'."
            ) from None
    return parameters


def _slic(pixels: Tensor, n: float, compactness: float) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    from skimage.segmentation import slic

    image = pixels.permute(1, 2, 0).double().cpu().numpy()
    labels: np.ndarray[tuple[int, ...], np.dtype[np.int64]] = slic(image, n_segments=int(n), compactness=compactness)
    return labels


def _read(detail: str, image_id: str, size: tuple[int, int]) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    folder = _path(detail)
    digest = detail.removeprefix(f"{folder}").removeprefix("#")
    stems = (image_id, image_id.rpartition(".")[0] or image_id)
    for relative in dict.fromkeys(f"{stem}{suffix}" for stem in stems for suffix in (".npy", ".png")):
        if relative.startswith("/") or ".." in relative.split("/") or not (folder / relative).is_file():
            continue
        try:
            labels = _labels(folder / relative, size, f"the label map of image '{image_id}'")
            same = not digest or state_of(folder / relative) == _states(folder, digest).get(relative)
        except (ImageError, MemoryError):
            raise
        except Exception as error:  # Pillow's decoders raise whatever comes to their minds on damaged files
            raise ImageError(f"{folder / relative} cannot be read as a label map: {first_line(error)}.") from None
        if not same:
            raise ImageError(f"{folder / relative} has changed since the run started.")
        if labels.dtype.kind not in "iub":
            raise ImageError(f"{folder / relative} holds {labels.dtype} values, expected integers.")
        if labels.dtype.kind == "u" and labels.size and int(labels.max()) > np.iinfo(np.int64).max:
            raise ImageError(f"{folder / relative} holds labels above {np.iinfo(np.int64).max}.")
        return np.asarray(labels, dtype=np.int64)
    raise ImageError(f"no label map for image '{image_id}' in {folder}: expected {image_id}.npy or .png.")


def _labels(path: Path, size: tuple[int, int], name: str) -> np.ndarray[tuple[int, ...], np.dtype[Any]]:
    """What a file holds, whose size is checked before memory is taken."""

    def check(shape: tuple[int, ...]) -> None:
        if shape != size:
            raise ImageError(f"{name} is {shape}, the network's input is {size}: make it at that size.")

    if path.suffix == ".npy":
        stored = stored_array(path)
        check(stored.shape)
        return stored.read()
    with open_picture(io.BytesIO(read_bytes(path))) as picture:
        bands = len(picture.getbands())
        check((*picture.size[::-1], bands) if bands > 1 else picture.size[::-1])
        return np.array(picture)
