"""Label maps for placement ``"segment"``: computed from the image (`slic`), or given as files."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from faithmap.errors import ImageError, ProtocolError, missing

_SLIC = {"n": 50.0, "compactness": 10.0}


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


def segment(name: str, pixels: Float[Tensor, "3 height width"], image_id: str) -> Int[Tensor, "height width"]:
    """The label map of one image: one integer a pixel; below 0 for "never removed".

    Args:
        name: ``"slic:n=50,compactness=10"``: about n segments of similar colour (Achanta et al. 2012), by scikit-image;
            ``"folder:PATH"``: read from PATH/IMAGE.npy or PATH/IMAGE.png, at the network's input size.
        pixels: the image in pixel space.
        image_id: names the file.
    Raises:
        ProtocolError: a name that means no segments.
        ImageError: an image without a label map, or one of another size.
    """
    check_segments(name)
    kind, _, detail = name.partition(":")
    labels = _slic(pixels, **_slic_parameters(name, detail)) if kind == "slic" else _read(_path(detail), image_id)
    if labels.shape != tuple(pixels.shape[1:]):
        raise ImageError(
            f"the label map of image '{image_id}' is {tuple(labels.shape)}, the network's input is "
            f"{tuple(pixels.shape[1:])}: make it at that size."
        )
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
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        if file.suffix in (".npy", ".png"):
            digest.update(repr(file.relative_to(path).as_posix()).encode() + file.read_bytes())
    return f"folder:{path}#{digest.hexdigest()[:16]}"


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
            if not parameters[key] > 0 or (key == "n" and parameters[key] % 1):
                raise ValueError
        except ValueError:
            raise ProtocolError(
                f"segments '{name}': '{part}' is not understood; give n (a whole number) and compactness, above 0, as "
                "in 'slic:n=50,compactness=10'."
            ) from None
    return parameters


def _slic(pixels: Tensor, n: float, compactness: float) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    from skimage.segmentation import slic

    image = pixels.permute(1, 2, 0).double().cpu().numpy()
    labels: np.ndarray[tuple[int, ...], np.dtype[np.int64]] = slic(image, n_segments=int(n), compactness=compactness)
    return labels


def _read(folder: Path, image_id: str) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    stems = dict.fromkeys((image_id, str(Path(image_id).with_suffix(""))))
    for path in (folder / f"{stem}{suffix}" for stem in stems for suffix in (".npy", ".png")):
        if path.is_file():
            try:
                labels = np.load(path, allow_pickle=False) if path.suffix == ".npy" else np.array(Image.open(path))
            except (OSError, ValueError, EOFError) as error:
                raise ImageError(f"{path} cannot be read as a label map: {error}.") from None
            if labels.dtype.kind not in "iub":
                raise ImageError(f"{path} holds {labels.dtype} values, expected whole numbers.")
            return np.asarray(labels, dtype=np.int64)
    raise ImageError(f"no label map for image '{image_id}' in {folder}: expected {image_id}.npy or .png.")
