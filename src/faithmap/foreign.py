"""Objects of anybody's making: what they hold, in plain types, or one sentence.

A subclass of `str`, `list` or `dict` may raise whenever it is asked for something, or go on for ever. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from faithmap.errors import FaithmapError, InputError, shown

MOST_ENTRIES, MOST_PAIRS = 10_000_000, 1_000_000
_NOTHING = object()


def plain_text(value: str) -> str:
    """The characters themselves: a subclass of `str` may compare, print and iterate as it likes.

    One that carries something, as a fill does its function, stays what it is.

    Example:
        >>> plain_text(type("Other", (str,), {"__str__": None})("edge"))
        'edge'
    """
    return value if attribute(value, "__dict__") else str.__str__(value)


def entries(
    value: Iterable[Any], name: str, error: type[FaithmapError] = InputError, most: int | None = None
) -> list[Any]:
    """What anybody's iterable holds, as a plain list; it may be without end, or fail.

    Raises:
        FaithmapError: (of the type `error`) too many entries, or whatever it raises on the way.
    """
    most = MOST_ENTRIES if most is None else most
    try:
        found = list(islice(value, most + 1))
    except FaithmapError:
        raise
    except Exception as problem:
        raise error(
            f"{name} is {shown(value)}, which fails when it is read ({type(problem).__name__}): give a plain list."
        ) from None
    if len(found) > most:
        raise error(f"{name} is {shown(value)} with more than {most:,} entries: give fewer.")
    return found


def pairs(value: Mapping[Any, Any], name: str, error: type[FaithmapError] = InputError) -> dict[Any, Any]:
    """What anybody's mapping holds, as a plain one.

    Raises:
        FaithmapError: (of the type `error`) too many entries, or whatever it raises on the way.
    """

    def both() -> Iterator[tuple[Any, Any]]:
        for key in value:
            yield key, value[key]

    return dict(entries(both(), name, error, MOST_PAIRS))


def attribute(value: Any, name: str, default: Any = None) -> Any:
    """An attribute of anybody's object, or the default; an object that raises when it is asked has none.

    Example:
        >>> attribute(3, "real"), attribute(3, "unreal")
        (3, None)
    """
    try:
        return getattr(value, name, default)
    except Exception:
        return default


def has_attribute(value: Any, name: str) -> bool:
    """Whether anybody's object has an attribute."""
    return attribute(value, name, _NOTHING) is not _NOTHING
