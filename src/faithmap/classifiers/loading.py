"""Classifiers by name: `load_classifier`."""

from __future__ import annotations

from collections.abc import Callable

import torch

from faithmap.checks import as_text
from faithmap.classifiers.base import Classifier, pick_device
from faithmap.classifiers.embedded import EFFICIENTNET, SQUEEZENET, embedded_efficientnet, embedded_squeezenet
from faithmap.classifiers.huggingface import huggingface_classifier
from faithmap.classifiers.onnx_files import onnx_classifier
from faithmap.classifiers.timm_models import timm_classifier
from faithmap.classifiers.torchvision_models import torchvision_classifier, torchvision_names
from faithmap.errors import ClassifierError, nearest
from faithmap.modes import plain_defaults

EMBEDDED: dict[str, Callable[[], Classifier]] = {
    SQUEEZENET: embedded_squeezenet,
    EFFICIENTNET: embedded_efficientnet,
}
_FAMILIES: dict[str, Callable[[str], Classifier]] = {
    "timm": timm_classifier,
    "hf": huggingface_classifier,
    "onnx": onnx_classifier,
}


def load_classifier(name: str, device: torch.device | str = "auto") -> Classifier:
    """A classifier by name.

    Args:
        name: ``"squeezenet1_1-embedded"`` or ``"efficientnet-lite0-embedded"`` (real ImageNet weights from the package
            registry); a torchvision classifier such as ``"alexnet"``; ``"timm:NAME"``; ``"hf:NAME"`` or
            ``"hf:FOLDER"`` (an image classifier of Hugging Face); ``"onnx:FILE?norm=imagenet"`` (scores only).
            Weights are downloaded once and found again on the next call.
        device: ``"auto"`` takes a CUDA device where there is one.
    Raises:
        ClassifierError: an unknown name (the message proposes the nearest one), or a package that is missing.
        DownloadError: no network, or a file with the wrong hash.
    """
    name = as_text(name, "the name of a classifier", ClassifierError)
    picked = pick_device(device)
    with plain_defaults():
        classifier = _named(name)
    classifier.asked_size = None  # of a named network it is a default: tensors of another size are no contradiction
    return classifier.to(picked)


def _named(name: str) -> Classifier:
    family, colon, rest = name.partition(":")
    if name in EMBEDDED:
        return EMBEDDED[name]()
    if colon and family in _FAMILIES:
        if not rest:
            raise ClassifierError(f"'{name}' names no model: write {family}:NAME.")
        return _FAMILIES[family](rest)
    if name in torchvision_names():
        return torchvision_classifier(name)
    raise ClassifierError(
        f"unknown model '{name}'{nearest(name, classifier_names())} Give '{SQUEEZENET}', a torchvision classifier, "
        "timm:NAME, hf:NAME, onnx:FILE, or wrap your own network in faithmap.Classifier."
    )


def classifier_names() -> list[str]:
    """All names that `load_classifier` knows, but for those of timm, Hugging Face and ONNX files."""
    return [*EMBEDDED, *torchvision_names()]
