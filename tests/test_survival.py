"""Runs that are killed, damaged, starved of disk or started twice."""

import errno
import io
import json
import os
import random
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from benchmarks.chaos import Question, measure, network

import faithmap
from faithmap.errors import InputError, StoreError
from faithmap.experiment.executors import LocalExecutor
from faithmap.run import Run
from faithmap.store.folder import Store, heatmap_part
from faithmap.store.parts import digest_of
from faithmap.store.reading import sample

SRC = str(Path(__file__).parents[1] / "src")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing happened to."""
    return measure(tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture
def run(whole, tmp_path):
    shutil.copytree(whole.folder, tmp_path / "run")
    return Run(tmp_path / "run")


def same(a: pd.DataFrame, b: pd.DataFrame) -> None:
    """Bit for bit."""
    pd.testing.assert_frame_equal(a, b, check_exact=True)


@pytest.mark.parametrize("further", [[], ["--changing"]])
def test_killed_again_and_again(further):
    """In a process of its own: one whose autograd or OpenMP threads have started cannot be forked."""
    command = [sys.executable, "benchmarks/chaos.py", "--kills", "6", "--seed", str(random.randrange(1000)), *further]
    done = subprocess.run(command, cwd=Path(SRC).parent, env={**os.environ, "PYTHONPATH": SRC}, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(b"6 kills")


def test_fewer_points_have_the_bits_of_all_of_them(whole, tmp_path):
    """Which is what runs that change their points between kills are compared with."""
    few = measure(tmp_path / "few", question=Question(steps=6, points=2, draws=1)).scores()
    keys = ["image", "method", "order", "draw", "step"]
    few, every = (one.astype(dict.fromkeys(keys[:3], "str")).set_index(keys) for one in (few, whole.scores()))
    assert set(few.index.get_level_values("step")) == {0, 6}
    assert few["logit"].equals(every.loc[few.index, "logit"])


def test_every_damaged_part_is_computed_again(run, whole):
    random.seed(3)
    parts = [*run.store.parts(), *run.store.heatmap_parts()]
    for name in random.sample(parts, 4):
        path = run.folder / name
        data = path.read_bytes()
        path.write_bytes(random.choice([data[: len(data) // 2], b"", data[:-9] + b"?" + data[-8:]]))
    heatmap_part.cache_clear()
    with pytest.warns(UserWarning, match="damaged"):
        again = measure(run.folder)
    same(again.scores(), whole.scores())
    assert again.store.stored_heatmaps().places.keys() == whole.store.stored_heatmaps().places.keys()
    for a, b in zip(again.examples(None), whole.examples(None), strict=True):
        assert all(torch.equal(a.heatmaps[method], b.heatmaps[method]) for method in b.heatmaps)


@pytest.mark.parametrize("damage", ["gone", "empty", "half", "flipped"])
def test_a_manifest_that_is_lost_is_built_anew(run, whole, damage):
    path = run.store.manifest_path
    text = path.read_text()
    wrong = {"empty": "", "half": text[: len(text) // 2], "flipped": text.replace("uniform", "unifurm")}
    path.unlink() if damage == "gone" else path.write_text(wrong[damage])
    if damage != "gone":
        with pytest.raises(StoreError, match=r"manifest\.json is damaged: run the same command again"):
            Run(run.folder)
    computed = []
    with warnings.catch_warnings(record=True) as said:
        again = measure(run.folder, progress=computed.append)
    assert not computed
    assert len(said) == (damage != "gone")
    same(again.scores(), whole.scores())
    kept = ("protocol", "classifier", "images", "methods", "fingerprint")
    for part in kept:
        assert getattr(again.manifest, part) == getattr(whole.manifest, part)


def reading(run, place):
    return {
        "scores": run.scores,
        "measures": run.measures,
        "examples": run.examples,
        "verdict": run.verdict,
        "report": lambda: run.report(place / "report.html"),
        "export": lambda: run.store.export(place / "scores.parquet"),
    }


@pytest.mark.parametrize("change", ["deleted", "a file", "emptied"])
def test_a_run_that_is_gone_since_it_was_opened_is_named(run, tmp_path, change):
    """Else measures and examples would be none, and the exported table would be empty."""
    shutil.rmtree(run.folder)
    if change == "a file":
        run.folder.write_text("")
    if change == "emptied":
        run.folder.mkdir()
    for name, call in reading(run, tmp_path).items():
        with pytest.raises(StoreError) as error:
            call()
        assert str(run.folder) in str(error.value), name
        assert "no run any more" in str(error.value) or name == "export" or change == "a file"
    assert [one.name for one in tmp_path.iterdir()] == ["run"] * (change != "deleted")


def test_a_run_that_is_another_since_it_was_opened_is_not_read_as_the_first(run, tmp_path):
    shutil.rmtree(run.folder)
    protocol = faithmap.Protocol.preset(steps=6, region_size=5)
    faithmap.evaluate(network(), torch.rand(3, 3, 24, 24), "edge", protocol, run.folder)
    for name, call in reading(run, tmp_path).items():
        if name != "export":
            with pytest.raises(StoreError, match="run was opened, and holds another run since: open it again"):
                call()
    assert Run(run.folder).scores()["method"].nunique() == 2


@pytest.mark.parametrize("folder", ["scores", "heatmaps", "measures"])
def test_parts_that_cannot_be_listed_are_named(run, tmp_path, folder, monkeypatch):
    right = os.scandir

    def scandir(path):
        if Path(path) == run.folder / folder:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return right(path)

    monkeypatch.setattr(os, "scandir", scandir)
    read = {"scores": run.scores, "heatmaps": run.examples, "measures": run.measures}[folder]
    with pytest.raises(StoreError, match=rf"run/{folder} cannot be read \(Permission denied\)"):
        read()
    with pytest.raises(StoreError, match=rf"run/{folder} cannot be read"):
        measure(run.folder)


def with_nothing(values, name):
    return values.set_column(values.schema.get_field_index(name), name, pa.array([None, *values[name].to_pylist()[1:]]))


def below_zero(values, name):
    return values.set_column(
        values.schema.get_field_index(name), name, pa.array([-1] * len(values), values.schema.field(name).type)
    )


ODD = {
    "no column": lambda values: values.drop(["probability"]),
    "text": lambda values: values.set_column(
        values.schema.get_field_index("logit"), "logit", values["logit"].cast(pa.string())
    ),
    "no image": lambda values: with_nothing(values, "image"),
    "no draw": lambda values: below_zero(values, "draw"),
    "no step": lambda values: below_zero(values, "step"),
}


def by_hand(path, change):
    """Put a changed part in the place of one, under the name that its bytes ask for."""
    values, buffer = pq.read_table(path), io.BytesIO()
    pq.write_table(change(values).replace_schema_metadata(values.schema.metadata), buffer)
    path.unlink()
    name = f"{path.stem.rpartition('-')[0]}-{digest_of(buffer.getvalue())}.parquet"
    path.with_name(name).write_bytes(buffer.getvalue())


@pytest.mark.parametrize("odd", ODD)
def test_a_part_of_other_columns_is_not_read_whatever_its_hash(run, whole, tmp_path, odd):
    """A score whose column is missing would be 0."""
    by_hand(run.folder / run.store.parts()[0], ODD[odd])
    for call in (run.scores, run.verdict, lambda: run.store.export(tmp_path / "scores.parquet")):
        with pytest.raises(StoreError, match=r"part-.*\.parquet is damaged"):
            call()
    with pytest.warns(UserWarning, match="damaged"):
        same(measure(run.folder).scores(), whole.scores())


def test_a_value_of_nothing_is_set_aside(tmp_path):
    how = {"measures": "gini", "methods": ["edge"], "protocol": faithmap.Protocol.preset(steps=2, region_size=4)}
    pixels = torch.rand(2, 3, 24, 24)
    run = faithmap.evaluate(network(), pixels, out=tmp_path / "run", **how)
    before = run.measures()
    by_hand(run.folder / run.store.measure_parts()[0], lambda values: with_nothing(values, "method"))
    with pytest.raises(StoreError, match="damaged"):
        run.measures()
    with pytest.warns(UserWarning, match="damaged"):
        same(faithmap.evaluate(network(), pixels, out=run.folder, **how).measures(), before)


def test_parts_without_rows_hold_no_scores(run, tmp_path):
    for name in run.store.parts():
        by_hand(run.folder / name, lambda values: values.slice(0, 0))
    for call in (run.scores, lambda: run.store.export(tmp_path / "scores.parquet")):
        with pytest.raises(StoreError, match="holds no scores"):
            call()


def test_without_a_manifest_another_question_is_still_refused(run):
    run.store.manifest_path.unlink()
    with pytest.raises(StoreError, match="changed: region_size: 4 → 5"):
        faithmap.evaluate(
            network(),
            torch.rand(3, 3, 24, 24),
            ["sensitivity:l2"],
            faithmap.Protocol.preset(steps=6, region_size=5),
            run.folder,
        )


def test_a_part_of_another_run_is_set_aside(run, whole, tmp_path):
    protocol = faithmap.Protocol.preset(steps=6, region_size=4, draws=3, seed=1)
    other = faithmap.evaluate(network(), torch.rand(3, 3, 24, 24), ["sensitivity:l2"], protocol, tmp_path / "other")
    for name in other.store.parts():
        shutil.copy(other.folder / name, run.folder / name)
    with pytest.warns(UserWarning, match="set aside"):
        same(measure(run.folder).scores(), whole.scores())


def test_heatmaps_that_are_asked_for_later_are_added(tmp_path, whole):
    protocol, pixels = whole.protocol, torch.rand(30, 3, 24, 24)
    for save in (False, True):
        run = faithmap.evaluate(network(), pixels, ["sensitivity:l2"], protocol, tmp_path / "run", save_heatmaps=save)
        stored = {image for image, _ in run.store.stored_heatmaps().places}
        ids = set(run.manifest.images)
        assert stored == (ids if save else {*sample(ids, 24), *run.telling_images()})
    assert len(list(run.store.examples())) == 30


def test_what_is_stored_does_not_depend_on_how_it_came_about(tmp_path, whole):
    """More images, methods, steps, draws and orders, in pieces and in another order."""
    pixels = torch.rand((20, 3, 24, 24), generator=torch.Generator().manual_seed(1))
    images = faithmap.load_images(pixels)
    steps = [
        (images[5:7], ["lrp-epsilon:0.01"], {"steps": 2, "draws": 1}),
        (images[::-1][:12], ["sensitivity:l2"], {"steps": 6, "draws": 2}),
        (images, ["sensitivity:l2", "lrp-epsilon:0.01"], {"steps": 3, "draws": 3}),
        (images, ["lrp-epsilon:0.01", "sensitivity:l2"], {"steps": 6, "draws": 3, "orders": ("morf", "lerf")}),
    ]
    for some, methods, parts in steps:
        run = faithmap.evaluate(
            network(), some, methods, faithmap.Protocol.preset(region_size=4, **parts), tmp_path / "run"
        )
    pd.testing.assert_frame_equal(run.scores(), whole.scores(), check_exact=False, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("batch_size", [1, 3, 200])
def test_no_batch_size_shows(whole, tmp_path, batch_size):
    run = measure(tmp_path / "run", engine="dense", batch_size=batch_size)
    other = measure(tmp_path / "other", engine="dense")
    same(run.scores(), other.scores())


def per_image_aopc(run):
    """Of the last step, by image, method, order and draw."""
    curves = run.scores().set_index(["image", "method", "order", "draw", "step"]).probability.unstack()
    return faithmap.aopc(torch.tensor(curves.to_numpy()))[:, -1]


def test_other_threads_or_another_rounding_agree_to_a_thousandth(whole, tmp_path):
    """Float64 stands for a device that rounds otherwise: near ties may flip, and an image's AOPC hardly moves."""
    expected = per_image_aopc(whole)
    threads = 1 if torch.get_num_threads() > 1 else 2
    run = measure(tmp_path / "threads", executor=LocalExecutor(threads=threads))
    assert run.manifest.threads == threads
    assert (per_image_aopc(run) - expected).abs().max() <= 1e-3
    classifier = network()
    classifier.module.double()
    run = measure(tmp_path / "double", classifier=classifier, engine="dense")
    assert 0 < (per_image_aopc(run) - expected).abs().max() <= 1e-3


def test_an_image_that_could_not_be_read_may_change(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    from PIL import Image

    for name in ("a.png", "b.png"):
        Image.new("RGB", (24, 24), "red").save(folder / name)
    (folder / "b.png").write_bytes(b"broken")
    protocol = faithmap.Protocol.preset(steps=2, region_size=4, draws=1)
    run = faithmap.evaluate(network(), folder, ["sensitivity:l2"], protocol, tmp_path / "run")
    assert [one.image for one in run.skipped] == ["b.png"]
    Image.new("RGB", (24, 24), "blue").save(folder / "b.png")
    run = faithmap.evaluate(network(), folder, ["sensitivity:l2"], protocol, tmp_path / "run")
    assert not run.skipped
    assert run.scores().image.nunique() == 2
    Image.new("RGB", (24, 24), "green").save(folder / "b.png")
    with pytest.raises(StoreError, match=r"changed: image 'b\.png'"):
        faithmap.evaluate(network(), folder, ["sensitivity:l2"], protocol, tmp_path / "run")


NAMES = [
    b"a b.png",
    b"quote'\".png",
    b"new\nline.png",
    "emoji\U0001f600.png".encode(),
    b"bytes\xff\xfe.png",
    b"a..b.png",
]


def test_names_neither_escape_nor_break_anything(tmp_path):
    from PIL import Image

    folder = tmp_path / "images"
    (folder / "deep..").mkdir(parents=True)
    for name in [*NAMES, b"deep../twin.png"]:
        Image.new("RGB", (24, 24), "red").save(Path(os.fsdecode(os.fsencode(folder) + b"/" + name)), format="png")
    protocol = faithmap.Protocol.preset(steps=2, region_size=4, draws=1)
    before = set(tmp_path.rglob("*"))
    run = faithmap.evaluate(network(), folder, ["sensitivity:l2"], protocol, tmp_path / "run", save_heatmaps=True)
    made = set(tmp_path.rglob("*")) - before
    assert all(path == tmp_path / "run" or tmp_path / "run" in path.parents for path in made)
    scores = run.scores()
    assert not run.skipped
    assert scores.image.nunique() == len(NAMES) + 1  # equal content, other names
    assert len(pd.read_parquet(run.store.scores_folder)) == len(scores) == (len(NAMES) + 1) * 2 * 3
    fills = {run.fill(example).sum().item() for example in run.examples()}
    assert len(fills) == len(NAMES) + 1
    ids = ["../../escape.png", "/etc/passwd", "", "a\x00b"]
    odd = faithmap.images.Images("odd", [faithmap.images.TensorImage(i, torch.rand(3, 24, 24)) for i in ids])
    run = faithmap.evaluate(network(), odd, ["sensitivity:l2"], protocol, tmp_path / "odd", save_heatmaps=True)
    assert sorted(run.scores().image.unique()) == sorted(ids)
    with pytest.raises(InputError, match="cannot be written as UTF-8"):
        faithmap.images.Images("odd", [faithmap.images.TensorImage("\udcff", torch.rand(3, 24, 24))])


@pytest.fixture
def small_disk(tmp_path):
    """A disk of some hundred kilobytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"no small disk can be mounted here: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_fills_up_at_any_write(small_disk, whole):
    out = small_disk / "run"
    with pytest.raises(StoreError, match=r"could not be written \(No space left on device\): what is finished is safe"):
        measure(out)
    finished = 0
    for size in (*range(96, 400, 24), 4000):
        subprocess.run(["mount", "-o", f"remount,size={size}k", str(small_disk)], check=True)
        store = Store(out)
        assert not store.damaged_parts()
        assert len(store.index()) >= finished  # nothing that was finished is lost
        finished = len(store.index())
        try:
            run = measure(out)
        except StoreError as error:
            assert "No space left" in str(error)  # noqa: PT017
    same(run.scores(), whole.scores())


def test_a_folder_that_cannot_be_written_can_be_read(run, tmp_path):
    mounted = tmp_path / "read-only"
    mounted.mkdir()
    for command in (
        ["mount", "--bind", str(run.folder), str(mounted)],
        ["mount", "-o", "remount,ro,bind", str(mounted)],
    ):
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode:
            pytest.skip(f"no read-only disk can be mounted here: {made.stderr.strip()}")
    try:
        assert len(Run(mounted).scores()) == len(run.scores())
        assert Run(mounted).examples()
        with pytest.raises(StoreError, match=r"cannot be written \(Read-only file system\)"):
            measure(mounted)
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


TWICE = "import sys; from benchmarks.chaos import measure; measure(sys.argv[1])"


def test_two_processes_on_one_folder(tmp_path, whole):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([SRC, str(Path(SRC).parent)])}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", TWICE, str(tmp_path / "run")], stderr=subprocess.PIPE, text=True, env=environment
        )
        for _ in range(2)
    ]
    said = [process.communicate()[1] for process in both]
    refused = [text for process, text in zip(both, said, strict=True) if process.returncode]
    assert len(refused) < 2
    for text in refused:
        assert "is in use by process" in text
    assert len(Run(tmp_path / "run").scores()) == len(whole.scores())


def test_a_run_over_a_url(whole):
    run = measure(f"memory://survival-{random.random()}/run")
    same(run.scores(), whole.scores())
    assert len(run.examples(None)) == 20
    assert "memory://" in repr(run)


def test_the_manifest_says_how_it_was_computed(whole):
    manifest = json.loads(whole.store.manifest_path.read_text())
    assert (manifest["executor"], manifest["workers"], manifest["threads"]) == ("local", 1, torch.get_num_threads())
    assert manifest["images"]["03"]["content"]
    assert manifest["finished"] >= manifest["started"]
