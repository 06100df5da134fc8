"""The network with its ReLUs inside its convolutions: equal to the network, bit for bit, or not used."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import faithmap
from faithmap.errors import EngineError
from faithmap.inference import fused, make_engine, score_chains
from faithmap.inference.fused import BATCH, FusedNetwork
from faithmap.inference.incremental.costs import Way
from tests.test_incremental import draw_chains


class Branching(nn.Module):
    """A convolution that is read with and without its ReLU, one without any, groups, single channels, dilation."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.grouped = nn.Conv2d(16, 16, 3, padding=2, dilation=2, groups=4, bias=False)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.last = nn.Conv2d(48, 20, 1)
        self.head = nn.Linear(20 * 4, 7)

    def forward(self, x):
        x = self.first(x)
        x = torch.cat([x.relu(), x, self.depthwise(self.grouped(x.relu()).relu_())], 1)
        x = nn.functional.max_pool2d(self.last(x).relu(), 3, 2, ceil_mode=True)
        return self.head(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))


def build(module: nn.Module) -> faithmap.Classifier:
    torch.manual_seed(0)
    return faithmap.Classifier(module.eval(), mean=(0.5,) * 3, std=(0.25,) * 3)


def inputs(rows: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(rows)
    return torch.randn(rows, 3, 40, 40, generator=random).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("rows", [16, BATCH, 3 * BATCH + 16])
def test_the_same_bits_as_the_network(rows):
    classifier = build(Branching())
    with torch.inference_mode():
        network = FusedNetwork(classifier, (40, 40))
        expected = classifier.outputs(inputs(rows))
        assert torch.equal(network(inputs(rows)), expected)
        assert network._module is not None
        assert torch.equal(network(inputs(rows)), expected)


def test_real_weights(squeezenet):
    pixels = torch.stack(
        [image.read(squeezenet.preprocessing) for image in list(faithmap.load_images("photos"))[:BATCH]]
    )
    with torch.inference_mode():
        normal = squeezenet.normalise(pixels).contiguous(memory_format=torch.channels_last)
        network = FusedNetwork(squeezenet, (224, 224))
        assert torch.equal(network(normal), squeezenet.outputs(normal))
        assert network._module is not None


def test_one_other_bit_and_the_network_as_it_is_runs(monkeypatch):
    classifier = build(Branching())
    right = fused.FusedConvolution.forward
    monkeypatch.setattr(fused.FusedConvolution, "forward", lambda self, x: right(self, x).mul_(1 + 1e-6))
    with torch.inference_mode():
        network = FusedNetwork(classifier, (40, 40))
        for rows in (16, BATCH):
            assert torch.equal(network(inputs(rows)), classifier.outputs(inputs(rows)))
    assert network._module is None


def test_other_types_and_missing_operations_are_refused(monkeypatch):
    with pytest.raises(EngineError, match="float32"):
        FusedNetwork(build(Branching().double()), (40, 40))
    monkeypatch.delattr(torch._C._nn, "mkldnn_reorder_conv2d_weight")
    with pytest.raises(EngineError, match="cannot be fused"):
        FusedNetwork(build(Branching()), (40, 40))


def test_the_engine_fuses_for_many_scores_and_forgets_a_changed_network(monkeypatch):
    classifier = build(Branching())
    chains = replace(draw_chains(size=40, chains=6, steps=9, region=7), points=(0, 4, 9))
    monkeypatch.setattr("faithmap.inference.incremental.engine._MANY_SCORES", 8)
    monkeypatch.setattr("faithmap.inference.incremental.engine.cheapest_way", lambda *_, **__: Way(0))
    monkeypatch.setattr("faithmap.inference.incremental.engine.WORTHWHILE", 0.0)
    engine = make_engine(classifier, "auto")
    expected = score_chains(make_engine(classifier, "dense"), chains)
    assert torch.equal(score_chains(engine, chains)[0], expected[0])
    assert isinstance(engine._images.network, FusedNetwork)
    with torch.no_grad():
        classifier.module.first.weight.mul_(1.5)
    changed = score_chains(make_engine(classifier, "dense"), chains)
    assert not torch.equal(changed[0], expected[0])
    untouched = replace(chains, points=(0,))  # nothing is prepared for it
    assert torch.equal(score_chains(engine, untouched)[0], changed[0][:, :1])
    assert torch.equal(score_chains(engine, chains)[0], changed[0])


def test_inputs_that_are_not_finite_never_meet_fused_convolutions(monkeypatch):
    """A ReLU inside a convolution may turn a NaN into 0."""
    classifier = build(Branching())
    chains = replace(draw_chains(size=40, chains=6, steps=9, region=7), points=(0, 4, 9))
    monkeypatch.setattr("faithmap.inference.incremental.engine._MANY_SCORES", 8)
    monkeypatch.setattr("faithmap.inference.incremental.engine.cheapest_way", lambda *_, **__: Way(0))
    monkeypatch.setattr("faithmap.inference.incremental.engine.WORTHWHILE", 0.0)
    engine = make_engine(classifier, "auto")
    score_chains(engine, chains)
    monkeypatch.setattr(FusedNetwork, "__call__", lambda *_: pytest.fail("it was asked"))
    broken = replace(chains, pixels=chains.pixels.clone().index_fill_(2, torch.tensor([3]), torch.nan))
    with pytest.raises(faithmap.errors.CurveError, match="not finite"):
        score_chains(engine, broken)
