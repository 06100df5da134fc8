"""Attention rollout and gradient × attention against slow twins, on every way in which attention is written."""

import pytest
import timm
import torch
import torch.nn.functional as F
import transformers
from torch import nn
from torchvision import models
from torchvision.models.swin_transformer import SwinTransformer

import faithmap
from faithmap.attribution import batch, heatmaps
from faithmap.errors import MethodError
from tests.reference import attention as twin
from tests.test_attribution import difference
from tests.test_transformers import randomised, vision_transformer

METHODS = ["attention-rollout", "attention-gradient"]
TARGETS = torch.tensor([3, 1])


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Two images are not filled up to more."""
    monkeypatch.setitem(batch.BLOCKS, "cpu", (1, 1, 1))


def images(size):
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def expected_map(method, weights, gradients, row, first, grid, size):
    tokens = twin.rollout(weights, row) if method.endswith("rollout") else twin.relevancy(weights, gradients, row)
    patches = tokens[:, first:].reshape(len(tokens), *grid)
    return patches.repeat_interleave(size // grid[0], 1).repeat_interleave(size // grid[1], 2)


@pytest.mark.parametrize("method", METHODS)
def test_torchvision_agrees_with_the_twin(method):
    vit, pixels = vision_transformer(), images(24)
    weights, gradients = twin.vit_attention(vit, pixels, TARGETS)
    expected = expected_map(method, weights, gradients, 0, 1, (3, 3), 24)
    assert difference(heatmaps(faithmap.Classifier(vit), pixels, TARGETS, method), expected) <= 1e-10


class Logits(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(pixel_values=x).logits


SIZES = {
    "image_size": 24, "patch_size": 8, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 12, "num_labels": 5,
}  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", ["ViT", "DeiT", "Beit"])
def test_hugging_face_agrees_with_its_own_attentions(method, kind, implementation):
    config = getattr(transformers, f"{kind}Config")(**SIZES)
    build = getattr(transformers, f"{kind}ForImageClassification")
    network, pixels = randomised(build(config)), images(24)
    network.set_attn_implementation("eager")
    output = network(pixel_values=pixels, output_attentions=True)
    gradients = torch.autograd.grad(output.logits.gather(1, TARGETS[:, None]).sum(), output.attentions)
    weights = [one.detach() for one in output.attentions]
    first = weights[0].shape[-1] - 9
    # BEiT reads the class from the mean over patches.
    rows = range(first, first + 9) if kind == "Beit" else [0]
    expected = sum(expected_map(method, weights, gradients, row, first, (3, 3), 24) for row in rows) / len(rows)
    network.set_attn_implementation(implementation)
    found = heatmaps(faithmap.Classifier(Logits(network)), pixels, TARGETS, method)
    assert difference(found, expected) <= 1e-6  # its own softmax is in float32


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "vit_tiny_patch16_224", "vit_base_patch16_clip_224"])
@pytest.mark.parametrize("pool", ["token", "avg"])
def test_timm_agrees_with_its_weights(method, name, pool):
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 8, "depth": 2, "num_heads": 2}
    network = randomised(timm.create_model(name, num_classes=5, global_pool=pool, **sizes))
    pixels, weights = images(32), []
    for block in network.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda m, i, output: weights.append(output))
    scores = network(pixels).gather(1, TARGETS[:, None]).sum()
    gradients = torch.autograd.grad(scores, weights)
    weights = [one.detach() for one in weights]
    for block in network.blocks:
        block.attn.fused_attn = True
        block.attn.attn_drop._forward_hooks.clear()
    rows = [0] if pool == "token" else range(1, 17)
    expected = sum(expected_map(method, weights, gradients, row, 1, (4, 4), 32) for row in rows) / len(rows)
    assert difference(heatmaps(faithmap.Classifier(network), pixels, TARGETS, method), expected) <= 1e-8


class Plain(nn.Module):
    """Tokens by a reshape, nn.MultiheadAttention with tokens first, a mean over tokens."""

    def __init__(self, need_weights):
        super().__init__()
        self.embed, self.attend = nn.Conv2d(3, 8, 6, stride=6), nn.MultiheadAttention(8, 2)
        self.head, self.need_weights = nn.Linear(8, 5), need_weights

    def forward(self, x):
        x = self.embed(x).flatten(2).permute(2, 0, 1)
        x = x + self.attend(x, x, x, need_weights=self.need_weights)[0]
        return self.head(x.mean(0))


@pytest.mark.parametrize("method", METHODS)
def test_multihead_attention_on_both_paths(method):
    networks = [randomised(Plain(need_weights)) for need_weights in (True, False)]
    found = [heatmaps(faithmap.Classifier(one), images(24), TARGETS, method) for one in networks]
    assert difference(*found) <= 1e-10
    assert found[0].std() > 0
    x = networks[0].embed(images(24)).flatten(2).permute(2, 0, 1)
    _, weights = networks[0].attend(x, x, x, average_attn_weights=False)
    if method.endswith("rollout"):
        reached = sum(twin.rollout([weights.detach()], row) for row in range(16)) / 16
        expected = reached.reshape(2, 4, 4).repeat_interleave(6, 1).repeat_interleave(6, 2)
        assert difference(found[0], expected) <= 1e-10


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: models.resnet18(num_classes=5), "has no attention between the patches"),
        (lambda: SwinTransformer([2, 2], 8, [1, 1], [2, 2], [4, 4], num_classes=5), "attention within windows"),
        (lambda: timm.create_model("test_convnext", num_classes=5), "has no attention between the patches"),
        (
            lambda: timm.create_model("pvt_v2_b0", num_classes=5, embed_dims=(8, 8, 8, 8), num_heads=(1, 1, 1, 1)),
            "attention of 256 tokens over 4",
        ),
        (lambda: timm.create_model("xcit_nano_12_p16_224", depth=1, num_classes=5), "not the patches of one grid|over"),
    ],
)
def test_networks_without_such_attention_are_refused(method, build, message):
    torch.manual_seed(0)
    with pytest.raises(MethodError, match=message):
        heatmaps(faithmap.Classifier(build().eval()), torch.rand(1, 3, 64, 64), TARGETS[:1], method)


def test_rollout_does_not_depend_on_the_class_and_gradients_do():
    vit, pixels = vision_transformer(), images(24)
    network = faithmap.Classifier(vit)
    one, other = (heatmaps(network, pixels, targets, "attention-rollout") for targets in (TARGETS, TARGETS - 1))
    torch.testing.assert_close(one, other)
    one, other = (heatmaps(network, pixels, targets, "attention-gradient") for targets in (TARGETS, TARGETS - 1))
    assert F.mse_loss(one, other) > 0
