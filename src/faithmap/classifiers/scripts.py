"""TorchScript: a compiled network says little of itself in its `repr`, and a frozen one has no parameters."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

# Where a line came from, and numbers that count what this process has compiled before.
_CHANGING = re.compile(r" # .*$|\.?___torch_mangle_\d+", re.MULTILINE)
_READ = re.compile(r'prim::GetAttr\[name="([^"]+)"\]')
_PLAIN = (int, float, str, type(None))


def scripts_of(module: nn.Module) -> Iterator[str]:
    """What each script in a network computes, in the words of its graph, and the numbers and texts that it reads."""
    for name, method in _methods(module):
        yield f"{name} {_CHANGING.sub('', str(method.inlined_graph))}"
    yield from (f"{name} {value!r}" for name, value in _attributes(module) if isinstance(value, _PLAIN))


def constants_of(module: nn.Module) -> dict[str, Tensor]:
    """The tensors that stand in the code of scripts, such as all weights of a frozen one, and those that it reads."""
    constants = {
        f"{name}.CONSTANTS.{key}": value
        for name, method in _methods(module)
        for key, value in method.code_with_constants[1].items()
    }
    return {name: value for name, value in [*constants.items(), *_attributes(module)] if isinstance(value, Tensor)}


def _methods(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """What the outermost scripts compile: `forward`, or others without it. Scripts inside are part of their graphs."""
    inside: tuple[str, ...] = ()
    for name, one in module.named_modules():
        if isinstance(one, torch.jit.ScriptModule) and not (inside and name.startswith(inside)):
            prefix = f"{name}." if name else ""
            methods = sorted(one._c._method_names())
            inside += (prefix,) * bool(methods)  # a list of modules compiles nothing itself
            yield from ((f"{prefix}{method}", one._c._get_method(method)) for method in methods)


def _attributes(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """What scripts read of themselves, other than their mode."""
    read = {found for _, method in _methods(module) for found in _READ.findall(str(method.inlined_graph))}
    for name, one in module.named_modules():
        if isinstance(one, torch.jit.ScriptModule):
            for attribute in sorted(read - {"training"}):
                if one._c.hasattr(attribute):
                    yield from _leaves(f"{name}.{attribute}" if name else attribute, one._c.getattr(attribute))


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    found = [*value.items()] if isinstance(value, dict) else value
    if isinstance(found, list | tuple):
        yield f"{name}.length", len(found)
        for at, one in enumerate(found):
            yield from _leaves(f"{name}.{at}", one)
    else:
        yield name, value
