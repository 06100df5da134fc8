"""Classifiers of timm, with their own data configuration."""

from __future__ import annotations

import http.client
import math
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from torch import nn

from faithmap.classifiers.base import Classifier
from faithmap.errors import ClassifierError, DownloadError, missing, nearest
from faithmap.images import Preprocessing
from faithmap.text import first_line


def timm_classifier(name: str, **settings: Any) -> Classifier:
    """A classifier of timm with its pretrained weights.

    Args:
        name: as timm writes it, such as ``"resnet18.a1_in1k"``.
        settings: passed on to `timm.create_model`; ``pretrained=False`` gives random weights.
    Raises:
        ClassifierError: an unknown name, a model without weights, or a preparation of images that has no match here.
        DownloadError: the weights could not be fetched.
    """
    if find_spec("timm") is None:
        raise ClassifierError(missing(f"'timm:{name}' needs", "timm", extra="timm"))
    import timm

    architecture = name.split(".")[0]
    if not timm.is_model(architecture):
        raise ClassifierError(f"timm has no model '{name}'{nearest(architecture, timm.list_models())}")
    try:
        module = timm.create_model(name, **{"pretrained": True, **settings}).eval()
    except (OSError, http.client.HTTPException) as error:
        raise DownloadError(
            f"the weights of 'timm:{name}' could not be had ({first_line(error)}): check the network and run again."
        ) from error
    except (RuntimeError, ValueError) as error:
        raise ClassifierError(f"timm cannot build '{name}': {first_line(error)}") from error
    return with_timm_config(module, f"timm:{name}")


def with_timm_config(module: nn.Module, name: str) -> Classifier:
    """A classifier that prepares images as timm's evaluation transform does for this model.

    Raises:
        ClassifierError: a network without classes, or a preparation of images that has no match here.
    """
    import timm

    if getattr(module, "num_classes", None) == 0:
        raise ClassifierError(
            f"{name} has no classes, its outputs are features: name a model with a head, or put one on and wrap the "
            "network in faithmap.Classifier."
        )
    config = timm.data.resolve_model_data_config(module)
    channels, height, width = config["input_size"]
    if config.get("crop_mode", "center") not in ("center", "squash"):
        raise ClassifierError(
            f"{name} takes {channels} channels, crop '{config.get('crop_mode')}': prepare images yourself and wrap the "
            "network in faithmap.Classifier."
        )
    scaled = tuple(math.floor(side / config["crop_pct"]) for side in (height, width))
    whole = config.get("crop_mode") == "squash" or scaled[0] != scaled[1]
    return Classifier(
        module,
        mean=_of_channels(config["mean"], channels),
        std=_of_channels(config["std"], channels),
        preprocessing=Preprocessing(
            crop=(height, width),
            resize=(scaled[0], scaled[1]) if whole else scaled[0],
            channels=channels,
            interpolation="bicubic" if config["interpolation"] == "random" else config["interpolation"],
        ),
        labels=_labels(module),
        name=name,
    )


def _of_channels(values: Sequence[float], channels: int) -> Sequence[float]:
    """A configuration keeps three numbers for any number of channels: their mean stands for each."""
    return values if len(values) == channels else (sum(values) / len(values),) * channels


def _labels(module: nn.Module) -> list[str] | None:
    """Names of the classes where timm knows them for this model."""
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset(module)
    if subset is None:
        return None
    info = ImageNetInfo(subset)
    return [info.index_to_description(index) for index in range(info.num_classes())]
