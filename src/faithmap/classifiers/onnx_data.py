"""Which other files an ONNX file takes its weights from.

`torch.onnx.export` writes large weights beside the file. ONNX is a protobuf; only the few messages on the way to a
tensor's `external_data` are walked through, so that no further package is needed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from faithmap.errors import ClassifierError
from faithmap.files import file_digest, read_bytes

# Message → field number → the message in it, as onnx.proto names them.
_INSIDE: dict[str, dict[int, str]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "FunctionProto": {7: "NodeProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {5: "TensorProto", 6: "GraphProto", 10: "TensorProto", 11: "GraphProto", 22: "SparseTensorProto"},
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    "TensorProto": {13: "StringStringEntryProto"},
}
_DEEPEST = 100


def onnx_digest(path: Path) -> str:
    """SHA-256 over an ONNX file and all files that hold its weights, in hex digits.

    Raises:
        ClassifierError: a file that is missing, or outside the folder of the ONNX file.
        OSError: a file that cannot be read.
    """
    data = read_bytes(path, 1 << 32)
    beside = sorted(set(external_files(data)))
    if not beside:
        return hashlib.sha256(data).hexdigest()
    digest = hashlib.sha256(hashlib.sha256(data).digest())
    for name in beside:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise ClassifierError(f"{path} takes weights from {name!r}, outside its folder: export it again.")
        if not (path.parent / name).is_file():
            raise ClassifierError(f"{path} takes weights from {name!r}, which is not beside it: copy it there.")
        digest.update(f"{name} {file_digest(path.parent / name)}".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def external_files(model: bytes) -> list[str]:
    """The names of the files that the tensors of a model lie in; none for what is no ONNX model.

    Example:
        >>> external_files(b"")
        []
    """
    try:
        return list(_locations(memoryview(model), "ModelProto", 0))
    except (ValueError, IndexError):
        return []


def _locations(message: memoryview, kind: str, depth: int) -> Iterator[str]:
    if depth > _DEEPEST:
        raise ValueError("nested too deeply")
    if kind == "StringStringEntryProto":
        entry = dict(_fields(message))
        if bytes(entry.get(1, b"")) == b"location":
            yield bytes(entry.get(2, b"")).decode("utf-8", "surrogateescape")
        return
    for number, content in _fields(message):
        inside = _INSIDE[kind].get(number)
        if inside is not None:
            yield from _locations(content, inside, depth + 1)


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The fields of a message that have a length: strings, bytes and other messages; the others are passed over."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        match key & 7:
            case 0:
                _, at = _varint(message, at)
            case 1:
                at += 8
            case 5:
                at += 4
            case 2:
                length, at = _varint(message, at)
                if at + length > len(message):
                    raise ValueError("cut off")
                yield key >> 3, message[at : at + length]
                at += length
            case _:
                raise ValueError("no protobuf")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("no number")
