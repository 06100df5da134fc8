"""Kill a small run with SIGKILL at random moments, resume it after each, and hold its table against one never killed.

    python benchmarks/chaos.py --kills 100 --seed 0

After every kill: every part is whole, no row is there twice, no finished row is lost, and every score is the one of the
run that was never killed, bit for bit. A run that comes to its end is compared as a whole, and a new one is begun.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import faithmap
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


def measure(out: str | Path, classifier: faithmap.Classifier | None = None, **how: Any) -> faithmap.Run:
    """The run that is killed."""
    pixels = torch.rand((20, 3, 24, 24), generator=torch.Generator().manual_seed(1))
    protocol = faithmap.Protocol.preset(steps=6, region_size=4, draws=3, orders=("morf", "lerf"))
    methods = ["sensitivity:l2", "lrp-epsilon:0.01"]
    return faithmap.evaluate(classifier or network(), pixels, methods, protocol, out, save_heatmaps=True, **how)


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


def check(folder: Path, reference: pd.DataFrame, before: set[Any]) -> set[Any]:
    """Nothing lost, nothing twice, nothing else than what a run that was never killed has; returns the rows."""
    assert not Store(folder).damaged_parts()
    found = rows(folder).set_index(KEYS)
    assert not found.index.duplicated().any(), "a row is there twice"
    now = set(found.index)
    assert before <= now, "a finished row was lost"
    for score in ("logit", "probability"):
        assert (found[score] == reference.loc[found.index, score]).all(), "a score differs"
    return now


def chaos(kills: int, seed: int, folder: Path) -> dict[str, float]:
    """Kill that often; returns counts."""
    torch.set_num_threads(1)
    chance = random.Random(seed)
    begun = time.monotonic()
    reference = measure(folder / "whole").scores().astype(dict.fromkeys(KEYS[:3], "str")).set_index(KEYS)
    took = time.monotonic() - begun
    counts = {"kills": 0, "runs": 0, "rows": len(reference)}
    while counts["kills"] < kills:
        out, seen = folder / f"killed-{counts['runs']}", set[Any]()
        # Short lives, so that a run is killed several times before it comes to its end.
        while killed(lambda to=out: measure(to), chance.uniform(0, took / 2)):  # type: ignore[misc]
            counts["kills"] += 1
            seen = check(out, reference, seen)
            if counts["kills"] == kills:
                measure(out)
                break
        seen = check(out, reference, seen)
        assert len(seen) == len(reference), "rows are missing"
        heatmaps = {(place, method) for place, method in Store(out).stored_heatmaps().places}
        assert len(heatmaps) == 20 * 2, "heatmaps are missing"
        counts["runs"] += 1
    return counts


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        begun = time.monotonic()
        counts = chaos(chosen.kills, chosen.seed, Path(scratch))
    print(
        f"{counts['kills']} kills over {counts['runs']} runs of {counts['rows']} rows: 0 rows lost, 0 rows twice, all "
        f"scores as in the run that was never killed ({time.monotonic() - begun:.0f} s)"
    )
