"""Two Ray workers of one thread against one process of two threads, on the same images; start-up left out.

    python -m benchmarks.scaling --images photos --count 128 --repeats 3

Both run the same tasks; the clock starts when the first task of each worker is done, and stops at the last score.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from typing import Any

from benchmarks.memory import repeated

import faithmap
from faithmap.experiment.cluster import RayExecutor
from faithmap.experiment.executors import LocalExecutor
from faithmap.experiment.progress import Progress


class Clock:
    """Scores a second, from when `after` images are done to the end."""

    def __init__(self, after: int) -> None:
        self.after, self.start, self.end = after, (0, 0.0), (0, 0.0)

    def __call__(self, state: Progress) -> None:
        """Called with how far the run is."""
        self.end = (state.scores, time.perf_counter())
        if state.images >= self.after and not self.start[0]:
            self.start = self.end

    @property
    def rate(self) -> float:
        """Scores a second."""
        return (self.end[0] - self.start[0]) / (self.end[1] - self.start[1])


def rate(executor: Any, chosen: argparse.Namespace) -> float:
    """Of one run."""
    images = repeated(faithmap.load_images(chosen.images), chosen.count)
    clock = Clock(after=2 * 16)
    with tempfile.TemporaryDirectory() as out:
        faithmap.evaluate(
            faithmap.load_classifier(chosen.model, device="cpu"),
            images,
            chosen.methods,
            faithmap.Protocol.preset(steps=chosen.steps, draws=chosen.draws),
            out,
            engine=chosen.engine,
            executor=executor,
            progress=clock,
        )
    return clock.rate


def main() -> None:
    """Measure both in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", default="photos")
    parser.add_argument("--count", type=int, default=128)
    parser.add_argument("--model", default="squeezenet1_1-embedded")
    parser.add_argument("--methods", default="sensitivity:l2,lrp-epsilon:0.01")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--draws", type=int, default=1)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    found: dict[str, list[float]] = {"process": [], "workers": []}
    for _ in range(chosen.repeats):
        found["process"].append(rate(LocalExecutor(threads=2), chosen))
        found["workers"].append(rate(RayExecutor(workers=2, threads=1), chosen))
        print({name: round(values[-1]) for name, values in found.items()}, flush=True)
    process, workers = (statistics.median(found[name]) for name in ("process", "workers"))
    print(f"one process, two threads: {process:.0f} scores/s; two Ray workers: {workers:.0f} scores/s")
    print(f"ratio of medians: {workers / process:.2f}")


if __name__ == "__main__":
    main()
