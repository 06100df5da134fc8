"""The full forward pass at every step: slow, simple, and the reference for everything faster."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from faithmap.classifiers import CUSTOM, Classifier, kind_of
from faithmap.errors import EngineWarning
from faithmap.inference.chains import Chains
from faithmap.inference.precision import inference

# Inputs a forward pass: more do not make it faster, and on a CPU the maps of fewer stay near its cache.
DEFAULT_BATCH = {"cpu": 32, "device": 128}
# Small batches use kernels that round differently, so batches are padded to this size.
LEAST = 16


class DenseEngine:
    """Scores (chain × step) batches with the network as it is, in channels_last.

    Args:
        classifier: runs in evaluation mode, without gradients.
        batch_size: inputs a forward pass, halved when the device's memory is exhausted; None decides by the memory and
            the size of the images.
        memory: bytes that a forward pass may take; by default what is free.
        tf32: let a CUDA device round float32 products to TensorFloat-32.
    """

    def __init__(
        self, classifier: Classifier, batch_size: int | None = None, *, memory: int | None = None, tf32: bool = False
    ) -> None:
        self.classifier = classifier
        self.memory = memory
        self.asked_batch_size = batch_size
        self.batch_size = batch_size or DEFAULT_BATCH[kind_of(classifier.device)]
        self.tf32 = tf32
        self.network: Callable[[Tensor], Any] = classifier.outputs

    def running(self, network: Callable[[Tensor], Any]) -> DenseEngine:
        """The same with another network, which must be equal to the classifier's, bit for bit."""
        other = DenseEngine(self.classifier, self.asked_batch_size, memory=self.memory, tf32=self.tf32)
        other.network = network
        return other

    def logits(self, chains: Chains) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """See `Engine.logits`."""
        yield from self.untouched(chains)
        yield from self.removed(chains)

    def removed(self, chains: Chains) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """All scored steps but the first; the last is computed once where several chains end in the same image."""
        # Normalisation acts on each pixel alone, so normalising image and fill once and choosing between them
        # afterwards gives the same numbers, bit for bit, as normalising every perturbed image.
        device, dtype = chains.pixels.device, self.classifier.dtype
        self._fit(chains.pixels)
        images, fills = (
            self.classifier.normalise(t).to(dtype).permute(0, 2, 3, 1).contiguous()
            for t in (chains.pixels, chains.fill)
        )
        # A pixel that is never removed counts as removed after the last step.
        removal_step = torch.where(chains.removal_step > 0, chains.removal_step, chains.steps + 1).unsqueeze(-1)

        last, batch = chains.scored[-1], self.batch_size
        # A score function looks at the target, too; logits are those of all classes.
        by_target = self.classifier.score_kind == CUSTOM
        alike = _end_alike(chains, chains.targets if by_target else torch.zeros_like(chains.targets))
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
            logits = self.forward(inputs, chains.targets[chain])
            yield chain, step, logits
            row = torch.full_like(alike, -1)  # of the logits of a chain's last step, where they are among these
            row[chain[step == last]] = (step == last).nonzero().squeeze(1)
            others = ((row < 0) & (row[alike] >= 0)).nonzero().squeeze(1)
            if len(others):
                yield others, torch.full_like(others, last), logits[row[alike[others]]]

    def _fit(self, pixels: Tensor) -> None:
        """Choose the batch size for images of this size, unless it was asked for."""
        if self.asked_batch_size is None:
            self.batch_size = min(self.batch_size, default_batch(pixels, self.memory))

    def untouched(self, chains: Chains) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Step 0, computed once an image and yielded for each of its chains."""
        self._fit(chains.pixels)
        # A score function looks at the target, too.
        classes = int(chains.targets.max()) + 1 if self.classifier.score_kind == CUSTOM and len(chains) else 1
        keys, image = torch.unique(chains.image * classes + chains.targets % classes, return_inverse=True)
        images, targets, batch = keys // classes, keys % classes, self.batch_size
        for start in range(0, len(images), batch):
            some = slice(start, start + batch)
            pixels = self.classifier.normalise(chains.pixels[images[some]]).to(self.classifier.dtype)
            logits = self.forward(pixels.permute(0, 2, 3, 1).contiguous(), targets[some])
            chain = ((image >= start) & (image < start + batch)).nonzero().squeeze(1)
            yield chain, torch.zeros_like(chain), logits[image[chain] - start]

    def at(self, chains: Chains, pairs: Sequence[tuple[int, int]]) -> Tensor:
        """Logits of some (chain, step) pairs, (pairs, classes), or their scores (pairs, 1); see `Engine.logits`."""
        self._fit(chains.pixels)
        inputs = []
        for chain, step in pairs:
            removal_step = chains.removal_step[chain]
            removed = (removal_step > 0) & (removal_step <= step)
            image, fill = chains.pixels[chains.image[chain]], chains.fill[chains.fill_index[chain]]
            inputs.append(torch.where(removed, fill, image))
        normalised = self.classifier.normalise(torch.stack(inputs)).to(self.classifier.dtype)
        targets = torch.stack([chains.targets[chain] for chain, _ in pairs])
        return self.forward(normalised.permute(0, 2, 3, 1).contiguous(), targets)

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """NHWC inputs → logits, or scores (rows, 1) of a score function; in halves when memory is exhausted."""
        if len(inputs) > self.batch_size:
            parts = (torch.split(one, self.batch_size) for one in (inputs, targets))
            return torch.cat([self.forward(*some) for some in zip(*parts, strict=True)])
        version = None if inputs.is_inference() else inputs._version
        try:
            with inference(self.tf32):
                # A permuted NHWC buffer is what PyTorch calls channels_last.
                outputs = self.network(whole(inputs).permute(0, 3, 1, 2))
                if self.classifier.score_kind == CUSTOM:
                    outputs = self.classifier.scores(outputs, whole(targets)).unsqueeze(1)
            logits: Tensor = outputs[: len(inputs)]
            return logits
        except torch.cuda.OutOfMemoryError:
            # A network that works in place has perhaps spoilt what it was given.
            if len(inputs) <= LEAST or version is None or inputs._version != version:
                raise
        self.batch_size = max(1, len(inputs) // 2)
        text = f"out of memory: going on with {self.batch_size} inputs a forward pass."
        warnings.warn(text, EngineWarning, stacklevel=2)
        return self.forward(inputs, targets)


def default_batch(pixels: Float[Tensor, "batch channels height width"], memory: int | None = None) -> int:
    """Inputs per forward pass that the memory allows, at most `DEFAULT_BATCH`, in multiples of 16.

    On its way through a network an image takes less than a hundred times its own size (VGG: about forty).

    Args:
        memory: in bytes; by default what is free.
    """
    fits = (free_memory(pixels.device) if memory is None else memory) // (100 * math.prod(pixels.shape[1:]) * 4)
    return max(LEAST, min(DEFAULT_BATCH[kind_of(pixels.device)], fits // LEAST * LEAST))


def free_memory(device: torch.device) -> int:
    """Bytes that can be allocated on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    found = []
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        found += [int(line.split()[1]) * 1024 for line in meminfo.read_text().splitlines() if "MemAvailable" in line]
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    with suppress(OSError, ValueError):  # no such file, or "max"
        found.append(int(limit.read_text()) - int(used.read_text()))
    return min(found) if found else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _pairs(chains: Chains, alike: Tensor) -> tuple[Tensor, Tensor]:
    """(chain, step) of all scores but those of step 0, and of last steps that `alike` leaves to another chain."""
    device = chains.image.device
    wanted = torch.ones((len(chains), len(chains.scored) - 1), dtype=torch.bool, device=device)
    wanted[:, -1:] = (alike == torch.arange(len(chains), device=device)).unsqueeze(1)
    chain, column = wanted.nonzero(as_tuple=True)
    return chain, torch.tensor(chains.scored[1:], dtype=torch.int64, device=device)[column]


def _end_alike(chains: Chains, kinds: Tensor) -> Tensor:
    """For every chain the first one of its kind whose image at the last scored step is the same, (B,)."""
    seen: dict[tuple[int, ...], list[int]] = {}
    removed = (chains.removal_step > 0) & (chains.removal_step <= chains.scored[-1])
    first = []
    # How many pixels are removed, and where on average: equal for equal images, and cheaper to compare.
    places = [
        (removed.sum(axis) * torch.arange(removed.shape[3 - axis], device=removed.device)).sum(1) for axis in (1, 2)
    ]
    about = (chains.image, chains.fill_index, kinds, removed.sum((1, 2)), *places)
    for row, key in enumerate(zip(*(one.tolist() for one in about), strict=True)):
        others = seen.setdefault(key, [])
        first.append(next((other for other in others if torch.equal(removed[other], removed[row])), row))
        if first[-1] == row:
            others.append(row)
    return torch.tensor(first, dtype=torch.int64, device=chains.image.device)


def whole(inputs: Tensor, least: int = LEAST) -> Tensor:
    """Inputs filled up to a multiple of `least` by repeating the last."""
    lacking = -len(inputs) % least
    return torch.cat([inputs, inputs[-1:].expand(lacking, *inputs.shape[1:])]) if lacking else inputs
