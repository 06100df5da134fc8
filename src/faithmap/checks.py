"""What callers hand over, turned into tensors that everything else can rely on, or refused in one sentence.

Nothing here changes an argument: what is converted is a copy.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from faithmap.errors import FaithmapError, InputError, among, shown

LARGEST_SIDE = 32_768
LARGEST_STEP = 2**31 - 1
MOST_ENTRIES = 10_000_000  # of a list; others' objects may go on for ever


def as_tensor(value: Any, name: str, error: type[FaithmapError] = InputError) -> Tensor:
    """A dense tensor without gradients from a tensor, an array or nested lists of numbers.

    Raises:
        FaithmapError: (of the type `error`) anything else, and tensors without values of their own.
    """
    if isinstance(value, Tensor):
        return _dense(value, name, error)
    if value is None or isinstance(value, (str, bytes, bytearray, memoryview)) or callable(value):
        raise error(f"{name} is {_kind(value)}, expected a tensor or an array.")
    known = isinstance(value, Sequence) or any(has_attribute(value, one) for one in _ARRAYS)
    if hasattr(type(value), "__getitem__") and not known:
        # NumPy would ask for one entry after the other, as long as there are any.
        raise error(f"{name} is {_kind(value)}, expected a tensor or an array.")
    try:
        array = np.asarray(value)
    except Exception as problem:  # whatever an object's own conversion raises
        raise error(f"{name} is {_kind(value)}, which is no array ({problem}): expected a tensor.") from None
    if array.dtype.kind not in "fiub":
        raise error(f"{name} is {_kind(value)} of {array.dtype} values, expected numbers.")
    # A copy, in this machine's byte order; torch has no longer floats.
    kind = f"{array.dtype.kind}{min(array.dtype.itemsize, 8)}"
    return torch.from_numpy(np.array(array, dtype=kind, order="C").view(kind))


def as_floats(value: Any, name: str, error: type[FaithmapError] = InputError, remedy: str = "") -> Tensor:
    """Like `as_tensor`, float32 or float64; half precision becomes float32.

    Raises:
        FaithmapError: (of the type `error`) values that are not floating numbers.
    """
    found = as_tensor(value, name, error)
    if not found.is_floating_point():
        raise error(f"{name} is {found.dtype}, expected floating numbers{remedy}.")
    return found if found.dtype in (torch.float32, torch.float64) else found.float()


def as_pixels(value: Any, name: str = "pixels", dims: tuple[int, ...] = (4,)) -> Tensor:
    """Images in [0, 1], (B, C, H, W) or, where `dims` allows it, (C, H, W).

    Raises:
        InputError: another type or shape, no image, or values outside [0, 1].
    """
    found = as_shaped_pixels(value, name, dims)
    if not found.isfinite().all():
        raise InputError(f"{name} has values that are not finite.")
    low, high = found.amin(), found.amax()
    if low < 0 or high > 1:
        raise InputError(
            f"{name} has values in [{low:g}, {high:g}], expected [0, 1]: give pixels before normalisation."
        )
    return found


def as_shaped_pixels(value: Any, name: str = "pixels", dims: tuple[int, ...] = (4,)) -> Tensor:
    """The same, whatever the values (a fill may be noise, and a network may be fed normalised images)."""
    found = as_floats(value, name, remedy=" in [0, 1]: divide bytes by 255")
    if found.ndim not in dims:
        shapes = " or ".join({3: "(C, H, W)", 4: "(B, C, H, W)"}[count] for count in dims)
        one = ": add a dimension with pixels[None]" if found.ndim == 3 and 4 in dims else ""
        raise InputError(f"{name} has shape {tuple(found.shape)}, expected {shapes}{one}.")
    if found.numel() == 0 or max(found.shape[-2:]) > LARGEST_SIDE:
        raise InputError(
            f"{name} has shape {tuple(found.shape)}, expected at least one image of 1 to {LARGEST_SIDE} pixels a side."
        )
    return found


def as_removal_steps(value: Any, pixels: Tensor) -> Tensor:
    """The step at which each pixel of the images is replaced, on their device.

    Raises:
        InputError: not integers, not one per pixel, or below 0.
    """
    found = as_integers(value, "removal_step").to(pixels.device)
    expected = (*pixels.shape[:-3], *pixels.shape[-2:])
    if tuple(found.shape) != expected or found.numel() == 0:
        raise InputError(
            f"removal_step has shape {tuple(found.shape)}, and the images {tuple(pixels.shape)}: give one step per "
            f"pixel, {expected}."
        )
    if int(found.min()) < 0 or int(found.max()) > LARGEST_STEP:
        raise InputError(
            f"removal_step holds {int(found.min())} to {int(found.max())}, expected 0 (never) to {LARGEST_STEP}."
        )
    return found


def as_fill(value: Any, pixels: Tensor) -> Tensor:
    """Replacement values of the images, on their device; noise may lie outside [0, 1].

    Raises:
        InputError: another type or shape.
    """
    found = as_floats(value, "fill").to(pixels.device)
    if found.shape != pixels.shape:
        raise InputError(
            f"fill has shape {tuple(found.shape)}, and the images {tuple(pixels.shape)}: give it per pixel."
        )
    return found


def as_points(value: Any, name: str = "points") -> tuple[int, ...]:
    """Steps that are scored, as integers; whether they ascend is checked where the number of steps is known.

    Raises:
        InputError: not a list of integers.
    """
    found = as_integers(value, name)
    if found.ndim != 1:
        raise InputError(f"{name} has shape {tuple(found.shape)}, expected a list of integers.")
    return tuple(found.tolist())


def as_integers(value: Any, name: str, error: type[FaithmapError] = InputError) -> Tensor:
    """Integers as they are, any width.

    Raises:
        FaithmapError: (of the type `error`) values that are not integers.
    """
    found = as_tensor(value, name, error)
    if found.is_floating_point() or found.is_complex() or found.dtype == torch.bool:
        raise error(f"{name} is {found.dtype}, expected integers.")
    return found


def as_targets(value: Any, count: int, device: torch.device) -> Tensor:
    """One class index per image, int64, on the images' device.

    Raises:
        InputError: not integers, not one per image, or below 0.
    """
    found = as_integers(value, "targets").to(device, torch.int64)
    if tuple(found.shape) != (count,):
        shape = tuple(found.shape)
        raise InputError(f"targets has shape {shape} for {count} images: give one class index per image.")
    if int(found.min()) < 0:
        raise InputError(f"targets holds {int(found.min())}, expected class indices of at least 0.")
    return found


def as_integer(value: Any, name: str, low: int, high: int, error: type[FaithmapError] = InputError) -> int:
    """An integer within bounds, NumPy's included; True and False are none.

    Raises:
        FaithmapError: (of the type `error`) says the bounds.
    """
    try:
        number = None if isinstance(value, bool | np.bool_) else operator.index(value)
    except Exception:  # whatever an object's own conversion raises
        number = None
    if number is None or not low <= number <= high:
        raise error(f"{name} is {shown(value)}: give an integer from {low} to {high}.")
    return number


def as_fraction(value: Any, name: str, error: type[FaithmapError] = InputError) -> float:
    """A number from 0 to 1, both left out.

    Raises:
        FaithmapError: (of the type `error`) says the bounds.
    """
    number = float(value) if isinstance(value, Real) and value is not True else float("nan")
    if not 0 < number < 1:
        raise error(f"{name} is {shown(value)}: give a number between 0 and 1.")
    return number


def as_numbers(value: Any, name: str, error: type[FaithmapError] = InputError) -> tuple[float, ...]:
    """A few finite numbers.

    Raises:
        FaithmapError: (of the type `error`) anything else.
    """
    try:
        found = as_tensor(value, name, error)
        if found.ndim == 1 and found.isfinite().all():
            return tuple(found.tolist())
    except (FaithmapError, RuntimeError):
        pass
    raise error(f"{name} is {shown(value)}: give a few numbers, such as (0.485, 0.456, 0.406).")


def as_text(value: Any, name: str, error: type[FaithmapError] = InputError) -> str:
    """Text.

    Raises:
        FaithmapError: (of the type `error`) anything else, and what UTF-8 cannot write.
    """
    if not isinstance(value, str):
        raise error(f"{name} is {shown(value)}: give text.")
    try:
        value.encode()
    except UnicodeEncodeError:  # half a character, as in names of files that are no text
        raise error(f"{name} is {shown(value)}, which cannot be written as UTF-8: give another.") from None
    return value


def as_texts(value: Any, name: str, error: type[FaithmapError] = InputError) -> list[str]:
    """A list of texts.

    Raises:
        FaithmapError: (of the type `error`) anything else, a single text included.
    """
    if isinstance(value, str | bytes) or not isinstance(value, Iterable) or callable(value):
        raise error(f"{name} is {shown(value)}: give a list of texts.")
    try:
        found = list(islice(value, MOST_ENTRIES + 1))
    except Exception as problem:  # anybody's object
        raise error(f"{name} is {shown(value)}, which is no list ({type(problem).__name__}).") from None
    if len(found) > MOST_ENTRIES:
        raise error(f"{name} is {shown(value)} of more than {MOST_ENTRIES:,} texts: give fewer.")
    return [as_text(one, f"an entry of {name}", error) for one in found]


def as_list(value: Any, name: str, what: str, error: type[FaithmapError] = InputError) -> list[Any]:
    """The entries of a list, tuple, array or series.

    Args:
        value, name: what it is, and how messages call it.
        what: its entries, in words.
    Raises:
        FaithmapError: (of the type `error`) anything without a length and an order, or with too many entries.
    """
    try:
        ordered = hasattr(type(value), "__getitem__") and not isinstance(value, str | bytes | Mapping | type)
        one_row = ordered and getattr(value, "ndim", 1) == 1 and len(value) <= MOST_ENTRIES
        found = list(islice(value, len(value))) if one_row else None
    except Exception:  # anybody's object
        found = None
    if found is None:
        raise error(f"{name} is {shown(value)}: give a list of {what}.")
    return found


def check_flag(value: Any, name: str, error: type[FaithmapError] = InputError) -> None:
    """Refuse what is neither True nor False.

    Raises:
        FaithmapError: (of the type `error`) says what it is.
    """
    if not isinstance(value, bool):
        raise error(f"{name} is {shown(value)}: give True or False.")


def check_callable(value: Any, name: str, error: type[FaithmapError] = InputError) -> None:
    """Refuse what is no function.

    Raises:
        FaithmapError: (of the type `error`) says what it is.
    """
    if not callable(value):
        raise error(f"{name} is {shown(value)}: give a function.")


def one_of(value: Any, name: str, known: tuple[str, ...], error: type[FaithmapError] = InputError) -> str:
    """One of a few words.

    Raises:
        FaithmapError: (of the type `error`) says which.
    """
    if not isinstance(value, str) or value not in known:
        near = among(value[:99] if isinstance(value, str) else "", known)
        raise error(f"unknown {name} {shown(value)}{near}")
    return value


def attribute(value: Any, name: str, default: Any = None) -> Any:
    """An attribute of anybody's object, or the default; an object that raises when it is asked has none.

    Example:
        >>> attribute(3, "real"), attribute(3, "unreal")
        (3, None)
    """
    try:
        return getattr(value, name, default)
    except Exception:
        return default


def has_attribute(value: Any, name: str) -> bool:
    """Whether anybody's object has an attribute."""
    return attribute(value, name, _NOTHING) is not _NOTHING


_NOTHING = object()
_ARRAYS = ("__array__", "__array_interface__", "__array_struct__", "__dlpack__")


def _dense(value: Tensor, name: str, error: type[FaithmapError]) -> Tensor:
    if value.is_meta or isinstance(value, UninitializedBuffer | UninitializedParameter):
        raise error(f"{name} is a tensor without values (device 'meta', or not initialised): give one with values.")
    if value.is_nested:
        raise error(f"{name} is a nested tensor, whose images differ in size: give images of one size.")
    found = value.detach()
    if found.is_quantized:
        found = found.dequantize()
    if found.layout is not torch.strided:
        found = found.to_dense()
    if found.is_complex():
        raise error(f"{name} is {found.dtype}, expected real numbers.")
    # What was made in inference mode cannot be used where gradients are needed.
    return found.clone() if found.is_inference() else found


def _kind(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def each_once(pairs: Iterable[tuple[str, str]], file: str) -> dict[str, str]:
    """Image → what a file says of it.

    Raises:
        InputError: two things of one image.
    """
    found: dict[str, str] = {}
    for image, value in pairs:
        if found.setdefault(image, value) != value:
            raise InputError(
                f"{file} says '{found[image]}' and '{value}' of image '{image}': keep one line for each image."
            )
    return found
