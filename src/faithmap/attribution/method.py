"""What a heatmap method is, and the decorator that declares one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from torch import Tensor

from faithmap.attribution.batch import Batch
from faithmap.declarations import Declaration, Declarations, Parameter
from faithmap.errors import MethodError
from faithmap.protocol import RANDOM


@dataclass(frozen=True)
class Method:
    """A heatmap method with its parameters.

    Attributes:
        name: canonical, as in tables.
        spec: plain JSON; all that decides its numbers besides network, images and seed.
        compute: batch → relevance (B, C, H, W), summed over channels, or heatmap (B, H, W).
        batching: ``"fixed"`` computes it in blocks of one size, ``"single"`` image by image (for methods that evaluate
            many variants of an image), ``"whole"`` on the batch as it is.
        optional: left out, with its reason, where it means nothing on the network; otherwise that is an error.
    """

    name: str
    spec: dict[str, Any] = field(compare=False)
    compute: Callable[[Batch], Tensor] = field(compare=False, repr=False)
    batching: Literal["fixed", "single", "whole"] = field(default="fixed", compare=False, repr=False)
    optional: bool = field(default=False, compare=False, repr=False)

    @property
    def is_random(self) -> bool:
        """Whether this is the reference, whose order is drawn anew for each draw."""
        return self.name == RANDOM


@dataclass(frozen=True)
class HeatmapMethod(Declaration):
    """A heatmap method by name: (batch, **parameters) → relevance or heatmap.

    Attributes:
        batching: see `Method`.
        of_another: its first parameter, ``of``, is another method; see `heatmap_method`.
        reads: parts of the protocol on which its numbers depend; see `heatmap_method`.
    """

    batching: Literal["fixed", "single"] = "fixed"
    of_another: bool = False
    reads: tuple[str, ...] = ()


METHODS: Declarations[HeatmapMethod] = Declarations(
    "method", "faithmap.attribution", MethodError, group="faithmap.methods"
)
_F = TypeVar("_F", bound=Callable[..., Tensor])


def heatmap_method(
    name: str,
    *,
    line: str,
    source: str,
    parameters: Mapping[str, Parameter] | None = None,
    batching: Literal["fixed", "single"] = "fixed",
    first_shown: bool = False,
    aliases: Mapping[str, str] | None = None,
    of_another: bool = False,
    reads: Sequence[str] = (),
) -> Callable[[_F], _F]:
    """Declare a function as a heatmap method.

    Args:
        name: on the command line and in tables: lower case, words joined by hyphens.
        line: what it is, in one line.
        source: the paper.
        parameters: name → parameter; the function takes them by name. The first may be given without its name.
        batching: ``"fixed"`` hands it blocks of one size, ``"single"`` one image at a time (for methods that evaluate
            many variants of an image).
        first_shown: the first parameter is always part of the name.
        aliases: other name → the name that it stands for, with parameters.
        of_another: the first parameter, ``of``, names another method, parameters included, as in
            ``blend:lrp-epsilon:0.01,share=0.5``; the function receives what computes that method's relevance.
        reads: parts of the protocol, such as ``"region_size"``; the function receives the run's `Protocol` as
            ``protocol``, and these parts are kept in the run folder with the method.
    Returns:
        A decorator that registers the function and returns it unchanged. The function takes a `Batch` and returns
        relevance (B, C, H, W), which is summed over channels, or a heatmap (B, H, W).
    Raises:
        MethodError: the name is taken.
    Example:
        >>> @heatmap_method("red", line="control: the red channel", source="no source")
        ... def red(batch: Batch) -> Tensor:
        ...     return batch.pixels[:, 0]
    """

    def declare(function: _F) -> _F:
        METHODS.add(
            HeatmapMethod(
                name,
                function,
                line,
                source,
                parameters or {},
                aliases or {},
                first_shown,
                batching,
                of_another,
                tuple(reads),
            )
        )
        return function

    return declare
