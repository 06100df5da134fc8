"""The command line as a person meets it: messages, exit codes, files."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from faithmap import cli
from faithmap.cli.options import bytes_of
from faithmap.errors import FaithmapError

runner = CliRunner()


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "images"
    path.mkdir()
    random = np.random.default_rng(0)
    for name in ("a.png", "with space.png"):
        Image.fromarray(random.integers(0, 256, (230, 300, 3), dtype=np.uint8)).save(path / name)
    return path


def run(*args: object):
    return runner.invoke(cli.app, [str(arg) for arg in args], env={"COLUMNS": "200"})


SMALL = ("--protocol", "samek2017", "--draws", 1, "--steps", 3, "--methods", "sensitivity:l2,lrp-epsilon:0.01")


def test_a_run_leaves_table_figure_scores_and_record(folder, tmp_path):
    (folder / "broken\n.jpg").write_text("text")
    result = run("run", "--images", folder, *SMALL, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert "LRP-ε (0.01)" in result.stdout
    assert "skipped: 1 images" in result.stderr
    assert "broken\\n.jpg" in result.stderr
    frame = pd.read_parquet(tmp_path / "run" / "scores.parquet")
    assert len(frame) == 2 * 3 * 4
    assert (frame["group"] == frame["image"]).all()
    with Image.open(tmp_path / "run" / "fig4.png") as figure:
        assert figure.size[0] > 500
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["finished"]
    assert manifest["protocol"]["steps"] == 3
    again = run("run", "--images", folder, *SMALL, "--out", tmp_path / "run")
    assert again.exit_code == 0, again.output
    drawn = run("plot", tmp_path / "run", "--out", tmp_path / "other.svg")
    assert drawn.exit_code == 0, drawn.output
    assert "perturbation steps" in (tmp_path / "other.svg").read_text()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--methods", "sensitivty:l2"), "did you mean 'sensitivity"),
        (("--methods", "lrp-epsilon:-1"), "lrp-epsilon"),
        (("--model", "alexnt"), "did you mean 'alexnet'"),
        (("--protocol", "samek2071"), "did you mean 'samek2017'"),
        (("--steps", "0"), "steps is 0"),
        (("--region-size", "300"), "region_size is 300 pixels"),
        (("--protocol", "samek2017", "--region-size", "40"), "25 regions of 40 pixels fit"),
        (("--fill", "unifrom"), "did you mean 'uniform'"),
        (("--target", "lable"), "did you mean 'label'"),
        (("--images", "no/such/folder"), "no folder or file no/such/folder"),
        (("--device", "cuda:99"), "cuda:99"),
        (("--limit", "0"), "limit is 0"),
        (("--engine", "dens"), "did you mean 'dense'"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_sentence(folder, tmp_path, args, message):
    result = run("run", "--images", folder, "--out", tmp_path / "run", *args)
    assert result.exit_code == 1
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert isinstance(result.exception, SystemExit)


def test_a_folder_without_images_is_refused(tmp_path):
    result = run("run", "--images", tmp_path, "--out", tmp_path / "run")
    assert result.exit_code == 1
    assert "no image in" in result.stderr


def test_only_bad_images_is_an_error(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    result = run("run", "--images", tmp_path, *SMALL, "--out", tmp_path / "run")
    assert result.exit_code == 1
    assert "not one image could be measured" in result.stderr


def test_plot_of_no_run_says_what_to_do(tmp_path):
    result = run("plot", tmp_path)
    assert result.exit_code == 1
    assert "holds no run" in result.stderr


def test_help_teaches():
    for command in ("run", "plot", "methods", "doctor"):
        result = run(command, "--help")
        assert result.exit_code == 0
    assert "goes on where it stopped" in run("run", "--help").stdout


def test_methods_are_listed():
    result = run("methods")
    assert result.exit_code == 0
    assert "sensitivity:l2" in result.stdout


def test_no_network_is_one_sentence(tmp_path):
    """`main.py` without a network and without data: what is missing, and where to put it."""
    script = (
        "import sys, torch\n"
        "from faithmap import classifiers, cli\n"
        "sys.argv = ['main.py', '--images', '1', '--data', sys.argv[1]]\n"
        "cli.replication()\n"
    )
    environment = os.environ | {"TORCH_HOME": str(tmp_path), "https_proxy": "http://127.0.0.1:9", "no_proxy": ""}
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "could not be downloaded" in done.stderr
    said = " ".join(done.stderr.split())
    assert "AlexNet and Imagenette" in said
    assert "make demo" in said
    assert "Traceback" not in done.stderr


def test_ctrl_c_stops_cleanly_and_the_run_goes_on(folder, tmp_path):
    command = [sys.executable, "-m", "faithmap", "run", "--images", str(folder), "--draws", "200", "--steps", "100"]
    command += ["--methods", "sensitivity:l2", "--out", str(tmp_path / "run")]
    # A shell's background job, as this may be one, passes on that Ctrl-C is ignored.
    attentive = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=attentive)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "run").glob("scores/part-*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "run the same command again to go on" in stderr
    assert "Traceback" not in stderr
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["finished"] is None


@pytest.mark.parametrize(
    ("text", "bytes_"), [("2GiB", 2 << 30), ("1.5 MB", 1_500_000), ("1000", 1000), ("3kb", 3000), (None, None)]
)
def test_memory_is_written_as_people_write_it(text, bytes_):
    assert bytes_of(text) == bytes_


@pytest.mark.parametrize("text", ["lots", "-1GB", "2TB", "", "1e9"])
def test_memory_that_is_no_number_of_bytes_is_refused(text):
    with pytest.raises(FaithmapError, match="--memory is"):
        bytes_of(text)
