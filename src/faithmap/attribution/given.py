"""Methods that a user brings: callables, captum's and zennit's objects, and heatmaps that are there already."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor
from zennit.attribution import Attributor, identity

from faithmap.attribution.batch import Batch
from faithmap.errors import HeatmapError, MethodError

SUFFIXES = (".npy", ".npz", ".safetensors")


def from_callable(function: Any) -> Callable[[Batch], Tensor]:
    """What computes a heatmap from a callable or from an object of captum or zennit; can be sent to other processes."""
    if isinstance(function, Attributor):
        return partial(_zennit, function)
    return partial(_captum if hasattr(function, "attribute") else _call, function)


def _call(function: Callable[[Tensor, Tensor], Any], batch: Batch) -> Any:
    with torch.enable_grad():
        return function(batch.inputs.clone(), batch.targets.clone())


def _zennit(attributor: Attributor, batch: Batch) -> Tensor:
    """An attributor starts at what it was made with; where it was made with nothing, at 1 for the class logit."""

    def start(output: Tensor) -> Tensor:
        return torch.zeros_like(output).scatter_(1, batch.targets.unsqueeze(1), 1.0)

    inputs = batch.inputs.clone().requires_grad_()
    with torch.enable_grad():
        _, relevance = attributor(inputs, start if attributor.attr_output_fn is identity else None)
    found: Tensor = relevance.detach()
    return found


def _captum(method: Any, batch: Batch) -> Any:
    """Attributions to a layer, which are coarser than the image, are summed over channels and enlarged (bilinear)."""
    with torch.enable_grad():
        found = method.attribute(batch.inputs.clone().requires_grad_(), target=batch.targets.clone())
    if isinstance(found, tuple) and len(found) == 1:
        found = found[0]
    size = list(batch.inputs.shape[-2:])
    if hasattr(method, "layer") and isinstance(found, Tensor) and found.ndim == 4 and list(found.shape[-2:]) != size:
        found = F.interpolate(found.sum(1, keepdim=True), size, mode="bilinear", align_corners=False)
    return found


class Precomputed:
    """Heatmaps by image id.

    Args:
        source: what messages call them.
        read: image id → array (H, W) or (C, H, W), or None where there is none.
    """

    def __init__(self, source: str, read: Callable[[str], Any]) -> None:
        self.source, self.read = source, read

    def __call__(self, batch: Batch) -> Tensor:
        """Heatmaps of the batch, float32 or float64.

        Raises:
            HeatmapError: none for an image, or one of another size; `index` says for which.
        """
        return torch.stack([self._one(batch, row, name) for row, name in enumerate(batch.image_ids)])

    def _one(self, batch: Batch, row: int, name: str) -> Tensor:
        array = self.read(name)
        if array is None:
            raise HeatmapError(f"no heatmap of image '{name}' in {self.source}: name it by the image's id.", row)
        found = array if isinstance(array, Tensor) else torch.from_numpy(np.ascontiguousarray(array))
        if found.dtype != torch.float64:
            found = found.float()
        heatmap = found.sum(0) if found.ndim == 3 else found
        size = tuple(batch.pixels.shape[-2:])
        if tuple(heatmap.shape) != size:
            raise HeatmapError(
                f"the heatmap of image '{name}' in {self.source} is {tuple(found.shape)}, the image is {size}: "
                "attribute at the network's input size.",
                row,
            )
        return heatmap


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
    names = _names(path)
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    if names is None:
        shape = _array(path).shape
        if len(shape) not in (3, 4):
            raise MethodError(f"{path} holds an array {tuple(shape)}, expected heatmaps (N, H, W).")
        return Precomputed(
            str(path), lambda name: _array(path)[int(name)] if name.isdecimal() and int(name) < shape[0] else None
        ), digest
    return Precomputed(str(path), lambda name: _look_up(names, name, lambda key: _array(path, key))), digest


def from_arrays(arrays: Mapping[str, Any]) -> tuple[Precomputed, str]:
    """Heatmaps in memory, image id → array, and a hash of their content."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        values = array.detach().cpu().numpy() if isinstance(array, Tensor) else np.asarray(array)
        digest.update(f"{name} {values.shape} {values.dtype}".encode() + np.ascontiguousarray(values).tobytes())
    return Precomputed("the arrays given", lambda name: _look_up(arrays, name, arrays.get)), digest.hexdigest()[:16]


def _folder(path: Path) -> tuple[Precomputed, str]:
    files = {
        file.relative_to(path).with_suffix("").as_posix(): file
        for file in sorted(path.rglob("*"))
        if file.suffix in SUFFIXES and file.is_file()
    }
    if not files:
        raise MethodError(f"no heatmap in folder {path}: expected {', '.join(SUFFIXES)} files named by image id.")
    digest = hashlib.sha256()
    for name, file in files.items():
        digest.update(name.encode("utf-8", "surrogateescape") + file.read_bytes())

    def read(name: str) -> Any:
        return _look_up(files, name, lambda key: _array(files[key], _only_name(files[key])))

    return Precomputed(f"folder {path}", read), digest.hexdigest()[:16]


def _only_name(path: Path) -> str | None:
    names = _names(path)
    if names is not None and len(names) != 1:
        raise MethodError(f"{path} holds {len(names)} arrays, expected one heatmap.")
    return None if names is None else names[0]


def _names(path: Path) -> list[str] | None:
    """The names of the arrays in a file; None for a file that holds one array without a name."""
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                return list(file.keys())
        found = np.load(path, allow_pickle=False, mmap_mode="r")
        return list(found.files) if isinstance(found, np.lib.npyio.NpzFile) else None
    except Exception as error:  # numpy, zipfile and safetensors have no common error for a damaged file
        raise MethodError(f"{path} cannot be read as heatmaps: {error or type(error).__name__}.") from error


def _array(path: Path, name: str | None = None) -> Any:
    """One array of a file, read anew each time so that nothing is held."""
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            return file.get_tensor(name)
    if name is None:
        return np.load(path, allow_pickle=False, mmap_mode="r")
    with np.load(path, allow_pickle=False) as arrays:
        return arrays[name]


def _look_up(names: Collection[str], image_id: str, get: Callable[[str], Any]) -> Any:
    """What stands under an image's id, which may lack the suffix of the image file; else None."""
    for key in (image_id, str(PurePosixPath(image_id).with_suffix(""))):
        if key in names:
            return get(key)
    return None
