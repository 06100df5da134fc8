"""All figures of the benchmarks on one page, with machine, command and time: `make bench` writes it.

    python -m benchmarks.page --out benchmarks/README.md          # everything, half an hour on two idle cores
    python -m benchmarks.page --only points perturbing            # print some of it

Each figure is the printed table of one of the benchmarks here, run in a process of its own, one after the other. Ratios
compare what ran in the same process; a later version is held against them, not against seconds.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

import faithmap


@dataclass(frozen=True)
class Figure:
    """One benchmark as it is run for the page.

    Attributes:
        name: for `--only`.
        title: what it shows.
        reading: which column to look at, and what it should be.
        command: arguments of `python -m`.
    """

    name: str
    title: str
    reading: str
    command: str


FIGURES = (
    Figure(
        "incremental",
        "Scores per second: plain loop, best dense, incremental",
        "`ratio` is incremental over the best dense configuration; `floor/s` is the speed that the changed "
        "multiply-adds would have at the rate of a matrix product, were none saved in tiles. The other columns divide "
        "up the engine's time; the last two are the maps of a chain, and the whole process at its peak.",
        "benchmarks.incremental --networks alexnet squeezenet1_1 --repeats 3",
    ),
    Figure(
        "deep",
        "The same for deep networks",
        "As above, with fewer chains and steps, so that computing step 0 weighs more.",
        "benchmarks.incremental --networks vgg16 resnet18 resnet50 --chains 32 --steps 20 --dense-chains 1 --repeats 1",
    ),
    Figure(
        "dense",
        "The dense engine against the bare network",
        "The proportion of the bare network's throughput that the engine keeps while it makes the images as well.",
        "benchmarks.dense --repeats 3",
    ),
    Figure(
        "points",
        "Scoring some of the steps",
        "Time of few points over that of all, and the error of SRG in percent of the spread between methods.",
        "benchmarks.points --count 3 --repeats 1",
    ),
    Figure(
        "fine",
        "The same with small regions",
        "As above.",
        "benchmarks.points --networks squeezenet1_1-embedded --region 9 --count 1 --repeats 1",
    ),
    Figure(
        "perturbing",
        "Heatmap methods that perturb the input, against captum",
        "`ratio` is captum's time over ours for the same number of scores, captum's 16 perturbations a forward pass.",
        "benchmarks.perturbing --networks alexnet squeezenet1_1-embedded",
    ),
    Figure(
        "loops",
        "The same against captum's own default",
        "As above, with one perturbation a forward pass, as captum's loops run unless they are told otherwise.",
        "benchmarks.perturbing --networks alexnet --jobs kernelshap rise --batch 1",
    ),
    Figure(
        "vgg",
        "Occlusion on VGG-16, against captum",
        "As above.",
        "benchmarks.perturbing --networks vgg16 --jobs occlusion --repeats 1",
    ),
    Figure(
        "peers",
        "The same experiment through other tools",
        "Needs `pip install -e '.[peers]'`. Scores per second on the same network, images and steps.",
        "benchmarks.peers --model alexnet --images 3 --method fig4 --threads 2 --clock wall --repeats 1 --tables 1",
    ),
    Figure(
        "measures",
        "Measures beyond removal curves, against Quantus",
        "Seconds for seven methods; `ratio` is Quantus's time over ours for the same work.",
        "benchmarks.peers --measures --images 2 --method fig4 --threads 2 --clock wall --repeats 1",
    ),
    Figure(
        "replication",
        "The replication of Figure 4, everything included",
        "One process; seconds by kind of work.",
        "benchmarks.replication --images 40",
    ),
    Figure(
        "tokens",
        "Leaving out tokens on a vision transformer",
        "The dense engine's time over that of fill `drop`.",
        "benchmarks.tokens --chains 16 --repeats 1",
    ),
    Figure("ordering", "Putting regions in order", "Milliseconds per map on one core.", "benchmarks.ordering"),
    Figure(
        "store",
        "The run folder at size",
        "Seconds and megabytes of 1000 images, 8 methods, 10 draws.",
        "benchmarks.store --images 1000",
    ),
    Figure(
        "startup",
        "How long the command line takes to answer",
        "Seconds of processor time.",
        "benchmarks.startup --repeats 3",
    ),
)


def machine() -> str:
    """Processor, cores, system and versions, in one line."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = models[0] if models else name
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, faithmap {faithmap.__version__}"
    return f"{name}, {os.cpu_count()} cores{gpu}, {platform.system()}; {versions}"


def run(figure: Figure) -> tuple[str, float]:
    """What a benchmark prints, and the seconds that it takes."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", *shlex.split(figure.command)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "THP_MEM_ALLOC_ENABLE": "1"},  # as the command line sets it, for all sides of a ratio
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        return f"Not measured: {last[0]}", seconds
    return markdown(done.stdout.splitlines()), seconds


def markdown(lines: Sequence[str]) -> str:
    """Rows whose cells are separated by ``|`` as tables; all other lines as they are, in blocks of code."""
    parts: list[str] = []
    kind, block = "", list[str]()
    for line in [*lines, ""]:
        now = "table" if " | " in line else "text" if line.strip() else ""
        if now != kind and block:
            parts.append(_table(block) if kind == "table" else "\n".join(["```", *block, "```"]))
            block = []
        kind = now
        if now:
            block.append(line)
    return "\n\n".join(parts)


def _table(rows: Sequence[str]) -> str:
    head, *rest = ([cell.strip() for cell in row.split(" | ")] for row in rows)
    lines = [head, ["---"] * len(head), *rest]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def page(figures: Sequence[Figure]) -> str:
    """The whole page, in Markdown."""
    start = time.perf_counter()
    sections = []
    for figure in figures:
        print(f"{figure.title} …", file=sys.stderr, flush=True)
        found, seconds = run(figure)
        command = f"`python -m {figure.command}` ({seconds:.0f} s)"
        sections.append(f"## {figure.title}\n\n{figure.reading}\n\n{command}\n\n{found}\n")
    minutes = (time.perf_counter() - start) / 60
    about = (
        "`make bench` writes all figures, `python -m benchmarks.page --only NAME …` some. Both sides of a ratio ran in "
        "one process; medians of the repeats in the command."
    )
    return "\n".join(["# Benchmarks", "", about, "", f"{machine()}. {minutes:.0f} minutes.", "", *sections])


def main() -> None:
    """Run and write, or print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="by default the page is printed")
    parser.add_argument("--only", nargs="+", choices=[figure.name for figure in FIGURES])
    given = parser.parse_args()
    found = page([figure for figure in FIGURES if not given.only or figure.name in given.only])
    if given.out:
        given.out.write_text(found, encoding="utf-8")
    else:
        print(found)


if __name__ == "__main__":
    main()
