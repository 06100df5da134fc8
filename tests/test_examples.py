"""The scripts that a reader runs, run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]


def test_quality_proxy(tmp_path):
    pytest.importorskip("sklearn")
    command = [sys.executable, "examples/quality_proxy.py", "--images", "4", "--out", str(tmp_path / "proxy.png")]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    found = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    lines = [line.split() for line in found.stdout.splitlines() if line.startswith("step")]
    accuracy = [float(line[3]) for line in lines]
    assert len(lines) == 11
    assert accuracy[0] < 0.3
    assert accuracy[-1] > 0.9
    with Image.open(tmp_path / "proxy.png") as picture:
        assert picture.size[0] > 500
