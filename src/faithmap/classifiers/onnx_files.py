"""ONNX files as classifiers: scores only, for precomputed heatmaps and for methods that need no gradients."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import torch
from torch import Tensor

from faithmap.classifiers.base import Classifier, ScoreOnly
from faithmap.classifiers.onnx_data import onnx_digest
from faithmap.errors import ClassifierError, missing
from faithmap.files import expanded
from faithmap.images import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from faithmap.text import first_line

# What a network expects its input to be; an ONNX file does not say.
NORMALISATIONS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "none": ((0.0,) * 3, (1.0,) * 3),
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "half": ((0.5,) * 3, (0.5,) * 3),
    "255": ((0.0,) * 3, (1 / 255,) * 3),
}
_TYPES: dict[str, Any] = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}


class OnnxSession:
    """Inputs (B, 3, H, W) → the first output of an ONNX file, by ONNX Runtime on the CPU."""

    def __init__(self, path: Path) -> None:
        from onnxruntime import InferenceSession, SessionOptions

        options = SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4  # what goes wrong is raised as well
        self.path = path
        digest = onnx_digest(path)
        self.description = f"ONNX sha256 {digest}"
        self.session = InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        if onnx_digest(path) != digest:
            raise ClassifierError(f"{path} or its weights changed while they were read: start again.")
        first = self.session.get_inputs()[0]
        self.input_name, self.shape, kind = first.name, list(first.shape), first.type
        is_image = len(self.shape) == 4 and any(side == 3 or not isinstance(side, int) for side in self.shape[1::2])
        if len(self.session.get_inputs()) != 1 or not is_image or kind not in _TYPES:
            raise ClassifierError(
                f"{path} takes {[(i.name, i.type, i.shape) for i in self.session.get_inputs()]}, expected one floating "
                "input (B, 3, H, W) or (B, H, W, 3): export the network with its images as the only input."
            )
        self.dtype = _TYPES[kind]
        self.channels_last = self.shape[3] == 3 and self.shape[1] != 3

    def __reduce__(self) -> tuple[type[OnnxSession], tuple[Path]]:
        return OnnxSession, (self.path,)

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width where the file fixes them."""
        sides = self.shape[1:3] if self.channels_last else self.shape[2:4]
        return (sides[0], sides[1]) if all(isinstance(side, int) for side in sides) else None

    def __call__(self, inputs: Tensor) -> Tensor:
        array = inputs.permute(0, 2, 3, 1) if self.channels_last else inputs
        values = array.detach().cpu().numpy().astype(self.dtype)
        batch = self.shape[0] if isinstance(self.shape[0], int) else max(len(values), 1)
        logits = []
        for start in range(0, len(values), batch):
            block = values[start : start + batch]
            missing = batch - len(block)  # a file may fix its batch size: repeat, and drop what was repeated
            block = np.concatenate([block, np.repeat(block[:1], missing, axis=0)])
            output = self.session.run(None, {self.input_name: np.ascontiguousarray(block)})[0]
            logits.append(output[: batch - missing])
        return torch.from_numpy(np.concatenate(logits).astype(np.float32))


def onnx_classifier(name: str) -> Classifier:
    """An ONNX file as a classifier.

    Args:
        name: ``"FILE?norm=imagenet"``: the file, and how it wants its input: ``none`` (RGB in [0, 1]), ``imagenet``
            (mean and standard deviation of ImageNet), ``half`` ([−1, 1]) or ``255`` (RGB in [0, 255]). ``resize=N``
            (short side, 256 by default, 0 for none) and ``size=N`` (where the file leaves the input size open).
    Raises:
        ClassifierError: no such file, no image network, or a missing or unknown setting.
    """
    file, _, query = name.partition("?")
    given = parse_qsl(query, keep_blank_values=True)
    settings = dict(given)
    if len(given) > len(settings):
        raise ClassifierError(f"'onnx:{name}' says one thing twice: give norm, resize and size once.")
    if settings.get("norm") not in NORMALISATIONS or not set(settings) <= {"norm", "resize", "size"}:
        raise ClassifierError(
            f"'onnx:{name}': an ONNX file does not say how it wants its input: write onnx:{file}?norm=NAME with one of "
            f"{', '.join(NORMALISATIONS)} (and, where needed, &resize=256&size=224)."
        )
    if find_spec("onnxruntime") is None:
        raise ClassifierError(missing(f"'onnx:{name}' needs", "onnxruntime", extra="onnx"))
    path = expanded(file)  # no shell writes out the ~ of onnx:~/network.onnx
    if not os.path.isfile(path):
        raise ClassifierError(f"there is no file {file}.")
    session = _open(path)
    resize, size = (_pixels(name, settings, key, usual) for key, usual in (("resize", 256), ("size", 224)))
    mean, std = NORMALISATIONS[settings["norm"]]
    return Classifier(
        ScoreOnly(session, session.description),
        mean=mean,
        std=std,
        preprocessing=Preprocessing(crop=session.size or (size, size), resize=resize or None),
        name=f"onnx:{path.name}",
    )


def _open(path: Path) -> OnnxSession:
    try:
        return OnnxSession(path)
    except ClassifierError:
        raise
    except Exception as error:  # ONNX Runtime has its own tree of exceptions, which is not public
        raise ClassifierError(f"{path} cannot be read as an ONNX network: {first_line(error)}") from error


def _pixels(name: str, settings: dict[str, str], key: str, usual: int) -> int:
    text = settings.get(key, str(usual))
    if not text.isdecimal() or (key == "size" and int(text) == 0):
        raise ClassifierError(f"'onnx:{name}': {key} is '{text}', give an integer number of pixels.")
    return int(text)
