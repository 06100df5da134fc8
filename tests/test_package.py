"""The wheel and the sdist: built from a copy of the tree, checked for what they hold."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytest.importorskip("build")
pytest.importorskip("twine")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist, and the wheel that is built from it."""
    source, out = tmp_path_factory.mktemp("source") / "faithmap", tmp_path_factory.mktemp("dist")
    source.mkdir()
    for path in ROOT.iterdir():
        if path.name in ("src", "docs", "tests", "examples", "benchmarks"):
            shutil.copytree(path, source / path.name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        elif path.is_file():
            shutil.copy(path, source)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel


def tracked(folder):
    """The files under a folder of the tree, without what tools leave there."""
    found = {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*") if path.is_file()}
    return {name for name in found if "__pycache__" not in name and ".egg-info" not in name}


def test_the_wheel_holds_the_package_and_nothing_else(built):
    names = set(zipfile.ZipFile(built[1]).namelist())
    package = {name for name in names if ".dist-info/" not in name}
    assert package == {name.removeprefix("src/") for name in tracked("src")}
    assert {"faithmap/py.typed", "faithmap/__init__.py"} <= package
    assert {Path(name).suffix for name in package} >= {".py", ".html", ".js", ".css"}


def test_the_sdist_holds_documents_tests_and_examples(built):
    with tarfile.open(built[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for folder in ("src", "docs", "tests", "examples", "benchmarks"):
        assert tracked(folder) <= names
    for name in ("README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "SECURITY.md", "CONTRIBUTING.md", "Makefile"):
        assert name in names


def test_the_index_would_take_them(built):
    done = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *map(str, built)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("PASSED") == 2
