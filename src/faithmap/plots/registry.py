"""Figures by name: a decorator on the function that draws one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from faithmap.arguments import checked
from faithmap.declarations import Declaration, Declarations
from faithmap.errors import FaithmapError
from faithmap.statistics import shown_measure

_F = TypeVar("_F", bound=Callable[..., Any])
# (run, options) → arguments of the function that draws.
Inputs = Callable[[Any, dict[str, Any]], dict[str, Any]]


def of_scores(run: Any, options: dict[str, Any]) -> dict[str, Any]:
    """The run's scores, the measure and the score that its protocol shows, and which way is good."""
    protocol = run.protocol
    return {
        "frame": run.scores(),
        "measure": shown_measure(protocol),
        "score": str(protocol.score),
        "order": str(protocol.shown_order),
        "direction": str(protocol.direction),
    }


@dataclass(frozen=True)
class Figured(Declaration):
    """A figure that can be asked for by name.

    Attributes:
        inputs: (run, options) → arguments of the function; it may take out of the options what it uses up.
    """

    inputs: Inputs = of_scores


FIGURES: Declarations[Figured] = Declarations("figure", "faithmap.plots", FaithmapError)


def figure(name: str, *, line: str, source: str = "", inputs: Inputs = of_scores) -> Callable[[_F], _F]:
    """Declare a function as a figure.

    Args:
        name: what it is asked for by.
        line: what it shows, in a few words.
        source: the paper, where there is one.
        inputs: (run, options) → arguments of the function; those that it does not take are left out.
    Returns:
        A decorator that registers the function, with its arguments checked, and returns it.
    Raises:
        FaithmapError: the name is taken.
    Example:
        >>> @figure("demo", line="nothing")
        ... def demo(frame, ax=None, *, score="logit"): ...
        >>> FIGURES["demo"].line
        'nothing'
    """

    def declare(function: _F) -> _F:
        careful = checked(ax=Axes, figure=(Figure, SubFigure))(function)
        FIGURES.add(Figured(name, careful, line, source, inputs=inputs))
        return careful

    return declare


def draw(name: str, run: Any, options: Mapping[str, Any]) -> Any:
    """The figure of a run; options that are None are left to the figure.

    Raises:
        FaithmapError: an unknown figure, or an option that it does not take.
    """
    found = FIGURES.find(name)
    asked = {key: value for key, value in options.items() if value is not None}
    known = inspect.signature(found.function).parameters
    arguments = {key: value for key, value in found.inputs(run, asked).items() if key in known}
    if strange := [key for key in asked if key not in known]:
        raise FaithmapError(
            f"figure '{name}' takes no {strange[0]}: leave it out, or choose another of {', '.join(FIGURES)}."
        )
    return found.function(**{**arguments, **asked})
