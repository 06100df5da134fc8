"""Heatmap quality as a label-free proxy of model quality.

Samek et al. (2017) watch a network during training and find that its AOPC grows with its accuracy, although AOPC needs
no labels. This script does the same on the digits that scikit-learn ships: it trains a small network, stops at
checkpoints, measures accuracy (with labels) and AOPC relative to random (without), and plots one against the other.

    python examples/quality_proxy.py --out quality_proxy.png

Needs scikit-learn (in the extra `demo`). Takes less than a minute of one core.
"""

from __future__ import annotations

import argparse

import matplotlib
import torch
from scipy.stats import spearmanr
from sklearn.datasets import load_digits
from torch import Tensor, nn

import faithmap

SIZE = 32
CHECKPOINTS = (0, 5, 10, 15, 20, 30, 40, 60, 90, 150, 300)  # training steps of 64 images


def digits(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training and test images (N, 3, 32, 32) in [0, 1] with their labels, 1,297 and 500."""
    data = load_digits()
    pixels = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16
    pixels = nn.functional.interpolate(pixels, size=(SIZE, SIZE), mode="nearest").expand(-1, 3, -1, -1).contiguous()
    labels = torch.tensor(data.target, dtype=torch.int64)
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(seed))
    test, train = order[:500], order[500:]
    return pixels[train], labels[train], pixels[test], labels[test]


def network() -> nn.Module:
    """Two convolutions and a linear layer."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * (SIZE // 4) ** 2, 10),
    )


def measure(classifier: faithmap.Classifier, pixels: Tensor, labels: Tensor, images: int) -> tuple[float, float, float]:
    """Accuracy, AOPC relative to random, and half the width of its 95 % interval."""
    accuracy = float((classifier.predict(pixels) == labels).float().mean())
    protocol = faithmap.Protocol.preset(steps=20, region_size=4, draws=3, score="probability")
    run = faithmap.evaluate(classifier, pixels[:images], "lrp-epsilon:0.01", protocol)
    last = run.aopc().query("method == 'lrp-epsilon:0.01' and step == 20").iloc[0]
    return accuracy, float(last["mean"]), float(last["high"] - last["low"]) / 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="quality_proxy.png", help="the picture to write")
    parser.add_argument("--images", type=int, default=100, help="test images whose AOPC is measured")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    torch.set_num_threads(1)  # the network is tiny
    torch.manual_seed(arguments.seed)
    train, labels, test, test_labels = digits(arguments.seed)
    classifier = faithmap.Classifier(
        network(),
        mean=(0.3,) * 3,
        std=(0.4,) * 3,
        preprocessing=faithmap.Preprocessing((SIZE, SIZE), None),
        name="digits",
    )
    optimiser = torch.optim.SGD(classifier.module.parameters(), lr=0.02, momentum=0.9)
    found, step = [], 0
    for checkpoint in CHECKPOINTS:
        classifier.module.train()
        while step < checkpoint:
            rows = torch.randint(len(train), (64,))
            loss = nn.functional.cross_entropy(classifier(train[rows]), labels[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            step += 1
        found.append(measure(classifier, test, test_labels, arguments.images))
        score, aopc, error = found[-1]
        print(f"step {step:4d}  accuracy {score:.3f}  AOPC relative to random {aopc:+.4f} ± {error:.4f}", flush=True)

    accuracy, aopc, error = zip(*found, strict=True)
    rho = spearmanr(accuracy, aopc).statistic
    print(f"rank correlation of accuracy and AOPC over the {len(found)} checkpoints: {rho:.2f}")
    plot(accuracy, aopc, error, rho, arguments.out)


def plot(accuracy: tuple[float, ...], aopc: tuple[float, ...], error: tuple[float, ...], rho: float, path: str) -> None:
    """AOPC against accuracy, one dot a checkpoint, in the order of training."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4.2), layout="constrained")
    axes.plot(accuracy, aopc, color="0.8", zorder=1)
    axes.errorbar(accuracy, aopc, yerr=error, fmt="none", ecolor="0.6", capsize=2, zorder=2)
    dots = axes.scatter(accuracy, aopc, c=range(len(accuracy)), cmap="viridis", zorder=3)
    bar = figure.colorbar(dots, ax=axes, ticks=range(len(accuracy)), label="training steps")
    bar.ax.set_yticklabels([str(step) for step in CHECKPOINTS])
    axes.axhline(0, color="0.5", linewidth=0.8)
    axes.set(
        xlabel="accuracy on test images (needs labels)",
        ylabel="AOPC relative to random (needs none)",
        title=f"Heatmap quality follows model quality (ρ = {rho:.2f})",
    )
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
