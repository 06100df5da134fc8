"""The same table over a Ray cluster of two local workers, whoever is killed."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from benchmarks.chaos import measure, network

import faithmap
from faithmap.errors import ClassifierError, FaithmapError, MethodError
from faithmap.run import Run

ray = pytest.importorskip("ray")
cluster_utils = pytest.importorskip("ray.cluster_utils")
from faithmap.experiment.cluster import RayExecutor  # noqa: E402

ROOT = Path(__file__).parents[1]
PATHS = os.pathsep.join([str(ROOT / "src"), str(ROOT)])


@pytest.fixture(scope="module")
def cluster():
    """Two CPUs, and nothing else of this machine."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = PATHS  # what the workers inherit
    cluster = cluster_utils.Cluster(
        initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False, "object_store_memory": 10**8}
    )
    yield cluster
    ray.shutdown()
    cluster.shutdown()
    os.environ.pop("PYTHONPATH")
    if before is not None:
        os.environ["PYTHONPATH"] = before


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield measure(tmp_path_factory.mktemp("whole") / "run")
    torch.set_num_threads(threads)


def same(a: pd.DataFrame, b: pd.DataFrame) -> None:
    """Bit for bit."""
    pd.testing.assert_frame_equal(a, b, check_exact=True)


def mortal(tokens: Path):
    """A heatmap whose process dies a moment after it was asked for, as often as there are tokens."""

    def heatmap(inputs, targets):
        for token in sorted(tokens.iterdir()):
            try:
                token.unlink()
            except FileNotFoundError:
                continue
            threading.Timer(random.random() / 2, os.kill, (os.getpid(), signal.SIGKILL)).start()
            break
        return (inputs - inputs.roll(1, -1)).abs()

    return heatmap


def test_two_workers_give_the_table_of_one_process(cluster, whole, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen = []
    run = measure(
        "relative/run",
        executor=RayExecutor(cluster.address, workers=2),
        progress=lambda state: seen.append((state.scores, state.images)),
    )
    same(run.scores(), whole.scores())
    assert run.store.stored_heatmaps().places.keys() == whole.store.stored_heatmaps().places.keys()
    assert seen[-1] == (len(whole.scores()), 20)
    assert (run.manifest.executor, run.manifest.workers, run.manifest.threads) == ("ray", 2, 1)


def test_a_study_on_ray_is_that_of_one_process(cluster, tmp_path):
    pixels = torch.rand((6, 3, 24, 24), generator=torch.Generator().manual_seed(1))
    settings = {
        side: faithmap.Protocol.preset("srg", region_size=side, points=4, fill=fill)
        for side, fill in ((4, "uniform"), (6, "swap"))
    }
    methods = ["edge", "sensitivity:l2"]
    here, there = (
        faithmap.study(network(), pixels, methods, settings, tmp_path / name, executor=executor)
        for name, executor in (("here", None), ("there", RayExecutor(cluster.address, workers=2)))
    )
    for name, run in there.runs().items():
        assert run.manifest.executor == "ray"
        same(run.scores(), here.runs()[name].scores())
    assert there.verdict() == here.verdict()


def test_measures_are_those_of_one_process_and_extend_the_folder(cluster, tmp_path):
    """Every value of a measure on two workers, in two sittings, bit for bit."""
    pixels = torch.rand((20, 3, 24, 24), generator=torch.Generator().manual_seed(1))
    protocol = faithmap.Protocol.preset("samek2017", steps=2, region_size=4, draws=2)
    all_of = ["gini", "infidelity:n=6", "max-sensitivity:n=2", "randomisation-top-down"]
    methods = ["sensitivity:l2", "edge"]
    alone = faithmap.evaluate(network(), pixels, methods, protocol, tmp_path / "alone", measures=all_of)
    executor = RayExecutor(cluster.address, workers=2)
    how = {"out": tmp_path / "run", "executor": executor}
    faithmap.evaluate(network(), pixels[:12], methods[:1], protocol, measures=all_of[:2], **how)
    run = faithmap.evaluate(network(), pixels, methods, protocol, measures=all_of, **how)
    keys = ["image", "method", "measure", "draw"]
    found, expected = (one.measures().astype(dict.fromkeys(keys[:3], str)) for one in (run, alone))
    pd.testing.assert_frame_equal(
        found.sort_values(keys, ignore_index=True), expected.sort_values(keys, ignore_index=True), check_exact=True
    )
    assert len(found) > 0


def test_workers_that_are_killed_are_replaced(cluster, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.mkdir()
    pixels = torch.rand((20, 3, 24, 24), generator=torch.Generator().manual_seed(1))
    protocol = faithmap.Protocol.preset(steps=6, region_size=4, draws=3)
    alone = faithmap.evaluate(network(), pixels, {"mortal": mortal(tokens)}, protocol, tmp_path / "alone")
    for number in range(2):
        (tokens / str(number)).touch()
    executor = RayExecutor(cluster.address, workers=2)
    run = faithmap.evaluate(
        network(), pixels, {"mortal": mortal(tokens)}, protocol, tmp_path / "run", executor=executor
    )
    assert not list(tokens.iterdir())
    same(run.scores(), alone.scores())
    assert len(pd.read_parquet(run.store.scores_folder)) == len(alone.scores())


DRIVER = """
import sys
from benchmarks.chaos import measure
from faithmap.experiment.cluster import RayExecutor
print("started", flush=True)
measure(sys.argv[2], executor=RayExecutor(sys.argv[1], workers=2))
"""


def test_a_driver_that_is_killed_twice(cluster, whole, tmp_path):
    for _ in range(2):
        driver = subprocess.Popen(
            [sys.executable, "-c", DRIVER, cluster.address, str(tmp_path / "run")],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        with driver:
            driver.stdout.readline()
            deadline = time.monotonic() + 60
            stored = len(list((tmp_path / "run" / "scores").glob("part-*")))
            while driver.poll() is None and time.monotonic() < deadline:
                if len(list((tmp_path / "run" / "scores").glob("part-*"))) > stored:
                    break
                time.sleep(0.005)
            driver.kill()
    run = measure(tmp_path / "run", executor=RayExecutor(cluster.address, workers=2))
    same(run.scores(), whole.scores())
    assert len(pd.read_parquet(run.store.scores_folder)) == len(whole.scores())
    assert len(Run(run.folder).examples(None)) == 20


def test_what_a_worker_refuses_is_said_as_if_it_were_here(cluster, tmp_path):
    class Smooth(torch.nn.Module):
        def forward(self, x):
            return torch.nn.functional.gelu(x.mean((2, 3)))

    with pytest.raises(MethodError, match="defined for ReLU only"):
        faithmap.evaluate(
            faithmap.Classifier(Smooth(), preprocessing=faithmap.Preprocessing((24, 24), None)),
            torch.rand(3, 3, 24, 24),
            ["deconvolution:l2"],
            faithmap.Protocol.preset(steps=2, region_size=4, draws=1),
            tmp_path / "run",
            executor=RayExecutor(cluster.address, workers=2),
        )


def in_place(module):
    with torch.no_grad():
        module[6].weight.mul_(2)


def through_data(module):
    module[0].weight.data.add_(1)


@pytest.mark.parametrize("change", [in_place, through_data])
def test_a_method_that_changes_a_workers_network_is_named(cluster, tmp_path, change):
    classifier = network()
    module = classifier.module

    def careless(inputs, targets):
        change(module)
        return inputs.abs().sum(1)

    with pytest.raises(ClassifierError, match=r"heatmap method 'mine' changed the (network|weights of) small"):
        faithmap.evaluate(
            classifier,
            torch.rand(3, 3, 24, 24),
            {"mine": careless},
            faithmap.Protocol.preset(steps=2, region_size=4, draws=1),
            tmp_path / "run",
            executor=RayExecutor(cluster.address, workers=1),
        )
    assert not list((tmp_path / "run" / "scores").glob("*")), "scores of another network were stored"


def test_bad_settings_are_refused():
    with pytest.raises(FaithmapError, match="workers is 0"):
        RayExecutor(workers=0)
