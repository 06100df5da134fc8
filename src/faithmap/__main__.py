"""`python -m faithmap` is the command `faithmap`; Ctrl-C ends it without a traceback, even while it is imported."""

import _thread
import contextlib
import os
import signal
import sys
import time
from types import FrameType
from typing import Any, NoReturn

# A person who presses Ctrl-C presses it several times; within this many seconds they mean one thing.
ONCE = 3.0
_last = float("-inf")


def interrupted(_: int, frame: FrameType | None) -> None:
    """Stop, unless that was said a moment ago: a second interrupt would end the tidying up with a traceback.

    A library that is being loaded cannot be interrupted: some drop the exception, others end the process with it.
    """
    global _last
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            stop()
        frame = frame.f_back
    if time.monotonic() - _last >= ONCE:
        _last = time.monotonic()
        raise KeyboardInterrupt


def unraisable(what: Any) -> None:
    """An interrupt that fell into a destructor or a callback, where Python drops it, is said again."""
    global _last
    if issubclass(what.exc_type, KeyboardInterrupt):
        _last = float("-inf")
        _thread.interrupt_main()
    else:
        sys.__unraisablehook__(what)


def occupied() -> None:
    """Put the null device where a standard stream is closed: else a file of the run would get its number, and what
    libraries print would be written into it."""
    while (number := os.open(os.devnull, os.O_RDWR)) < 3:
        os.set_inheritable(number, True)
    os.close(number)


def main() -> None:
    """The command `faithmap`."""
    occupied()
    sys.unraisablehook = unraisable
    os.environ["MPLBACKEND"] = "agg"  # figures are files; a backend that is not there must not end a run
    try:
        # A background job of a shell, which ignores Ctrl-C, goes on ignoring it. SIGTERM is what a batch system sends
        # before it kills.
        for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
            if signal.getsignal(number) is usual:
                signal.signal(number, interrupted)
        from faithmap.cli import main as command

        command()
    except KeyboardInterrupt:
        stop()


def stop() -> NoReturn:
    """Leave at once. What a run has finished is stored, whenever its process ends."""
    with contextlib.suppress(OSError):
        os.write(2, b"\x1b[?25herror: stopped.\n" if os.isatty(2) else b"error: stopped.\n")  # the cursor is back
    os._exit(130)


if __name__ == "__main__":
    main()
