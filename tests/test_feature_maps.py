"""Grad-CAM on every layout of feature maps, and ReLUs however they are written."""

import captum.attr
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn
from torchvision import models
from torchvision.models.swin_transformer import SwinTransformer

import faithmap
from faithmap.attribution import batch, heatmaps
from faithmap.errors import HeatmapError, MethodError
from tests.test_attribution import difference, seeded


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Two images are not filled up to more."""
    monkeypatch.setitem(batch.BLOCKS, "cpu", (1, 1, 1))


def hugging_face(kind):
    import transformers

    class Logits(nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, x):
            return self.network(pixel_values=x).logits

    if kind == "convnext":
        config = transformers.ConvNextConfig(hidden_sizes=[4, 8, 8, 8], depths=[1, 1, 1, 1], num_labels=5)
        return Logits(transformers.ConvNextForImageClassification(config))
    config = transformers.SwinConfig(
        image_size=64, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4, num_labels=5
    )
    return Logits(transformers.SwinForImageClassification(config))


# Network, the module whose output are the last feature maps, and what turns it into (B, C, rows, columns).
def channels_last(x):
    return x.permute(0, 3, 1, 2)


NETWORKS = {
    "alexnet": (lambda: models.AlexNet(num_classes=5), lambda m: m.features[11], None),
    "squeezenet": (lambda: models.SqueezeNet("1_1", num_classes=5), lambda m: m.classifier[2], None),
    "resnet": (lambda: models.resnet18(num_classes=5), lambda m: m.layer4, None),
    "mobilenet": (lambda: models.mobilenet_v3_small(num_classes=5), lambda m: m.features, None),
    "torchvision convnext": (
        lambda: models.ConvNeXt([models.convnext.CNBlockConfig(8, 8, 1)] * 2, num_classes=5),
        lambda m: m.features,
        None,
    ),
    "timm convnext": (lambda: timm.create_model("test_convnext", num_classes=5), lambda m: m.stages, None),
    "hf convnext": (lambda: hugging_face("convnext"), lambda m: m.network.convnext.encoder.stages[-1], None),
    "torchvision swin": (
        lambda: SwinTransformer([2, 2], 8, [1, 1], [2, 2], [4, 4], num_classes=5),
        lambda m: m.norm,
        channels_last,
    ),
    "timm swin": (
        lambda: timm.create_model(
            "swin_tiny_patch4_window7_224",
            img_size=64, window_size=4, depths=(1, 1), num_heads=(2, 2), embed_dim=8, num_classes=5,
        ),
        lambda m: m.norm,
        channels_last,
    ),
    "hf swin": (
        lambda: hugging_face("swin"),
        lambda m: m.network.swin.layernorm,
        lambda x: x.transpose(1, 2).unflatten(2, (8, 8)),
    ),
}  # fmt: skip


class Kept(nn.Module):
    """A layer whose output is turned into feature maps and back, so that captum can take these."""

    def __init__(self, turn):
        super().__init__()
        self.turn = turn

    def forward(self, x):
        return self.turn(x)


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize("name", NETWORKS)
def test_grad_cam_agrees_with_captum(name):
    """captum is told the layer; here it is found."""
    build, layer, turn = NETWORKS[name]
    torch.manual_seed(3)
    module = build().double().eval()
    for part in module.modules():
        if hasattr(part, "inplace"):
            part.inplace = False
    images, targets = torch.rand(2, 3, 64, 64, dtype=torch.float64), torch.tensor([3, 1])
    found = heatmaps(faithmap.Classifier(module), images, targets, "grad-cam")
    at = layer(module)
    if turn is None:
        expected = captum.attr.LayerGradCam(module, at).attribute(images, targets, relu_attributions=True)
    else:
        held = {}
        handle = at.register_forward_hook(lambda m, i, output: held.update(output=output))
        scores = module(images).gather(1, targets[:, None]).sum()
        handle.remove()
        maps = turn(held["output"])
        (gradient,) = torch.autograd.grad(scores, held["output"])
        weights = turn(gradient).mean((2, 3), keepdim=True)
        expected = (maps * weights).sum(1, keepdim=True).relu()
    expected = F.interpolate(expected, (64, 64), mode="bilinear", align_corners=False)
    assert expected.std() > 0
    assert difference(found, expected.squeeze(1)) <= 1e-8


class Bends(nn.Module):
    """A convolution, then `bend`, then a mean over positions."""

    def __init__(self, bend):
        super().__init__()
        self.one, self.head, self.bend = nn.Conv2d(3, 6, 3, stride=4), nn.Linear(6, 5), bend

    def forward(self, x):
        return self.head(self.bend(self.one(x)).mean((2, 3)))


def slices(x):
    first = x[:, :2].relu()
    _unused = x[:, 2:3].tanh()
    return torch.cat([first, x[:, 2:]], 1)


def writes(x):
    y = torch.zeros_like(x)
    y[:, :3] = x[:, :3].relu()
    y[:, 3:] = x[:, 3:]
    return y


def adds_in_place(x):
    x = x * 1
    x[:, :3] += 1
    return x


def side_branch(x):
    _ = x[:, :1].sigmoid()  # the last value with positions, of which the class knows nothing
    return x


@pytest.mark.parametrize("bend", [slices, writes, adds_in_place, side_branch])
def test_grad_cam_sees_the_whole_map(bend):
    module = seeded(Bends, bend=bend).double()
    images, targets = torch.rand(2, 3, 24, 24, dtype=torch.float64), torch.tensor([3, 1])
    maps = bend(module.one(images)).detach()
    weights = module.head.weight[targets][:, :, None, None].detach() / 36
    expected = F.interpolate((maps * weights).sum(1, keepdim=True).relu(), (24, 24), mode="bilinear")
    found = heatmaps(faithmap.Classifier(module), images, targets, "grad-cam")
    assert difference(found, expected.squeeze(1)) <= 1e-10


def test_grad_cam_of_a_vision_transformer_takes_the_last_patches_that_count():
    module = seeded(
        models.VisionTransformer, image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=8
    ).double()
    nn.init.normal_(module.heads[0].weight, std=0.5)
    images, targets = torch.rand(2, 3, 32, 32, dtype=torch.float64), torch.tensor([3, 1])
    tokens = {}
    module.encoder.layers[0].register_forward_hook(lambda m, i, output: tokens.update(x=output))
    scores = module(images).gather(1, targets[:, None]).sum()
    (gradient,) = torch.autograd.grad(scores, tokens["x"])
    maps, slope = (t[:, 1:].transpose(1, 2).unflatten(2, (4, 4)) for t in (tokens["x"].detach(), gradient))
    expected = (maps * slope.mean((2, 3), keepdim=True)).sum(1, keepdim=True).relu()
    expected = F.interpolate(expected, (32, 32), mode="bilinear", align_corners=False).squeeze(1)
    assert difference(heatmaps(faithmap.Classifier(module), images, targets, "grad-cam"), expected) <= 1e-8


def test_grad_cam_of_several_scales_is_refused():
    class TwoScales(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, stride=2), nn.Linear(8, 5)

        def forward(self, x):
            x = self.one(x)
            return self.head(torch.cat([x.mean((2, 3)), self.two(x).mean((2, 3))], 1))

    images, targets = torch.rand(2, 3, 24, 24), torch.tensor([3, 1])
    with pytest.raises(MethodError, match="through one value with positions alone"):
        heatmaps(faithmap.Classifier(seeded(TwoScales)), images, targets, "grad-cam")


RELUS = {
    "clamp": lambda x: x.clamp(min=0),
    "maximum": lambda x: torch.maximum(x, torch.zeros_like(x)),
    "max": lambda x: torch.max(x, torch.zeros(())),
    "product": lambda x: x * (x > 0),
    "product as numbers": lambda x: (x >= 0).to(x.dtype) * x,
    "where": lambda x: torch.where(x > 0, x, 0.0),
    "masked_fill": lambda x: x.masked_fill(x <= 0, 0.0),
    "masked_fill_": lambda x: (x * 1).masked_fill_(x < 0, 0.0),
    "threshold": lambda x: F.threshold(x, 0, 0),
}
OTHERS = {
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "gelu": F.gelu,
    "abs": torch.abs,
    "relu6": F.relu6,
    "leaky": F.leaky_relu,
    "square": lambda x: x * x,
    "pow": lambda x: x**2,
    "maximum of 1": lambda x: torch.maximum(x, torch.ones_like(x)),
    "product with a mask": lambda x: x * (x > 0.1),
    "where smaller": lambda x: torch.where(x < 0, x, 0.0),
    "masked_fill above": lambda x: x.masked_fill(x > 0.5, 0.5),
    "written where negative": lambda x: _written(x * 1),
    "softmax": lambda x: x.softmax(1),
    "exp": torch.exp,
    "minimum": lambda x: torch.minimum(x, torch.zeros_like(x)),
    "silu by hand": lambda x: x * torch.sigmoid(x),
}


def _written(x):
    x[x < 0] = 0
    return x


class Activated(nn.Module):
    """One ReLU as it should be, and one function more."""

    def __init__(self, activation):
        super().__init__()
        self.one, self.two, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3), nn.Linear(6, 5)
        self.activation = activation

    def forward(self, x):
        return self.head(F.relu(self.two(self.activation(self.one(x)))).mean((2, 3)))


@pytest.mark.parametrize("method", ["guided-backpropagation", "deconvolution:linf", "deeplift"])
@pytest.mark.parametrize("name", RELUS)
def test_a_relu_is_a_relu_however_it_is_written(name, method):
    images, targets = torch.rand(2, 3, 12, 12), torch.tensor([3, 1])
    found = heatmaps(faithmap.Classifier(seeded(Activated, activation=RELUS[name])), images, targets, method)
    expected = heatmaps(faithmap.Classifier(seeded(Activated, activation=F.relu)), images, targets, method)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("method", ["guided-backpropagation", "deconvolution"])
@pytest.mark.parametrize("name", OTHERS)
def test_every_other_activation_is_refused(name, method):
    images, targets = torch.rand(2, 3, 12, 12), torch.tensor([3, 1])
    with pytest.raises(MethodError, match="in the network's own forward: the method is defined for ReLU only"):
        heatmaps(faithmap.Classifier(seeded(Activated, activation=OTHERS[name])), images, targets, method)


def test_constant_masks_and_scales_are_no_activation():
    mask = torch.zeros(10, 10)
    mask[2:5] = 1
    images, targets = torch.rand(2, 3, 12, 12), torch.tensor([3, 1])

    def guided(keep):
        network = faithmap.Classifier(seeded(Activated, activation=keep))
        return heatmaps(network, images, targets, "guided-backpropagation")

    for keep in (lambda x: x * mask, lambda x: x.masked_fill(mask == 0, 0.0), lambda x: torch.where(mask > 0, x, 0.0)):
        assert guided(keep).any()
    torch.testing.assert_close(guided(lambda x: x * torch.ones(6, 1, 1)), guided(lambda x: x))


def test_deeplift_is_judged_image_by_image(monkeypatch):
    """A small change of the logit beside a large one must be complete, too."""
    monkeypatch.setitem(batch.BLOCKS, "cpu", (2, 2, 1))
    module = seeded(Activated, activation=F.relu).double()
    images = torch.rand(2, 3, 12, 12, dtype=torch.float64)
    images[1] *= 1e-3
    network, targets = faithmap.Classifier(module), torch.tensor([3, 3])
    found = heatmaps(network, images, targets, "deeplift").sum((1, 2))
    change = network.logits(images)[:, 3] - network.logits(torch.zeros_like(images))[:, 3]
    torch.testing.assert_close(found, change.detach(), rtol=1e-9, atol=0)
    from faithmap.attribution import gradients

    original = gradients.differentiate

    def wrong_for_the_second(output, inputs, *args, **kwargs):
        gradient = original(output, inputs, *args, **kwargs).clone()
        gradient[1] *= 1.05
        return gradient

    monkeypatch.setattr(gradients, "differentiate", wrong_for_the_second)
    with pytest.raises(HeatmapError, match=r"contributions sum to .* the change of the logit is") as error:
        heatmaps(network, images, targets, "deeplift")
    assert error.value.index == 1


def test_grad_cam_of_a_class_that_depends_on_nothing_is_a_map_of_zeros():
    module = seeded(Activated, activation=F.relu)
    nn.init.zeros_(module.head.weight)
    images, targets = torch.rand(2, 3, 12, 12), torch.tensor([3, 1])
    assert not heatmaps(faithmap.Classifier(module), images, targets, "grad-cam").any()
