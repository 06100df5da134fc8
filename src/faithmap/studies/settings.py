"""The settings of a study: protocols that differ in what should not matter."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from faithmap.checks import LARGEST_SIDE, as_integer, as_texts
from faithmap.errors import ProtocolError, nearest, shown
from faithmap.foreign import entries, pairs, plain_text
from faithmap.protocol import Placement, Protocol, as_protocol

# Sides of square regions as fractions of the short side: 9, 16 and 32 pixels at 224.
_FINE, _MIDDLE, _COARSE = 9 / 224, 16 / 224, 32 / 224
GRIDS: Mapping[str, tuple[tuple[str, ...], tuple[float, ...]]] = MappingProxyType(
    {
        # Four fills × three region sizes.
        "consistency": (("uniform", "constant:mean", "blur:sigma=8", "dirichlet"), (_FINE, _MIDDLE, _COARSE)),
        # Two fills × two region sizes, for a first look.
        "quick": (("uniform", "blur:sigma=8"), (_MIDDLE, _COARSE)),
    }
)
LONGEST_NAME = 100
POINTS, RANDOM_DRAWS = 13, 1
"""Steps that a setting of these grids scores, in both orders, and random orders: a study has many settings, and each
needs less than a run of its own."""


def resolve_settings(settings: Any, size: tuple[int, int], **parts: Any) -> dict[str, Protocol]:
    """Setting → protocol.

    Args:
        settings: a name in `GRIDS`; a list of protocols or presets; or a mapping name → protocol or preset.
        size: height and width of the network's input, in pixels.
        parts: of every protocol, such as ``seed=1``; None leaves a part as it is.
    Raises:
        ProtocolError: an unknown name, fewer than two settings, or two of one name.
    """
    settings = plain_text(settings) if isinstance(settings, str) else settings
    if isinstance(settings, str) and settings in GRIDS:
        fills, fractions = GRIDS[settings]
        sides = [max(1, round(fraction * min(size))) for fraction in fractions]
        return grid(fills, sides, **parts)
    if isinstance(settings, str):
        raise ProtocolError(
            f"unknown settings '{settings}'{nearest(settings, GRIDS)} Known: {', '.join(GRIDS)}; or give protocols."
        )
    if not isinstance(settings, Mapping | Sequence):
        raise ProtocolError(f"settings is {shown(settings)}: give protocols, or one of {', '.join(GRIDS)}.")
    named: list[tuple[Any, Any]]
    if isinstance(settings, Mapping):
        named = list(pairs(settings, "settings", ProtocolError).items())
    else:
        named = [(None, one) for one in entries(settings, "settings", ProtocolError)]
    found: dict[str, Protocol] = {}
    for name, given in named:
        protocol = as_protocol(given).override(**parts)
        name = str(name) if name is not None else setting_name(protocol)
        if not is_name(name):
            raise ProtocolError(
                f"a setting is called {shown(name)}, which names its folder: give a name of at most {LONGEST_NAME} "
                "characters without /, \\ and :, such as 'blur-16'."
            )
        if name.lower() in {one.lower() for one in found}:  # some disks do not tell them apart
            raise ProtocolError(f"two settings are called '{name}': give a mapping name → protocol.")
        found[name] = protocol
    if len(found) < 2:
        raise ProtocolError(f"a study has several settings, received {len(found)}: give at least two protocols.")
    return found


def grid(fills: Iterable[str], sides: Iterable[int], **parts: Any) -> dict[str, Protocol]:
    """Every fill with every region size, in the preset ``"srg"``.

    Args:
        fills: names of fills.
        sides: of square regions, in pixels.
        parts: of every protocol.
    """
    fills = as_texts(fills, "fills", ProtocolError)
    found = entries(sides, "sides", ProtocolError)
    sides = list(dict.fromkeys(as_integer(side, "a region's side", 1, LARGEST_SIDE, ProtocolError) for side in found))
    base = Protocol.preset("srg", points=POINTS, random_draws=RANDOM_DRAWS).override(**parts)
    made = [base.override(fill=fill, region_size=side) for fill in fills for side in sides]
    return {setting_name(protocol): protocol for protocol in made}


def is_name(value: object) -> bool:
    """Whether a setting may be called this: its run is in a folder of this name."""
    return (
        isinstance(value, str)
        and 0 < len(value.encode("utf-8", "replace")) <= LONGEST_NAME
        and value.isprintable()
        and not re.search(r"[/\\:]", value)
        and not value.startswith(".")
        and value.strip() == value
    )


def setting_name(protocol: Protocol) -> str:
    """What a setting is called, in letters, digits, dots and hyphens: ``uniform-16`` or ``blur-sigma-8-9``."""
    region = "segments" if protocol.placement is Placement.SEGMENT else str(protocol.region_size)
    if protocol.placement not in (Placement.GRID, Placement.SEGMENT):
        region = f"{protocol.placement}-{region}"
    return re.sub(r"[^A-Za-z0-9.]+", "-", f"{protocol.fill}-{region}").strip("-")
