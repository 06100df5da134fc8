"""Networks that people use and networks made by hand, each against itself, at every step."""

import warnings

import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import nn

import faithmap
from faithmap.errors import EngineError, EngineWarning
from faithmap.inference import examine, make_engine
from faithmap.inference.incremental.runner import network_of
from tests.test_incremental import (
    all_logits,
    assert_exact,
    classifier_of,
    draw_chains,
    from_scratch,
    perturbed,
    settled,
    stock_logits,
)

NETWORKS = [
    "resnet18",
    "resnet50",
    "densenet121",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "efficientnet_b0",
    "convnext_tiny",
]


@pytest.mark.parametrize("name", NETWORKS)
def test_known_networks(name):
    module = settled(torchvision.models.get_model(name, num_classes=10), size=128)
    if name == "convnext_tiny":
        for block in module.modules():
            if hasattr(block, "layer_scale"):
                nn.init.uniform_(block.layer_scale, 0.1, 0.5)
    assert_exact(module, draw_chains(size=96, steps=3, chains=2, region=9))


def test_googlenet():
    options = {"init_weights": False, "aux_logits": False, "transform_input": True}
    module = settled(torchvision.models.googlenet(num_classes=10, **options), size=128)
    assert_exact(module, draw_chains(size=96, steps=3, chains=2, region=9))


@pytest.mark.parametrize("name", ["squeezenet1_1-embedded", "efficientnet-lite0-embedded"])
def test_real_weights(name):
    classifier = faithmap.load_classifier(name, device="cpu")
    chains = draw_chains(size=224, chains=1, images=1, steps=30, region=9)
    engine = make_engine(classifier, "incremental")
    found = all_logits(engine, chains)
    steps = [0, 1, 15, 30]
    with torch.inference_mode():
        expected = classifier.module(torch.stack([perturbed(classifier, chains, 0, step) for step in steps]))
    # With one thread EfficientNet-Lite0 itself rounds by 1.03e-5 otherwise than with two.
    assert float((found[0, steps] - expected).abs().max() / expected.std()) < 1.5e-5
    assert engine.reason is None


def test_a_vision_transformer_goes_dense_and_says_where():
    module = torchvision.models.VisionTransformer(32, 8, 8, 2, 16, 64, num_classes=5)
    chains = draw_chains(size=32, chains=2, steps=3)
    with pytest.warns(EngineWarning, match=r"aten\.reshape.* whole maps only"):
        found = all_logits(make_engine(classifier_of(module), "auto"), chains)
    expected = stock_logits(classifier_of(module), chains)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert "reshape" in examine(classifier_of(module), (32, 32)).stop


class Head(nn.Module):
    """A body with global mean and a linear layer behind it."""

    def __init__(self, *body, channels, classes=4):
        super().__init__()
        self.body = nn.Sequential(*body)
        self.head = nn.Linear(channels, classes)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


def function(f):
    """A function as a module."""

    class Function(nn.Module):
        def forward(self, *args):
            return f(*args)

    return Function()


BODIES = {
    "odd strides": [nn.Conv2d(3, 8, (5, 3), (3, 2), (1, 2)), nn.ReLU(), nn.Conv2d(8, 8, (2, 4), (2, 1), (0, 3))],
    "dilation": [nn.Conv2d(3, 8, 3, 2, 2, dilation=2), nn.Conv2d(8, 8, (3, 2), padding=(3, 1), dilation=(3, 2))],
    "groups": [nn.Conv2d(3, 8, 3, 2), nn.Conv2d(8, 12, 3, groups=4), nn.ReLU(), nn.Conv2d(12, 8, 3, groups=2)],
    "depthwise": [nn.Conv2d(3, 9, 3, 2, groups=3), nn.SiLU(), nn.Conv2d(9, 9, 5, 2, 2, groups=9), nn.Conv2d(9, 8, 1)],
    "same, even kernel": [nn.Conv2d(3, 8, (4, 6), padding="same"), nn.Conv2d(8, 8, 2, padding="same", dilation=3)],
    "zero pad": [nn.ZeroPad2d((1, 4, 0, 3)), nn.Conv2d(3, 8, 5, 2, 1), nn.ZeroPad2d((0, 1, 2, 0)), nn.Conv2d(8, 8, 3)],
    "pad before a pool": [nn.Conv2d(3, 8, 3), nn.ZeroPad2d((0, 1, 0, 1)), nn.MaxPool2d(3, 2)],
    "constant pad": [nn.Conv2d(3, 8, 3), nn.ConstantPad2d((2, 1, 0, 3), 0.7), nn.Conv2d(8, 8, 3)],
    "cut": [nn.Conv2d(3, 8, 3), nn.ConstantPad2d((-2, -1, -3, 2), 0.0), nn.Conv2d(8, 8, 3, padding=1)],
    "padding and a cut": [nn.Conv2d(3, 8, 3), nn.ConstantPad2d((1, -2, 0, -3), 0.0), nn.Conv2d(8, 8, 3, padding=1)],
    "zeros below and to the right": [nn.Conv2d(3, 8, 3, 2), nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(8, 8, 3)],
    "spatial slice": [nn.Conv2d(3, 8, 3), function(lambda x: x[:, :, 3:, 2:-4]), nn.Conv2d(8, 8, 3, padding=1)],
    "reflect pad": [nn.Conv2d(3, 8, 3, 2), nn.ReflectionPad2d(2), nn.Conv2d(8, 8, 3)],
    "reflect mode": [nn.Conv2d(3, 8, 3, 2), nn.Conv2d(8, 8, 3, padding=2, padding_mode="reflect")],
    "pool of negatives": [nn.Conv2d(3, 8, 3), nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(2, ceil_mode=True)],
    "pool with dilation": [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d((3, 2), (2, 3), (1, 0), dilation=2)],
    "average": [nn.Conv2d(3, 8, 3), nn.AvgPool2d(3, 2, 1), nn.AvgPool2d(2, ceil_mode=True)],
    "average without padding": [nn.Conv2d(3, 8, 3), nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False)],
    "average by another divisor": [nn.Conv2d(3, 8, 3), nn.AvgPool2d(3, 2, 1, divisor_override=5)],
    "average below zero": [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AvgPool2d(2, divisor_override=-3), nn.MaxPool2d(3, 2, 1)],
    "bounds in the wrong order": [nn.Conv2d(3, 8, 3), function(lambda x: x + F.max_pool2d(x.clamp(0.5, -1), 3, 1, 1))],
    "adaptive average": [nn.Conv2d(3, 8, 5, 2, 2), nn.AdaptiveAvgPool2d(12), nn.Conv2d(8, 8, 3)],
    "padding beyond the kernel": [nn.Conv2d(3, 8, 1, padding=3), nn.ReLU(), nn.Conv2d(8, 8, 2, 3, padding=2)],
    "strides that skip": [nn.Conv2d(3, 8, 1, 3), nn.ReLU(), nn.MaxPool2d(1, 2)],
    "free batch norm": [nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.BatchNorm2d(8)],
    "prelu": [nn.Conv2d(3, 8, 3), nn.PReLU(8), nn.Conv2d(8, 8, 3), nn.PReLU()],
    "layer norm over pixels": [nn.Conv2d(3, 8, 3, 2), nn.GroupNorm(2, 8), nn.Conv2d(8, 8, 3)],
    "softmax of channels": [nn.Conv2d(3, 8, 3), nn.Softmax(1), nn.Conv2d(8, 8, 3)],
    "wide kernel": [nn.Conv2d(3, 8, 21, 2, 10), nn.ReLU(), nn.Conv2d(8, 8, (1, 13), padding=(0, 6))],
    "in place": [nn.Conv2d(3, 8, 3), nn.ReLU(True), function(lambda x: x.mul_(2).sub_(0.3)), nn.Hardtanh(0, 1, True)],
}  # fmt: skip


def grouped(x):
    b, c, h, w = x.shape
    return x.view(b, 2, c // 2, h, w).transpose(1, 2).contiguous().view(b, c, h, w)


class Mixed(nn.Module):
    """Constant matrices over the channels, in two spellings, and a sum with a factor."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Parameter(torch.randn(6, 8)), nn.Parameter(torch.randn(6, 8))

    def forward(self, x):
        x = torch.add(x, x.relu(), alpha=-0.3)
        x = torch.einsum("bchw,oc->bohw", x, self.first)
        return (x.permute(0, 2, 3, 1) @ self.second).permute(0, 3, 1, 2)


def resized(**how):
    return function(lambda x: F.interpolate(x, **how))


# All of these are in the front to their end: only the mean is computed for whole maps.
JOINING = {
    "transposed": [nn.Conv2d(3, 8, 3, 2), nn.ConvTranspose2d(8, 8, 3, 2), nn.Conv2d(8, 8, 3)],
    "transposed, all options": [nn.Conv2d(3, 8, 3, 3), nn.ConvTranspose2d(8, 8, (2, 5), 2, (0, 1), (1, 0), bias=False)],
    "transposed, beyond all taps": [nn.Conv2d(3, 8, 3, 2), nn.ConvTranspose2d(8, 8, 2, 2, 0, 1), nn.Conv2d(8, 8, 3)],
    "transposed, stride of one": [nn.Conv2d(3, 8, 3, 2), nn.ConvTranspose2d(8, 8, 4, 1, 2), nn.Conv2d(8, 8, 3)],
    "nearest": [nn.Conv2d(3, 8, 3, 2), nn.Upsample(scale_factor=2), nn.Conv2d(8, 8, 3)],
    "nearest, uneven": [nn.Conv2d(3, 8, 3, 2), resized(scale_factor=1.7), resized(size=(25, 19), mode="nearest-exact")],
    "bilinear": [nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(8, 8, 3)],
    "bilinear, corners": [nn.Conv2d(3, 8, 3, 2), resized(size=(31, 24), mode="bilinear", align_corners=True)],
    "bilinear, smaller": [nn.Conv2d(3, 8, 3), resized(scale_factor=0.6, mode="bilinear", antialias=True)],
    "bicubic": [nn.Conv2d(3, 8, 3, 2), resized(scale_factor=2, mode="bicubic"), nn.Conv2d(8, 8, 3)],
    "adaptive average, uneven": [nn.Conv2d(3, 8, 5, 2, 2), nn.AdaptiveAvgPool2d(7), nn.Conv2d(8, 8, 3)],
    "pixel shuffle": [nn.Conv2d(3, 12, 3, 2), nn.PixelShuffle(2), nn.Conv2d(3, 8, 3)],
    "channel shuffle": [nn.Conv2d(3, 8, 3), nn.ChannelShuffle(2), nn.Conv2d(8, 8, 3)],
    "channel shuffle by views": [nn.Conv2d(3, 8, 3), function(grouped), nn.Conv2d(8, 8, 3)],
    "constant matrices": [nn.Conv2d(3, 8, 3), Mixed(), nn.Conv2d(8, 8, 3)],
}


@pytest.mark.parametrize("name", JOINING)
def test_joining_operations_are_exact_and_in_the_front(name):
    module = settled(Head(*JOINING[name], channels=8), size=40)
    chains = draw_chains(size=40, steps=6, region=5)
    found = assert_exact(module, chains)
    engine = make_engine(classifier_of(module), "incremental")
    assert torch.equal(all_logits(engine, chains), found)
    assert torch.equal(from_scratch(engine, chains), found)
    # The search for a layer that is wrong, which a user only meets when there is one, finds none.
    plan = engine._runner.plan
    none = engine._runner.first_difference(engine.classifier, chains, 0, 6)
    assert none == f"what follows the last of these maps: {plan.network.stop}"
    tail = [node for node in plan.network.tail if node.op == "call_function"]
    assert [node.target for node in tail] == [torch.ops.aten.linear.default]


@pytest.mark.parametrize("name", BODIES)
def test_bodies(name):
    assert_exact(settled(Head(*BODIES[name], channels=8), size=40), draw_chains(size=40, steps=6, region=5))


ACTIVATIONS = [
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.SiLU, nn.Hardswish, nn.Hardsigmoid, nn.GELU, nn.Sigmoid, nn.Tanh, nn.ELU,
    nn.CELU, nn.SELU, nn.Mish, nn.Softplus, nn.Softsign, nn.Tanhshrink, nn.Softshrink, nn.Hardshrink, nn.LogSigmoid,
    lambda: nn.Threshold(0.1, 0.2), lambda: nn.GELU("tanh"), lambda: function(lambda x: (x.abs() + 0.1) ** 1.3),
    lambda: function(lambda x: torch.exp(-x * x) / 2), lambda: function(lambda x: torch.where(x > 0, x, 0.5 * x)),
]  # fmt: skip


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_are_exact_to_the_bit(activation):
    body = nn.Conv2d(3, 7, 3), activation(), nn.Conv2d(7, 5, 3, 2, 1), activation(), nn.Conv2d(5, 8, 3)
    module = settled(Head(*body, channels=8), size=33)
    chains = draw_chains(size=33, steps=5, region=4)
    found = assert_exact(module, chains)
    engine = make_engine(classifier_of(module), "incremental")
    assert torch.equal(found, all_logits(engine, chains))
    assert torch.equal(found, from_scratch(engine, chains))


class Branches(nn.Module):
    """Sums, products, concatenations, slices, reuse: a graph that is no chain."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, 2, 1)
        self.a, self.b = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 1)
        self.c = nn.Conv2d(18, 8, 3, padding=1)
        self.pool = nn.MaxPool2d(3, 1, 1)
        self.gamma = nn.Parameter(torch.linspace(0.5, 1.5, 8).view(1, 8, 1, 1))
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        x = self.stem(x)
        y = F.relu(self.a(x))
        z = torch.cat([x, y, self.b(y) + x], 1)
        w = self.c(torch.cat((z[:, 6:], self.pool(x)), dim=1)) * self.gamma + 0.1
        one, two = w.chunk(2, 1)
        w = torch.cat([two, one * two, one, one], 1)
        w = w - 0.5 * F.avg_pool2d(F.pad(w, (1, 1, 1, 1)), 3, 1)
        return self.head(F.adaptive_avg_pool2d(F.hardtanh(w, -2, 2), 1).flatten(1))


class Prepared(nn.Module):
    """A network that prepares its input channel by channel, as GoogLeNet does."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1))
        self.conv, self.head = nn.Conv2d(3, 8, 3, 2), nn.Linear(8, 4)

    def forward(self, x):
        x = (x - self.mean) / 0.5
        x = torch.cat([torch.unsqueeze(x[:, 0], 1) * 0.5 + 1, x[:, 1:2], torch.unsqueeze(x[:, -1], 1)], 1)
        return self.head(self.conv(x).relu().mean((2, 3))) + x[:, 0].mean((1, 2)).unsqueeze(1)


class PerPixel(nn.Module):
    """Layers over the channels of each pixel, in the other memory order."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 12, 4, 4), nn.LayerNorm(12)
        self.up, self.down = nn.Linear(12, 24), nn.Linear(24, 12, bias=False)
        self.mix = nn.Conv2d(12, 8, 3, padding=1)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = self.stem(x).permute(0, 2, 3, 1)
        x = x + self.down(F.gelu(self.up(self.norm(x)))) * 0.5
        return self.head(self.mix(x.permute(0, 3, 1, 2)).mean([-2, -1]))


class Gate(nn.Module):
    """Squeeze and excitation: dense from there on."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.gate = nn.Conv2d(3, 8, 3, 2), nn.Conv2d(8, 8, 3), nn.Linear(8, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = F.silu(self.a(x))
        x = x * torch.sigmoid(self.gate(x.mean((2, 3))))[:, :, None, None]
        return self.head(self.b(x).amax((2, 3)))


class ShapeDependent(nn.Module):
    """Python arithmetic and branches on shapes."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3, 2), nn.Linear(8, 4)

    def forward(self, x):
        height, width = x.shape[-2:]
        down, across = max(-height % 7, 0), max(-width % 5, 0)
        if down or across:
            x = F.pad(x, (across // 2, across - across // 2, down // 2, down - down // 2))
        x = self.conv(x)
        assert x.size(1) == 8
        return self.head(x.view(x.size(0), 8, -1).mean(-1))


@pytest.mark.parametrize("network", [Branches, Prepared, PerPixel, Gate, ShapeDependent])
def test_graphs(network):
    module = settled(network(), size=40)
    chains = draw_chains(size=40, steps=6, region=5, chains=4)
    found = assert_exact(module, chains)
    engine = make_engine(classifier_of(module), "incremental")
    assert torch.equal(found, all_logits(engine, chains))
    assert torch.equal(found, from_scratch(engine, chains))


@st.composite
def networks(draw):
    """A random body: windows of random geometry, branches, skips, and the number of channels it ends with."""
    kinds = st.sampled_from(["conv", "depthwise", "max", "average", "skip", "branch", "pad", "relu", "silu", "norm"])
    small = st.integers(0, 3)
    body, channels = [], 3
    for kind in ["conv", *draw(st.lists(kinds, min_size=1, max_size=5))]:
        size = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
        stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 2)))
        half = (draw(st.integers(0, size[0] // 2)), draw(st.integers(0, size[1] // 2)))
        if kind == "conv":
            groups = draw(st.sampled_from([g for g in (1, 2, 3) if channels % g == 0]))
            out = groups * draw(st.integers(1, 4))
            padding, dilation = draw(st.tuples(small, small)), draw(st.tuples(st.integers(1, 2), st.integers(1, 3)))
            body.append(nn.Conv2d(channels, out, size, stride, padding, dilation, groups, bias=draw(st.booleans())))
            channels = out
        elif kind == "depthwise":
            body.append(nn.Conv2d(channels, channels, size, stride, half, groups=channels))
        elif kind == "max":
            body.append(nn.MaxPool2d(size, stride, half, ceil_mode=draw(st.booleans())))
        elif kind == "average":
            count = draw(st.booleans())
            body.append(nn.AvgPool2d(size, stride, half, ceil_mode=draw(st.booleans()), count_include_pad=count))
        elif kind == "skip":
            body.append(_Skip(nn.Conv2d(channels, channels, 3, padding=1)))
        elif kind == "branch":
            body.append(_Branch(nn.Conv2d(channels, 2, (3, 1), padding=(1, 0)), nn.MaxPool2d(3, 1, 1)))
            channels = 2 * channels + 2
        elif kind == "pad":
            sides = draw(st.tuples(small, small, small, small))
            body.append(nn.ConstantPad2d(sides, draw(st.sampled_from([0.0, 1.5]))))
        else:
            body.append({"relu": nn.ReLU(True), "silu": nn.SiLU(), "norm": nn.BatchNorm2d(channels)}[kind])
    return body, channels


class _Skip(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        y = self.inner(x)
        y += x
        return F.relu_(y)


class _Branch(nn.Module):
    def __init__(self, *inner):
        super().__init__()
        self.inner = nn.ModuleList(inner)

    def forward(self, x):
        return torch.cat([x, *(one(x) for one in self.inner)], 1)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(network=networks(), data=st.data())
def test_random_networks_and_regions(network, data):
    body, channels = network
    size = (data.draw(st.integers(14, 30)), data.draw(st.integers(14, 30)))
    torch.manual_seed(0)
    try:
        module = Head(*body, channels=channels).eval()
        with torch.no_grad():
            module(torch.zeros(2, 3, *size))
    except RuntimeError:  # the map became smaller than a window
        return
    steps, count = 3, 3
    random = torch.Generator().manual_seed(1)
    removal_step = torch.zeros(count, *size, dtype=torch.int64)
    for chain in range(count):
        for step in range(1, steps + 1):  # some overlap, some are empty, some touch borders and corners
            y, x = data.draw(st.integers(0, size[0])), data.draw(st.integers(0, size[1]))
            removal_step[chain, y : y + data.draw(st.integers(1, 9)), x : x + data.draw(st.integers(1, 9))] = step
    pixels, fill = (torch.rand(2, 3, *size, generator=random) for _ in range(2))
    image = torch.tensor([0, 1, 0])
    chains = faithmap.inference.Chains(pixels, fill, image, 1 - image, removal_step, torch.zeros_like(image), steps)
    classifier = classifier_of(module)
    engine = make_engine(classifier, "incremental")
    with warnings.catch_warnings():
        warnings.simplefilter("error", EngineWarning)
        try:
            found = all_logits(engine, chains)
        except EngineError:  # nothing to gain, for example when the first layer changes as a whole
            assume(len(network_of(classifier, size).layers) > 1)
            raise
    expected = stock_logits(classifier, chains)
    scale = expected.std() + expected.abs().max() * 1e-2
    assert float((found - expected).abs().max()) <= 1e-5 * scale
    assert torch.equal(found, from_scratch(engine, chains))


def test_parts_that_a_region_changes_as_a_whole():
    """The region by which the front is cut is as large as the image: even the input's parts belong to the tail."""
    module = settled(
        Head(function(lambda x: torch.cat(x.chunk(3, 1)[::-1], 1)), nn.Conv2d(3, 8, 3), channels=8), size=9
    )
    with pytest.warns(EngineWarning, match="a region changes the whole map"):
        all_logits(make_engine(classifier_of(module), "auto"), draw_chains(size=9, steps=3, region=3))


def test_segments_of_any_shape_and_any_number_of_fills():
    module = settled(Branches(), size=40)
    chains = draw_chains(size=40, chains=4)
    random = torch.Generator().manual_seed(2)
    scattered = torch.randint(-1, 9, (4, 40, 40), generator=random)
    fill = torch.rand(3, 3, 40, 40, generator=random)
    mixed = faithmap.inference.Chains(
        chains.pixels, fill, chains.image, torch.tensor([2, 0, 0, 1]), scattered, chains.targets, steps=7
    )
    assert_exact(module, mixed)
