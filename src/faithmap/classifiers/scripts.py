"""TorchScript: a compiled network says little of itself in its `repr`, and a frozen one has no parameters."""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch
from torch import Tensor, nn

# Where a line came from, and numbers that count what this process has compiled before.
_CHANGING = re.compile(r" # .*$|\.?___torch_mangle_\d+", re.MULTILINE)


def scripts_of(module: nn.Module) -> Iterator[str]:
    """What each script in a network computes, in the words of its graph."""
    for name, script in _scripts(module):
        yield f"{name} {_CHANGING.sub('', str(script.inlined_graph))}"


def constants_of(module: nn.Module) -> dict[str, Tensor]:
    """The tensors that stand in the code of scripts, such as all weights of a frozen one."""
    return {
        f"{name}.CONSTANTS.{key}": value
        for name, script in _scripts(module)
        for key, value in script.code_with_constants[1].const_mapping.items()
        if isinstance(value, Tensor)
    }


def _scripts(module: nn.Module) -> Iterator[tuple[str, torch.jit.ScriptModule]]:
    """The outermost scripts; those inside are part of their graphs."""
    inside: tuple[str, ...] = ()
    for name, one in module.named_modules():
        if isinstance(one, torch.jit.ScriptModule) and not (inside and name.startswith(inside)):
            inside += (f"{name}." if name else "",)
            yield name, one
