"""How many steps of an order have to be scored: time and error of SRG over the number of points.

    python -m benchmarks.points --images FOLDER --count 50
    python -m benchmarks.points --images FOLDER --count 50 --curves curves.npz   # keeps the curves, or reads them

Every method's two orders are scored at all steps, which gives the true area between the curves; then the area is
estimated from few points, for several spacings and formulas. The error is the mean absolute error of a method's mean
over the images, and of single images, in percent of the spread (highest minus lowest) of the methods' means.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.interpolate import CubicSpline, PchipInterpolator, interp1d

import faithmap
from faithmap.inference import Chains, make_engine, score_chains, tune_allocator
from faithmap.perturbation import draw_fill

METHODS = "lrp-epsilon:0.01,lrp-epsilon:100,sensitivity,integrated-gradients:n=8,grad-cam,gradient-x-input,edge,random"


def cosine_points(steps: int, count: int) -> tuple[int, ...]:
    """Those of a protocol: dense at both ends."""
    return faithmap.Protocol.preset(steps=steps, points=count).scored_steps()


def linear_points(steps: int, count: int) -> tuple[int, ...]:
    """Equally far apart."""
    return tuple(sorted({round(steps * i / (count - 1)) for i in range(count)}))


Points = Sequence[int]
Interpolation = Callable[[Points, np.ndarray], Callable[[np.ndarray], np.ndarray]]
SPACINGS: dict[str, Callable[[int, int], tuple[int, ...]]] = {"cosine": cosine_points, "linear": linear_points}
FORMULAS: dict[str, Interpolation] = {
    "trapezoid": interp1d,
    "cubic spline": lambda points, values: CubicSpline(points, values, axis=-1, bc_type="natural"),
    "monotone cubic": lambda points, values: PchipInterpolator(points, values, axis=-1),
}


def chains_of(classifier: faithmap.Classifier, images: faithmap.Images, given: argparse.Namespace) -> Iterator[Chains]:
    """MoRF and LeRF of every method, image by image."""
    protocol = faithmap.Protocol.preset(region_size=given.region, placement="grid", steps="all")
    for image in images:
        pixels = image.read(classifier.preprocessing).unsqueeze(0)
        target = classifier(pixels).argmax(1)
        maps = torch.cat(
            [
                faithmap.heatmaps(classifier, pixels, target, name, image_ids=[image.id])
                for name in given.methods.split(",")
            ]
        )
        steps = torch.cat([faithmap.removal_steps(maps, protocol, order) for order in ("morf", "lerf")])
        fill = draw_fill(given.fill, pixels[0], seed=0, image_id=image.id, draw=0).unsqueeze(0)
        first = torch.zeros(len(steps), dtype=torch.int64)
        yield Chains(pixels, fill, first, first, steps, target.expand(len(steps)), int(steps.max()))


def timed(engine: faithmap.inference.Engine, chains: Chains, points: tuple[int, ...]) -> tuple[float, torch.Tensor]:
    """Seconds and logits, after a run that traces the network."""
    score_chains(engine, replace(chains, points=(0, 1)))
    start = time.perf_counter()
    logit, _ = score_chains(engine, replace(chains, points=points))
    return time.perf_counter() - start, logit


def print_times(classifier: faithmap.Classifier, chains: Chains, counts: list[int], repeats: int) -> None:
    """Dense and incremental over all points, and engine auto over few."""
    asked = {"all": tuple(range(chains.steps + 1)), **{str(n): cosine_points(chains.steps, n) for n in counts}}
    jobs = [("dense", "all"), ("incremental", "all"), *(("auto", name) for name in asked if name != "all")]
    seconds = {}
    for job in jobs:
        engine = make_engine(classifier, job[0])
        seconds[job] = float(np.median([timed(engine, chains, asked[job[1]])[0] for _ in range(repeats)]))
    print("engine | points | seconds | of dense, all | of incremental, all")
    for job in jobs:
        of = [f"{seconds[job] / seconds[kind, 'all']:.1%}" for kind in ("dense", "incremental")]
        print(" | ".join([*job, f"{seconds[job]:.2f}", *of]), flush=True)


def print_errors(logits: np.ndarray, counts: list[int]) -> None:
    """Errors of every spacing and formula; logits are (images, 2 orders, methods, steps + 1)."""
    steps = logits.shape[-1] - 1
    difference = logits[:, 1] - logits[:, 0]
    truth = np.trapezoid(difference, dx=1 / steps)
    spread = float(np.ptp(truth.mean(0)))
    print("\npoints | spacing | formula | error of a method's mean | of an image, in % of the spread")
    for count in counts:
        for spacing, choose in SPACINGS.items():
            points = choose(steps, count)
            for name, through in FORMULAS.items():
                curve = through(points, difference[..., list(points)])(np.arange(steps + 1))
                error = np.trapezoid(curve, dx=1 / steps) - truth
                means = f"{np.abs(error.mean(0)).mean() / spread:.2%}", f"{np.abs(error).mean() / spread:.2%}"
                print(" | ".join([str(len(points)), spacing, name, *means]), flush=True)


def main() -> None:
    """Print times and errors of each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["squeezenet1_1-embedded", "efficientnet-lite0-embedded"])
    parser.add_argument("--images", default="photos", help="a folder of photos (default: the embedded ones)")
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--methods", default=METHODS)
    parser.add_argument("--region", type=int, default=16)
    parser.add_argument("--fill", default="uniform")
    parser.add_argument("--points", type=int, nargs="+", default=[15, 20, 30])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--curves", type=Path, help="file of all curves: read where it is there, else written")
    given = parser.parse_args()
    tune_allocator()
    images = faithmap.load_images(given.images, limit=given.count)
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, regions of {given.region} pixels, {given.fill}"
    )
    kept = dict(np.load(given.curves)) if given.curves and given.curves.exists() else {}
    for network in given.networks:
        classifier = faithmap.load_classifier(network)
        print(f"\n{network}: {len(images)} images, {given.methods.count(',') + 1} methods, two orders each")
        if given.repeats:
            print_times(classifier, next(chains_of(classifier, images, given)), given.points, given.repeats)
        if network not in kept:
            engine = make_engine(classifier)
            logits = [score_chains(engine, chains)[0] for chains in chains_of(classifier, images, given)]
            kept[network] = torch.stack(logits).view(len(logits), 2, -1, logits[0].shape[1]).numpy()
            if given.curves:
                np.savez(given.curves, **kept)
        print_errors(kept[network].astype(np.float64), given.points)


if __name__ == "__main__":
    main()
