"""What heatmaps cost: work that methods have in common is done once, and blocks follow the memory of the network."""

from collections import Counter

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from zennit.rules import Epsilon

import faithmap
from faithmap.attribution import Batch, batch_heatmaps, heatmaps, resolve_methods
from faithmap.attribution.batch import BLOCKS
from faithmap.attribution.lrp import propagate
from faithmap.attribution.relevance import EpsilonRule, stabilised


class Calls(TorchDispatchMode):
    """Counts the convolutions, forwards and backwards."""

    def __init__(self):
        super().__init__()
        self.found = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.found[function.overloadpacket.__name__] += 1
        return function(*args, **(kwargs or {}))

    def convolutions(self):
        return self.found["convolution"], self.found["convolution_backward"]


@pytest.fixture
def classifier():
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    return faithmap.Classifier(module.eval(), mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.fixture
def batch(classifier, monkeypatch):
    monkeypatch.setitem(BLOCKS, "cpu", (4, 4, 1))
    pixels = torch.rand(4, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    found = Batch.of(classifier, pixels, torch.tensor([0, 1, 2, 3]))
    found.block_size()
    return found


def computed(batch, name):
    with Calls() as calls:
        found = batch_heatmaps(resolve_methods(name)[0], batch)
    return found, calls.convolutions()


@pytest.mark.parametrize("method", ["sensitivity", "deconvolution", "guided-backpropagation"])
def test_two_norms_need_one_signal(batch, method):
    _, first = computed(batch, f"{method}:l2")
    found, second = computed(batch, f"{method}:linf")
    assert first[1] == 2  # one of each convolution
    assert second == (0, 0)
    assert torch.equal(found, heatmaps(batch.classifier, batch.pixels, batch.targets, f"{method}:linf"))


def test_other_signals_are_not_shared(batch):
    pooled = nn.Sequential(*list(batch.classifier.module)[:4], nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 4)).eval()
    batch = Batch.of(faithmap.Classifier(pooled), batch.pixels, batch.targets)
    for name in ("deconvolution:l2", "deconvolution:l2,start=features", "guided-backpropagation:l2", "sensitivity:l2"):
        found, _ = computed(batch, name)
        assert torch.equal(found, heatmaps(batch.classifier, batch.pixels, batch.targets, name)), name


def test_lrp_computes_no_gradient_but_that_of_its_rule(batch):
    computed(batch, "deconvolution:l2")  # which has asked for the network's logits already
    _, (forward, backward) = computed(batch, "lrp-epsilon:0.01")
    assert (forward, backward) == (2, 2)  # followed once; the rule computes no layer anew


def test_one_forward_pass_serves_every_epsilon(batch):
    computed(batch, "lrp-epsilon:0.01")
    for name in ("lrp-epsilon:100", "lrp-epsilon:0", "lrp-epsilon:0.01,start=one", "lrp-epsilon:0.01"):
        found, calls = computed(batch, name)
        assert calls == (0, 2), name
        assert torch.equal(found, heatmaps(batch.classifier, batch.pixels, batch.targets, name)), name
    computed(batch, "sensitivity:l2")  # another method has the memory for itself
    assert not batch._held
    two = Batch.of(batch.classifier, batch.pixels.repeat(2, 1, 1, 1), batch.targets.repeat(2))
    two.rows(0, 4).held("lrp-epsilon", list)
    held = two.rows(4, 4).held("lrp-epsilon", list)
    assert two.rows(4, 4).held("lrp-epsilon", list) is held
    assert len(two._held) == 1


class InPlace(nn.Module):
    """Changes what a convolution was given, and what it gave, behind its back."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

    def forward(self, x):
        y = self.first(x)
        x[:, :, :4] = 0
        y[:, :2] = y[:, 2:].clone()
        return self.second(y).relu_().mean((2, 3))


@pytest.mark.parametrize("epsilon", [0, 0.01, 100])
def test_the_epsilon_rule_is_that_of_zennit_bit_for_bit(batch, epsilon):
    for classifier in (batch.classifier, faithmap.Classifier(InPlace().eval())):
        mine = Batch.of(classifier, batch.pixels, batch.targets)
        rule = Epsilon(epsilon=stabilised(epsilon))
        expected = propagate(mine, lambda number, name, rule=rule: rule, absorbing=True)
        own = EpsilonRule(epsilon)
        assert torch.equal(propagate(mine, lambda number, name, own=own: own, absorbing=True), expected)


def test_other_images_share_nothing(batch):
    first, _ = computed(batch, "sensitivity:l2")
    second, (_, backward) = computed(batch.select([1, 0, 3, 2]), "sensitivity:l2")
    assert backward == 2
    assert not torch.equal(first, second)


def test_blocks_are_large_where_little_is_kept_for_the_backward_pass(classifier):
    smallest, largest, _memory = BLOCKS["cpu"]

    def size(width, module=classifier.module):
        pixels = torch.rand(1, 3, width, width)
        return Batch.of(faithmap.Classifier(module), pixels, torch.tensor([0])).block_size()

    assert size(12) == largest
    assert size(1000) == smallest
    assert smallest < size(500) < largest
    assert size(8, nn.Sequential(nn.Flatten(), nn.Linear(192, 200_000))) == largest  # weights do not count
    assert size(8, nn.Linear(3, 3)) == smallest  # fails, and methods will say how
