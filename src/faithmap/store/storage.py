"""Where a run folder lies: on a disk, or at any URL that fsspec knows (``s3://``, ``gs://``, ``memory://``, …).

Names are relative to the folder, with ``/`` between parts: ``scores/part-….parquet``.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from uuid import uuid4

from faithmap.errors import StoreError, shown
from faithmap.files import as_folder, open_regular
from faithmap.foreign import plain_text
from faithmap.text import first_line

fcntl: Any = importlib.import_module("fcntl") if find_spec("fcntl") else None  # Windows has none

# What the lock protects: the plan. A writer looks at what is stored, repairs it, sweeps away half-written files,
# and then computes what is missing. With a second writer both would compute the same, and one would sweep away the
# files that the other is writing. Readers take no lock: a file is there as a whole or not at all, and no part
# changes under its name. Nor do the numbers rest on the lock: a part is named by the rows that it holds, so that
# two writers of the same rows write the same file, and rows that are there twice count once.
LOCK = ".lock"
TEMPORARY = ".tmp"
# A lease that its holder has not renewed for this many seconds is free.
LEASE = 60.0


@runtime_checkable
class Storage(Protocol):
    """A folder of files that are there as a whole or not at all."""

    url: str

    def names(self, folder: str) -> list[str]:
        """Names of the files in a folder of it, sorted; none where the folder does not exist."""
        ...

    def read(self, name: str, size: int | None = None) -> bytes:
        """The first bytes of a file, or all; `FileNotFoundError` where there is none."""
        ...

    def put(self, name: str, data: bytes) -> None:
        """Write or replace a file as a whole."""
        ...

    def move(self, name: str, to: str) -> None:
        """Give a file another name."""
        ...

    def remove(self, name: str) -> None:
        """Delete a file, if it is there."""
        ...

    def hold(self) -> contextlib.AbstractContextManager[None]:
        """Keep other writers out.

        Raises:
            StoreError: another process writes here.
        """
        ...


def open_storage(folder: str | Path) -> Storage:
    """A folder on a disk, or a URL.

    Raises:
        StoreError: a kind of URL that fsspec does not know or whose package is missing.
    """
    text = plain_text(folder) if isinstance(folder, str) else ""
    if "://" not in text:
        return LocalStorage(as_folder(folder, "the run folder"))
    if text.startswith("file://"):
        return LocalStorage(as_folder(text.removeprefix("file://"), "the run folder"))
    if not text.partition("://")[2].strip("/"):
        raise StoreError(
            f"the run folder {shown(text)} names no place: write, for example, {text.rstrip('/')}//runs/one."
        )
    return RemoteStorage(text)


def absolute(folder: str | Path) -> str:
    """The same place as processes with another working directory see it."""
    storage = open_storage(folder)
    return str(storage.folder.absolute()) if isinstance(storage, LocalStorage) else storage.url


class LocalStorage:
    """A folder on a local or mounted disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = str(folder)

    def names(self, folder: str) -> list[str]:
        """See `Storage`."""
        try:
            return sorted(f"{folder}/{entry.name}" for entry in os.scandir(self.folder / folder) if entry.is_file())
        except (FileNotFoundError, NotADirectoryError):
            return []

    def read(self, name: str, size: int | None = None) -> bytes:
        """See `Storage`."""
        with open_regular(self.folder / name) as file:
            return file.read(-1 if size is None else size)

    def put(self, name: str, data: bytes) -> None:
        """Write under a temporary name, wait until it is on disk, rename."""
        path, temporary = self.folder / name, self.folder / TEMPORARY / uuid4().hex
        for folder in (path.parent, temporary.parent):
            folder.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)

    def move(self, name: str, to: str) -> None:
        """See `Storage`."""
        (self.folder / to).parent.mkdir(parents=True, exist_ok=True)
        os.replace(self.folder / name, self.folder / to)

    def remove(self, name: str) -> None:
        """See `Storage`."""
        (self.folder / name).unlink(missing_ok=True)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Lock with the operating system, which lets go when the process ends, however it ends; else take a lease."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if fcntl is None:
            with lease(self):
                yield
            return
        # The lock file is never removed: who holds it open would go on holding a file that nobody else can find. Only
        # the operating system's lock counts; the note in the file is for the message to the second writer.
        with open(self.folder / LOCK, "a+", encoding="utf-8") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                locked = True
            except OSError as error:
                if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                    handle.seek(0)
                    raise in_use(self.url, handle.read()) from None
                locked = False  # this file system has no locks
            with contextlib.nullcontext() if locked else lease(self):
                if locked:
                    with contextlib.suppress(OSError):  # a full disk: the lock holds without the note
                        handle.truncate(0)
                        handle.write(json.dumps(_holder()))
                        handle.flush()
                self._sweep()
                try:
                    yield
                finally:
                    if locked:
                        with contextlib.suppress(OSError):
                            handle.truncate(0)

    def _sweep(self) -> None:
        """Remove what a killed writer left half-written."""
        for left_over in (self.folder / TEMPORARY).glob("*"):
            if left_over.is_dir() and not left_over.is_symlink():
                continue  # not ours: we write files
            left_over.unlink(missing_ok=True)


class RemoteStorage:
    """A URL that fsspec knows. Object stores put a file as a whole; there is no lock but a lease."""

    def __init__(self, url: str) -> None:
        import fsspec

        self.url = url.rstrip("/")
        try:
            self.files, self.root = fsspec.core.url_to_fs(self.url, use_listings_cache=False)
        except Exception as error:  # fsspec and its file systems raise whatever they like
            raise StoreError(f"{url} cannot be opened ({error}): install what fsspec needs for it.") from error

    def names(self, folder: str) -> list[str]:
        """See `Storage`."""
        try:
            with self._answering(folder):
                found = self.files.ls(f"{self.root}/{folder}", detail=True)
        except FileNotFoundError:
            return []
        return sorted(f"{folder}/{one['name'].rpartition('/')[2]}" for one in found if one["type"] == "file")

    def read(self, name: str, size: int | None = None) -> bytes:
        """See `Storage`."""
        with self._answering(name):
            data: bytes = self.files.cat_file(f"{self.root}/{name}", start=None, end=size)
        return data

    def put(self, name: str, data: bytes) -> None:
        """See `Storage`."""
        path = f"{self.root}/{name}"
        with self._answering(name):
            self.files.makedirs(path.rpartition("/")[0], exist_ok=True)
            self.files.pipe_file(path, data)

    def move(self, name: str, to: str) -> None:
        """See `Storage`."""
        self.put(to, self.read(name))
        self.remove(name)

    def remove(self, name: str) -> None:
        """See `Storage`."""
        with contextlib.suppress(FileNotFoundError), self._answering(name):
            self.files.rm_file(f"{self.root}/{name}")

    def hold(self) -> contextlib.AbstractContextManager[None]:
        """Take a lease."""
        return lease(self)

    @contextmanager
    def _answering(self, name: str) -> Iterator[None]:
        """What a file system raises, whatever it is, becomes an `OSError`."""
        try:
            yield
        except (OSError, MemoryError):
            raise
        except Exception as error:  # each has its own: of HTTP, of a cloud, a ValueError where it only reads
            raise OSError(errno.EIO, first_line(error), f"{self.url}/{name}") from error


def in_use(url: str, holder: str) -> StoreError:
    """Says who holds a folder."""
    try:
        who = json.loads(holder)
        named = f"process {who['process']} on {who['host']} since {who['since']}"
    except (ValueError, KeyError, TypeError):
        named = "another process"
    return StoreError(f"the run folder {url} is in use by {named}: wait until it is done, or choose another folder.")


@contextmanager
def lease(storage: Storage, seconds: float | None = None) -> Iterator[None]:
    """Hold a folder where there are no locks: a note that is renewed; one that is not renewed any more is free.

    Two processes that start within the same second may both get it for a moment; parts are idempotent, so that no row
    is lost or counted twice.
    """
    seconds = LEASE if seconds is None else seconds
    note = {**_holder(), "token": uuid4().hex}

    def renew() -> None:
        storage.put(LOCK, json.dumps({**note, "renewed": time.time()}).encode())

    def found() -> dict[str, Any]:
        try:
            read: dict[str, Any] = json.loads(storage.read(LOCK))
            return read if isinstance(read, dict) else {}
        except (FileNotFoundError, ValueError):
            return {}

    # There is no test-and-set on an object store. Everybody who finds the folder free writes a note, waits until the
    # notes of the others must have arrived, and reads: the last to have written has it.
    holder = found()
    if holder and not _expired(holder, seconds):
        raise in_use(storage.url, json.dumps(holder))
    renew()
    time.sleep(min(0.2, seconds / 10))
    if (holder := found()).get("token") != note["token"]:
        raise in_use(storage.url, json.dumps(holder))
    done = threading.Event()

    def keep() -> None:
        while not done.wait(seconds / 4):
            with contextlib.suppress(Exception):  # tried again next time
                renew()

    keeper = threading.Thread(target=keep, daemon=True)
    keeper.start()
    try:
        yield
    finally:
        done.set()
        keeper.join()
        if found().get("token") == note["token"]:
            storage.remove(LOCK)


def _holder() -> dict[str, Any]:
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return {"process": os.getpid(), "host": socket.gethostname(), "since": since}


def _expired(holder: dict[str, Any], seconds: float) -> bool:
    try:
        process, renewed = int(holder.get("process", 0)), float(holder.get("renewed", 0))
        if holder.get("host") == socket.gethostname() and not _alive(process):
            return True
    except (TypeError, ValueError, OverflowError):  # no note of ours
        return True
    # A note from the future is one from before a clock was put back.
    return not abs(time.time() - renewed) <= seconds


def _alive(process: int) -> bool:
    if os.name == "nt":
        return True  # os.kill ends a process there
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut, where the file system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
