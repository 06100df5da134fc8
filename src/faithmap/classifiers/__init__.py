"""Classifiers: pixel space in, logits out; by name, or any module or function wrapped in `Classifier`."""

from faithmap.classifiers.base import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Classifier,
    Preprocessing,
    ScoreOnly,
    evaluation_mode,
    kind_of,
    pick_device,
)
from faithmap.classifiers.loading import classifier_names, load_classifier

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "Classifier",
    "Preprocessing",
    "ScoreOnly",
    "classifier_names",
    "evaluation_mode",
    "kind_of",
    "load_classifier",
    "pick_device",
]
