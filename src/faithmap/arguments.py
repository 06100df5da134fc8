"""Arguments checked by their names: what is called `score` or `seed` means the same in every public function.

`checked` stands above a function; what it finds wrong is one sentence. Values pass on as they are.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any, TypeVar

import pandas as pd

from faithmap.checks import as_fraction, as_integer, as_list, as_text, as_texts, check_flag, one_of
from faithmap.errors import FaithmapError, shown
from faithmap.foreign import entries, plain_text
from faithmap.modes import in_own_modes
from faithmap.protocol import Direction, Order, Score

_F = TypeVar("_F", bound=Callable[..., Any])
_Error = type[FaithmapError]
LARGEST_SEED = 2**63 - 1
MOST_RESAMPLES = 1_000_000
LEAST_DPI = 20  # below, letters are smaller than a pixel, which matplotlib cannot draw
_NUMBERS = ("step", "draw", "logit", "probability", "value", "rank", "label", "target", "predicted")


def checked(error: _Error = FaithmapError, **kinds: type | tuple[type, ...]) -> Callable[[_F], _F]:
    """Check the arguments of a function whose names stand in this module's table, and those whose type is given.

    None passes where it is the default. What is a number or a list of them reaches the function as such, whatever it
    came in.

    Args:
        error: what is raised.
        kinds: argument → its type or types; such an argument is not looked up by its name.
    Returns:
        A decorator; the function keeps its signature.
    Example:
        >>> @checked()
        ... def half(confidence=0.95):
        ...     return confidence / 2
        >>> half(confidence=2)
        Traceback (most recent call last):
        faithmap.errors.FaithmapError: confidence is 2: give a number between 0 and 1.
    """

    def decorate(function: _F) -> _F:
        signature, run = inspect.signature(function), in_own_modes(function)
        known = signature.parameters

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs)
            for name, value in bound.arguments.items():
                if value is known[name].default:
                    continue
                try:
                    plain = check(value, name)
                except FaithmapError:
                    raise
                except Exception as problem:  # anybody's object
                    why = f"which fails when it is looked at ({type(problem).__name__})"
                    raise error(f"{name} is {shown(value)}, {why}: give another.") from None
                if plain is not None:  # numbers and lists, whatever they came in
                    bound.arguments[name] = plain
            return run(*bound.args, **bound.kwargs)

        def check(value: Any, name: str) -> Any:
            if name in kinds:
                if not isinstance(value, kinds[name]):
                    raise error(f"{name} is {shown(value)}: give a {_named(kinds[name])}.")
                return plain_text(value) if isinstance(value, str) else None
            if name in ("frame", "frames"):
                _tables(value, name, error, str(known[name].annotation))
            return _BY_NAME[name](value, name, error) if name in _BY_NAME else None

        return wrapper  # type: ignore[return-value]

    return decorate


def _named(kinds: type | tuple[type, ...]) -> str:
    return " or ".join(one.__name__ for one in (kinds if isinstance(kinds, tuple) else (kinds,)))


def _frame(value: Any, name: str, error: _Error) -> None:
    """A frame whose columns have names of their own, with numbers where numbers are expected."""
    if not isinstance(value, pd.DataFrame):
        raise error(f"{name} is {shown(value)}: give the frame of Run.scores().")
    if not value.columns.is_unique:
        raise error(f"{name} has two columns of one name: give the frame of Run.scores().")
    for column in (one for one in _NUMBERS if one in value):
        kind = value[column].dtype
        if not pd.api.types.is_numeric_dtype(kind) or kind.kind not in "iuf":
            raise error(f"{name} has the column '{column}' of {kind} values, expected numbers.")
    for column in (one for one in ("draw", "step") if one in value):
        found = value[column]
        whole = found.dtype.kind in "iu" or bool((found == found // 1).all())
        if found.isna().any() or not whole or (len(found) and not (found.min() >= 0 and found.max() < 2**31)):
            raise error(f"{name} has the column '{column}' with values that are no steps: expected integers from 0.")
    for column in (one for one in ("image", "method", "order") if one in value):
        if value[column].isna().any():
            raise error(f"{name} has the column '{column}' with missing values: expected a name in every row.")


def _tables(value: Any, name: str, error: _Error, annotation: str) -> None:
    """A frame; where the annotation says so, several by name, or values that were measured."""
    for one in value.values() if "Mapping" in annotation and isinstance(value, Mapping) else [value]:
        if not ("Measured" in annotation and _is_measured(one)):
            _frame(one, name, error)


def _is_measured(value: Any) -> bool:
    return all(name in getattr(type(value), "__dataclass_fields__", {}) for name in ("higher_is_better", "methods"))


def _settings(value: Any, name: str, error: _Error) -> None:
    if not isinstance(value, Mapping) or not value:
        raise error(f"{name} is {shown(value)}: give a mapping setting → what was measured.")
    for one in value.values():
        if not _is_measured(one):
            raise error(f"{name} holds {shown(one)}: give what `measured` returns.")


def _integers(value: Any, name: str, error: _Error) -> list[int]:
    found = as_list(value, name, "integers", error)
    return [as_integer(one, f"an entry of {name}", 0, 2**31 - 1, error) for one in found]


def _rising(value: Any, name: str, error: _Error) -> list[float]:
    found = as_list(value, name, "numbers", error)
    if not all(isinstance(one, Real) for one in found):
        raise error(f"{name} is {shown(value)}: give a list of numbers.")
    numbers = [float(one) for one in found]
    if any(not 0 < one <= 1 for one in numbers):
        raise error(f"{name} is {shown(value)}: give numbers more than 0 and at most 1.")
    return numbers


def _labels(value: Any, name: str, error: _Error) -> None:
    if not isinstance(value, Mapping | list | tuple):
        raise error(f"{name} is {shown(value)}: give class names in order, or index → name.")


def _words(value: Any, name: str, error: _Error) -> str | list[str]:
    return as_text(value, name, error) if isinstance(value, str) else as_texts(value, name, error)


def _listed(value: Any, name: str, error: _Error) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise error(f"{name} is {shown(value)}: give a list.")
    return entries(value, name, error)


def _dpi(value: Any, name: str, error: _Error) -> None:
    if not isinstance(value, int | float) or not LEAST_DPI <= float(value) <= 2400:
        raise error(f"{name} is {shown(value)}: give dots per inch from {LEAST_DPI} to 2400.")


def _numbers(low: int, high: int) -> Callable[[Any, str, _Error], Any]:
    return lambda value, name, error: as_integer(value, name, low, high, error)


def _one_of(kind: Any) -> Callable[[Any, str, _Error], Any]:
    words = tuple(str(one) for one in kind)
    return lambda value, name, error: one_of(value, name, words, error)


_BY_NAME: dict[str, Callable[[Any, str, _Error], Any]] = {
    "at": _integers,
    "at_most": _numbers(1, 2**31 - 1),
    "bands": _words,
    "by_setting": _settings,
    "compare": _listed,
    "confidence": as_fraction,
    "count": _numbers(1, 2**31 - 1),
    "direction": _one_of(Direction),
    "draw": _numbers(0, 2**31 - 1),
    "dpi": _dpi,
    "folder": check_flag,
    "fractions": _rising,
    "higher_is_better": check_flag,
    "image": as_text,
    "label": as_text,
    "labels": _labels,
    "level": as_fraction,
    "looks": _integers,
    "measure": as_text,
    "methods": as_texts,
    "order": _one_of(Order),
    "reference": as_text,
    "relative": check_flag,
    "resamples": _numbers(1, MOST_RESAMPLES),
    "score": _one_of(Score),
    "seed": _numbers(0, LARGEST_SEED),
    "spending": as_text,
    "step": _numbers(0, 2**31 - 1),
    "steps": _integers,
    "style": as_text,
    "title": as_text,
}
