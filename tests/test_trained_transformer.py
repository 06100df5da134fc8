"""What is claimed of a trained vision transformer: examples/vit_digits.safetensors, by examples/train_vit.py."""

import pytest
import torch
from examples import train_vit

import faithmap
from faithmap.attribution import heatmaps

METHODS = ["attn-lrp", "attention-gradient", "grad-cam", "gradient-x-input"]


@pytest.fixture(scope="module")
def network():
    return train_vit.classifier()


def test_it_knows_digits_that_it_has_not_seen(network):
    assert train_vit.accuracy(network) > 0.9


def inside(corners):
    """Which pixels show the digit, (N, 24, 24)."""
    where = torch.zeros(len(corners), train_vit.SIZE, train_vit.SIZE, dtype=torch.bool)
    for mask, (top, left) in zip(where, corners.tolist(), strict=True):
        mask[top : top + train_vit.DIGIT, left : left + train_vit.DIGIT] = True
    return where


@pytest.mark.parametrize("method", ["attn-lrp", "attention-gradient", "attention-rollout"])
def test_relevance_lies_on_the_digit(network, method):
    """The digit covers 16 of 36 patches; of the eight most relevant ones more than three quarters are on it."""
    pixels, _, corners = train_vit.pictures(test=True, seed=2)
    pixels, where = pixels[:32], inside(corners[:32])
    found = heatmaps(network, pixels, network.predict(pixels), method)
    patches = found.unfold(1, 4, 4).unfold(2, 4, 4).sum((-1, -2)).flatten(1)
    digit = where[:, ::4, ::4].flatten(1)
    first = patches.argsort(1, descending=True)[:, :8]
    assert digit.gather(1, first).float().mean() > 0.75


def test_methods_are_better_than_random_when_tokens_are_dropped(network):
    pixels, _, _ = train_vit.pictures(test=True, seed=3)
    protocol = faithmap.Protocol.preset("srg", placement="patch", fill="drop", random_draws=1)
    run = faithmap.evaluate(network, pixels[:24], METHODS, protocol)
    scores = run.scores().groupby(["method", "order", "step"])["logit"].mean().unstack("order")
    gain = (scores["lerf"] - scores["morf"]).groupby("method").mean()
    assert abs(gain["random"]) < 0.1 * gain["attn-lrp"]
    assert (gain[["attn-lrp", "attention-gradient"]] > 5 * abs(gain["random"])).all(), gain
    assert gain["attn-lrp"] > gain["grad-cam"] > gain["gradient-x-input"]
