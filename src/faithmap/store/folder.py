"""The run folder: a manifest, scores as a plain Parquet data set, and some heatmaps. Only this module writes it.

    runs/fig4/
      manifest.json                        what was run
      scores/part-<rows>-<hash>.parquet    rows: see `SCHEMA`; <rows> stands for which rows were asked for
      heatmaps/part-<hash>.safetensors     images with their heatmaps: a sample, or all on request
      measures/part-<hash>.parquet         rows: see `MEASURE_SCHEMA`
      damaged/                             what was set aside

A part is there as a whole or not at all, and its name ends in the hash of its bytes, so that a part which was cut off
or changed later is found, named and computed again. Each part also says of which run it is, so that a manifest that is
lost is built anew.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.torch
import torch
from torch import Tensor

from faithmap._version import __version__
from faithmap.errors import StoreError, StoreWarning
from faithmap.files import replacing, writable
from faithmap.store.index import KEYS, Builder, StepRuns
from faithmap.store.manifest import DamagedError, Manifest
from faithmap.store.parts import (
    DICTIONARY,
    GROUP,
    MEASURE_KEYS,
    check_columns,
    checked_part,
    described,
    digest_of,
    header_bytes,
    heatmap_part,
    measures_of,
    metadata_of,
    read,
    run_of,
    schema_of,
    table_of,
    tensors_of,
)
from faithmap.store.records import FORMAT, MEASURE_SCHEMA, SCHEMA, Example
from faithmap.store.storage import LocalStorage, open_storage

SCORES, HEATMAPS, MEASURES, DAMAGED, MANIFEST = "scores", "heatmaps", "measures", "damaged", "manifest.json"


@dataclass(frozen=True)
class HeatmapParts:
    """Where stored heatmaps are: (image, method) → (folder, part, name of the tensor in it, target class)."""

    places: Mapping[tuple[str, str], tuple[str, str, str, int]] = field(default_factory=dict)

    def heatmap(self, image: str, method: str, target: int) -> Tensor | None:
        """The stored heatmap, or None where there is none for this class (any more)."""
        url, part, tensor, of_target = self.places.get((image, method), ("", "", "", 0))
        if not part or of_target != target:
            return None
        try:
            return heatmap_part(url, part)[tensor]
        except (StoreError, OSError):
            return None


class Store:
    """A run folder.

    Args:
        folder: on a disk, or a URL that fsspec knows; made when it does not exist.
    """

    def __init__(self, folder: str | Path) -> None:
        self.storage = open_storage(folder)
        self.url = self.storage.url
        self._manifest: Manifest | None = None

    @property
    def folder(self) -> Path:
        """Where the run is kept.

        Raises:
            StoreError: it is not on a disk.
        """
        if isinstance(self.storage, LocalStorage):
            return self.storage.folder
        raise StoreError(f"{self.url} is not on a disk: say where files are to be written.")

    @property
    def scores_folder(self) -> Path:
        """Where the parts with scores are."""
        return self.folder / SCORES

    @property
    def manifest_path(self) -> Path:
        """Where the manifest is."""
        return self.folder / MANIFEST

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for writing.

        Raises:
            StoreError: another process holds it, or the folder cannot be written.
        """
        with ExitStack() as stack:
            try:
                stack.enter_context(self.storage.hold())
            except OSError as error:
                raise StoreError(
                    f"the run folder {self.url} cannot be written ({error.strerror or error}): choose another."
                ) from error
            yield

    # The manifest.

    def read_manifest(self) -> Manifest | None:
        """The manifest, or None where there is none.

        Raises:
            StoreError: a manifest that is damaged (then a `DamagedError`), cannot be read, or is of a newer format.
        """
        name = f"{self.url}/{MANIFEST}"
        try:
            data = self.storage.read(MANIFEST)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"{name} cannot be read ({error.strerror or error}).") from error
        self._manifest = Manifest.from_bytes(data, name)
        return self._manifest

    def write_manifest(self, manifest: Manifest) -> None:
        """Replace the manifest as a whole."""
        self._manifest = manifest
        self._put(MANIFEST, manifest.to_bytes())

    def recover_manifest(self) -> Manifest | None:
        """What the parts say of the run: for a folder whose manifest is damaged or gone. None where there are no parts.

        Raises:
            StoreError: parts of different runs.
        """
        with suppress(FileNotFoundError):
            self.storage.read(MANIFEST, 1)
            self._set_aside(MANIFEST)
        found: Manifest | None = None
        for name in self.parts():
            own = run_of(self._part(name), name)
            if own is None:
                continue
            if found is None:
                found = own
                continue
            if found.fingerprint != own.fingerprint or found.classifier.decides() != own.classifier.decides():
                raise StoreError(f"{self.url} has no manifest and holds parts of different runs: choose a new one.")
            found = found.joined(own)
        return found

    # Parts.

    def write_part(self, frame: pd.DataFrame, key: str | None = None) -> str:
        """Add rows; the part is there as a whole or not at all. Columns that are not in `SCHEMA` are kept.

        Args:
            frame: see `SCHEMA`.
            key: stands for the rows that were asked for; by default, for those that are in the frame.
        Raises:
            StoreError: the disk is full, or cannot be written.
        """
        table = pa.Table.from_pandas(frame, preserve_index=False)
        further = [table.schema.field(name) for name in table.column_names if name not in SCHEMA.names]
        known = [one for one in SCHEMA if one.name != GROUP or GROUP in table.column_names]
        table = table.select([one.name for one in (*known, *further)]).cast(pa.schema([*known, *further]))
        return self._write_table(table, f"{SCORES}/part-{key or rows_key(frame)}", self._metadata(frame))

    def write_measures(self, frame: pd.DataFrame) -> str:
        """Add values of measures; the part is there as a whole or not at all.

        Args:
            frame: see `MEASURE_SCHEMA`.
        Raises:
            StoreError: the disk is full, or cannot be written.
        """
        table = pa.Table.from_pandas(frame, MEASURE_SCHEMA, preserve_index=False)
        return self._write_table(table, f"{MEASURES}/part", self._metadata(frame))

    def _write_table(self, table: pa.Table, name: str, metadata: Mapping[Any, Any]) -> str:
        buffer = io.BytesIO()
        pq.write_table(table.replace_schema_metadata(metadata), buffer, compression="zstd")
        data = buffer.getvalue()
        name = f"{name}-{digest_of(data)}.parquet"
        self._put(name, data)
        return name

    def _metadata(self, frame: pd.DataFrame) -> dict[str, str]:
        metadata = {"faithmap_format": str(FORMAT), "faithmap_version": __version__}
        manifest = self._manifest or self.read_manifest()
        if manifest is not None:
            own = manifest.of(frame["image"].unique(), frame["method"].unique())
            metadata["faithmap_run"] = json.dumps(own)
        return metadata

    def write_examples(self, examples: Sequence[Example]) -> str:
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
        metadata = {"format": str(FORMAT), "version": __version__, "examples": json.dumps(described)}
        data = safetensors.torch.save(tensors, metadata)
        name = f"{HEATMAPS}/part-{digest_of(data)}.safetensors"
        self._put(name, data)
        return name

    def _put(self, name: str, data: bytes) -> None:
        try:
            self.storage.put(name, data)
        except OSError as error:
            raise StoreError(
                f"{self.url}/{name} could not be written ({error.strerror or error}): what is finished is safe; make "
                "room and run the same command again to go on."
            ) from error

    def parts(self) -> list[str]:
        """Names of all parts with scores, whole or not."""
        return self._names(SCORES, ".parquet")

    def state(self) -> str | None:
        """A hash of the manifest and of the names of what was measured, or None where there are no scores.

        Parts are never changed, only added and replaced: the same state holds the same numbers.
        """
        parts = self.parts()
        if not parts:
            return None
        digest = hashlib.sha256(repr((sorted(parts), sorted(self.measure_parts()))).encode())
        with suppress(OSError):
            digest.update(self.storage.read(MANIFEST))
        return digest.hexdigest()

    def heatmap_parts(self) -> list[str]:
        """Names of all parts with heatmaps, whole or not."""
        return self._names(HEATMAPS, ".safetensors")

    def measure_parts(self) -> list[str]:
        """Names of all parts with measures, whole or not."""
        return self._names(MEASURES, ".parquet")

    def _names(self, folder: str, suffix: str) -> list[str]:
        """The parts in one of the folders.

        Raises:
            StoreError: it cannot be looked into.
        """
        try:
            names = self.storage.names(folder)
        except OSError as error:
            raise StoreError(f"{self.url}/{folder} cannot be read ({error.strerror or error}).") from error
        return [name for name in names if name.rpartition("/")[2].startswith("part-") and name.endswith(suffix)]

    def keys(self) -> set[str]:
        """What was asked for in the parts that are there; see `write_part`."""
        return {name.rpartition("-")[0].rpartition("part-")[2] for name in self.parts()}

    def damaged_parts(self) -> list[str]:
        """Parts whose bytes are not those that were written, and parts of another run.

        Raises:
            StoreError: a part of a newer format.
        """
        return [
            name for name in (*self.parts(), *self.heatmap_parts(), *self.measure_parts()) if not self._is_good(name)
        ]

    def _is_good(self, name: str) -> bool:
        try:
            data = self._part(name)
            self._look_into(name, data)
            own, run = (None if name.startswith(HEATMAPS) else run_of(data, f"{self.url}/{name}")), self._manifest
        except DamagedError:
            return False
        if run is None:
            return True
        return own is None or (
            own.fingerprint == run.fingerprint
            and own.classifier.fingerprint == run.classifier.fingerprint
            and all(run.images.get(name, one).content == one.content for name, one in own.images.items())
        )

    def _look_into(self, name: str, data: bytes) -> None:
        """Raise a `DamagedError` for a part that holds something else than it should, whatever its hash."""
        if name.startswith(HEATMAPS):
            described(f"{self.url}/{name}", data)
            tensors_of(data, f"{self.url}/{name}")
            return
        with read(f"{self.url}/{name}"):
            check_columns(data, MEASURE_SCHEMA if name.startswith(MEASURES) else SCHEMA)
            if name.startswith(MEASURES):
                measures_of(data, f"{self.url}/{name}")
            else:
                Builder().add(0, table_of(data, KEYS))
                table_of(data, ("predicted", "target", "label", "logit", "probability"))

    def repair(self) -> list[str]:
        """Set damaged parts aside (what was in them is then missing, and computed again), and drop rows that are there
        twice; returns the damaged parts, after a warning that names each.

        Raises:
            StoreError: a part of a newer format, or a folder that cannot be written.
        """
        damaged = self.damaged_parts()
        for name in damaged:
            self._set_aside(name)
        parts = self.parts()
        runs, lengths = self._index(parts)
        kept = np.bincount(runs.part, weights=runs.count, minlength=len(parts)).astype(int)
        for number in np.flatnonzero(kept < lengths).tolist():
            if kept[number]:
                data = self._part(parts[number])
                rows = np.sort(runs[np.flatnonzero(runs.part == number)].rows())
                table = table_of(data).take(pa.array(rows))
                key = rows_key(table.select(KEYS).to_pandas())
                self._write_table(table, f"{SCORES}/part-{key}", metadata_of(data))
            self._remove(parts[number])
        return damaged

    def _set_aside(self, name: str) -> None:
        to = f"{DAMAGED}/{uuid4().hex[:8]}-{name.rpartition('/')[2]}"
        try:
            self.storage.move(name, to)
        except OSError as error:
            where = f"{self.url}/{name}"
            raise StoreError(f"{where} is damaged and cannot be moved ({error.strerror or error}).") from error
        warnings.warn(
            f"{self.url}/{name} is damaged: set aside as {to}, and what was in it is computed again.",
            StoreWarning,
            stacklevel=3,
        )

    def _remove(self, name: str) -> None:
        try:
            self.storage.remove(name)
        except OSError as error:
            raise StoreError(f"{self.url}/{name} cannot be removed ({error.strerror or error}).") from error

    def _part(self, name: str) -> bytes:
        """The bytes of a part, which are those that were written."""
        try:
            data = self.storage.read(name)
        except OSError as error:
            raise StoreError(f"{self.url}/{name} cannot be read ({error.strerror or error}).") from error
        return checked_part(data, f"{self.url}/{name}")

    # Reading.

    def index(self, parts: Sequence[str] | None = None) -> StepRuns:
        """What is stored where.

        Raises:
            StoreError: a part that is damaged.
        """
        return self._index(self.parts() if parts is None else parts)[0]

    def _index(self, parts: Sequence[str]) -> tuple[StepRuns, np.ndarray[tuple[int], np.dtype[np.int64]]]:
        builder, lengths = Builder(), np.zeros(len(parts), dtype=np.int64)
        for number, name in enumerate(parts):
            data = self._part(name)
            with read(f"{self.url}/{name}"):
                check_columns(data, SCHEMA)
                keys = table_of(data, KEYS)
                lengths[number] = len(keys)
                builder.add(number, keys)
        return builder.build(), lengths

    def frame(self, columns: Sequence[str] | None = None, parts: Sequence[str] | None = None) -> pd.DataFrame:
        """All rows as one tidy frame, sorted; unknown columns are kept, names are categories.

        Raises:
            StoreError: no parts, or one that is damaged.
        """
        parts = self.parts() if parts is None else list(parts)
        return self._frame(self._some(parts), parts, columns)

    def _some(self, parts: Sequence[str]) -> StepRuns:
        """The index of some parts, which hold at least one score."""
        if not len(runs := self.index(parts)):
            raise StoreError(f"{self.url} holds no scores: run `faithmap run … --out {self.url}` first.")
        return runs

    def _frame(self, runs: StepRuns, parts: Sequence[str], columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The rows of the runs, in their order. Holds the result and one part at a time."""
        total = int(runs.count.sum())
        found: dict[str, Any] = {name: runs.names[name] for name in DICTIONARY}
        for name, categories in found.items():
            codes = getattr(runs, name).astype(np.min_scalar_type(-max(len(categories), 1)))
            found[name] = pd.Categorical.from_codes(np.repeat(codes, runs.count), pd.Index(categories, dtype="str"))
        found["draw"] = np.repeat(runs.draw.astype(np.int16), runs.count)
        found["step"] = runs.step().astype(np.int16)
        unknown_label = np.zeros(total, dtype=bool)
        to = np.cumsum(runs.count, dtype=np.int64) - runs.count
        by_part = np.argsort(runs.part, kind="stable")
        for which in np.split(by_part, np.flatnonzero(np.diff(runs.part[by_part])) + 1) if total else []:
            own = runs[which]
            rows, places = own.rows(), _ranges(to[which], own.count)
            part = parts[int(own.part[0])]
            data = self._part(part)
            with read(f"{self.url}/{part}"):
                table = table_of(data, columns, but=(*KEYS, GROUP))
            for name in table.column_names:
                column = table[name].take(pa.array(rows))
                if name in SCHEMA.names:
                    if name == "label":
                        unknown_label[places] = column.is_null().to_numpy()
                        column = column.fill_null(-1)
                    kind = SCHEMA.field(name).type.to_pandas_dtype()
                    found.setdefault(name, np.zeros(total, dtype=kind))[places] = column.to_numpy()
                else:
                    found.setdefault(name, np.full(total, None, dtype=object))[places] = column.to_pandas().to_numpy()
        if "label" in found:
            found["label"] = pd.arrays.IntegerArray(found["label"], unknown_label)
        known = [name for name in SCHEMA.names if name in found]
        order = [*known, *(name for name in found if name not in known)]
        frame = pd.DataFrame({name: found[name] for name in order if columns is None or name in columns}, copy=False)
        for name in frame.columns.difference(SCHEMA.names):
            frame[name] = frame[name].infer_objects()
        return frame

    def export(self, path: str | Path, rows: int = 1_000_000) -> Path:
        """All rows as one Parquet file, sorted; holds about `rows` rows at a time.

        Raises:
            StoreError: no parts, or one that is damaged; a file that cannot be written.
        """
        path = writable(path)
        parts = self.parts()
        manifest = self._manifest or self.read_manifest()
        groups = manifest.groups() if manifest is not None else {}
        runs = self._some(parts)
        piece = (np.cumsum(runs.count, dtype=np.int64) - runs.count) // rows
        cuts = [0, *(np.flatnonzero(np.diff(piece)) + 1).tolist(), len(runs)]
        try:
            schema = pa.unify_schemas([schema_of(self._part(name)) for name in parts])
            # An open file, because a name with a colon would be taken for a URL.
            with (
                replacing(path) as temporary,
                open(temporary, "wb") as file,
                pq.ParquetWriter(file, schema, compression="zstd") as writer,
            ):
                for start, stop in itertools.pairwise(cuts):
                    frame = self._frame(runs[start:stop], parts)
                    if GROUP in schema.names:
                        images = frame["image"].astype(str)
                        frame[GROUP] = images.map(groups).fillna(images)
                    missing = {name: None for name in schema.names if name not in frame}
                    writer.write_table(pa.Table.from_pandas(frame.assign(**missing), schema, preserve_index=False))
        except OSError as error:
            raise StoreError(f"{path} could not be written ({error.strerror or error}): make room.") from error
        return path

    def measures(self) -> pd.DataFrame:
        """All values of measures: image, group, method, measure, draw, value; sorted, each once.

        Raises:
            StoreError: a part that is damaged.
        """
        tables = [measures_of(self._part(name), f"{self.url}/{name}") for name in self.measure_parts()]
        frame = pa.concat_tables([MEASURE_SCHEMA.empty_table(), *tables])
        values: pd.DataFrame = frame.to_pandas().drop_duplicates(MEASURE_KEYS)
        return values.sort_values(MEASURE_KEYS, ignore_index=True)

    def stored_heatmaps(self) -> HeatmapParts:
        """Where the heatmaps are. Bytes are checked when a heatmap is read."""
        places = {}
        for name in self.heatmap_parts():
            header, described = self._described(name)
            for tensor in header:
                index, _, rest = tensor.partition("/")
                kind, _, method = rest.partition("/")
                if kind == "heatmap":
                    example = described[int(index)]
                    places[example["image"], method] = (self.url, name, tensor, example["target"])
        return HeatmapParts(places)

    def examples(self, images: Iterable[str] | None = None) -> Iterator[Example]:
        """Images with all their stored heatmaps, one after the other; None takes all that there are.

        Raises:
            StoreError: a part that is damaged.
        """
        where: dict[str, list[tuple[str, int, dict[str, Any]]]] = defaultdict(list)
        for name in self.heatmap_parts():
            for index, example in enumerate(self._described(name)[1]):
                where[example["image"]].append((name, index, example))
        known = {f.name for f in fields(Example)}
        for image in where if images is None else images:
            heatmaps, shown = {}, {}
            for name, index, example in where.get(image, []):
                tensors, prefix = heatmap_part(self.url, name), f"{index}/heatmap/"
                heatmaps.update({n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})
                shown = {what: value for what, value in example.items() if what in known}
                pixels = tensors[f"{index}/pixels"]
                shown["pixels"] = pixels.div(255) if pixels.dtype == torch.uint8 else pixels
            if shown:
                yield Example(**{**shown, "heatmaps": heatmaps})

    def _described(self, name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The tensors and the images of a part with heatmaps."""
        try:
            return described(f"{self.url}/{name}", header_bytes(self.storage, name))
        except OSError as error:
            raise StoreError(f"{self.url}/{name} cannot be read ({error.strerror or error}).") from error


def rows_key(frame: pd.DataFrame) -> str:
    """Stands for which rows a frame holds."""
    digest = hashlib.sha256()
    for name in KEYS:
        column = frame[name]
        if SCHEMA.field(name).type == pa.string():
            codes, names = pd.factorize(column)
            digest.update(json.dumps([str(one) for one in names]).encode())
            digest.update(codes.astype(np.int32).tobytes())
        else:
            digest.update(column.to_numpy().astype(np.int32).tobytes())
    return digest.hexdigest()[:24]


def _ranges(starts: Any, counts: Any) -> Any:
    """start … start + count − 1 for each, one after the other."""
    before = np.cumsum(counts, dtype=np.int64) - counts
    return np.repeat(starts - before, counts) + np.arange(int(counts.sum()))


def _as_bytes(pixels: Tensor) -> Tensor:
    """Pixels that came from bytes as these bytes, others as they are."""
    exact = pixels.mul(255).round().to(torch.uint8)
    return exact.contiguous() if torch.equal(exact.div(255), pixels) else pixels.contiguous()
