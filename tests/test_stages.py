"""Stop when decided: images are added in stages, whole groups at a time, until a question is answered."""

import pandas as pd
import pytest
import torch

import faithmap
from faithmap.errors import FaithmapError
from faithmap.experiment.stages import stages_of
from faithmap.images import Images, TensorImage
from faithmap.statistics.significance import fewest_units

PROTOCOL = faithmap.Protocol.preset("srg", region_size=8, points=4)


def images(groups: int, each: int = 2) -> Images:
    pixels = torch.rand(groups * each, 3, 24, 24, generator=torch.Generator().manual_seed(3))
    return Images(
        "set",
        [
            TensorImage(f"{g:02}-{i}", pixels[g * each + i], group=f"g{g:02}")
            for g in range(groups)
            for i in range(each)
        ],
    )


def test_a_stage_holds_whole_groups_and_all_of_the_stage_before():
    stages = stages_of(images(40), 30, seed=0, pairs=3)
    assert [count for count, _ in stages] == [7, 12, 18, 24, 30]  # at 6 groups nothing could be significant
    assert fewest_units(3, 0.05) == 7
    before = set()
    for count, some in stages:
        groups = [image.group for image in some]
        assert len(set(groups)) == count
        assert all(groups.count(one) == 2 for one in set(groups))
        assert before < {image.id for image in some}
        before = {image.id for image in some}
    other = stages_of(images(40), 30, seed=1, pairs=3)
    assert [image.id for image in other[0][1]] != [image.id for image in stages[0][1]]


def test_few_groups_are_one_stage():
    assert [count for count, _ in stages_of(images(4), None, seed=0, pairs=3)] == [4]
    with pytest.raises(FaithmapError, match="at_most is 0"):
        stages_of(images(4), 0, seed=0, pairs=3)


def test_a_run_stops_when_it_is_decided(tiny, tmp_path):
    methods, asked = ["gradient-x-input"], images(30)
    run = faithmap.evaluate(tiny, asked, methods, PROTOCOL, tmp_path / "run", until="random")
    stages, decision = run.manifest.stages, run.decision()
    assert decision.decided, decision.sentence
    assert stages.looks[-1] < stages.at_most == 30
    assert run.scores()["group"].nunique() == stages.looks[-1]
    assert decision.sentence in run.verdict()
    # The same numbers as a run of these images, and the same again when it is asked again.
    some = [image for image in asked if image.id in set(run.scores()["image"])]
    alone = faithmap.evaluate(tiny, Images("set", some), methods, PROTOCOL, tmp_path / "alone")
    pd.testing.assert_frame_equal(run.scores(), alone.scores(), check_exact=True, check_categorical=False)
    assert alone.decision() is None
    parts = sorted((tmp_path / "run" / "scores").iterdir())
    again = faithmap.evaluate(tiny, asked, methods, PROTOCOL, tmp_path / "run", until="random")
    assert again.manifest.stages == stages
    assert sorted((tmp_path / "run" / "scores").iterdir()) == parts


def test_what_is_not_decided_goes_on_to_the_end(tiny, tmp_path):
    """Two names of one method differ in nothing."""
    twins = {"one": "edge", "two": "edge"}
    run = faithmap.evaluate(tiny, images(12), twins, PROTOCOL, tmp_path / "run", until=("one", "two"), at_most=10)
    assert run.manifest.stages.looks == [7, 8, 10]
    assert not run.decision().decided
    assert run.scores()["group"].nunique() == 10


def test_a_decision_rests_on_the_images_of_its_look_whatever_else_the_folder_holds(tiny, tmp_path):
    methods, asked = ["gradient-x-input"], images(30)
    faithmap.evaluate(tiny, asked, methods, PROTOCOL, tmp_path / "run")  # all 30 groups
    run = faithmap.evaluate(tiny, asked, methods, PROTOCOL, tmp_path / "run", until="random")
    alone = faithmap.evaluate(tiny, asked, methods, PROTOCOL, tmp_path / "alone", until="random")
    looks = run.manifest.stages.looks
    assert run.scores()["group"].nunique() == 30 > looks[-1]
    assert run.decision() == alone.decision() == faithmap.Run(tmp_path / "run").decision()
    assert run.manifest.stages == alone.manifest.stages
    assert {image.rpartition("-")[0] for image in run.manifest.stages.images} == {
        image.rpartition("-")[0] for image in alone.scores()["image"].unique()
    }
    assert f"after {looks[-1]} of at most 30 groups" in run.decision().sentence
    assert run.decision().sentence in run.report(tmp_path / "page.html").read_text().replace("&lt;", "<")


@pytest.mark.parametrize("fill", ["swap", "constant:dataset-mean"])
def test_a_fill_that_depends_on_the_images_is_the_same_in_every_stage(tiny, tmp_path, fill):
    """It is fitted once, on all images that there may be."""
    protocol = PROTOCOL.override(fill=fill)
    twins = {"one": "edge", "two": "edge"}
    run = faithmap.evaluate(tiny, images(12), twins, protocol, tmp_path / "run", until=("one", "two"))
    assert len(run.manifest.stages.looks) > 1
    whole = faithmap.evaluate(tiny, images(12), twins, protocol, tmp_path / "whole")
    assert run.protocol == whole.protocol
    pd.testing.assert_frame_equal(run.scores(), whole.scores(), check_exact=True, check_categorical=False)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"until": "soon"}, "until is 'soon'"),
        ({"until": ("a", "b", "c")}, "give 'decided', 'random', or two methods"),
        ({"at_most": 3}, "at_most is for runs that stop when decided"),
    ],
)
def test_what_cannot_be_asked_is_named(tiny, tmp_path, how, says):
    with pytest.raises(FaithmapError, match=says):
        faithmap.evaluate(tiny, images(4), ["edge"], PROTOCOL, tmp_path / "run", **how)
