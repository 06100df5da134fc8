"""Noticing that a network has changed since it was prepared."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

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
            id(one.__dict__.get("forward")),
            len(one._forward_hooks),
            len(one._forward_pre_hooks),
            tuple((k, v) for k, v in one.__dict__.items() if k != "training" and isinstance(v, _PLAIN)),
        )
        for name, one in module.named_modules()
    ]
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return (repr(modules), tuple((name, *_content(tensor)) for name, tensor in tensors))


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
