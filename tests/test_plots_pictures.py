"""All figures look as they did: compared with stored small pictures; `tests/pictures.py` stores others."""

import numpy as np
import pytest
from PIL import Image

from tests.pictures import STORED, drawings, picture


@pytest.fixture(scope="module")
def drawn():
    return drawings()


@pytest.mark.parametrize("name", [path.stem for path in sorted(STORED.glob("*.png"))])
def test_a_figure_looks_as_it_did(name, drawn, tmp_path):
    got = picture(drawn[name], tmp_path / f"{name}.png")
    with Image.open(STORED / f"{name}.png") as opened:
        stored = np.asarray(opened.convert("RGB"), dtype=float)
    assert got.shape == stored.shape, f"{name} has another size: look at it, then python -m tests.pictures"
    # Letters may be rasterised otherwise by another version: few pixels, and none of the large areas.
    different = (np.abs(got - stored).max(-1) > 64).mean()
    assert different < 0.02, f"{name} looks different: look at it, then python -m tests.pictures"


def test_every_figure_is_stored(drawn):
    assert {path.stem for path in STORED.glob("*.png")} == set(drawn)


def test_a_change_is_noticed(drawn, tmp_path):
    other = picture(drawn["ranking"], tmp_path / "a.png")
    moved = np.roll(other, 6, axis=0)
    assert (np.abs(other - moved).max(-1) > 64).mean() > 0.02
