"""node and the two packages that check the page, installed into node_modules when they are first needed."""

import fcntl
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NODE = shutil.which("node")
NPM = shutil.which("npm")


def node_modules(package: str) -> Path:
    """The folder that holds a package; the test is skipped where it cannot be had."""
    folder = ROOT / "node_modules"
    if NODE is None:
        pytest.skip("no node: apt-get install nodejs npm")
    with (ROOT / "package.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests that run beside each other install once
        if not (folder / package).is_dir():
            _install()
    return folder


def _install() -> None:
    if NPM is None:
        pytest.skip("no npm: apt-get install npm")
    command = [NPM, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip("npm ci took too long")
    if done.returncode != 0:
        pytest.skip(f"npm ci did not succeed: {done.stderr.strip()[-200:]}")
