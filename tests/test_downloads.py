"""The real download code, served by this process: files whose names carry their true hashes."""

import functools
import hashlib
import http.server
import io
import os
import resource
import socket
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import Imagenette

import faithmap
from faithmap.classifiers import torchvision_models
from faithmap.classifiers.weights import fetch_weights
from faithmap.errors import DownloadError
from faithmap.images import load_images


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; paths under /cut/ break off in the middle."""

    def do_GET(self):
        if not self.path.startswith("/cut/"):
            return super().do_GET()
        data = Path(self.translate_path(self.path.removeprefix("/cut"))).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2])
        self.close_connection = True
        return None

    def log_message(self, *args):
        pass


@pytest.fixture
def served(tmp_path):
    """(folder, its address): what lies in the folder can be downloaded."""
    folder = tmp_path / "served"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def nobody():
    """An address where nobody answers."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture(autouse=True)
def torch_home(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch"


def planted(folder, state, name="net"):
    """A weights file whose name carries its hash."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getvalue()
    file = f"{name}-{hashlib.sha256(data).hexdigest()[:8]}.pth"
    (folder / file).write_bytes(data)
    return file


def left_over(torch_home):
    return [path.name for path in torch_home.rglob("*") if path.is_file()]


def test_weights_are_downloaded_once(served, torch_home):
    folder, address = served
    state = {"weight": torch.arange(6.0)}
    file = planted(folder, state)
    assert torch.equal(fetch_weights(f"{address}/{file}")["weight"], state["weight"])
    (folder / file).unlink()
    assert torch.equal(fetch_weights(f"{address}/{file}")["weight"], state["weight"])
    assert left_over(torch_home) == [file]


def test_a_torchvision_classifier_loads_what_was_downloaded(served, monkeypatch):
    from torchvision import models

    folder, address = served
    torch.manual_seed(0)
    source = models.squeezenet1_1()
    file = planted(folder, source.state_dict())
    monkeypatch.setattr(torchvision_models, "fetch_weights", lambda url: fetch_weights(f"{address}/{file}"))
    classifier = faithmap.load_classifier("squeezenet1_1", device="cpu")
    pixels = torch.rand(1, 3, 224, 224)
    transforms = models.SqueezeNet1_1_Weights.DEFAULT.transforms()
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8))
    with torch.no_grad():
        expected = source.eval()(transforms(picture)[None])
    read = classifier.preprocessing(picture)
    torch.testing.assert_close(classifier(read[None]).detach(), expected)
    assert classifier.labels[1] == "goldfish"
    assert classifier(pixels).shape == (1, 1000)


def test_an_interrupted_download_leaves_nothing_and_says_so(served, torch_home):
    folder, address = served
    file = planted(folder, {"weight": torch.zeros(100_000)})
    with pytest.raises(DownloadError, match=r"is damaged|could not be downloaded"):
        fetch_weights(f"{address}/cut/{file}")
    assert left_over(torch_home) == []
    fetch_weights(f"{address}/{file}")  # the next try works


def test_a_file_with_another_hash_is_refused(served, torch_home):
    folder, address = served
    file = planted(folder, {"weight": torch.zeros(3)})
    (folder / file).rename(folder / "net-01234567.pth")
    with pytest.raises(DownloadError, match="is damaged"):
        fetch_weights(f"{address}/net-01234567.pth")
    assert left_over(torch_home) == []


def test_no_network_is_one_sentence(nobody):
    with pytest.raises(DownloadError, match=r"could not be downloaded .*refused.*put the file at .*net-0123abcd.pth"):
        fetch_weights(f"{nobody}/net-0123abcd.pth")


def test_a_file_that_is_not_there_is_one_sentence(served):
    with pytest.raises(DownloadError, match="404"):
        fetch_weights(f"{served[1]}/net-0123abcd.pth")


def test_a_full_disk_is_one_sentence(served, torch_home):
    folder, address = served
    file = planted(folder, {"weight": torch.zeros(1_000_000)})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))  # writes beyond fail, as on a full disk
    try:
        with pytest.raises(DownloadError, match=r"File too large.*check the network and the disk"):
            fetch_weights(f"{address}/{file}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert left_over(torch_home) == []


class Evil:
    """Runs a command where it is unpickled freely."""

    def __init__(self, trace):
        self.trace = str(trace)

    def __reduce__(self):
        return os.system, (f"touch '{self.trace}'",)


def test_weights_are_not_unpickled_freely(served, tmp_path):
    folder, address = served
    file = planted(folder, {"weight": Evil(tmp_path / "trace")})
    with pytest.raises(DownloadError, match="is not a file of weights"):
        fetch_weights(f"{address}/{file}")
    assert not (tmp_path / "trace").exists()


def archive(folder, monkeypatch, address, cut=""):
    """A small Imagenette: two classes, two images each, with its true MD5."""
    path = folder / "imagenette2-320.tgz"
    with tarfile.open(path, "w:gz") as tar:
        for split in ("train", "val"):
            for wnid in ("n01440764", "n03888257"):
                for number in range(2):
                    buffer = io.BytesIO()
                    values = np.random.default_rng(number).integers(0, 256, (32, 40, 3), dtype=np.uint8)
                    Image.fromarray(values).save(buffer, "JPEG")
                    info = tarfile.TarInfo(f"imagenette2-320/{split}/{wnid}/{wnid}_{number}.JPEG")
                    info.size = len(buffer.getvalue())
                    tar.addfile(info, io.BytesIO(buffer.getvalue()))
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    monkeypatch.setitem(Imagenette._ARCHIVES, "320px", (f"{address}{cut}/imagenette2-320.tgz", md5))
    return path


def test_imagenette_is_downloaded_once(served, tmp_path, monkeypatch, tiny):
    folder, address = served
    path = archive(folder, monkeypatch, address)
    images = load_images("imagenette", data=tmp_path / "data")
    assert len(images) == 4
    assert set(tiny.class_indices(images).values()) == {0, 701}
    path.unlink()
    again = load_images("imagenette", data=tmp_path / "data")
    assert [image.id for image in again] == [image.id for image in images]
    assert [entry.name for entry in (tmp_path / "data").iterdir()] == ["imagenette2-320"]


@pytest.mark.parametrize("cut", ["", "/cut"])
def test_a_damaged_archive_is_refused_and_the_next_try_works(served, tmp_path, monkeypatch, cut):
    folder, address = served
    path = archive(folder, monkeypatch, address, cut)
    whole = path.read_bytes()
    if not cut:
        path.write_bytes(whole[:-1] + b"x")
    with pytest.raises(DownloadError, match=r"Imagenette could not be downloaded.*run again"):
        load_images("imagenette", data=tmp_path / "data")
    assert not (tmp_path / "data" / "imagenette2-320").exists()
    archive(folder, monkeypatch, address)
    assert len(load_images("imagenette", data=tmp_path / "data")) == 4


def test_an_interrupted_unpacking_is_done_again(served, tmp_path, monkeypatch):
    folder, address = served
    archive(folder, monkeypatch, address)
    half = tmp_path / "data" / "incoming" / "imagenette2-320" / "val" / "n01440764"
    half.mkdir(parents=True)
    (half / "half.JPEG").write_bytes(b"")
    images = load_images("imagenette", data=tmp_path / "data")
    assert len(images) == 4


def test_imagenette_without_network_is_one_sentence(nobody, tmp_path, monkeypatch):
    monkeypatch.setitem(Imagenette._ARCHIVES, "320px", (f"{nobody}/imagenette2-320.tgz", "0" * 32))
    with pytest.raises(DownloadError, match=r"could not be downloaded.*check the network and the disk"):
        load_images("imagenette", data=tmp_path / "data")
