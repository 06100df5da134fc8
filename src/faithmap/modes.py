"""Torch's modes around public functions: what callers have switched on changes no number."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import torch

_F = TypeVar("_F", bound=Callable[..., Any])
_AUTOCAST = ("cpu", "cuda", "mps")


def in_own_modes(function: _F) -> _F:
    """Inside a function float32 is float32, gradients are possible, and tensors have values.

    So no autocast, no inference mode, and no default device ``"meta"``; everything is as it was afterwards.

    Example:
        >>> @in_own_modes
        ... def product(a):
        ...     return (a @ a).dtype
        >>> with torch.autocast("cpu"):
        ...     product(torch.ones(2, 2))
        torch.float32
    """

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        with ExitStack() as stack:
            if torch.is_inference_mode_enabled():
                stack.enter_context(torch.inference_mode(False))
                stack.enter_context(torch.no_grad())
            for kind in _AUTOCAST:
                if torch.is_autocast_enabled(kind):
                    stack.enter_context(torch.autocast(kind, enabled=False))
            if torch.get_default_device().type == "meta":
                stack.enter_context(torch.device("cpu"))
            return function(*args, **kwargs)

    return wrapper  # type: ignore[return-value]


@contextmanager
def plain_defaults() -> Iterator[None]:
    """For building networks, which draw their first weights in the default type: here float32, on the CPU.

    The caller's random numbers go on where they were.
    """
    before = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(before)
