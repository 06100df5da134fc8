"""Images that belong together: photos and their crops, patients, videos."""

import re
import warnings
from pathlib import Path

import pytest
import torch
from PIL import Image

import faithmap
from faithmap import grouping
from faithmap.errors import InputError
from faithmap.grouping import groups_by_id
from faithmap.images import Images, TensorImage


def named(*ids: str) -> Images:
    return Images("set", [TensorImage(name, torch.zeros(3, 4, 4)) for name in ids])


def groups_of(images: Images) -> dict[str, str | None]:
    return {image.id: image.group for image in images}


def test_the_embedded_photos_come_grouped():
    images = faithmap.load_images("photos")
    assert len(images) == 48
    assert len({image.group for image in images}) == 8
    assert {image.group for image in images if image.id.startswith("cat-")} == {"cat"}
    assert (
        images.group_noun
        == images.limit(12).group_noun
        == images[:3].group_noun
        == images.pinned().group_noun
        == "photo"
    )


def test_all_the_ways_to_name_groups(tmp_path):
    images = named("a/p1_x.png", "a/p2_x.png", "b/p1_y.png", "c.png")
    assert groups_of(images.grouped("folder")) == {
        "a/p1_x.png": "a",
        "a/p2_x.png": "a",
        "b/p1_y.png": "b",
        "c.png": "c.png",
    }
    some = named("a/p1_x.png", "a/p2_x.png")
    assert groups_of(some.grouped(r"(p\d+)_")) == {"a/p1_x.png": "p1", "a/p2_x.png": "p2"}
    table = tmp_path / "groups.csv"
    table.write_text("\ufeffimage,group\na/p1_x.png,one\na/p2_x.png,one\n", encoding="utf-8")
    assert (
        groups_of(some.grouped(str(table))) == groups_of(some.grouped(table)) == dict.fromkeys(groups_of(some), "one")
    )
    assert groups_of(some.grouped({"a/p1_x.png": 1, "a/p2_x.png": "1"})) == dict.fromkeys(groups_of(some), "1")
    assert groups_of(some.grouped(None)) == dict.fromkeys(groups_of(some))


def test_groups_have_a_name(tmp_path):
    some = named("a/p1_x.png", "a/p2_x.png")
    table = tmp_path / "groups.csv"
    table.write_text("image,patient\na/p1_x.png,1\na/p2_x.png,1\n")
    for groups, noun in {
        r"(p\d+)_": "group",
        r"(?P<patient>p\d+)_": "patient",
        r"(?P<eye_of_a_horse>p\d+)_": "eye of a horse",
        "folder": "folder",
        str(table): "patient",
    }.items():
        assert some.grouped(groups).group_noun == noun
    assert some.grouped(dict.fromkeys(groups_of(some), "1")).group_noun == some.group_noun == "group"
    assert groups_of(some.grouped(table)) == dict.fromkeys(groups_of(some), "1")


def test_a_run_says_what_its_groups_are(tiny, tmp_path):
    """From the images over the manifest to every place that counts them."""
    pixels = torch.rand(14, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    images = Images("set", [TensorImage(f"{i // 2}_{i % 2}", one) for i, one in enumerate(pixels)])
    protocol = faithmap.Protocol.preset("srg", region_size=8, points=4)
    grouped = images.grouped(r"(?P<study>\d+)_")
    run = faithmap.evaluate(tiny, grouped, ["edge"], protocol, tmp_path / "run", until="random")
    run = faithmap.Run(tmp_path / "run")
    assert "from 7 studies (14 images)" in run.verdict()[0]
    assert "of at most 7 studies, at look" in run.verdict()[-1]
    assert "7 studies would rank" in run.grade().sentences()[0] or "7 studies are too few" in run.grade().sentences()[0]
    assert "7 studies (14 images)" in run.report(tmp_path / "page.html").read_text()
    assert "7 studies (14 images)" in run.paper().methods
    assert run.measured().noun == run.scores().attrs["group"] == run.ranking().attrs["group"] == "study"


@pytest.mark.parametrize(
    ("groups", "says"),
    [
        (r"(p\d+)_(x)", "has 2 captures, expected one"),
        ("p1", "has 0 captures"),
        ("(", "is no regular expression"),
        (r"(q\d)_", "gives none for image 'a/p1_x.png' and 1 more"),
        ({"a/p1_x.png": "one"}, "gives none for image 'a/p2_x.png'"),
        ("nowhere.csv", "cannot be read"),
        (Path("\ud800"), "cannot be read"),
    ],
)
def test_groups_that_cannot_be_are_named(groups, says):
    with pytest.raises(InputError, match=says.replace("(", r"\(")):
        named("a/p1_x.png", "a/p2_x.png").grouped(groups)


def test_a_table_without_the_columns_is_named(tmp_path):
    table = tmp_path / "groups.csv"
    table.write_text("file,patient\na,b\n")
    with pytest.raises(InputError, match="has the columns file, patient, expected image,group"):
        named("a").grouped(table)


@pytest.mark.parametrize(
    ("ids", "suggests"),
    [
        ([f"{photo}-{crop}" for photo in ("cat", "dog") for crop in ("whole", "top-left", "centre")], True),
        ([f"scan{n}_slice_{k}.png" for n in range(3) for k in range(4)], True),
        (
            [f"n01440764/n01440764_{k}.JPEG" for k in range(9)] + [f"n01500000/n01500000_{k}.JPEG" for k in range(9)],
            False,
        ),
        ([f"ILSVRC2012_val_{k:08}.JPEG" for k in range(20)], False),
        ([f"{k:03}" for k in range(12)], False),
        (["cat.png", "dog.png", "cow.png"], False),
    ],
)
def test_names_that_look_like_crops_are_noticed(ids, suggests):
    assert (named(*ids).suggested_groups() is not None) == suggests
    assert named(*ids).grouped(dict.fromkeys(ids, "one")).suggested_groups() is None


def test_a_run_says_once_that_names_suggest_groups(tiny, tmp_path):
    (tmp_path / "photos").mkdir()
    generator = torch.Generator().manual_seed(0)
    for photo in ("cat", "dog"):
        for crop in ("left", "right"):
            pixels = torch.randint(0, 256, (24, 24, 3), generator=generator, dtype=torch.uint8).numpy()
            Image.fromarray(pixels).save(tmp_path / "photos" / f"{photo}-{crop}.png")
    tiny.preprocessing = faithmap.Preprocessing(crop=(24, 24), resize=None)
    protocol = faithmap.Protocol.preset(steps=2, region_size=4, draws=1)

    def evaluate(**how):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            run = faithmap.evaluate(tiny, tmp_path / "photos", ["edge"], protocol, tmp_path / "run", **how)
        return run, [str(one.message) for one in said if "suggest" in str(one.message)]

    run, said = evaluate()
    assert len(said) == 1
    assert "suggest 2 groups" in said[0]
    assert run.scores()["group"].nunique() == 4
    # Groups decide statistics only: the same folder goes on, and nothing is computed again.
    run, said = evaluate(groups=r"^(\w+)-")
    assert not said
    assert set(run.scores()["group"].unique()) == {"cat", "dog"}
    assert run.manifest.groups()["cat-left.png"] == "cat"


@pytest.mark.parametrize("pattern", [r"(a+)+$", r"((?:a|a)*)b", r"(.*.*.*.*.*.*.*.*.*.*)0"])
def test_a_pattern_that_tries_too_many_ways_is_ended(monkeypatch, pattern):
    monkeypatch.setattr(grouping, "SECONDS", 0.5)
    with pytest.raises(InputError, match=r"takes longer than 0\.5 s on 2 names.*a repeat stands in a repeat"):
        named("a.png", "a" * 300 + "!.png").grouped(pattern)


@pytest.mark.parametrize(
    "pattern", ["(" * 3000 + ")" * 3000, "(a{99999999999999999999})", "(?P<1>a)", r"(\udf)", "(\ud800"]
)
def test_what_cannot_be_compiled_is_no_regular_expression(pattern):
    with pytest.raises(InputError, match="is no regular expression"):
        named("a.png").grouped(pattern)


def test_a_search_in_another_process_finds_the_same():
    ids = [f"日本/p{number}_é\u2028x.png" for number in range(2000)] + ["none", "p_"]
    pattern = r"(?i)P(\d+)_"
    expected = {name: found[1] if (found := re.search(pattern, name)) else None for name in ids}
    assert groups_by_id(pattern, ids) == expected
