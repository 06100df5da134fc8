"""What a run folder holds: rows of scores, images with their heatmaps, what was skipped."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa
from jaxtyping import Float
from torch import Tensor

EVERY = "*"
"""In place of an image: all of them."""


@dataclass(frozen=True)
class Skipped:
    """An image, or one method on an image, that could not be measured.

    Attributes:
        image: its id; `EVERY` for a method that means nothing on the network.
        method: None for an image that no method was measured on.
        reason: a sentence.
    """

    image: str
    method: str | None
    reason: str

    @property
    def on_all(self) -> bool:
        """Whether it says of a method that it means nothing on the network."""
        return self.image == EVERY


FORMAT = 1
SCHEMA = pa.schema(
    [
        ("image", pa.string()),
        ("group", pa.string()),
        ("label", pa.int32()),
        ("predicted", pa.int32()),
        ("target", pa.int32()),
        ("method", pa.string()),
        ("order", pa.string()),
        ("draw", pa.int16()),
        ("step", pa.int16()),
        ("logit", pa.float32()),
        ("probability", pa.float32()),
    ]
)


MEASURE_SCHEMA = pa.schema(
    [
        ("image", pa.string()),
        ("group", pa.string()),
        ("method", pa.string()),
        ("measure", pa.string()),
        ("draw", pa.int16()),
        ("value", pa.float64()),
    ]
)


@dataclass(frozen=True, eq=False)
class Example:
    """One image with its heatmaps, as a run stores them.

    Attributes:
        image: the image's id.
        pixels: the untouched image in pixel space.
        label: true class, None where it is not known.
        predicted, target: the network's class, and the class that was scored.
        heatmaps: method → signed relevance (H, W); random orders have none.
    """

    image: str
    pixels: Float[Tensor, "channels height width"] = field(repr=False)
    label: int | None
    predicted: int
    target: int
    heatmaps: dict[str, Tensor] = field(repr=False)
