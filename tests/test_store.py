import json
import random

import pandas as pd
import pytest
import torch

from faithmap.errors import StoreError
from faithmap.store import FORMAT, Example, Store


def rows(image: str = "a", method: str = "m", points: int = 3) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "image": image,
            "label": pd.array([None] * points, dtype="Int32"),
            "predicted": 1,
            "target": 1,
            "method": method,
            "order": "morf",
            "draw": 0,
            "step": range(points),
            "logit": [1.5 - k for k in range(points)],
            "probability": [0.5] * points,
        }
    )


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "run")
    with store.lock():
        store.write_part(rows("a"))
        store.write_part(rows("b\n\U0001f600", points=5))
    return store


def test_parts_read_as_one_table_elsewhere(store):
    duckdb = pytest.importorskip("duckdb")
    polars = pytest.importorskip("polars")
    pattern = f"{store.scores_folder}/part-*.parquet"
    assert len(store.frame()) == len(pd.read_parquet(store.scores_folder)) == len(polars.read_parquet(pattern)) == 8
    assert duckdb.sql(f"select sum(logit) from '{pattern}'").fetchall()[0][0] == pytest.approx(
        store.frame().logit.sum()
    )


def test_finished_steps_are_found(store):
    assert store.finished_steps() == {
        "a": {("m", "morf", 0): [range(3)]},
        "b\n\U0001f600": {("m", "morf", 0): [range(5)]},
    }


def test_the_same_rows_written_twice_count_once(store):
    other = rows("a")
    other["logit"] += 1e-6  # another machine's rounding
    with store.lock():
        store.write_part(other)
    assert len(store.frame()) == 8


def test_heatmaps_come_back_as_they_were(store):
    pixels = torch.randint(0, 256, (3, 6, 5)).float().div(255)
    heatmaps = {"a:b=1": torch.randn(6, 5), "a/b": torch.randn(6, 5)}
    first = Example("i", pixels, label=None, predicted=1, target=2, heatmaps={"a:b=1": heatmaps["a:b=1"]})
    other = Example("j", torch.rand(3, 6, 5), label=3, predicted=3, target=3, heatmaps={})
    second = Example("i", pixels, label=None, predicted=1, target=2, heatmaps={"a/b": heatmaps["a/b"]})
    with store.lock():
        store.write_examples([first, other])
        store.write_examples([second])
    i, j = store.examples(["i", "j"])
    assert (i.label, i.predicted, i.target, j.label) == (None, 1, 2, 3)
    assert torch.equal(i.pixels, pixels)
    assert torch.equal(j.pixels, other.pixels)
    for method, heatmap in heatmaps.items():
        assert torch.equal(i.heatmaps[method], heatmap)
        assert torch.equal(store.stored_heatmaps().heatmap("i", method, 2), heatmap)
    assert store.stored_heatmaps().heatmap("i", "a/b", 1) is None


def test_damage_is_found_and_named(store):
    path = store.parts()[0]
    whole = path.read_bytes()
    random.seed(0)
    damages = [whole[: random.randrange(len(whole))] for _ in range(50)]
    for _ in range(50):
        place = random.randrange(len(whole))
        damages.append(whole[:place] + bytes([whole[place] ^ 1 << random.randrange(8)]) + whole[place + 1 :])
    for damage in damages:
        path.write_bytes(damage)
        assert store.damaged_parts() == [path]
        with pytest.raises(StoreError, match=path.name):
            store.frame()
    assert store.remove_damaged_parts() == [path]
    assert len(store.parts()) == 1


def test_a_second_writer_is_told_who_holds_the_folder(store):
    with store.lock(), pytest.raises(StoreError, match="in use by process"), Store(store.folder).lock():
        pass
    with store.lock():
        pass


def test_what_a_killed_writer_left_is_swept_up(store):
    left = store.scores_folder / ".tmp-123"
    left.write_bytes(b"half")
    with store.lock():
        assert not left.exists()


def test_a_newer_manifest_is_refused(store):
    store.write_manifest({"a": 1})
    assert store.read_manifest() == {"format": FORMAT, "a": 1}
    store.manifest_path.write_text(json.dumps({"format": FORMAT + 1, "versions": {"faithmap": "9.9"}}))
    with pytest.raises(StoreError, match=r"written by faithmap 9\.9"):
        store.read_manifest()


def test_an_empty_folder_says_what_to_do(tmp_path):
    with pytest.raises(StoreError, match="holds no scores"):
        Store(tmp_path).frame()
