"""What valid calls are made of: a small network, images, heatmaps, and the arguments of every public function."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch

import faithmap
from faithmap.images import PixelSource

SIZE = 24


def network(classes: int = 5) -> faithmap.Classifier:
    """Small, with fixed weights."""
    generator = torch.Generator().manual_seed(3)
    layers = torch.nn
    module = layers.Sequential(
        layers.Conv2d(3, 4, 5, stride=2, padding=2), layers.ReLU(), layers.Flatten(), layers.Linear(4 * 144, classes)
    )
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    how = faithmap.Preprocessing(crop=(SIZE, SIZE), resize=None)
    return faithmap.Classifier(module, mean=(0.4,) * 3, std=(0.2,) * 3, name="tiny", preprocessing=how)


def pixels(count: int = 2, seed: int = 0) -> torch.Tensor:
    """Images in [0, 1]."""
    return torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def heatmap(count: int = 2) -> torch.Tensor:
    """Heatmaps with an order."""
    return torch.arange(count * SIZE * SIZE, dtype=torch.float32).view(count, SIZE, SIZE)


def protocol() -> faithmap.Protocol:
    """Two steps."""
    return faithmap.Protocol.preset("samek2017", steps=2, region_size=6, draws=1)


def calls() -> dict[str, Callable[[], dict[str, Any]]]:
    """Every public function and class → arguments that are valid, made anew each time."""
    curve = torch.tensor([[1.0, 0.5, 0.2], [0.9, 0.8, 0.1]])
    steps = torch.ones(2, SIZE, SIZE, dtype=torch.int32)
    return {
        "Classifier": lambda: {"module": network().module, "mean": (0.4,) * 3, "std": (0.2,) * 3, "name": "n"},
        "Images": lambda: {"name": "set", "items": list(faithmap.load_images(pixels()))},
        "Preprocessing": lambda: {"crop": (SIZE, SIZE), "resize": 30, "interpolation": "bilinear"},
        "Protocol": lambda: {"steps": 2, "region_size": 6, "draws": 1, "fill": "uniform", "placement": "grid"},
        "abpc": lambda: {"morf": curve, "lerf": curve.flip(0)},
        "aopc": lambda: {"curve": curve},
        "complexity_table": lambda: {"heatmaps": {"one": heatmap(), "two": heatmap().flip(1)}},
        "draw_fill": lambda: {
            "fill": "swap",
            "pixels": pixels()[0],
            "seed": 0,
            "image_id": "0",
            "draw": 0,
            "others": PixelSource(faithmap.load_images(pixels()), faithmap.Preprocessing(crop=(SIZE, SIZE))),
        },
        "evaluate": lambda: {
            "classifier": network(),
            "images": pixels(),
            "methods": "sensitivity",
            "protocol": protocol(),
            "out": None,
            "batch_size": None,
            "measures": None,
            "masks": None,
            "targets": None,
            "groups": None,
        },
        "heatmaps": lambda: {
            "classifier": network(),
            "pixels": pixels(),
            "targets": torch.tensor([0, 1]),
            "method": "sensitivity",
            "image_ids": ["a", "b"],
            "seed": 0,
        },
        "load_classifier": lambda: {"name": "squeezenet1_1-embedded", "device": "cpu"},
        "load_images": lambda: {"source": pixels(), "limit": 2, "seed": 0, "data": None},
        "operator_table": lambda: {
            "classifier": network(),
            "images": pixels(),
            "method": "sensitivity",
            "protocol": protocol(),
            "fills": ["uniform"],
            "confidence": 0.95,
        },
        "perturb": lambda: {"pixels": pixels(), "removal_step": steps, "fill": pixels(2, 1), "step": 1},
        "randomisation_check": lambda: {
            "classifier": network(),
            "pixels": pixels(),
            "methods": "sensitivity",
            "targets": torch.tensor([0, 1]),
            "shares": (0.0, 1.0),
            "seed": 0,
        },
        "relative_to_random": lambda: {"aopc": curve, "random_aopc": curve.repeat(3, 1, 1)},
        "removal_steps": lambda: {"heatmap": heatmap(), "protocol": protocol(), "order": "morf", "segments": None},
        "study": lambda: {
            "classifier": network(),
            "images": pixels(),
            "methods": "sensitivity",
            "settings": [protocol(), protocol().override(fill="constant:mean")],
            "out": None,
        },
        "score_curves": lambda: {
            "classifier": network(),
            "pixels": pixels(),
            "targets": torch.tensor([0, 1]),
            "removal_step": steps,
            "fill": pixels(2, 1),
            "engine": "auto",
            "steps": 1,
            "batch_size": 16,
            "precision": "float32",
        },
    }


def masks() -> dict[str, torch.Tensor]:
    """Where the object is, by image id."""
    return {"0": heatmap(1)[0] > 100, "1": heatmap(1)[0] < 100}


@cache
def measured_run() -> faithmap.Run:
    """Two images, both orders, values of measures; the heatmaps of both are stored."""
    asked = protocol().override(orders=("morf", "lerf"), points=3, random_draws=2)
    return faithmap.evaluate(
        network(), pixels(4), ["sensitivity", "edge"], asked, measures="gini,pointing-game", masks=masks()
    )


@cache
def measured_study() -> faithmap.Study:
    """Two settings of the same."""
    asked = [protocol().override(orders=("morf", "lerf"), fill=fill) for fill in ("uniform", "constant:mean")]
    return faithmap.study(network(), pixels(4), ["sensitivity", "edge"], asked)


def further_calls() -> dict[str, Callable[[], dict[str, Any]]]:
    """The same for what stands on modules, runs and studies: dotted name → arguments."""
    run, study = measured_run(), measured_study()
    scores = run.scores
    first = next(iter(run.examples(None)))
    by_setting = study.measured
    found: dict[str, Callable[[], dict[str, Any]]] = {
        "Run": lambda: {"folder": run.folder},
        "Study": lambda: {"folder": study.folder},
        "Run.report": lambda: {"self": run, "path": Path(tempfile.mkdtemp()) / "r.html", "examples": 1},
        "Run.figure": lambda: {"self": run, "name": "ranking", "path": None, "compare": ()},
        "Run.flipbook": lambda: {"self": run, "image": "0"},
        "Study.report": lambda: {"self": study, "path": Path(tempfile.mkdtemp()) / "r.html"},
        "Study.figure": lambda: {"self": study, "name": "study"},
        "Images.limit": lambda: {"self": faithmap.load_images(pixels()), "count": 1, "seed": 0},
        "Images.grouped": lambda: {"self": faithmap.load_images(pixels()), "groups": {"0": "a", "1": "a"}},
        "Protocol.preset": lambda: {"name": "srg", "steps": 3, "points": 2, "fill": "blur", "orders": ("morf",)},
        "Protocol.override": lambda: {"self": protocol(), "steps": 3, "segments": None, "target": "label", "seed": 1},
        "Protocol.from_dict": lambda: {"parts": protocol().to_dict()},
        "Classifier.predict": lambda: {"self": network(), "pixels": pixels()},
        "Classifier.to": lambda: {"self": network(), "device": "cpu"},
        "Classifier.label": lambda: {"self": network(), "index": 1},
        "Classifier.class_index": lambda: {"self": network(), "label": 1},
        "Classifier.normalise": lambda: {"self": network(), "pixels": pixels()},
        "attribution.resolve_methods": lambda: {"methods": "fig4", "protocol": protocol(), "on_refusal": "skip"},
        "measures.registry.resolve_measures": lambda: {"measures": "complexity"},
        "measures.masks.load_masks": lambda: {"source": masks(), "category": None},
        "mosaics.mosaics": lambda: {"images": list(testbed().images), "seed": 0},
        "testbeds.shapes": lambda: {"count": 3, "size": 16, "shortcut": False, "seed": 0},
        "testbeds.TestBed.measure": lambda: {"self": testbed(), "methods": "sensitivity", "measures": "pointing-game"},
        "inference.examine": lambda: {"classifier": network(), "size": (SIZE, SIZE), "points": (1, 2), "region": 6},
        "inference.make_engine": lambda: {"classifier": network(), "engine": "dense", "batch_size": 2, "memory": None},
        "perturbation.segment": lambda: {"name": "slic:n=5", "pixels": pixels()[0], "image_id": "0"},
        "perturbation.impute": lambda: {
            "pixels": pixels()[0],
            "removed": masks()["0"],
            "noise": torch.zeros(3, SIZE, SIZE),
        },
        "studies.leaderboard.leaderboard": lambda: {"folder": study.folder},
        "studies.beside.beside": lambda: {"runs": [run, run], "measure": None, "score": None},
        "studies.settings.grid": lambda: {"fills": ["uniform"], "sides": [3, 6]},
        "plots.save": lambda: {"figure": run.plot(), "path": Path(tempfile.mkdtemp()) / "f.png", "dpi": 50},
        "plots.steps": lambda: {
            "pixels": pixels()[0],
            "removal_steps": {"one": run.removal_step(first, "edge")},
            "fill": pixels(1, 3)[0],
            "at": (0, 1),
        },
        "statistics.boundary": lambda: {"fractions": (0.5, 1.0), "level": 0.05},
        "statistics.kendalls_w": lambda: {"scores": torch.rand(3, 4).numpy()},
        "statistics.mean_tau": lambda: {"scores": torch.rand(3, 4).numpy()},
        "statistics.srg": lambda: {"morf": torch.rand(2, 4), "lerf": torch.rand(2, 4), "steps": None},
        "statistics.mean_over_fraction": lambda: {"curve": torch.rand(2, 4), "steps": (0, 1, 3, 9)},
        "statistics.decided": lambda: {"one": run.measured(), "looks": (4,), "at_most": 4, "contrast": "leader"},
        "statistics.measure_table": lambda: {"one": run.measured(), "relative": True},
        "statistics.attainable_fraction": lambda: {"one": run.measured(), "reference": "edge", "resamples": 99},
        "statistics.rank_table": lambda: {"by_setting": by_setting()},
        "statistics.agreement_of_settings": lambda: {"by_setting": by_setting(), "resamples": 9},
        "statistics.measured_from": lambda: {"frame": run.measures(), "measure": "gini", "higher_is_better": True},
    }
    for name in ("aopc", "measured", "ranking", "verdict", "grade", "scorecard", "paper", "plot", "decision"):
        found[f"Run.{name}"] = lambda: {"self": run}
    for name in ("measured", "ranks", "agreement", "grade", "verdict"):
        found[f"Study.{name}"] = lambda: {"self": study}
    tables = ("abpc_table", "aopc_table", "curve_table", "gap_table", "per_image_aopc", "per_image_curves", "r_oms")
    for name in (*tables, "r_oms_table", "agreement", "chosen_images", "compare", "measured", "ranking", "subsets"):
        found[f"statistics.{name}"] = lambda: {"frame": scores()}
    for name in ("headline", "verdict"):
        found[f"statistics.{name}"] = lambda: {"frame": scores()}
    found["statistics.grade"] = lambda: {"frames": scores()}
    for name in ("fig4", "curves", "agreement", "ranking"):
        found[f"plots.{name}"] = lambda: {"frame": scores()}
    return found


@cache
def testbed() -> Any:
    """Images with classes and masks."""
    return faithmap.testbeds.shapes(6, 16)


def function_of(name: str) -> Callable[..., Any]:
    """What a dotted name stands for."""
    for module in ("measures.registry", "measures.masks", "studies.leaderboard", "studies.beside", "studies.settings"):
        import_module(f"faithmap.{module}")
    return attrgetter(name)(faithmap)  # type: ignore[no-any-return]
