"""Token dropping against attention that is masked for the tokens, and regions that are the network's patches."""

import pytest
import timm
import torch
import torch.nn.functional as F
import transformers
from torch import nn
from torchvision import models
from torchvision.models.swin_transformer import SwinTransformer

import faithmap
from faithmap.classifiers.patches import patch_side
from faithmap.errors import EngineError, ProtocolError
from faithmap.experiment.planning import aligned
from faithmap.inference.dropping import DroppingEngine
from tests.reference import attention as twin
from tests.test_attention_maps import SIZES, Logits
from tests.test_transformers import randomised, vision_transformer


def order_of_patches(count, rows, columns, side, seed=0):
    """Removal steps (count, H, W): every patch at a step of its own, some never."""
    generator = torch.Generator().manual_seed(seed)
    steps = torch.stack([torch.randperm(rows * columns, generator=generator) for _ in range(count)])
    return steps.reshape(count, rows, columns).repeat_interleave(side, 1).repeat_interleave(side, 2).int()


def masked_logits(vit, pixels, dropped):
    """torchvision's transformer by hand, where nobody looks at dropped tokens (B, tokens)."""
    cells, weight = twin.patches_of(vit, pixels)
    tokens = cells @ weight.t() + vit.conv_proj.bias
    tokens = torch.cat([vit.class_token.expand(len(pixels), -1, -1), tokens], 1) + vit.encoder.pos_embedding
    for norm_1, projections, output, norm_2, up, down, heads in twin.layers_of(vit):
        query, key, value = (twin.heads_of(norm_1(tokens) @ w.t() + b, heads) for w, b in projections)
        scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
        scores = scores.masked_fill(dropped[:, None, None], -torch.inf)
        tokens = tokens + twin.joined(scores.softmax(-1) @ value) @ output.weight.t() + output.bias
        tokens = tokens + down(F.gelu(up(norm_2(tokens))))
    return vit.heads[0](vit.encoder.ln(tokens)[:, 0])


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_dropping_equals_masked_attention(batch_size):
    vit, pixels = vision_transformer(), torch.rand(2, 3, 24, 24)
    network, targets = faithmap.Classifier(vit.float()), torch.tensor([3, 1])
    steps = order_of_patches(2, 3, 3, 8)
    found, _ = faithmap.score_curves(
        network, pixels, targets, steps, torch.zeros_like(pixels), dropped=True, batch_size=batch_size
    )
    patch = steps[:, ::8, ::8].flatten(1)
    for step in range(9):
        dropped = F.pad((patch > 0) & (patch <= step), (1, 0))
        expected = masked_logits(vit, pixels, dropped).gather(1, targets[:, None]).squeeze(1)
        torch.testing.assert_close(found[:, step], expected, rtol=1e-5, atol=1e-5)
    assert found.std(1).min() > 1e-3


def hugging_face(kind, **more):
    return Logits(
        getattr(transformers, f"{kind}ForImageClassification")(getattr(transformers, f"{kind}Config")(**SIZES, **more))
    )


NETWORKS = {
    "timm vit": lambda: timm.create_model("vit_tiny_patch16_224", img_size=24, patch_size=8, embed_dim=8, depth=2,
                                          num_heads=2, num_classes=5),
    "timm deit distilled": lambda: timm.create_model("deit_tiny_distilled_patch16_224", img_size=24, patch_size=8,
                                                     embed_dim=8, depth=2, num_heads=2, num_classes=5),
    "timm clip": lambda: timm.create_model("vit_base_patch16_clip_224", img_size=24, patch_size=8, embed_dim=8,
                                           depth=2, num_heads=2, num_classes=5),
    "hf vit": lambda: hugging_face("ViT"),
    "hf deit": lambda: hugging_face("DeiT"),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_dropping_on_other_transformers_equals_masks_in_their_attention(name, monkeypatch):
    """All attention of the network, fused or not, with dropped tokens masked: same logits."""
    module = randomised(NETWORKS[name]()).float()
    network, pixels, targets = faithmap.Classifier(module), torch.rand(2, 3, 24, 24), torch.tensor([3, 1])
    steps = order_of_patches(2, 3, 3, 8)
    found, _ = faithmap.score_curves(network, pixels, targets, steps, torch.zeros_like(pixels), dropped=True)
    first = DroppingEngine(network, 1).tokens((24, 24)).first
    assert first == (2 if name in ("timm deit distilled", "hf deit") else 1)
    patch = steps[:, ::8, ::8].flatten(1)
    attention = F.scaled_dot_product_attention
    for step in (0, 4, 8):
        dropped = F.pad((patch > 0) & (patch <= step), (first, 0))

        def masked(query, key, value, *args, dropped=dropped, **kwargs):
            return attention(query, key, value, attn_mask=~dropped[:, None, None], scale=kwargs.get("scale"))

        monkeypatch.setattr(F, "scaled_dot_product_attention", masked)
        expected = network.logits(pixels).gather(1, targets[:, None]).squeeze(1).detach()
        monkeypatch.setattr(F, "scaled_dot_product_attention", attention)
        torch.testing.assert_close(found[:, step], expected, rtol=1e-5, atol=1e-5)


def test_later_steps_compute_fewer_tokens():
    vit, seen = vision_transformer().float(), []
    vit.encoder.layers[1].ln_1.register_forward_hook(lambda m, i, output: seen.append(output.shape[1]))
    pixels, targets = torch.rand(1, 3, 24, 24), torch.tensor([3])
    network = faithmap.Classifier(vit)
    DroppingEngine(network, 1).tokens((24, 24))
    seen.clear()
    faithmap.score_curves(
        network, pixels, targets, order_of_patches(1, 3, 3, 8), torch.zeros_like(pixels), dropped=True
    )
    assert sorted(seen) == list(range(2, 11))  # the class token, the patch that is never removed, and up to all


@pytest.mark.parametrize(
    ("build", "size", "message"),
    [
        (lambda: models.resnet18(num_classes=5), 64, "does not embed an image patch by patch"),
        (lambda: timm.create_model("test_convnext", num_classes=5), 64, "has no attention|does not embed"),
        (lambda: SwinTransformer([2, 2], 8, [1, 1], [2, 2], [4, 4], num_classes=5), 32, "fill is 'drop' and"),
        (lambda: hugging_face("Beit", use_relative_position_bias=True), 24, "needs all its tokens|no tokens"),
        (lambda: timm.create_model("mixer_s32_224", num_classes=5), 224, "has no attention"),
    ],
)
def test_networks_whose_tokens_cannot_be_dropped_are_refused(build, size, message):
    torch.manual_seed(0)
    with pytest.raises(EngineError, match=message):
        DroppingEngine(faithmap.Classifier(build().eval()), 1).tokens((size, size))


def test_functions_and_screening_are_refused():
    network = faithmap.Classifier(lambda inputs: inputs.flatten(1)[:, :5])
    with pytest.raises(EngineError, match="gives scores only"):
        DroppingEngine(network, 1)
    pixels = torch.rand(1, 3, 24, 24)
    with pytest.raises(EngineError, match="float32 only"):
        faithmap.score_curves(
            faithmap.Classifier(vision_transformer().float()), pixels, torch.tensor([1]),
            order_of_patches(1, 3, 3, 8), pixels, dropped=True, precision="bfloat16",
        )  # fmt: skip


def test_regions_that_cut_patches_are_refused():
    network, pixels = faithmap.Classifier(vision_transformer().float()), torch.rand(1, 3, 24, 24)
    with pytest.raises(EngineError, match="regions cut patches of 8 pixels"):
        faithmap.score_curves(network, pixels, torch.tensor([1]), order_of_patches(1, 4, 4, 6), pixels, dropped=True)
    with pytest.raises(ProtocolError, match="regions cut the network's patches of 8 pixels"):
        aligned(faithmap.Protocol.preset("samek2017", fill="drop"), network, (24, 24))
    with pytest.raises(ProtocolError, match="cannot start without any token"):
        faithmap.Protocol.preset("insertion", fill="drop")


def test_patches_are_found_and_regions_follow_them():
    network = faithmap.Classifier(vision_transformer())
    assert patch_side(network, (24, 24)) == 8
    protocol = aligned(faithmap.Protocol.preset("samek2017", placement="patch", steps="all"), network, (24, 24))
    assert (str(protocol.placement), protocol.region_size) == ("grid", 8)
    assert protocol.fitted(24, 24).steps == 9
    srg = faithmap.Protocol.preset("srg")
    for side, expected in ((14, 14), (8, 16), (32, 32), (12, 12), (16, 16), (4, 16)):
        module = nn.Sequential(nn.Conv2d(3, 4, side, side), nn.Flatten(), nn.LazyLinear(5))
        assert aligned(srg, faithmap.Classifier(module), (112, 112)).region_size == expected
    convolutional = faithmap.Classifier(nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.Flatten(), nn.LazyLinear(5)))
    assert aligned(srg, convolutional, (112, 112)) == srg
    assert aligned(srg.override(region_size=9), network, (24, 24)).region_size == 9
    with pytest.raises(ProtocolError, match="placement is 'patch' and Sequential does not embed"):
        aligned(faithmap.Protocol.preset("samek2017", placement="patch"), convolutional, (112, 112))


def test_a_run_that_drops_tokens(tmp_path):
    network, images = faithmap.Classifier(vision_transformer().float(), name="vit"), torch.rand(3, 3, 24, 24)
    protocol = faithmap.Protocol.preset("srg", placement="patch", fill="drop", random_draws=1)
    run = faithmap.evaluate(network, images, ["attention-gradient", "sensitivity"], protocol, tmp_path / "run")
    scores = run.scores()
    assert set(scores["method"]) == {"attention-gradient", "sensitivity:l2", "random"}
    assert scores["logit"].notna().all()
    last = scores[scores.step == 9].groupby("image").logit
    assert (last.max() - last.min()).max() < 1e-5  # without any patch, all orders end alike
