"""From removal steps and fills to the chains that an engine scores, and from scores to rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from faithmap.experiment.block import Block, Orders
from faithmap.experiment.task import ChainKey, Experiment
from faithmap.inference import Chains
from faithmap.perturbation import draw_fill, is_imputed, perturb
from faithmap.perturbation.regions import removal_steps
from faithmap.protocol import RANDOM, Direction, Order
from faithmap.randomness import random_heatmap


def draw_orders(
    experiment: Experiment, block: Block, keys: Sequence[ChainKey], orders: Orders
) -> list[tuple[int, ChainKey, Tensor]]:
    """(position in the block, key, removal steps) of all chains that have an order; random orders are drawn here."""
    protocol, rows = experiment.protocol, []
    for row, name in enumerate(block.ids):
        for key in keys:
            if key.method == RANDOM:
                heatmap = random_heatmap(block.pixels.shape[-2:], seed=protocol.seed, image_id=name, draw=key.draw)
                maps = None if block.segments is None else block.segments[row : row + 1].cpu()
                steps = removal_steps(heatmap.unsqueeze(0), protocol, Order(key.order), maps)[0]
                steps = steps.to(block.pixels.device)
                rows.append((row, key, steps))
            elif row in orders.get((key.method, key.order), {}):
                rows.append((row, key, orders[key.method, key.order][row]))
    return rows


def draw_chains(
    experiment: Experiment, block: Block, rows: Sequence[tuple[int, ChainKey, Tensor]], steps: range
) -> Chains:
    """Images, fills and removal steps of all chains of one draw, from the step before the first missing one on."""
    protocol, device = experiment.protocol, block.pixels.device
    fills: dict[tuple[int, str | None], Tensor] = {}
    fill_index = []
    places: dict[tuple[int, str | None], int] = {}
    for row, key, _ in rows:
        own = None if protocol.paired_fill else key.method
        if (row, own) not in fills:
            places[row, own] = len(fills)
            fills[row, own] = draw_fill(
                protocol.fill,
                block.pixels[row],
                seed=protocol.seed,
                image_id=block.ids[row],
                draw=key.draw,
                method=own,
                others=experiment.others,
            )
        fill_index.append(places[row, own])
    image = torch.tensor([row for row, _, _ in rows], device=device)
    chains = Chains(
        pixels=block.pixels,
        fill=torch.stack(list(fills.values())).to(device),
        image=image,
        fill_index=torch.tensor(fill_index, device=device),
        removal_step=torch.stack([steps for _, _, steps in rows]),
        targets=block.targets[image],
        steps=steps[-1],
        imputed=is_imputed(protocol.fill),
        restore=protocol.direction is Direction.RESTORE,
    )
    return chains if steps.start == 0 else resumed(chains, steps.start - 1)


def resumed(chains: Chains, done: int) -> Chains:
    """The same chains from step `done` on, each with its own image; imputed ones start anew."""
    rows = torch.arange(len(chains), device=chains.image.device)
    pixels, fill, removal_step = chains.pixels[chains.image], chains.fill[chains.fill_index], chains.removal_step
    chains = replace(chains, pixels=pixels, fill=fill, image=rows, fill_index=rows)
    if chains.imputed:
        return chains
    left = (removal_step - done).clamp(min=0)
    chains = replace(chains, removal_step=left, steps=chains.steps - done)
    return (
        replace(chains, fill=perturb(fill, removal_step, pixels, done))
        if chains.restore
        else replace(chains, pixels=perturb(pixels, removal_step, fill, done))
    )


def score_frame(
    block: Block,
    chains: Sequence[tuple[int, ChainKey]],
    steps: range,
    logit: np.ndarray[tuple[int, int], np.dtype[np.float32]],
    probability: np.ndarray[tuple[int, int], np.dtype[np.float32]],
) -> pd.DataFrame:
    """One row a score: image, label, predicted, target, method, order, draw, step, logit, probability."""
    points = len(steps)
    rows = [row for row, _ in chains]
    predicted, targets = block.predicted.tolist(), block.targets.tolist()
    return pd.DataFrame(
        {
            "image": np.repeat(np.array([block.ids[row] for row in rows], dtype=object), points),
            "label": pd.array([block.labels[row] for row in rows], dtype="Int32").repeat(points),
            "predicted": np.repeat(np.array([predicted[row] for row in rows], dtype=np.int32), points),
            "target": np.repeat(np.array([targets[row] for row in rows], dtype=np.int32), points),
            "method": np.repeat(np.array([key.method for _, key in chains], dtype=object), points),
            "order": np.repeat(np.array([key.order for _, key in chains], dtype=object), points),
            "draw": np.repeat(np.array([key.draw for _, key in chains], dtype=np.int16), points),
            "step": np.tile(np.array(steps, dtype=np.int16), len(rows)),
            "logit": logit.reshape(-1).astype(np.float32),
            "probability": probability.reshape(-1).astype(np.float32),
        }
    )
