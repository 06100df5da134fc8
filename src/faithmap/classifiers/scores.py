"""What of a network's output is scored: which tensor, and which number of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from faithmap.errors import ClassifierError, nearest

SCORES = ("softmax", "sigmoid", "identity")
CUSTOM = "custom"
# (outputs, targets) → one number per image.
ScoreFunction = Callable[[Any, Tensor], Tensor]


class Picked(nn.Module):
    """A network reduced to one part of its output.

    Args:
        network: returns a dict, a tuple, a dataclass, or one of these within another.
        part: a key, an index or an attribute's name.
    """

    def __init__(self, network: nn.Module, part: str | int) -> None:
        super().__init__()
        self.network = network
        self.part = part

    def forward(self, inputs: Tensor) -> Any:
        """The part of the network's output."""
        return pick(self.network(inputs), self.part)

    def extra_repr(self) -> str:
        """Part of the classifier's fingerprint."""
        return f"output={self.part!r}"


def pick(output: Any, part: str | int) -> Any:
    """One part of what a network returns.

    Raises:
        ClassifierError: there is no such part; says which there are.
    """
    if isinstance(output, Mapping):
        if part in output:
            return output[part]
    elif isinstance(part, int) and isinstance(output, (tuple, list)):
        if -len(output) <= part < len(output):
            return output[part]
    elif isinstance(part, str) and hasattr(output, part):
        return getattr(output, part)
    known = parts_of(output)
    raise ClassifierError(
        f"the network's output is a {type(output).__name__} without {part!r}{nearest(str(part), known)} "
        f"Its parts: {', '.join(known) or 'none'}."
    )


def parts_of(output: Any) -> list[str]:
    """How the parts of a network's output are called; empty for a tensor."""
    if isinstance(output, Tensor):
        return []
    if isinstance(output, Mapping):
        return [str(key) for key in output]
    if hasattr(output, "_fields"):
        return list(output._fields)
    if isinstance(output, (tuple, list)):
        return [str(index) for index in range(len(output))]
    if dataclasses.is_dataclass(output):
        return [one.name for one in dataclasses.fields(output)]
    return []


def is_huggingface(module: nn.Module) -> bool:
    """Whether a module is one of transformers' own, whose output has `logits`."""
    return any(kind.__name__ == "PreTrainedModel" for kind in type(module).__mro__)


def check_score(score: str | ScoreFunction) -> None:
    """Raise a `ClassifierError` for a score that is neither a known name nor a function."""
    if isinstance(score, str) and score not in SCORES:
        raise ClassifierError(
            f"unknown score '{score}'{nearest(score, SCORES)} Known: {', '.join(SCORES)}, or a function "
            "(output, targets) -> (B,)."
        )
    if not isinstance(score, str) and not callable(score):
        raise ClassifierError(
            f"score is a {type(score).__name__}: give {', '.join(SCORES)}, or a function (output, targets) -> (B,)."
        )


def per_class(output: Tensor, score: str) -> Tensor:
    """A network's output as one column per class.

    One logit z of a ``"sigmoid"`` network is two classes: −z for class 0, z for class 1. One number per image of an
    ``"identity"`` network is its only column.
    """
    if output.ndim == 1 and score != "softmax":
        output = output.unsqueeze(1)
    if score == "sigmoid" and output.ndim == 2 and output.shape[1] == 1:
        return torch.cat([-output, output], 1)
    return output


def probability_of(logits: Tensor, at_target: Tensor, score: str) -> Tensor:
    """What is stored as probability, float64 (B,).

    Args:
        logits: (B, classes).
        at_target: the logit of the class that is scored, (B,).
        score: ``"softmax"``, ``"sigmoid"``; for any other score there is no probability, and the score itself is
            returned.
    """
    if score == "softmax":
        return (at_target.double() - logits.double().logsumexp(1)).exp()
    return at_target.double().sigmoid() if score == "sigmoid" else at_target.double()


def looks_like_probabilities(logits: Tensor, score: str) -> str | None:
    """Why outputs that are about to get a softmax or sigmoid seem to be probabilities already; None if they do not."""
    if score not in ("softmax", "sigmoid") or not bool(((logits >= 0) & (logits <= 1)).all()):
        return None
    if score == "softmax" and bool(((logits.double().sum(1) - 1).abs() < 1e-3).all()):
        return "they lie in [0, 1] and sum to 1"
    return "they all lie in [0, 1]" if logits.numel() >= 12 else None
