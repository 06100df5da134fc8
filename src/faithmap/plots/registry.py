"""Figures by name: a decorator on the function that draws one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from faithmap.errors import FaithmapError, among

_F = TypeVar("_F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Figured:
    """A figure that can be asked for by name.

    Attributes:
        name: as in `Run.figure` and on the command line.
        line: what it shows, in a few words.
        draw: the function.
        inputs: (run, options) → arguments of `draw`; it may take out of the options what it uses up.
    """

    name: str
    line: str
    draw: Callable[..., Any]
    inputs: Callable[[Any, dict[str, Any]], dict[str, Any]]


FIGURES: dict[str, Figured] = {}


def of_scores(run: Any, options: dict[str, Any]) -> dict[str, Any]:
    """The run's scores, the score that its protocol shows, and which way is good."""
    protocol = run.protocol
    return {
        "frame": run.scores(),
        "score": str(protocol.score),
        "order": str(protocol.shown_order),
        "direction": str(protocol.direction),
    }


def figure(
    name: str, *, line: str, inputs: Callable[[Any, dict[str, Any]], dict[str, Any]] = of_scores
) -> Callable[[_F], _F]:
    """Register the function below it as a figure.

    Args:
        name: what it is asked for by.
        line: what it shows, in a few words.
        inputs: (run, options) → arguments of the function; those that it does not take are left out.
    Example:
        >>> @figure("demo", line="nothing")
        ... def demo(frame, ax=None, *, score="logit"): ...
        >>> FIGURES.pop("demo").line
        'nothing'
    """

    def register(function: _F) -> _F:
        FIGURES[name] = Figured(name, line, function, inputs)
        return function

    return register


def draw(name: str, run: Any, options: Mapping[str, Any]) -> Any:
    """The figure of a run; options that are None are left to the figure.

    Raises:
        FaithmapError: an unknown figure, or an option that it does not take.
    """
    if name not in FIGURES:
        raise FaithmapError(f"unknown figure '{name}'{among(name, FIGURES)}")
    found = FIGURES[name]
    asked = {key: value for key, value in options.items() if value is not None}
    known = inspect.signature(found.draw).parameters
    arguments = {key: value for key, value in found.inputs(run, asked).items() if key in known}
    if strange := [key for key in asked if key not in known]:
        raise FaithmapError(
            f"figure '{name}' takes no {strange[0]}: leave it out, or choose another of {', '.join(FIGURES)}."
        )
    return found.draw(**{**arguments, **asked})
