"""Test beds: the truth is what it says it is, and the measures find it."""

import pytest
import torch

import faithmap
from faithmap import testbeds

ALL = (
    "gradient-x-input,sensitivity,lrp-epsilon:0.01,lrp-z-plus,integrated-gradients:n=8,smoothgrad:n=4,deconvolution,"
    "guided-backpropagation,grad-cam,occlusion:size=8,stride=4,edge,brightness,centre"
)


@pytest.fixture(scope="module")
def beds():
    return {shortcut: testbeds.shapes(6, 48, shortcut=shortcut) for shortcut in (False, True)}


def pixels_of(bed):
    return torch.stack([image.pixels for image in bed.images])


@pytest.mark.parametrize("shortcut", [False, True])
def test_only_what_the_mask_says_decides(beds, shortcut):
    bed = beds[shortcut]
    pixels, decides = pixels_of(bed), torch.stack(list(bed.masks.values())).unsqueeze(1)
    labels = [testbeds.CLASSES.index(image.label) for image in bed.images]
    assert bed.classifier.predict(pixels).tolist() == labels
    assert bool(((pixels >= 0) & (pixels <= 1)).all())
    logits = bed.classifier(pixels)
    grey = pixels.mean(1, keepdim=True).expand_as(pixels)
    assert torch.equal(bed.classifier(torch.where(decides, pixels, grey)), logits)  # not by one bit
    without = bed.classifier(torch.where(decides, grey, pixels))
    assert without.abs().max() == 0
    objects = torch.stack(list(bed.objects.values()))
    assert torch.equal(objects, ~decides[:, 0] if shortcut else decides[:, 0])
    assert 0.01 < float(objects.float().mean()) < 0.15


def test_both_networks_see_the_same_images(beds):
    assert torch.equal(pixels_of(beds[False]), pixels_of(beds[True]))
    assert [i.id for i in testbeds.shapes(3, 48).images] == [i.id for i in beds[False].images[:3]]
    assert not torch.equal(pixels_of(testbeds.shapes(6, 48, seed=1)), pixels_of(beds[False]))


def test_known_maps_have_known_scores(beds):
    bed = beds[False]
    masks = bed.masks
    maps = {
        "perfect": {name: mask.float().numpy() for name, mask in masks.items()},
        "complement": {name: (~mask).float().numpy() for name, mask in masks.items()},
        "uniform": {name: torch.ones(mask.shape).numpy() for name, mask in masks.items()},
    }
    frame = bed.measure(maps, "relevance-mass,relevance-rank")
    table = frame.pivot_table(index=["measure", "image"], columns="method", values="value")
    assert (table["perfect"] == 1).all()
    assert (table["complement"] == 0).all()
    area = {name: float(mask.float().mean()) for name, mask in masks.items()}
    expected = [area[image] for _, image in table.index]
    assert table["uniform"].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("shortcut", [False, True])
def test_every_method_gets_its_score(beds, shortcut):
    frame = beds[shortcut].measure(ALL, "relevance-mass,relevance-rank,pointing-game:tolerance=0")
    table = frame.pivot_table(index="method", columns="measure", values="value")
    assert len(table) == 14  # with random
    exact = ["gradient-x-input", "sensitivity:l2", "lrp-epsilon:0.01", "integrated-gradients:n=8"]
    assert table.loc[exact, "relevance-mass"].min() > 0.98
    area = 1 - 0.05 if shortcut else 0.05
    for control in ("edge", "brightness", "centre", "random"):
        assert abs(table.loc[control, "relevance-mass"] - area) < 0.15, control
    assert table.loc["random", "relevance-mass"] == pytest.approx(area, abs=0.03)


def test_the_shortcut_is_seen(beds):
    """A faithful heatmap of the network with the shortcut lies off the object: that is what the measures say."""
    bed = beds[True]
    on_the_object = testbeds.TestBed(bed.classifier, bed.images, bed.objects, bed.objects)
    frame = on_the_object.measure("gradient-x-input", "relevance-mass,background-mass")
    table = frame[frame.method == "gradient-x-input"].groupby("measure").value.mean()
    assert table["relevance-mass"] < 0.02
    assert table["background-mass"] > 0.98


def test_a_method_that_is_the_input_alone_is_exposed(beds):
    def inputs_alone(inputs, targets):
        return inputs.sum(1)

    frame = beds[False].measure({"input": inputs_alone, "gradient": "gradient-x-input"}, "randomisation-top-down")
    table = frame.groupby("method").value.mean()
    assert table["input"] == 1
    assert table["gradient"] < 0.9
    assert set(table.index) == {"input", "gradient"}
    assert faithmap.testbeds is testbeds


@pytest.mark.parametrize("seed", [-1, "0", 0.5, None, torch.zeros(2), 2**63])
def test_a_seed_that_is_none_is_refused(beds, seed):
    with pytest.raises(faithmap.FaithmapError, match="seed is"):
        beds[False].measure("random", seed=seed)
