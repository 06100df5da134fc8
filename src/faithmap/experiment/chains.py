"""From removal steps and fills to the chains that an engine scores, and from scores to rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from faithmap.experiment.block import Block, RemovalSteps
from faithmap.experiment.task import ChainKey, Experiment
from faithmap.inference import Chains
from faithmap.perturbation import chain_fill, chain_removal_step, imputer_of, is_dropped, is_imputed, perturb
from faithmap.protocol import RANDOM, Direction


@dataclass(frozen=True)
class BlockChain:
    """One chain of a block: the row of its image, what it is, and its removal steps."""

    row: int
    key: ChainKey
    removal_step: Tensor


def chains_of_draw(
    experiment: Experiment, block: Block, keys: Sequence[ChainKey], removal_steps: RemovalSteps
) -> list[BlockChain]:
    """All chains of one draw that have an order; random orders are drawn here."""
    found = []
    for row, name in enumerate(block.ids):
        segments = None if block.segments is None else block.segments[row].cpu()
        for key in keys:
            if key.method == RANDOM:
                steps = chain_removal_step(
                    experiment.protocol,
                    None,
                    block.pixels[row].cpu(),
                    image_id=name,
                    order=key.order,
                    draw=key.draw,
                    segments=segments,
                )
                found.append(BlockChain(row, key, steps.to(block.pixels.device)))
            elif row in removal_steps.get((key.method, key.order), {}):
                found.append(BlockChain(row, key, removal_steps[key.method, key.order][row]))
    return found


def engine_chains(experiment: Experiment, block: Block, chains: Sequence[BlockChain], steps: Sequence[int]) -> Chains:
    """What the engine receives: images, fills and removal steps, from the step before the first missing one on."""
    protocol, device = experiment.protocol, block.pixels.device
    # Chains that share their fill share its place, so that step 0 is computed once for them.
    places: dict[tuple[int, str | None], int] = {}
    fills: list[Tensor] = []
    fill_index = []
    for chain in chains:
        shared = (chain.row, None if protocol.paired_fill else chain.key.method)
        if shared not in places:
            places[shared] = len(fills)
            fills.append(
                chain_fill(
                    protocol,
                    block.pixels[chain.row],
                    image_id=block.ids[chain.row],
                    draw=chain.key.draw,
                    method=chain.key.method,
                    others=experiment.others,
                )
            )
        fill_index.append(places[shared])
    image = torch.tensor([chain.row for chain in chains], device=device)
    whole = Chains(
        pixels=block.pixels,
        fill=torch.stack(fills).to(device),
        image=image,
        fill_index=torch.tensor(fill_index, device=device),
        removal_step=torch.stack([chain.removal_step for chain in chains]),
        targets=block.targets[image],
        steps=steps[-1],
        points=tuple(steps) if steps[0] == 0 else (0, *steps),
        imputed=is_imputed(protocol.fill),
        imputer=imputer_of(protocol.fill),
        dropped=is_dropped(protocol.fill),
        restore=protocol.direction is Direction.RESTORE,
    )
    return whole if steps[0] == 0 else resumed(whole, steps[0] - 1)


def resumed(chains: Chains, done: int) -> Chains:
    """The same chains from step `done` on, each with its own image; imputed and dropped ones start anew."""
    rows = torch.arange(len(chains), device=chains.image.device)
    pixels, fill, removal_step = chains.pixels[chains.image], chains.fill[chains.fill_index], chains.removal_step
    chains = replace(chains, pixels=pixels, fill=fill, image=rows, fill_index=rows)
    if chains.imputed or chains.dropped:
        return chains
    left = (removal_step - done).clamp(min=0)
    points = (0, *(step - done for step in chains.scored[1:]))
    chains = replace(chains, removal_step=left, steps=chains.steps - done, points=points)
    return (
        replace(chains, fill=perturb(fill, removal_step, pixels, done))
        if chains.restore
        else replace(chains, pixels=perturb(pixels, removal_step, fill, done))
    )


def score_frame(
    block: Block,
    chains: Sequence[BlockChain],
    steps: Sequence[int],
    logit: np.ndarray[tuple[int, int], np.dtype[np.float32]],
    probability: np.ndarray[tuple[int, int], np.dtype[np.float32]],
) -> pd.DataFrame:
    """One row per score: image, group, label, predicted, target, method, order, draw, step, logit, probability."""
    points = len(steps)
    rows = [chain.row for chain in chains]
    predicted, targets = block.predicted.tolist(), block.targets.tolist()
    return pd.DataFrame(
        {
            "image": np.repeat(np.array([block.ids[row] for row in rows], dtype=object), points),
            "group": np.repeat(np.array([block.groups[row] for row in rows], dtype=object), points),
            "label": pd.array([block.labels[row] for row in rows], dtype="Int32").repeat(points),
            "predicted": np.repeat(np.array([predicted[row] for row in rows], dtype=np.int32), points),
            "target": np.repeat(np.array([targets[row] for row in rows], dtype=np.int32), points),
            "method": np.repeat(np.array([chain.key.method for chain in chains], dtype=object), points),
            "order": np.repeat(np.array([chain.key.order for chain in chains], dtype=object), points),
            "draw": np.repeat(np.array([chain.key.draw for chain in chains], dtype=np.int16), points),
            "step": np.tile(np.array(steps, dtype=np.int16), len(rows)),
            "logit": logit.reshape(-1).astype(np.float32),
            "probability": probability.reshape(-1).astype(np.float32),
        }
    )
