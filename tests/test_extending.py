"""docs/extending.md: its code runs from top to bottom, and adds what it says."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text()
CODE = "".join(re.findall(r"```python\n(.*?)```", PAGE, flags=re.S))
# Without its handler the engine computes a softmax for whole images.
AFTER = """
import os
from faithmap.inference import examine
from faithmap.inference.incremental.operations import HANDLERS
assert examine(gated).layers[0].operation == "convolution + softmax"
del HANDLERS[aten.softmax.int]
assert "softmax" in examine(gated).reason
assert os.path.getsize("falls.png") > 5000
"""


def test_the_code_of_the_page_runs(tmp_path):
    done = subprocess.run([sys.executable, "-c", CODE + AFTER], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("decorator", ["heatmap_method", "fill", "measure", "figure", "operation"])
def test_each_of_the_five_has_an_example(decorator):
    assert f"\n@{decorator}(" in CODE


def test_the_entry_points_are_those_that_are_read():
    from faithmap.cli.listing import KINDS

    (project,) = re.findall(r"```toml\n(.*?)```", PAGE, flags=re.S)
    assert set(tomllib.loads(project)["project"]["entry-points"]) == {kind.group for kind in KINDS}
