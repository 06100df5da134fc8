"""The run folder: a manifest, and scores as a plain Parquet data set. Only this module writes it.

    runs/fig4/
      manifest.json                    what was run
      scores/part-<content hash>.parquet   rows: see `SCHEMA`; whole or not there at all

A part is written under a temporary name and renamed once it is on disk; its name is the hash of its bytes, so that a
part which was cut off or changed later is found, named and computed again.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import socket
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from faithmap.errors import StoreError

FORMAT = 1
SCHEMA = pa.schema(
    [
        ("image", pa.string()),
        ("label", pa.int32()),
        ("predicted", pa.int32()),
        ("target", pa.int32()),
        ("method", pa.string()),
        ("order", pa.string()),
        ("draw", pa.int16()),
        ("step", pa.int16()),
        ("logit", pa.float32()),
        ("probability", pa.float32()),
    ]
)
# Chains of one image: (method, order, draw).
Chain = tuple[str, str, int]


class Store:
    """A run folder.

    Args:
        folder: made by `lock` when it does not exist.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.scores_folder = self.folder / "scores"

    @property
    def manifest_path(self) -> Path:
        return self.folder / "manifest.json"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for writing; the operating system lets go of it when the process ends, however it ends.

        Raises:
            StoreError: another process holds it, or the folder cannot be written.
        """
        try:
            self.scores_folder.mkdir(parents=True, exist_ok=True)
            handle = open(self.folder / ".lock", "a+")  # noqa: SIM115
        except OSError as error:
            raise StoreError(f"the run folder {self.folder} cannot be written ({error}): choose another.") from error
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                handle.seek(0)
                raise StoreError(
                    f"the run folder {self.folder} is in use by {handle.read().strip() or 'another process'}: wait "
                    "until it is done, or choose another folder."
                ) from None
            handle.truncate(0)
            handle.write(f"process {os.getpid()} on {socket.gethostname()}")
            handle.flush()
            for left_over in self.folder.rglob(".tmp-*"):
                left_over.unlink(missing_ok=True)
            yield

    def read_manifest(self) -> dict[str, Any] | None:
        """The manifest, or None where there is none yet.

        Raises:
            StoreError: a manifest that cannot be read, or of a newer format.
        """
        try:
            manifest: dict[str, Any] = json.loads(self.manifest_path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (ValueError, OSError) as error:
            raise StoreError(f"{self.manifest_path} cannot be read ({error}): choose a new folder.") from error
        found = manifest.get("format")
        if not isinstance(found, int) or found > FORMAT:
            writer = manifest.get("versions", {}).get("faithmap")
            raise StoreError(
                f"{self.manifest_path} has format {found}, written by faithmap {writer}; "
                f"this version reads up to {FORMAT}: update faithmap."
            )
        return manifest

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Replace the manifest as a whole."""
        text = json.dumps({"format": FORMAT, **manifest}, indent=2, ensure_ascii=False)
        self._write(self.manifest_path, text.encode("utf-8", "backslashreplace"))

    def write_part(self, frame: pd.DataFrame) -> Path:
        """Add rows; the part is there as a whole or not at all.

        Raises:
            StoreError: the disk is full, or cannot be written.
        """
        table = pa.Table.from_pandas(frame, schema=SCHEMA, preserve_index=False)
        buffer = io.BytesIO()
        pq.write_table(table.replace_schema_metadata({"faithmap_format": str(FORMAT)}), buffer, compression="zstd")
        data = buffer.getvalue()
        path = self.scores_folder / f"part-{_name(data)}.parquet"
        self._write(path, data)
        return path

    def _write(self, path: Path, data: bytes) -> None:
        temporary = path.with_name(f".tmp-{uuid4().hex}")
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise StoreError(
                f"{path} could not be written ({error.strerror or error}): what is finished is safe; make room and run "
                "the same command again to go on."
            ) from error

    def parts(self) -> list[Path]:
        """All parts, whole or not."""
        return sorted(self.scores_folder.glob("part-*.parquet"))

    def damaged_parts(self) -> list[Path]:
        """Parts whose bytes are not those that were written."""
        return [path for path in self.parts() if path.stem != f"part-{_name(path.read_bytes())}"]

    def remove_damaged_parts(self) -> list[Path]:
        """Set damaged parts aside (their rows are then missing, and computed again); returns their paths."""
        damaged = self.damaged_parts()
        for path in damaged:
            path.rename(path.with_suffix(".damaged"))
        return damaged

    def frame(self, columns: Sequence[str] | None = None, parts: Sequence[Path] | None = None) -> pd.DataFrame:
        """All rows as one tidy frame, sorted; unknown columns are kept.

        Raises:
            StoreError: no parts, or one that is damaged.
        """
        paths = self.parts() if parts is None else parts
        if not paths:
            raise StoreError(f"{self.folder} holds no scores: run `faithmap run … --out {self.folder}` first.")
        tables = []
        for path in paths:
            data = path.read_bytes()
            if path.stem != f"part-{_name(data)}":
                raise StoreError(f"{path} is damaged: run the same command again to compute it anew.")
            table = pq.read_table(pa.BufferReader(data), columns=columns)
            found = int((table.schema.metadata or {}).get(b"faithmap_format", FORMAT))
            if found > FORMAT:
                raise StoreError(f"{path} has format {found}, this version reads up to {FORMAT}: update faithmap.")
            tables.append(table)
        frame = pa.concat_tables(tables, promote_options="default").to_pandas(
            types_mapper={pa.int32(): pd.Int32Dtype()}.get
        )
        for column in ("predicted", "target"):
            if column in frame:
                frame[column] = frame[column].astype("int32")
        by = [name for name in ("image", "method", "order", "draw", "step") if name in frame]
        ordered: pd.DataFrame = frame.sort_values(by, ignore_index=True)
        return ordered

    def finished_chains(self) -> dict[str, dict[Chain, int]]:
        """Image → chain → the number of points stored (steps + 1)."""
        finished: dict[str, dict[Chain, int]] = defaultdict(dict)
        if self.parts():
            frame = self.frame(columns=["image", "method", "order", "draw"])
            counts = frame.groupby(list(frame.columns), sort=False).size().reset_index(name="points")
            for image, method, order, draw, points in counts.itertuples(index=False):
                finished[image][method, order, int(draw)] = int(points)
        return finished

    def export(self, path: str | Path) -> Path:
        """All rows as one Parquet file."""
        table = pa.Table.from_pandas(self.frame(), preserve_index=False)
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        self._write(Path(path), buffer.getvalue())
        return Path(path)


def _name(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:24]
