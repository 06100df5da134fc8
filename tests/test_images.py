import io
import os

import numpy as np
import pytest
import torch
from PIL import Image

from faithmap.errors import ImageError, InputError
from faithmap.images import Preprocessing, load_images

RAW = Preprocessing(crop=(16, 16), resize=None)


def picture(mode: str = "RGB", size: tuple[int, int] = (16, 16)) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


def read_one(path):
    (image,) = load_images(path)
    return image.read(RAW)


def test_photos_are_at_least_forty_and_fit_the_network():
    pytest.importorskip("skimage")
    images = load_images("photos")
    assert len(images) >= 40
    assert images[0].read(Preprocessing()).shape == (3, 224, 224)


def test_pixels_are_the_bytes_over_255(tmp_path):
    picture().save(tmp_path / "a.png")
    assert torch.equal(read_one(tmp_path), torch.from_numpy(np.array(picture())).permute(2, 0, 1) / 255)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "LA"])
def test_other_modes_become_rgb(tmp_path, mode):
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    picture(mode).save(path)
    expected = torch.from_numpy(np.array(picture(mode).convert("RGB"))).permute(2, 0, 1) / 255
    assert torch.equal(read_one(tmp_path), expected)


def test_sixteen_bits_are_scaled_not_cut_off(tmp_path):
    values = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert (read_one(tmp_path)[0] - torch.from_numpy(values.astype(np.float32)) / 65535).abs().max() < 1 / 250


def test_exif_rotation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture().save(tmp_path / "a.png", exif=exif)
    upright = torch.from_numpy(np.array(picture().rotate(-90))).permute(2, 0, 1) / 255
    assert torch.equal(read_one(tmp_path), upright)


def test_an_animation_gives_its_first_picture(tmp_path):
    first, second = picture("P"), Image.new("P", (16, 16))
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    with Image.open(tmp_path / "a.gif") as gif:
        expected = torch.from_numpy(np.array(gif.convert("RGB"))).permute(2, 0, 1) / 255
    assert torch.equal(read_one(tmp_path), expected)


def truncated(tmp_path):
    buffer = io.BytesIO()
    picture(size=(200, 200)).save(buffer, "JPEG")
    return buffer.getvalue()[:2000]


@pytest.mark.parametrize(
    ("name", "data"),
    [("empty.png", b""), ("text.jpg", b"This is no picture.\n"), ("cut.jpg", None)],
)
def test_a_damaged_file_is_named(tmp_path, name, data):
    (tmp_path / name).write_bytes(truncated(tmp_path) if data is None else data)
    with pytest.raises(ImageError, match=name):
        read_one(tmp_path)


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path):
    Image.new("1", (14_000, 14_000)).save(tmp_path / "bomb.png")
    with pytest.raises(ImageError, match=r"bomb.png.*more than"):
        read_one(tmp_path)


def test_a_line_of_pixels_is_refused(tmp_path):
    Image.new("RGB", (1, 60_000)).save(tmp_path / "line.png")
    (image,) = load_images(tmp_path)
    with pytest.raises(ImageError, match="too narrow"):
        image.read(Preprocessing())


def test_odd_names_become_printable_unique_ids(tmp_path):
    names = [b"a b.png", b"new\nline.png", b"\xff\xfe.png", "smile-\U0001f600.png".encode()]
    for name in names:
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
            picture().save(file, "PNG")
    images = load_images(tmp_path)
    assert {i.id for i in images} == {"a b.png", "new\nline.png", "\\xff\\xfe.png", "smile-\U0001f600.png"}
    for image in images:
        assert image.id.encode("utf-8")
        assert image.read(RAW).shape == (3, 16, 16)


def test_folders_name_the_class(tmp_path, tiny):
    for folder in ("n01440764", "n03888257", "3"):
        (tmp_path / folder).mkdir()
        picture().save(tmp_path / folder / "x.png")
    picture().save(tmp_path / "flat.png")
    found = tiny.class_indices(load_images(tmp_path))
    assert found == {"n01440764/x.png": 0, "n03888257/x.png": 701, "3/x.png": 3, "flat.png": None}


def test_a_smaller_subset_is_part_of_a_larger_one(tmp_path):
    for i in range(30):
        picture().save(tmp_path / f"{i:02d}.png")
    images = load_images(tmp_path)
    small, large = ({i.id for i in images.limit(n, seed=1)} for n in (5, 12))
    assert len(small) == 5
    assert small < large
    assert {i.id for i in images.limit(5, seed=2)} != small


def test_a_folder_without_images_and_no_folder_are_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(InputError, match="no image in"):
        load_images(tmp_path)
    with pytest.raises(InputError, match="no folder or file"):
        load_images(tmp_path / "missing")


def test_tensors_outside_zero_and_one_are_refused():
    images = load_images(torch.full((2, 3, 8, 8), -1.0))
    with pytest.raises(ImageError, match=r"expected \[0, 1\]"):
        images[0].read(RAW)
