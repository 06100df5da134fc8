"""Which paper a declaration follows: from its `source` to entries of `references.bib`."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any

from faithmap.declared import PACKAGE, declared_in
from faithmap.protocol import Placement, Protocol
from faithmap.statistics.measured import SCORE_MEASURES, family_of

WITHOUT_ENTRY = frozenset({"control; no single source", "control; as dirichlet with n=1", "the 2021 replication"})
"""Sources of built-in declarations that are no publication."""
STATISTICS = ("efron1993", "holm1979", "piepho2004", "westfall2001", "wilcoxon1945")
"""What `faithmap.statistics` rests on."""
_NAMED: Mapping[str, str] = MappingProxyType({"arXiv 2304.13836": "song2023", "ITU-R BT.601": "itu601"})
_PRESETS: Mapping[str, str] = MappingProxyType(
    {"srg": "blucher2024", "deletion": "petsiuk2018", "insertion": "petsiuk2018"}
)
_CITED = re.compile(r"([^\W\d_][\w-]+)(?: et al\.| & [^\W\d_][\w-]+)? (\d{4})\b")


def keys_of(source: str) -> tuple[str, ...]:
    """The keys of the papers that a source names: the first author's surname and the year.

    Example:
        >>> keys_of("Samek et al. 2017; over the removed fraction Blücher et al. 2024"), keys_of("the 2021 replication")
        (('samek2017', 'blucher2024'), ())
    """
    found = [_key(name, year) for name, year in _CITED.findall(source) if name[0].isupper()]
    return tuple(dict.fromkeys([*found, *(key for text, key in _NAMED.items() if text in source)]))


def _key(name: str, year: str) -> str:
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode("ascii")
    return plain.lower() + year


@cache
def entries() -> Mapping[str, str]:
    """Key → BibTeX entry."""
    text = resources.files("faithmap.report").joinpath("references.bib").read_text(encoding="utf-8")
    return {part.partition("{")[2].partition(",")[0]: part.strip() for part in re.split(r"\n(?=@)", text)}


@cache
def sources() -> Mapping[str, Mapping[str, str]]:
    """``"method"``, ``"fill"`` and ``"measure"`` → name of a built-in one → its source; read without importing them."""
    rooms = {
        "method": ("attribution", "heatmap_method"),
        "fill": ("perturbation", "fill"),
        "measure": ("measures", "measure"),
    }
    found = {
        kind: {one.name: one.source for one in declared_in(PACKAGE / room, decorator)}
        for kind, (room, decorator) in rooms.items()
    }
    found["measure"] = {**found["measure"], **{name: one.source for name, one in SCORE_MEASURES.items()}}
    return found


def cited(kind: str, name: str, spec: Mapping[str, Any] | None = None) -> tuple[str, ...]:
    """The keys for a method, fill or measure of a run; none for one that is not faithmap's.

    Args:
        kind: of `sources`.
        name: as in the run.
        spec: from the run's record; what another package declares, or a callable, may have the name of a built-in one.
    """
    if spec is None:
        spec = {kind: family_of(name)}
    own = kind in spec and spec.get("package", "faithmap") == "faithmap"  # a callable's record names no declaration
    base = str(spec.get(kind))
    return keys_of(sources()[kind].get(base, "")) if own else ()


def cited_by(protocol: Protocol) -> tuple[str, ...]:
    """The keys for a protocol, its placement, and its fill."""
    keys = ["samek2017", *([_PRESETS[protocol.name]] if protocol.name in _PRESETS else [])]
    keys += {Placement.SEGMENT: ["rieger2020"], Placement.PIXEL: ["petsiuk2018"]}.get(protocol.placement, [])
    return tuple(dict.fromkeys([*keys, *cited("fill", protocol.fill)]))


def bibliography(keys: Iterable[str]) -> str:
    """The entries of some keys, sorted; a key without an entry is a programming error."""
    return "\n\n".join(entries()[key] for key in sorted(set(keys))) + "\n"
