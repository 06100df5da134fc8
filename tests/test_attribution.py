"""The methods of Figure 4 against slow twins and captum, and how they meet networks and input of all kinds."""

import copy

import captum.attr
import pytest
import torch
import torch.nn.functional as F
from captum.attr._utils.lrp_rules import EpsilonRule
from torch import nn
from torchvision import models

import faithmap
from faithmap.attribution import batch, heatmaps, resolve_methods
from faithmap.errors import HeatmapError, InputError, MethodError
from faithmap.images import load_images
from faithmap.randomness import random_heatmap
from tests.reference import relevance as twin

EPSILONS = (0.0, 0.01, 100.0)


def seeded(make, **kwargs):
    torch.manual_seed(7)
    return make(**kwargs).eval()


@pytest.fixture(scope="module")
def alexnet():
    return faithmap.Classifier(
        seeded(models.alexnet, weights=None), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), name="alexnet"
    )


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Two images are not filled up to more."""
    monkeypatch.setitem(batch.BLOCKS, "cpu", (1, 1, 1))


@pytest.fixture(scope="module")
def photos(squeezenet):
    return torch.stack([image.read(squeezenet.preprocessing) for image in list(load_images("photos"))[::24]])


@pytest.fixture(params=["squeezenet", "alexnet"])
def network(request):
    return request.getfixturevalue(request.param)


def doubled(classifier):
    """The same network in float64, for comparisons that rounding cannot blur."""
    return faithmap.Classifier(
        copy.deepcopy(classifier.module).double(),
        mean=classifier.mean,
        std=classifier.std,
        bgr=classifier.bgr,
        name=classifier.name,
    )


def difference(a, b):
    """Largest difference, in units of the largest value."""
    return float((a.double() - b.double()).abs().max() / b.double().abs().max())


def not_in_place(module):
    module = copy.deepcopy(module)
    for part in module.modules():
        if hasattr(part, "inplace"):
            part.inplace = False
    return module


def twin_heatmap(classifier, pixels, targets, name):
    inputs = classifier.normalise(pixels.to(classifier.dtype))
    base, _, parameter = name.partition(":")
    if base == "lrp-epsilon":
        rule = twin.epsilon_rule(float(parameter))
        return twin.attribute(classifier.module, inputs, targets, rule, start="logit").sum(1)
    rule = {"deconvolution": twin.deconvolution_rule, "sensitivity": twin.gradient_rule}[base]
    signal = twin.attribute(classifier.module, inputs, targets, rule).abs()
    return signal.square().sum(1).sqrt() if parameter == "l2" else signal.amax(1)


def captum_heatmap(classifier, pixels, targets, name):
    module = not_in_place(classifier.module)
    inputs = classifier.normalise(pixels.to(classifier.dtype))
    base, _, parameter = name.partition(":")
    tiny = 1e-300 if classifier.dtype == torch.float64 else 1e-30
    if base == "lrp-epsilon":
        for part in module.modules():
            if isinstance(part, (nn.Conv2d, nn.Linear)):
                part.rule = EpsilonRule(float(parameter) or tiny)
            elif isinstance(part, (nn.AdaptiveAvgPool2d, nn.MaxPool2d, nn.Dropout)):
                part.rule = EpsilonRule(tiny)
        return captum.attr.LRP(module).attribute(inputs, target=targets).sum(1).detach()
    method = {"deconvolution": captum.attr.Deconvolution, "sensitivity": captum.attr.Saliency}[base]
    signal = method(module).attribute(inputs.requires_grad_(), target=targets).abs()
    return signal.square().sum(1).sqrt() if parameter == "l2" else signal.amax(1)


FIG4 = [m.name for m in resolve_methods("fig4") if not m.is_random]


def test_fig4_is_the_eight_methods_and_random_comes_last():
    names = [m.name for m in resolve_methods("fig4")]
    assert names == [
        "lrp-epsilon:0",
        "lrp-epsilon:0.01",
        "lrp-epsilon:100",
        "deconvolution:l2",
        "deconvolution:linf",
        "sensitivity:l2",
        "sensitivity:linf",
        "random",
    ]


@pytest.mark.parametrize("name", FIG4)
def test_twin_agrees_in_double(network, photos, name):
    classifier, photos = doubled(network), F.interpolate(photos, (112, 112), mode="area")
    targets = classifier.predict(photos.double())
    found = heatmaps(classifier, photos, targets, name)
    assert found.dtype == torch.float64
    assert difference(found, twin_heatmap(classifier, photos, targets, name)) <= 1e-8


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize("name", FIG4)
def test_captum_agrees_in_double(network, photos, name):
    classifier, photos = doubled(network), F.interpolate(photos, (112, 112), mode="area")
    targets = classifier.predict(photos.double())
    found = heatmaps(classifier, photos, targets, name)
    assert difference(found, captum_heatmap(classifier, photos, targets, name)) <= 1e-8


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize("name", FIG4)
def test_single_precision(network, photos, name):
    targets = network.predict(photos)
    found = heatmaps(network, photos, targets, name)
    assert found.dtype == torch.float32
    limit = 1e-3 if name == "lrp-epsilon:0.01" else 1e-5
    for row in range(len(photos)):
        one = slice(row, row + 1)
        assert difference(found[one], twin_heatmap(network, photos[one], targets[one], name)) <= limit
        assert difference(found[one], captum_heatmap(network, photos[one], targets[one], name)) <= limit


@pytest.mark.parametrize("name", ["lrp-epsilon:0", "deconvolution:l2", "sensitivity:linf"])
def test_maps_do_not_depend_on_the_batch(squeezenet, name, monkeypatch):
    monkeypatch.undo()
    pixels = torch.rand(32, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(32)
    together = heatmaps(squeezenet, pixels, targets, name)
    for row in (0, 13, 31):
        assert torch.equal(heatmaps(squeezenet, pixels[row : row + 1], targets[row : row + 1], name)[0], together[row])


def test_lrp_zero_is_gradient_times_input(squeezenet, photos):
    classifier = doubled(squeezenet)
    targets = classifier.predict(photos.double())
    inputs = classifier.normalise(photos.double()).requires_grad_()
    scores = classifier.logits(inputs).gather(1, targets[:, None]).sum()
    (gradient,) = torch.autograd.grad(scores, inputs)
    assert difference(heatmaps(classifier, photos, targets, "lrp-epsilon:0"), (gradient * inputs).sum(1)) <= 1e-8


class Plain(nn.Module):
    """Without biases, LRP-0 conserves the logit."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3, bias=False), nn.Conv2d(4, 6, 3, stride=2, bias=False)
        self.head = nn.Linear(6, 5, bias=False)

    def forward(self, x):
        x = F.relu(self.two(torch.relu_(self.one(x))))
        return self.head(x.mean((2, 3)))


def tiny(module, **kwargs):
    return faithmap.Classifier(module, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), **kwargs)


@pytest.fixture
def images():
    return torch.rand(4, 3, 24, 24, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


TARGETS = torch.tensor([0, 3, 1, 4])


def test_lrp_zero_conserves_the_logit_without_biases(images):
    classifier = tiny(seeded(Plain).double())
    logits = classifier(images).gather(1, TARGETS[:, None]).squeeze(1)
    total = heatmaps(classifier, images, TARGETS, "lrp-epsilon:0").sum((1, 2))
    torch.testing.assert_close(total, logits, rtol=1e-9, atol=1e-12)


def test_functional_and_in_place_relu_are_seen(images):
    class AsModules(Plain):
        def __init__(self):
            super().__init__()
            self.steps = nn.Sequential(
                self.one, nn.ReLU(), self.two, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), self.head
            )

        def forward(self, x):
            return self.steps(x)

    functional, modules = tiny(seeded(Plain).double()), tiny(seeded(AsModules).double())
    for name in FIG4:
        torch.testing.assert_close(
            heatmaps(functional, images, TARGETS, name), heatmaps(modules, images, TARGETS, name), rtol=1e-9, atol=0
        )
    steps = list(modules.module.steps)
    for name in FIG4:
        inputs = modules.normalise(images)
        base, _, parameter = name.partition(":")
        rule = {"deconvolution": twin.deconvolution_rule, "sensitivity": twin.gradient_rule}.get(base)
        if rule is None:
            expected = twin.attribute(
                None, inputs, TARGETS, twin.epsilon_rule(float(parameter)), start="logit", steps=steps
            ).sum(1)
        else:
            signal = twin.attribute(None, inputs, TARGETS, rule, steps=steps).abs()
            expected = signal.square().sum(1).sqrt() if parameter == "l2" else signal.amax(1)
        assert difference(heatmaps(functional, images, TARGETS, name), expected) <= 1e-10


class Residual(nn.Module):
    """BatchNorm, a residual sum in place, a ReLU module that is used twice, ReLU by clamp."""

    def __init__(self, stem=nn.ReLU):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.relu, self.head = stem(), nn.Linear(6, 5)
        for bn in (self.bn1, self.bn2):
            nn.init.uniform_(bn.weight, 0.5, 1.5)
            nn.init.normal_(bn.bias, 0.1)
            nn.init.normal_(bn.running_mean)
            nn.init.uniform_(bn.running_var, 0.5, 2)

    def forward(self, x):
        x = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(x)).clamp(min=0)
        out += x
        return self.head(self.relu(out).mean((2, 3)))


def test_batch_norm_and_residual_sums_are_canonised(images):
    classifier = tiny(seeded(Residual).double())
    inputs = classifier.normalise(images).requires_grad_()
    scores = classifier.logits(inputs).gather(1, TARGETS[:, None]).sum()
    (gradient,) = torch.autograd.grad(scores, inputs)
    zero = heatmaps(classifier, images, TARGETS, "lrp-epsilon:0")
    assert difference(zero, (gradient * inputs).sum(1)) <= 1e-10
    # ε-rule by hand, with BatchNorm merged into the convolutions
    module = classifier.module

    def merged(conv, bn):
        scale = bn.weight / (bn.running_var + bn.eps).sqrt()
        result = nn.Conv2d(conv.in_channels, conv.out_channels, 3, padding=1).double()
        result.weight.data = conv.weight.data * scale.data[:, None, None, None]
        result.bias.data = ((0 if conv.bias is None else conv.bias) - bn.running_mean) * scale + bn.bias
        return result

    one, two = merged(module.conv1, module.bn1), merged(module.conv2, module.bn2)
    rule = twin.epsilon_rule(0.05)
    with torch.no_grad():
        x = inputs.detach()
        a = one(x).clamp(min=0)
        b = two(a).clamp(min=0)
        pool = nn.AdaptiveAvgPool2d(1)
        top = [pool, nn.Flatten(), module.head]
        share = twin.attribute(None, a + b, TARGETS, rule, start="logit", steps=top)
        through = twin.backward(
            [two, nn.ReLU()], twin.inputs_of([two, nn.ReLU()], a), twin.divide(b * share, a + b), rule
        )
        expected = rule(one, x, through + twin.divide(a * share, a + b)).sum(1)
    assert difference(heatmaps(classifier, images, TARGETS, "lrp-epsilon:0.05"), expected) <= 1e-10


def test_zero_over_zero_counts_as_zero():
    module = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))
    module(torch.zeros(1, 3, 8, 8))
    nn.init.constant_(module[0].bias, 0.0)
    classifier = faithmap.Classifier(module)
    pixels = torch.zeros(1, 3, 8, 8)
    pixels[0, :, 0, 0] = 0.5
    found = heatmaps(classifier, pixels, torch.tensor([1]), "lrp-epsilon:0")
    assert found.isfinite().all()
    assert (found[0, 1:] == 0).all()


def test_tiny_gradients_do_not_underflow():
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 2, bias=False))
    nn.init.uniform_(module[1].weight, 1e-30, 2e-30)
    found = heatmaps(faithmap.Classifier(module), torch.rand(1, 3, 4, 4), torch.tensor([1]), "sensitivity:l2")
    expected = module[1].weight[1].double().reshape(3, 4, 4).square().sum(0).sqrt()
    torch.testing.assert_close(found[0].double(), expected, rtol=1e-6, atol=0)


def test_the_network_is_left_as_it_was(squeezenet, photos):
    module = copy.deepcopy(squeezenet.module).train()
    module.features[0].weight.requires_grad_(False)
    module.classifier[1].weight.grad = torch.ones_like(module.classifier[1].weight)
    classifier = faithmap.Classifier(module, mean=squeezenet.mean, std=squeezenet.std, bgr=True)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    flags = [(p.requires_grad, None if p.grad is None else float(p.grad.sum())) for p in module.parameters()]
    for name in FIG4:
        with torch.no_grad():
            heatmaps(classifier, photos[:1], torch.tensor([3]), name)
    assert all(part.training for part in module.modules())
    assert all(part.inplace for part in module.modules() if isinstance(part, nn.ReLU))
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())
    assert flags == [(p.requires_grad, None if p.grad is None else float(p.grad.sum())) for p in module.parameters()]
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_replication_variants(alexnet, photos):
    classifier = doubled(alexnet)
    targets = classifier.predict(photos.double())
    preset = {m.name: m for m in resolve_methods("fig4", faithmap.Protocol.preset("replication2021"))}
    assert list(preset) == [m.name for m in resolve_methods("fig4")]
    inputs = classifier.normalise(photos.double())
    rule = twin.epsilon_rule(0.01)
    one = twin.attribute(classifier.module, inputs, targets, rule, start="one").sum(1)
    one[:, -1], one[:, :, -1] = 0, 0
    assert difference(heatmaps(classifier, photos, targets, preset["lrp-epsilon:0.01"]), one) <= 1e-8
    last_pool = 12  # of torchvision's AlexNet
    signal = twin.attribute(classifier.module, inputs, targets, twin.deconvolution_rule, start=last_pool).abs()
    found = heatmaps(classifier, photos, targets, preset["deconvolution:linf"])
    assert difference(found, signal.amax(1)) <= 1e-8
    other = heatmaps(classifier, photos, (targets + 1) % 1000, preset["deconvolution:linf"])
    assert torch.equal(found, other)


def test_relevance_starts_at_the_negative_logit_too(images):
    classifier = tiny(seeded(Plain).double())
    logit = classifier(images).gather(1, TARGETS[:, None])[:, :, None]
    one = heatmaps(classifier, images, TARGETS, "lrp-epsilon:0.01,start=one")
    assert (logit < 0).any()
    torch.testing.assert_close(heatmaps(classifier, images, TARGETS, "lrp-epsilon:0.01"), one * logit)


def test_random_is_keyed_by_seed_image_and_draw():
    a = random_heatmap((8, 9), seed=0, image_id="a", draw=0)
    assert a.shape == (8, 9)
    assert len(a.unique()) == 72
    assert torch.equal(a, random_heatmap((8, 9), seed=0, image_id="a", draw=0))
    for other in ({"seed": 1}, {"image_id": "b"}, {"draw": 1}):
        assert not torch.equal(a, random_heatmap((8, 9), **{"seed": 0, "image_id": "a", "draw": 0, **other}))


def test_callables_and_names(images):
    classifier = tiny(seeded(Plain).double())

    def first_channel(inputs, targets):
        assert inputs.shape == images.shape
        return inputs[:, 0] + targets.view(-1, 1, 1)

    found = heatmaps(classifier, images, TARGETS, first_channel)
    torch.testing.assert_close(found, classifier.normalise(images)[:, 0] + TARGETS.view(-1, 1, 1))
    names = [m.name for m in resolve_methods(["sensitivity", {"mine": first_channel}, "lrp-epsilon:1e-2,start=one"])]
    assert names == ["sensitivity:l2", "mine", "lrp-epsilon:0.01,start=one", "random"]
    assert resolve_methods(first_channel)[0].spec["callable"].endswith("first_channel")
    assert [m.name for m in resolve_methods("deconvolution:l2,start=features,random,sensitivity:linf")] == [
        "deconvolution:l2,start=features",
        "sensitivity:linf",
        "random",
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lrp-epsilom:0", "did you mean 'lrp-epsilon'"),
        ("lrp-epsilon:-1", "epsilon is '-1', expected a number of at least 0"),
        ("lrp-epsilon:nan", "expected a number"),
        ("lrp-epsilon:x", "expected a number"),
        ("sensitivity:l3", "expected l2 or linf"),
        ("deconvolution:l2,begin=one", "no parameter 'begin'"),
        ("random:3", "'random:3': '3' is not understood"),
        ("", "no method"),
    ],
)
def test_wrong_names(name, message):
    with pytest.raises(MethodError, match=message):
        resolve_methods(name)


class Custom(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, signal):
        return signal


class Hidden(Plain):
    def forward(self, x):
        return self.head(Custom.apply(self.two(self.one(x))).mean((2, 3)))


class Normed(Plain):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(6)

    def forward(self, x):
        return self.head(self.norm(self.two(self.one(x)).relu().mean((2, 3))))


def with_activation(activation):
    class Activated(Plain):
        def forward(self, x):
            return self.head(activation(self.two(self.one(x))).mean((2, 3)))

    return Activated


@pytest.mark.parametrize(
    ("module", "name", "message"),
    [
        (with_activation(F.gelu), "deconvolution:l2", "'gelu' in the network's own forward"),
        (with_activation(F.relu6), "deconvolution:l2", "ReLU only"),
        (with_activation(lambda x: x), "deconvolution:l2", "has no ReLU"),
        (Hidden, "deconvolution:l2", "cannot be followed"),
        (Hidden, "lrp-epsilon:0", "cannot be followed"),
        (with_activation(lambda x: torch.div(1, x)), "lrp-epsilon:0", "'div'.*constant divided by"),
        (with_activation(lambda x: 1 / x), "lrp-epsilon:0", "'rdiv'"),
        (with_activation(lambda x: torch.log_softmax(x, 1)), "lrp-epsilon:0", "'log_softmax'"),
        (with_activation(lambda x: x ** x.sigmoid()), "lrp-epsilon:0", "'pow'.*both depend"),
        (with_activation(lambda x: x.div(2, rounding_mode="floor")), "lrp-epsilon:0", "rounds"),
        (Plain, "attn-lrp", "no softmax"),
        (Plain, "deconvolution:l2,start=features", "no pooling|there is none"),
    ],
)
def test_what_means_nothing_is_refused_by_name(images, module, name, message):
    with pytest.raises(MethodError, match=message):
        heatmaps(tiny(seeded(module).double()), images, TARGETS, name)


def test_scripted_parts_are_refused(images):
    module = seeded(Plain).double()
    module.two = torch.jit.script(module.two)
    with pytest.raises(MethodError, match="module 'two' is scripted"):
        heatmaps(tiny(module), images, TARGETS, "lrp-epsilon:0")


def test_values_changed_in_place_are_followed(images):
    class Aliased(Plain):
        def forward(self, x):
            x = self.one(x)
            x.add_(0.1)
            F.relu(x, inplace=True)
            return self.head(F.relu(self.two(x)).mean((2, 3)))

    class Clean(Plain):
        def forward(self, x):
            return self.head(F.relu(self.two(F.relu(self.one(x) + 0.1))).mean((2, 3)))

    for name in FIG4:
        torch.testing.assert_close(
            heatmaps(tiny(seeded(Aliased).double()), images, TARGETS, name),
            heatmaps(tiny(seeded(Clean).double()), images, TARGETS, name),
            rtol=1e-9,
            atol=0,
        )


def test_faults_name_the_image(images):
    classifier = tiny(seeded(Plain).double())

    def broken(inputs, targets):
        found = inputs.clone()
        found[2, 0, 0, 0] = float("nan")
        return found

    with pytest.raises(HeatmapError, match="not finite") as error:
        heatmaps(classifier, images, TARGETS, broken)
    assert error.value.index == 2
    with pytest.raises(HeatmapError, match="heatmap is \\(4, 24, 23\\) but images are"):
        heatmaps(classifier, images, TARGETS, lambda inputs, targets: inputs[:, 0, :, 1:])
    with pytest.raises(InputError, match="class 5, the network has classes 0…4"):
        heatmaps(classifier, images, TARGETS + 1, "sensitivity")
    images[1] = float("nan")
    with pytest.raises(InputError, match="values that are not finite"):
        heatmaps(classifier, images, TARGETS, "lrp-epsilon:0")


def test_exploded_relevance_names_the_image(images):
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 24, 2)).double()
    classifier = tiny(module)
    with torch.no_grad():  # the biases nearly cancel what the weights say about the third image
        module[1].bias -= classifier(images)[2] - 1e-9
    with pytest.raises(HeatmapError, match=r"relevance sum exploded to .* for a logit of 1e-09") as error:
        heatmaps(classifier, images, TARGETS % 2, "lrp-epsilon:0")
    assert error.value.index == 2


def test_a_network_that_cannot_be_differentiated_is_named(images):
    class Broken(Plain):
        def forward(self, x):
            x = self.one(x).relu()
            x.add_(0.1)  # changes what the gradient of ReLU needs
            return self.head(self.two(x).mean((2, 3)))

    with pytest.raises(MethodError, match="sensitivity:l2 fails on Broken: one of the variables needed for gradient"):
        heatmaps(tiny(seeded(Broken).double()), images, TARGETS, "sensitivity:l2")
