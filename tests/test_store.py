import contextlib
import errno
import json
import os
import random
import socket
import subprocess
import sys
import time
from pathlib import Path
from uuid import uuid4

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from faithmap.errors import StoreError
from faithmap.protocol import Protocol
from faithmap.store.folder import Store, heatmap_part
from faithmap.store.index import Builder
from faithmap.store.manifest import ClassifierRecord, ImageRecord, Manifest
from faithmap.store.records import FORMAT, Example

SRC = str(Path(__file__).parents[1] / "src")


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
    index = store.index()
    assert index.of_image("a").steps() == {("m", "morf", 0): [range(3)]}
    assert index.of_image("b\n\U0001f600").steps() == {("m", "morf", 0): [range(5)]}
    assert index.of_image("c").steps() == {}
    assert index.of_image("a").signature() != index.of_image("b\n\U0001f600").signature()


def test_rows_that_are_there_twice_count_once_and_are_dropped(store):
    before = store.frame()
    other = rows("a", points=6)
    other["logit"] += 1e-6  # another machine's rounding
    other["note"] = "x"
    with store.lock():
        store.write_part(other)
        store.write_part(rows("a").iloc[1:])
        read = store.frame()
        assert len(read) == len(before) + 3
        assert not read.duplicated(["image", "method", "order", "draw", "step"]).any()
        assert store.repair() == []
    # Whoever reads the folder without us sees each row once, too.
    plain = pd.read_parquet(store.scores_folder)
    assert len(plain) == len(read)
    assert not plain.duplicated(["image", "method", "order", "draw", "step"]).any()
    pd.testing.assert_frame_equal(store.frame(), read)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 1), st.integers(0, 9), st.integers(1, 6)), max_size=12))
def test_segments_are_what_a_loop_finds(pieces):
    builder, expected = Builder(), {}
    for part, (image, draw, first, count) in enumerate(pieces):
        table = pa.table(
            {"image": [image] * count, "method": ["m"] * count, "order": ["morf"] * count, "draw": [draw] * count}
        ).append_column("step", pa.array(range(first, first + count)))
        builder.add(part, table)
        for row in range(count):
            expected.setdefault((image, draw, first + row), set()).add((part, row))
    segments = builder.build()
    names = np.array(segments.names["image"] or [""])[np.repeat(segments.image, segments.count)]
    found = list(
        zip(names.tolist(), np.repeat(segments.draw, segments.count).tolist(), segments.step().tolist(), strict=True)
    )
    assert found == sorted(expected)
    where = zip(np.repeat(segments.part, segments.count).tolist(), segments.rows().tolist(), strict=True)
    assert all(place in expected[step] for step, place in zip(found, where, strict=True))


def test_a_row_order_without_runs_is_understood(store):
    shuffled = rows("z", points=7).sample(frac=1, random_state=1)
    with store.lock():
        store.write_part(shuffled)
    found = store.frame().query("image == 'z'")
    assert found.step.tolist() == list(range(7))
    assert found.logit.tolist() == [1.5 - k for k in range(7)]


def test_unknown_columns_are_kept(store, tmp_path):
    more = rows("c").assign(note=["x", None, "z"], weight=[1.5, 2.5, 3.5])
    with store.lock():
        store.write_part(more)
    frame = store.frame()
    assert frame.query("image == 'c'").note.fillna("none").tolist() == ["x", "none", "z"]
    assert frame.query("image == 'a'").weight.isna().all()
    exported = pd.read_parquet(store.export(tmp_path / "all.parquet"))
    assert exported.query("image == 'c'").weight.tolist() == [1.5, 2.5, 3.5]


def test_the_export_is_the_frame(store, tmp_path):
    for size in (1, 4, 1_000_000):
        exported = pd.read_parquet(store.export(tmp_path / "all.parquet", rows=size))
        frame = store.frame().astype({"image": "str", "method": "str", "order": "str"})
        pd.testing.assert_frame_equal(exported, frame, check_dtype=False)
        assert exported.dtypes["logit"] == np.float32
    assert not list(tmp_path.glob(".tmp*"))


def test_labels_that_are_not_known_stay_so(store):
    known = rows("k")
    known["label"] = pd.array([3, 3, 3], dtype="Int32")
    with store.lock():
        store.write_part(known)
    frame = store.frame()
    assert frame.label.dtype == "Int32"
    assert frame.query("image == 'a'").label.isna().all()
    assert (frame.query("image == 'k'").label == 3).all()


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


def damages(whole: bytes, count: int = 50) -> list[bytes]:
    """Cut off at random lengths, with flipped bits, with bytes added."""
    cut = [whole[: random.randrange(len(whole))] for _ in range(count)]
    flipped = []
    for _ in range(count):
        place = random.randrange(len(whole))
        flipped.append(whole[:place] + bytes([whole[place] ^ 1 << random.randrange(8)]) + whole[place + 1 :])
    return [b"", whole + b"x", *cut, *flipped]


def test_damage_is_found_and_named(store):
    random.seed(0)
    name = store.parts()[0]
    path = store.folder / name
    for damage in damages(path.read_bytes()):
        path.write_bytes(damage)
        assert store.damaged_parts() == [name]
        with pytest.raises(StoreError, match=path.name):
            store.frame()
    with store.lock(), pytest.warns(UserWarning, match=f"{path.name} is damaged: set aside as damaged/"):
        assert store.repair() == [name]
    assert len(store.parts()) == 1
    assert len(pd.read_parquet(store.scores_folder)) == len(store.frame())
    assert len(list((store.folder / "damaged").iterdir())) == 1


def test_damaged_heatmaps_are_found_and_never_used(store):
    random.seed(1)
    example = Example("i", torch.rand(3, 6, 5), None, 1, 2, {"a": torch.randn(6, 5)})
    with store.lock():
        name = store.write_examples([example])
    path = store.folder / name
    whole = path.read_bytes()
    heatmap = store.stored_heatmaps()
    for damage in damages(whole):
        path.write_bytes(damage)
        heatmap_part.cache_clear()
        assert store.damaged_parts() == [name]
        assert heatmap.heatmap("i", "a", 2) is None
        with pytest.raises(StoreError, match=path.name):
            list(store.examples())
    path.unlink()
    assert heatmap.heatmap("i", "a", 2) is None


def test_a_copied_part_does_not_count_twice(store):
    name = store.parts()[0]
    copy = store.folder / name.replace(".parquet", " (1).parquet")
    copy.write_bytes((store.folder / name).read_bytes())
    with store.lock(), pytest.warns(UserWarning, match="set aside"):
        store.repair()
    assert len(store.frame()) == 8


@pytest.mark.parametrize("where", ["scores", "heatmaps"])
def test_newer_parts_are_refused_not_set_aside(store, where):
    if where == "scores":
        table = pa.table({"new": [1]}).replace_schema_metadata(
            {"faithmap_format": str(FORMAT + 1), "faithmap_version": "9.9"}
        )
        pq.write_table(table, store.scores_folder / "part-from-the-future.parquet")
    else:
        (store.folder / "heatmaps").mkdir()
        data = safetensors.torch.save({"x": torch.zeros(1)}, {"format": str(FORMAT + 1), "version": "9.9"})
        (store.folder / "heatmaps/part-from-the-future.safetensors").write_bytes(data)
    with store.lock(), pytest.raises(StoreError, match=r"has format 2, written by faithmap 9\.9.*update"):
        store.repair()
    assert not (store.folder / "damaged").exists()


def test_a_second_writer_is_told_who_holds_the_folder(store):
    with store.lock(), pytest.raises(StoreError, match="in use by process"), Store(store.folder).lock():
        pass
    with store.lock():
        pass


def test_what_a_killed_writer_left_is_swept_up_and_never_read(store):
    left = store.folder / ".tmp" / "123"
    left.write_bytes(b"half")
    assert len(pd.read_parquet(store.scores_folder)) == 8
    with store.lock():
        assert not left.exists()


HOLD = """
import sys, time
from faithmap.store import Store
with Store(sys.argv[1]).lock():
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_dies_with_its_process(store):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(store.folder)], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": SRC}
    )
    try:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(StoreError, match=f"in use by process {holder.pid} on "), store.lock():
            pass
    finally:
        holder.kill()
        holder.wait()
    with store.lock():
        pass


class TestLease:
    """Where there are no locks: object stores, and disks that lack them."""

    @pytest.fixture
    def bare(self, tmp_path, monkeypatch):
        def refuse(*_):
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr("faithmap.store.storage.fcntl.flock", refuse)
        return Store(tmp_path / "bare")

    def test_one_at_a_time(self, bare):
        with bare.lock(), pytest.raises(StoreError, match=f"in use by process {os.getpid()}"), bare.lock():
            pass
        with bare.lock():
            pass
        assert not (bare.folder / ".lock").exists()

    @pytest.mark.parametrize(
        "note",
        [
            "",
            "rubbish",
            "[]",
            json.dumps({"process": 2**22 + 1, "host": socket.gethostname(), "renewed": 9e9}),
            json.dumps({"process": 1, "host": "elsewhere", "renewed": 1e9}),
        ],
    )
    def test_what_a_dead_process_left_does_not_block(self, bare, note):
        bare.folder.mkdir()
        (bare.folder / ".lock").write_text(note)
        with bare.lock():
            pass

    def test_another_machine_that_lives_is_named(self, bare):
        bare.folder.mkdir()
        note = {"process": 7, "host": "elsewhere", "since": "noon", "renewed": time.time()}
        (bare.folder / ".lock").write_text(json.dumps(note))
        with pytest.raises(StoreError, match="in use by process 7 on elsewhere since noon"), bare.lock():
            pass

    def test_it_is_renewed(self, bare, monkeypatch):
        monkeypatch.setattr("faithmap.store.storage.LEASE", 0.4)
        with bare.lock():
            time.sleep(0.8)
            with pytest.raises(StoreError, match="in use"), bare.lock():
                pass


class TestNotOnADisk:
    """The same over fsspec."""

    @pytest.fixture
    def store(self):
        url = f"memory://runs-{uuid4().hex}/one"
        store = Store(url)
        with store.lock():
            store.write_part(rows("a"))
            store.write_part(rows("b", points=5))
        return store

    def test_rows_heatmaps_and_manifest_come_back(self, store, tmp_path):
        assert len(store.frame()) == 8
        example = Example("i", torch.rand(3, 6, 5), None, 1, 2, {"a": torch.randn(6, 5)})
        with store.lock():
            store.write_examples([example])
            store.write_manifest(manifest_of("i"))
        assert torch.equal(next(store.examples()).heatmaps["a"], example.heatmaps["a"])
        assert torch.equal(store.stored_heatmaps().heatmap("i", "a", 2), example.heatmaps["a"])
        assert store.read_manifest() == manifest_of("i")
        assert len(pd.read_parquet(store.export(tmp_path / "all.parquet"))) == 8
        with pytest.raises(StoreError, match="not on a disk"):
            _ = store.folder

    def test_damage_is_set_aside(self, store):
        name = store.parts()[0]
        store.storage.put(name, store.storage.read(name)[:-1])
        with store.lock(), pytest.warns(UserWarning, match="damaged"):
            assert store.repair() == [name]
        assert len(store.parts()) == 1

    def test_one_writer_at_a_time(self, store):
        with store.lock(), pytest.raises(StoreError, match="in use by process"), Store(store.url).lock():
            pass
        with store.lock():
            pass

    def test_a_url_that_nobody_knows(self):
        with pytest.raises(StoreError, match="nowhere://x cannot be opened"):
            Store("nowhere://x")

    def test_a_file_url_is_a_folder(self, tmp_path):
        assert Store(f"file://{tmp_path}/run").folder == tmp_path / "run"


def manifest_of(*images: str, **parts) -> Manifest:
    return Manifest(
        protocol=Protocol(),
        fingerprint="0123",
        classifier=ClassifierRecord(name="net", fingerprint="4567", preprocessing={"crop": [6, 5]}),
        images={name: ImageRecord(content="89ab", group="one") for name in images},
        methods={"m": {"method": "m", "parameters": {"n": 1}}},
        **parts,
    )


def test_a_damaged_manifest_is_found(store):
    random.seed(2)
    manifest = manifest_of("a\udcff", "b", command="x \udcff")  # text that is no UTF-8 is written as an escape
    store.write_manifest(manifest)
    assert store.read_manifest() == manifest
    assert set(manifest.images) == {"a\\udcff", "b"}
    for damage in damages(store.manifest_path.read_bytes()):
        store.manifest_path.write_bytes(damage)
        read = None
        with contextlib.suppress(StoreError):
            read = store.read_manifest()
        if read is not None:  # white space, or the name of the checksum itself
            assert read.model_dump(exclude=read.model_extra.keys()) == manifest.model_dump(
                exclude=read.model_extra.keys()
            )


def test_a_newer_manifest_is_refused(store):
    store.write_manifest(manifest_of("a"))
    assert store.read_manifest() == Store(store.folder).read_manifest()
    assert store.read_manifest().format == FORMAT
    store.manifest_path.write_text(json.dumps({"format": FORMAT + 1, "versions": {"faithmap": "9.9"}}))
    with pytest.raises(StoreError, match=r"written by faithmap 9\.9"):
        store.read_manifest()


@pytest.mark.parametrize(
    ("edited", "says"),
    [
        ('{"format": 1}', "protocol: Field required"),
        ('{"format": 1, "protocol": {"tempo": 3}}', "a protocol has no part 'tempo'"),
        ('{"format": 1, "protocol": {"steps": -3}}', "steps is -3"),
        ("[" * 200_000, "is damaged"),
        ('{"a":' * 200_000 + "1" + "}" * 200_000, "is damaged"),
        ('{"format": "1"}', "is damaged"),
        ("7", "is damaged"),
    ],
    ids=["empty", "unknown part", "wrong part", "nested", "nested objects", "wrong type", "a number"],
)
def test_a_manifest_edited_by_hand_gets_one_sentence(store, edited, says):
    store.manifest_path.write_text(edited)
    with pytest.raises(StoreError) as caught:
        store.read_manifest()
    assert says in str(caught.value)
    assert str(caught.value).count("\n") == 0


def test_an_empty_folder_says_what_to_do(tmp_path):
    with pytest.raises(StoreError, match="holds no scores"):
        Store(tmp_path).frame()
