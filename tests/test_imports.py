"""The arrows of the design: a module imports only what stands above it."""

import ast
from pathlib import Path

import pytest

import faithmap

PACKAGE = Path(faithmap.__file__).parent
LAYERS = [
    {"errors", "_version"},
    {"protocol", "curves", "naming", "complexity"},
    {"classifiers"},
    {"images", "storage", "extents"},
    {"perturbation", "regions", "segments"},
    {"attribution", "inference"},
    {"store", "statistics"},
    {"experiment", "plots", "randomisation"},
    {"executors", "progress"},
    {"cluster"},
    {"manifest", "results"},
    {"run"},
    {"report", "operators", "estimate", "doctor"},
    {"cli"},
    {"__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def modules():
    return sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


def imported(path):
    tree = ast.parse((PACKAGE / path).read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("faithmap."):
            yield node.module.split(".")[1], node.col_offset == 0
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("faithmap."):
                    yield alias.name.split(".")[1], node.col_offset == 0


@pytest.mark.parametrize("path", modules(), ids=str)
def test_imports_point_one_way(path):
    own = path.parts[0].removesuffix(".py")
    assert own in LEVEL, f"{own} has no place in the design: add it to LAYERS"
    for other, at_top in imported(path):
        if at_top and other != own:
            assert LEVEL[other] < LEVEL[own], f"{path} imports {other}"


def test_inference_never_learns_what_a_heatmap_is():
    for path in (PACKAGE / "inference").glob("*.py"):
        assert not {name for name, _ in imported(path)} & {"attribution", "regions", "images"}


def test_pages_and_pictures_never_load_a_model():
    for path in [PACKAGE / "plots.py", *(PACKAGE / "report").glob("*.py"), PACKAGE / "statistics.py"]:
        if path.exists():
            assert not {name for name, _ in imported(path)} & {"classifiers", "attribution", "inference"}
