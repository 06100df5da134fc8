"""The two consoles, and what goes wrong as one sentence and an exit code."""

from __future__ import annotations

import codecs
import functools
import io
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import typer
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from faithmap import text as naming
from faithmap.errors import (
    ClassifierWarning,
    EngineWarning,
    FaithmapError,
    MethodWarning,
    PluginWarning,
    StoreError,
    StoreWarning,
)
from faithmap.files import expanded

# Names of files, classes and methods come from outside: nothing in them is markup or an emoji.
out = Console(markup=False, emoji=False)
err = Console(stderr=True, markup=False, emoji=False)
_F = TypeVar("_F", bound=Callable[..., Any])
_ROOM_FOR_A_TABLE = 100  # characters in a line, for a table of names and sentences


# What stands in for signs that a terminal's encoding does not have.
_LOOKALIKES: dict[int, Any] = str.maketrans("−×─┼┊●ℓ✓✗·–’\u202f\xa0", "-x-+:ol+x.-'  ")
_WORDS: dict[str, str] = {"…": "...", "→": "->", "∞": "inf", "ε": "eps", "α": "alpha", "β": "beta", "γ": "gamma"}


def lookalike(error: UnicodeError) -> tuple[str, int]:
    """For `codecs.register_error`: a sign that cannot be written becomes one that looks like it, or an escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(
        _LOOKALIKES | {ord(sign): word for sign, word in _WORDS.items()}
    )
    return text.encode("ascii", "backslashreplace").decode("ascii"), error.end


def write_anything() -> None:
    """Let a terminal of any encoding take whatever is printed."""
    codecs.register_error("faithmap-lookalike", lookalike)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # in UTF-8 as well there are names that are no text: lone surrogates
            stream.reconfigure(errors="faithmap-lookalike")


def place(text: str) -> Path | str:
    """A run folder as it was given: a path, or a URL."""
    return text if "://" in text else path(text)


def path(text: str | Path) -> Path:
    """A path as it was given; an empty one would be the current folder."""
    if not str(text).strip():
        raise typer.BadParameter("it is empty: give a path.")
    return expanded(text)


def files_of(run: Path | str) -> Path:
    """Where the pictures of a run go: into its folder; for a URL, into a folder of that name here."""
    if isinstance(run, Path):
        return run
    folder = Path(run.rstrip("/").rpartition("/")[2])
    folder.mkdir(exist_ok=True)
    return folder


def show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """Our own warnings as one line; others are not for the user."""
    ours = (ClassifierWarning, EngineWarning, MethodWarning, PluginWarning, StoreWarning)
    if issubclass(category, ours):
        err.print(Text.assemble(("note: ", "bold yellow"), one_line(str(message))), soft_wrap=True)


def guarded(command: _F) -> _F:
    """Turn what can be expected to go wrong into one sentence and an exit code."""

    @functools.wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        write_anything()
        try:
            check_here()
            return command(*args, **kwargs)
        except FaithmapError as error:
            fail(str(error))
        except KeyboardInterrupt:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)  # we are leaving already
            fail("stopped. What is finished is stored: run the same command again to go on.", 130)
        except ValueError as error:
            if "MPLBACKEND" not in str(error) and "backend" not in str(error):
                raise
            fail(f"matplotlib cannot be used, MPLBACKEND is {os.environ.get('MPLBACKEND')}: {naming.first_line(error)}")
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            fail(f"{where}{error.strerror or error}.")
        except MemoryError:
            fail("out of memory: give a smaller --batch-size.")

    return wrapper  # type: ignore[return-value]


def check_here() -> None:
    """Refuse to start in a folder that is gone, where MKL ends the process with a message of its own.

    Raises:
        StoreError: the current folder was deleted.
    """
    try:
        os.getcwd()
    except FileNotFoundError:
        raise StoreError("the current folder was deleted: go to one that is there, with cd.") from None


def fail(message: str, code: int = 1) -> None:
    """Say what is wrong on standard error and leave."""
    err.print(Text.assemble(("error: ", "bold red"), one_line(message)), soft_wrap=True)
    raise typer.Exit(code)


def one_line(text: str) -> str:
    """Text with what cannot be printed written out, so that a file name cannot move the cursor, on one line."""
    return naming.printable(text, longest=2000)


def show_list(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Rows of words: a table where there is room for one, else a block for each. A row of one cell is a heading."""
    wide = out.width >= _ROOM_FOR_A_TABLE
    table = Table(box=None, title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column == columns[0])
    if not wide:
        out.print(Text(title, style="italic"))
    for row in rows:
        first, *others = map(one_line, row)
        if wide:
            table.add_row(Text(first, style="" if others else "bold"), *others)
            continue
        out.print(Text(first, style="bold"), overflow="fold")
        for cell in filter(None, others):
            out.print(Padding(Text(cell, overflow="fold"), (0, 0, 0, 4)))
    if wide:
        out.print(table)
