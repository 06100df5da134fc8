"""Where things are written: what stands there already stays, unless it is what is to be replaced."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.fuzzing.valid import heatmap, network, pixels, protocol
from PIL import Image

import faithmap
from faithmap import files
from faithmap.errors import FaithmapError, InputError, StoreError
from faithmap.report.page import write_text
from faithmap.store.storage import RemoteStorage, _expired
from faithmap.studies.leaderboard import leaderboard

SRC = str(Path(__file__).parents[1] / "src")


def measured_run(out):
    return faithmap.evaluate(network(), pixels(), "edge", protocol(), out)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return measured_run(tmp_path_factory.mktemp("run") / "run")


def page(run, path):
    run.report(path)


def table(run, path):
    leaderboard(run.folder.parent).write(path)


def figure(run, path):
    run.figure("fig4", path)


def scores(run, path):
    run.store.export(path)


BOTH = [protocol().override(orders=("morf", "lerf"), fill=fill) for fill in ("uniform", "constant:mean")]
WRITERS = {page: "html", table: "html", figure: "png", scores: "parquet"}
writers = pytest.mark.parametrize("write", WRITERS)


@writers
def test_a_link_stays_one_and_what_it_points_at_is_written(run, tmp_path, write):
    """Whoever may write to /dev would replace the link /dev/stdout otherwise."""
    target, link = tmp_path / f"target.{WRITERS[write]}", tmp_path / f"link.{WRITERS[write]}"
    link.symlink_to(target.name)
    for _ in range(2):
        write(run, link)
        assert link.is_symlink()
        assert len(target.read_bytes()) > 100
    link.unlink()
    link.symlink_to(link.name)
    with pytest.raises(FaithmapError, match="symbolic link"):
        write(run, link)
    assert link.is_symlink()


@writers
def test_a_disk_that_is_full_leaves_what_was_there(run, tmp_path, write, monkeypatch):
    file = tmp_path / f"file.{WRITERS[write]}"
    write(run, file)
    file.chmod(0o600)
    before = file.read_bytes()
    write(run, file)
    assert file.stat().st_mode & 0o777 == 0o600

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(FaithmapError, match="No space left on device"):
        write(run, file)
    assert file.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == [file.name]


@writers
@pytest.mark.parametrize("path", ["s3://bucket/a", "file:///tmp/a", "memory://a/b"])
def test_a_url_is_not_written_into_a_folder_of_that_name(run, tmp_path, write, path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match="a URL: give a path on a disk"):
        write(run, Path(f"{path}.{WRITERS[write]}"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("write", [page, table])
@pytest.mark.parametrize("name", ["manifest.json", "scores/*", "fig4.png"])
def test_a_page_takes_the_place_of_a_page_only(tmp_path, write, name):
    run = measured_run(tmp_path / "run")
    figure(run, run.folder / "fig4.png")
    victim = next(run.folder.glob(name))
    before = victim.read_bytes()
    with pytest.raises(StoreError, match="is there already and is no page"):
        write(run, victim)
    assert victim.read_bytes() == before
    for _ in range(2):
        write(run, tmp_path / "page")


def test_a_page_that_is_written_into_a_folder_makes_the_folder(tmp_path):
    write_text(tmp_path / "a" / "b" / "page.html", "text")
    assert (tmp_path / "a" / "b" / "page.html").read_text() == "text"


def pictures(folder):
    folder.mkdir(parents=True)
    for name, one in zip("ab", pixels(), strict=False):
        Image.fromarray((one.permute(1, 2, 0) * 255).byte().numpy()).save(folder / f"{name}.png")
    return folder


def test_figures_of_a_run_are_not_among_the_images_of_the_next(tmp_path):
    images = pictures(tmp_path / "images" / "class").parent
    fine = faithmap.evaluate(network(), images, "edge", protocol(), images / "run")
    fine.figure("fig4", images / "run" / "fig4.png")
    study = faithmap.study(network(), images, "edge", BOTH, images / "study")
    study.figure("study", images / "study" / "study.png")
    assert [one.id for one in faithmap.load_images(images)] == ["class/a.png", "class/b.png"]
    assert [one.id for one in faithmap.load_images(images / "run")] == ["fig4.png"]


@pytest.mark.parametrize("below", ["", "class"])
@pytest.mark.parametrize("measure", [faithmap.evaluate, faithmap.study])
def test_the_folder_of_the_images_is_no_run_folder(tmp_path, below, measure):
    pictures(tmp_path / "images" / below)
    images = tmp_path / "images"
    (tmp_path / "link").symlink_to(images)
    before = set(tmp_path.rglob("*"))
    for out in (images, tmp_path / "link", f"file://{images}"):
        asked = protocol() if measure is faithmap.evaluate else BOTH
        with pytest.raises(InputError, match="the folder of the images"):
            measure(network(), images, "edge", asked, out)
    assert set(tmp_path.rglob("*")) == before


def test_a_folder_that_may_not_be_looked_into_is_named(tmp_path, monkeypatch):
    """Its images would be missing, and nobody would know."""
    folder = pictures(tmp_path / "images" / "class")
    right = os.scandir

    def scandir(path):
        if Path(path) == folder:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return right(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(InputError, match=r"class: Permission denied"):
        faithmap.load_images(tmp_path / "images")


@pytest.mark.parametrize("kind", ["heatmaps", "masks"])
def test_two_files_for_one_image_are_refused(tmp_path, kind):
    import numpy as np

    images = pictures(tmp_path / "images")
    folder = pictures(tmp_path / "given")
    Image.new("L", (24, 24)).save(folder / "a.PNG", format="png")
    for suffix in ("npy", "npz"):
        with open(folder / f"b.{suffix}", "wb") as file:
            (np.save if suffix == "npy" else np.savez)(file, heatmap(1)[0].numpy())
    given = {
        "masks": {"methods": "edge", "masks": folder, "measures": "pointing-game"},
        "heatmaps": {"methods": {"m": folder}},
    }
    with pytest.raises(FaithmapError, match=r"(b\.npy and b\.npz|a\.PNG and a\.png) are for the same image, keep one"):
        faithmap.evaluate(network(), images, protocol=protocol(), **given[kind])


class Broken:
    """A file system that raises what it likes."""

    def __getattr__(self, name):
        def fail(*_, **__):
            raise ValueError("Read only filesystem\nand more")

        return fail


def test_whatever_a_file_system_raises_is_an_error_of_its_file():
    storage = RemoteStorage("memory://broken/run")
    storage.files = Broken()
    calls = [
        lambda: storage.names("a"),
        lambda: storage.read("a"),
        lambda: storage.put("a", b""),
        lambda: storage.remove("a"),
    ]
    for call in calls:
        with pytest.raises(OSError, match=r"Read only filesystem.*memory://broken/run/a"):
            call()


@pytest.mark.parametrize(
    "note",
    [
        {"process": "x"},
        {"process": None},
        {"process": 10**30},
        {"process": 1, "renewed": "then"},
        {"process": 1, "renewed": float("nan")},
        {"process": 1, "renewed": 4e9},
        {"process": 1, "renewed": 0},
    ],
)
def test_a_note_that_nobody_can_be_renewing_holds_nothing(note):
    import socket

    assert _expired(note, 60)
    assert _expired({"host": socket.gethostname(), **note}, 60)


CLOSED = """
import os, sys
import faithmap.__main__ as command
command.occupied()
with open(sys.argv[1], "w") as file:
    file.write(os.devnull if file.fileno() > 2 else "a standard stream")
"""


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
@pytest.mark.parametrize("how", ["<&- >&- 2>&-", ">&-", "2>&-", ">&- 2>&-"])
def test_no_file_gets_the_number_of_a_closed_stream(tmp_path, how):
    command = ["sh", "-c", f'exec "$0" -c "$1" "$2" {how}', sys.executable, CLOSED, str(tmp_path / "out")]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": SRC}, timeout=120)
    assert (tmp_path / "out").read_text() == os.devnull


TABLES = {
    "two groups": ("groups", "image,group\na.png,x\na.png,y\nb.png,y\n", "'x' and 'y' of image 'a.png'"),
    "a comma in a name": ("groups", "image,group\na,.png,x\nb.png,y\n", r"other cells than columns \(line 2\)"),
    "no image": ("groups", "group,image\nx,a.png\nx\n", r"other cells than columns \(line 3\)"),
    "two classes": ("targets", "a.png,1\nb.png,0\na.png,2\n", "'1' and '2' of image 'a.png'"),
}


@pytest.mark.parametrize("case", TABLES)
def test_a_table_that_says_two_things_of_an_image_is_refused(tmp_path, case):
    kind, text, message = TABLES[case]
    (tmp_path / "table.csv").write_text(text)
    images = pictures(tmp_path / "images")
    with pytest.raises(InputError, match=message):
        faithmap.evaluate(network(), images, "edge", protocol(), **{kind: tmp_path / "table.csv"})
    if case.startswith("two"):  # the same thing, twice
        (tmp_path / "table.csv").write_text(text.replace("y", "x").replace("2", "1"))
        faithmap.evaluate(network(), images, "edge", protocol(), **{kind: tmp_path / "table.csv"})


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux")
@pytest.mark.parametrize("asked", [["--help"], ["run", "--help"], ["--version"], ["methods"], ["plot", "--list"]])
def test_what_cannot_be_shown_is_one_line(asked):
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-m", "faithmap", *asked]
        environment = {**os.environ, "PYTHONPATH": SRC}
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment, timeout=120)
    assert done.returncode == 1
    assert done.stderr == "error: No space left on device.\n"


@pytest.mark.skipif(os.name == "nt", reason="a folder that is in use stays there")
def test_a_current_folder_that_was_deleted_is_one_line(tmp_path):
    """MKL would end the process with a message of its own at the first random number."""
    (tmp_path / "gone").mkdir()
    again = [sys.executable, "-m", "faithmap", "doctor"]
    command = f"import os, sys; os.rmdir(os.getcwd()); os.execv(sys.executable, {again})"
    environment = {**os.environ, "PYTHONPATH": SRC}
    done = subprocess.run(
        [sys.executable, "-c", command], cwd=tmp_path / "gone", capture_output=True, text=True, env=environment
    )
    assert done.returncode == 1
    assert done.stderr == "error: the current folder was deleted: go to one that is there, with cd.\n"


LONG = "a" * 300


@pytest.mark.parametrize("path", [LONG, f"runs/{LONG}", "ä" * 130, "/".join(["b" * 200] * 40)], ids=len)
def test_a_name_that_is_too_long_is_said_to_be(run, path):
    calls = [
        lambda: faithmap.evaluate(network(), pixels(), "edge", protocol(), path),
        lambda: faithmap.study(network(), pixels(), "edge", BOTH, path),
        lambda: faithmap.Run(Path(path)),
        lambda: leaderboard(path),
        lambda: run.report(f"{path}.html"),
        lambda: run.plot(f"{path}.png"),
    ]
    for call in calls:
        with pytest.raises(FaithmapError, match=r"of \d+ bytes, and a disk takes 255|a path that is too long") as error:
            call()
        assert str(error.value).endswith("give a shorter one.")


@pytest.mark.parametrize(
    "wrong", [{"protocol": "nonsense"}, {"methods": "nonsense"}, {"at_most": 3}, {"heatmaps_from": "no/such"}]
)
def test_a_call_that_is_refused_leaves_no_temporary_folder(tmp_path, monkeypatch, wrong):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    given = {"methods": "edge", "protocol": protocol()} | wrong
    with pytest.raises(FaithmapError):
        faithmap.evaluate(network(), pixels(), **given)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "wrong", [{"methods": "nonsense"}, {"engine": "nonsense"}, {"settings": [protocol(), protocol()]}, {"masks": 3}]
)
def test_a_study_that_is_refused_leaves_no_temporary_folder(tmp_path, monkeypatch, wrong):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    given = {"methods": "edge", "settings": BOTH, "measures": "pointing-game" if "masks" in wrong else None} | wrong
    with pytest.raises(FaithmapError):
        faithmap.study(network(), pixels(), **given)
    assert not list(tmp_path.iterdir())


def test_a_study_that_fails_later_keeps_what_it_measured(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(FaithmapError):
        faithmap.study(network(), pixels(), "edge", [protocol(), protocol().override(region_size=23)])
    assert len(list(tmp_path.glob("faithmap-*/uniform-6/scores/part-*"))) > 0


def test_a_run_without_a_place_lies_in_one_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run = measured_run(None)
    assert [Path(run.folder)] == list(tmp_path.glob("faithmap-*"))
