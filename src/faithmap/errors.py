"""Every error that faithmap raises on purpose.

    FaithmapError
    ├── ProtocolError        a protocol that cannot be measured (steps = 0, an unknown fill, …)
    ├── InputError           images or classifiers that are not available
    │   ├── ImageError       one image that cannot be read; a run skips it, counts it and names it
    │   ├── ClassifierError  a network that cannot be built or whose output is not (B, classes)
    │   └── DownloadError    weights or data that could not be fetched, or whose hash is wrong
    ├── MethodError          an unknown heatmap method, or one that means nothing on this network
    │   └── HeatmapError     one heatmap without an order (constant, not finite, wrong shape)
    ├── MeasureError         an unknown measure, or one that means nothing for a method, an image or a network
    ├── RegionError          fewer regions fit than the protocol removes
    ├── CurveError           scores that are not finite, or curves that cannot be compared
    ├── EngineError          an inference engine that cannot run this network
    └── StoreError           a run folder that cannot be read, written or extended

Warnings: `EngineWarning` (scores are computed by another engine than was possible or asked for), `ClassifierWarning`
(outputs that do not seem to mean what is made of them), `MethodWarning` (a method or setting left out, a method of
unknown identity, a mask of several images), `StoreWarning` (a repaired folder) and `PluginWarning` (another package is
left out).

Each message says what was received, what was expected, and what to do. Catch `FaithmapError` for all of them.
Errors that concern one image carry its position in the batch as `index`, so that a run can skip that image alone.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LONGEST = 4000  # of a message, in characters


class FaithmapError(Exception):
    """Base of all errors that faithmap raises on purpose.

    Its message is one line that can be printed everywhere, whatever names stand in it; one that is too long to be read
    loses its middle.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(shortened(escaped(str(message)), _LONGEST))


class ProtocolError(FaithmapError):
    """A protocol that cannot be measured."""


class InputError(FaithmapError):
    """Images or classifiers that are not available."""


class ImageError(InputError):
    """One image that cannot be read."""


class ClassifierError(InputError):
    """A network that cannot be built or whose output is not (B, classes)."""


class DownloadError(InputError):
    """Weights or data that could not be fetched, or whose hash is wrong."""


class MethodError(FaithmapError):
    """An unknown heatmap method, or one that means nothing on this network."""


class _BatchError(FaithmapError):
    """Carries the position in the batch of the first image that is at fault (None: all of them)."""

    def __init__(self, message: str, index: int | None = None) -> None:
        super().__init__(message)
        self.index = index


class HeatmapError(_BatchError, MethodError):
    """One heatmap without an order: constant, not finite, or of the wrong shape."""


class MeasureError(FaithmapError):
    """An unknown measure, or one that means nothing for a method, an image or a network."""


class RegionError(_BatchError):
    """Fewer regions fit than the protocol removes."""


class CurveError(_BatchError):
    """Scores that are not finite, or curves that cannot be compared."""


class EngineError(FaithmapError):
    """An inference engine that cannot run this network."""


class EngineWarning(UserWarning):
    """Scores are computed by another engine, or in smaller batches, than was possible or asked for."""


class ClassifierWarning(UserWarning):
    """A network whose output does not seem to mean what is made of it."""


class MethodWarning(UserWarning):
    """A heatmap method or setting that is left out, or of which a run cannot know whether it stays the same."""


class StoreWarning(UserWarning):
    """A run folder was repaired: what was damaged is set aside and computed again."""


class PluginWarning(UserWarning):
    """Another package that adds methods, fills or measures could not be loaded and is left out."""


class GroupWarning(UserWarning):
    """Images look like parts of the same photos, and are counted as independent."""


class StoreError(FaithmapError):
    """A run folder that cannot be read, written or extended."""


def escaped(text: str) -> str:
    """Text from outside (file names, labels, what others' errors say) on one line: what cannot be printed is escaped.

    Example:
        >>> escaped("a\\nb")
        'a\\\\nb'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def shortened(text: str, longest: int) -> str:
    """A text without its middle where it is longer than this.

    Example:
        >>> shortened("abcdefgh", 5)
        'ab…gh'
    """
    if len(text) <= longest:
        return text
    head = (longest - 1) // 2
    return f"{text[:head]}…{text[-(longest - 1 - head) :]}"


def install(extra: str) -> str:
    """The command that installs an extra of faithmap."""
    return f"pip install 'faithmap[{extra}]'"


def missing(needs: str, package: str, extra: str) -> str:
    """A message about a package that is not installed.

    Example:
        >>> missing("the executor 'ray' needs", "ray", extra="ray")
        "the executor 'ray' needs the package ray: run `pip install 'faithmap[ray]'`."
    """
    return f"{needs} the package {package}: run `{install(extra)}`."


def shown(value: object) -> str:
    """A value as messages show it: on one line, not too long.

    Example:
        >>> shown([1, 2])
        '[1, 2]'
    """
    try:
        text = " ".join(repr(value).split())
    except Exception:  # anybody's object
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:40]}…"


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: ``; did you mean 'alexnet'?``, or a full stop.

    Example:
        >>> nearest("alexnt", ["alexnet", "vgg16"])
        "; did you mean 'alexnet'?"
    """
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{match[0]}'?" if match else "."


def among(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name, with all names that are known.

    Example:
        >>> among("blu", ["blur", "swap"]), among("x", [])
        ("; did you mean 'blur'? Known: blur, swap.", '. Known: none.')
    """
    names = [str(one) for one in known]
    return f"{nearest(name, names)} Known: {', '.join(names) or 'none'}."
