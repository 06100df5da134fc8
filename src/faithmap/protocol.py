"""What is measured: one frozen `Protocol`, its presets, and a fingerprint of whatever changes a number."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum, StrEnum
from operator import index
from types import MappingProxyType
from typing import Any, TypeVar
from uuid import uuid4

from faithmap.errors import ProtocolError, among, shown
from faithmap.foreign import entries, pairs, plain_text

RANDOM = "random"
"""The name of the reference that every run has: orders drawn at random."""
_E = TypeVar("_E", bound=StrEnum)


class Placement(StrEnum):
    """How regions are placed on a heatmap."""

    GRID = "grid"
    """Cells of a fixed grid that starts at the top left; ranked by their summed relevance."""
    PATCH = "patch"
    """The grid of the patches that the network embeds; planning writes it out as `GRID` of their size."""
    CENTRE = "centre"
    """A window centred on the highest remaining pixel, clamped to the border, skipped when it would overlap."""
    SEGMENT = "segment"
    """Given segments of any shape; ranked by their mean relevance (Rieger and Hansen 2020, IROF)."""
    PIXEL = "pixel"
    """Single pixels, `region_size` of them a step (Petsiuk et al. 2018, RISE)."""


class Direction(StrEnum):
    """Where a curve starts, and what a step does."""

    REMOVE = "remove"
    """From the image; a step replaces a region by the fill (deletion)."""
    RESTORE = "restore"
    """From the fill; a step brings a region of the image back (insertion)."""


class Steps(IntEnum):
    """A number of steps that depends on the image's size."""

    ALL = 2**31 - 1
    """Every region that fits; `Protocol.fitted` turns it into their number."""


class Order(StrEnum):
    """In which order regions are removed."""

    MORF = "morf"
    """Most relevant first."""
    LERF = "lerf"
    """Least relevant first."""


class Target(StrEnum):
    """Which class is scored."""

    PREDICTED = "predicted"
    """The class that the network predicts for the untouched image (needs no labels)."""
    LABEL = "label"
    """The true class."""
    GIVEN = "given"
    """The class that the caller gives for each image."""


class Score(StrEnum):
    """Which of the two stored scores tables and figures show."""

    LOGIT = "logit"
    """The unnormalised class score."""
    PROBABILITY = "probability"
    """The softmax of the logits at the target class."""


PROBABILISTIC = ("softmax", "sigmoid")
"""Scores of a classifier that have a probability; for others both columns of a run hold the score itself."""


class FunctionFill(str):
    """The name of a fill that is a function, with the function: (pixels, removed) → pixels.

    The name carries a hash of what the function computes, so that a run folder is not extended by another one. A name
    that comes from a run folder has no function.
    """

    function: Callable[[Any, Any], Any]

    @classmethod
    def of(cls, function: Callable[[Any, Any], Any]) -> FunctionFill:
        """The fill of a function; one of unknown identity is never the same twice."""
        from faithmap.identity import callable_identity, callable_name  # it needs torch, which a protocol does not

        found = callable_identity(function)
        name = callable_name(function).replace(":", " ").replace(",", " ")
        own = found.digest if found.unknown is None else uuid4().hex[:16]
        named = cls(f"{FUNCTION}:{name}#{own}")
        named.function = function
        return named


FUNCTION = "function"
_OF_WHAT_IS_LEFT = ("noisy-linear", "cv2-telea", "cv2-navier-stokes", FUNCTION)


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What is measured. Build one with `Protocol.preset`, overriding any part.

    Attributes:
        name: the preset it started from.
        steps: L, the number of regions removed; curves have L + 1 points, k = 0…L. ``"all"`` is every region that fits.
        region_size: side of the square region, in pixels; for `Placement.PIXEL`, how many pixels a step removes.
        placement: see `Placement`.
        segments: for `Placement.SEGMENT`, where segments come from, such as ``"slic:n=50"``; see
            `faithmap.perturbation.segments`.
        direction: `Direction.REMOVE` regions from the image, or `Direction.RESTORE` them onto the fill.
        fill: what replaces a region, such as ``"uniform"``; see `faithmap.perturbation`. Or a function (pixels
            (C, H, W), removed (H, W)) → pixels, called at every step.
        draws: repetitions with new fill (and a new random order), averaged within an image.
        target: `Target.PREDICTED` or `Target.LABEL`.
        score: the score that tables and figures show; both are always stored.
        measure: what rankings and verdicts rest on, such as ``"aopc"`` or ``"srg"``; see `faithmap.statistics`.
        points: how many of the steps 0…L are scored: ``"all"``, or a number of at least 2. These are dense at both ends
            (cosine spacing), where curves bend most; 0 and L are always among them. See `scored_steps`.
        random_draws: draws of the random order, whose noise enters every difference; None: as many as `draws`.
        orders: `Order.MORF`, `Order.LERF` or both.
        paired_fill: True shares one fill among all methods of an image and draw; False draws one for each method.
        method_defaults: parameters that this protocol adds to methods, as ``{"deconvolution": "start=features"}``;
            what a method's own name says wins.
        seed: with an image's id and the draw, the key of all randomness.
    Raises:
        ProtocolError: a value that cannot be measured.
    """

    name: str = "samek2017"
    steps: int = 100
    region_size: int = 9
    placement: Placement = Placement.GRID
    segments: str = ""
    direction: Direction = Direction.REMOVE
    fill: str = "uniform"
    draws: int = 10
    points: int = Steps.ALL
    random_draws: int | None = None
    target: Target = Target.PREDICTED
    score: Score = Score.LOGIT
    measure: str = "aopc"
    orders: tuple[Order, ...] = (Order.MORF,)
    paired_fill: bool = True
    method_defaults: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    seed: int = 0

    def __post_init__(self) -> None:
        for part, value in _checked({f.name: getattr(self, f.name) for f in fields(self)}).items():
            object.__setattr__(self, part, value)
        if self.direction is Direction.RESTORE and self.fill == "drop":
            raise ProtocolError("direction is 'restore' and fill 'drop': a curve cannot start without any token.")
        if self.direction is Direction.RESTORE and (name := self.fill.partition(":")[0]) in _OF_WHAT_IS_LEFT:
            raise ProtocolError(
                f"direction is 'restore' and fill '{name}': a curve cannot start from values that are computed "
                "from the pixels that are left; give another fill, such as 'blur:sigma=5'."
            )

    @classmethod
    def preset(cls, name: str = "samek2017", **overrides: Any) -> Protocol:
        """A preset by name, with any part overridden.

        Raises:
            ProtocolError: an unknown preset, an unknown part, or a value that cannot be measured.
        Example:
            >>> Protocol.preset("samek2017", steps=50).region_size
            9
        """
        text = plain_text(name) if isinstance(name, str) else ""
        if text not in PRESETS:
            raise ProtocolError(f"unknown protocol {shown(name)}{among(text[:99], PRESETS)}")
        return PRESETS[text].override(**overrides)

    def override(self, **overrides: Any) -> Protocol:
        """The same protocol with some parts changed; parts given as None stay as they are."""
        known = {f.name for f in fields(self)}
        for part in overrides:
            if part not in known:
                raise ProtocolError(f"a protocol has no part '{part}'{among(part, known)}")
        return replace(self, **_checked({part: value for part, value in overrides.items() if value is not None}))

    def to_dict(self) -> dict[str, Any]:
        """All parts as plain JSON types."""
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        parts["method_defaults"] = dict(self.method_defaults)
        parts["orders"] = [str(order) for order in self.orders]
        for part in ("steps", "points"):
            parts[part] = "all" if parts[part] is Steps.ALL else parts[part]
        return {name: str(value) if isinstance(value, StrEnum) else value for name, value in parts.items()}

    @classmethod
    def from_dict(cls, parts: Mapping[str, Any]) -> Protocol:
        """The inverse of `to_dict`.

        Raises:
            ProtocolError: a part that this version does not know, or a value that cannot be measured.
        """
        if not isinstance(parts, Mapping):
            raise ProtocolError(f"a protocol is {shown(parts)}: give its parts, as `to_dict` does.")
        parts = pairs(parts, "a protocol", ProtocolError)
        known = {f.name for f in fields(cls)}
        for part in parts:
            if part not in known:
                raise ProtocolError(
                    f"a protocol has no part {shown(part)}: it was written by another version of faithmap."
                )
        return cls(**_checked(parts))

    @property
    def shown_order(self) -> Order:
        """The order that tables and figures of one order show: most relevant first where it is measured."""
        return Order.MORF if Order.MORF in self.orders else self.orders[0]

    def measured(self) -> dict[str, Any]:
        """The parts on which stored numbers depend.

        Left out: `steps`, `points`, `draws`, `random_draws` and `orders` (a run can be extended by more of them),
        `score` (both are stored), `measure`, `name`, and later parts at their default, so that protocols written before
        these parts existed stay the same.
        """
        parts = {k: v for k, v in self.to_dict().items() if k not in _EXTENDED}
        return {k: v for k, v in parts.items() if k not in _LATER_PARTS or v != _LATER_PARTS[k]}

    def draws_of(self, method: str) -> int:
        """How many draws a method has; random orders may have more than the others."""
        return max(self.draws, self.random_draws or 0) if method == RANDOM else self.draws

    def scored_steps(self) -> tuple[int, ...]:
        """The steps that are scored, in ascending order: all, or `points` of them, dense at both ends.

        Point i of n is step L (1 − cos(π i / (n − 1))) / 2, rounded; where two round to the same step it counts once.

        Example:
            >>> Protocol.preset(steps=100, points=6).scored_steps()
            (0, 10, 35, 65, 90, 100)
        """
        if self.points > self.steps:
            return tuple(range(self.steps + 1))
        angles = (math.pi * i / (self.points - 1) for i in range(self.points))
        return tuple(sorted({round(self.steps * (1 - math.cos(angle)) / 2) for angle in angles}))

    def joined(self, other: Protocol) -> Protocol:
        """What a folder holds that was measured under one protocol and then extended under the other."""
        return other.override(
            steps=max(self.steps, other.steps),
            draws=max(self.draws, other.draws),
            points=max(self.points, other.points),
            random_draws=max(self.random_draws or 0, other.random_draws or 0) or None,
            orders=tuple(dict.fromkeys([*self.orders, *other.orders])),
        )

    def fitted(self, height: int, width: int) -> Protocol:
        """The same protocol with `steps` as a number, for images of this size.

        Raises:
            ProtocolError: steps is ``"all"`` and how many regions fit differs from image to image.
        Example:
            >>> Protocol.preset(steps="all", region_size=9).fitted(224, 224).steps
            576
        """
        if self.steps is not Steps.ALL:
            return self
        if self.placement is Placement.GRID:
            return self.override(steps=max((height // self.region_size) * (width // self.region_size), 1))
        if self.placement is Placement.PIXEL:
            return self.override(steps=-(-height * width // self.region_size))
        raise ProtocolError(
            f"steps is 'all' and placement '{self.placement}': how many regions fit differs from image to image; "
            "give a number, or placement 'grid' or 'pixel'."
        )

    def fingerprint(self) -> str:
        """Sixteen hex digits that are equal exactly when two protocols measure the same thing."""
        return hashlib.sha256(json.dumps(self.measured(), sort_keys=True).encode()).hexdigest()[:16]


def as_order(value: Any) -> Order:
    """An order by name.

    Raises:
        ProtocolError: an unknown one.
    """
    return _member("order", value, Order)


def as_protocol(value: Any) -> Protocol:
    """A protocol, or the preset of a name.

    Raises:
        ProtocolError: an unknown preset, or anything else.
    """
    if isinstance(value, Protocol):
        return value
    if isinstance(value, str):
        return Protocol.preset(value)
    what = "None" if value is None else f"a {type(value).__name__}"
    raise ProtocolError(f"protocol is {what}: give a Protocol, or a preset's name ({', '.join(PRESETS)}).")


def _checked(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Parts with names turned into enum members and numbers checked, or a `ProtocolError` that names the part."""
    checked = {name: plain_text(value) if isinstance(value, str) else value for name, value in parts.items()}
    for name in ("steps", "points"):
        if isinstance(checked.get(name), str) and checked[name] == "all":
            checked[name] = Steps.ALL
    if checked.get("random_draws") is None:
        checked.pop("random_draws", None)
    for name, (least, most) in _BOUNDS.items():
        if name in checked and not (checked[name] is Steps.ALL and name in ("steps", "points")):
            checked[name] = _integer(name, checked[name], least, most)
    if callable(checked.get("fill")) and not isinstance(checked["fill"], str):
        checked["fill"] = FunctionFill.of(checked["fill"])
    for name in ("name", "fill", "segments"):
        if not isinstance(checked.get(name, ""), str):
            raise ProtocolError(f"{name} is a {type(checked[name]).__name__}: give it as text.")
    if not isinstance(checked.get("paired_fill", True), bool):
        raise ProtocolError(f"paired_fill is {shown(checked['paired_fill'])}: give True or False.")
    for name, kind in _KINDS.items():
        if name in checked:
            checked[name] = _member(name, checked[name], kind)
    if "orders" in checked:
        orders = checked["orders"]
        if not isinstance(orders, str | list | tuple):
            raise ProtocolError(f"orders is a {type(orders).__name__}: give 'morf', 'lerf' or both.")
        listed = [orders] if isinstance(orders, str) else entries(orders, "orders", ProtocolError)
        members = [_member("orders", order, Order) for order in listed]
        if not members:
            raise ProtocolError("orders is empty: give 'morf', 'lerf' or both.")
        checked["orders"] = tuple(dict.fromkeys(members))
    if "method_defaults" in checked:
        defaults = checked["method_defaults"]
        found = pairs(defaults, "method_defaults", ProtocolError) if isinstance(defaults, Mapping) else {None: None}
        if not all(isinstance(text, str) for pair in found.items() for text in pair):
            raise ProtocolError("method_defaults is not a mapping from a method's name to its parameters, as text.")
        checked["method_defaults"] = MappingProxyType(found)
    return checked


def _integer(name: str, value: Any, least: int, most: int) -> int:
    try:
        number = None if isinstance(value, bool) else index(value)
    except Exception:  # whatever an object's own conversion raises
        number = None
    if number is None or not least <= number <= most:
        remedy = ", or remove more at a step" if name == "steps" else ""
        raise ProtocolError(f"{name} is {shown(value)}: give an integer from {least} to {most:,}{remedy}.")
    return number


def _member(name: str, value: str, kind: type[_E]) -> _E:
    try:
        return kind(value)
    except Exception:  # an enum compares, and anybody's object may refuse to
        known = [str(member) for member in kind]
        near = among(value[:99] if isinstance(value, str) else "", known)
        raise ProtocolError(f"{name} is {shown(value)}{near}") from None


_KINDS: Mapping[str, type[StrEnum]] = {
    "placement": Placement,
    "direction": Direction,
    "target": Target,
    "score": Score,
}
_LATER_PARTS: Mapping[str, str] = {"segments": "", "direction": "remove"}
# Draws and steps are stored as 16-bit integers. No image has more pixels than the largest region.
_BOUNDS = {
    "steps": (1, 32_767),
    "points": (2, 32_768),
    "region_size": (1, 2**30),
    "draws": (1, 32_767),
    "random_draws": (1, 32_767),
    "seed": (0, 2**63 - 1),
}
# Parts of which a folder may get more later; its numbers stay.
_EXTENDED = frozenset({"name", "steps", "points", "draws", "random_draws", "orders", "score", "measure"})

PRESETS: Mapping[str, Protocol] = MappingProxyType(
    {
        # Samek et al. 2017: 9×9 regions on a grid, uniform noise, 100 steps, 10 repetitions, predicted class.
        "samek2017": Protocol(),
        # Symmetric relevance gain (Blücher et al. 2024): both orders to full removal, at 20 steps dense at both ends.
        "srg": Protocol(
            name="srg",
            steps=Steps.ALL,
            points=20,
            region_size=16,
            draws=1,
            random_draws=3,
            measure="srg",
            orders=(Order.MORF, Order.LERF),
        ),
        # The 2021 replication, departures included; see docs/protocols.md.
        "replication2021": Protocol(
            name="replication2021",
            placement=Placement.CENTRE,
            fill="uniform-grey",
            draws=1,
            target=Target.LABEL,
            score=Score.PROBABILITY,
            paired_fill=False,
            method_defaults=MappingProxyType(
                {"deconvolution": "start=features", "lrp-epsilon": "start=one,border=dropped"}
            ),
        ),
        # Petsiuk et al. 2018 (RISE): 224 pixels per step until none is left; the mean colour of ImageNet, or a blurred
        # image, stands for "nothing". Both fills are the same in every draw.
        "deletion": Protocol(
            name="deletion",
            steps=Steps.ALL,
            region_size=224,
            placement=Placement.PIXEL,
            fill="constant:0.485,0.456,0.406",
            draws=1,
            score=Score.PROBABILITY,
        ),
        "insertion": Protocol(
            name="insertion",
            steps=Steps.ALL,
            region_size=224,
            placement=Placement.PIXEL,
            direction=Direction.RESTORE,
            fill="blur:sigma=5,radius=5",
            draws=1,
            score=Score.PROBABILITY,
        ),
    }
)
