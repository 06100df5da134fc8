"""LRP through attention, normalisation and gates: rule by rule and as a whole against lxt and slow twins."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision import models
from torchvision.models.swin_transformer import SwinTransformer
from zennit.rules import Epsilon

import faithmap
from faithmap.attribution import batch, heatmaps
from faithmap.attribution.relevance import LrpFollower, no_zero
from faithmap.errors import HeatmapError, MethodError
from tests.reference import attention as twin
from tests.test_attribution import difference


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Two images are not filled up to more."""
    monkeypatch.setitem(batch.BLOCKS, "cpu", (1, 1, 1))


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def randomised(module, seed=0):
    """All parameters drawn, so that no bias is 0 and no scale is 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return module.double().eval()


class Formula(nn.Module):
    """A network that is one formula."""

    def __init__(self, formula):
        super().__init__()
        self.formula = formula

    def forward(self, x):
        return self.formula(x)


def relevance(formula, x, start, softmax="taylor"):
    """The relevance of x, where that of formula(x) is `start`."""
    follower = LrpFollower(Formula(formula), lambda number, name: Epsilon(epsilon=no_zero), softmax)
    x = x.clone().requires_grad_()
    with torch.enable_grad(), follower:
        follower.known[id(x)] = x
        result = follower._newest(formula(x))
    (found,) = torch.autograd.grad(result, x, start)
    return found


A, B = normal(2, 3, 4, seed=1), normal(2, 4, 5, seed=2)
WEIGHT, BIAS = normal(4, seed=3), normal(4, seed=4)
X, R = normal(2, 3, 4, seed=5), normal(2, 3, 4, seed=6)
W54 = normal(5, 4, seed=7)


def lxt_relevance(function, *values):
    values = [value.clone().requires_grad_() for value in values]
    result = function(*values)
    start = normal(*result.shape, seed=9)
    return start, torch.autograd.grad(result, values, start)


class TestAgainstLxt:
    """Each rule in float64."""

    @pytest.fixture
    def lxt(self):
        return pytest.importorskip("lxt.explicit.functional", reason="pip install --no-deps lxt")

    def test_softmax(self, lxt):
        masked = X.clone()
        masked[0, 1, 2] = -torch.inf
        for x in (X, masked):
            start, (expected,) = lxt_relevance(lambda x: lxt.softmax(x, -1), x)
            assert difference(relevance(lambda x: x.softmax(-1), x, start), expected) <= 1e-10
            assert difference(relevance(lambda x: F.softmax(x, dim=2), x, start), expected) <= 1e-10

    @pytest.mark.parametrize("product", [torch.matmul, torch.bmm, lambda a, b: torch.einsum("bij,bjk->bik", a, b)])
    def test_products_of_two_values(self, lxt, product):
        both = torch.cat([A.flatten(), B.flatten()])

        def formula(x):
            return product(x[: A.numel()].view(A.shape), x[A.numel() :].view(B.shape))

        start, (a, b) = lxt_relevance(lambda a, b: lxt.matmul(a, b, epsilon=0.0), A, B)
        assert difference(relevance(formula, both, start), torch.cat([a.flatten(), b.flatten()])) <= 1e-10

    def test_gates(self, lxt):
        start, (x, gate) = lxt_relevance(lxt.mul2, X, normal(2, 1, 4, seed=8))

        def formula(both):
            return both[:, :3] * both[:, 3:]

        found = relevance(formula, torch.cat([X, normal(2, 1, 4, seed=8)], 1), start)
        assert difference(found, torch.cat([x, gate], 1)) <= 1e-10

    def test_sums(self, lxt):
        start, (a, b) = lxt_relevance(lambda a, b: lxt.add2(a, b, epsilon=0.0), X, R)
        both = torch.stack([X, R])
        assert difference(relevance(lambda x: x[0] + x[1], both, start), torch.stack([a, b])) <= 1e-10
        assert difference(relevance(lambda x: torch.add(x[0], x[1]), both, start), torch.stack([a, b])) <= 1e-10

    def test_layer_norm(self, lxt):
        def oracle(x):
            return lxt.layer_norm_grad_fn.apply(x, WEIGHT, BIAS, 1e-5, 0.0)

        start, (expected,) = lxt_relevance(oracle, X)
        assert difference(relevance(lambda x: F.layer_norm(x, (4,), WEIGHT, BIAS), X, start), expected) <= 1e-10

    def test_rms_norm_and_normalize(self, lxt):
        start, (expected,) = lxt_relevance(lambda x: lxt.normalize(x, dim=-1), X)
        assert difference(relevance(lambda x: F.normalize(x, dim=-1), X, start), expected) <= 1e-10
        assert difference(relevance(lambda x: F.rms_norm(x, (4,), WEIGHT), X, start), expected) <= 1e-10

    def test_linear_layers_however_they_are_written(self, lxt):
        start, (expected,) = lxt_relevance(lambda x: lxt.linear_epsilon(x, W54, BIAS.new_ones(5), 0.0), X)
        ones = torch.ones(5, dtype=torch.float64)
        for formula in (
            lambda x: F.linear(x, W54, ones),
            lambda x: torch.addmm(ones, x.reshape(6, 4), W54.t()).reshape(2, 3, 5),
        ):
            assert difference(relevance(formula, X, start), expected) <= 1e-10
        start, (expected,) = lxt_relevance(lambda x: lxt.linear_epsilon(x, W54, None, 0.0), X)
        for formula in (
            lambda x: x @ W54.t(),
            lambda x: torch.einsum("bij,kj->bik", x, W54),
            lambda x: torch.tensordot(x, W54, ([2], [1])),
        ):
            assert difference(relevance(formula, X, start), expected) <= 1e-10

    def test_a_small_vision_transformer(self, lxt):
        """The same network, built from lxt's functions."""
        vit = vision_transformer()
        network = faithmap.Classifier(vit, name="vit")
        pixels, targets = torch.rand(2, 3, 24, 24, dtype=torch.float64), torch.tensor([3, 1])
        x = pixels.clone().requires_grad_()
        logits = twin.vit_of_lxt(vit, x, lxt)
        torch.testing.assert_close(logits, vit(pixels), rtol=1e-9, atol=1e-9)
        scores = logits.gather(1, targets[:, None])
        (expected,) = torch.autograd.grad(scores, x, scores.detach())
        found = heatmaps(network, pixels, targets, "attn-lrp:0")
        assert difference(found, expected.sum(1)) <= 1e-8


def vision_transformer(**kwargs):
    sizes = {"image_size": 24, "patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 8, "mlp_dim": 12}
    return randomised(models.VisionTransformer(**sizes, num_classes=5, **kwargs))


@pytest.mark.parametrize("softmax", ["taylor", "constant"])
@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_a_small_vision_transformer_against_its_twin(softmax, epsilon):
    vit = vision_transformer()
    pixels, targets = torch.rand(2, 3, 24, 24, dtype=torch.float64), torch.tensor([3, 1])
    expected = twin.vit_relevance(vit, pixels, targets, epsilon, softmax)
    found = heatmaps(faithmap.Classifier(vit), pixels, targets, f"attn-lrp:{epsilon},softmax={softmax}")
    assert difference(found, expected.sum(1)) <= 1e-8


def without_biases(module):
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
    return module


def test_relevance_is_conserved_where_nothing_absorbs_it():
    """Without biases, and with attention weights as constants, no rule absorbs anything."""
    vit = without_biases(vision_transformer())
    nn.init.zeros_(vit.encoder.pos_embedding)
    nn.init.zeros_(vit.class_token)
    pixels, targets = torch.rand(2, 3, 24, 24, dtype=torch.float64), torch.tensor([3, 1])
    logits = vit(pixels).gather(1, targets[:, None]).squeeze(1)
    found = heatmaps(faithmap.Classifier(vit), pixels, targets, "attn-lrp:0,softmax=constant").sum((1, 2))
    torch.testing.assert_close(found, logits.detach(), rtol=1e-8, atol=0)
    taylor = heatmaps(faithmap.Classifier(vit), pixels, targets, "attn-lrp:0").sum((1, 2))
    assert ((taylor - logits).abs() > 1e-3 * logits.abs()).all()


class Gated(nn.Module):
    """Squeeze and excitation, SiLU written in two ways, group norm."""

    def __init__(self, silu):
        super().__init__()
        self.silu = silu
        self.one, self.squeeze = nn.Conv2d(3, 4, 3, bias=False), nn.Conv2d(4, 4, 1, bias=False)
        self.norm, self.head = nn.GroupNorm(2, 4, affine=False), nn.Linear(4, 5, bias=False)

    def forward(self, x):
        x = self.silu(self.norm(self.one(x)))
        x = x * torch.sigmoid(self.squeeze(x.mean((2, 3), keepdim=True)))
        return self.head(x.mean((2, 3)))


def test_gates_conserve_and_silu_is_the_same_however_written():
    pixels, targets = torch.rand(2, 3, 12, 12, dtype=torch.float64), torch.tensor([3, 1])
    found = []
    for silu in (F.silu, lambda x: x * x.sigmoid()):
        network = faithmap.Classifier(randomised(Gated(silu)))
        logits = network.logits(pixels).gather(1, targets[:, None]).squeeze(1).detach()
        found.append(heatmaps(network, pixels, targets, "lrp-epsilon:0"))
        torch.testing.assert_close(found[-1].sum((1, 2)), logits, rtol=1e-8, atol=0)
    assert difference(*found) <= 1e-10


def test_normalisation_by_hand_passes_what_the_functions_pass():
    def by_hand(x):
        centred = x - x.mean(-1, keepdim=True)
        return centred / torch.sqrt(x.var(-1, unbiased=False, keepdim=True) + 1e-5) * WEIGHT + BIAS

    expected = relevance(lambda x: F.layer_norm(x, (4,), WEIGHT, BIAS), X, R)
    assert difference(relevance(by_hand, X, R), expected) <= 1e-10
    groups = twin.group_norm_relevance(X, R, 3, normal(3, seed=2), normal(3, seed=3))
    assert (
        difference(relevance(lambda x: F.group_norm(x, 3, normal(3, seed=2), normal(3, seed=3)), X, R), groups) <= 1e-10
    )
    rms = relevance(lambda x: F.rms_norm(x, (4,), WEIGHT, 1e-6), X, R)
    by_rsqrt = relevance(lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * WEIGHT, X, R)
    assert difference(by_rsqrt, rms) <= 1e-10


def test_scaled_sums_share_in_proportion():
    both = torch.stack([X, R])
    z = X + 2 * R
    expected = torch.stack([X / z, 2 * R / z]) * A
    assert difference(relevance(lambda x: torch.add(x[0], x[1], alpha=2), both, A), expected) <= 1e-10
    wide = normal(2, 1, 4, seed=8)
    z = X + wide
    found = relevance(lambda x: x[:, :3] + x[:, 3:], torch.cat([X, wide], 1), A)
    assert difference(found, torch.cat([X / z * A, (wide / z * A).sum(1, keepdim=True)], 1)) <= 1e-10


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("fused", [True, False])
def test_attention_is_the_same_however_it_is_written(need_weights, fused):
    """nn.MultiheadAttention on its paths, the fused product and the plain formula."""
    layer = randomised(nn.MultiheadAttention(8, 2, batch_first=True)).requires_grad_(False)
    x, start = normal(2, 5, 8, seed=1), normal(2, 5, 8, seed=2)
    mask = torch.zeros(5, 5, dtype=torch.bool).fill_diagonal_(True)

    def modules(x):
        return layer(x, x, x, need_weights=need_weights, attn_mask=mask)[0]

    def plain(x):
        qkv = F.linear(x, layer.in_proj_weight, layer.in_proj_bias).view(2, 5, 3, 2, 4).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        if fused:
            y = F.scaled_dot_product_attention(query, key, value, ~mask)
        else:
            y = (query @ key.mT * 0.5).masked_fill(mask, -torch.inf).softmax(-1) @ value
        return F.linear(y.transpose(1, 2).reshape(2, 5, 8), layer.out_proj.weight, layer.out_proj.bias)

    assert difference(relevance(modules, x, start), relevance(plain, x, start)) <= 1e-10


def small(name):
    """Networks of today, as small as they go."""
    timm = pytest.importorskip("timm")
    built = {
        "swin": lambda: SwinTransformer([2, 2], 8, [1, 1], [2, 2], [4, 4], num_classes=5),
        "efficientnet": lambda: timm.create_model("test_efficientnet", num_classes=5),
        "timm vit": lambda: timm.create_model("test_vit", num_classes=5, img_size=32, patch_size=8),
        "convnext": lambda: timm.create_model("test_convnext2", num_classes=5),
        "regnet": lambda: timm.create_model("regnety_002", num_classes=5),
        "mobilenet": lambda: timm.create_model("mobilenetv3_small_050", num_classes=5),
    }
    return copy.deepcopy(built[name]())


@pytest.mark.parametrize("name", ["swin", "efficientnet", "timm vit", "convnext", "regnet", "mobilenet"])
def test_lrp_of_todays_networks_is_the_gradient_of_the_rules(name):
    """With ε = 0 and constant attention, relevance is input × gradient once what only divides is detached."""
    torch.manual_seed(0)
    network = faithmap.Classifier(small(name).double().eval())
    pixels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    targets = torch.tensor([2])
    method = "attn-lrp:0,softmax=constant" if name in ("swin", "timm vit") else "lrp-epsilon:0"
    found = heatmaps(network, pixels, targets, method)
    expected = twin.detached_gradient_times_input(network.module, pixels, targets)
    assert difference(found, expected.sum(1)) <= 1e-8


def test_vanished_relevance_names_the_image():
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 8), nn.ReLU(), nn.Linear(8, 2)).double()
    with torch.no_grad():
        module[1].weight.abs_()
        module[1].bias.fill_(1e4)
        module[3].weight.abs_()
    pixels = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    network = faithmap.Classifier(module)
    with pytest.raises(
        HeatmapError, match=r"relevance vanished: .* is left of .*, biases absorbed .*lrp-epsilon or"
    ) as error:
        heatmaps(network, pixels, torch.tensor([0, 1]), "lrp-z-plus")
    assert error.value.index == 0
    assert heatmaps(network, pixels, torch.tensor([0, 1]), "lrp-epsilon:0.01").isfinite().all()  # asked to absorb


def test_what_has_no_rule_is_refused():
    pixels, targets = torch.rand(1, 3, 4, 4, dtype=torch.float64), torch.tensor([1])
    for formula, message in {
        lambda x: F.cosine_similarity(x, x.flip(2), dim=1).flatten(1): "'cosine_similarity'",
        lambda x: torch.div(1, x + 1).flatten(1): "'div'.*constant divided by",
        lambda x: x.flatten(1).reciprocal(): "'reciprocal'",
    }.items():
        with pytest.raises(MethodError, match=message):
            heatmaps(faithmap.Classifier(Formula(formula)), pixels, targets, "lrp-epsilon:0")


def test_values_kept_from_an_earlier_pass_are_constants():
    """As LeViT keeps its attention biases, computed while parameters had gradients."""

    class Keeping(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.bias, self.kept = nn.Linear(12, 5), nn.Parameter(torch.rand(5)), None

        def forward(self, x):
            if self.kept is None:
                self.kept = self.bias * 2
            return self.one(x.flatten(1)) + self.kept

    module, pixels, targets = randomised(Keeping()), torch.rand(1, 3, 2, 2, dtype=torch.float64), torch.tensor([2])
    expected = heatmaps(faithmap.Classifier(module), pixels, targets, "lrp-epsilon:0")
    module.kept = None
    module(pixels)
    assert module.kept.requires_grad
    torch.testing.assert_close(heatmaps(faithmap.Classifier(module), pixels, targets, "lrp-epsilon:0"), expected)
