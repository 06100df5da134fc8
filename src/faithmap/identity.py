"""Whether a callable is the one that it was: a hash over all that decides what it computes.

It covers code as bytecode with its constants, default values, what a closure holds, the globals that the code names,
the arguments of a `partial`, the state of an object, the weights of a module. Installed packages count by name.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import types
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...), range, slice, PurePath, Enum)
_NAMED = (torch.dtype, torch.device, torch.layout, np.dtype, types.BuiltinFunctionType, types.ModuleType)
_INSTALLED = ("site-packages", "dist-packages")
_DEEPEST = 60
# In what a run keeps of a method: what is not known of its identity.
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Identity:
    """What a callable is.

    Attributes:
        digest: sixteen hex digits; equal for two callables that compute the same, as far as that can be known.
        unknown: what the digest could not cover; None where it covers all.
    """

    digest: str
    unknown: str | None = None


def callable_name(function: Any) -> str:
    """What a callable is called: its function or class, and the plain arguments of a `partial`.

    Example:
        >>> callable_name(functools.partial(my_heatmap, power=2))
        'my_heatmap:power=2'
    """
    if isinstance(function, functools.partial):
        parts = [*(_short(value) for value in function.args)]
        parts += [f"{key}={_short(value)}" for key, value in function.keywords.items()]
        shown = ",".join(part for part in parts if not part.endswith("?"))
        return callable_name(function.func) + (f":{shown}" if shown else "")
    named = function if hasattr(function, "__qualname__") else type(function)
    return str(named.__qualname__).replace("<locals>.", "")


def _short(value: Any) -> str:
    """A plain value as part of a name; ``"?"`` for any other."""
    if isinstance(value, (bool, int, float, str)) and len(str(value)) <= 20:
        return f"{value:g}" if isinstance(value, float) else str(value)
    if isinstance(value, tuple) and len(value) <= 4:
        parts = [_short(one) for one in value]
        return "?" if "?" in parts else "x".join(parts)
    return "?"


def callable_identity(function: Any) -> Identity:
    """The identity of a callable, or of any value that one is made of."""
    walk = _Walk()
    walk.add(function)
    return Identity(walk.digest.hexdigest()[:16], walk.unknown[0] if walk.unknown else None)


def is_installed(function: types.FunctionType) -> bool:
    """Whether a package brought a function, Python or faithmap itself."""
    return _is_installed(function.__code__.co_filename)


def code_digest(functions: Iterable[types.FunctionType]) -> str:
    """Sixteen hex digits over what functions do: bytecode, constants, defaults, and plain values around them.

    Objects in globals and closures do not count, nor what the functions set there: they may write down what they see.
    """
    walk = _Walk()
    functions = list(functions)
    written = {name for one in functions for name in names_set(one, "STORE_GLOBAL", "STORE_DEREF")}
    for function in functions:
        walk.say(function.__qualname__)
        walk.code(function.__code__)
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        around = {name: cell.cell_contents for name, cell in cells if _filled(cell)}
        named = {name for code in _codes(function.__code__) for name in code.co_names}
        around |= {name: function.__globals__[name] for name in named if name in function.__globals__}
        plain = {name: value for name, value in around.items() if name not in written and isinstance(value, _PLAIN)}
        defaults = [*(function.__defaults__ or ()), *_sorted((function.__kwdefaults__ or {}).items())]
        walk.say(_sorted(plain.items()), [_written(one) for one in defaults if isinstance(one, _PLAIN)])
    return walk.digest.hexdigest()[:16]


def names_set(function: types.FunctionType, *operations: str) -> set[str]:
    """Names that a function sets by these operations of the bytecode."""
    lines = [line for code in _codes(function.__code__) for line in dis.get_instructions(code)]
    return {str(line.argval) for line in lines if line.opname in operations}


class _Walk:
    """Feeds a hash with a value and all that it holds; each object once."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.unknown: list[str] = []
        self.seen: dict[int, Any] = {}  # id → the object, held so that no id comes twice
        self.depth = 0

    def add(self, value: Any) -> None:
        """Add a value; what it is comes before what it holds, so that no two values feed the hash alike."""
        if isinstance(value, (*_PLAIN, *_NAMED)):
            self.say(type(value).__qualname__, _written(value))
            return
        if id(value) in self.seen:
            self.say("again", list(self.seen).index(id(value)))
            return
        self.seen[id(value)] = value
        self.depth += 1
        if self.depth > _DEEPEST:
            self.give_up(value)
        else:
            self._hold(value)
        self.depth -= 1

    def say(self, *parts: Any) -> None:
        self.digest.update(repr(parts).encode("utf-8", "surrogatepass"))

    def give_up(self, value: Any) -> None:
        kind = type(value)
        self.unknown.append(f"a {kind.__module__}.{kind.__qualname__}")
        self.say("unknown", kind.__module__, kind.__qualname__)

    def _hold(self, value: Any) -> None:
        if isinstance(value, (Tensor, np.ndarray)):
            self._numbers(value)
        elif isinstance(value, functools.partial):
            self._all("partial", (value.func, value.args, value.keywords))
        elif isinstance(value, types.MethodType):
            self._all("method", (value.__func__, value.__self__))
        elif isinstance(value, types.FunctionType):
            self._function(value)
        elif isinstance(value, types.CodeType):
            self.code(value)
        elif isinstance(value, (staticmethod, classmethod)):
            self._all("wrapped", (value.__func__,))
        elif isinstance(value, property):
            self._all("property", (value.fget, value.fset))
        elif isinstance(value, type):
            self._class(value)
        elif isinstance(value, Mapping):
            self._all(type(value).__qualname__, _sorted(value.items()))
        elif isinstance(value, (set, frozenset)):
            self._all(type(value).__qualname__, _sorted(value))
        elif isinstance(value, (tuple, list)):
            self._all(type(value).__qualname__, value)
        elif isinstance(value, weakref.ReferenceType):
            self.say("weakref")
        elif isinstance(value, nn.Module):
            self._module(value)
        else:
            self._object(value)

    def _all(self, kind: str, values: Iterable[Any]) -> None:
        values = list(values)
        self.say(kind, len(values))
        for value in values:
            self.add(value)

    def _numbers(self, value: Tensor | np.ndarray[Any, Any]) -> None:
        try:
            array = value.detach().cpu() if isinstance(value, Tensor) else value
            if isinstance(array, Tensor):
                raw = array.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            elif array.dtype.hasobject:
                self._all("array", array.ravel().tolist())
                return
            else:
                raw = np.ascontiguousarray(array).tobytes()
        except (RuntimeError, NotImplementedError, TypeError, ValueError):  # sparse, quantised, meta, not initialised
            self.give_up(value)
            return
        self.say("numbers", str(value.dtype), tuple(value.shape), hashlib.sha256(raw).hexdigest())

    def _function(self, function: types.FunctionType) -> None:
        self.say("function", function.__module__, function.__qualname__)
        if _is_installed(function.__code__.co_filename):
            self._all("closure", (*(cell.cell_contents for cell in function.__closure__ or () if _filled(cell)),))
            return
        self.code(function.__code__)
        self._all("defaults", (function.__defaults__, function.__kwdefaults__))
        self._all("closure", (*(cell.cell_contents for cell in function.__closure__ or () if _filled(cell)),))
        named = sorted({name for code in _codes(function.__code__) for name in code.co_names})
        self._all("globals", [(n, function.__globals__[n]) for n in named if n in function.__globals__])

    def code(self, code: types.CodeType) -> None:
        self.say("code", code.co_code, code.co_names, code.co_varnames[: code.co_argcount], code.co_flags)
        # A nested function's code is among the constants.
        self._all("constants", code.co_consts)

    def _class(self, kind: type) -> None:
        """A class by its name; one that no package brought, with its functions and values too."""
        self.say("class", kind.__module__, kind.__qualname__)
        for one in kind.__mro__:
            own = {n: v for n, v in vars(one).items() if not (n.startswith("__") and not callable(v))}
            functions = [v.__code__ for v in own.values() if isinstance(v, types.FunctionType)]
            if functions and not any(_is_installed(code.co_filename) for code in functions):
                names = sorted(n for n in own if not isinstance(own[n], types.GetSetDescriptorType))
                self._all("members", [(n, own[n]) for n in names if not n.startswith("_abc")])

    def _module(self, module: nn.Module) -> None:
        self.say("module", str(module))
        for part in dict.fromkeys(type(one) for one in module.modules()):
            self.add(part)
        for name, one in module.named_modules():
            plain = {k: v for k, v in vars(one).items() if isinstance(v, _PLAIN) and k != "training"}
            self.say(name, sorted((k, _written(v)) for k, v in plain.items()))
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            self.say(name)
            self._numbers(tensor)

    def _object(self, value: Any) -> None:
        self.add(type(value))
        if hasattr(value, "__dict__"):
            self._all("state", _sorted(vars(value).items()))
            return
        try:
            reduced = value.__reduce_ex__(4)
        except Exception:  # locks, files, generators: nothing that could be compared
            self.give_up(value)
            return
        self._all("reduced", reduced if isinstance(reduced, tuple) else (reduced,))


def _sorted(values: Iterable[Any]) -> list[Any]:
    """In an order that does not depend on how a dict or set was filled."""
    return sorted(values, key=lambda one: repr(one[0] if isinstance(one, tuple) and one else one))


def _written(value: Any) -> str:
    if isinstance(value, types.ModuleType):
        return value.__name__
    if isinstance(value, types.BuiltinFunctionType):
        return f"{value.__module__}.{value.__qualname__}"
    return repr(value)


def _codes(code: types.CodeType) -> Iterable[types.CodeType]:
    yield code
    for one in code.co_consts:
        if isinstance(one, types.CodeType):
            yield from _codes(one)


def _filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _is_installed(file: str) -> bool:
    """Whether a file belongs to Python, to an installed package, or to faithmap itself."""
    path = Path(file)
    parts = path.parts
    return (
        any(folder in parts for folder in _INSTALLED)
        or path.is_relative_to(Path(functools.__file__).parent)
        or path.is_relative_to(Path(__file__).parent)
        or file.startswith("<frozen")
    )
