"""Things declared by a decorator on the function that computes them: heatmap methods, fills, measures, figures.

The decorator carries the name, one line, the source and the parameters. Other packages add theirs in the same way and
name their module in an entry point, such as ``faithmap.methods``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules
from typing import Any, Generic, TypeVar

from faithmap.errors import FaithmapError, PluginWarning, among
from faithmap.text import first_line


@dataclass(frozen=True)
class Parameter:
    """A parameter of something that is declared.

    Attributes:
        default: its value where the name does not say.
        check: text → value, or a `ValueError` that says what is expected.
    """

    default: Any
    check: Callable[[str], Any]


def split_names(text: str) -> list[str]:
    """Names between commas; ``n=25,sigma=0.1`` goes with the name before it.

    Example:
        >>> split_names("smoothgrad:n=25,sigma=0.1,random")
        ['smoothgrad:n=25,sigma=0.1', 'random']
    """
    names: list[str] = []
    for piece in (part.strip() for part in text.split(",")):
        if names and "=" in piece.split(":")[0]:
            names[-1] += f",{piece}"
        elif piece:
            names.append(piece)
    return names


def number(low: float = float("-inf"), high: float = float("inf")) -> Callable[[str], float]:
    """A finite number within bounds."""
    if high != float("inf"):
        expected = f"a number from {low:g} to {high:g}"
    else:
        expected = "a number" if low == float("-inf") else f"a number of at least {low:g}"

    def check(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise ValueError(expected) from None
        if not low <= value <= high or value in (float("inf"), float("-inf")):
            raise ValueError(expected)
        return value

    return check


def integer(low: int, high: int = 100_000) -> Callable[[str], int]:
    """An integer within bounds; the work that it stands for has an end."""

    def check(text: str) -> int:
        if not text.isdecimal() or len(text) > 18 or not low <= int(text) <= high:
            raise ValueError(f"an integer from {low} to {high:,}")
        return int(text)

    return check


def choice(*known: str) -> Callable[[str], str]:
    """One of a few words."""

    def check(text: str) -> str:
        if text not in known:
            raise ValueError(" or ".join(known))
        return text

    return check


@dataclass(frozen=True)
class Declaration:
    """What a decorator says about a function.

    Attributes:
        name: as in tables and on the command line.
        function: what computes it.
        line: what it is, in one line.
        source: the paper.
        parameters: name → parameter, in the order in which they are shown.
        aliases: other name → what it stands for, parameters included.
        first_shown: whether the first parameter is always part of the name, as in ``lrp-epsilon:0.01``.
    """

    name: str
    function: Callable[..., Any]
    line: str
    source: str
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    first_shown: bool = False

    @property
    def defaults(self) -> dict[str, Any]:
        """Parameter → its default."""
        return {key: parameter.default for key, parameter in self.parameters.items()}

    def written(self, values: Mapping[str, Any], said: Collection[str] | None = None) -> str:
        """The name with parameters, in the order of the declaration.

        Args:
            values: parameter → value.
            said: the parameters that the name shows; None: all.
        """
        shown = []
        for place, key in enumerate(self.parameters):
            value = values[key]
            text = f"{value:.12g}" if isinstance(value, float) else str(value)
            if place == 0 and self.first_shown:
                shown.append(text)
            elif said is None or key in said:
                shown.append(f"{key}={text}")
        return f"{self.name}:{','.join(shown)}" if shown else self.name

    @property
    def module(self) -> str:
        """The module that declares it."""
        return self.function.__module__


D = TypeVar("D", bound=Declaration)


class Declarations(Mapping[str, D], Generic[D]):
    """Name → declaration, of one kind.

    The modules of `room` are imported at the first look-up. Other packages are imported when a name is not found among
    ours, or when all names are asked for: a broken one cannot disturb who does not use it.

    Args:
        kind: what messages call one, such as ``"heatmap method"``.
        room: the package of faithmap whose modules declare them.
        error: what an unknown name or a clash raises.
        group: of the entry points of other packages; None: there are none.
    Attributes:
        aliases: other name → what it stands for.
        left_out: package → why it could not be loaded.
    """

    def __init__(self, kind: str, room: str, error: type[FaithmapError], group: str | None = None) -> None:
        self.kind, self.room, self.error, self.group = kind, room, error, group
        self.aliases: dict[str, str] = {}
        self.left_out: dict[str, str] = {}
        self._declared: dict[str, D] = {}
        self._loaded = self._extended = False

    def add(self, declaration: D) -> None:
        """Register a declaration; the same function may be declared again, as when a notebook cell is run twice.

        Raises:
            FaithmapError: of the kind `error`, where another function has the name.
        """
        if not declaration.module.startswith(f"{self.room}."):
            self._load()  # ours come first: a name of ours is refused to others, whoever is imported first
        function = declaration.function
        for name in (declaration.name, *declaration.aliases):
            other = self._declared.get(self.aliases.get(name, name).partition(":")[0])
            if other is not None and (other.module, other.function.__qualname__) != (
                function.__module__,
                function.__qualname__,
            ):
                raise self.error(
                    f"{self.kind} '{name}' of {declaration.module} has the name of one of {other.module}: "
                    "give it another name."
                )
        self._declared[declaration.name] = declaration
        self.aliases |= declaration.aliases

    def find(self, name: str, *also: str) -> D:
        """The declaration of a name.

        Args:
            name: without parameters.
            also: further names that the message lists.
        Raises:
            FaithmapError: of the kind `error`: an unknown name; the nearest is proposed.
        """
        try:
            return self[name]
        except KeyError:
            known = [*self, *self.aliases, *also]
            raise self.error(f"unknown {self.kind} '{name}'{among(name, known)}") from None

    def given(self, declaration: D, text: str, rest: str) -> dict[str, Any]:
        """The parameters that a name gives.

        Args:
            declaration: whose parameters.
            text: the whole name, for messages.
            rest: what follows its colon: ``key=value`` between commas; the first may be given without its key.
        Raises:
            FaithmapError: of the kind `error`: an unknown parameter, or a value that cannot be.
        """
        declared = declaration.parameters
        found: dict[str, Any] = {}
        for place, piece in enumerate(rest.split(",") if rest else []):
            key, equals, value = piece.partition("=")
            if not equals and place == 0 and declared:
                key, value = next(iter(declared)), piece
            elif not equals:
                raise self.error(f"{self.kind} '{text}': '{piece}' is not understood: write parameters as name=value.")
            if key not in declared:
                raise self.error(f"{self.kind} '{text}' has no parameter '{key}'{among(key, declared)}")
            try:
                found[key] = declared[key].check(value)
            except ValueError as error:
                raise self.error(f"{self.kind} '{text}': {key} is {value!r}, expected {error}.") from None
        return found

    def packages(self) -> dict[str, str]:
        """Name → the installed package that declares it, ours left out."""
        points = entry_points(group=self.group) if self.group else ()
        owners = {point.module.partition(".")[0]: point.dist.name for point in points if point.dist is not None}
        tops = {name: one.module.partition(".")[0] for name, one in self.items()}
        return {name: owners.get(top, top) for name, top in tops.items() if top != "faithmap"}

    def __getitem__(self, name: str) -> D:
        self._load()
        if name not in self._declared:
            self._extend()
        return self._declared[name]

    def __iter__(self) -> Iterator[str]:
        """Ours first; by module, then as they stand there, whatever was imported first."""
        self._extend()
        modules = {name: one.module for name, one in self._declared.items()}
        return iter(sorted(modules, key=lambda name: (not modules[name].startswith(f"{self.room}."), modules[name])))

    def __len__(self) -> int:
        self._extend()
        return len(self._declared)

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True  # first of all: the modules that are imported here ask for names themselves
        try:
            for module in iter_modules(import_module(self.room).__path__, f"{self.room}."):
                import_module(module.name)
        except BaseException:
            self._loaded = False
            raise

    def _extend(self) -> None:
        self._load()
        if self._extended or self.group is None:
            return
        self._extended = True
        for point in sorted(entry_points(group=self.group), key=lambda point: (point.value, point.name)):
            before = dict(self._declared), dict(self.aliases)
            package = point.dist.name if point.dist is not None else point.module
            try:
                point.load()
            except (Exception, SystemExit) as error:  # anybody's code
                self._declared, self.aliases = before
                self.left_out[package] = first_line(error)
                warnings.warn(
                    f"{package}, which adds to {self.group}, is left out: {self.left_out[package]}",
                    PluginWarning,
                    stacklevel=3,
                )
