"""Chains whose replacement values depend on which pixels are left: every x⁽ᵏ⁾ is scored as an image of its own."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor

from faithmap.inference.chains import Chains, Engine
from faithmap.perturbation import imputed_steps

BLOCK = 128


class ImputedEngine:
    """Imputes every x⁽ᵏ⁾ and hands it to another engine as an untouched image (step 0 of a chain without steps)."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.classifier = engine.classifier

    def logits(self, chains: Chains) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """See `Engine.logits`."""
        images = _images(chains)
        while block := list(islice(images, BLOCK)):
            chain, step = (torch.tensor([one[i] for one in block], device=chains.pixels.device) for i in (0, 1))
            pixels = torch.stack([image for _, _, image in block])
            rows = torch.arange(len(block), device=pixels.device)
            untouched = Chains(
                pixels=pixels,
                fill=pixels,
                image=rows,
                fill_index=rows,
                removal_step=torch.zeros((len(block), *pixels.shape[-2:]), dtype=torch.int32, device=pixels.device),
                targets=chains.targets[chain],
                steps=0,
            )
            for row, _, logits in self.engine.logits(untouched):
                yield chain[row], step[row], logits


def _images(chains: Chains) -> Iterator[tuple[int, int, Tensor]]:
    """(chain, step, x⁽ᵏ⁾) for every chain and scored step."""
    for chain in range(len(chains)):
        pixels = chains.pixels[chains.image[chain]]
        noise = chains.fill[chains.fill_index[chain]]
        at = chains.removal_step[chain]
        if chains.imputer is None:
            images = imputed_steps(pixels, at, noise, chains.scored)
        else:
            images = (chains.imputer(pixels, (at > 0) & (at <= k)) if k else pixels for k in chains.scored)
        for step, image in zip(chains.scored, images, strict=True):
            yield chain, step, image
