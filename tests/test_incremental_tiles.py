"""3×3 convolutions in tiles of 2×2 outputs, held against plain convolutions and at every step against the network."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import faithmap
from faithmap.inference import examine, make_engine
from faithmap.inference.incremental import winograd
from faithmap.inference.incremental.geometry import Pixels
from faithmap.inference.incremental.kernels import TileKernel
from tests.test_incremental import (
    all_logits,
    assert_exact,
    classifier_of,
    draw_chains,
    from_scratch,
    memory_for,
    settled,
    small,
)
from tests.test_incremental_networks import BODIES, Head
from tests.test_incremental_points import points_of


@pytest.fixture
def wherever_they_can(monkeypatch):
    """Tiles in every convolution that can have them, however small."""
    monkeypatch.setattr(winograd, "_CHANNELS", 0)
    monkeypatch.setattr(winograd, "_FEWER", 0)


def tiled(engine):
    """The names of the layers that run in tiles."""
    return [layer.name for layer, kernel in engine._runner.plan.kernels if isinstance(kernel, TileKernel)]


def tile_of(d, g):
    """Y = Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d B)]A, summed over the inputs: (2, 2, outputs) of d (inputs, 4, 4)."""
    inputs, outputs = len(d), len(g)
    lines, points = d.new_zeros(4, inputs, 4), d.new_zeros(4, 4, inputs)
    winograd.interpolate(d.unbind(1), lines.unbind(0))
    winograd.interpolate(lines.unbind(2), points.unbind(1))
    products = [matrix @ point for matrix, point in zip(winograd.filters(g), points.flatten(0, 1), strict=True)]
    half, found = d.new_zeros(2, 4, outputs), d.new_zeros(2, 2, outputs)
    for at in range(4):
        winograd.evaluate(products[at::4], half[:, at].unbind(0))
    winograd.evaluate(half.unbind(1), found.unbind(1))
    return found


def test_a_tile_is_four_outputs_of_a_convolution():
    random = torch.Generator().manual_seed(3)
    d, g = (torch.randn(shape, generator=random, dtype=torch.float64) for shape in ((7, 4, 4), (5, 7, 3, 3)))
    expected = F.conv2d(d[None], g)[0].permute(1, 2, 0)
    torch.testing.assert_close(tile_of(d, g), expected, rtol=1e-12, atol=1e-12)


def test_what_lies_beside_a_window_changes_no_bit_of_its_output():
    random = torch.Generator().manual_seed(4)
    d, g = (torch.randn(shape, generator=random) for shape in ((7, 4, 4), (5, 7, 3, 3)))
    before = tile_of(d, g)
    for row in range(2):
        for column in range(2):
            window = torch.zeros(4, 4, dtype=torch.bool)
            window[row : row + 3, column : column + 3] = True
            other = torch.where(window, d, 1e3 * torch.randn(d.shape, generator=random))
            assert torch.equal(tile_of(other, g)[row, column], before[row, column])


# Maps of odd and even size: where a tile's outputs lie outside the map, they are dropped.
@pytest.mark.parametrize("padding", [0, 1, 2, (2, 0)])
@pytest.mark.parametrize("size", [60, 62])
def test_maps_of_any_size_and_padding(wherever_they_can, size, padding):
    body = (
        nn.Conv2d(3, 24, 5, 2, 2), nn.ReLU(), nn.Conv2d(24, 40, 3, padding=padding), nn.ELU(),
        nn.Conv2d(40, 24, 3, padding=1, bias=False), nn.ReLU(), nn.MaxPool2d(2),
    )  # fmt: skip
    module = settled(Head(*body, channels=24), size)
    assert_exact(module, draw_chains(size=size, chains=3, steps=8))
    engine = make_engine(classifier_of(module), "incremental")
    all_logits(engine, draw_chains(size=size, chains=1, steps=1))
    assert len(tiled(engine)) == 2


@pytest.mark.parametrize("name", ["squeezenet1_1", "vgg11_bn", "resnet18", "densenet121"])
@pytest.mark.parametrize("public", [False, True])
def test_known_networks_in_tiles(wherever_they_can, monkeypatch, name, public):
    if public:
        monkeypatch.setattr("faithmap.inference.incremental.kernels.private_linear", lambda *_: None)
    module, chains = small(name), draw_chains(chains=2, steps=6)
    assert_exact(module, chains)
    engine = make_engine(classifier_of(module), "incremental")
    all_logits(engine, chains)
    assert len(tiled(engine)) > 3


@pytest.mark.parametrize("name", ["squeezenet1_1", "vgg11_bn"])
def test_bits_do_not_depend_on_what_else_is_computed(wherever_they_can, name):
    """Those of all tiles of every image, with any chains at a time, and between distant points."""
    classifier, chains = classifier_of(small(name)), draw_chains(size=72, chains=5, steps=8, images=3)
    engine = make_engine(classifier, "incremental")
    found = all_logits(engine, chains)
    assert tiled(engine)
    assert torch.equal(found, from_scratch(engine, chains))
    few = make_engine(classifier, "incremental", memory=memory_for(engine, 2))
    assert torch.equal(found, all_logits(few, chains))
    assert few._runner.most == 2
    some = replace(chains, points=(0, 3, 4, 8))
    assert torch.equal(points_of(engine, some), found[:, [0, 3, 4, 8]])


@pytest.mark.parametrize("name", BODIES)
def test_bodies_in_tiles(wherever_they_can, name):
    assert_exact(settled(Head(*BODIES[name], channels=8), size=40), draw_chains(size=40, steps=6, region=5))


def test_tiles_of_pixels():
    """Against a loop over all pixels."""
    random = torch.Generator().manual_seed(8)
    inside = torch.rand(4, 10, 11, generator=random) < 0.03
    found = Pixels(*inside.nonzero(as_tuple=True)).tiles(3, (4, 4))
    expected = sorted({(c, y // 3, x // 3) for c, y, x in inside.nonzero().tolist()})
    assert list(zip(found.chain.tolist(), found.row.tolist(), found.column.tolist(), strict=True)) == expected
    assert len(Pixels(*torch.zeros(0, 10, 11).nonzero(as_tuple=True)).tiles(3, (4, 4))) == 0


def wide(channels, dtype=torch.float32, **more):
    """A network whose second convolution is wide."""
    return nn.Sequential(
        nn.Conv2d(3, channels, 7, 4, 3), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1, **more), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(channels, 10),
    ).to(dtype).eval()  # fmt: skip


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (wide(256), True),
        (wide(255), False),  # C · O / (C + O) is below 128
        (wide(256, groups=2), False),
        (wide(256, stride=2), False),
        (wide(256, dilation=2), False),
        (wide(256, dtype=torch.float64), False),
    ],
)
def test_which_convolutions_run_in_tiles(module, expected):
    layers = examine(faithmap.Classifier(module, mean=(0.5,) * 3, std=(0.5,) * 3, name="wide"), (160, 160)).layers
    assert [layer.operation for layer in layers][1] == (
        "convolution in tiles + relu" if expected else "convolution + relu"
    )


def test_wide_layers_of_real_width_are_exact():
    module = settled(wide(256), 128)
    chains = draw_chains(size=128, chains=2, steps=6, region=9)
    assert_exact(module, chains)
    engine = make_engine(classifier_of(module), "incremental")
    assert torch.equal(all_logits(engine, chains), from_scratch(engine, chains))
    assert tiled(engine) == ["2"]
