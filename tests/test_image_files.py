"""Files that images are read from: what is hashed is what is decoded, and nothing but regular files is opened."""

import hashlib
import os
import socket
import threading
import time
from contextlib import suppress

import numpy as np
import pytest
import torch
from PIL import Image

from faithmap import Protocol, evaluate, load_images
from faithmap.errors import FaithmapError, ImageError, InputError
from faithmap.files import open_regular, read_bytes
from faithmap.images import ImageFile, Preprocessing, TensorImage

PLAIN = Preprocessing(crop=(24, 24), resize=None)
PROTOCOL = Protocol.preset(steps=2, region_size=4, draws=1)


def write(path, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def small(tiny):
    tiny.preprocessing = PLAIN
    return tiny


def channel_sum(inputs, targets):
    return inputs.sum(1)


def test_a_file_that_is_replaced_during_a_run_is_skipped(tiny, tmp_path):
    """The 20 images are more than one task; the last is replaced while the first is computed."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(20):
        write(folder / f"{number:02}.png", number)
    content = hashlib.sha256((folder / "19.png").read_bytes()).hexdigest()[:16]

    def replacing(inputs, targets):
        write(folder / "19.png", 99)
        return inputs.sum(1)

    run = evaluate(small(tiny), folder, replacing, PROTOCOL, tmp_path / "run")
    assert [one.image for one in run.skipped] == ["19.png"]
    assert "has changed since the run started" in run.skipped[0].reason
    images = run.manifest["images"] if isinstance(run.manifest, dict) else run.manifest.images
    found = images["19.png"]
    assert (found["content"] if isinstance(found, dict) else found.content) == content


def test_a_tensor_that_changes_during_a_run_is_skipped(tiny, tmp_path):
    pixels = torch.rand(20, 3, 24, 24)

    def replacing(inputs, targets):
        pixels[19] = 0.5
        return inputs.sum(1)

    run = evaluate(tiny, pixels, replacing, PROTOCOL, tmp_path / "run")
    assert [one.image for one in run.skipped] == ["19"]


def test_every_image_is_read_once_and_hashed_from_the_same_bytes(tmp_path):
    path = write(tmp_path / "a.png", 0)
    pinned = load_images(tmp_path).pinned()[0]
    assert pinned.content == ImageFile("a.png", path).content_hash()
    write(path, 1)
    assert pinned.content_hash() == pinned.content != ImageFile("a.png", path).content_hash()
    with pytest.raises(ImageError, match="has changed"):
        pinned.read(PLAIN)


def test_a_file_that_cannot_be_read_when_it_is_pinned_is_not_read_later(tmp_path):
    path = write(tmp_path / "a.png", 0)
    images = load_images(tmp_path)
    path.unlink()
    pinned = images.pinned()[0]
    assert pinned.content == "unreadable: No such file or directory"
    write(path, 0)
    with pytest.raises(ImageError, match="has changed"):
        pinned.read(PLAIN)


def special(kind, path):
    """Something in a folder of images that is no regular file."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(os.path.relpath(path))
        listener.close()
    elif kind == "folder":
        path.mkdir()
        return
    else:
        path.symlink_to({"endless": "/dev/zero", "random": "/dev/urandom", "link to itself": path.name}[kind])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a POSIX system")
@pytest.mark.parametrize("kind", ["pipe", "socket", "endless", "random", "link to itself"])
def test_only_regular_files_are_opened(tiny, tmp_path, kind, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "images"
    folder.mkdir()
    write(folder / "a.png", 0)
    special(kind, folder / "b.jpg")
    begun = time.monotonic()
    with pytest.raises(OSError, match=r"not a regular file|symbolic links|No such device"):
        read_bytes(folder / "b.jpg")
    run = evaluate(small(tiny), folder, channel_sum, PROTOCOL, tmp_path / "run")
    assert [one.image for one in run.skipped] == ["b.jpg"]
    with pytest.raises(FaithmapError):
        evaluate(tiny, folder / "b.jpg", channel_sum, PROTOCOL, tmp_path / "alone")
    assert time.monotonic() - begun < 20


def test_a_pipe_with_a_writer_is_refused_too(tmp_path):
    path = tmp_path / "pipe.png"
    os.mkfifo(path)
    handle = os.open(path, os.O_RDWR)
    try:
        with pytest.raises(OSError, match="not a regular file"):
            open_regular(path)
    finally:
        os.close(handle)


def test_reading_stops_at_what_was_agreed_on(tmp_path):
    path = tmp_path / "large"
    path.write_bytes(b"x" * 100)
    assert read_bytes(path, 100) == b"x" * 100
    with pytest.raises(OSError, match="larger than 99 bytes"):
        read_bytes(path, 99)


def test_a_huge_sparse_file_is_refused_before_it_is_read(tmp_path):
    with open(tmp_path / "a.png", "wb") as file:
        file.truncate(1 << 40)
    begun = time.monotonic()
    with pytest.raises(ImageError, match="larger than"):
        load_images(tmp_path)[0].read(PLAIN)
    assert time.monotonic() - begun < 10


def test_a_file_that_grows_while_it_is_read_is_read_to_a_limit(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"x")
    done = threading.Event()

    def grow():
        with open(path, "ab") as file:
            while not done.is_set():
                file.write(b"x" * 4096)
                file.flush()

    thread = threading.Thread(target=grow)
    thread.start()
    try:
        for _ in range(20):
            with suppress(OSError):  # once it is larger
                assert len(read_bytes(path, 1 << 20)) <= 1 << 20
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("name", ["99999999999999999999", "2147483648", "9" * 200, "-1", "٣", "1e3", "0x10"])
def test_a_class_folder_may_have_any_number_as_its_name(tiny, tmp_path, name):
    (tmp_path / "images" / name).mkdir(parents=True)
    write(tmp_path / "images" / name / "a.png", 0)
    run = evaluate(small(tiny), tmp_path / "images", channel_sum, PROTOCOL, tmp_path / "run")
    assert len(run.scores())
    assert not run.skipped


def test_numpy_integers_are_labels(tiny, tmp_path):
    from faithmap import Images

    images = Images("mine", [TensorImage(str(n), torch.rand(3, 24, 24), np.int64(n)) for n in range(3)])
    run = evaluate(tiny, images, channel_sum, PROTOCOL.override(target="label"), tmp_path)
    assert sorted(set(run.scores()["label"].tolist())) == [0, 1, 2]


def test_a_list_of_files_is_a_set_of_images(tmp_path):
    paths = [write(tmp_path / f"{name}.png", 0) for name in "ba"]
    assert [image.id for image in load_images(paths)] == ["a.png", "b.png"]
    (tmp_path / "sub").mkdir()
    same = [write(tmp_path / "sub" / "a.png", 1), paths[1]]
    assert len({image.id for image in load_images([str(path) for path in same])}) == 2


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "images is None"),
        ([], "images is an empty list"),
        ("", "images is ''"),
        (7, "images is torch.int64"),
        (["no-such-file.png"], "no image file no-such-file.png"),
        (["a", 3], "images is a list of"),
        (torch.zeros(3, 24, 24), r"shape \(3, 24, 24\), expected \(B, C, H, W\): add a dimension"),
        (torch.zeros(0, 3, 24, 24), "at least one image"),
        (torch.zeros(1, 3, 0, 24), "at least one image"),
        (torch.zeros(1, 3, 24, 24, dtype=torch.uint8), "is torch.uint8, expected floating numbers .* divide bytes by"),
        (torch.zeros(1, 3, 24, 24, dtype=torch.complex64), "expected real numbers"),
        (torch.empty(1, 3, 24, 24, device="meta"), "without values"),
        ([np.zeros((3, 24, 24)), np.zeros((3, 20, 24))], "images is a list"),
        (np.array([None]), "of object values"),
        (lambda: None, "images is a function"),
        ("a\0b", "images is 'a.x00b'"),
        ("x" * 5000, "cannot be looked at"),
    ],
)
def test_what_is_no_set_of_images_is_refused_in_a_sentence(source, message):
    import inspect

    with pytest.raises(InputError, match=message):
        inspect.unwrap(load_images)(source)


@pytest.mark.parametrize(
    "source",
    [
        torch.rand(2, 3, 24, 24),
        torch.rand(2, 3, 24, 24, requires_grad=True),
        torch.rand(2, 3, 24, 24, dtype=torch.float64),
        torch.rand(2, 3, 24, 24).bfloat16(),
        torch.rand(2, 3, 24, 24).half(),
        np.random.default_rng(0).random((2, 3, 24, 24)),
        np.random.default_rng(0).random((2, 3, 24, 24)).astype(">f4"),
        [np.random.default_rng(0).random((3, 24, 24))] * 2,
        torch.rand(2, 3, 24, 24).to_sparse(),
        torch.rand(2, 3, 24, 24).transpose(2, 3),
    ],
)
def test_what_holds_images_is_taken(tiny, tmp_path, source):
    import inspect

    images = inspect.unwrap(load_images)(source)
    assert all(image.read(PLAIN).dtype == torch.float32 for image in images)
    assert not evaluate(tiny, images, channel_sum, PROTOCOL, tmp_path).skipped


def claim(shape):
    """A .npy file of hundred bytes that claims more."""
    head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\0" + len(head).to_bytes(2, "little") + head


@pytest.mark.parametrize("shape", [(3, 100_000, 1_000_000), (3, 24, 24), (-1, 24, 24)])
def test_an_array_that_claims_more_than_its_file_holds_costs_one_image(tmp_path, shape):
    (tmp_path / "a.npy").write_bytes(claim(shape))
    with pytest.raises(ImageError, match=r"a\.npy' cannot be used: it (claims|is not)"):
        load_images(tmp_path)[0].read(Preprocessing(crop=(24, 24)))


@pytest.mark.parametrize("dtype", ["int16", "int32", "uint32"])
@pytest.mark.parametrize("channels", [1, 3])
def test_integers_that_are_not_of_8_or_16_bits_are_no_grey(tmp_path, dtype, channels):
    """Pillow cuts them off, or takes them for negative ones."""
    tifffile = pytest.importorskip("tifffile")
    values = np.linspace(0, np.iinfo(dtype).max, 576).astype(dtype).reshape(24, 24)
    tifffile.imwrite(tmp_path / "a.tif", values - 5 if dtype == "int16" else values)
    with pytest.raises(ImageError, match=r"holds integers from -?\d+ to -?\d+, expected 8 or 16 bits"):
        load_images(tmp_path)[0].read(Preprocessing(crop=(24, 24), channels=channels))


@pytest.mark.parametrize("name", ["a.eps", "a.png"])
def test_no_program_is_started_for_a_picture(tmp_path, name, monkeypatch):
    def started(*_, **__):
        raise AssertionError("Ghostscript")

    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", started)
    (tmp_path / name).write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 24 24\n%%EndComments\n{} loop\n")
    with pytest.raises(ImageError, match="is not an image"):
        load_images(tmp_path)[0].read(Preprocessing(crop=(24, 24)))
