"""Classifiers: pixel space in, logits out; normalisation belongs to the classifier and happens after perturbation."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from faithmap.errors import ClassifierError, CurveError, FaithmapError
from faithmap.images import IMAGENETTE_CLASSES, Images, Preprocessing
from faithmap.text import first_line

# A longer number is the name of a folder, not a class.
_DIGITS = 10


class ScoreOnly(nn.Module):
    """A network that gives scores but no gradients: a plain function, an ONNX file.

    Args:
        function: inputs (B, 3, H, W) → logits (B, classes), a tensor or an array.
        description: part of the classifier's fingerprint; the function's module and name by default.
    Methods that need gradients or layers refuse such a network by name.
    """

    def __init__(self, function: Callable[[Tensor], Any], description: str | None = None) -> None:
        super().__init__()
        self.function = function
        kind = function if hasattr(function, "__qualname__") else type(function)
        self.description = description or f"{kind.__module__}.{kind.__qualname__}"

    def forward(self, inputs: Tensor) -> Any:
        """The function's logits, on the inputs' device. It is given a copy, which it may change."""
        with torch.no_grad():
            logits = self.function(inputs.clone())
        if isinstance(logits, np.ndarray):
            logits = torch.from_numpy(logits)
        return logits.to(inputs.device) if isinstance(logits, Tensor) else logits

    def extra_repr(self) -> str:
        """Part of the classifier's fingerprint."""
        return self.description


class Classifier:
    """A network with its preprocessing: pixels (B, 3, H, W) in [0, 1] → logits (B, classes).

    Args:
        module: maps normalised inputs (B, 3, H, W) to logits (B, classes); any `torch.nn.Module`, or any function (then
            only methods that need no gradients work, and a run folder tells functions apart by their name alone).
        mean, std: per-channel normalisation, RGB, in pixel space [0, 1]; the default leaves pixels as they are.
        bgr: turn RGB into BGR after normalisation.
        labels: names of the classes, in index order.
        preprocessing: how image files become pixels; the default is resize 256, centre cut 224.
        name: what reports call it; the module's class name by default.
    The module is put in evaluation mode (dropout off, BatchNorm statistics fixed) whenever it runs.
    """

    def __init__(
        self,
        module: nn.Module | Callable[[Tensor], Any],
        *,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        bgr: bool = False,
        labels: Sequence[str] | None = None,
        preprocessing: Preprocessing | None = None,
        name: str | None = None,
    ) -> None:
        if not callable(module):
            raise ClassifierError(
                f"a Classifier wraps a torch.nn.Module or a function pixels → logits, received {type(module).__name__}."
            )
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ClassifierError(f"mean and std need three numbers each, std above 0: received {mean} and {std}.")
        self.module = module if isinstance(module, nn.Module) else ScoreOnly(module)
        self.mean = tuple(float(value) for value in mean)
        self.std = tuple(float(value) for value in std)
        self.bgr = bgr
        self.labels = list(labels) if labels is not None else None
        self.preprocessing = preprocessing or Preprocessing()
        self.name = name or str(getattr(module, "__name__", type(module).__name__))

    def __repr__(self) -> str:
        return f"Classifier({self.name}, input {self.preprocessing.crop}, on {self.device})"

    @property
    def differentiable(self) -> bool:
        """Whether the network gives gradients (False for a plain function or an ONNX file)."""
        return not isinstance(self.module, ScoreOnly)

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
        if pixels.ndim != 4 or pixels.shape[1] != len(self.mean):
            raise ClassifierError(
                f"{self.name} takes images (B, {len(self.mean)}, H, W), received {tuple(pixels.shape)}: give mean and "
                "std with one number per channel of your images."
            )
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
            except (torch.cuda.OutOfMemoryError, MemoryError, FaithmapError):
                raise
            except Exception as error:  # a network may be anybody's code
                if "out of memory" in str(error) or "can't allocate memory" in str(error):
                    raise
                raise ClassifierError(
                    f"{self.name} fails on an input of shape {tuple(inputs.shape)}: {first_line(error)}"
                ) from error
        # A copy, because a network may write its next logits where these are.
        return self.check_logits(logits, len(inputs)).clone()

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
        return self.logits(self.normalise(pixels).to(self.dtype))

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
        if label is None or isinstance(label, int | np.integer):
            return None if label is None else int(label)
        if label.isdecimal() and len(label) < _DIGITS:
            return int(label)
        return self.labels.index(label) if self.labels is not None and label in self.labels else None

    def class_indices(self, images: Images) -> dict[str, int | None]:
        """Image id → index of the true class for this network, None where it is not known.

        A class folder is understood when it is one of Imagenette's, a class index, or a class name; where there are as
        many folders as classes, they are taken in name order.
        """
        folders = sorted({item.label for item in images if isinstance(item.label, str)})
        by_order = {}
        if self.labels is not None and len(folders) == len(self.labels):
            by_order = {folder: index for index, folder in enumerate(folders)}
        return {
            item.id: by_order.get(item.label)
            if isinstance(item.label, str) and item.label in by_order
            else self.class_index(
                IMAGENETTE_CLASSES.get(item.label, item.label) if isinstance(item.label, str) else item.label
            )
            for item in images
        }

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


def check_classifier(value: Any) -> Classifier:
    """`value` if it is a classifier.

    Raises:
        ClassifierError: a network that is not wrapped, a name, or anything else.
    """
    if isinstance(value, Classifier):
        return value
    if isinstance(value, str):
        raise ClassifierError(f"classifier is the name {value!r}: load it with faithmap.load_classifier.")
    what = f"a bare {type(value).__name__}" if callable(value) else f"{type(value).__name__}"
    raise ClassifierError(
        f"classifier is {what}: wrap a network in faithmap.Classifier(network, mean=…, std=…), which says how it wants "
        "its input normalised."
    )


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


def kind_of(device: torch.device) -> str:
    """Which of the sizes to take that were chosen for CPUs (``"cpu"``) and for other devices (``"device"``)."""
    return "cpu" if device.type == "cpu" else "device"


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
            f"device '{device}' cannot be used ({first_line(error)}): give cpu, cuda, cuda:N or auto."
        ) from None
    return picked
