"""Run folders of the first version open, and go on, as before."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch

import faithmap

FIRST = Path(__file__).parent / "fixtures" / "version1"


def pixels(count: int = 3) -> torch.Tensor:
    """The images of the folder, and a fourth that it lacks."""
    number = torch.arange(4 * 3 * 24 * 24, dtype=torch.float64)
    return ((number * 0.618033988749895) % 1).mul(255).round().div(255).float().view(4, 3, 24, 24)[:count]


@pytest.fixture
def folder(tmp_path) -> Path:
    return Path(shutil.copytree(FIRST, tmp_path / "run"))


def evaluate(classifier, folder, images=3, **parts):
    asked = {"steps": 6, "region_size": 4, "draws": 2, "orders": ("morf", "lerf"), **parts}
    computed = []
    run = faithmap.evaluate(
        classifier,
        pixels(images),
        ["lrp-epsilon:0.01", "sensitivity:l2"],
        faithmap.Protocol.preset("samek2017", **asked),
        folder,
        progress=computed.append,
    )
    return run, computed


def written() -> pd.DataFrame:
    rows = pd.concat(pd.read_parquet(path) for path in sorted((FIRST / "scores").glob("*.parquet")))
    keys = ["image", "method", "order", "draw", "step"]
    return rows.astype(dict.fromkeys(("image", "method", "order"), str)).sort_values(keys, ignore_index=True)


def test_a_folder_of_the_first_version_opens():
    run = faithmap.Run(FIRST)
    scores = run.scores()
    assert run.manifest.classifier.name == "tiny"
    assert run.manifest.groups() == {"0": "0", "1": "1", "2": "2"}
    assert (scores["group"].astype(str) == scores["image"].astype(str)).all()
    assert len(run.examples()) == 3
    expected = written()
    for name in expected.columns:
        assert (scores[name].astype(expected[name].dtype) == expected[name]).all() or expected[name].isna().all(), name


def test_nothing_of_it_is_computed_again(tiny, folder):
    parts = sorted(path.name for path in (folder / "scores").iterdir())
    _, computed = evaluate(tiny, folder)
    assert not computed
    assert sorted(path.name for path in (folder / "scores").iterdir()) == parts


def test_it_goes_on_bit_for_bit(tiny, folder, tmp_path):
    """What the first version stored stays, what is added equals a run that is made anew."""
    run, computed = evaluate(tiny, folder, images=4, draws=3)
    assert computed[-1].scores == 3 * 3 * 2 * 7 + 3 * 2 * 3 * 7  # a draw of three images, and the fourth image
    anew, _ = evaluate(tiny, tmp_path / "anew", images=4, draws=3)
    pd.testing.assert_frame_equal(run.scores(), anew.scores(), check_categorical=False)


def test_a_stored_order_is_replayed_from_it():
    run = faithmap.Run(FIRST)
    example = run.examples()[0]
    for order in ("morf", "lerf"):
        assert sorted(run.removal_step(example, "sensitivity:l2", order).unique().tolist()) == list(range(7))
    assert not torch.equal(run.removal_step(example, "random", draw=0), run.removal_step(example, "random", draw=1))


def test_another_question_is_refused_there_too(tiny, folder):
    with pytest.raises(faithmap.FaithmapError, match="changed: region_size: 4 → 5"):
        evaluate(tiny, folder, region_size=5, steps=4)
