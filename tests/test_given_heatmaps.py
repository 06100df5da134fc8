"""Heatmaps from elsewhere: file formats, layouts, sizes."""

import numpy as np
import pytest
import torch
from PIL import Image

import faithmap
from faithmap.attribution import resolve_methods
from faithmap.attribution.batch import Batch
from faithmap.attribution.compute import batch_heatmaps
from faithmap.attribution.given import resized
from faithmap.errors import HeatmapError, MethodError
from tests.conftest import TinyNet

IDS = ["a.png", "b.png", "c.png"]
RANDOM = np.random.default_rng(2)
MAPS = RANDOM.integers(0, 60_000, (3, 24, 24)).astype(np.float32)


def read(source, size=(24, 24), ids=IDS, **how):
    (method, _) = resolve_methods(source, **how)
    pixels = torch.rand(len(ids), 3, *size)
    classifier = faithmap.Classifier(TinyNet())
    return batch_heatmaps(method, Batch.of(classifier, pixels, torch.zeros(len(ids), dtype=torch.int64), ids))


def as_pt(folder):
    torch.save({name: torch.from_numpy(one) for name, one in zip(IDS, MAPS, strict=True)}, folder / "maps.pt")
    return folder / "maps.pt"


def as_pt_stack(folder):
    torch.save(torch.from_numpy(MAPS), folder / "maps.pt")
    (folder / "maps.txt").write_text("\n".join(IDS) + "\n")
    return folder / "maps.pt"


def as_stack(folder):
    np.save(folder / "maps.npy", MAPS[::-1])
    (folder / "maps.txt").write_text("\n".join(IDS[::-1]))
    return folder / "maps.npy"


def as_pngs(folder):
    for name, one in zip(IDS, MAPS, strict=True):
        Image.fromarray(one.astype(np.uint16)).save(folder / name)
    return folder


def as_tiffs(folder):
    for name, one in zip(IDS, MAPS, strict=True):
        Image.fromarray(one).save(folder / f"{name[0]}.tif")
    return folder


def as_channels_last(folder):
    np.savez(
        folder / "maps.npz",
        **{name: np.stack([one, 2 * one, -one], -1) for name, one in zip(IDS, MAPS / 2, strict=True)},
    )
    return folder / "maps.npz"


@pytest.mark.parametrize("write", [as_pt, as_pt_stack, as_stack, as_pngs, as_tiffs, as_channels_last])
def test_every_format_gives_the_same_maps(tmp_path, write):
    torch.testing.assert_close(read(write(tmp_path)), torch.from_numpy(MAPS))


def test_files_of_pickles_and_pictures_in_colours_are_named(tmp_path):
    class Evil:
        def __reduce__(self):
            return print, ("ran",)

    torch.save({"a.png": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(MethodError, match=r"evil.pt cannot be read as heatmaps: it is not a file of tensors"):
        resolve_methods(tmp_path / "evil.pt")
    folder = tmp_path / "folder"
    folder.mkdir()
    Image.new("RGB", (24, 24)).save(folder / "a.png")
    with pytest.raises(HeatmapError, match="picture in colours"):
        read(folder, ids=["a.png"])
    np.save(tmp_path / "maps.npy", MAPS)
    (tmp_path / "maps.txt").write_text("a\na\nb")
    with pytest.raises(MethodError, match="names 2 images in 3 lines for 3 heatmaps"):
        resolve_methods(tmp_path / "maps.npy")


def test_other_sizes_are_resized_only_when_asked(tmp_path):
    maps = {name: one[:6, :6] for name, one in zip(IDS, MAPS, strict=True)}
    grid = {"grid": maps}
    with pytest.raises(HeatmapError, match="say how to resize"):
        read(grid)
    nearest = read(grid, heatmap_resize="nearest")
    expected = np.kron(np.stack(list(maps.values())), np.ones((4, 4)))
    np.testing.assert_array_equal(nearest.numpy(), expected)
    for mode, of_pillow in (("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)):
        found = read(grid, heatmap_resize=mode)
        for row, one in enumerate(maps.values()):
            twin = np.asarray(Image.fromarray(one).resize((24, 24), of_pillow))
            np.testing.assert_allclose(found[row].numpy(), twin, rtol=1e-4, atol=0.5)
    with pytest.raises(MethodError, match="heatmap_resize"):
        read(grid, heatmap_resize="lanczos")


@pytest.mark.parametrize("resize", [30, (28, 40), None])
def test_maps_of_the_whole_picture_are_cropped_as_it_is(resize):
    values = np.kron(RANDOM.random((6, 9)), np.ones((8, 8))).astype(np.float32)
    preparation = faithmap.Preprocessing(crop=(24, 20), resize=resize)
    found = resized(torch.from_numpy(values), "picture:bilinear", (24, 20), preparation)
    expected = preparation(Image.fromarray(values))[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_what_is_resized_is_part_of_the_method(tmp_path):
    maps = {name: one[:6, :6] for name, one in zip(IDS, MAPS, strict=True)}
    grid = {"grid": maps}
    specs = [resolve_methods(grid, heatmap_resize=how)[0].spec for how in (None, "nearest", "bilinear")]
    assert len({str(spec) for spec in specs}) == 3


def test_a_missing_and_a_broken_map_skip_their_images_and_n_is_shown(tmp_path):
    random = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for name in IDS:
        Image.fromarray(random.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(tmp_path / "images" / name)
    (tmp_path / "maps").mkdir()
    Image.fromarray(MAPS[0].astype(np.uint16)).save(tmp_path / "maps" / "a.png")
    (tmp_path / "maps" / "b.png").write_bytes(b"broken")
    classifier = faithmap.Classifier(TinyNet(), preprocessing=faithmap.Preprocessing((24, 24), None))
    protocol = faithmap.Protocol.preset("samek2017", steps=3, region_size=5, draws=1)
    run = faithmap.evaluate(classifier, tmp_path / "images", {"theirs": tmp_path / "maps", "edge": "edge"}, protocol)
    assert {(one.image, one.method) for one in run.skipped} == {("b.png", "theirs"), ("c.png", "theirs")}
    table = run.aopc().query("step == 3").set_index("method")
    assert table.loc["theirs", "n"] == 1
    assert table.loc["edge", "n"] == 3
