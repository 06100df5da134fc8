"""What a heatmap method is given: a batch of images with the class to explain, and the gradients of that class."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from faithmap.checks import as_texts
from faithmap.classifiers import CUSTOM, Classifier, ScoreOnly, evaluation_mode, kind_of
from faithmap.errors import HeatmapError, InputError, MethodError, missing

# Images that are run together: at least, at most, and the bytes that they may leave for the backward pass.
BLOCKS = {"cpu": (4, 16, 96_000_000), "device": (8, 64, 800_000_000)}


@dataclass(frozen=True)
class Batch:
    """Images, the class to explain in each, and the network.

    Attributes:
        classifier: its module takes `inputs`.
        pixels: images in pixel space, (B, C, H, W).
        inputs: normalised images in the network's own precision, (B, C, H, W).
        targets: class to explain, (B,), int64.
        image_ids: one a row; with `seed`, the key of all randomness.
        seed: see `image_ids`.

    What several methods need (see `shared`) is computed once for all methods that are given the same batch.
    """

    classifier: Classifier
    pixels: Tensor
    inputs: Tensor
    targets: Tensor
    image_ids: Sequence[str]
    seed: int = 0
    _shared: dict[Any, Any] = field(init=False, default_factory=dict, compare=False, repr=False)
    _held: dict[str, tuple[Any, Any, Any]] = field(init=False, default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(
        cls,
        classifier: Classifier,
        pixels: Float[Tensor, "batch channels height width"],
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
        ids = [str(row) for row in range(len(pixels))] if image_ids is None else as_texts(image_ids, "image_ids")
        if len(ids) != len(pixels):
            raise InputError(f"{len(ids)} image ids for {len(pixels)} images: give one an image.")
        inputs = classifier.normalise(pixels.detach().to(classifier.dtype))
        return cls(classifier, pixels.detach(), inputs, targets.to(pixels.device), ids, seed)

    def shared(self, key: Any, compute: Callable[[], Any]) -> Any:
        """What `compute` returns, computed when it is first asked for; nobody may change it."""
        if key not in self._shared:
            self._shared[key] = compute()
        return self._shared[key]

    def held(self, key: Any, compute: Callable[[], Any]) -> Any:
        """As `shared`, for what takes much memory: only the last one is held, for this batch and all its `rows`."""
        last = self._held.get("last")
        if last is None or last[0] is not self._shared or last[1] != key:
            self._held.clear()  # before the next one is made
            last = self._held["last"] = (self._shared, key, compute())
        return last[2]

    def let_go(self, but: Any = None) -> None:
        """Hold nothing any longer, see `held`, unless it has this key."""
        if "last" in self._held and self._held["last"][1] != but:
            self._held.clear()

    def rows(self, start: int, count: int) -> Batch:
        """`count` images from `start`, filled up by repeating the first of them where there are fewer."""
        left = len(self.pixels) - start
        at = [start + row if row < left else start for row in range(count)]
        piece: Batch = self.shared(("rows", start, count), lambda: self.select(at))
        object.__setattr__(piece, "_held", self._held)
        return piece

    def select(self, rows: Sequence[int]) -> Batch:
        """Some of the images, in this order."""
        return replace(
            self,
            pixels=self.pixels[rows],
            inputs=self.inputs[rows],
            targets=self.targets[rows],
            image_ids=[self.image_ids[row] for row in rows],
        )

    def copied(self) -> Batch:
        """The same images for code of others, which may change what it is given."""
        return replace(
            self,
            pixels=self.pixels.clone(),
            inputs=self.inputs.clone(),
            targets=self.targets.clone(),
            image_ids=list(self.image_ids),
        )

    def block_size(self) -> int:
        """How many images to run together: decided by the network, its input size and the kind of device alone.

        Few where the values that a backward pass needs take much memory, many where reading the weights takes longest.
        """
        smallest, largest, memory = BLOCKS[kind_of(self.pixels.device)]
        if isinstance(self.classifier.module, ScoreOnly):
            return smallest
        each: int = self.shared("bytes an image", self._bytes_for_backward)
        fits = memory // max(each, 1)
        return min(largest, max(smallest, 1 << max(fits, 1).bit_length() - 1))

    def _bytes_for_backward(self) -> int:
        """What one image leaves behind in the forward pass for the backward pass, weights not counted."""
        module = self.classifier.module
        weights = {tensor.untyped_storage().data_ptr() for tensor in (*module.parameters(), *module.buffers())}
        held: dict[int, torch.UntypedStorage] = {}  # until all are counted, so that no address comes twice

        def count(value: Tensor) -> None:
            storage = value.untyped_storage()
            held.setdefault(storage.data_ptr(), storage)

        try:
            with attributable(module), torch.autograd.graph.saved_tensors_hooks(count, lambda _: torch.empty(0)):
                self.classifier.outputs(self.inputs[:1].clone().requires_grad_())
        except Exception:  # a network may be anybody's code; methods that need gradients will say what is wrong
            return BLOCKS["device"][2]
        return sum(storage.nbytes() for address, storage in held.items() if address not in weights)

    def repeated(self, count: int) -> Batch:
        """Every image `count` times in a row."""
        return replace(
            self,
            pixels=self.pixels.repeat_interleave(count, 0),
            inputs=self.inputs.repeat_interleave(count, 0),
            targets=self.targets.repeat_interleave(count, 0),
            image_ids=[name for name in self.image_ids for _ in range(count)],
        )

    def reference(self, name: str) -> Float[Tensor, "batch channels height width"]:
        """An input without information: ``"zero"``, the mean colour (0 after normalisation), or ``"black"``."""
        if name == "zero":
            return torch.zeros_like(self.inputs)
        return self.classifier.normalise(torch.zeros_like(self.inputs))

    def variant_scores(self, inputs: Tensor, probability: bool = False) -> Float[Tensor, "variants"]:
        """The target's score of variants of the images.

        Args:
            inputs: all images, once or several times over.
            probability: what is stored as probability, instead of the logit.
        """
        targets = self.targets.repeat(len(inputs) // len(self.targets))
        outputs = self.classifier.outputs(inputs.clone())
        self.check_targets(outputs)
        found = self.classifier.scores(outputs, targets)
        return self.classifier.probabilities(outputs, found).to(found.dtype) if probability else found

    def plain_logits(self, inputs: Tensor) -> Tensor:
        """The network's logits at `inputs`, without gradients; shared where these are the batch's own inputs."""

        def compute() -> Tensor:
            with torch.no_grad():
                return self.classifier.logits(inputs.detach().clone())

        own = inputs.shape == self.inputs.shape and torch.equal(inputs, self.inputs)
        logits: Tensor = self.shared("logits", compute) if own else compute()
        return logits

    def check_targets(self, outputs: Any) -> None:
        """Raise an `InputError` for a target that is not a class of the network; a score function checks its own."""
        if self.classifier.score_kind == CUSTOM:
            return
        classes = outputs.shape[1]
        if self.targets.min() < 0 or self.targets.max() >= classes:
            wrong = next(t for t in self.targets.tolist() if not 0 <= t < classes)
            raise InputError(f"target is class {wrong}, the network has classes 0…{classes - 1}.")

    def scores(self, outputs: Any) -> Float[Tensor, "batch"]:
        """The logit of the target class of every image, or what the classifier's score function makes of its output.

        Raises:
            InputError: a target that is not a class of the network.
            HeatmapError: logits that are not finite; `index` says in which row.
        """
        custom = self.classifier.score_kind == CUSTOM
        if not custom:
            self.check_targets(outputs)
        scores = self.classifier.scores(outputs, self.targets)
        finite = scores.isfinite() if custom else outputs.isfinite().all(1)
        if not finite.all():
            raise HeatmapError("the network's logits are not finite.", int((~finite).nonzero()[0]))
        return scores

    def gradient(self, at: Tensor | None = None) -> Float[Tensor, "batch channels height width"]:
        """Gradient of the target logit with respect to the inputs (at other inputs, if given)."""

        def compute() -> Tensor:
            with attributable(self.classifier.module):
                inputs = (self.inputs if at is None else at).detach().clone().requires_grad_()
                scores = self.scores(self.classifier.outputs(inputs.clone()))
                return differentiate(scores.sum(), inputs)

        gradient: Tensor = self.shared("gradient", compute) if at is None else compute()
        return gradient


def differentiate(
    output: Tensor, inputs: Tensor, grad_outputs: Tensor | None = None, retain_graph: bool = False
) -> Tensor:
    """d output / d inputs; zeros where the output does not depend on the inputs.

    Raises:
        MethodError: an output that knows nothing of the inputs.
    """
    if not output.requires_grad:
        raise MethodError(
            "it needs gradients, and none reach the input of this network: its forward pass detaches its values, runs "
            "under torch.no_grad or in a number type without gradients, or does not look at its input."
        )
    (gradient,) = torch.autograd.grad(output, inputs, grad_outputs, allow_unused=True, retain_graph=retain_graph)
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
    if any(tensor.is_inference() for tensor in module.parameters()):
        raise MethodError(
            "it needs gradients, and this network's weights were made in inference mode: build it outside of "
            "torch.inference_mode()."
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
        raise MethodError(missing("needs", "captum", extra="captum")) from error


def l2_norm(relevance: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch height width"]:
    """Euclidean norm over the channels, scaled by the largest so that tiny squares do not underflow."""
    largest = relevance.abs().amax(1, keepdim=True)
    scaled = torch.where(largest > 0, relevance / largest, 0)
    return largest.squeeze(1) * scaled.square().sum(1).sqrt()


def linf_norm(relevance: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch height width"]:
    """Largest absolute value over the channels."""
    return relevance.abs().amax(1)


NORMS: dict[str, Callable[[Tensor], Tensor]] = {"l2": l2_norm, "linf": linf_norm}
