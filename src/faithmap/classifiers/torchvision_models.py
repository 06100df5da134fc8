"""torchvision's classifiers by name, with their own weights and transforms."""

from __future__ import annotations

from typing import Any

from torchvision import models

from faithmap.classifiers.base import Classifier
from faithmap.classifiers.weights import fetch_weights
from faithmap.images import Preprocessing

# What torchvision's own builders set where they are given these weights: another normalisation, another input size.
_SETTINGS: dict[str, dict[str, Any]] = {
    "googlenet": {"transform_input": True, "init_weights": False},
    "inception_v3": {"transform_input": True, "init_weights": False},
    "vit_h_14": {"image_size": 518},
}


def torchvision_names() -> list[str]:
    """All classifiers of torchvision."""
    names: list[str] = models.list_models(module=models)
    return names


def torchvision_classifier(name: str) -> Classifier:
    """A classifier with torchvision's default weights.

    Raises:
        DownloadError: no network, or a file with the wrong hash.
    """
    weights = models.get_model_weights(name).DEFAULT
    module = models.get_model(name, **_SETTINGS.get(name, {}))
    module.load_state_dict(fetch_weights(weights.url))
    if name == "googlenet":  # the checkpoint holds heads that serve training alone
        module.aux_logits, module.aux1, module.aux2 = False, None, None
    transforms = weights.transforms()
    return Classifier(
        module.eval(),
        mean=transforms.mean,
        std=transforms.std,
        labels=weights.meta["categories"],
        preprocessing=Preprocessing(
            crop=(transforms.crop_size[0], transforms.crop_size[-1]),
            resize=transforms.resize_size[0],
            interpolation=transforms.interpolation.value,
        ),
        name=name,
    )
