"""What leaving out tokens saves on a vision transformer, over a full removal.

    python benchmarks/tokens.py [--network vit_b_16] [--chains 16] [--points 20]

The dense engine replaces pixels and computes every token at every step; with fill `drop` a step computes the tokens
that are left. Both in this process, in turns, on the same chains; medians, after two points each that warm up. A
forward pass of fewer than 16 inputs is filled up to 16, so that fewer chains than 16 at a step show a loss; a run has
that many.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torchvision import models

import faithmap
from faithmap.inference import make_engine, score_chains, tune_allocator
from faithmap.inference.chains import Chains


def chains_of(count: int, side: int, size: int, points: int, dropped: bool) -> Chains:
    """Chains that remove all patches of random images in random orders, scored at evenly many points."""
    generator = torch.Generator().manual_seed(0)
    grid = size // side
    orders = torch.stack([torch.randperm(grid * grid, generator=generator) + 1 for _ in range(count)])
    steps = orders.view(count, grid, grid).repeat_interleave(side, 1).repeat_interleave(side, 2).int()
    pixels, rows = torch.rand(count, 3, size, size, generator=generator), torch.arange(count)
    protocol = faithmap.Protocol.preset("srg", steps=grid * grid, points=points)
    return Chains(
        pixels=pixels,
        fill=torch.rand(count, 3, size, size, generator=generator),
        image=rows,
        fill_index=rows,
        removal_step=steps,
        targets=rows % 10,
        steps=grid * grid,
        points=protocol.scored_steps(),
        dropped=dropped,
    )


def main() -> None:
    """Print one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="vit_b_16")
    parser.add_argument("--side", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--chains", type=int, default=16)
    parser.add_argument("--points", type=int, default=20)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    tune_allocator()
    module = models.get_model(given.network, weights=None, image_size=given.size)
    classifier = faithmap.Classifier(module, name=given.network)
    engine = make_engine(classifier, "dense", given.batch)
    taken: dict[bool, list[float]] = {False: [], True: []}
    for at in range(given.repeats + 1):
        for dropped in taken:
            chains = chains_of(given.chains, given.side, given.size, given.points if at else 2, dropped)
            start = time.perf_counter()
            score_chains(engine, chains)
            taken[dropped].append(time.perf_counter() - start)
    dense, dropping = (statistics.median(taken[dropped][1:]) for dropped in (False, True))
    scores = given.chains * given.points
    print("network | dense scores/s | dropping scores/s | ratio")
    print(f"{given.network} | {scores / dense:.2f} | {scores / dropping:.2f} | {dense / dropping:.2f}")


if __name__ == "__main__":
    main()
