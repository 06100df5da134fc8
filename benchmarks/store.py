"""The run folder at size: writing, finding what is missing, reading, exporting, and memory.

python benchmarks/store.py --images 5040 --methods 8 --draws 10 --block 16
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from faithmap.store.folder import Store

POINTS = 101


@contextmanager
def timed(what: str, per: int = 1) -> Iterator[None]:
    """Print how long it took, and the peak so far."""
    begun = time.perf_counter()
    yield
    took = time.perf_counter() - begun
    each = f", {took / per * 1000:.2f} ms each" if per > 1 else ""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{what}: {took:.2f} s{each} (peak {peak:.2f} GB)", flush=True)


def part(block: int, size: int, methods: int, draw: int) -> pd.DataFrame:
    """The scores of one draw of a block of `size` images."""
    chains = size * methods
    noise = np.random.default_rng(block * 1000 + draw).random((2, chains * POINTS), dtype=np.float32)
    names = np.array([f"method-{number}" for number in range(methods)], dtype=object)
    images = [f"n01440764/ILSVRC2012_val_{block * size + one:08d}.JPEG" for one in range(size)]
    return pd.DataFrame(
        {
            "image": np.repeat(np.array(images, dtype=object), methods * POINTS),
            "label": pd.array([0] * (chains * POINTS), dtype="Int32"),
            "predicted": np.int32(0),
            "target": np.int32(0),
            "method": np.tile(np.repeat(names, POINTS), size),
            "order": "morf",
            "draw": np.int16(draw),
            "step": np.tile(np.arange(POINTS, dtype=np.int16), chains),
            "logit": noise[0] * 20,
            "probability": noise[1],
        }
    )


def main() -> None:
    """Make a folder of that size and use it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5040)
    parser.add_argument("--methods", type=int, default=8)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--block", type=int, default=16, help="images of a task: 16, on a GPU 64")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        blocks = [(block, draw) for block in range(chosen.images // chosen.block) for draw in range(chosen.draws)]
        with timed(f"write {len(blocks)} parts", len(blocks)):
            for block, draw in blocks:
                store.write_part(part(block, chosen.block, chosen.methods, draw))
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.parquet"))
        rows = len(blocks) * chosen.block * chosen.methods * POINTS
        print(f"{rows:,} rows, {size / 1e6:.0f} MB, {size / rows:.2f} bytes a row")
        with timed("check every byte and find what is stored", len(blocks)):
            index = store.index()
        with timed("list the parts"):
            store.keys()
        with timed("export as one file"):
            store.export(Path(folder) / "all.parquet")
        with timed("read all rows as one frame"):
            frame = store.frame()
        print(
            f"frame: {len(frame):,} rows, {frame.memory_usage(deep=True).sum() / 1e9:.2f} GB, {len(index):,} segments"
        )


if __name__ == "__main__":
    main()
