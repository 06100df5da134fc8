"""What callers hand over, turned into tensors that everything else can rely on, or refused in one sentence.

Nothing here changes an argument: what is converted is a copy.
"""

from __future__ import annotations

import math
import operator
from array import array
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from faithmap.errors import FaithmapError, InputError, among, shown
from faithmap.foreign import MOST_ENTRIES, attribute, entries, has_attribute, plain_text

LARGEST_SIDE = 32_768
DEEPEST = 16  # lists in lists
MOST_NUMBERS = 2**36  # of a tensor
LARGEST_STEP = 2**31 - 1


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
    value = nested(value, name, error)
    try:
        found = np.asarray(value)
    except Exception as problem:  # whatever an object's own conversion raises
        raise error(f"{name} is {_kind(value)}, which is no array ({problem}): expected a tensor.") from None
    if found.dtype.kind not in "fiub":
        raise error(f"{name} is {_kind(value)} of {found.dtype} values, expected numbers.")
    _check_size(found.shape, name, error)
    # A copy, in this machine's byte order; torch has no longer floats.
    kind = f"{found.dtype.kind}{min(found.dtype.itemsize, 8)}"
    return torch.from_numpy(np.array(found, dtype=kind, order="C").view(kind))


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
    if found.ndim != 1 or len(found) > MOST_ENTRIES:
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
    # Of wider unsigned integers torch knows neither the least nor the largest; what fits no int64 becomes negative.
    return found.long() if found.dtype in (torch.uint16, torch.uint32, torch.uint64) else found


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
        number = None if _is_flag(value) else operator.index(value)
    except Exception:  # whatever an object's own conversion raises
        number = None
    if number is None or not low <= number <= high:
        raise error(f"{name} is {shown(value)}: give an integer from {low} to {high}.")
    return number


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool | np.bool_) or str(attribute(value, "dtype")) in ("bool", "torch.bool")


def as_fraction(value: Any, name: str, error: type[FaithmapError] = InputError) -> float:
    """A number from 0 to 1, both left out.

    Raises:
        FaithmapError: (of the type `error`) says the bounds.
    """
    try:
        number = float(value) if isinstance(value, Real) and value is not True else float("nan")
    except Exception:  # an integer that no float can hold, or whatever an object's own conversion raises
        number = float("nan")
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
    """Text, as a plain `str`.

    Raises:
        FaithmapError: (of the type `error`) anything else, and what UTF-8 cannot write.
    """
    if not isinstance(value, str):
        raise error(f"{name} is {shown(value)}: give text.")
    text = plain_text(value)
    try:
        text.encode()
    except UnicodeEncodeError:  # half a character, as in names of files that are no text
        raise error(f"{name} is {shown(text)}, which cannot be written as UTF-8: give another.") from None
    return text


def as_texts(value: Any, name: str, error: type[FaithmapError] = InputError) -> list[str]:
    """A list of texts.

    Raises:
        FaithmapError: (of the type `error`) anything else, a single text included.
    """
    if isinstance(value, str | bytes) or not isinstance(value, Iterable) or callable(value):
        raise error(f"{name} is {shown(value)}: give a list of texts.")
    return [as_text(one, f"an entry of {name}", error) for one in entries(value, name, error)]


def nested(value: Any, name: str, error: type[FaithmapError] = InputError, depth: int = 0) -> Any:
    """Lists in lists as plain ones, down to what is no list.

    Raises:
        FaithmapError: (of the type `error`) an entry that NumPy would ask for one entry after the other without end.
    """
    if isinstance(value, str | bytes | np.generic | np.ndarray | Tensor):
        return value
    if any(has_attribute(value, one) for one in _ARRAYS):
        return value
    if depth > DEEPEST or (hasattr(type(value), "__getitem__") and not isinstance(value, Sequence)):
        raise error(f"{name} holds {_kind(value)}, expected numbers.")
    if not isinstance(value, Sequence) or isinstance(value, range | memoryview | bytearray | array):
        return value
    plain = (float, int, bool)
    return [one if type(one) in plain else nested(one, name, error, depth + 1) for one in entries(value, name, error)]


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
    text = plain_text(value) if isinstance(value, str) else None
    if text not in known:
        raise error(f"unknown {name} {shown(value)}{among((text or '')[:99], known)}")
    return text


_ARRAYS = ("__array__", "__array_interface__", "__array_struct__", "__dlpack__")


def _dense(value: Tensor, name: str, error: type[FaithmapError]) -> Tensor:
    if value.is_meta or isinstance(value, UninitializedBuffer | UninitializedParameter):
        raise error(f"{name} is a tensor without values (device 'meta', or not initialised): give one with values.")
    if value.is_nested:
        raise error(f"{name} is a nested tensor, whose images differ in size: give images of one size.")
    _check_size(value.shape, name, error)
    found = plain_tensor(value.detach())
    if found.is_quantized:
        found = found.dequantize()
    if found.layout is not torch.strided:
        found = found.to_dense()
    if found.is_complex():
        raise error(f"{name} is {found.dtype}, expected real numbers.")
    if found.untyped_storage().nbytes() < _bytes_of(found) or found.untyped_storage().device.type == "meta":
        raise error(f"{name} is a tensor whose memory was given back, or that never had any: give one with values.")
    found = found.resolve_neg()
    # What was made in inference mode cannot be used where gradients are needed.
    return found.clone() if found.is_inference() else found


def plain_tensor(value: Tensor) -> Tensor:
    """A tensor without what a subclass does in Python; one that has no memory of its own stays what it is."""
    if type(value) is Tensor or type(value).__torch_dispatch__ is not Tensor.__torch_dispatch__:
        return value
    return value.as_subclass(Tensor)


def _check_size(shape: Sequence[int], name: str, error: type[FaithmapError]) -> None:
    """Refuse what no memory holds; a view that repeats its values takes none itself."""
    if math.prod(shape) > MOST_NUMBERS:
        raise error(f"{name} has shape {tuple(shape)}, more than {MOST_NUMBERS:,} numbers: give fewer.")


def _bytes_of(value: Tensor) -> int:
    """How many bytes of its storage a tensor reaches into."""
    reach = sum((size - 1) * stride for size, stride in zip(value.shape, value.stride(), strict=True))
    return int(value.storage_offset() + reach + 1) * value.element_size() if value.numel() else 0


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
