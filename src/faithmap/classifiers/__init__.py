"""Classifiers: pixel space in, logits out; by name, or any module or function wrapped in `Classifier`."""

from faithmap.classifiers.base import (
    Classifier,
    ScoreOnly,
    check_classifier,
    evaluation_mode,
    kind_of,
    pick_device,
)
from faithmap.classifiers.loading import classifier_names, load_classifier
from faithmap.classifiers.scores import CUSTOM

__all__ = [
    "CUSTOM",
    "Classifier",
    "ScoreOnly",
    "check_classifier",
    "classifier_names",
    "evaluation_mode",
    "kind_of",
    "load_classifier",
    "pick_device",
]
