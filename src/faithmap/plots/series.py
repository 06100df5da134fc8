"""How a method is drawn: one specification for matplotlib, the page and the notebook.

A family of methods (LRP, sensitivity, …) shares a colour; its members differ in dashes; every method has a marker of
its own. So a line can be found again by its name, in grey, and by people who see colours differently.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from faithmap.protocol import RANDOM
from faithmap.text import display_name

# (on white, on dark paper): text in them has a contrast of at least 4.5 with either paper.
COLOURS = (
    ("#0b62a4", "#6cb4ee"),
    ("#b8520a", "#f29a5c"),
    ("#0a7a5a", "#4fc39a"),
    ("#a03a78", "#e48fc0"),
    ("#7a6200", "#d6b93e"),
    ("#4b55b8", "#a3abff"),
    ("#a83232", "#f28b82"),
    ("#3a6b78", "#86c1d0"),
)
GREY = ("#6c675f", "#9d998f")
# In line widths: drawn, gap, …
DASHES: tuple[tuple[float, ...], ...] = (
    (),
    (3.2, 1.6),
    (5.5, 1.4, 1.3, 1.4),
    (1.3, 1.3),
    (7.0, 2.0),
)
RANDOM_DASH = (0.7, 1.6)
# matplotlib's letter → the sign in text, and an outline within −1 … 1 with y downwards.
MARKERS = {
    "o": ("●", "M-.9 0A.9 .9 0 1 1 .9 0A.9 .9 0 1 1 -.9 0Z"),
    "s": ("■", "M-.8 -.8H.8V.8H-.8Z"),
    "^": ("▲", "M0 -1L1 .8H-1Z"),
    "D": ("◆", "M0 -1.1L1.1 0L0 1.1L-1.1 0Z"),
    "v": ("▼", "M0 1L1 -.8H-1Z"),
    "P": ("✚", "M-.35 -1H.35V-.35H1V.35H.35V1H-.35V.35H-1V-.35H-.35Z"),
    "X": ("✖", "M-1 -.5L-.5 -1L0 -.5L.5 -1L1 -.5L.5 0L1 .5L.5 1L0 .5L-.5 1L-1 .5L-.5 0Z"),
    "<": ("◀", "M-1 0L.8 1V-1Z"),
    ">": ("▶", "M1 0L-.8 1V-1Z"),
    "p": ("⬟", "M0 -1L.95 -.31L.59 .81H-.59L-.95 -.31Z"),
    "h": ("⬢", "M0 -1L.87 -.5V.5L0 1L-.87 .5V-.5Z"),
}
# Families that are met most keep their colour whatever else is in a run.
_PLACES = {"lrp": 0, "deconvolution": 1, "sensitivity": 2, "grad-cam": 3, "gradient-x-input": 4, "rise": 5}


@dataclass(frozen=True)
class Series:
    """One method, the same in every figure.

    Attributes:
        method: its name.
        label: for people.
        family: what it shares its colour with.
        colour, dark: on white, and on dark paper.
        dash: lengths of strokes and gaps in line widths; empty for a solid line.
        marker: matplotlib's letter; empty for random orders.
    """

    method: str
    label: str
    family: str
    colour: str
    dark: str
    dash: tuple[float, ...]
    marker: str

    @property
    def sign(self) -> str:
        """The marker as a character."""
        return MARKERS[self.marker][0] if self.marker else ""

    @property
    def outline(self) -> str:
        """The marker as an SVG path within −1 … 1."""
        return MARKERS[self.marker][1] if self.marker else ""

    @property
    def line(self) -> Any:
        """The dashes as matplotlib takes them."""
        return (0, self.dash) if self.dash else "-"

    def svg_dash(self, width: float) -> str:
        """The dashes of a line of this width, as SVG takes them."""
        return " ".join(f"{part * width:.4g}" for part in self.dash)


def series_of(methods: Sequence[str]) -> dict[str, Series]:
    """A look for each method; two of the same colour differ in dashes (up to 40 methods) and in markers (up to 88).

    Example:
        >>> found = series_of(["lrp-epsilon:0", "sensitivity:l2", "lrp-epsilon:100"])
        >>> found["lrp-epsilon:0"].colour == found["lrp-epsilon:100"].colour != found["sensitivity:l2"].colour
        True
    """
    own = sorted(set(methods) - {RANDOM})
    places = _colour_places(own)
    free = [(colour, dash) for dash in range(len(DASHES)) for colour in range(len(COLOURS))]
    found: dict[str, Series] = {}
    for index, name in enumerate(own):
        place = places[family_of(name)] if len(places) > 1 else index
        siblings = [other for other in own if family_of(other) == family_of(name)]
        wanted = (place % len(COLOURS), siblings.index(name) if len(places) > 1 else 0)
        colour, dash = wanted if wanted in free else (free or [(index % len(COLOURS), index % len(DASHES))])[0]
        free = [style for style in free if style != (colour, dash)]
        taken = {other.marker for other in found.values() if other.colour == COLOURS[colour][0]}
        turned = [*MARKERS][index % len(MARKERS) :] + [*MARKERS][: index % len(MARKERS)]
        marker = next((one for one in turned if one not in taken), turned[0])
        found[name] = Series(name, display_name(name), family_of(name), *COLOURS[colour], DASHES[dash], marker)
    return {**found, RANDOM: Series(RANDOM, display_name(RANDOM), RANDOM, *GREY, RANDOM_DASH, "")}


def family_of(method: str) -> str:
    """What a method shares its colour with: all kinds of LRP, or the variants of one method.

    Example:
        >>> family_of("lrp-epsilon:0.01"), family_of("sensitivity:l2"), family_of("grad-cam")
        ('lrp', 'sensitivity', 'grad-cam')
    """
    name = method.split(":")[0]
    return "lrp" if name == "lrp" or name.startswith("lrp-") else name


def _colour_places(methods: Sequence[str]) -> dict[str, int]:
    families = sorted({family_of(name) for name in methods})
    taken = {family: _PLACES[family] for family in families if family in _PLACES}
    free = [place for place in range(len(COLOURS)) if place not in taken.values()]
    others = [family for family in families if family not in taken]
    return {**taken, **{family: free[i % len(free)] for i, family in enumerate(others)}}


def merged_label(labels: Sequence[str]) -> str:
    """One label for variants of a method.

    Example:
        >>> merged_label(["sensitivity (ℓ2)", "sensitivity (ℓ∞)"])
        'sensitivity (ℓ2, ℓ∞)'
    """
    names = list(dict.fromkeys(label.partition(" (")[0] for label in labels))
    if len(labels) == 1 or len(names) > 1:
        return " / ".join(labels)
    parameters = [label.partition(" (")[2].removesuffix(")") for label in labels]
    return f"{names[0]} ({', '.join(part for part in parameters if part)})"
