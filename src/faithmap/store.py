"""The run folder: a manifest, scores as a plain Parquet data set, and some heatmaps. Only this module writes it.

    runs/fig4/
      manifest.json                              what was run
      scores/part-<rows>-<hash>.parquet    rows: see `SCHEMA`; <rows> stands for which rows these are
      heatmaps/part-<hash>.safetensors     images with their heatmaps: a sample, or all on request

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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from uuid import uuid4

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors
import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor

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


@dataclass(frozen=True, eq=False)
class Example:
    """One image with its heatmaps, as a run stores them.

    Attributes:
        image: the image's id.
        pixels: the untouched image in pixel space.
        label: true class, None where it is not known.
        predicted, target: the network's class, and the class that was scored.
        heatmaps: method → signed relevance (H, W); random orders have none.
    """

    image: str
    pixels: Float[Tensor, "3 height width"] = field(repr=False)
    label: int | None
    predicted: int
    target: int
    heatmaps: dict[str, Tensor] = field(repr=False)


@dataclass(frozen=True)
class HeatmapParts:
    """Where stored heatmaps are: (image, method) → (part, name of the tensor in it, target class)."""

    places: Mapping[tuple[str, str], tuple[Path, str, int]] = field(default_factory=dict)

    def heatmap(self, image: str, method: str, target: int) -> Tensor | None:
        """The stored heatmap, or None where there is none for this class."""
        path, tensor, of_target = self.places.get((image, method), (None, "", 0))
        if path is None or of_target != target:
            return None
        with safetensors.safe_open(path, "pt") as part:
            stored: Tensor = part.get_tensor(tensor)
        return stored


class Store:
    """A run folder.

    Args:
        folder: made by `lock` when it does not exist.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.scores_folder = self.folder / "scores"
        self.heatmaps_folder = self.folder / "heatmaps"

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
            self.heatmaps_folder.mkdir(exist_ok=True)
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
        """Add rows; the part is there as a whole or not at all. Rows that are there already are not added again.

        Raises:
            StoreError: the disk is full, or cannot be written.
        """
        table = pa.Table.from_pandas(frame, schema=SCHEMA, preserve_index=False)
        buffer = io.BytesIO()
        pq.write_table(table.replace_schema_metadata({"faithmap_format": str(FORMAT)}), buffer, compression="zstd")
        data = buffer.getvalue()
        key = _name(repr(table.select(["image", "method", "order", "draw", "step"]).to_pydict()).encode())
        for path in self.scores_folder.glob(f"part-{key}-*.parquet"):
            if _is_whole(path, path.read_bytes()):
                return path
        path = self.scores_folder / f"part-{key}-{_name(data)}.parquet"
        self._write(path, data)
        return path

    def write_examples(self, examples: Sequence[Example]) -> Path:
        """Add images with their heatmaps; the part is there as a whole or not at all.

        Raises:
            StoreError: the disk is full, or cannot be written.
        """
        tensors, described = {}, []
        for index, example in enumerate(examples):
            tensors[f"{index}/pixels"] = _as_bytes(example.pixels)
            described.append({name: getattr(example, name) for name in ("image", "label", "predicted", "target")})
            for method, heatmap in example.heatmaps.items():
                tensors[f"{index}/heatmap/{method}"] = heatmap.contiguous()
        metadata = {"format": str(FORMAT), "examples": json.dumps(described)}
        data = safetensors.torch.save(tensors, metadata)
        path = self.heatmaps_folder / f"part-{_name(data)}.safetensors"
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
        """All parts with scores, whole or not."""
        by_rows: dict[str, Path] = {}
        for path in sorted(self.scores_folder.glob("part-*.parquet")):
            by_rows.setdefault(path.stem.rpartition("-")[0], path)  # the same rows computed twice count once
        return list(by_rows.values())

    def heatmap_parts(self) -> list[Path]:
        """All parts with heatmaps, whole or not."""
        return sorted(self.heatmaps_folder.glob("part-*.safetensors"))

    def damaged_parts(self) -> list[Path]:
        """Parts whose bytes are not those that were written."""
        parts = (*self.scores_folder.glob("part-*.parquet"), *self.heatmap_parts())
        return sorted(path for path in parts if not _is_whole(path, path.read_bytes()))

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
        tables = [self._read(path, columns) for path in paths]
        frame = pa.concat_tables(tables, promote_options="default").to_pandas(
            types_mapper={pa.int32(): pd.Int32Dtype()}.get
        )
        for column in ("predicted", "target"):
            if column in frame:
                frame[column] = frame[column].astype("int32")
        by = [name for name in ("image", "method", "order", "draw", "step") if name in frame]
        ordered: pd.DataFrame = frame.sort_values(by, ignore_index=True)
        return ordered

    def finished_steps(self) -> dict[str, dict[Chain, list[range]]]:
        """Image → chain → the runs of steps that are stored."""
        finished: dict[str, dict[Chain, list[range]]] = defaultdict(lambda: defaultdict(list))
        keys = ["image", "method", "order", "draw"]
        for path in self.parts():
            table = self._read(path, [*keys, "step"]).group_by(keys).aggregate([("step", "min"), ("step", "max")])
            for row in table.to_pylist():
                chain = (row["method"], row["order"], row["draw"])
                finished[row["image"]][chain].append(range(row["step_min"], row["step_max"] + 1))
        return finished

    def stored_heatmaps(self) -> HeatmapParts:
        """Where the heatmaps are."""
        places = {}
        for path in self.heatmap_parts():
            with _open_part(path) as part:
                described = json.loads(part.metadata()["examples"])
                for tensor in part.keys():  # noqa: SIM118
                    index, kind, *method = tensor.split("/", 2)
                    if kind == "heatmap":
                        example = described[int(index)]
                        places[example["image"], method[0]] = (path, tensor, example["target"])
        return HeatmapParts(places)

    def examples(self, images: Iterable[str] | None = None) -> Iterator[Example]:
        """Images with all their stored heatmaps, one after the other; None takes all that there are."""
        where: dict[str, list[tuple[Path, int]]] = defaultdict(list)
        for path in self.heatmap_parts():
            with _open_part(path) as part:
                for index, example in enumerate(json.loads(part.metadata()["examples"])):
                    where[example["image"]].append((path, index))
        for image in where if images is None else images:
            found = [_read_example(path, index) for path, index in where.get(image, [])]
            if found:
                heatmaps = {method: heatmap for example in found for method, heatmap in example.heatmaps.items()}
                shown = {f.name: getattr(found[0], f.name) for f in fields(Example)}
                yield Example(**{**shown, "heatmaps": heatmaps})

    def _read(self, path: Path, columns: Sequence[str] | None = None) -> pa.Table:
        data = path.read_bytes()
        if not _is_whole(path, data):
            raise StoreError(f"{path} is damaged: run the same command again to compute it anew.")
        table = pq.read_table(pa.BufferReader(data), columns=columns)
        found = int((table.schema.metadata or {}).get(b"faithmap_format", FORMAT))
        if found > FORMAT:
            raise StoreError(f"{path} has format {found}, this version reads up to {FORMAT}: update faithmap.")
        return table

    def export(self, path: str | Path) -> Path:
        """All rows as one Parquet file, written part by part."""
        path = Path(path)
        temporary = path.with_name(f".tmp-{uuid4().hex}")
        try:
            with pq.ParquetWriter(temporary, SCHEMA, compression="zstd") as writer:
                for part in self.parts():
                    writer.write_table(self._read(part, SCHEMA.names).cast(SCHEMA))
            os.replace(temporary, path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise StoreError(f"{path} could not be written ({error.strerror or error}): make room.") from error
        return path


def _open_part(path: Path) -> Any:
    try:
        part: Any = safetensors.safe_open(path, "pt")
    except (safetensors.SafetensorError, OSError) as error:
        raise StoreError(f"{path} is damaged ({error}): run the same command again to compute it anew.") from error
    found = int((part.metadata() or {}).get("format", FORMAT))
    if found > FORMAT:
        raise StoreError(f"{path} has format {found}, this version reads up to {FORMAT}: update faithmap.")
    return part


def _read_example(path: Path, index: int) -> Example:
    with _open_part(path) as part:
        described = json.loads(part.metadata()["examples"])[index]
        pixels = part.get_tensor(f"{index}/pixels")
        prefix = f"{index}/heatmap/"
        heatmaps = {n.removeprefix(prefix): part.get_tensor(n) for n in part.keys() if n.startswith(prefix)}  # noqa: SIM118
    known = {f.name for f in fields(Example)}
    shown = {name: value for name, value in described.items() if name in known}
    return Example(**shown, pixels=pixels.div(255) if pixels.dtype == torch.uint8 else pixels, heatmaps=heatmaps)


def _as_bytes(pixels: Tensor) -> Tensor:
    """Pixels that came from bytes as these bytes, others as they are."""
    exact = pixels.mul(255).round().to(torch.uint8)
    return exact.contiguous() if torch.equal(exact.div(255), pixels) else pixels.contiguous()


def _is_whole(path: Path, data: bytes) -> bool:
    """A part's name ends in the hash of its bytes."""
    return path.stem.rpartition("-")[2] == _name(data)


def _name(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:24]
