"""The doctor's findings, and what a run is said to take."""

import shutil

import pytest
import torch
from benchmarks.chaos import measure, network
from typer.testing import CliRunner

import faithmap
from faithmap.cli import app, doctor
from faithmap.cli.doctor import BAD, GOOD, HINT
from faithmap.errors import StoreError
from faithmap.experiment.estimate import estimate, forward_passes
from faithmap.experiment.evaluate import plan
from faithmap.experiment.task import ChainKey, Task
from faithmap.run import Run


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return measure(tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture
def run(whole, tmp_path):
    shutil.copytree(whole.folder, tmp_path / "run")
    return Run(tmp_path / "run")


def states(found):
    return [finding.state for finding in found]


def test_a_whole_folder(run):
    found = list(doctor.run_folder(run.folder))
    assert set(states(found)) == {GOOD}
    assert "2520 scores, none missing" in found[1].what


def test_what_is_wrong_with_a_folder_is_named_with_a_remedy(run):
    name = run.store.parts()[0]
    (run.folder / name).write_bytes(b"")
    (bad,) = [finding for finding in doctor.run_folder(run.folder) if finding.state == BAD]
    assert name in bad.what
    assert "run the same command again" in bad.remedy
    (run.folder / name).unlink()
    assert "of 2520 scores" in next(f for f in doctor.run_folder(run.folder) if f.state == HINT).what
    run.store.manifest_path.write_text("{")
    assert states(doctor.run_folder(run.folder)) == [BAD]
    assert states(doctor.run_folder(run.folder / "nowhere")) == [BAD]


def test_damaged_weights_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "net-01234567.pth").write_bytes(b"x")
    found = list(doctor.weights())
    assert [f.state for f in found if "net-01234567" in f.what] == [BAD]
    assert any("squeezenet" in f.what and f.state == GOOD for f in found)


def test_rates_are_measured():
    cpu = torch.device("cpu")
    assert 0.01 < doctor.gemm_rate(cpu, 64) < 1e6
    assert 0.01 < doctor.convolution_rate(cpu, 1) < 1e6


def test_forward_passes_are_counted():
    images = tuple(faithmap.load_images(torch.rand(2, 3, 4, 4)))
    keys = tuple(ChainKey(method, "morf", draw) for method in "abc" for draw in range(2))
    # 2 images × (6 chains × 4 steps + one untouched image a draw)
    assert forward_passes(Task(images, keys, range(5))) == 2 * (6 * 4 + 2)
    # continued: 2 images × 6 chains × (the step before + 2 steps)
    assert forward_passes(Task(images, keys, range(5, 7))) == 2 * 6 * 3


def test_an_estimate_counts_what_is_missing_and_writes_nothing(run, tmp_path):
    pixels = torch.rand((20, 3, 24, 24), generator=torch.Generator().manual_seed(1))
    protocol = run.protocol.override(draws=4)
    methods = ["sensitivity:l2", "lrp-epsilon:0.01"]
    before = sorted(run.folder.rglob("*"))
    found = estimate(plan(network(), pixels, methods, protocol, run.folder), seconds=0.2)
    assert found.scores == 20 * 3 * 2 * 7
    assert found.heatmaps == 20 * 2
    assert found.seconds > 0
    assert found.bytes > found.scores * 4
    assert sorted(run.folder.rglob("*")) == before
    nothing = estimate(plan(network(), pixels, methods, run.protocol, run.folder), seconds=0.2)
    assert (nothing.scores, nothing.seconds, nothing.bytes) == (0, 0, 0)
    with pytest.raises(StoreError, match="changed: region_size"):
        plan(network(), pixels, methods, run.protocol.override(region_size=5), run.folder)
    assert not (tmp_path / "new").exists()
    fresh = estimate(plan(network(), pixels, methods, run.protocol, tmp_path / "new", save_heatmaps=True), seconds=0.2)
    assert fresh.bytes > 20 * 2 * 24 * 24 * 4
    assert not (tmp_path / "new").exists()


def test_an_estimate_says_how_many_points_and_random_orders(tmp_path, capsys):
    from faithmap.cli.show import show_estimate

    protocol = faithmap.Protocol.preset("srg", region_size=4, points=6, random_draws=3)
    found = estimate(plan(network(), torch.rand(2, 3, 24, 24), ["edge"], protocol, tmp_path / "new"), seconds=0.1)
    assert (found.draws, found.random_draws, found.points) == (1, 3, 6)
    assert found.scores == 2 * (1 + 3) * 2 * 6
    show_estimate(found)
    assert "2 images × 2 methods × 2 orders × 1 draw (3 of random) × 6 points" in " ".join(
        capsys.readouterr().out.split()
    )


def test_the_command_says_what_is_wrong(run):
    found = CliRunner().invoke(app, ["doctor", str(run.folder)])
    assert "none missing" in found.stdout
    (run.folder / run.store.parts()[0]).write_bytes(b"")
    found = CliRunner().invoke(app, ["doctor", str(run.folder)])
    assert found.exit_code == 1
    assert "✗" in found.stdout


def test_an_executor_that_nobody_knows():
    found = CliRunner().invoke(app, ["run", "--executor", "rey"])
    assert found.exit_code == 1
    assert "did you mean 'ray'" in found.stderr
    found = CliRunner().invoke(app, ["run", "--workers", "2"])
    assert "--executor ray" in found.stderr
