"""Networks whose right heatmap is known, because their weights were made by hand: a ruler for rulers.

Every image shows a coloured shape on a tinted background. Shape and tint agree, so that two networks give the same
classes for different reasons: one sees the shape alone, the other (a shortcut) the background alone. What the rest of
the image holds does not change a logit by one bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from faithmap.arguments import LARGEST_SEED, checked
from faithmap.attribution import Batch, resolve_methods
from faithmap.checks import as_integer, check_flag
from faithmap.classifiers import Classifier
from faithmap.errors import InputError
from faithmap.images import Images, Preprocessing, TensorImage
from faithmap.measures.compute import compute_measures, value_frame
from faithmap.measures.registry import resolve_measures
from faithmap.measures.subject import Subject, heatmaps_by_row
from faithmap.modes import in_own_modes, plain_defaults
from faithmap.randomness import generator

CLASSES = ("red", "green", "blue")
SATURATED, TINT = 0.9, 0.15
"""How far the colour of a shape, and of the background, stands out from the mean of the two others."""


@dataclass(frozen=True)
class TestBed:
    """A network with images and the truth.

    Attributes:
        classifier: three classes, `CLASSES`.
        images: with their classes as labels.
        masks: image id → the pixels that decide, (H, W).
        objects: image id → the pixels of the shape, (H, W); the same as `masks` unless the network takes the shortcut.
    """

    __test__ = False  # not a test of pytest
    classifier: Classifier
    images: Images
    masks: Mapping[str, Bool[Tensor, "height width"]]
    objects: Mapping[str, Bool[Tensor, "height width"]]

    @in_own_modes
    def measure(self, methods: Any, measures: Any = "localisation", seed: int = 0) -> pd.DataFrame:
        """Methods by measures against the truth, on all images.

        Args:
            methods, measures: as in `evaluate`.
            seed: of methods and measures with randomness.
        Returns:
            Columns image, group, method, measure, draw, value.
        """
        seed = as_integer(seed, "seed", 0, LARGEST_SEED)
        pixels = torch.stack([image.read(self.classifier.preprocessing) for image in self.images])
        ids = [image.id for image in self.images]
        subject = Subject(self.classifier, pixels, self.classifier.predict(pixels), ids, seed, masks=self.masks)
        batch = Batch.of(self.classifier, pixels, subject.targets, ids, seed)
        asked = resolve_methods(methods)
        heatmaps = {
            method.name: {row: one for row, one in enumerate(heatmaps_by_row(method, batch)) if isinstance(one, Tensor)}
            for method in asked
            if not method.is_random
        }
        return value_frame(compute_measures(subject, asked, heatmaps, resolve_measures(measures))[0])


@checked()
def shapes(count: int = 24, size: int = 64, *, shortcut: bool = False, seed: int = 0) -> TestBed:
    """The test bed of coloured shapes.

    Args:
        count: images.
        size: their side, in pixels, a multiple of 4.
        shortcut: take the network that looks at the background alone.
        seed: of the images.
    """
    count, size = as_integer(count, "count", 1, 1_000_000), as_integer(size, "size", 8, 4096)
    check_flag(shortcut, "shortcut")
    if size % 4:
        raise InputError(f"size is {size}: give a multiple of 4.")
    with plain_defaults():
        network = handmade(shortcut)
    classifier = Classifier(
        network,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        labels=CLASSES,
        preprocessing=Preprocessing(crop=(size, size), resize=None),
        name="background" if shortcut else "shape",
    )
    items, objects = [], {}
    for at in range(count):
        name = f"shape-{at:03d}"
        pixels, mask = picture(size, at % len(CLASSES), generator("test bed", seed, name))
        items.append(TensorImage(name, pixels, CLASSES[at % len(CLASSES)]))
        objects[name] = mask
    masks = {name: ~mask if shortcut else mask for name, mask in objects.items()}
    return TestBed(classifier, Images("shapes", items), masks, objects)


def picture(
    size: int, target: int, random: np.random.Generator
) -> tuple[Float[Tensor, "3 height width"], Bool[Tensor, "height width"]]:
    """An image of a class, and the pixels of its shape: a square or a disc at a random place."""
    side = int(random.integers(size // 5, size // 3))
    top, left = (int(value) for value in random.integers(0, size - side, 2))
    y, x = torch.arange(size).unsqueeze(1) - top, torch.arange(size) - left
    inside = (y >= 0) & (y < side) & (x >= 0) & (x < side)
    if random.random() < 0.5:
        inside &= (y - (side - 1) / 2).square() + (x - (side - 1) / 2).square() <= (side / 2) ** 2
    grey = torch.from_numpy(random.uniform(0.2, 0.8, (size, size))).float()
    pixels = grey.expand(3, size, size).clone()
    pixels[target] += TINT
    shape = torch.full((3,), 0.05)
    shape[target] += SATURATED
    return torch.where(inside, shape.view(3, 1, 1), pixels), inside


def handmade(shortcut: bool = False) -> nn.Sequential:
    """colour → how much it stands out → a detector per class → mean over places → logits.

    A pixel's colour c stands out by s = c − mean of the two other channels: 0.9 on the shape, 0.15 on the background,
    below 0 for the other classes. The shape's network keeps relu(s − 0.5). The shortcut keeps what lies between:
    relu(relu(s − 0.05) − 4 relu(s − 0.3)), which is 0 on the shape.
    """
    stands_out = 1.5 * torch.eye(3) - 0.5  # c − mean of the others
    first, second = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 3, 1, bias=False)
    pool, head = nn.Conv2d(3, 3, 4, stride=4, groups=3, bias=False), nn.Linear(3, 3, bias=False)
    low, high = (0.05, 0.3) if shortcut else (0.5, 2.0)
    with torch.no_grad():
        # Inputs are normalised: x = (c − 0.5) / 0.5, and s does not depend on what all channels share.
        first.weight.copy_(0.5 * stands_out.repeat(2, 1)[:, :, None, None])
        first.bias = nn.Parameter(torch.tensor([-low] * 3 + [-high] * 3))
        second.weight.copy_(torch.cat([torch.eye(3), -4 * torch.eye(3)], 1)[:, :, None, None])
        pool.weight.fill_(1 / 16)
        head.weight.copy_(100 * torch.eye(3))
    return nn.Sequential(
        first, nn.ReLU(), second, nn.ReLU(), pool, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head
    )
