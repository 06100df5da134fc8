"""The command in its own process: terminals, signals and names that nobody would choose."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import faithmap
from faithmap.cli.doctor import run_folder
from faithmap.cli.measuring import command_line
from faithmap.errors import FaithmapError, StoreWarning
from tests.conftest import TinyNet
from tests.terminal import invoke

ODD = ["[/b]", "[bold]a", ":smile:", "a\nb", "\x1b[31mred", "∞ε", "{x}%s"]
PROTOCOL = faithmap.Protocol.preset("samek2017", steps=2, region_size=8, draws=1, orders=("morf", "lerf"))


def function(inputs, targets):
    return inputs.sum(1)


def odd_run(out, **how):
    """A run whose images, groups, classes, methods and network have such names."""
    torch.manual_seed(0)
    items = [faithmap.images.TensorImage(name, torch.rand(3, 24, 24), None) for name in ODD]
    labels = ["[/b]", "[bold]a", "a\nb", "\x1b[31mred", "∞"]
    network = faithmap.Classifier(TinyNet(), name="[/b] net\n", labels=labels)
    images = faithmap.Images("[/b] set\n", items).grouped({name: f"[/b]{name}" for name in ODD})
    methods = {"[/b]": "sensitivity", "[bold]a": function, "edge": "edge"}
    return faithmap.evaluate(network, images, methods, PROTOCOL, out, save_heatmaps=True, measures="gini", **how)


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """The folder, whose own name is odd as well."""
    return odd_run(tmp_path_factory.mktemp("odd") / "[bold]run[/b]").folder


COMMANDS = {
    "scorecard": ["scorecard"],
    "scorecard, LaTeX": ["scorecard", "--latex"],
    "cite": ["cite"],
    "compare": ["compare", "AGAIN"],
    "doctor": ["doctor"],
    "report": ["report", "--out", "OUT/[b]page.html"],
    "plot": ["plot", "--figure", "ranking", "--out", "OUT/[b].png"],
    "heatmaps": ["plot", "--figure", "heatmaps", "--out", "OUT/h.png"],
    "leaderboard": ["leaderboard", "--out", "OUT/[b].html"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_names_are_shown_as_they_are_and_move_nothing(odd, tmp_path, name):
    command, *options = COMMANDS[name]
    given = [command, str(odd.parent if command == "leaderboard" else odd)]
    given += [str(odd) if one == "AGAIN" else one.replace("OUT", str(tmp_path)) for one in options]
    result = invoke(given)
    assert result.exit_code in ((0, 1) if command == "doctor" else (0,)), result.output
    assert "\x1b[31m" not in result.output
    assert "Traceback" not in result.output
    if command in ("scorecard", "compare"):
        assert "[/b]" in result.output
        assert "[bold]a" in result.output
    if command == "report":
        page = (tmp_path / "[b]page.html").read_text()
        assert "<b>page" not in page
        assert "[bold]a" in page


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8:strict"])
def test_a_terminal_of_any_encoding_is_written_to(odd, tmp_path, encoding):
    command = [sys.executable, "-m", "faithmap", "scorecard", str(odd)]
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "200"}
    done = subprocess.run(command, capture_output=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    said = done.stdout.decode(encoding.partition(":")[0])
    assert "[bold]a" in said
    assert ("↑" in said) == (encoding == "utf-8:strict")


def test_a_backend_of_matplotlib_that_is_not_there_ends_nothing(odd, tmp_path):
    command = [sys.executable, "-m", "faithmap", "plot", str(odd), "--out", str(tmp_path / "f.png")]
    environment = {**os.environ, "MPLBACKEND": "bogus"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")


def images_in(folder: Path) -> Path:
    from PIL import Image

    folder.mkdir()
    for name in "ab":
        Image.new("RGB", (230, 230), (90, 120, ord(name))).save(folder / f"{name}.png")
    return folder


@pytest.mark.parametrize(("number", "after"), [(2, 0.05), (2, 0.4), (2, 1.0), (2, 2.5), (15, 0.4), (15, 2.5)])
def test_ctrl_c_many_times_at_any_moment_is_one_line(tmp_path, number, after):
    """So is SIGTERM, which a batch system sends."""
    command = [sys.executable, "-m", "faithmap", "run", "--images", str(images_in(tmp_path / "images"))]
    command += ["--steps", "100", "--draws", "300", "--methods", "edge", "--out", str(tmp_path / "run")]
    # A shell's background job, as this may be one, passes on that Ctrl-C is ignored.
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    # Not before Python can say anything of its own.
    begun = time.monotonic()
    while "faithmap" not in Path(f"/proc/{process.pid}/cmdline").read_text() and time.monotonic() - begun < 30:
        time.sleep(0.01)
    time.sleep(0.3 + after)
    for _ in range(10):
        process.send_signal(number)
        time.sleep(0.02)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode in (130, -number, -signal.SIGINT), stderr
    assert "Traceback" not in stdout + stderr
    assert sum(line.startswith("error: ") for line in stderr.splitlines()) <= 1
    if (tmp_path / "run" / "manifest.json").exists():
        assert not [one for one in run_folder(tmp_path / "run") if one.state == "bad" and "damaged" in one.what]


DEAF = """
import os
try:
    os.kill(os.getpid(), NUMBER)
except BaseException:
    print("went on")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_while_code_is_loaded_that_would_not_hear_it(tmp_path, number):
    """torch, for one, ends the process with a message of its own where an exception meets its C++ code."""
    record = tmp_path / "deaf-1.0.dist-info"
    record.mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: deaf\nVersion: 1.0\n")
    (record / "entry_points.txt").write_text("[faithmap.methods]\nanything = deaf\n")
    (tmp_path / "deaf.py").write_text(DEAF.replace("NUMBER", str(int(number))))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    usual = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), "env": environment}
    command = [sys.executable, "-m", "faithmap", "methods"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, **usual)
    assert (done.returncode, done.stderr) == (130, "error: stopped.\n")
    assert "went on" not in done.stdout


def test_a_folder_where_temporary_files_go_is_left_alone(tmp_path):
    (tmp_path / "run" / ".tmp" / "folder" / "inside").mkdir(parents=True)
    assert odd_run(tmp_path / "run").manifest.finished
    assert (tmp_path / "run" / ".tmp" / "folder" / "inside").is_dir()


def read_all(folder):
    run = faithmap.Run(folder)
    return run.scores(), run.measures(), run.examples(None)


FORGERIES = {
    "cut": lambda data, other: data[: len(data) // 2],
    "empty": lambda data, other: b"",
    "text": lambda data, other: b"PAR1 text PAR1",
    "another kind": lambda data, other: other,
}


@pytest.mark.parametrize("kind", ["heatmaps", "measures", "scores"])
@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_part_with_a_forged_hash_is_found_by_doctor_and_by_a_resumed_run(odd, tmp_path, kind, forgery):
    run = tmp_path / "run"
    shutil.copytree(odd, run)
    victim = min((run / kind).iterdir())
    other = min((run / {"heatmaps": "scores", "measures": "scores", "scores": "measures"}[kind]).iterdir())
    data = FORGERIES[forgery](victim.read_bytes(), other.read_bytes())
    victim.unlink()
    name = f"{victim.name.rpartition('-')[0]}-{hashlib.sha256(data).hexdigest()[:24]}{victim.suffix}"
    victim.with_name(name).write_bytes(data)
    before = [one for one in run_folder(run) if one.state == "bad" and name in one.what]
    assert len(before) == 1
    assert "run the same command again" in before[0].remedy
    with pytest.raises(FaithmapError, match="damaged"):
        read_all(run)
    with pytest.warns(StoreWarning, match=name):
        odd_run(run)
    assert not [one for one in run_folder(run) if one.state == "bad" and name in one.what]
    assert (run / "damaged").is_dir()
    assert json.loads((run / "manifest.json").read_text())["finished"]


ODD_PATHS = ["a\nb", "a\rb", "\x1b[31m", "a\udcffb", "[/b]", "a\u2028b"]


@pytest.mark.parametrize("path", ODD_PATHS)
@pytest.mark.parametrize(
    "command",
    [
        ["run", "--images", "PATH"],
        ["run", "--methods", "PATH"],
        ["run", "--heatmaps", "x=PATH"],
        ["run", "--model", "PATH"],
        ["run", "--groups", "PATH.csv"],
        ["run", "--target", "PATH.csv"],
        ["run", "--measures", "PATH"],
        ["run", "--masks", "PATH", "--measures", "pointing-game"],
        ["run", "--fill", "PATH"],
        ["run", "--heatmaps-from", "PATH/x"],
        ["study", "--settings", "PATH"],
        ["study", "--region-sizes", "PATH"],
        ["report", "PATH"],
        ["scorecard", "PATH"],
        ["leaderboard", "PATH"],
        ["plot", "PATH", "--figure", "PATH"],
        ["cite", "PATH"],
        ["compare", "PATH", "PATH"],
    ],
    ids=" ".join,
)
def test_a_name_that_is_no_text_gives_a_message_of_one_line(tmp_path, monkeypatch, command, path):
    monkeypatch.chdir(tmp_path)
    small = ["--steps", "2", "--limit", "1"] if command[0] == "run" else []
    result = invoke([one.replace("PATH", path) for one in command] + small)
    assert result.exit_code == 1, result.output
    last = result.stderr[result.stderr.rindex("error: ") :].rstrip("\n")
    assert last.isprintable()
    assert "Traceback" not in result.output


@pytest.mark.parametrize(("given", "shown"), [(b"\xff", r"'\xff'"), ("é".encode(), "'é'"), (b"a", "a")])
def test_the_command_is_recorded_whatever_its_bytes_and_the_locale(monkeypatch, given, shown):
    monkeypatch.setattr(sys, "argv", ["faithmap", given.decode("ascii", "surrogateescape")])
    assert command_line() == f"faithmap {shown}"
