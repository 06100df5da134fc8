"""What stands in a part of a run folder: its bytes checked against its name, and its content against what it should be.

Whatever a part holds instead, with the right hash or a wrong one, is a `DamagedError` that names it.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.torch
from torch import Tensor

from faithmap.errors import StoreError
from faithmap.store.index import KEYS
from faithmap.store.manifest import Manifest, damaged, newer
from faithmap.store.records import FORMAT, MEASURE_SCHEMA, SCHEMA
from faithmap.store.storage import open_storage

DICTIONARY = [name for name in KEYS if SCHEMA.field(name).type == pa.string()]
MEASURE_KEYS = ["image", "method", "measure", "draw"]
# Written with the scores for those who read the parts; groups that count are those of the manifest.
GROUP = "group"
_FACTS = {"image": str, "label": int | None, "predicted": int, "target": int}
_PIXELS, _HEATMAPS = ("U8", "F32", "F64"), ("F32", "F64")


@contextmanager
def read(name: str) -> Iterator[None]:
    """What reading a part raises, whatever it is, says that the part is damaged."""
    try:
        yield
    except StoreError:
        raise
    except MemoryError:  # says nothing about the part
        raise StoreError(f"{name} needs more memory than there is: free some, or delete it and run again.") from None
    except Exception:  # pyarrow's, safetensors' and Python's own, by what stands there instead
        raise damaged(name) from None


def digest_of(data: bytes) -> str:
    """The hash in a part's name."""
    return hashlib.sha256(data).hexdigest()[:24]


def checked_part(data: bytes, name: str) -> bytes:
    """The bytes, if their hash is the one in the name; a newer format is refused whatever its hash."""
    whole = digest_of(data) == name.rpartition(".")[0].rpartition("-")[2]
    if whole and name.endswith(".safetensors"):
        return data
    with read(name):
        if name.endswith(".safetensors"):
            length = int.from_bytes(data[:8], "little")
            own = json.loads(data[8 : 8 + length]).get("__metadata__", {})
            found, version = own.get("format"), own.get("version")
        else:
            metadata = metadata_of(data)
            found, version = (
                value.decode() if value else None
                for value in (metadata.get(b"faithmap_format"), metadata.get(b"faithmap_version"))
            )
        _check_format(found, version, name)
    if not whole:
        raise damaged(name)
    return data


def _check_format(found: str | None, version: str | None, name: str) -> None:
    if found is not None and int(found) > FORMAT:
        raise newer(name, found, version)


# Parquet.


def metadata_of(part: bytes) -> dict[bytes, bytes]:
    """What a part says of itself."""
    found: dict[bytes, bytes] = pq.ParquetFile(pa.BufferReader(part)).schema_arrow.metadata or {}
    return found


def schema_of(part: bytes) -> pa.Schema:
    """The columns of a part."""
    return pq.ParquetFile(pa.BufferReader(part)).schema_arrow.remove_metadata()


def check_columns(part: bytes, schema: pa.Schema) -> None:
    """Refuse a part whose known columns are missing, there twice, or of other types."""
    found = schema_of(part)
    if any(found.field(one.name).type != one.type for one in schema if one.name != GROUP):
        raise ValueError("other columns")


def run_of(part: bytes, name: str) -> Manifest | None:
    """The run that a part says it is of."""
    with read(name):
        found = metadata_of(part).get(b"faithmap_run")
        return Manifest.from_parts(json.loads(found), name) if found else None


def table_of(part: bytes, columns: Sequence[str] | None = None, but: Sequence[str] = ()) -> pa.Table:
    """Some columns of a part with scores."""
    file = pq.ParquetFile(pa.BufferReader(part), read_dictionary=DICTIONARY)
    wanted = [n for n in file.schema_arrow.names if (columns is None or n in columns) and n not in but]
    return file.read(columns=wanted, use_threads=False)


def measures_of(part: bytes, name: str) -> pa.Table:
    """The values in a part with measures."""
    with read(name):
        found = pq.read_table(pa.BufferReader(part), use_threads=False).cast(MEASURE_SCHEMA)
        if any(found[key].null_count for key in MEASURE_KEYS):
            raise ValueError("a value of nothing")
        return found


# Heatmaps.


def header_bytes(storage: Any, name: str) -> bytes:
    """The beginning of a part with heatmaps, with all that describes it."""
    data: bytes = storage.read(name, 1 << 16)
    length = int.from_bytes(data[:8], "little")
    return data if length > 1 << 28 or len(data) >= 8 + length else storage.read(name, 8 + length)


def described(name: str, data: bytes) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The tensors and the images of a part with heatmaps, which belong together.

    Args:
        name: of the part.
        data: at least its header.
    """
    with read(name):
        length = int.from_bytes(data[:8], "little")
        header: dict[str, Any] = json.loads(data[8 : 8 + length])
        metadata = header.pop("__metadata__", {})
        _check_format(metadata.get("format"), metadata.get("version"), name)
        images: list[dict[str, Any]] = json.loads(metadata["examples"])
        for image in images:
            if not all(isinstance(image[fact], kind) for fact, kind in _FACTS.items()):
                raise ValueError(image)
        sizes = {str(at): header[f"{at}/pixels"]["shape"][1:] for at in range(len(images))}
        for tensor, facts in header.items():
            at, _, kind = tensor.partition("/")
            heatmap = kind.startswith("heatmap/")
            shape = facts["shape"] if heatmap else facts["shape"][1:]
            known = _HEATMAPS if heatmap else _PIXELS
            if shape != sizes[at] or len(shape) != 2 or facts["dtype"] not in known:
                raise ValueError(tensor)
        return header, images


def tensors_of(part: bytes, name: str) -> dict[str, Tensor]:
    """All tensors of a part with heatmaps."""
    with read(name):
        return safetensors.torch.load(part)


@functools.lru_cache(maxsize=2)
def heatmap_part(url: str, name: str) -> dict[str, Tensor]:
    """All tensors of a part, checked."""
    whole = f"{url}/{name}"
    try:
        data = open_storage(url).read(name)
    except OSError as error:
        raise StoreError(f"{whole} cannot be read ({error.strerror or error}).") from error
    return tensors_of(checked_part(data, whole), whole)
