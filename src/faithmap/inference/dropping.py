"""Vision transformers without some of their tokens: a removed region leaves nothing, not even invented pixels.

The patches of the image are embedded and get their positions as always; then the tokens of removed patches are left
out. What is left has its own positions still, and every later step has fewer tokens to compute.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from faithmap.classifiers import CUSTOM, Classifier, ScoreOnly, evaluation_mode
from faithmap.classifiers.patches import all_passes, patch_side
from faithmap.errors import ClassifierError, EngineError
from faithmap.inference.chains import Chains
from faithmap.inference.dense import LEAST
from faithmap.inference.precision import inference
from faithmap.text import first_line

ATTENTION = {"scaled_dot_product_attention", "multi_head_attention_forward", "softmax"}


@dataclass(frozen=True)
class Tokens:
    """Where a network's tokens can be left out.

    Attributes:
        place: which of the values (B, tokens, width) that the network makes, in order.
        shape: tokens and width.
        first: the first token that is a patch; class tokens stand before it.
        grid: rows and columns of patches.
        side: of a patch, in pixels.
    """

    place: int
    shape: tuple[int, int]
    first: int
    grid: tuple[int, int]
    side: int


class _Values(TorchFunctionMode):
    """Keeps the values (B, tokens, width) that a network makes before its first attention."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.attended = False
        self.found: list[Tensor] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        self.attended = self.attended or function.__name__ in ATTENTION
        if not self.attended and _is_sequence(function, result) and result.shape[1] >= self.tokens:
            self.found.append(result)
        return result


class _Dropping(TorchFunctionMode):
    """Leaves tokens out of one value."""

    def __init__(self, tokens: Tokens, kept: Tensor) -> None:
        super().__init__()
        self.tokens, self.kept = tokens, kept
        self.count = 0
        self.dropped = False

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        least = self.tokens.grid[0] * self.tokens.grid[1]
        if self.dropped or not _is_sequence(function, result) or result.shape[1] < least:
            return result
        self.count += 1
        if self.count <= self.tokens.place:
            return result
        if tuple(result.shape[1:]) != self.tokens.shape:
            raise EngineError("the network takes another way for other images: its tokens cannot be dropped.")
        self.dropped = True
        return result.gather(1, self.kept.unsqueeze(2).expand(-1, -1, result.shape[2]))


def _is_sequence(function: Any, result: Any) -> bool:
    return isinstance(result, Tensor) and result.ndim == 3 and not function.__name__.startswith("__")


def find_tokens(classifier: Classifier, size: tuple[int, int]) -> Tokens:
    """Where a network's tokens can be left out: the last value before attention through which all passes.

    Raises:
        EngineError: a network whose tokens cannot be dropped; says why.
    """
    name = classifier.name

    def refuse(why: str) -> EngineError:
        return EngineError(
            f"fill is 'drop' and {name} {why}: give a vision transformer, or another fill, such as 'uniform'."
        )

    side = patch_side(classifier, size)
    if side is None:
        raise refuse("does not embed an image patch by patch")
    grid = (size[0] // side, size[1] // side)
    watch = _Values(grid[0] * grid[1])
    module = classifier.module
    with torch.inference_mode(False), torch.enable_grad(), evaluation_mode(module):
        inputs = classifier.normalise(
            _examples(side, size, len(classifier.mean)).to(classifier.device, classifier.dtype)
        ).requires_grad_()
        trained = [one for one in module.parameters() if one.requires_grad and not one.is_inference()]
        for parameter in trained:
            parameter.requires_grad_(False)
        try:
            with watch:
                logits = classifier.logits(inputs.clone())
        finally:
            for parameter in trained:
                parameter.requires_grad_(True)
    if not watch.attended:
        raise refuse("has no attention")
    for place in reversed(range(len(watch.found))):
        value = watch.found[place]
        if value.requires_grad and len(value) == len(inputs) and all_passes(logits, value):
            first = _first_patch(value.detach(), grid)
            if first is not None:
                shape = (value.shape[1], value.shape[2])
                tokens = Tokens(place, shape, first, grid, side)
                _try(classifier, tokens, inputs.detach(), logits.detach(), refuse)
                return tokens
    raise refuse("has no tokens, one for each patch, before its attention")


def _examples(side: int, size: tuple[int, int], channels: int) -> Tensor:
    """A grey image, and four in which one patch differs: the first, the second, the one below the first, the last."""
    height, width = size[0] // side * side, size[1] // side * side
    images = torch.full((5, channels, *size), 0.5)
    corners = ((0, 0), (0, side), (side, 0), (height - side, width - side))
    for number, (top, left) in enumerate(corners, 1):
        images[number, :, top : top + side, left : left + side] = torch.linspace(0, 1, side)
    return images


def _first_patch(value: Tensor, grid: tuple[int, int]) -> int | None:
    """The token of the first patch, where each patch changes its own token and no other."""
    changed = [(value[0] != one).any(1).nonzero().flatten().tolist() for one in value[1:]]
    if len(changed[0]) != 1:
        return None
    first = int(changed[0][0])
    return first if changed == [[first + step] for step in (0, 1, grid[1], grid[0] * grid[1] - 1)] else None


def _try(classifier: Classifier, tokens: Tokens, inputs: Tensor, logits: Tensor, refuse: Any) -> None:
    """All tokens kept must change nothing, and some tokens left out must be possible."""
    everything = torch.arange(tokens.shape[0], device=inputs.device).expand(len(inputs), -1)
    try:
        same = _forward(classifier, tokens, inputs, everything)
        _forward(classifier, tokens, inputs, everything[:, : tokens.first + 2])
    except ClassifierError as error:
        raise refuse(f"needs all its tokens ({first_line(error.__cause__ or error)})") from error
    if not torch.allclose(same, logits, rtol=1e-3, atol=1e-3 * float(logits.abs().amax())):
        raise refuse("cannot be followed")


def _forward(classifier: Classifier, tokens: Tokens, inputs: Tensor, kept: Tensor, tf32: bool = False) -> Tensor:
    with inference(tf32), _Dropping(tokens, kept) as watch:
        logits: Tensor = classifier.logits(inputs)
    if not watch.dropped:
        raise EngineError("the network takes another way for other images: its tokens cannot be dropped.")
    return logits


_known: WeakKeyDictionary[nn.Module, dict[tuple[int, int], Tokens]] = WeakKeyDictionary()


class DroppingEngine:
    """Scores vision transformers with the tokens of removed patches left out.

    Args:
        classifier: runs in evaluation mode, without gradients.
        batch_size: inputs a forward pass; all inputs of a pass keep the same number of tokens.
        tf32: see `DenseEngine`.
    """

    def __init__(self, classifier: Classifier, batch_size: int, tf32: bool = False) -> None:
        if isinstance(classifier.module, ScoreOnly):
            raise EngineError(f"fill is 'drop' and {classifier.name} gives scores only: its tokens cannot be reached.")
        if classifier.score_kind == CUSTOM:
            raise EngineError(f"fill is 'drop' and the score of {classifier.name} is a function: give one by name.")
        self.classifier, self.batch_size, self.tf32 = classifier, batch_size, tf32

    def tokens(self, size: tuple[int, int]) -> Tokens:
        """Where tokens can be left out; found once for a network and size.

        Raises:
            EngineError: a network whose tokens cannot be dropped.
        """
        of_module = _known.setdefault(self.classifier.module, {})
        if size not in of_module:
            of_module[size] = find_tokens(self.classifier, size)
        return of_module[size]

    def logits(self, chains: Chains) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """See `Engine.logits`.

        Raises:
            EngineError: regions that cut patches, or a network whose tokens cannot be dropped.
        """
        tokens = self.tokens((chains.pixels.shape[2], chains.pixels.shape[3]))
        inputs = self.classifier.normalise(chains.pixels).to(self.classifier.dtype)
        dropped_at = _step_of_patches(chains, tokens)
        device = inputs.device
        points = torch.tensor(chains.scored, device=device)
        left = (dropped_at.unsqueeze(1) > points.view(1, -1, 1)).sum(2)  # patches, per chain and point
        for count in sorted(set(left.flatten().tolist())):
            chain, column = (left == count).nonzero(as_tuple=True)
            for start in range(0, len(chain), self.batch_size):
                rows, step = chain[start : start + self.batch_size], points[column[start : start + self.batch_size]]
                there = (dropped_at[rows] > step.unsqueeze(1)).nonzero()[:, 1].view(len(rows), count)
                before = torch.arange(tokens.first, device=device).expand(len(rows), -1)
                kept = torch.cat([before, there + tokens.first], 1)
                if kept.shape[1] == 0:
                    raise EngineError(
                        f"fill is 'drop' and {self.classifier.name} has no class token: nothing is left at step "
                        f"{int(step[0])}; give fewer steps."
                    )
                yield rows, step, self._forward(tokens, inputs[chains.image[rows]], kept)

    def _forward(self, tokens: Tokens, inputs: Tensor, kept: Tensor) -> Tensor:
        """Filled up to a multiple of `LEAST`, so that no score depends on how many others share its pass."""
        lacking = -len(inputs) % LEAST
        inputs = torch.cat([inputs, inputs[-1:].expand(lacking, -1, -1, -1)])
        kept = torch.cat([kept, kept[-1:].expand(lacking, -1)])
        return _forward(self.classifier, tokens, inputs, kept, self.tf32)[: len(inputs) - lacking]


def _step_of_patches(chains: Chains, tokens: Tokens) -> Tensor:
    """The step at which every patch is left out, (chains, patches); beyond the last for never."""
    (rows, columns), side = tokens.grid, tokens.side
    cells = chains.removal_step[:, : rows * side, : columns * side].reshape(-1, rows, side, columns, side)
    step = cells[:, :, 0, :, 0]
    if (cells != step[:, :, None, :, None]).any():
        raise EngineError(
            f"fill is 'drop' and regions cut patches of {side} pixels: give placement 'patch', or a grid whose "
            f"region_size is a multiple of {side}."
        )
    return torch.where(step > 0, step, chains.steps + 1).flatten(1).long()
