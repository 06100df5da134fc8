"""What a GPU needs, tested without one: tensors are made where they are used, and a step never waits for the device."""

from collections import Counter

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import faithmap
from faithmap.attribution import resolve_methods
from faithmap.inference import score_chains
from faithmap.inference.dense import DenseEngine
from faithmap.inference.incremental.engine import IncrementalEngine
from tests.test_incremental import classifier_of, draw_chains, settled
from tests.test_incremental_networks import Branches, Head

NETWORKS = [
    settled(Head(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(8, 8, 3), channels=8), size=40),
    settled(Branches(), size=40),
]


def engine_of(classifier):
    """With the operations that a GPU has."""
    return IncrementalEngine(classifier, DenseEngine(classifier), required=True, public=True)


@pytest.mark.parametrize("module", NETWORKS, ids=["chain", "branches"])
def test_scores_are_computed_where_the_network_is(module):
    """A tensor made without saying where would be on the meta device here, and meet one with numbers."""
    classifier, chains = classifier_of(module), draw_chains(size=40, steps=4, region=5, chains=4)
    expected = score_chains(engine_of(classifier), chains)
    dense = score_chains(DenseEngine(classifier), chains)
    with torch.device("meta"):
        found = score_chains(engine_of(classifier), chains)
        found_dense = score_chains(DenseEngine(classifier), chains)
    for one, other in zip((*found, *found_dense), (*expected, *dense), strict=True):
        assert one.device.type == "cpu"
        assert torch.equal(one, other)


@pytest.mark.parametrize("method", [m.name for m in resolve_methods("fig4") if not m.is_random])
def test_heatmaps_and_orders_are_computed_where_the_images_are(squeezenet, method):
    pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    targets, protocol = torch.tensor([3]), faithmap.Protocol.preset(steps=4)
    expected = faithmap.heatmaps(squeezenet, pixels, targets, method)
    with torch.device("meta"):
        found = faithmap.heatmaps(squeezenet, pixels, targets, method)
        steps = faithmap.removal_steps(found, protocol)
    assert torch.equal(found, expected)
    assert torch.equal(steps, faithmap.removal_steps(expected, protocol))


class Waits(TorchDispatchMode):
    """Counts what would make a program wait until a GPU has done all that it was told."""

    SOME = ("_local_scalar_dense", "nonzero", "unique", "equal", "masked_select", "lift_fresh")

    def __init__(self):
        super().__init__()
        self.found = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        indices = [i for arg in args if isinstance(arg, list) for i in arg if isinstance(i, torch.Tensor)]
        if (
            name.startswith(self.SOME)
            or (name == "repeat_interleave" and (kwargs or {}).get("output_size") is None)
            or (name.startswith("index") and any(index.dtype == torch.bool for index in indices))
        ):
            self.found[name] += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("module", NETWORKS, ids=["chain", "branches"])
def test_a_step_never_waits_for_the_device(module, monkeypatch):
    classifier = classifier_of(module)

    def waits(steps):
        chains = draw_chains(size=40, steps=steps, region=5, chains=40)
        engine = engine_of(classifier)
        score_chains(engine, chains)  # prepared, and compared with the network
        with Waits() as waits, monkeypatch.context() as patch:
            tolist = torch.Tensor.tolist
            patch.setattr(
                torch.Tensor, "tolist", lambda self: waits.found.update(["tolist"]) or tolist(self), raising=True
            )
            score_chains(engine, chains)
        return waits.found

    few, many = waits(2), waits(8)
    assert few == many
    assert few["tolist"] > 0  # what is counted is seen
