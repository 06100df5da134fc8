"""Peak memory of a run as images go by: it must not grow with their number.

    python benchmarks/memory.py --images FOLDER --count 1000 [--workers 2] [--methods fig4 --steps 100]

The images are those of a folder (the embedded photos by default), repeated under other names. Memory is the process's
peak (VmHWM), reset when the first images are done, read at marks along the way; with workers, each Ray worker's.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

import faithmap
from faithmap.experiment.cluster import RayExecutor
from faithmap.experiment.executors import LocalExecutor
from faithmap.experiment.progress import Progress
from faithmap.images import Images


def repeated(images: Images, count: int) -> Images:
    """The same files under other names."""
    items = [
        replace(images[number % len(images)], id=f"{number:06d}-{images[number % len(images)].id}")
        for number in range(count)
    ]
    return Images(f"{images.name}, repeated", items)


def peak(process: int) -> float:
    """Highest resident memory of a process since `reset`, in MB."""
    status = Path(f"/proc/{process}/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1000
    return float("nan")


def reset(process: int) -> None:
    """Forget the peak, where the system keeps one."""
    refs = Path(f"/proc/{process}/clear_refs")
    if refs.exists():
        refs.write_text("5")


def ray_workers() -> list[int]:
    """Processes of this machine that hold one of our networks."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if folder.joinpath("cmdline").read_bytes().startswith(b"ray::Worker"):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


class Marks:
    """Reads the peak of each process when so many images are done."""

    def __init__(self, marks: Sequence[int], workers: int) -> None:
        self.marks, self.workers, self.found = list(marks), workers, []

    def __call__(self, state: Progress) -> None:
        """Called with how far the run is."""
        if self.marks and state.images >= self.marks[0]:
            processes = ray_workers() if self.workers else [os.getpid()]
            values = [peak(process) for process in sorted(processes)]
            self.found.append((self.marks.pop(0), values))
            print(f"{state.images:5d} images: peak {', '.join(f'{value:.0f}' for value in values)} MB", flush=True)


def main() -> None:
    """Run and print the marks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", default="photos")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--marks", default="50,100,200,300,500,750,1000")
    parser.add_argument("--model", default="squeezenet1_1-embedded")
    parser.add_argument("--methods", default="sensitivity:l2,lrp-epsilon:0.01")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--draws", type=int, default=1)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--workers", type=int, default=0)
    chosen = parser.parse_args()
    images = repeated(faithmap.load_images(chosen.images), chosen.count)
    marks = Marks([int(mark) for mark in chosen.marks.split(",") if int(mark) <= chosen.count], chosen.workers)
    executor = RayExecutor(workers=chosen.workers) if chosen.workers else LocalExecutor(threads=1)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as out:
        faithmap.evaluate(
            faithmap.load_classifier(chosen.model, device="cpu"),
            images,
            chosen.methods,
            faithmap.Protocol.preset(steps=chosen.steps, draws=chosen.draws),
            out,
            engine=chosen.engine,
            executor=executor,
            progress=marks,
        )
    first = dict(marks.found)
    for mark, values in marks.found:
        if 100 in first and mark > 100:
            growth = [value / before - 1 for value, before in zip(values, first[100], strict=True)]
            print(f"{mark} against 100 images: {', '.join(f'{one:+.1%}' for one in growth)}")
    print(f"{chosen.count} images in {time.monotonic() - begun:.0f} s, torch {torch.__version__}")


if __name__ == "__main__":
    main()
