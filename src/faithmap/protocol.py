"""What is measured: one frozen `Protocol`, its presets, and a fingerprint of whatever changes a number."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any, TypeVar

from faithmap.errors import ProtocolError, nearest

_E = TypeVar("_E", bound=StrEnum)


class Placement(StrEnum):
    """How regions are placed on a heatmap."""

    GRID = "grid"
    """Cells of a fixed grid that starts at the top left; ranked by their summed relevance."""
    CENTRE = "centre"
    """A window centred on the highest remaining pixel, clamped to the border, skipped when it would overlap."""


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


class Score(StrEnum):
    """Which of the two stored scores tables and figures show."""

    LOGIT = "logit"
    """The unnormalised class score."""
    PROBABILITY = "probability"
    """The softmax of the logits at the target class."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What is measured. Build one with `Protocol.preset`, overriding any part.

    Attributes:
        name: the preset it started from.
        steps: L, the number of regions removed; curves have L + 1 points, k = 0…L.
        region_size: side of the square region, in pixels.
        placement: `Placement.GRID` or `Placement.CENTRE`.
        fill: what replaces a region, such as ``"uniform"``; see `faithmap.perturbation`.
        draws: repetitions with new fill (and a new random order), averaged within an image.
        target: `Target.PREDICTED` or `Target.LABEL`.
        score: the score that tables and figures show; both are always stored.
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
    fill: str = "uniform"
    draws: int = 10
    target: Target = Target.PREDICTED
    score: Score = Score.LOGIT
    orders: tuple[Order, ...] = (Order.MORF,)
    paired_fill: bool = True
    method_defaults: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    seed: int = 0

    def __post_init__(self) -> None:
        for part, value in _checked({f.name: getattr(self, f.name) for f in fields(self)}).items():
            object.__setattr__(self, part, value)

    @classmethod
    def preset(cls, name: str = "samek2017", **overrides: Any) -> Protocol:
        """A preset by name, with any part overridden.

        Raises:
            ProtocolError: an unknown preset, an unknown part, or a value that cannot be measured.
        Example:
            >>> Protocol.preset("samek2017", steps=50).region_size
            9
        """
        if name not in PRESETS:
            raise ProtocolError(f"unknown protocol '{name}'{nearest(name, PRESETS)} Known: {', '.join(PRESETS)}.")
        return PRESETS[name].override(**overrides)

    def override(self, **overrides: Any) -> Protocol:
        """The same protocol with some parts changed; parts given as None stay as they are."""
        known = {f.name for f in fields(self)}
        for part in overrides:
            if part not in known:
                raise ProtocolError(f"a protocol has no part '{part}'{nearest(part, known)} Known: {', '.join(known)}.")
        return replace(self, **_checked({part: value for part, value in overrides.items() if value is not None}))

    def to_dict(self) -> dict[str, Any]:
        """All parts as plain JSON types."""
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        parts["method_defaults"] = dict(self.method_defaults)
        parts["orders"] = [str(order) for order in self.orders]
        return {name: str(value) if isinstance(value, StrEnum) else value for name, value in parts.items()}

    @classmethod
    def from_dict(cls, parts: Mapping[str, Any]) -> Protocol:
        """The inverse of `to_dict`."""
        return cls(**_checked(parts))

    def measured(self) -> dict[str, Any]:
        """The parts on which stored numbers depend.

        Left out: `steps`, `draws` and `orders` (a run can be extended by more of them), `score` (both are stored) and
        `name`.
        """
        return {k: v for k, v in self.to_dict().items() if k not in ("name", "steps", "draws", "orders", "score")}

    def fingerprint(self) -> str:
        """Sixteen hex digits that are equal exactly when two protocols measure the same thing."""
        return hashlib.sha256(json.dumps(self.measured(), sort_keys=True).encode()).hexdigest()[:16]


def _checked(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Parts with names turned into enum members and numbers checked, or a `ProtocolError` that names the part."""
    checked = dict(parts)
    for name, least in (("steps", 1), ("region_size", 1), ("draws", 1), ("seed", 0)):
        value = checked.get(name, least)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ProtocolError(f"{name} is {value!r}: give a whole number of at least {least}.")
    for name, kind in _KINDS.items():
        if name in checked:
            checked[name] = _member(name, checked[name], kind)
    if "orders" in checked:
        orders = checked["orders"]
        members = [_member("orders", order, Order) for order in ((orders,) if isinstance(orders, str) else orders)]
        if not members:
            raise ProtocolError("orders is empty: give 'morf', 'lerf' or both.")
        checked["orders"] = tuple(dict.fromkeys(members))
    if "method_defaults" in checked:
        checked["method_defaults"] = MappingProxyType(dict(checked["method_defaults"]))
    return checked


def _member(name: str, value: str, kind: type[_E]) -> _E:
    try:
        return kind(value)
    except ValueError:
        known = [str(member) for member in kind]
        raise ProtocolError(f"{name} is {value!r}{nearest(str(value), known)} Known: {', '.join(known)}.") from None


_KINDS: Mapping[str, type[StrEnum]] = {"placement": Placement, "target": Target, "score": Score}

PRESETS: Mapping[str, Protocol] = MappingProxyType(
    {
        # Samek et al. 2017: 9×9 regions on a grid, uniform noise, 100 steps, 10 repetitions, predicted class.
        "samek2017": Protocol(),
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
    }
)
