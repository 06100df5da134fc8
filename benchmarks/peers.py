"""The same network, images, heatmaps and steps through other tools, a plain loop, and faithmap, in one process.

    pip install -e ".[demo,peers]"
    python benchmarks/peers.py
    python benchmarks/peers.py --model alexnet --images 16 --method fig4 --threads 2 --clock wall --tables 1
    python benchmarks/peers.py --measures --images 4 --method fig4

For each: seconds of processor time on one thread, or of wall time (the median of the repeats), how many inputs went
through the network, scores a second, points of a curve, and the largest difference of a score from the line of faithmap
above it. Nothing is downloaded; the network is the embedded SqueezeNet 1.1, or AlexNet with random weights.
"""

from __future__ import annotations

import argparse
import copy
import platform
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from importlib.metadata import PackageNotFoundError, version
from statistics import median

import numpy as np
import torch
import torchvision
from torch import Tensor, nn

import faithmap
from faithmap.attribution import Batch, batch_heatmaps, resolve_methods
from faithmap.images import IMAGENET_MEAN, IMAGENET_STD
from faithmap.inference import tune_allocator
from faithmap.measures.compute import compute_measures
from faithmap.measures.registry import resolve_measures
from faithmap.measures.subject import Subject

CLOCKS = {"cpu": time.process_time, "wall": time.perf_counter}
SIZE = 224
REGION = 8  # divides 224: Quantus pads the image where it does not, and its grid is then another


class Counter:
    """How many inputs go through a network while this is entered."""

    def __init__(self, module: nn.Module) -> None:
        self.module, self.inputs = module, 0

    def __enter__(self) -> Counter:
        self.handle = self.module.register_forward_pre_hook(self._count)
        return self

    def __exit__(self, *_: object) -> None:
        self.handle.remove()

    def _count(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.inputs += len(inputs[0])


class Case:
    """One network, images, targets and heatmaps for all tools."""

    def __init__(self, model: str, images: int, method: str) -> None:
        if model == "alexnet":
            torch.manual_seed(0)
            module = torchvision.models.alexnet().eval()
            self.classifier = faithmap.Classifier(module, mean=IMAGENET_MEAN, std=IMAGENET_STD, name="alexnet (random)")
        else:
            self.classifier = faithmap.load_classifier(model, device="cpu")
        found = faithmap.load_images("photos", limit=images)
        self.pixels = torch.stack([image.read(self.classifier.preprocessing) for image in found])
        self.targets = self.classifier.predict(self.pixels)
        # Every method on every image, as one list.
        methods = [one for one in resolve_methods(method) if not one.is_random]
        maps = [faithmap.heatmaps(self.classifier, self.pixels, self.targets, one) for one in methods]
        self.heatmap = torch.cat(maps)
        self.pixels, self.targets = self.pixels.repeat(len(maps), 1, 1, 1), self.targets.repeat(len(maps))
        self.inputs = self.classifier.normalise(self.pixels)
        # Zero after normalisation, in pixel space: a fill that all tools can be told.
        self.mean_colour = torch.tensor(self.classifier.mean).view(1, 3, 1, 1).expand_as(self.pixels).contiguous()

    def ours(self, protocol: faithmap.Protocol, engine: str, order: str = "morf", imputed: bool = False) -> np.ndarray:
        """Logits at k = 0…L, (images, L + 1)."""
        removal_step = faithmap.removal_steps(self.heatmap, protocol, order)
        fill = torch.zeros_like(self.pixels) if imputed else self.mean_colour
        logits, _ = faithmap.score_curves(
            self.classifier, self.pixels, self.targets, removal_step, fill, engine=engine, imputed=imputed
        )
        return logits.numpy()

    def loop(self, protocol: faithmap.Protocol) -> np.ndarray:
        """What one writes by hand: all images one step further, one forward pass a step."""
        removal_step = faithmap.removal_steps(self.heatmap, protocol)
        rows, curve = torch.arange(len(self.inputs)), []
        x = self.inputs.clone()
        module = self.classifier.module.eval()
        with torch.no_grad():
            for step in range(protocol.steps + 1):
                x = torch.where((removal_step == step).unsqueeze(1) & (step > 0), torch.zeros_like(x), x)
                curve.append(module(x)[rows, self.targets])
        return torch.stack(curve, 1).numpy()

    def quantus_regions(self, protocol: faithmap.Protocol, fill: float | str) -> np.ndarray:
        """Quantus' RegionPerturbation, turned from drops at k = 1…L into scores."""
        import quantus

        metric = quantus.RegionPerturbation(
            patch_size=protocol.region_size,
            regions_evaluation=protocol.steps,
            order="morf",
            normalise=False,
            perturb_baseline=fill,
            disable_warnings=True,
            display_progressbar=False,
        )
        drops = self._quantus(metric)
        return self._first() - drops

    def quantus_pixels(self, protocol: faithmap.Protocol) -> np.ndarray:
        """Quantus' PixelFlipping: scores at k = 1…L.

        A pixel counts as three features there, and the features of a step must divide the number of pixels, so that a
        step takes a third of the pixels of ours; every third score is comparable.
        """
        import quantus

        metric = quantus.PixelFlipping(
            features_in_step=protocol.region_size,
            normalise=False,
            perturb_baseline=0.0,
            disable_warnings=True,
            display_progressbar=False,
        )
        return self._quantus(metric)[:, 2::3]

    def _quantus(self, metric: Callable[..., list[np.ndarray]]) -> np.ndarray:
        scores = metric(
            model=self.classifier.module.eval(),
            x_batch=self.inputs.numpy(),
            y_batch=self.targets.numpy(),
            a_batch=self.heatmap.unsqueeze(1).numpy(),
            softmax=False,
            channel_first=True,
            device="cpu",
            batch_size=64,  # its default
        )
        return np.stack(scores)

    def _first(self) -> np.ndarray:
        with torch.no_grad():
            logits = self.classifier.module(self.inputs)
        return logits[torch.arange(len(logits)), self.targets].unsqueeze(1).numpy()

    def road(self, steps: int, least: bool) -> np.ndarray:
        """pytorch-grad-cam's ROAD at k · 10 % of the pixels, k = 1…L, without noise."""
        from pytorch_grad_cam.metrics.perturbation_confidence import (
            PerturbationConfidenceMetric,
            RemoveLeastRelevantFirst,
            RemoveMostRelevantFirst,
        )
        from pytorch_grad_cam.metrics.road import NoisyLinearImputer
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        remove = RemoveLeastRelevantFirst if least else RemoveMostRelevantFirst
        targets = [ClassifierOutputTarget(int(target)) for target in self.targets]
        curve = []
        for step in range(1, steps + 1):
            metric = PerturbationConfidenceMetric(remove(100 - 10 * step, NoisyLinearImputer(noise=0)))
            scores = metric(
                self.inputs, self.heatmap.numpy(), targets, self.classifier.module.eval(), return_diff=False
            )
            curve.append(scores)
        return np.stack(curve, 1)


class Measured:
    """Measures of all methods on one network and images, by faithmap and by Quantus."""

    def __init__(self, model: str, images: int, method: str) -> None:
        case = Case(model, images, method)
        self.classifier = case.classifier
        self.pixels, self.targets = case.pixels[:images], case.targets[:images]
        self.methods = [one for one in resolve_methods(method) if not one.is_random]
        maps = [faithmap.heatmaps(self.classifier, self.pixels, self.targets, one) for one in self.methods]
        self.maps = dict(zip(self.methods, maps, strict=True))

    def ours(self, measure: str) -> float:
        """The mean over methods and images."""
        ids = [str(row) for row in range(len(self.pixels))]
        subject = Subject(self.classifier, self.pixels, self.targets, ids)
        heatmaps = {method.name: dict(enumerate(maps)) for method, maps in self.maps.items()}
        values, failed = compute_measures(subject, self.methods, heatmaps, resolve_measures(measure))
        assert not failed, failed[0].reason
        return float(np.mean([one.value for one in values]))

    def quantus(self, metric: Callable[..., list[float]]) -> float:
        """The mean over methods and images; heatmaps are computed anew by the same functions as ours."""
        found = []
        for method, maps in self.maps.items():

            def explain(model: nn.Module, inputs: np.ndarray, targets: np.ndarray, method=method, **_: object):
                classifier = copy.copy(self.classifier)
                classifier.module = model
                given = torch.as_tensor(inputs) * torch.tensor(IMAGENET_STD).view(3, 1, 1)
                pixels = given + torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
                batch = Batch.of(classifier, pixels.float(), torch.as_tensor(targets).long())
                return batch_heatmaps(method, batch).unsqueeze(1).numpy()

            found += metric(
                model=self.classifier.module.eval(),
                x_batch=self.classifier.normalise(self.pixels).numpy(),
                y_batch=self.targets.numpy(),
                a_batch=maps.unsqueeze(1).numpy().copy(),
                explain_func=explain,
                softmax=False,
                channel_first=True,
                device="cpu",
            )
        return float(np.mean(found))


def compare_measures(case: Measured, clock: Callable[[], float]) -> None:
    """Infidelity, max-sensitivity and randomisation over all layers: seconds, ratio and the values' means.

    Infidelity and max-sensitivity are defined otherwise there (docs/peers.md): the same number of perturbed images, and
    the same method computing the heatmaps; values are shown, not compared.
    """
    import quantus

    quiet = {"disable_warnings": True, "normalise": False}
    rows: dict[str, tuple[str, Callable[..., list[float]]]] = {
        "infidelity, 96 perturbed images": (
            "infidelity:n=96",
            quantus.Infidelity(perturb_patch_sizes=[SIZE // 4], n_perturb_samples=6, **quiet),
        ),
        "max-sensitivity, 10 noisy images": ("max-sensitivity:n=10", quantus.MaxSensitivity(nr_samples=10, **quiet)),
        "randomisation, all layers": (
            "randomisation-top-down",
            quantus.MPRT(return_average_correlation=True, **quiet),
        ),
    }
    names = ", ".join(method.name for method in case.methods)
    print(f"{case.classifier.name}, {len(case.pixels)} images, {len(case.methods)} methods ({names}); {machine()}")
    print(f"{'':36}{'faithmap s':>12}{'Quantus s':>12}{'ratio':>8}{'faithmap':>12}{'Quantus':>12}")
    for title, (measure, metric) in rows.items():
        start = clock()
        theirs = case.quantus(metric)
        seconds = clock() - start
        start = clock()
        mine = case.ours(measure)
        own = clock() - start
        print(f"{title:36}{own:12.2f}{seconds:12.2f}{seconds / own:8.1f}{mine:12.3g}{theirs:12.3g}", flush=True)


def timed(
    case: Case, name: str, run: Callable[[], np.ndarray], repeats: int, clock: Callable[[], float]
) -> tuple[np.ndarray, float, str]:
    """What a run returns, its median seconds, and how many inputs it sent through the network."""
    seconds = []
    with Counter(case.classifier.module) if "incremental" not in name else nullcontext() as counter:  # no hooks there
        for _ in range(repeats):
            start = clock()
            scores = run()
            seconds.append(clock() - start)
    return scores, median(seconds), str(counter.inputs // repeats) if counter else "–"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="squeezenet1_1-embedded")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--method", default="lrp-epsilon:0.01")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=list(CLOCKS), default="cpu")
    parser.add_argument("--measures", action="store_true", help="measures beyond curves, beside those of Quantus")
    parser.add_argument("--tables", type=int, default=3, help="how many of the three comparisons (default: all)")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(arguments.threads)

    if arguments.measures:
        compare_measures(Measured(arguments.model, arguments.images, arguments.method), CLOCKS[arguments.clock])
        return
    case = Case(arguments.model, arguments.images, arguments.method)
    squares = faithmap.Protocol.preset(steps=arguments.steps, region_size=REGION)
    pixels = faithmap.Protocol.preset(steps="all", region_size=3136, placement="pixel")
    road = faithmap.Protocol.preset(steps=9, region_size=SIZE * SIZE // 10 + 1, placement="pixel")
    tables: dict[str, list[tuple[str, Callable[[], np.ndarray]]]] = {
        f"{arguments.steps} squares of {REGION}×{REGION}, fill 0 after normalisation": [
            ("faithmap, engine incremental", lambda: case.ours(squares, "incremental")),
            ("faithmap, engine dense", lambda: case.ours(squares, "dense")),
            ("plain PyTorch loop", lambda: case.loop(squares)),
            ("Quantus RegionPerturbation", lambda: case.quantus_regions(squares, 0.0)),
            ("Quantus RegionPerturbation, fill 'uniform'", lambda: case.quantus_regions(squares, "uniform")),
        ],
        f"all pixels, {pixels.region_size} a step, fill 0 after normalisation": [
            ("faithmap, engine dense", lambda: case.ours(pixels, "dense")),
            ("Quantus PixelFlipping", lambda: case.quantus_pixels(pixels)),
        ],
        "noisy linear imputation (ROAD) of 10 … 90 % of the pixels, no noise": [
            ("faithmap, most relevant first", lambda: case.ours(road, "dense", "morf", imputed=True)),
            ("grad-cam ROAD, most relevant first", lambda: case.road(road.steps, least=False)),
            ("faithmap, least relevant first", lambda: case.ours(road, "dense", "lerf", imputed=True)),
            ("grad-cam ROAD, least relevant first", lambda: case.road(road.steps, least=True)),
        ],
    }
    print(
        f"{case.classifier.name}, {arguments.images} images, {len(case.heatmap)} maps ({arguments.method}); {machine()}"
    )
    for title, rows in list(tables.items())[: arguments.tables]:
        print(f"\n{title}\n{'':44}{'seconds':>9}{'inputs':>8}{'scores/s':>10}{'points':>8}{'largest difference':>20}")
        found = {}
        for name, run in sorted(rows, key=lambda row: row[0].startswith("faithmap")):
            if name.startswith("faithmap"):
                tune_allocator()  # as its command line does, and after the others, who do not
            found[name] = timed(case, name, run, arguments.repeats, CLOCKS[arguments.clock])
        reference: np.ndarray | None = None
        for name, _ in rows:
            scores, seconds, inputs = found[name]
            if reference is None or name.startswith("faithmap"):
                reference = scores
            shared = min(scores.shape[1], reference.shape[1])
            ours = name.startswith("faithmap")
            difference = "–" if ours else f"{np.abs(scores[:, -shared:] - reference[:, -shared:]).max():.2g}"
            rate, points = scores.size / seconds, scores.shape[1]
            print(f"{name:44}{seconds:9.2f}{inputs:>8}{rate:10.0f}{points:8d}{difference:>20}", flush=True)


def machine() -> str:
    """What the figures were measured on."""
    tools = []
    for package in ("torch", "quantus", "grad-cam"):
        try:
            tools.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            tools.append(f"{package} is missing")
    return f"{platform.machine()}, threads: {torch.get_num_threads()}, {', '.join(tools)}"


if __name__ == "__main__":
    main()
