"""Which heatmap method fits which network: the table in docs/methods.md.

    python benchmarks/method_table.py            # print it
    python benchmarks/method_table.py --write    # put it into docs/methods.md

Every network is a small one of its family with random weights. A method fits where it gives a map of two pictures; else
the reason is what its error says.
"""

from __future__ import annotations

import argparse
import re
import warnings
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path

import timm
import torch
import transformers
from torch import nn
from torchvision import models

import faithmap
from faithmap.attribution import heatmaps
from faithmap.errors import HeatmapError, MethodError

DOCS = Path(__file__).parents[1] / "docs" / "methods.md"
BEGIN, END = "<!-- methods on networks: begin -->", "<!-- methods on networks: end -->"
SIZE = 64
ViT = {"image_size": SIZE, "patch_size": 16, "num_labels": 5, "hidden_size": 16, "num_hidden_layers": 2} | {
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
TIMM_VIT = {"img_size": SIZE, "patch_size": 16, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 5}


def hugging_face(kind: str, **config: object) -> nn.Module:
    """A small image classifier of Hugging Face."""
    settings = getattr(transformers, f"{kind}Config")(**config)
    return getattr(transformers, f"{kind}ForImageClassification")(settings)


def torchvision_swin() -> nn.Module:
    """Two stages, windows of 4."""
    return models.SwinTransformer([4, 4], 16, [1, 1], [2, 2], [4, 4], num_classes=5)


def timm_swin() -> nn.Module:
    """Two stages, windows of 4."""
    sizes = {"depths": (1, 1), "num_heads": (2, 2), "embed_dim": 16, "window_size": 4}
    return timm.create_model("swin_tiny_patch4_window7_224", img_size=SIZE, num_classes=5, **sizes)


def with_small_head(features: nn.Module, channels: int) -> nn.Module:
    """Convolutions as they are; linear layers that do not take minutes."""
    head = [nn.Linear(channels, 32), nn.ReLU(), nn.Linear(32, 5)]
    return nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), *head)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "AlexNet": lambda: with_small_head(models.alexnet().features, 256),
    "VGG": lambda: with_small_head(models.vgg.make_layers(models.vgg.cfgs["A"]), 512),
    "SqueezeNet": lambda: models.squeezenet1_1(num_classes=5),
    "ResNet": lambda: models.resnet18(num_classes=5),
    "DenseNet": lambda: models.DenseNet(8, (2, 2), 16, num_classes=5),
    "MobileNetV3": lambda: models.mobilenet_v3_small(num_classes=5),
    "EfficientNet": lambda: timm.create_model("test_efficientnet", num_classes=5),
    "RegNetY": lambda: models.regnet_y_400mf(num_classes=5),
    "ConvNeXt": lambda: models.ConvNeXt([models.convnext.CNBlockConfig(16, 16, 1)] * 2, num_classes=5),
    "ViT": lambda: models.VisionTransformer(SIZE, 16, 2, 2, 16, 32, num_classes=5),
    "Swin": torchvision_swin,
    "timm ResNet-GN": lambda: timm.create_model("test_resnet", num_classes=5, norm_layer=timm.layers.GroupNorm1),
    "timm ConvNeXt V2": lambda: timm.create_model("test_convnext2", num_classes=5),
    "timm ViT": lambda: timm.create_model("vit_tiny_patch16_224", **TIMM_VIT),
    "timm DeiT": lambda: timm.create_model("deit_tiny_distilled_patch16_224", **TIMM_VIT),
    "timm Swin": timm_swin,
    "timm Mixer": lambda: timm.models.MlpMixer(num_classes=5, img_size=SIZE, num_blocks=2, embed_dim=16),
    "timm PVT": lambda: timm.create_model("pvt_v2_b0", num_classes=5, depths=(1, 1, 1, 1)),
    "HF ResNet": lambda: hugging_face("ResNet", hidden_sizes=[8, 16], depths=[1, 1], embedding_size=8, num_labels=5),
    "HF ConvNeXt": lambda: hugging_face("ConvNext", hidden_sizes=[8, 16, 16, 16], depths=[1, 1, 1, 1], num_labels=5),
    "HF ViT": lambda: hugging_face("ViT", **ViT),
    "HF DeiT": lambda: hugging_face("DeiT", **ViT),
    "HF BEiT": lambda: hugging_face("Beit", **ViT),
    "HF Swin": lambda: hugging_face(
        "Swin", image_size=SIZE, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4, num_labels=5
    ),
}
METHODS = (
    "lrp-epsilon", "lrp-gamma", "lrp-alpha-beta", "lrp-z-plus", "lrp-epsilon-plus", "lrp-epsilon-plus-flat",
    "lrp-epsilon-alpha2-beta1", "excitation-backprop", "attn-lrp", "attention-rollout", "attention-gradient",
    "deconvolution", "guided-backpropagation", "sensitivity", "gradient-x-input", "integrated-gradients:n=2",
    "smoothgrad:n=2", "deeplift", "grad-cam", "occlusion:size=32,stride=32", "rise:n=2",
    "kernelshap:n=4,segments=4,shape=grid",
)  # fmt: skip


@lru_cache(maxsize=1)
def classifier_of(network: str) -> faithmap.Classifier:
    """The network with random weights."""
    torch.manual_seed(0)
    module = NETWORKS[network]().eval()
    for parameter in module.parameters():
        if parameter.ndim == 2 and not parameter.any():
            nn.init.normal_(parameter)  # heads that start at 0, where no class depends on anything
    return faithmap.Classifier(module, name=network)


def reason(network: str, method: str) -> str | None:
    """Why a method does not fit a network, or None where it does."""
    classifier = classifier_of(network)
    pixels = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            heatmaps(classifier, pixels, torch.tensor([1, 3]), method)
    except HeatmapError:
        return None  # of one image, which with random weights may have no logit to explain
    except MethodError as error:
        said = str(error).split(f" on {network}: ", 1)[-1]
        return re.sub(r"'(\w+)' in (module '[^']*' \(\w+\)|the network's own forward): ", "", said)
    return None


def marks(networks: Iterable[str], methods: Iterable[str]) -> dict[str, dict[str, str | None]]:
    """Method → network → reason without numbers, or None."""
    found: dict[str, dict[str, str | None]] = {method: {} for method in methods}
    for network in networks:
        for method in found:
            why = reason(network, method)
            found[method][network] = None if why is None else re.sub(r"\d+", "N", why)
    return found


def table(networks: Iterable[str] = NETWORKS, methods: Iterable[str] = METHODS) -> str:
    """The table and its reasons, as Markdown; methods that fit the same networks share a row."""
    found = marks(networks, methods)
    rows: dict[tuple[str | None, ...], list[str]] = {}
    for method, cells in found.items():
        rows.setdefault(tuple(cells.values()), []).append(f"`{method.partition(':')[0]}`")
    reasons = list(dict.fromkeys(why for cells in rows for why in cells if why is not None))
    letters = {why: chr(ord("a") + number) for number, why in enumerate(reasons)}
    lines = [f"| | {' | '.join(networks)} |", "|---" * (len(list(networks)) + 1) + "|"]
    for cells, names in rows.items():
        lines.append(f"| {', '.join(names)} | {' | '.join('✓' if why is None else letters[why] for why in cells)} |")
    return "\n".join([*lines, "", *(f"- {letter}: {why}" for why, letter in letters.items())])


def main() -> None:
    """Print the table, or put it into the documentation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    found = table()
    if not given.write:
        print(found)
        return
    text = DOCS.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    DOCS.write_text(f"{before}{BEGIN}\n\n{found}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
