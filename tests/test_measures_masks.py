"""Masks from files, brought to the network's input size as their images are; mosaics, which know their own."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import faithmap
from faithmap.errors import InputError, MeasureError, MethodWarning
from faithmap.images import ImageFile, Images, Preprocessing
from faithmap.measures.masks import load_masks, mask_of, masks_for, masks_of
from faithmap.measures.registry import resolve_measures
from faithmap.mosaics import quarters

SMALL = Preprocessing(crop=(16, 16), resize=20)


def scene(folder, name="a", size=(40, 30), box=(10, 5, 25, 20), turned=False):
    """An image that is white on the object, and its mask as a picture of the same size."""
    width, height = size
    mask = np.zeros((height, width), dtype=np.uint8)
    left, top, right, bottom = box
    mask[top:bottom, left:right] = 255
    picture = Image.fromarray(mask).convert("RGB")
    if turned:
        exif = Image.Exif()
        exif[0x0112] = 6  # stored lying on its side
        picture.rotate(90, expand=True).save(folder / f"{name}.png", exif=exif)
    else:
        picture.save(folder / f"{name}.png")
    return mask


def agree(mask, image, preprocessing=SMALL):
    """How far a mask lies where the image is white."""
    seen = image.read(preprocessing)[0] > 0.5
    return float((seen == mask).float().mean())


@pytest.mark.parametrize("cut", [None, (0.75, 1.0, 0.0)])
@pytest.mark.parametrize("turned", [False, True])
def test_png_masks_follow_their_images(tmp_path, cut, turned):
    images, masks = tmp_path / "images", tmp_path / "masks"
    images.mkdir()
    (masks / "deep").mkdir(parents=True)
    mask = scene(images, turned=turned)
    Image.fromarray(mask // 85).save(masks / "a.png")  # any value but 0 is the object
    image = ImageFile("a.png", images / "a.png", cut=cut)
    found = mask_of(image, load_masks(masks), SMALL)
    assert found.shape == (16, 16)
    assert 0.1 < found.float().mean() < 0.9
    assert agree(found, image) > 0.97


@pytest.mark.parametrize("names", [("x/a.png", "y/a.png"), ("a.png", "y/a.png"), ("a.png", "a.jpg")])
def test_images_that_share_a_mask_are_named_once(tmp_path, names):
    scene(tmp_path)
    images = [ImageFile(name, tmp_path / "a.png") for name in names]
    for source in ({"a": np.ones((16, 16))}, tmp_path):
        measures = resolve_measures("pointing-game")
        with pytest.warns(MethodWarning, match=f"images '{names[0]}' and '{names[1]}' have the same mask") as said:
            assert set(masks_for(measures, images, source, SMALL)) == set(names)
        assert len(said) == 1


def test_images_with_a_mask_each_are_not_said_to_share_one(tmp_path, recwarn):
    for folder in "xy":
        (tmp_path / folder).mkdir()
        scene(tmp_path / folder)
    images = [ImageFile(f"{folder}/a.png", tmp_path / folder / "a.png") for folder in "xy"]
    assert len(masks_for(resolve_measures("pointing-game"), images, tmp_path, SMALL)) == 2
    assert not recwarn.list


def test_masks_of_the_input_size_and_of_another(tmp_path):
    scene(tmp_path)
    image = ImageFile("a", tmp_path / "a.png")
    small = np.zeros((16, 16), dtype=bool)
    small[:4] = True
    assert mask_of(image, load_masks({"a": small}), SMALL)[:4].all()
    assert mask_of(image, load_masks({"b": small}), SMALL) is None
    with pytest.raises(MeasureError, match="15×16 pixels, expected the size of the image or 16×16"):
        mask_of(image, load_masks({"a": np.ones((16, 15))}), SMALL)


def test_voc_boxes_are_counted_from_one(tmp_path):
    images, boxes = tmp_path / "images", tmp_path / "boxes"
    images.mkdir()
    boxes.mkdir()
    scene(images, box=(10, 5, 25, 20))
    text = (
        "<annotation><size><width>40</width><height>30</height></size>"
        "<object><name>dog</name><bndbox><xmin>11</xmin><ymin>6</ymin><xmax>25</xmax><ymax>20</ymax></bndbox></object>"
        "<object><name>cat</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></object>"
        "</annotation>"
    )
    (boxes / "a.xml").write_text(text)
    image = ImageFile("dog/a.png", images / "a.png", label="dog")
    whole = Preprocessing(crop=(30, 40), resize=None)
    dog = mask_of(image, load_masks(boxes, "label"), whole)
    assert (dog.sum(), *(int(v) for v in dog.nonzero()[0]), *(int(v) for v in dog.nonzero()[-1])) == (
        225,
        5,
        10,
        19,
        24,
    )
    assert agree(dog, image, whole) == 1
    assert mask_of(image, load_masks(boxes), whole).sum() == 229
    assert mask_of(image, load_masks(boxes, "bird"), whole).sum() == 0
    (boxes / "a.xml").write_text("<annotation/>")
    assert "a.xml is said to be 0×0 pixels" in masks_of([image], load_masks(boxes), whole)["dog/a.png"]
    (boxes / "a.xml").write_text("no markup")
    assert "the mask of image 'dog/a.png' cannot be used" in masks_of([image], load_masks(boxes), whole)["dog/a.png"]


def test_coco_polygons_runs_and_boxes(tmp_path):
    pytest.importorskip("pycocotools")
    scene(tmp_path, box=(10, 5, 25, 20))
    runs = [0] * 2
    runs[0], runs[1] = 30 * 10, 30 * 15  # columns 10 … 24
    annotations = {
        "polygon": {"segmentation": [[10, 5, 25, 5, 25, 20, 10, 20]]},
        "runs": {"segmentation": {"counts": [*runs, 30 * 40 - sum(runs)], "size": [30, 40]}},
        "box": {"bbox": [10, 5, 15, 15]},
    }
    image = ImageFile("a.png", tmp_path / "a.png")
    whole = Preprocessing(crop=(30, 40), resize=None)
    for name, one in annotations.items():
        content = {
            "images": [{"id": 7, "file_name": "a.png", "height": 30, "width": 40}],
            "categories": [{"id": 1, "name": "dog"}],
            "annotations": [{"image_id": 7, "category_id": 1, **one}],
        }
        (tmp_path / "coco.json").write_text(json.dumps(content))
        found = mask_of(image, load_masks(tmp_path / "coco.json", "dog"), whole)
        assert int(found.sum()) == (450 if name == "runs" else 225)
        assert agree(found, image, whole) == 1 or name == "runs"
        assert mask_of(image, load_masks(tmp_path / "coco.json", "cat"), whole).sum() == 0
    (tmp_path / "coco.json").write_text("[]")
    with pytest.raises(MeasureError, match="is no COCO annotation file"):
        load_masks(tmp_path / "coco.json")


BOX = "<xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax>"
ODD_BOXES = {
    "": r"a box is \[None, None, None, None\]: expected four numbers",
    "<xmin>2</xmin>": r"a box is \['2', None, None, None\]: expected four numbers",
    BOX.format("x", 1, 2, 2): "expected four numbers",
    BOX.format("nan", 1, 2, 2): "expected four numbers",
    BOX.format("inf", 1, 2, 2): "expected four numbers",
    BOX.format(9, 9, 2, 2): "it ends before it begins",
}


@pytest.mark.parametrize("box", ODD_BOXES)
def test_a_box_of_voc_that_is_none_is_said_to_be(tmp_path, box):
    size = "<size><width>40.0</width><height>30</height></size>"
    text = f"<annotation>{size}<object><bndbox>{box}</bndbox></object></annotation>"
    (tmp_path / "boxes").mkdir()
    (tmp_path / "boxes" / "a.xml").write_text(text)
    scene(tmp_path, box=(10, 5, 25, 20))
    image = ImageFile("a.png", tmp_path / "a.png")
    with pytest.raises(MeasureError, match=ODD_BOXES[box]):
        mask_of(image, load_masks(tmp_path / "boxes"), Preprocessing(crop=(30, 40), resize=None))


ODD_OBJECTS = {
    "it lacks 'bbox'": {},
    "a box is .1, 2, 3.: expected four": {"bbox": [1, 2, 3]},
    "a box is 'abcd': expected four": {"bbox": "abcd"},
    "it ends before it begins": {"bbox": [9, 9, -3, -3]},
    "a polygon is .* expected x, y": {"segmentation": [[1, 1, 2, float("nan"), 5, 5]]},  # ended the process
    "it lacks 'size'": {"segmentation": {"counts": [10]}},
}


@pytest.mark.parametrize("says", ODD_OBJECTS)
def test_an_object_of_coco_that_is_none_is_said_to_be(tmp_path, says):
    pytest.importorskip("pycocotools")
    scene(tmp_path, box=(10, 5, 25, 20))
    about = {"id": 7, "file_name": "a.png", "height": 30, "width": 40}
    content = {"images": [about], "annotations": [{"image_id": 7, **ODD_OBJECTS[says]}]}
    (tmp_path / "coco.json").write_text(json.dumps(content))
    image, whole = ImageFile("a.png", tmp_path / "a.png"), Preprocessing(crop=(30, 40), resize=None)
    assert re.search(says, masks_of([image], load_masks(tmp_path / "coco.json"), whole)["a.png"])


@pytest.mark.parametrize("other", [{"id": 8}, {"file_name": "b.png"}])
def test_two_images_of_one_name_or_id_in_a_coco_file_are_refused(tmp_path, other):
    """The objects of one of them would be lost, or those of both would be on each."""
    about = {"id": 7, "file_name": "a.png", "height": 30, "width": 40}
    (tmp_path / "coco.json").write_text(json.dumps({"images": [about, {**about, **other}], "annotations": []}))
    with pytest.raises(MeasureError, match=r"has two images of (file_name 'a\.png'|id '7'): keep one"):
        load_masks(tmp_path / "coco.json")


def test_annotations_of_none_of_the_images_of_a_coco_file_are_refused(tmp_path):
    """Else every image would seem to have no object."""
    about = {"id": 7, "file_name": "a.png", "height": 30, "width": 40}
    content = {"images": [about], "annotations": [{"image_id": "7", "bbox": [1, 2, 3, 4]}]}
    (tmp_path / "coco.json").write_text(json.dumps(content))
    with pytest.raises(MeasureError, match=r"no annotation of any of its images \(image_id '7', id 7\)"):
        load_masks(tmp_path / "coco.json")


def test_what_holds_no_masks_is_refused(tmp_path):
    assert load_masks(None) is None
    with pytest.raises(MeasureError, match="no mask in"):
        load_masks(tmp_path)
    with pytest.raises(MeasureError, match="no masks at"):
        load_masks(tmp_path / "nowhere")
    gini, mass = resolve_measures("gini,relevance-mass")
    images = faithmap.load_images(torch.rand(1, 3, 8, 8))
    assert masks_for([gini], images, None, SMALL) == {}
    with pytest.raises(MeasureError, match="'relevance-mass' needs to know where the object is"):
        masks_for([gini, mass], images, None, SMALL)


def classes(folder):
    """Three classes: red, green and blue images, and one image more of red."""
    for at, (name, count) in enumerate({"red": 3, "green": 2, "blue": 2}.items()):
        (folder / name).mkdir()
        colour = [0, 0, 0]
        colour[at] = 255
        for number in range(count):
            Image.new("RGB", (20, 20), tuple(colour)).save(folder / name / f"{number}.png")


def test_mosaics_show_the_target_where_they_say(tmp_path):
    classes(tmp_path)
    images = faithmap.load_images(f"mosaic:{tmp_path}")
    assert [image.label for image in images] == ["blue", "green", "red"]
    preprocessing = Preprocessing(crop=(17, 16), resize=20)
    channel = {"red": 0, "green": 1, "blue": 2}
    for image in images:
        pixels, mask = image.read(preprocessing), mask_of(image, None, preprocessing)
        assert pixels.shape == (3, 17, 16)
        assert torch.equal(pixels[channel[image.label]] > 0.9, mask)
        assert sum(image.target) == 2
    assert len({image.target for image in images}) > 1
    again = faithmap.load_images(f"mosaic:{tmp_path}")
    assert [i.content_hash() for i in again] == [i.content_hash() for i in images]
    assert quarters(3, 4)[3] == (slice(1, 3), slice(2, 4))
    pinned = images.pinned()[2]
    assert torch.equal(pinned.read(preprocessing), images[2].read(preprocessing))
    with pytest.raises(faithmap.FaithmapError, match="has changed since"):
        replace(pinned, content="0" * 16).read(preprocessing)


def test_mosaics_need_classes(tmp_path):
    with pytest.raises(InputError, match="has no class"):
        faithmap.mosaics.mosaics(faithmap.load_images(torch.rand(4, 3, 8, 8)).items)
    classes(tmp_path)
    one = Images("x", [image for image in faithmap.load_images(tmp_path) if image.label == "red"])
    with pytest.raises(InputError, match="need two images of other classes"):
        faithmap.mosaics.mosaics(one.items)
    with pytest.raises(InputError, match="no class has two images"):
        faithmap.mosaics.mosaics(faithmap.load_images(tmp_path).items[:1])


def test_localisation_of_a_run_on_mosaics(tmp_path, tiny):
    classes(tmp_path)
    tiny.preprocessing = Preprocessing(crop=(24, 24), resize=24)
    tiny.labels = ["red", "green", "blue", "c", "d"]

    def red(inputs, targets):
        return inputs[:, 0].relu()

    run = faithmap.evaluate(
        tiny,
        f"mosaic:{tmp_path}",
        {"red": red},
        faithmap.Protocol.preset("samek2017", steps=2, draws=1, region_size=4, target="label"),
        out=tmp_path / "run",
        measures="relevance-mass",
    )
    mass = run.measures().set_index(["image", "method"]).value
    name = next(image for image in mass.index.get_level_values(0) if image.startswith("red"))
    assert mass[name, "red"] == 1
    assert 0.4 < mass[name, "random"] < 0.6
