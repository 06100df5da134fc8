"""How long the whole replication takes: AlexNet × fig4 × 101 scores, one draw, files and statistics included.

    python -m benchmarks.replication --images 100
    python -m benchmarks.replication --images 1000 --folder imagenette2-320/val --workers 2   # Ray, a thread each

AlexNet has random weights here (speed does not depend on them). Without a folder the embedded photos are read over and
over under other names.
"""

import argparse
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import torch
import torchvision
from benchmarks.memory import repeated

import faithmap
from faithmap.experiment import pipeline as experiment
from faithmap.experiment.cluster import RayExecutor
from faithmap.images import IMAGENET_MEAN, IMAGENET_STD
from faithmap.inference import tune_allocator
from faithmap.statistics import headline

STAGES = {"block_heatmaps": "heatmaps", "score_chains": "scores"}


def timed(seconds: dict[str, float]) -> None:
    """Add up the time that a run spends in network arithmetic."""
    for name, stage in STAGES.items():
        whole = getattr(experiment, name)

        def measured(*args, whole=whole, stage=stage, **how):
            start = time.perf_counter()
            try:
                return whole(*args, **how)
            finally:
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                seconds[stage] += time.perf_counter() - start

        setattr(experiment, name, measured)


def main() -> None:
    """Run it once and print where the time went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, help="Ray workers; where the time goes is then not known")
    args = parser.parse_args()
    tune_allocator()
    torch.manual_seed(0)
    classifier = faithmap.Classifier(torchvision.models.alexnet().eval(), mean=IMAGENET_MEAN, std=IMAGENET_STD)
    classifier.to(args.device)
    executor = RayExecutor(workers=args.workers) if args.workers else None
    source = faithmap.load_images(args.folder or "photos")
    images = repeated(source, args.images)
    protocol = faithmap.Protocol.preset("replication2021", target="predicted")
    seconds: dict[str, float] = defaultdict(float)
    timed(seconds)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        run = faithmap.evaluate(
            classifier, images, "fig4", protocol, folder, engine=args.engine, executor=executor, progress=True
        )
        run.plot(Path(folder) / "fig4.png")
        scores = run.scores()
        print(headline(scores, "probability"))
        total = time.perf_counter() - start
    where = f"{args.workers} workers" if args.workers else f"{torch.get_num_threads()} threads"
    print(f"{len(images)} images, {len(scores):,} scores, {where}, {args.device}: {total:.0f} s")
    for stage, spent in seconds.items():
        print(f"  {stage}: {spent:.1f} s, {spent / total:.1%}")
    if seconds:
        print(f"  all else: {total - sum(seconds.values()):.1f} s, {1 - sum(seconds.values()) / total:.1%}")
    print(f"  1000 images at this speed: {total / len(images) * 1000 / 60:.1f} min")


if __name__ == "__main__":
    main()
