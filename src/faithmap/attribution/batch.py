"""What a heatmap method is given: a batch of images with the class to explain, and the gradients of that class."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from faithmap.classifiers import Classifier, ScoreOnly, evaluation_mode
from faithmap.errors import HeatmapError, InputError, MethodError


@dataclass(frozen=True)
class Batch:
    """Images, the class to explain in each, and the network.

    Attributes:
        classifier: its module takes `inputs`.
        pixels: images in pixel space, (B, 3, H, W).
        inputs: normalised images in the network's own precision, (B, 3, H, W).
        targets: class to explain, (B,), int64.
        image_ids: one a row; with `seed`, the key of all randomness.
        seed: see `image_ids`.
    """

    classifier: Classifier
    pixels: Tensor
    inputs: Tensor
    targets: Tensor
    image_ids: Sequence[str]
    seed: int = 0

    @classmethod
    def of(
        cls,
        classifier: Classifier,
        pixels: Float[Tensor, "batch 3 height width"],
        targets: Int[Tensor, "batch"],
        image_ids: Sequence[str] | None = None,
        seed: int = 0,
    ) -> Batch:
        """Normalise the images; without ids, rows are named by their number.

        Raises:
            InputError: no image, or ids that are not one a row.
        """
        if len(pixels) == 0:
            raise InputError("the batch is empty: give at least one image.")
        ids = [str(row) for row in range(len(pixels))] if image_ids is None else list(image_ids)
        if len(ids) != len(pixels):
            raise InputError(f"{len(ids)} image ids for {len(pixels)} images: give one an image.")
        inputs = classifier.normalise(pixels.detach().to(classifier.dtype))
        return cls(classifier, pixels.detach(), inputs, targets.to(pixels.device), ids, seed)

    def rows(self, start: int, count: int) -> Batch:
        """`count` images from `start`, filled up by repeating the first of them where there are fewer."""
        left = len(self.pixels) - start
        at = [start + row if row < left else start for row in range(count)]
        return replace(
            self,
            pixels=self.pixels[at],
            inputs=self.inputs[at],
            targets=self.targets[at],
            image_ids=[self.image_ids[row] for row in at],
        )

    def repeated(self, count: int) -> Batch:
        """Every image `count` times in a row."""
        return replace(
            self,
            pixels=self.pixels.repeat_interleave(count, 0),
            inputs=self.inputs.repeat_interleave(count, 0),
            targets=self.targets.repeat_interleave(count, 0),
            image_ids=[name for name in self.image_ids for _ in range(count)],
        )

    def reference(self, name: str) -> Float[Tensor, "batch 3 height width"]:
        """An input without information: ``"zero"``, the mean colour (0 after normalisation), or ``"black"``."""
        if name == "zero":
            return torch.zeros_like(self.inputs)
        return self.classifier.normalise(torch.zeros_like(self.inputs))

    def checked_logits(self, inputs: Tensor) -> Tensor:
        """The network's logits, once it is sure that the targets are among them."""
        logits = self.classifier.logits(inputs.clone())
        self.check_targets(logits.shape[1])
        return logits

    def check_targets(self, classes: int) -> None:
        """Raise an `InputError` for a target that is not a class of the network."""
        if self.targets.min() < 0 or self.targets.max() >= classes:
            wrong = next(t for t in self.targets.tolist() if not 0 <= t < classes)
            raise InputError(f"target is class {wrong}, the network has classes 0…{classes - 1}.")

    def scores(self, logits: Tensor) -> Float[Tensor, "batch"]:
        """The logit of the target class of every image.

        Raises:
            InputError: a target that is not a class of the network.
            HeatmapError: logits that are not finite; `index` says in which row.
        """
        finite = logits.isfinite().all(1)
        if not finite.all():
            raise HeatmapError("the network's logits are not finite.", int((~finite).nonzero()[0]))
        self.check_targets(logits.shape[1])
        return logits.gather(1, self.targets.unsqueeze(1)).squeeze(1)

    def gradient(self, at: Tensor | None = None) -> Float[Tensor, "batch 3 height width"]:
        """Gradient of the target logit with respect to the inputs (at other inputs, if given)."""
        with attributable(self.classifier.module):
            inputs = (self.inputs if at is None else at).detach().clone().requires_grad_()
            scores = self.scores(self.classifier.logits(inputs.clone()))
            return differentiate(scores.sum(), inputs)


def differentiate(output: Tensor, inputs: Tensor, grad_outputs: Tensor | None = None) -> Tensor:
    """d output / d inputs; zeros where the output does not depend on the inputs."""
    if not output.requires_grad:
        return torch.zeros_like(inputs)
    (gradient,) = torch.autograd.grad(output, inputs, grad_outputs, allow_unused=True)
    return torch.zeros_like(inputs) if gradient is None else gradient


_on_leaving: ContextVar[list[Callable[[], None]] | None] = ContextVar("on_leaving", default=None)


def on_leaving(action: Callable[[], None]) -> None:
    """Do something when the innermost `attributable` is left."""
    actions = _on_leaving.get()
    if actions is not None:
        actions.append(action)


@contextmanager
def attributable(module: nn.Module) -> Iterator[None]:
    """Gradients on, evaluation mode, parameters held fixed; all as it was afterwards.

    Raises:
        MethodError: a network that gives scores only.
    """
    actions: list[Callable[[], None]] = []
    token = _on_leaving.set(actions)
    try:
        with _gradients(module):
            yield
    finally:
        _on_leaving.reset(token)
        for action in actions:
            action()


@contextmanager
def _gradients(module: nn.Module) -> Iterator[None]:
    if isinstance(module, ScoreOnly):
        raise MethodError(
            "it needs gradients, and this network gives scores only: give precomputed heatmaps, or a method that "
            "perturbs the input."
        )
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    with torch.inference_mode(False), torch.enable_grad(), evaluation_mode(module):
        for parameter in trained:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in trained:
                parameter.requires_grad_(True)


def import_captum() -> Any:
    """captum.attr, or an error that says how to get it."""
    try:
        return importlib.import_module("captum.attr")
    except ImportError as error:
        raise MethodError("needs the package captum: run `pip install 'faithmap[captum]'`.") from error


def l2_norm(relevance: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch height width"]:
    """Euclidean norm over the channels, scaled by the largest so that tiny squares do not underflow."""
    largest = relevance.abs().amax(1, keepdim=True)
    scaled = torch.where(largest > 0, relevance / largest, 0)
    return largest.squeeze(1) * scaled.square().sum(1).sqrt()


def linf_norm(relevance: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch height width"]:
    """Largest absolute value over the channels."""
    return relevance.abs().amax(1)


NORMS: dict[str, Callable[[Tensor], Tensor]] = {"l2": l2_norm, "linf": linf_norm}
