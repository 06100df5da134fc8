"""Noticing that a network has changed since it was prepared, and that code of others changes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from faithmap.errors import ClassifierError
from faithmap.foreign import attribute

_ROW = 1 << 16
_PLAIN = (int, float, str, bool, tuple, type(None))


def signature(module: nn.Module) -> tuple[Any, ...]:
    """Equal for two calls between which nothing changed that decides what the network computes in evaluation mode.

    Covers weights and buffers (by content, so that ``weight.data`` is covered too), the modules, their plain
    attributes, and hooks. Reads every weight once: milliseconds.
    """
    modules = [
        (
            name,
            id(one),
            _own_forward(one),
            len(one._forward_hooks),
            len(one._forward_pre_hooks),
            tuple((k, v) for k, v in one.__dict__.items() if k != "training" and isinstance(v, _PLAIN)),
        )
        for name, one in module.named_modules()
    ]
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return (repr(modules), tuple((name, *_content(tensor)) for name, tensor in tensors))


def _own_forward(module: nn.Module) -> int | None:
    """Which `forward` was put on a module itself; a script puts its own there when it is first called."""
    return None if isinstance(module, torch.jit.ScriptModule) else id(module.__dict__.get("forward"))


def weights_signature(module: nn.Module) -> tuple[Any, ...]:
    """Like `signature`, without hooks and plain attributes: a network may count its own calls."""
    modules = tuple((name, id(one), _own_forward(one)) for name, one in module.named_modules())
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return (modules, tuple((name, *_content(tensor)) for name, tensor in tensors))


class Watch:
    """Sees to it that scores are those of one network: what it was when the watch began.

    Args:
        module: the network.
        name: how messages call it.
    """

    def __init__(self, module: nn.Module, name: str) -> None:
        self.module, self.name = module, name
        self.before = weights_signature(module)

    def check(self) -> None:
        """Compare layers and weights with what they were. Reads every weight once: milliseconds.

        Raises:
            ClassifierError: they have changed; names some of them.
        """
        now = weights_signature(self.module)
        if now == self.before:
            return
        known = {name: rest for part in self.before for name, *rest in part}
        changed = [name or "the network itself" for part in now for name, *rest in part if known.get(name) != rest]
        what = ", ".join(dict.fromkeys(changed)) if len(changed) < 4 else f"{', '.join(changed[:3])}, …"
        raise ClassifierError(
            f"{self.name} changed while it was scored ({what or 'layers are gone'}): what is stored so far is of the "
            "network as it was; let callbacks, measures and the network itself leave its weights alone, or work on a "
            "copy made with copy.deepcopy, and run again."
        )


@contextmanager
def left_as_it_was(module: nn.Module) -> Iterator[list[str]]:
    """Other people's code runs inside. What it leaves behind is put back, and listed in words.

    Put back are modes, hooks and gradient flags. Changed weights and layers can only be listed; weights are compared by
    their version counters, which costs nothing but misses what is done through ``weight.data``.
    """
    before = _surface(module)
    weights = _versions(module)
    changed: list[str] = []
    try:
        yield changed
    finally:
        changed += _put_back(module, before)
        changed += [f"weights of '{name}'" for name, state in _versions(module).items() if weights.get(name) != state]


_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks_with_kwargs",
)


def _surface(
    module: nn.Module,
) -> list[tuple[nn.Module, bool | None, dict[str, dict[Any, Any]], list[tuple[Tensor, bool]]]]:
    return [
        (
            one,
            attribute(one, "training"),
            {name: dict(getattr(one, name)) for name in _HOOKS},
            [(parameter, parameter.requires_grad) for parameter in one.parameters(recurse=False)],
        )
        for one in module.modules()
    ]


def _put_back(module: nn.Module, before: Any) -> list[str]:
    """Modes and gradient flags without a word, because no score depends on them; hooks are named."""
    names = {id(one): name or type(one).__name__ for name, one in module.named_modules()}
    changed = []
    for one, training, hooks, parameters in before:
        if training is not None:
            one.training = training
        for parameter, required in parameters:
            if parameter.is_leaf and parameter.requires_grad != required and not parameter.is_inference():
                parameter.requires_grad_(required)
        different = [name for name, known in hooks.items() if dict(getattr(one, name)) != known]
        for name in different:
            own = getattr(one, name)
            own.clear()
            own.update(hooks[name])
        if different:
            changed.append(f"hooks of '{names.get(id(one), type(one).__name__)}'")
    return changed


def _versions(module: nn.Module) -> dict[str, tuple[Any, ...]]:
    def state(tensor: Tensor) -> tuple[Any, ...]:
        version = None if tensor.is_inference() else tensor._version
        return (id(tensor), version, tensor.data_ptr() if tensor.layout is torch.strided else None)

    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    found = {name: state(tensor) for name, tensor in tensors.items()}
    found |= {name: (id(one), _own_forward(one)) for name, one in module.named_modules() if name}
    return found


def _content(tensor: Tensor) -> tuple[Any, ...]:
    """Shape, type, device and a checksum that depends on where each number stands."""
    about = (tuple(tensor.shape), tensor.dtype, tensor.device)
    if tensor.layout is not torch.strided or tensor.is_quantized:
        return (*about, id(tensor), tensor._version)
    if not tensor.is_floating_point():
        return (*about, tuple(tensor.reshape(-1).tolist()))
    flat = tensor.detach().reshape(-1)
    random = _random(tensor.dtype, tensor.device)
    whole = len(flat) // _ROW * _ROW
    sums = [torch.dot(flat[whole:], random[: len(flat) - whole])]
    if whole:
        sums += (flat[:whole].view(-1, _ROW) @ random).unbind()
    # Bits, so that a NaN equals itself.
    return (*about, tuple(torch.stack(sums).double().view(torch.int64).tolist()))


def _random(dtype: torch.dtype, device: torch.device) -> Tensor:
    if (dtype, device) not in _randoms:
        generator = torch.Generator().manual_seed(0)
        _randoms[dtype, device] = (torch.rand(_ROW, generator=generator) + 0.5).to(device, dtype)
    return _randoms[dtype, device]


_randoms: dict[tuple[torch.dtype, torch.device], Tensor] = {}
