"""Images on which the methods are best, median and worst have their heatmaps stored, however many images there are."""

import pytest
import torch

import faithmap
from tests.conftest import TinyNet

COUNT = 40
METHODS = ["sensitivity:l2", "edge"]


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(3)
    return faithmap.Classifier(TinyNet(), mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), name="tiny")


@pytest.fixture(scope="module")
def run(network, tmp_path_factory):
    pixels = torch.rand(COUNT, 3, 24, 24, generator=torch.Generator().manual_seed(9))
    protocol = faithmap.Protocol.preset("samek2017", steps=4, region_size=4, draws=1)
    return faithmap.evaluate(network, pixels, METHODS, protocol, tmp_path_factory.mktemp("many") / "run")


def expected(run, score):
    """Best, median and worst by plain loops: mean AOPC over the methods, relative to random."""
    frame = run.scores()
    area = {}
    for (image, method), curve in frame.groupby(["image", "method"], observed=True):
        values = curve.sort_values("step")[score].to_list()
        area[image, method] = sum(values[0] - value for value in values) / len(values)
    gain = {}
    for image in sorted(set(frame["image"])):
        gain[image] = sum(area[image, method] - area[image, "random"] for method in METHODS)
    ranked = sorted(gain, key=lambda image: -gain[image])
    return [ranked[0], ranked[len(ranked) // 2], ranked[-1]]


def test_they_are_stored_and_shown_first(run):
    both = list(dict.fromkeys(expected(run, "logit") + expected(run, "probability")))
    stored = {image for image, _ in run.store.stored_heatmaps().places}
    assert run.telling_images() == both
    assert set(both) <= stored
    assert 24 <= len(stored) <= 24 + len(both) < COUNT
    assert [example.image for example in run.examples(len(both))] == both
    assert all(set(METHODS) <= set(example.heatmaps) for example in run.examples(len(both)))
    assert len(run.examples()) == 24


def test_the_figure_shows_the_true_ones(run):
    axes = run.figure("heatmaps")
    assert [row[0].get_ylabel() for row in axes] == ["best", "median", "worst"]
    figure = axes[0][0].get_figure()
    assert "whose heatmaps are stored" not in figure._supxlabel.get_text()
    for row, image in zip(axes, expected(run, "logit"), strict=True):
        example = next(one for one in run.examples() if one.image == image)
        assert torch.equal(torch.from_numpy(row[0].images[0].get_array().data).permute(2, 0, 1), example.pixels)


def test_the_same_call_again_stores_nothing_and_more_images_move_them(network, run, tmp_path):
    parts = sorted(run.store.heatmap_parts())
    pixels = torch.rand(COUNT, 3, 24, 24, generator=torch.Generator().manual_seed(9))
    again = faithmap.evaluate(network, pixels, METHODS, run.protocol, run.folder)
    assert sorted(again.store.heatmap_parts()) == parts
    some = faithmap.evaluate(network, pixels[:30], METHODS, run.protocol, tmp_path)
    more = faithmap.evaluate(network, pixels, METHODS, run.protocol, tmp_path)
    assert some.telling_images != more.telling_images
    assert set(more.telling_images()) <= {image for image, _ in more.store.stored_heatmaps().places}
