"""A setting of the process that the command line may make, and a library may not."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def tune_allocator() -> bool:
    """Let glibc keep freed memory instead of giving it back to the system at once.

    Every large activation then reuses pages that are there: fresh ones are written at about 3.5 GB/s, which made a
    dense SqueezeNet three times slower. Affects the whole process, so only programs call it, never a library.

    Returns:
        Whether the setting was made; it is known on Linux with glibc only.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
