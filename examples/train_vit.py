"""Train a small vision transformer on digits that lie somewhere in a noisy picture.

    python examples/train_vit.py [--epochs 60] [--out examples/vit_digits.safetensors]

The digits are scikit-learn's (8×8, 1797 of them), enlarged to 16×16 and put at a random place of a 24×24 picture of
noise, so that it is known which patches show the digit. The network is timm's `VisionTransformer` with patches of 4
pixels. Its weights are stored in half precision; the tests use them where they claim something about a trained
transformer.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits
from torch import Tensor, nn

import faithmap

WEIGHTS = Path(__file__).parent / "vit_digits.safetensors"
SIZE, DIGIT, PATCH = 24, 16, 4
TESTED = 5  # every fifth digit is for testing


def vision_transformer() -> nn.Module:
    """The architecture, with random weights."""
    return timm.models.VisionTransformer(
        img_size=SIZE, patch_size=PATCH, num_classes=10, embed_dim=48, depth=3, num_heads=4, mlp_ratio=2
    )


def classifier() -> faithmap.Classifier:
    """The trained network."""
    module = vision_transformer()
    module.load_state_dict({name: weight.float() for name, weight in load_file(WEIGHTS).items()})
    return faithmap.Classifier(module.eval(), mean=(0.5,) * 3, std=(0.25,) * 3, name="vit-digits")


def pictures(test: bool, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures of digits.

    Args:
        test: the digits that training does not see.
        seed: of the places and the noise.
    Returns:
        Pixels (N, 3, 24, 24) in [0, 1], classes (N,), and the top left corner of each digit in pixels (N, 2).
    """
    digits = load_digits()
    some = (np.arange(len(digits.target)) % TESTED == 0) == test
    shapes = torch.from_numpy(digits.images[some]).float().div(16).unsqueeze(1)
    shapes = F.interpolate(shapes, (DIGIT, DIGIT), mode="bilinear", align_corners=False)
    random = np.random.default_rng(seed)
    corners = torch.from_numpy(random.integers(0, (SIZE - DIGIT) // PATCH + 1, (len(shapes), 2)) * PATCH)
    grey = torch.from_numpy(random.uniform(0, 0.25, (len(shapes), 1, SIZE, SIZE))).float()
    for picture, shape, (top, left) in zip(grey, shapes, corners.tolist(), strict=True):
        picture[:, top : top + DIGIT, left : left + DIGIT] += 0.75 * shape
    return grey.expand(-1, 3, -1, -1).contiguous(), torch.from_numpy(digits.target[some]), corners


def accuracy(network: faithmap.Classifier) -> float:
    """On digits that training has not seen."""
    pixels, classes, _ = pictures(test=True, seed=1)
    return float((network.predict(pixels) == classes).float().mean())


def train(epochs: int, seed: int = 0) -> nn.Module:
    """AdamW with a warm-up and a cosine; every epoch puts the digits elsewhere."""
    torch.manual_seed(seed)
    module = vision_transformer()
    optimiser = torch.optim.AdamW(module.parameters(), lr=2e-3, weight_decay=0.05)
    batches = -(-len(pictures(test=False, seed=0)[0]) // 96)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=epochs * batches, pct_start=0.1)
    for epoch in range(epochs):
        pixels, classes, _ = pictures(test=False, seed=1000 + epoch)
        for rows in torch.randperm(len(pixels)).split(96):
            loss = F.cross_entropy(module((pixels[rows] - 0.5) / 0.25), classes[rows], label_smoothing=0.05)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        print(f"epoch {epoch + 1} of {epochs}, loss {float(loss):.3f}", flush=True)
    return module.eval()


def main() -> None:
    """Train, store, and say how often the stored network is right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    given = parser.parse_args()
    module = train(given.epochs)
    save_file({name: weight.half().contiguous() for name, weight in module.state_dict().items()}, given.out)
    if given.out == WEIGHTS:
        print(f"right for {accuracy(classifier()):.1%} of the digits that training has not seen")


if __name__ == "__main__":
    main()
