"""Image classifiers of Hugging Face, by name or from a folder, with their own image processor."""

from __future__ import annotations

import http.client
import os
import pickle
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from faithmap.classifiers.base import Classifier
from faithmap.errors import ClassifierError, DownloadError, missing
from faithmap.images import Preprocessing
from faithmap.text import first_line, several

# What the configuration calls the problem → how it is scored.
_SCORE_OF = {"multi_label_classification": "sigmoid", "regression": "identity"}
# As Pillow numbers them.
_RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}


class HuggingFaceLogits(nn.Module):
    """The network of Hugging Face, reduced to its logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.network(pixel_values=inputs).logits
        return logits


def huggingface_classifier(name: str) -> Classifier:
    """An image classifier of Hugging Face with its weights.

    Args:
        name: a model's name on the hub, or a folder that `save_pretrained` wrote.
    Raises:
        ClassifierError: not an image classifier, or a processor whose preparation has no match here.
        DownloadError: the files could not be fetched.
    """
    if find_spec("transformers") is None:
        raise ClassifierError(missing(f"'hf:{name}' needs", "transformers", extra="hf"))
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    try:
        network, info = AutoModelForImageClassification.from_pretrained(
            name, trust_remote_code=False, output_loading_info=True
        )
        processor = AutoImageProcessor.from_pretrained(name, trust_remote_code=False)
    except MemoryError:
        raise
    except Exception as error:  # whatever its loaders, PyTorch's and the network's own raise
        reason = first_line(error)
        if isinstance(error, pickle.UnpicklingError):  # PyTorch advises to run what the file says
            reason = "its weights are damaged, or hold programs: convert them to .safetensors"
        if os.path.isdir(name):
            raise ClassifierError(f"the folder {name} holds no image classifier: {reason}") from error
        if isinstance(error, OSError | http.client.HTTPException):
            raise DownloadError(
                f"'hf:{name}' could not be had ({first_line(error)}): check name and network, or give a folder."
            ) from error
        raise ClassifierError(f"'hf:{name}' is no image classifier that can be loaded: {reason}") from error
    if lacking := sorted({*info["missing_keys"], *(str(one[0]) for one in info["mismatched_keys"])}):
        raise ClassifierError(
            f"'hf:{name}' has no weights for {several(len(lacking), 'tensor')} ({lacking[0]}), which would be random "
            "numbers: give a network that was trained as a classifier, with all of its files."
        )
    names = network.config.id2label
    classifier = Classifier(
        HuggingFaceLogits(network).eval(),
        **processor_settings(processor, f"hf:{name}"),
        labels=[names[index] for index in sorted(names)],
        name=f"hf:{name}",
        score=_SCORE_OF.get(str(network.config.problem_type), "softmax"),
    )
    _compare_with_processor(classifier, processor)
    return classifier


def processor_settings(processor: Any, name: str) -> dict[str, Any]:
    """mean, std, bgr and preprocessing from the settings of an image processor.

    Raises:
        ClassifierError: an unknown kind of size.
    """
    size = dict(getattr(processor, "size", None) or {})
    crop = dict(getattr(processor, "crop_size", None) or {})
    resize: int | tuple[int, int] | None = None
    if getattr(processor, "do_resize", False):
        if "height" in size:
            resize = (size["height"], size["width"])
        elif "shortest_edge" in size and "longest_edge" not in size:
            resize = size["shortest_edge"]
        else:
            raise ClassifierError(f"{name}: its processor resizes to {size}, which has no match here.")
    if getattr(processor, "do_center_crop", False) and crop:
        cut = (crop["height"], crop["width"])
    elif isinstance(resize, tuple):
        cut = resize
    elif isinstance(resize, int):
        # ConvNeXt: cut crop_pct of the short side below 384 pixels, squash above.
        share, cut = getattr(processor, "crop_pct", None), (resize, resize)
        resize = int(resize / share) if share and resize < 384 else cut
    else:
        raise ClassifierError(f"{name}: its processor says no size: wrap the network in faithmap.Classifier.")
    normalises = getattr(processor, "do_normalize", False)
    # Values 0–255 are multiplied by this; pixels here are in [0, 1].
    scale = 255 * (processor.rescale_factor if getattr(processor, "do_rescale", False) else 1.0)
    mean = [value / scale for value in (processor.image_mean if normalises else (0.0,) * 3)]
    std = [value / scale for value in (processor.image_std if normalises else (1.0,) * 3)]
    return {
        "mean": mean,
        "std": std,
        "bgr": bool(getattr(processor, "do_flip_channel_order", False)),
        "preprocessing": Preprocessing(cut, resize, _RESAMPLING[int(getattr(processor, "resample", None) or 2)]),
    }


def _compare_with_processor(classifier: Classifier, processor: Any) -> None:
    """Prepare a test picture both ways: settings that are not read here must not pass unseen."""
    y, x, channel = np.ogrid[:480, :640, :3]
    waves = np.sin(y / (20 + 7 * channel) + x / (31 - 6 * channel) + channel)  # smooth, no two channels alike
    picture = Image.fromarray(((waves + 1) * 127.5).astype(np.uint8))
    expected = torch.as_tensor(np.asarray(processor(picture, return_tensors="np")["pixel_values"]))
    found = classifier.normalise(classifier.preprocessing(picture).unsqueeze(0))
    one_grey_level = 1 / 255 / min(classifier.std)
    if found.shape != expected.shape or (found - expected).abs().max() > 3 * one_grey_level:
        raise ClassifierError(
            f"{classifier.name}: its image processor does more than resize, cut and normalise: prepare images yourself "
            "and wrap the network in faithmap.Classifier."
        )
