"""What decides a network's logits besides its weights and its `repr`: code, plain attributes and hooks of its own.

Classes of installed packages count by their name, which stands in the `repr`.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from faithmap.foreign import attribute
from faithmap.identity import callable_identity, code_digest, is_installed, names_set

_PLAIN = (type(None), bool, int, float, complex, str, bytes)


def code_of(module: nn.Module) -> Iterator[str]:
    """The bytecode of classes that no package brought, their plain attributes, hooks, and buffers that are not saved.

    Attributes that a method other than `__init__` sets do not count: a network may count its own calls.
    """
    for kind in sorted(own_classes(module), key=lambda one: one.__qualname__):
        yield f"class {kind.__qualname__} {code_digest(own_functions(kind))}"
    for name, key, value in _attributes(module):
        if _is_plain(value):
            yield f"{name}.{key} {value!r}"
    for name, one in module.named_modules():
        # A script puts a `forward` of its own there when it is first called.
        replaced = None if isinstance(one, torch.jit.ScriptModule) else vars(one).get("forward")
        for value in (replaced, *one._forward_pre_hooks.values(), *one._forward_hooks.values()):
            if value is not None:
                yield f"{name} calls {_named(value)}"
    saved = module.state_dict().keys()
    hidden = {name: buffer for name, buffer in module.named_buffers() if name not in saved}
    yield from (f"{name} {callable_identity(buffer).digest}" for name, buffer in sorted(hidden.items()))


def own_classes(module: nn.Module) -> list[type[nn.Module]]:
    """Classes of a network that no package brought."""
    return [kind for kind in dict.fromkeys(type(one) for one in module.modules()) if own_functions(kind)]


def own_functions(kind: type) -> list[types.FunctionType]:
    """The methods of a class, as far as no installed package brought them."""
    members = [value for one in kind.__mro__ for _, value in sorted(vars(one).items())]
    unwrapped = [attribute(value, "fget") or attribute(value, "__func__", value) for value in members]
    return [one for one in unwrapped if isinstance(one, types.FunctionType) and not is_installed(one)]


def _attributes(module: nn.Module) -> Iterator[tuple[str, str, Any]]:
    """Module, name and value of what is set once."""
    set_later = {kind: _set_later(kind) | {"training"} for kind in own_classes(module)}
    for name, one in module.named_modules():
        if (changing := set_later.get(type(one))) is not None:
            yield from ((name, k, v) for k, v in sorted(vars(one).items()) if k[:1] != "_" and k not in changing)


def _set_later(kind: type) -> set[str]:
    functions = [one for one in own_functions(kind) if one.__name__ != "__init__"]
    return {name for one in functions for name in names_set(one, "STORE_ATTR")}


def _is_plain(value: Any) -> bool:
    return isinstance(value, _PLAIN) or (isinstance(value, tuple) and all(_is_plain(one) for one in value))


def _named(function: Any) -> str:
    """The code of a function, or the class of another callable."""
    function = attribute(function, "__func__", function)
    if isinstance(function, types.FunctionType) and not is_installed(function):
        return f"{function.__qualname__} {code_digest([function])}"
    return str(attribute(function, "__qualname__", type(function).__qualname__))
