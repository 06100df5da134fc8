"""Heatmap methods that perturb the input, against captum's on the same work: time, ratio and difference.

    python -m benchmarks.perturbing
    python -m benchmarks.perturbing --networks vgg16 --jobs occlusion

Weights of torchvision networks are random. Both run in this process: captum first, with the allocator as it is, then
faithmap with `tune_allocator()`, as its command line runs. Times are medians over `--repeats` images, after a first one
that traces the network. captum runs with as many perturbations in a batch as is asked for.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import captum.attr
import torch
import torchvision
from torch import Tensor

import faithmap
from faithmap.attribution.derived import region_grid
from faithmap.attribution.perturbing import rise_mask, segment
from faithmap.attribution.shapley import shapley_values
from faithmap.images import IMAGENET_MEAN, IMAGENET_STD
from faithmap.inference import tune_allocator
from faithmap.randomness import generator

Job = Callable[[faithmap.Classifier, Tensor, Tensor, argparse.Namespace], tuple[Tensor, Tensor]]
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def occlusion(classifier, pixels, target, given):
    """Windows of `--window` pixels, `--stride` apart."""

    def theirs():
        return captum.attr.Occlusion(classifier.logits).attribute(
            classifier.normalise(pixels),
            sliding_window_shapes=(3, given.window, given.window),
            strides=(3, given.stride, given.stride),
            target=target,
            perturbations_per_eval=given.batch,
        )[:, 0]

    name = f"occlusion:size={given.window},stride={given.stride}"
    return lambda: faithmap.heatmaps(classifier, pixels, target, name), theirs


def shapley(classifier, pixels, target, given):
    """Shapley values of the cells of a grid, by permutations; captum draws others, of the same number."""
    protocol = faithmap.Protocol.preset(region_size=given.region, placement="grid")
    regions = region_grid(protocol, (pixels.shape[-2], pixels.shape[-1]))
    fill = torch.tensor(classifier.mean).view(1, 1, 3, 1, 1).expand(1, 1, *pixels.shape[1:])

    def ours():
        found = shapley_values(classifier, pixels, target, regions[None], fill, permutations=given.permutations)
        return found.values[0][regions][None]

    def theirs():
        return captum.attr.ShapleyValueSampling(classifier.logits).attribute(
            classifier.normalise(pixels),
            target=target,
            feature_mask=regions.expand(1, 3, -1, -1).contiguous(),
            n_samples=given.permutations,
            perturbations_per_eval=given.batch,
        )[:, 0]

    return ours, theirs


def kernelshap(classifier, pixels, target, given):
    """A loop over images around captum's KernelSHAP, on 49 squares."""
    labels = segment(pixels[0], 49, "grid")

    def theirs():
        return captum.attr.KernelShap(classifier.logits).attribute(
            classifier.normalise(pixels),
            target=target,
            feature_mask=labels.expand(1, 3, -1, -1),
            n_samples=given.samples,
            perturbations_per_eval=given.batch,
        )[:, 0]

    name = f"kernelshap:n={given.samples},segments=49,shape=grid"
    return lambda: faithmap.heatmaps(classifier, pixels, target, name), theirs


def rise(classifier, pixels, target, given):
    """captum has no RISE: a loop over batches of masks in torch's own memory format."""

    def theirs():
        inputs, draw = classifier.normalise(pixels), generator("rise", 0, "0")
        total = torch.zeros_like(pixels[0, 0])
        with torch.no_grad():
            for start in range(0, given.samples, given.batch):
                count = min(given.batch, given.samples - start)
                masks = torch.stack([rise_mask(draw, pixels.shape[-2:], 7, 0.5) for _ in range(count)])
                weight = classifier.logits(inputs * masks.unsqueeze(1)).softmax(1)[:, target[0]]
                total += (weight.view(-1, 1, 1) * masks).sum(0)
        return total[None] / (given.samples * 0.5)

    return lambda: faithmap.heatmaps(classifier, pixels, target, f"rise:n={given.samples}"), theirs


JOBS: dict[str, Job] = {"occlusion": occlusion, "shapley": shapley, "kernelshap": kernelshap, "rise": rise}
SAME = ("occlusion", "rise")  # the others draw permutations or coalitions of their own


def network(name: str) -> faithmap.Classifier:
    """An embedded network, or one of torchvision with random weights."""
    if name.endswith("-embedded"):
        return faithmap.load_classifier(name, device="cpu")
    module = torchvision.models.get_model(name).eval()
    return faithmap.Classifier(module, mean=IMAGENET_MEAN, std=IMAGENET_STD, name=name)


@dataclass(frozen=True)
class Measured:
    """Seconds and map of every image."""

    seconds: list[float]
    maps: list[Tensor]


def measured(
    classifier: faithmap.Classifier, images: faithmap.Images, job: str, which: int, given: argparse.Namespace
) -> Measured:
    """Our side (0) of a job, or theirs (1), on every image, after a first time that traces and warms up."""
    clock, found = CLOCKS[given.clock], Measured([], [])
    for at, image in enumerate([images[0], *images]):
        pixels = image.read(classifier.preprocessing).unsqueeze(0)
        compute = JOBS[job](classifier, pixels, classifier(pixels).argmax(1), given)[which]
        if at == 0 and which == 1:
            continue  # it prepares nothing
        start = clock()
        heatmap = compute().detach()
        if at:
            found.seconds.append(clock() - start)
            found.maps.append(heatmap)
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["alexnet", "squeezenet1_1-embedded", "vgg16"])
    parser.add_argument("--jobs", nargs="+", default=list(JOBS), choices=list(JOBS))
    parser.add_argument("--batch", type=int, default=16, help="captum's perturbations per forward pass")
    parser.add_argument("--window", type=int, default=16, help="side of the windows of occlusion")
    parser.add_argument("--stride", type=int, default=8, help="pixels from one window of occlusion to the next")
    parser.add_argument("--region", type=int, default=16, help="side of the regions of Shapley values")
    parser.add_argument("--permutations", type=int, default=4)
    parser.add_argument("--samples", type=int, default=200, help="of KernelSHAP and RISE")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    given = parser.parse_args()
    images = faithmap.load_images("photos", limit=given.repeats)
    print(f"torch {torch.__version__}, captum {captum.__version__},", end=" ")
    print(f"{torch.get_num_threads()} threads, {given.clock} time")
    print("network | job | faithmap, s | captum, s | ratio | largest difference, of the map's largest value")
    work = [(name, job) for name in given.networks for job in given.jobs]
    classifiers = {name: network(name) for name in given.networks}
    theirs = {one: measured(classifiers[one[0]], images, one[1], 1, given) for one in work}
    tune_allocator()  # as the command line does; a user's own loop runs without
    for one in work:
        ours = measured(classifiers[one[0]], images, one[1], 0, given)
        seconds, other = statistics.median(ours.seconds), statistics.median(theirs[one].seconds)
        pairs = zip(ours.maps, theirs[one].maps, strict=True)
        worst = max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
        differ = f"{worst:.0e}" if one[1] in SAME else "other draws"
        print(" | ".join([*one, f"{seconds:.2f}", f"{other:.2f}", f"{other / seconds:.1f}", differ]), flush=True)


if __name__ == "__main__":
    main()
