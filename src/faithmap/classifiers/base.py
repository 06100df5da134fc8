"""Classifiers: pixel space in, logits out; normalisation belongs to the classifier and happens after perturbation."""

from __future__ import annotations

import hashlib
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from faithmap.checks import as_integer, as_numbers, as_shaped_pixels, as_text, as_texts, check_flag, plain_tensor
from faithmap.classifiers.code import code_of
from faithmap.classifiers.scores import (
    CUSTOM,
    Picked,
    ScoreFunction,
    check_score,
    is_huggingface,
    looks_like_probabilities,
    parts_of,
    per_class,
    pick,
    probability_of,
)
from faithmap.classifiers.scripts import constants_of, scripts_of
from faithmap.errors import ClassifierError, ClassifierWarning, CurveError, FaithmapError, shown
from faithmap.foreign import attribute, has_attribute, plain_text
from faithmap.identity import callable_identity, callable_name
from faithmap.images import IMAGENETTE_CLASSES, Images, Preprocessing, as_shown_channels
from faithmap.protocol import PROBABILISTIC
from faithmap.text import first_line

# A longer number is the name of a folder, not a class.
_DIGITS = 10


class ScoreOnly(nn.Module):
    """A network that gives scores but no gradients: a plain function, an ONNX file.

    Args:
        function: inputs (B, C, H, W) → logits (B, classes), a tensor or an array.
        description: part of the classifier's fingerprint; the function's module and name by default.
        output: which part of what the function returns; see `Classifier`.
    Methods that need gradients or layers refuse such a network by name.
    """

    def __init__(
        self, function: Callable[[Tensor], Any], description: str | None = None, output: str | int | None = None
    ) -> None:
        super().__init__()
        self.function = function
        self.output = output
        kind = function if has_attribute(function, "__qualname__") else type(function)
        self.by_name = description is None
        self.description = description or f"{kind.__module__}.{kind.__qualname__}"

    def forward(self, inputs: Tensor) -> Any:
        """The function's logits, on the inputs' device. It is given a copy, which it may change."""
        with torch.no_grad():
            logits = self.function(inputs.clone())
        if self.output is not None:
            logits = pick(logits, self.output)
        if isinstance(logits, np.ndarray):
            logits = torch.from_numpy(logits)
        return logits.to(inputs.device) if isinstance(logits, Tensor) else logits

    def extra_repr(self) -> str:
        """Part of the classifier's fingerprint."""
        return self.description if self.output is None else f"{self.description}, output={self.output!r}"


class Classifier:
    """A network with its preprocessing: pixels (B, C, H, W) in [0, 1] → logits (B, classes).

    Args:
        module: maps normalised inputs (B, C, H, W) to logits (B, classes); any `torch.nn.Module`, or any function (then
            only methods that need no gradients work).
        mean, std: per-channel normalisation in pixel space [0, 1], one number per channel (RGB where there are three);
            the default leaves pixels as they are.
        bgr: turn RGB into BGR after normalisation.
        labels: names of the classes, in index order.
        preprocessing: how image files become pixels; the default is resize 256, centre crop 224. Images that come as
            tensors have their own size; where a preprocessing is given, it must be that size.
        name: what reports call it; the module's class name by default.
        score: what is stored as logit and probability of the target class t, from the output z:

            - ``"softmax"``: z_t, and the softmax of z at t; one class per image.
            - ``"sigmoid"``: z_t, and the sigmoid of z_t; many labels per image. One logit z is two classes: −z and z.
            - ``"identity"``: z_t twice, because it has no probability; regression.
            - a function (output, targets (B,)) → (B,): its value twice; segmentation (a class summed over a mask),
              detection (the score of a box). It must treat every image by itself, and allow gradients for methods
              that need them.
        output: which part of what the module returns: a key, an index or an attribute's name. `logits` of a Hugging
            Face module is found by itself.
        shown_channels: which channels figures and the page show as red, green and blue, or one in grey, counted from 1;
            see `faithmap.images.rgb` for the default. Changes no number.
    The module is put in evaluation mode (dropout off, BatchNorm statistics fixed) whenever it runs.
    """

    def __init__(
        self,
        module: nn.Module | Callable[[Tensor], Any],
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        bgr: bool = False,
        labels: Sequence[str] | None = None,
        preprocessing: Preprocessing | None = None,
        name: str | None = None,
        score: str | ScoreFunction = "softmax",
        output: str | int | None = None,
        shown_channels: int | Sequence[int] | None = None,
    ) -> None:
        if not callable(module):
            raise ClassifierError(
                f"a Classifier wraps a torch.nn.Module or a function pixels → logits, received {type(module).__name__}."
            )
        mean = None if mean is None else as_numbers(mean, "mean", ClassifierError)
        std = None if std is None else as_numbers(std, "std", ClassifierError)
        labels = None if labels is None else as_texts(labels, "labels", ClassifierError)
        if preprocessing is not None and not isinstance(preprocessing, Preprocessing):
            raise ClassifierError(f"preprocessing is {shown(preprocessing)}: give a faithmap.Preprocessing.")
        if name is not None:
            name = as_text(name, "name", ClassifierError)
        check_flag(bgr, "bgr", ClassifierError)
        score = plain_text(score) if isinstance(score, str) else score
        check_score(score)
        self.module = _as_module(module, output)
        self.preprocessing, self.mean, self.std = _per_channel(self.module, mean, std, preprocessing)
        if bgr and self.channels != 3:
            raise ClassifierError(f"bgr turns three channels around, mean and std are for {self.channels}.")
        self.bgr = bgr
        self.labels = list(labels) if labels is not None else None
        # Of the inputs, where it was asked for; a default that nobody set is no contradiction to anything.
        self.asked_size = preprocessing.crop if preprocessing is not None else None
        self.name = name or str(attribute(module, "__name__", type(module).__name__))
        self.score = score
        self.shown_channels = as_shown_channels(shown_channels)
        self.mean_is_given = mean is not None or std is not None
        self._noticed = False

    def __repr__(self) -> str:
        size = self.asked_size or "of any size"
        return f"Classifier({self.name}, input {size}, on {self.device})"

    @property
    def channels(self) -> int:
        """How many channels an image has."""
        return len(self.mean)

    @property
    def score_kind(self) -> str:
        """``"softmax"``, ``"sigmoid"``, ``"identity"``, or ``"custom"`` for a function."""
        return self.score if isinstance(self.score, str) else CUSTOM

    @property
    def score_name(self) -> str | None:
        """What a score without a probability is called in texts; None for one with a probability."""
        if self.score_kind in PROBABILISTIC:
            return None
        name = "" if isinstance(self.score, str) else callable_name(self.score).partition(":")[0].rpartition(".")[2]
        return f"score {name}" if name.replace("_", "").isalnum() else "score"

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
        self.module.to(pick_device(device))
        return self

    def normalise(
        self, pixels: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Pixels in [0, 1] → the network's input. Acts on each pixel alone, so it commutes with perturbation.

        Raises:
            ClassifierError: images with another number of channels.
        """
        pixels = as_shaped_pixels(pixels)
        if pixels.ndim != 4 or (pixels.shape[1] != self.channels and self.mean_is_given):
            raise ClassifierError(
                f"{self.name} takes images (B, {self.channels}, H, W), received {tuple(pixels.shape)}: give mean and "
                "std with one number per channel of your images."
            )
        count = self.channels if self.mean_is_given else 1
        mean = torch.tensor(self.mean[:count], dtype=pixels.dtype, device=pixels.device).view(1, -1, 1, 1)
        std = torch.tensor(self.std[:count], dtype=pixels.dtype, device=pixels.device).view(1, -1, 1, 1)
        inputs = (pixels - mean) / std
        return inputs.flip(1) if self.bgr else inputs

    def outputs(self, inputs: Float[Tensor, "batch channels height width"]) -> Any:
        """Normalised inputs → what `scores` is given: logits (B, classes), or for a score function whatever it takes.

        Keeps gradients where they are asked for.

        Raises:
            ClassifierError: the network fails on this input, or returns something else.
        """
        with evaluation_mode(self.module):
            try:
                output = self.module(inputs)
                if isinstance(output, Tensor) and output.layout is not torch.strided:
                    output = output.to_dense()
            except (torch.cuda.OutOfMemoryError, MemoryError, FaithmapError):
                raise
            except (Exception, SystemExit) as error:  # a network may be anybody's code
                if "out of memory" in str(error) or "can't allocate memory" in str(error):
                    raise
                raise ClassifierError(
                    f"{self.name} fails on an input of shape {tuple(inputs.shape)}: {first_line(error)}"
                    f"{self._threads_of_its_own(inputs)}"
                ) from error
        # A copy, because a network may write its next logits where these are; of a score function its result is copied.
        return output if self.score_kind == CUSTOM else self.check_logits(output, len(inputs)).clone()

    def _threads_of_its_own(self, inputs: Tensor) -> str:
        """The end of a message about a network that fails in inference mode alone: its threads know nothing of it.

        Tried in both ways, because a network may also fail once, for reasons of its own.
        """
        with suppress(Exception), torch.no_grad():
            if inputs.is_inference():
                with torch.inference_mode(False):
                    self.module(inputs.clone())
                try:
                    self.module(inputs)
                except Exception:
                    return (
                        ". It works outside of torch.inference_mode(), which holds in one thread: run the forward pass "
                        "in the thread that calls it."
                    )
        return ""

    def logits(self, inputs: Float[Tensor, "batch channels height width"]) -> Tensor:
        """Normalised inputs → logits (B, classes), checked. Keeps gradients where they are asked for.

        Raises:
            ClassifierError: the network fails on this input, or returns something else.
        """
        return self.check_logits(self.outputs(inputs), len(inputs))

    def check_logits(self, logits: Any, batch: int) -> Tensor:
        """`logits` as a floating tensor (batch, classes); otherwise a `ClassifierError` that says what it is.

        For a score function, any floating tensor whose first axis is the batch.
        """
        if not isinstance(logits, Tensor) and isinstance(getattr(logits, "logits", None), Tensor):
            logits = logits.logits  # of Hugging Face's outputs
        if not isinstance(logits, Tensor):
            known = parts_of(logits)
            remedy = f"say which part with output=, one of {', '.join(known)}" if known else "return its logits"
            raise ClassifierError(
                f"{self.name} returned {type(logits).__name__}, expected one tensor (B, classes): {remedy}."
            )
        logits = plain_tensor(logits)
        if logits.is_meta:
            raise ClassifierError(f"{self.name} returned logits without values (device 'meta'): give it its weights.")
        found: Tensor = per_class(logits, self.score_kind)
        good = found.is_floating_point() and found.ndim > 0 and len(found) == batch
        if self.score_kind == CUSTOM and good:
            return found
        if not good or found.ndim != 2 or found.shape[1] < (2 if self.score == "softmax" else 1):
            one = "; for one logit give score='sigmoid', for regression score='identity'"
            images = "; for an output with an axis for positions give a function as score"
            hint = one if good and found.shape[1:] in ((), (1,)) else images if good and found.ndim > 2 else ""
            raise ClassifierError(
                f"{self.name} returned {found.dtype} of shape {tuple(found.shape)} for {batch} images, expected "
                f"floating logits ({batch}, classes), at least 2 classes: wrap the network so that it returns these"
                f"{hint}."
            )
        return found

    def scores(self, outputs: Any, targets: Int[Tensor, "batch"]) -> Float[Tensor, "batch"]:
        """What is stored as logit, and what heatmaps explain; differentiable.

        Args:
            outputs: see `outputs`.
            targets: class indices.
        Raises:
            ClassifierError: a score function that returns something else than one number per image.
        """
        if isinstance(self.score, str):
            found: Tensor = outputs.gather(1, targets.unsqueeze(1)).squeeze(1)
            return found
        try:
            found = self.score(outputs, targets.clone())
        except (torch.cuda.OutOfMemoryError, MemoryError):
            raise
        except Exception as error:  # a score function is anybody's code
            raise ClassifierError(f"the score function of {self.name} fails: {first_line(error)}") from error
        if not isinstance(found, Tensor) or found.shape != targets.shape or not found.is_floating_point():
            shown = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise ClassifierError(
                f"the score function of {self.name} returned {shown} for {len(targets)} images, expected a floating "
                f"tensor ({len(targets)},)."
            )
        return found.clone()

    def probabilities(self, outputs: Any, at_target: Float[Tensor, "batch"]) -> Float[Tensor, "batch"]:
        """What is stored as probability, float64: see `score`; for a score without one, the score itself.

        Args:
            outputs: see `outputs`.
            at_target: see `scores`.
        """
        return probability_of(outputs, at_target, self.score_kind)

    def notice_probabilities(self, outputs: Any) -> None:
        """Warn, once, where a softmax or sigmoid is applied to what seem to be probabilities already."""
        why = looks_like_probabilities(outputs, self.score_kind) if isinstance(outputs, Tensor) else None
        if why is None or self._noticed:
            return
        self._noticed = True
        warnings.warn(
            f"the outputs of {self.name} seem to be probabilities already ({why}), and a {self.score} is applied to "
            "them: give the network without its last activation, or score='identity' to score its outputs as they are.",
            ClassifierWarning,
            stacklevel=2,
        )

    def __call__(self, pixels: Float[Tensor, "batch channels height width"]) -> Tensor:
        """Pixels in [0, 1] → logits (B, classes)."""
        return self.logits(self.normalise(pixels).to(self.dtype))

    def predict(self, pixels: Float[Tensor, "batch channels height width"]) -> Int[Tensor, "batch"]:
        """The class with the highest logit (the lowest index among equals), int64.

        Raises:
            CurveError: logits that are not finite; `index` says for which image.
        """
        with torch.no_grad():
            logits = self(pixels)
        if logits.ndim != 2:
            raise ClassifierError(
                f"{self.name} returns {tuple(logits.shape)} and has no predicted class: give targets of your own."
            )
        self.notice_probabilities(logits)
        finite = logits.isfinite().all(1)
        if not finite.all():
            index = int((~finite).nonzero()[0])
            raise CurveError(f"{self.name} returned logits that are not finite for the untouched image.", index)
        return logits.argmax(1)

    def class_index(self, label: int | str | None) -> int | None:
        """The class index of a label: an index, a number written out, or one of `labels`; else None."""
        if label is None or isinstance(label, int | np.integer):
            return None if label is None else as_integer(label, "a class", -sys.maxsize, sys.maxsize, ClassifierError)
        if not isinstance(label, str):
            raise ClassifierError(f"a class is {shown(label)}: give an index or a name.")
        label = plain_text(label)
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
        """The name of a class, or its index where there are no names.

        Raises:
            ClassifierError: not an integer.
        """
        index = as_integer(index, "index", -sys.maxsize, sys.maxsize, ClassifierError)
        return self.labels[index] if self.labels is not None and 0 <= index < len(self.labels) else str(index)

    def fingerprint(self) -> str:
        """Sixteen hex digits over the weights, buffers, architecture and normalisation: what decides the logits."""
        digest = hashlib.sha256(repr((self.mean, self.std, self.bgr, str(self.module))).encode())
        if self.score_kind != "softmax":
            digest.update((callable_identity(self.score).digest if callable(self.score) else self.score).encode())
        if isinstance(self.module, ScoreOnly) and self.module.by_name:
            digest.update(callable_identity(self.module.function).digest.encode())
        for script in scripts_of(self.module):
            digest.update(script.encode())
        for name, tensor in sorted({**constants_of(self.module), **self.module.state_dict()}.items()):
            if isinstance(tensor, UninitializedBuffer | UninitializedParameter) or tensor.is_meta:
                raise ClassifierError(
                    f"{self.name} has weights without values ('{name}'): load them, or run a lazy network once, before "
                    "it is measured."
                )
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]

    def code(self) -> str:
        """Sixteen hex digits over what decides the logits beside that; empty where packages brought all there is.

        Covers methods, plain attributes and hooks of classes that no package brought, and buffers that are not saved.
        """
        lines = list(code_of(self.module))
        return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()[:16] if lines else ""


def check_classifier(value: Any) -> Classifier:
    """`value` if it is a classifier.

    Raises:
        ClassifierError: a network that is not wrapped, a name, or anything else.
    """
    if isinstance(value, Classifier):
        return value
    if isinstance(value, str):
        raise ClassifierError(f"classifier is the name {shown(value)}: load it with faithmap.load_classifier.")
    what = f"a bare {type(value).__name__}" if callable(value) else f"{type(value).__name__}"
    raise ClassifierError(
        f"classifier is {what}: wrap a network in faithmap.Classifier(network, mean=…, std=…), which says how it wants "
        "its input normalised."
    )


def _as_module(module: nn.Module | Callable[[Tensor], Any], output: str | int | None) -> nn.Module:
    if not isinstance(module, nn.Module):
        return ScoreOnly(module, output=output)
    if output is None and is_huggingface(module):
        output = "logits"
    return module if output is None else Picked(module, output)


def _per_channel(
    module: nn.Module, mean: Sequence[float] | None, std: Sequence[float] | None, preprocessing: Preprocessing | None
) -> tuple[Preprocessing, tuple[float, ...], tuple[float, ...]]:
    """Preprocessing, mean and std for one number of channels: what is given says which, else the first convolution."""
    convolutions = (one.in_channels for one in module.modules() if isinstance(one, nn.Conv2d))
    given = [len(one) for one in (mean, std) if one is not None]
    given += [preprocessing.channels] if preprocessing is not None and preprocessing.channels != 3 else []
    channels = given[0] if given else next(convolutions, 3)
    mean, std = mean or (0.0,) * channels, std or (1.0,) * channels
    if {len(mean), len(std), *given} != {channels} or channels < 1 or min(std) <= 0:
        raise ClassifierError(
            f"mean and std need one number per channel each, std above 0: received {tuple(mean)} and {tuple(std)}"
            + (f" for {preprocessing.channels} channels." if preprocessing is not None else ".")
        )
    preprocessing = replace(preprocessing or Preprocessing(), channels=channels)
    return preprocessing, tuple(float(value) for value in mean), tuple(float(value) for value in std)


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Every submodule in evaluation mode inside, each as it was outside."""
    training = [m for m in module.modules() if attribute(m, "training")]  # a frozen script has no modes
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
    device = plain_text(device) if isinstance(device, str) else device
    if isinstance(device, str) and device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        if not isinstance(device, str | int | torch.device):
            raise TypeError(f"it is a {type(device).__name__}")
        picked = torch.device(device)
        if picked.type == "meta":
            raise RuntimeError("it holds no values")
        torch.zeros(1, device=picked).cpu()
    except (RuntimeError, AssertionError, TypeError, ValueError, ImportError, NotImplementedError) as error:
        raise ClassifierError(
            f"device {shown(device)} cannot be used ({first_line(error)}): give cpu, cuda, cuda:N or auto."
        ) from None
    return picked
