"""A network that changes while it is scored, whoever changes it: named, and no score of another network is stored."""

import numpy as np
import pytest
import torch

import faithmap
from faithmap.errors import ClassifierError, ClassifierWarning
from faithmap.experiment.evaluate import check_fingerprint
from tests.conftest import TinyNet

PROTOCOL = faithmap.Protocol.preset("samek2017", steps=3, region_size=4, draws=2)
PIXELS = torch.rand(20, 3, 24, 24, generator=torch.Generator().manual_seed(5))


def changes(module):
    module.head.weight.data.mul_(1.5)


def classifier(module=None):
    torch.manual_seed(0)
    return faithmap.Classifier(module or TinyNet(), name="tiny")


def by_progress(at):
    """Arguments whose callback changes the network at the n-th call; at the very last one where `at` is None."""

    def make(network):
        seen = []

        def progress(state):
            seen.append(state)
            if len(seen) == at or (at is None and state.images == state.images_total):
                changes(network.module)

        return {"progress": progress}

    return make


def by_measure(network):
    def careless(classifier, pixels, targets, heatmaps):
        changes(network.module)
        return heatmaps.sum((1, 2))

    return {"measures": {"careless": careless}}


def by_fill(network):
    def careless(pixels, removed):
        changes(network.module)
        return torch.zeros_like(pixels)

    return {"protocol": PROTOCOL.override(fill=careless)}


def by_reading(network):
    """By what reads the images, which stands for any other code that runs in between."""
    images = list(faithmap.load_images(PIXELS))
    original = images[17].__class__.read

    class Changing(images[17].__class__):
        def read(self, preprocessing):
            changes(network.module)
            return original(self, preprocessing)

    last = images[17]
    images[17] = Changing(last.id, last.pixels, last.label)
    return {"images": faithmap.Images("tensor", images)}


class ChangesItself(TinyNet):
    """Its weights move with every call, as a layer does that was left in training."""

    def forward(self, x):
        self.head.bias.data.add_(0.01)
        return super().forward(x)


WAYS = {
    "progress, early": by_progress(2),
    "progress, between tasks": by_progress(9),
    "progress, at the end": by_progress(None),
    "measure": by_measure,
    "fill": by_fill,
    "reading": by_reading,
}


@pytest.mark.parametrize("way", WAYS)
def test_the_run_ends_and_what_is_stored_is_of_the_network_as_it_was(tmp_path, way):
    network = classifier()
    given = {"images": PIXELS, "protocol": PROTOCOL, **WAYS[way](network)}
    protocol, images = given.pop("protocol"), given.pop("images")
    with pytest.raises(ClassifierError, match=r"tiny (changed while it was scored \(head\.weight\)|is no longer)"):
        faithmap.evaluate(network, images, "sensitivity", protocol, tmp_path / "run", engine="dense", **given)
    run = faithmap.Run(tmp_path / "run")
    assert run.manifest.finished is None
    assert run.manifest.classifier.fingerprint == classifier().fingerprint() != network.fingerprint()
    if way in ("measure", "fill", "reading") or not run.store.parts():
        return
    whole = faithmap.evaluate(classifier(), PIXELS, "sensitivity", PROTOCOL, engine="dense").scores()
    keys = ["image", "method", "order", "draw", "step"]
    whole, stored = whole.astype({"image": str}).set_index(keys), run.scores().astype({"image": str}).set_index(keys)
    assert len(stored)
    np.testing.assert_array_equal(stored["logit"], whole.loc[stored.index, "logit"])
    # With the network as it was, the folder goes on and is whole.
    again = faithmap.evaluate(classifier(), PIXELS, "sensitivity", PROTOCOL, tmp_path / "run", engine="dense")
    assert again.manifest.finished
    assert len(again.scores()) == len(whole)


def test_a_network_that_changes_itself_is_named(tmp_path):
    with pytest.raises(ClassifierError, match=r"tiny changed .*head\.bias.*the network itself"):
        faithmap.evaluate(
            classifier(ChangesItself()), PIXELS, "sensitivity", PROTOCOL, tmp_path, engine="dense", batch_size=16
        )
    assert not faithmap.Run(tmp_path).store.parts()


def test_a_function_that_counts_is_said_and_ends_nothing():
    network, seen = classifier(), []
    torch.manual_seed(0)
    module = TinyNet().eval()

    def counting(inputs):
        seen.append(len(inputs))
        return module(inputs)

    function = faithmap.Classifier(counting, name="counting")
    record = faithmap.evaluate(network, PIXELS[:2], "edge", PROTOCOL).manifest
    with pytest.warns(ClassifierWarning, match="counting is no longer the network that the manifest names"):
        check_fingerprint(function, record)
