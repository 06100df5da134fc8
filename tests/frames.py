"""Frames as `Run.scores()` gives them, made up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

METHODS = {
    "lrp-epsilon:0": 0.050,
    "lrp-epsilon:0.01": 0.051,
    "lrp-epsilon:100": 0.046,
    "deconvolution:l2": 0.027,
    "deconvolution:linf": 0.029,
    "sensitivity:l2": 0.034,
    "sensitivity:linf": 0.032,
    "random": 0.015,
}


def frame_of(
    images: int = 30,
    draws: int = 2,
    steps: int = 20,
    methods: Mapping[str, float] = METHODS,
    orders: Sequence[str] = ("morf",),
    seed: int = 0,
) -> pd.DataFrame:
    """Scores that fall the faster the higher a method's rate; every fourth image has a clean name."""
    rng = np.random.default_rng(seed)
    k = np.arange(steps + 1)
    names = [f"n0{i % 5}/{'ILSVRC2012_val_' if i % 4 == 0 else 'n01440764_'}{i:05d}.JPEG" for i in range(images)]
    start, hardness = rng.gamma(6, 2, images), rng.lognormal(0, 0.5, images)
    parts = []
    for order in orders:
        for method, rate in methods.items():
            own = hardness * rng.lognormal(0, 0.2, images) * (rate if order == "morf" else 0.0002 / rate)
            for draw in range(draws):
                logit = start[:, None] * np.exp(-own[:, None] * k * 100 / steps) + rng.normal(
                    0, 0.1, (images, steps + 1)
                )
                logit[:, 0] = start
                parts.append(
                    pd.DataFrame(
                        {
                            "image": np.repeat(names, steps + 1),
                            "label": pd.array(np.repeat(np.arange(images) % 5, steps + 1), dtype="Int32"),
                            "predicted": np.repeat(
                                np.where(np.arange(images) % 3 == 0, 0, np.arange(images) % 5), steps + 1
                            ),
                            "target": np.int32(0),
                            "method": method,
                            "order": order,
                            "draw": np.int16(draw),
                            "step": np.tile(k.astype(np.int16), images),
                            "logit": logit.ravel().astype(np.float32),
                            "probability": (1 / (1 + np.exp(4 - logit.ravel()))).astype(np.float32),
                        }
                    )
                )
    return pd.concat(parts, ignore_index=True)


def frame_from(aopc: Mapping[str, Sequence[float]], images: Sequence[str] | None = None) -> pd.DataFrame:
    """A frame of one step in which AOPC at step 1 is what is given: f0 − f1 = 2 AOPC."""
    count = len(next(iter(aopc.values())))
    names = [f"{i:03d}.png" for i in range(count)] if images is None else list(images)
    rows = [
        (image, pd.NA, 0, 0, method, "morf", 0, step, float(-2 * step * value))
        for method, values in aopc.items()
        for image, value in zip(names, values, strict=True)
        for step in (0, 1)
    ]
    columns = ["image", "label", "predicted", "target", "method", "order", "draw", "step", "logit"]
    frame = pd.DataFrame(rows, columns=columns).astype({"label": "Int32"})
    return frame.assign(probability=frame["logit"])


def grouped_frame(
    effects: Mapping[str, float], groups: int = 12, images: int = 4, icc: float = 0.4, seed: int = 0
) -> pd.DataFrame:
    """A frame of one step whose images share a part of each method's AOPC with their group."""
    rng = np.random.default_rng(seed)
    count = groups * images
    own = {
        name: effect
        + np.sqrt(icc) * np.repeat(rng.normal(size=groups), images)
        + np.sqrt(1 - icc) * rng.normal(size=count)
        for name, effect in effects.items()
    }
    names = [f"{g:03d}/{i}.png" for g in range(groups) for i in range(images)]
    return frame_from(own, names).assign(group=lambda f: f["image"].str[:3])
