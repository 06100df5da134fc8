"""Files that others wrote: only regular ones are opened, and never more of them than was agreed on."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import re
import shutil
import stat
from collections.abc import Collection, Container, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from faithmap.errors import StoreError, shortened, shown
from faithmap.foreign import plain_text

GIGABYTE = 1 << 30
LONGEST_NAME = 255  # bytes, of a file on the usual disks


def open_regular(path: str | Path) -> io.BufferedReader:
    """Open a regular file for reading. A pipe, a device or a socket is refused at once, because reading may never end.

    Raises:
        OSError: not a regular file, or one that cannot be opened.
    """
    # Looked at before it is opened, because opening a device may do something; without waiting, because a pipe may
    # have taken the file's place in between.
    try:
        mode = os.stat(path).st_mode
    except ValueError as error:  # half a character, or a zero byte
        raise OSError(errno.EINVAL, "a name that no file can have", str(path)) from error
    _check_regular(mode, path)
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        _check_regular(os.fstat(handle).st_mode, path)
        return io.BufferedReader(io.FileIO(handle, "rb"))
    except BaseException:
        os.close(handle)
        raise


def read_bytes(path: str | Path, most: int = GIGABYTE) -> bytes:
    """All bytes of a regular file.

    Raises:
        OSError: not a regular file, one that cannot be read, or one of more than `most` bytes.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        data = b"" if size > most else file.read(size + 1)
        if len(data) == size + 1 <= most:  # it has grown meanwhile
            data += file.read(most - size)
    if max(size, len(data)) > most:
        raise OSError(errno.EFBIG, f"larger than {most:,} bytes", str(path))
    return data


def file_digest(path: str | Path) -> str:
    """SHA-256 of a regular file of any size, in hex digits."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_in(folder: str | Path, suffixes: Container[str], most: int = 2_000_000) -> list[Path]:
    """The regular files of a folder and all below, in name order.

    Links to folders and hidden names are left out, and run folders and studies below: their figures are results.

    Args:
        folder: where to look.
        suffixes: in lower case, dot included.
        most: entries that are looked at; a folder such as ``/`` has no end.
    Raises:
        OSError: more of them, or a folder that may not be looked into.
    """
    found, seen = [], 0
    for root, folders, files in os.walk(folder, onerror=_refused):
        if root != os.fspath(folder) and is_result(folders, files):
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        seen += len(folders) + len(files)
        if seen > most:
            raise OSError(errno.EFBIG, f"it holds more than {most:,} files and folders", str(folder))
        found += [Path(root, name) for name in files if not name.startswith(".") and _suffix(name) in suffixes]
    return sorted(found)


def by_id(folder: Path, files: Iterable[Path]) -> dict[str, Path]:
    """Path under the folder, without suffix → file.

    Raises:
        OSError: two files of one name, of which either could be meant.
    """
    found: dict[str, Path] = {}
    for file in files:
        name = file.relative_to(folder).with_suffix("").as_posix()
        if found.setdefault(name, file) != file:
            both = f"{found[name].name} and {file.name}"
            raise OSError(errno.EEXIST, f"{both} are for the same image, keep one", str(folder))
    return found


def _refused(error: OSError) -> None:
    """What `os.walk` passes over in silence: a folder that cannot be listed."""
    raise error


def is_result(folders: Collection[str], files: Collection[str]) -> bool:
    """Whether a folder of these names is a run folder or a study."""
    return not {"manifest.json", "study.json"}.isdisjoint(files) and not {"scores", ".tmp"}.isdisjoint(folders)


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def state_of(path: str | Path) -> tuple[int, ...]:
    """Changes whenever a file is replaced or written: its number, size and times."""
    found = os.stat(path)
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def expanded(path: str | Path) -> Path:
    """A path with ``~`` written out, where the home folder is known."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def as_folder(value: object, name: str) -> Path:
    """A folder as it was given, ``~`` written out; it need not exist.

    Raises:
        StoreError: no path, or one that exists and is no folder.
    """
    path = as_path(value, name)
    try:
        if path.exists() and not path.is_dir():
            raise StoreError(f"{name} is {path}, which is no folder: give another.")
    except OSError as error:
        raise StoreError(f"{name} is {shown(str(path))}, which cannot be a folder ({error.strerror}).") from None
    return path


def as_path(value: object, name: str) -> Path:
    """A path of a file or folder, ``~`` written out, that need not exist.

    Raises:
        StoreError: no path, or one that is too long for any disk.
    """
    try:
        text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
        text = plain_text(text) if isinstance(text, str) else None
        if text is not None and text.strip() and "\0" not in text:
            path = expanded(Path(text))
            if (long := max(map(len, map(os.fsencode, path.parts)), default=0)) > LONGEST_NAME:
                why = f"with a name of {long} bytes, and a disk takes {LONGEST_NAME}"
                raise StoreError(f"{name} is {shortened(str(path), 60)}, {why}: give a shorter one.")
            os.lstat(path)
            return path
    except StoreError:
        raise
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:  # of all others, whoever opens it says what is wrong
            return path
        raise StoreError(
            f"{name} is {shortened(str(path), 60)}, a path that is too long: give a shorter one."
        ) from None
    except Exception:  # half a character, which is in no file's name; and anybody's object
        pass
    raise StoreError(f"{name} is {shown(value)}: give a path.")


def writable(value: object, name: str = "the file") -> Path:
    """Where a file is to be written, ``~`` written out: a new name, or a regular file that may be replaced.

    Raises:
        StoreError: no path, a URL, a folder, or a device, which would be replaced by a file.
    """
    path = as_path(value, name)
    if re.match(r"[A-Za-z][A-Za-z0-9+.:-]+:/", str(path)):
        raise StoreError(f"{name} is {shown(str(path))}, a URL: give a path on a disk.")
    try:
        if path.exists():
            _check_regular(os.stat(path).st_mode, path)
    except OSError as error:
        raise StoreError(f"{shown(str(path))} is not a file to write to ({error.strerror}): give another.") from None
    return path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name to write to; what is there at the end takes the place of `path` as a whole, or nothing does.

    A link stays one, and what it points at is replaced: ``/dev/stdout`` is a link.

    Raises:
        OSError: no regular file, or a place that cannot be written.
    """
    try:
        target = path.resolve()
    except RuntimeError:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path)) from None
    if target.exists():
        _check_regular(os.stat(target).st_mode, path)
    temporary = target.with_name(f".tmp-{uuid4().hex}{path.suffix}")
    try:
        yield temporary
        if target.exists():  # who may read it stays as it was
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def _check_regular(mode: int, path: str | Path) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
