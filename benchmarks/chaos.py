"""Kill a small run with SIGKILL at random moments, resume it after each, and hold its table against one never killed.

    python benchmarks/chaos.py --kills 100 --seed 0
    python benchmarks/chaos.py --kills 100 --seed 0 --changing
    python benchmarks/chaos.py --kills 10 --seed 0 --changing --ray

After every kill: every part is whole, no row is there twice, no finished row is lost, and every score is the one of the
run that was never killed, bit for bit. A run that comes to its end is compared as a whole, and a new one is begun. With
`--changing`, every attempt asks for something else: other methods, orders, steps, points, draws, random draws, images,
groups and measures. With `--ray` attempts run on the workers of a Ray cluster, and the driver is killed; workers
that outlive it for a moment may write a row a second time, which counts once and is gone when a run has ended.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import faithmap
from faithmap.experiment.cluster import RayExecutor
from faithmap.store.folder import Store

KEYS = ["image", "method", "order", "draw", "step"]


def network() -> faithmap.Classifier:
    """Small, with fixed weights."""
    generator = torch.Generator().manual_seed(3)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 5, stride=2, padding=2),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(6, 8, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(288, 5),
    )
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return faithmap.Classifier(module, preprocessing=faithmap.Preprocessing(crop=(24, 24), resize=None), name="small")


METHODS = ("sensitivity:l2", "lrp-epsilon:0.01")
MEASURES = ("gini", "entropy")


@dataclass(frozen=True)
class Question:
    """What one attempt asks for; by default, for everything."""

    methods: tuple[str, ...] = METHODS
    orders: tuple[str, ...] = ("morf", "lerf")
    steps: int = 6
    draws: int = 3
    points: int | str = "all"
    random_draws: int | None = None
    images: int = 20
    group_size: int = 1
    measures: tuple[str, ...] = ()

    def groups(self) -> dict[str, str] | None:
        """Neighbours belong together."""
        if self.group_size == 1:
            return None
        return {f"{number:02d}": f"group {number // self.group_size}" for number in range(20)}


def another(chance: random.Random) -> Question:
    """A part of everything."""

    def some(of: Sequence[str], least: int = 1) -> tuple[str, ...]:
        return tuple(chance.sample(of, chance.randint(least, len(of))))

    return Question(
        methods=some(METHODS),
        orders=some(("morf", "lerf")),
        steps=chance.randint(1, 6),
        draws=chance.randint(1, 3),
        points=chance.choice(["all", 2, 3, 4]),
        random_draws=chance.choice([None, 1, 2, 3]),
        images=chance.randint(3, 20),
        group_size=chance.choice([1, 2, 5]),
        measures=some(MEASURES, 0),
    )


def measure(
    out: str | Path, classifier: faithmap.Classifier | None = None, question: Question | None = None, **how: Any
) -> faithmap.Run:
    """The run that is killed."""
    asked = question or Question()
    pixels = torch.rand((20, 3, 24, 24), generator=torch.Generator().manual_seed(1))
    images = faithmap.load_images(pixels, groups=asked.groups()).limit(asked.images)
    protocol = faithmap.Protocol.preset(
        "samek2017",
        steps=asked.steps,
        region_size=4,
        draws=asked.draws,
        orders=asked.orders,
        points=asked.points,
        random_draws=asked.random_draws,
    )
    how["measures"] = list(asked.measures) or None
    # Engine "auto" runs points that lie far apart as whole images, which round otherwise: other points, other bits.
    how.setdefault("engine", "incremental")
    return faithmap.evaluate(
        classifier or network(), images, list(asked.methods), protocol, out, save_heatmaps=True, **how
    )


def killed(work: Callable[[], Any], after: float) -> bool:
    """Do it in another process that is killed after so many seconds; False when it was done before."""
    process = os.fork()
    if process == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", flush=True)
            os._exit(1)
    deadline = time.monotonic() + after
    while time.monotonic() < deadline:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            if os.waitstatus_to_exitcode(status):
                raise SystemExit("a resumed run failed")
            return False
        time.sleep(0.001)
    os.kill(process, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) != 0


def rows(folder: Path) -> pd.DataFrame:
    """What anybody reads from the folder, without faithmap."""
    parts = sorted((folder / "scores").glob("part-*.parquet"))
    return (
        pd.concat([pd.read_parquet(part) for part in parts])
        if parts
        else pd.DataFrame(columns=[*KEYS, "logit", "probability"])
    )


def check(folder: Path, reference: pd.DataFrame, before: set[Any], twice: bool = False) -> set[Any]:
    """Nothing lost, nothing twice, nothing else than what a run that was never killed has; returns the rows.

    Args:
        twice: whether workers that nobody waits for may have written a row a second time.
    """
    assert not Store(folder).damaged_parts()
    found = rows(folder).set_index(KEYS)
    assert twice or not found.index.duplicated().any(), "a row is there twice"
    now = set(found.index)
    assert before <= now, "a finished row was lost"
    for score in ("logit", "probability"):
        assert (found[score] == reference.loc[found.index, score]).all(), "a score differs"
    return now


def values(folder: Path) -> pd.Series[float]:
    """The values of measures that are stored."""
    frame = Store(folder).measures().astype(dict.fromkeys(("image", "method", "measure"), "str"))
    return frame.set_index(["image", "method", "measure", "draw"])["value"]


def check_groups(folder: Path, question: Question) -> None:
    """The groups are those that were asked for last."""
    asked = question.groups() or {}
    frame = faithmap.Run(folder).scores().astype({"image": str, "group": str})
    assert (frame["group"] == frame["image"].map(lambda name: asked.get(name, name))).all(), "groups differ"


def check_measures(folder: Path, reference: pd.Series[float]) -> None:
    """Each value is there once, and the one of a run that was never killed."""
    found = values(folder)
    assert not found.index.duplicated().any(), "a value is there twice"
    assert (found == reference.loc[found.index]).all(), "a value differs"


def chaos(kills: int, seed: int, folder: Path, changing: bool = False, address: str | None = None) -> dict[str, float]:
    """Kill that often; returns counts.

    Args:
        kills, seed, folder: how often, when, and where.
        changing: every attempt asks for something else.
        address: of a Ray cluster that attempts run on.
    """
    torch.set_num_threads(1)
    chance = random.Random(seed)
    begun = time.monotonic()
    everything = Question(measures=MEASURES if changing else (), group_size=2 if changing else 1)
    whole = measure(folder / "whole", question=everything)
    reference = whole.scores().astype(dict.fromkeys(KEYS[:3], "str")).set_index(KEYS)
    took = time.monotonic() - begun
    measured = values(folder / "whole") if changing else None

    def attempt(to: Path) -> Callable[[], Any]:
        asked = another(chance) if changing else everything
        if address is None:
            return lambda: measure(to, question=asked)
        return lambda: measure(to, question=asked, executor=RayExecutor(address, workers=2))

    counts = {"kills": 0, "runs": 0, "rows": len(reference)}
    while counts["kills"] < kills:
        out, seen = folder / f"killed-{counts['runs']}", set[Any]()
        # Short lives, so that a run is killed several times before it comes to its end.
        for _ in range(8 if changing else 10_000):
            # A driver needs seconds to reach its workers.
            died = killed(attempt(out), chance.uniform(0, took / 2) if address is None else chance.uniform(4, 16))
            counts["kills"] += died
            if address is not None:
                time.sleep(2)  # until the cluster has ended the workers of the driver that is gone
            seen = check(out, reference, seen, twice=address is not None)
            if measured is not None:
                check_measures(out, measured)
            if counts["kills"] == kills or (not died and not changing):
                break
        measure(out, question=everything)
        seen = check(out, reference, seen)
        check_groups(out, everything)
        if measured is not None:
            check_measures(out, measured)
            assert len(values(out)) == len(measured), "values of measures are missing"
        assert len(seen) == len(reference), "rows are missing"
        heatmaps = {(place, method) for place, method in Store(out).stored_heatmaps().places}
        assert len(heatmaps) == 20 * 2, "heatmaps are missing"
        counts["runs"] += 1
    return counts


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--changing", action="store_true", help="every attempt asks for something else")
    parser.add_argument("--ray", action="store_true", help="attempts run on a Ray cluster of this machine")
    chosen = parser.parse_args()
    with ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory())
        reached = None
        if chosen.ray:
            from ray.cluster_utils import Cluster

            cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "include_dashboard": False})
            stack.callback(cluster.shutdown)
            reached = cluster.address
        begun = time.monotonic()
        counts = chaos(chosen.kills, chosen.seed, Path(scratch), chosen.changing, reached)
    print(
        f"{counts['kills']} kills over {counts['runs']} runs of {counts['rows']} rows: 0 rows lost, 0 rows twice, all "
        f"scores as in the run that was never killed ({time.monotonic() - begun:.0f} s)"
    )
