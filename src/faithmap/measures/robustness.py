"""Robustness: how much a heatmap changes when the image hardly does."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from faithmap.attribution import Batch, Method
from faithmap.declarations import Parameter, integer, number
from faithmap.errors import MethodError
from faithmap.measures.measure import measure
from faithmap.measures.subject import Subject, heatmaps_of_methods

# Images whose noisy copies are explained together; all of them would take much memory.
IMAGES = 8


@measure(
    "max-sensitivity",
    line="largest change of the heatmap, relative to its norm, under small uniform noise in pixel space",
    source="Yeh et al. 2019",
    set="robustness",
    needs="method",
    higher_is_better=False,
    unit="relative change",
    parameters={"n": Parameter(10, integer(low=1)), "radius": Parameter(0.02, number(low=1e-6, high=1.0))},
    drawn=True,
    heatmaps=("n",),
)
def max_sensitivity_of_methods(
    subject: Subject, maps: Mapping[Method, Mapping[int, Tensor]], *, n: int, radius: float
) -> dict[tuple[str, int], float | str]:
    """Largest ‖Φ(x + δ) − Φ(x)‖ / ‖Φ(x)‖ over n draws of δ, uniform within ± `radius`; pixels stay within [0, 1].

    The class that is explained stays that of the untouched image.
    """
    found: dict[tuple[str, int], float | str] = {}
    for start in range(0, len(subject), IMAGES):
        rows = range(start, min(start + IMAGES, len(subject)))
        noisy = torch.cat([noisy_copies(subject, row, n, radius) for row in rows])
        targets = subject.targets[list(rows)].repeat_interleave(n)
        ids = [subject.ids[row] for row in rows for _ in range(n)]
        batch = Batch.of(subject.classifier, noisy, targets, ids, subject.seed)
        every = heatmaps_of_methods(list(maps), batch)
        for method, heatmaps in maps.items():
            copies = every[method]
            if isinstance(copies, MethodError):
                raise copies
            for place, row in enumerate(rows):
                if row in heatmaps:
                    mine = copies[place * n : (place + 1) * n]
                    failed = next((str(one) for one in mine if not isinstance(one, Tensor)), None)
                    found[method.name, row] = failed or float(
                        max_sensitivity(heatmaps[row], torch.stack([one for one in mine if isinstance(one, Tensor)]))
                    )
    return found


def max_sensitivity(
    heatmap: Float[Tensor, "height width"], noisy: Float[Tensor, "draws height width"]
) -> Float[Tensor, ""]:
    """max ‖Φ(x + δ) − Φ(x)‖ / ‖Φ(x)‖, Frobenius norms; NaN for a heatmap of zeros."""
    scale = heatmap.abs().max().double()
    change = ((noisy.double() - heatmap.double()) / scale).flatten(1).norm(dim=1)
    largest: Tensor = change.max() / (heatmap.double() / scale).norm()
    return largest


def noisy_copies(subject: Subject, row: int, n: int, radius: float) -> Float[Tensor, "draws channels height width"]:
    """n copies of an image with uniform noise, clamped to [0, 1]."""
    pixels = subject.pixels[row]
    noise = subject.generator("max-sensitivity", row).uniform(-radius, radius, (n, *pixels.shape))
    return (pixels + torch.from_numpy(noise).to(pixels)).clamp(0, 1)
