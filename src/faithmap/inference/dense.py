"""The full forward pass at every step: slow, simple, and the reference for everything faster."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from faithmap.classifiers import Classifier
from faithmap.errors import EngineWarning
from faithmap.inference.chains import Chains
from faithmap.inference.precision import inference

DEFAULT_BATCH = 128
# Fewer inputs than this take other kernels, which round otherwise; so they are filled up, and no batch size shows.
LEAST = 16


class DenseEngine:
    """Scores (chain × step) batches with the network as it is, in channels_last.

    Args:
        classifier: runs in evaluation mode, without gradients.
        batch_size: inputs a forward pass; halved when the device's memory is exhausted.
        tf32: let a CUDA device round float32 products to TensorFloat-32.
    """

    def __init__(self, classifier: Classifier, batch_size: int = DEFAULT_BATCH, tf32: bool = False) -> None:
        self.classifier = classifier
        self.batch_size = batch_size
        self.tf32 = tf32

    def logits(self, chains: Chains) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """See `Engine.logits`."""
        yield from self.untouched(chains)
        yield from self.removed(chains)

    def removed(self, chains: Chains) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """All scored steps but the first; the last is computed once where several chains end in the same image."""
        # Normalisation acts on each pixel alone, so normalising image and fill once and choosing between them
        # afterwards gives the same numbers, bit for bit, as normalising every perturbed image.
        device, dtype = chains.pixels.device, self.classifier.dtype
        images, fills = (
            self.classifier.normalise(t).to(dtype).permute(0, 2, 3, 1).contiguous()
            for t in (chains.pixels, chains.fill)
        )
        # A pixel that is never removed counts as removed after the last step.
        removal_step = torch.where(chains.removal_step > 0, chains.removal_step, chains.steps + 1).unsqueeze(-1)

        last, batch = chains.scored[-1], self.batch_size
        alike = _end_alike(chains)
        chain_of, step_of = _pairs(chains, alike)
        buffer = torch.empty((min(batch, len(step_of)), *images.shape[1:]), dtype=dtype, device=device)
        for start in range(0, len(step_of), batch):
            chain, step = chain_of[start : start + batch], step_of[start : start + batch]
            inputs = buffer[: len(step)]
            # A run of steps of one chain is one vectorised choice.
            for one, count in zip(*torch.unique_consecutive(chain, return_counts=True), strict=True):
                rows = slice(int((chain < one).sum()), int((chain < one).sum() + count))
                torch.where(
                    removal_step[one] <= step[rows].view(-1, 1, 1, 1),
                    fills[chains.fill_index[one]],
                    images[chains.image[one]],
                    out=inputs[rows],
                )
            logits = self.forward(inputs)
            yield chain, step, logits
            row = torch.full_like(alike, -1)  # of the logits of a chain's last step, where they are among these
            row[chain[step == last]] = (step == last).nonzero().squeeze(1)
            others = ((row < 0) & (row[alike] >= 0)).nonzero().squeeze(1)
            if len(others):
                yield others, torch.full_like(others, last), logits[row[alike[others]]]

    def untouched(self, chains: Chains) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Step 0, computed once an image and yielded for each of its chains."""
        images, image = torch.unique(chains.image, return_inverse=True)
        batch = self.batch_size
        for start in range(0, len(images), batch):
            pixels = self.classifier.normalise(chains.pixels[images[start : start + batch]]).to(self.classifier.dtype)
            logits = self.forward(pixels.permute(0, 2, 3, 1).contiguous())
            chain = ((image >= start) & (image < start + batch)).nonzero().squeeze(1)
            yield chain, torch.zeros_like(chain), logits[image[chain] - start]

    def at(self, chains: Chains, pairs: Sequence[tuple[int, int]]) -> Tensor:
        """Logits of some (chain, step) pairs, (pairs, classes)."""
        inputs = []
        for chain, step in pairs:
            removal_step = chains.removal_step[chain]
            removed = (removal_step > 0) & (removal_step <= step)
            image, fill = chains.pixels[chains.image[chain]], chains.fill[chains.fill_index[chain]]
            inputs.append(torch.where(removed, fill, image))
        normalised = self.classifier.normalise(torch.stack(inputs)).to(self.classifier.dtype)
        return self.forward(normalised.permute(0, 2, 3, 1).contiguous())

    def forward(self, inputs: Tensor) -> Tensor:
        """NHWC inputs → logits; in halves when the device's memory is exhausted."""
        if len(inputs) > self.batch_size:
            return torch.cat([self.forward(part) for part in torch.split(inputs, self.batch_size)])
        version = None if inputs.is_inference() else inputs._version
        try:
            with inference(self.tf32):
                # A permuted NHWC buffer is what PyTorch calls channels_last.
                logits: Tensor = self.classifier.logits(whole(inputs).permute(0, 3, 1, 2))
            return logits[: len(inputs)]
        except torch.cuda.OutOfMemoryError:
            # A network that works in place has perhaps spoilt what it was given.
            if len(inputs) <= LEAST or version is None or inputs._version != version:
                raise
        self.batch_size = max(1, len(inputs) // 2)
        text = f"out of memory: going on with {self.batch_size} inputs a forward pass."
        warnings.warn(text, EngineWarning, stacklevel=2)
        return self.forward(inputs)


def _pairs(chains: Chains, alike: Tensor) -> tuple[Tensor, Tensor]:
    """(chain, step) of all scores but those of step 0, and of last steps that `alike` leaves to another chain."""
    device = chains.image.device
    wanted = torch.ones((len(chains), len(chains.scored) - 1), dtype=torch.bool, device=device)
    wanted[:, -1:] = (alike == torch.arange(len(chains), device=device)).unsqueeze(1)
    chain, column = wanted.nonzero(as_tuple=True)
    return chain, torch.tensor(chains.scored[1:], dtype=torch.int64, device=device)[column]


def _end_alike(chains: Chains) -> Tensor:
    """For every chain the first one whose image at the last scored step is the same, (B,)."""
    seen: dict[tuple[int, int], list[int]] = {}
    removed = (chains.removal_step > 0) & (chains.removal_step <= chains.scored[-1])
    first = []
    for row, key in enumerate(zip(chains.image.tolist(), chains.fill_index.tolist(), strict=True)):
        others = seen.setdefault(key, [])
        first.append(next((other for other in others if torch.equal(removed[other], removed[row])), row))
        if first[-1] == row:
            others.append(row)
    return torch.tensor(first, dtype=torch.int64, device=chains.image.device)


def whole(inputs: Tensor) -> Tensor:
    """Inputs filled up to a multiple of `LEAST` by repeating the last."""
    lacking = -len(inputs) % LEAST
    return torch.cat([inputs, inputs[-1:].expand(lacking, *inputs.shape[1:])]) if lacking else inputs
