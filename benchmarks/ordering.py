"""Milliseconds a map that ordering takes on one core, for both placements: `python benchmarks/ordering.py`."""

import statistics
import time

import torch

import faithmap


def main(repeats: int = 7) -> None:
    torch.set_num_threads(1)
    heatmap = torch.randn(64, 224, 224, generator=torch.Generator().manual_seed(0))
    print("placement  batch  ms/map (median)")
    for placement in (faithmap.Placement.GRID, faithmap.Placement.CENTRE, faithmap.Placement.PIXEL):
        protocol = faithmap.Protocol.preset(placement=placement)
        for batch in (1, 8, 64):
            times = []
            for _ in range(repeats):
                start = time.perf_counter()
                faithmap.removal_steps(heatmap[:batch], protocol)
                times.append((time.perf_counter() - start) / batch * 1000)
            print(f"{placement:<10} {batch:>5}  {statistics.median(times):.2f}")


if __name__ == "__main__":
    main()
