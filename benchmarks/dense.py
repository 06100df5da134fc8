"""How much of the bare network's throughput the dense engine reaches.

    python benchmarks/dense.py [--networks alexnet squeezenet1_1] [--threads 1 --clock cpu]

The bare network runs on one batch that is there already, in channels_last, without gradients; the dense engine makes
every perturbed image as well. Both in this process, in turns; medians.
"""

from __future__ import annotations

import argparse
import statistics

import torch
from benchmarks.incremental import CLOCKS, build, classifier_of, make_chains

from faithmap.inference import make_engine, score_chains, tune_allocator


def main() -> None:
    """Print one line a network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["alexnet", "squeezenet1_1"])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--chains", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    tune_allocator()
    clock = CLOCKS[given.clock]
    print("network | bare forward/s | dense engine/s | share")
    for name in given.networks:
        classifier = classifier_of(build(name), name)
        chains = make_chains(given.chains, 1, 96, 224)
        engine = make_engine(classifier, "dense", given.batch)
        batch = torch.rand(given.batch, 3, 224, 224).contiguous(memory_format=torch.channels_last)
        bare, scored = [], []
        for _ in range(given.repeats + 1):
            start = clock()
            with torch.inference_mode():
                for _ in range(given.chains * 96 // given.batch):
                    classifier.module(batch)
            bare.append(given.chains * 96 // given.batch * given.batch / (clock() - start))
            start = clock()
            score_chains(engine, chains)
            scored.append(given.chains * 97 / (clock() - start))
        found, expected = statistics.median(scored[1:]), statistics.median(bare[1:])
        print(f"{name} | {expected:.1f} | {found:.1f} | {found / expected:.0%}", flush=True)


if __name__ == "__main__":
    main()
