"""Heatmaps and label maps in files that others wrote: damaged, huge, replaced, of any type."""

import io
import os
import time
import tracemalloc
import zipfile
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from faithmap import Protocol, evaluate, load_images
from faithmap.arrays import ArrayFileError, array_names, stored_array
from faithmap.attribution.registry import resolve_methods
from faithmap.errors import FaithmapError, ImageError, MethodError
from faithmap.perturbation import resolve_segments, segment


@contextmanager
def little_memory(most):
    """What Python allocates inside stays below a number of bytes."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


PROTOCOL = Protocol.preset(steps=2, region_size=4, draws=1)
PIXELS = torch.rand(4, 3, 24, 24, generator=torch.Generator().manual_seed(1))
MAP = np.random.default_rng(0).random((24, 24)).astype(np.float32)


def npy(array, **how):
    buffer = io.BytesIO()
    np.save(buffer, array, **how)
    return buffer.getvalue()


def header(shape, dtype="<f4"):
    """A .npy that claims a shape, and ends after its header."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def npz(members, compress=zipfile.ZIP_DEFLATED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compress) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return buffer.getvalue()


def damaged_member():
    data = bytearray(npz({str(n): npy(MAP + n) for n in range(4)}, zipfile.ZIP_STORED))
    at = data.index(npy(MAP + 2)[128:200])
    data[at : at + 8] = b"\0" * 8
    return bytes(data)


BAD_FILES = {
    "nothing": b"",
    "text": b"epsilon,0.01\n1,2,3\n",
    "pickle": b"cos\nsystem\n(S'true'\ntR.",
    "objects": npy(np.array([None, {}], dtype=object), allow_pickle=True),
    "strings": npy(np.array(["a", "b"])),
    "complex": npy(MAP.astype(np.complex64)),
    "dates": npy(np.array(["2020-01-01"], dtype="datetime64[D]")),
    "records": npy(np.zeros(3, dtype=[("a", "<f4"), ("b", "<i4")])),
    "claims 4 TB": header((1_000_000, 1000, 1000)),
    "claims more than there are bytes in the world": header((10**30, 2)),
    "negative": header((-1, 24)),
    "cut off": npy(MAP)[:-100],
    "version 9": b"\x93NUMPY\x09\x00" + npy(MAP)[8:],
    "header of 4 GB": b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + b" " * 100,
    "nested header": b"\x93NUMPY\x01\x00\x10\x27" + b"(" * 10_000,
    "not an archive": b"PK\x03\x04" + b"\0" * 200,
}


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
@pytest.mark.parametrize("name", list(BAD_FILES))
def test_a_file_that_holds_no_heatmaps_is_refused_in_a_sentence(tmp_path, name, suffix):
    path = tmp_path / f"maps{suffix}"
    path.write_bytes(BAD_FILES[name])
    begun = time.monotonic()
    with little_memory(50e6), pytest.raises(MethodError, match="maps") as error:
        resolve_methods(path)
    assert "pickle" not in str(error.value)
    assert "\n" not in str(error.value)
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize("name", list(BAD_FILES))
def test_one_bad_heatmap_of_a_folder_costs_one_image(tiny, tmp_path, name):
    for number in range(4):
        (tmp_path / f"{number}.npy").write_bytes(npy(MAP + number))
    (tmp_path / "2.npy").write_bytes(BAD_FILES[name])
    run = evaluate(tiny, PIXELS, {"mine": tmp_path}, PROTOCOL, tmp_path / "run")
    assert [(one.image, one.method) for one in run.skipped] == [("2", "mine")]
    assert "pickle" not in run.skipped[0].reason


@pytest.mark.parametrize(
    "data",
    [
        npz({"0": npy(MAP), "1": npy(MAP), "2": BAD_FILES["claims 4 TB"], "3": npy(MAP)}),
        npz({"0": npy(MAP), "1": npy(MAP), "2": BAD_FILES["objects"], "3": npy(MAP)}),
        npz({"0": npy(MAP), "1": npy(MAP), "2": npy(np.zeros((50_000, 24, 24), dtype=np.uint8)), "3": npy(MAP)}),
        damaged_member(),
    ],
    ids=["claims 4 TB", "objects", "bomb", "checksum"],
)
def test_one_bad_array_of_an_archive_costs_one_image(tiny, tmp_path, data):
    """The bomb is 29 MB in 30 kB, and must not be unpacked to be seen to have another shape."""
    path = tmp_path / "maps.npz"
    path.write_bytes(data)
    run = evaluate(tiny, PIXELS, {"mine": path}, PROTOCOL, tmp_path / "run")
    assert [(one.image, one.method) for one in run.skipped] == [("2", "mine")]


def test_a_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / "maps.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as member:
        member.write(header((200_000, 1000), "|u1"))
        for _ in range(200):
            member.write(bytes(1_000_000))
    with little_memory(10e6):
        assert stored_array(path, "a").shape == (200_000, 1000)


@pytest.mark.parametrize(
    "dtype", ["<f4", ">f4", "<f8", ">f8", "<f2", "longdouble", "<i4", ">i2", "|u1", "<u8", "|b1", "fortran"]
)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_numbers_of_any_type_are_read(tiny, tmp_path, dtype, suffix):
    values = np.random.default_rng(0).integers(0, 2 if dtype == "|b1" else 99, (24, 24))
    array = np.asfortranarray(values.astype(np.float32)) if dtype == "fortran" else values.astype(dtype)
    path = tmp_path / f"maps{suffix}"
    path.write_bytes(npy(np.stack([array] * 4)) if suffix == ".npy" else npz({str(n): npy(array) for n in range(4)}))
    run = evaluate(tiny, PIXELS, {"mine": path}, PROTOCOL, tmp_path / "run")
    assert not run.skipped
    stored = {example.image: example.heatmaps["mine"] for example in run.examples(None)}
    for heatmap in stored.values():
        np.testing.assert_array_equal(heatmap.numpy(), values)


def test_tensors_of_any_type_are_read(tiny, tmp_path):
    kinds = (torch.float64, torch.float16, torch.bfloat16, torch.int64)
    save_file(
        {str(n): torch.arange(576).view(24, 24).to(kind) for n, kind in enumerate(kinds)}, tmp_path / "m.safetensors"
    )
    assert not evaluate(tiny, PIXELS, {"mine": tmp_path / "m.safetensors"}, PROTOCOL, tmp_path / "run").skipped


@pytest.mark.parametrize("layout", ["folder", "npz", "npy"])
def test_heatmaps_that_are_replaced_during_a_run_are_not_used(tiny, tmp_path, layout):
    pixels = torch.rand(20, 3, 24, 24)  # more than one task
    path = tmp_path / {"folder": "maps", "npz": "maps.npz", "npy": "maps.npy"}[layout]

    def write(shift):
        maps = [MAP * (n + 1) + shift for n in range(20)]
        if layout == "folder":
            path.mkdir(exist_ok=True)
            (path / "19.npy").write_bytes(npy(maps[19]))
            for n in range(19):
                if not shift:
                    (path / f"{n:02}.npy").write_bytes(npy(maps[n]))
        elif layout == "npz":
            path.write_bytes(npz({f"{n:02}": npy(one) for n, one in enumerate(maps)}))
        else:
            path.write_bytes(npy(np.stack(maps)))
        os.utime(path / "19.npy" if layout == "folder" else path, ns=(int(shift) + 1, int(shift) + 1))

    write(0)

    def replacing(inputs, targets):
        write(1)
        return inputs.sum(1)

    methods = resolve_methods({"mine": path, "replacing": replacing})
    run = evaluate(tiny, pixels, [methods[0], methods[1]], PROTOCOL, tmp_path / "run")
    assert {one.method for one in run.skipped} == {"mine"}
    assert "19" in {one.image for one in run.skipped}
    assert "has changed since the run started" in run.skipped[0].reason


def test_arrays_that_are_changed_during_a_run_are_those_that_were_given(tiny, tmp_path):
    given = {str(n): MAP.copy() for n in range(4)}
    method = resolve_methods({"mine": given})[0]
    for array in given.values():
        array[:] = 0
    assert not evaluate(tiny, PIXELS, [method], PROTOCOL, tmp_path / "run").skipped


def test_a_folder_without_end_is_not_walked(tmp_path, monkeypatch):
    """`--methods ../..` names a folder; the limit is lowered here, so that few files reach it."""
    monkeypatch.setattr("faithmap.files.files_in.__defaults__", (10,))
    monkeypatch.setattr("faithmap.attribution.given.MOST_FILES", 10)
    for number in range(11):
        (tmp_path / f"{number}.npy").write_bytes(npy(MAP))
    with pytest.raises(MethodError, match="holds more than 10 files and folders"):
        resolve_methods(str(tmp_path))
    with pytest.raises(FaithmapError, match="holds more than 10 files and folders"):
        load_images(tmp_path)


def test_names_in_files_are_only_names(tmp_path):
    path = tmp_path / "maps.npz"
    path.write_bytes(npz({"../../etc/passwd": npy(MAP)}))
    assert array_names(path) == ["../../etc/passwd"]
    with pytest.raises(ArrayFileError):
        stored_array(path, "other")


# Label maps.

LABELS = np.arange(576).reshape(24, 24) // 50


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("suffix", "data"),
    [
        *((".npy", data) for data in BAD_FILES.values()),
        (".npy", npy(LABELS.astype(np.float32))),
        (".npy", npy(LABELS[:10])),
        (".npy", npy(np.full((24, 24), 2**64 - 1, dtype=np.uint64))),
        (".png", b""),
        (".png", png(LABELS.astype(np.uint8))[:60]),
        (".png", png(np.zeros((24, 24, 3), dtype=np.uint8))),
        (".png", png(np.zeros((10, 24), dtype=np.uint8))),
    ],
)
def test_a_label_map_that_cannot_be_used_costs_one_image(tmp_path, suffix, data):
    (tmp_path / f"a{suffix}").write_bytes(data)
    name = resolve_segments(f"folder:{tmp_path}")
    with pytest.raises(ImageError) as error:
        segment(name, PIXELS[0], "a")
    assert "pickle" not in str(error.value)


def test_a_label_map_that_is_replaced_is_refused(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.npy").write_bytes(npy(LABELS))
    name = resolve_segments(f"folder:{tmp_path}")
    assert torch.equal(segment(name, PIXELS[0], "a.jpg"), torch.from_numpy(LABELS))
    (tmp_path / "b.npy").write_bytes(npy(LABELS + 1))
    with pytest.raises(ImageError, match="has changed since the run started"):
        segment(name, PIXELS[0], "b.jpg")


@pytest.mark.parametrize("image", ["../secret", "/etc/secret", "a/../../secret", "..", ""])
def test_label_maps_are_looked_for_inside_their_folder_only(tmp_path, image):
    (tmp_path / "secret.npy").write_bytes(npy(LABELS))
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.npy").write_bytes(npy(LABELS))
    with pytest.raises(ImageError, match="no label map"):
        segment(resolve_segments(f"folder:{tmp_path / 'labels'}"), PIXELS[0], image)


@pytest.mark.parametrize("name", ["slic:n=1e99", "slic:n=40000", "slic:compactness=1e300", "slic:n=inf", "slic:n=nan"])
def test_segments_have_bounds(name):
    with pytest.raises(FaithmapError, match="up to"):
        resolve_segments(name)
