"""Blocks of images: what methods are given, and which image is at fault."""

import pandas as pd
import pytest
import torch

import faithmap
from faithmap.attribution import Method
from faithmap.experiment.task import BLOCK

PROTOCOL = faithmap.Protocol.preset(steps=3, region_size=6, draws=1)
KEYS = ["image", "method", "order", "draw", "step"]


def measured(tiny, pixels, compute, blocks, out):
    """The run, and how many images the method was given at a time."""
    given = []

    def watched(batch):
        given.append(len(batch.inputs))
        return compute(batch.inputs)

    method = Method("mine", {"method": "mine"}, watched, batching=blocks)
    return faithmap.evaluate(tiny, pixels, [method, "sensitivity:l2"], PROTOCOL, out), given


@pytest.fixture
def pixels():
    return torch.rand(19, 3, 24, 24, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("blocks", ["whole", "fixed"])
def test_the_image_at_fault_is_skipped_and_no_other(tiny, pixels, tmp_path, blocks):
    at_fault = [3, 4, 10, 18]
    pixels[at_fault, 0, 0, 0] = 0.0
    wrong = float(tiny.normalise(pixels)[3, 0, 0, 0])

    def compute(inputs):
        maps = inputs.square().clone()
        maps[inputs[:, 0, 0, 0] == wrong] = torch.nan
        return maps

    run, _ = measured(tiny, pixels, compute, blocks, tmp_path / "run")
    assert [(int(one.image), one.method) for one in run.skipped] == [(row, "mine") for row in at_fault]
    images = run.scores().groupby("method", observed=True)["image"].unique()
    assert {int(image) for image in images["mine"]} == set(range(19)) - set(at_fault)
    assert len(images["sensitivity:l2"]) == len(images["random"]) == 19


def test_a_method_of_ones_own_is_always_given_blocks_of_one_size(tiny, pixels, tmp_path):
    """So that its numbers do not depend on how many images there are."""

    def compute(inputs):
        return inputs.square() + inputs.mean((1, 2, 3), keepdim=True)

    all_of_them, given = measured(tiny, pixels, compute, "whole", tmp_path / "all")
    assert set(given) == {BLOCK}
    images = faithmap.load_images(pixels)
    some = faithmap.Images(images.name, [images[row] for row in (0, 9, 18)])
    few, given = measured(tiny, some, compute, "whole", tmp_path / "few")
    assert set(given) == {BLOCK}
    whole, part = (
        run.scores().astype(dict.fromkeys((*KEYS[:3], "group"), "str")).set_index(KEYS) for run in (all_of_them, few)
    )
    assert len(part) == 3 * 3 * 4
    pd.testing.assert_frame_equal(whole.loc[part.index], part, check_exact=True)
