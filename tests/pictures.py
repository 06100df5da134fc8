"""Small pictures of all figures, to be compared with the stored ones; `python -m tests.pictures` writes them again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch

from faithmap import plots, statistics
from faithmap.store.records import Example
from tests.frames import frame_of

STORED = Path(__file__).parent / "fixtures" / "figures"
DPI = 45


def examples(frame: pd.DataFrame) -> list[Example]:
    """Smooth made-up photos and maps."""
    ramp = torch.linspace(0, 1, 48)
    found = []
    for i, image in enumerate(statistics.chosen_images(frame).values()):
        pixels = torch.stack([ramp.expand(48, 48), ramp.flip(0)[:, None].expand(48, 48), torch.full((48, 48), 0.3 * i)])
        wave = torch.sin((2 + i) * 3.1 * ramp)[:, None] * torch.cos(6.2 * ramp)
        found.append(Example(image, pixels, 2, 1, 1, {"lrp-epsilon:0": wave, "sensitivity:l2": wave.abs()}))
    return found


def drawings() -> dict[str, Callable[[], Any]]:
    """Name → a function that draws it."""
    frame = frame_of(orders=("morf", "lerf"))
    names = ["grad-cam", "lrp-epsilon:0.01", "sensitivity:l2", "random"]
    places = [(1, 2), (1, 2), (2, 1), (1, 2)]
    ranks = [
        (f"setting {s}", name, k)
        for s, first in enumerate(places)
        for name, k in zip(names, (*first, 3, 4), strict=True)
    ]
    kinds = (("srg", 2.0, False), ("size", 30.0, None))
    card = [(name, kind, (k + 1) * unit, good) for k, name in enumerate(names) for kind, unit, good in kinds]
    grade = [("between images", "", 0.9, 0.8, 0.97, "good"), ("per image", "", 0.3, 0.1, 0.5, "poor")]
    grades = pd.DataFrame(grade, columns=["property", "setting", "value", "low", "high", "grade"])
    stored = examples(frame)
    steps = {name: (1 + 20 * torch.arange(48 * 48).view(48, 48) / 48**2).int() for name in ("lrp-epsilon:0", "random")}
    steps["random"] = steps["random"].T
    return {
        "fig4": lambda: plots.fig4(frame),
        "fig4-wide": lambda: plots.fig4(frame, style="wide", measure="srg"),
        "curves": lambda: plots.curves(frame, bands="all"),
        "ranking": lambda: plots.ranking(frame),
        "agreement": lambda: plots.agreement(frame),
        "study": lambda: plots.study(pd.DataFrame(ranks, columns=["setting", "method", "rank"])),
        "scorecard": lambda: plots.scorecard(
            pd.DataFrame(card, columns=["method", "measure", "mean", "higher_is_better"])
        ),
        "reliability": lambda: plots.reliability(grades),
        "heatmaps": lambda: plots.heatmaps(frame, stored),
        "steps": lambda: plots.steps(stored[0].pixels, steps, torch.zeros(3, 48, 48), (0, 5, 20)),
    }


def picture(draw: Callable[[], Any], path: Path) -> np.ndarray:
    """A figure as grey and colour levels (H, W, 3)."""
    from matplotlib import pyplot
    from PIL import Image

    mpl.use("agg")
    plots.save(draw(), path, dpi=DPI)
    pyplot.close("all")
    with Image.open(path) as opened:
        return np.asarray(opened.convert("RGB"), dtype=float)


if __name__ == "__main__":
    STORED.mkdir(parents=True, exist_ok=True)
    for name, draw in drawings().items():
        picture(draw, STORED / f"{name}.png")
