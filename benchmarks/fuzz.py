"""Hostile arguments, options and files, for as long as you like: whatever comes back must be a result or one sentence.

    python benchmarks/fuzz.py --minutes 60 --seed 0
    python benchmarks/fuzz.py --cases 500 --family api --seed 7

Three families: `api` calls every public function with some of its arguments replaced; `cli` gives random values to
options of every command; `files` damages every kind of file that is read. A finding is an exception that is no
`FaithmapError`, a message of more than one line, a case that takes longer than `SECONDS`, or memory that grows beyond
`MEGABYTES`. Each is printed with what reproduces it; the exit code says whether there were any.
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import io
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import faithmap
from faithmap.errors import FaithmapError
from faithmap.images import PixelSource

SECONDS = 60
MEGABYTES = 2500
SIZE = 24


class TooLong(BaseException):
    """A case took longer than `SECONDS`."""


# What valid calls are made of.


def network(classes: int = 5) -> faithmap.Classifier:
    """Small, with fixed weights."""
    generator = torch.Generator().manual_seed(3)
    layers = torch.nn
    module = layers.Sequential(
        layers.Conv2d(3, 4, 5, stride=2, padding=2), layers.ReLU(), layers.Flatten(), layers.Linear(4 * 144, classes)
    )
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    how = faithmap.Preprocessing(crop=(SIZE, SIZE), resize=None)
    return faithmap.Classifier(module, mean=(0.4,) * 3, std=(0.2,) * 3, name="tiny", preprocessing=how)


def pixels(count: int = 2, seed: int = 0) -> torch.Tensor:
    """Images in [0, 1]."""
    return torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def heatmap(count: int = 2) -> torch.Tensor:
    """Heatmaps with an order."""
    return torch.arange(count * SIZE * SIZE, dtype=torch.float32).view(count, SIZE, SIZE)


def protocol() -> faithmap.Protocol:
    """Two steps."""
    return faithmap.Protocol.preset("samek2017", steps=2, region_size=6, draws=1)


def calls() -> dict[str, Callable[[], dict[str, Any]]]:
    """Every public function and class → arguments that are valid, made anew each time."""
    curve = torch.tensor([[1.0, 0.5, 0.2], [0.9, 0.8, 0.1]])
    steps = torch.ones(2, SIZE, SIZE, dtype=torch.int32)
    return {
        "Classifier": lambda: {"module": network().module, "mean": (0.4,) * 3, "std": (0.2,) * 3, "name": "n"},
        "Images": lambda: {"name": "set", "items": list(faithmap.load_images(pixels()))},
        "Preprocessing": lambda: {"crop": (SIZE, SIZE), "resize": 30, "interpolation": "bilinear"},
        "Protocol": lambda: {"steps": 2, "region_size": 6, "draws": 1, "fill": "uniform", "placement": "grid"},
        "abpc": lambda: {"morf": curve, "lerf": curve.flip(0)},
        "aopc": lambda: {"curve": curve},
        "complexity_table": lambda: {"heatmaps": {"one": heatmap(), "two": heatmap().flip(1)}},
        "draw_fill": lambda: {
            "fill": "swap",
            "pixels": pixels()[0],
            "seed": 0,
            "image_id": "0",
            "draw": 0,
            "others": PixelSource(faithmap.load_images(pixels()), faithmap.Preprocessing(crop=(SIZE, SIZE))),
        },
        "evaluate": lambda: {
            "classifier": network(),
            "images": pixels(),
            "methods": "sensitivity",
            "protocol": protocol(),
            "out": None,
            "batch_size": None,
        },
        "heatmaps": lambda: {
            "classifier": network(),
            "pixels": pixels(),
            "targets": torch.tensor([0, 1]),
            "method": "sensitivity",
            "image_ids": ["a", "b"],
            "seed": 0,
        },
        "load_classifier": lambda: {"name": "squeezenet1_1-embedded", "device": "cpu"},
        "load_images": lambda: {"source": pixels(), "limit": 2, "seed": 0, "data": None},
        "operator_table": lambda: {
            "classifier": network(),
            "images": pixels(),
            "method": "sensitivity",
            "protocol": protocol(),
            "fills": ["uniform"],
            "confidence": 0.95,
        },
        "perturb": lambda: {"pixels": pixels(), "removal_step": steps, "fill": pixels(2, 1), "step": 1},
        "randomisation_check": lambda: {
            "classifier": network(),
            "pixels": pixels(),
            "methods": "sensitivity",
            "targets": torch.tensor([0, 1]),
            "shares": (0.0, 1.0),
            "seed": 0,
        },
        "relative_to_random": lambda: {"aopc": curve, "random_aopc": curve.repeat(3, 1, 1)},
        "removal_steps": lambda: {"heatmap": heatmap(), "protocol": protocol(), "order": "morf", "segments": None},
        "study": lambda: {
            "classifier": network(),
            "images": pixels(),
            "methods": "sensitivity",
            "settings": [protocol(), protocol().override(fill="constant:mean")],
            "out": None,
        },
        "score_curves": lambda: {
            "classifier": network(),
            "pixels": pixels(),
            "targets": torch.tensor([0, 1]),
            "removal_step": steps,
            "fill": pixels(2, 1),
            "engine": "auto",
            "steps": 1,
            "batch_size": 16,
            "precision": "float32",
        },
    }


# What takes the place of a valid value.


class Rude:
    """An object that raises whatever is asked of it."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"no {name}")

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


def other_tensors(value: torch.Tensor, rng: random.Random) -> Any:
    """A tensor or an array that is not quite `value`."""
    floating = value.is_floating_point()
    made: list[Callable[[], Any]] = [
        lambda: value.numpy(),
        lambda: value.tolist(),
        lambda: value.double(),
        lambda: value.half(),
        lambda: value.bfloat16(),
        lambda: (value * 255).byte(),
        lambda: value.bool(),
        lambda: value.to(torch.complex64),
        lambda: value.to("meta"),
        lambda: value.to_sparse(),
        lambda: value.float().requires_grad_(),
        lambda: value[:0],
        lambda: value[0],
        lambda: value.unsqueeze(0),
        lambda: torch.cat([value, value]),
        lambda: value[..., : max(1, value.shape[-1] // 2)],
        lambda: value[..., :0],
        lambda: value * 300,
        lambda: value - 10,
        lambda: torch.full_like(value, float("nan") if floating else -1),
        lambda: torch.full_like(value, float("inf") if floating else 2**31 - 1),
        lambda: torch.full_like(value, 0.5 if floating else 7),
        lambda: value.expand(2, *value.shape),
        lambda: value.transpose(0, -1),
        lambda: np.array(value.numpy(), dtype=">f8"),
        lambda: np.array(value.numpy(), dtype=np.longdouble),
        lambda: np.array(value.numpy(), dtype=object),
        lambda: torch.quantize_per_tensor(value.float(), 0.1, 0, torch.quint8),
        lambda: torch.nested.nested_tensor([value.float(), value.float()]),
        lambda: torch.nn.Parameter(value.float()),
        lambda: torch.nn.parameter.UninitializedParameter(),
        lambda: list(value),
        lambda: torch.tensor(3.0),
    ]
    return rng.choice(made)()


def hostile(rng: random.Random, folder: Path) -> Any:
    """Something that nobody should hand over."""
    made: list[Callable[[], Any]] = [
        lambda: None,
        lambda: rng.choice([True, False]),
        lambda: rng.choice([0, -1, 1, 2, 7, 2**15, 2**31, 2**63, 2**64, -(2**70), 10**30]),
        lambda: rng.choice([0.0, -0.5, 0.5, 1e-300, 1e300, float("nan"), float("inf"), -float("inf")]),
        lambda: rng.choice([np.int64(3), np.float32(0.5), np.bool_(True), np.uint8(200), np.str_("a"), np.array(2)]),
        lambda: text(rng, folder),
        lambda: Path(text(rng, folder)),
        lambda: rng.choice([b"", b"bytes", bytearray(b"x"), memoryview(b"x")]),
        lambda: rng.choice([[], (), {}, set(), [None], [[1], [2, 3]], {"a": None}, {1: 2}, ["a", 1], [[]], range(0)]),
        lambda: rng.choice([object(), Rude(), Rude, type, len, sys, Ellipsis, NotImplemented]),
        lambda: lambda *_: None,
        lambda: (one for one in "abc"),
        lambda: torch.zeros(rng.choice([(), (0,), (1,), (3, 4), (1, 3, 2, 2), (1, 1, 1, 1, 1)])),
        lambda: np.zeros(rng.choice([(), (0,), (2, 3, SIZE, SIZE), (5, 5)])),
        lambda: pixels(),
        lambda: torch.nn.Linear(3, 3),
        lambda: torch.nn.LazyLinear(3),
        lambda: network(),
        lambda: faithmap.load_images(pixels()),
        lambda: protocol(),
        lambda: faithmap.Preprocessing(),
    ]
    return rng.choice(made)()


def text(rng: random.Random, folder: Path) -> str:
    """A string that is no name of anything, or of the wrong thing."""
    words = ["sensitivity", "fig4", "uniform", "blur", "swap", "slic", "grid", "morf", "samek2017", "photos", "rise"]
    known = [
        *("", " ", "\0", "\n", "a\nb", "\x1b[31m", "[/b]", "[bold]x", "{x}", "%s", "~", ".", "..", "../..", "/"),
        *("nan", "inf", "1e999", "-1", "0", "--5", "1000000000", "99999999999999999999", "0x10", "1_0", "٣", "²", "½"),
        *(
            "\ud800",
            "é",
            "日本語",
            "🙂" * 3,
            "a" * 5000,
            "a:b",
            "exp:1",
            "memory://",
            "foo://bar",
            "s3:",
            "://",
            "file://",
        ),
        *(
            "meta",
            "mps",
            "cuda:99",
            "tpu",
            "cpu:0",
            "random",
            "all",
            "auto",
            "none",
            "None",
            "[]",
            "{}",
            "a=b",
            "=",
            ",",
        ),
        *("blur:radius=100000", "blur:sigma=1e9", "rise:cells=100000", "rise:n=99999999999", "constant:#12", "swap:x"),
        *("sensitivity:l3", "sensitivity:", ":l2", "lrp-epsilon:nan", "lrp-epsilon:1e400", "slic:n=1e9", "folder:/dev"),
        *(str(folder / name) for name in ("missing", "a.png", "pipe.png", "zero.png", "empty", "file.txt", "x.npz")),
        str(folder),
    ]
    if rng.random() < 0.3:
        return "".join(
            rng.choice(words) if rng.random() < 0.3 else rng.choice(":=,./-_#0123456789 %[]{}x") for _ in range(6)
        )
    if rng.random() < 0.2:
        return f"{rng.choice(words)}{rng.choice([':', ',', '=', ':n=', ':sigma='])}{rng.choice(known)}"
    return rng.choice(known)


def prepared(folder: Path) -> Path:
    """A folder with things that texts name: images, a pipe, a link to a device, an empty folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in "ab":
        Image.fromarray((pixels(1, ord(name))[0].permute(1, 2, 0) * 255).byte().numpy()).save(folder / f"{name}.png")
    os.mkfifo(folder / "pipe.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    (folder / "empty").mkdir()
    (folder / "file.txt").write_text("1,2,3\n")
    np.savez(folder / "x.npz", a=heatmap(1)[0].numpy(), b=heatmap(1)[0].numpy().T)
    return folder


# The families. Each yields (what reproduces a case, what to call) for ever.

Case = tuple[str, Callable[[], Any]]


def api_cases(rng: random.Random, folder: Path) -> Iterator[Case]:
    """Public functions, one to three of their arguments replaced."""
    valid = calls()
    # Loading real weights each time would measure their loading.
    names = [name for name in valid for _ in range(1 if name in ("load_classifier", "operator_table", "study") else 6)]
    while True:
        name = rng.choice(names)
        function = inspect.unwrap(getattr(faithmap, name))
        given = valid[name]()
        further = [p for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_KEYWORD]
        for argument in rng.sample([p.name for p in further], min(len(further), rng.choice([1, 1, 1, 2, 3]))):
            if argument in ("progress", "executor"):  # a function of one's own may raise what it likes
                given[argument] = rng.choice([None, True, "ray", 3, object(), b"x"])
            elif isinstance(given.get(argument), torch.Tensor) and rng.random() < 0.7:
                with contextlib.suppress(Exception):  # some kinds cannot be made of some tensors
                    given[argument] = other_tensors(given[argument], rng)
            else:
                given[argument] = hostile(rng, folder)
        if name == "load_classifier" and repr_of(given["name"]) == "'squeezenet1_1-embedded'":
            given["name"] = text(rng, folder)
        if name in ("evaluate", "operator_table", "study") and not isinstance(given.get("out"), type(None)):
            given["out"] = folder / "runs" / f"{rng.random()}" if rng.random() < 0.5 else given["out"]
        yield f"faithmap.{name}(**{shown(given)})", lambda function=function, given=given: function(**given)


def cli_cases(rng: random.Random, folder: Path) -> Iterator[Case]:
    """Every command, any of its options with any value; the network is small, and nothing is downloaded."""
    import typer.main
    from typer.testing import CliRunner

    from faithmap.cli import app

    root: Any = typer.main.get_command(app)
    runner = CliRunner()
    run = folder / "run"
    faithmap.evaluate(network(), pixels(), "sensitivity", protocol(), run, save_heatmaps=True)
    while True:
        # A study is several runs, and its own functions are called by the family `api`.
        name = rng.choice([one for one in root.commands if one != "study"])
        command = root.commands[name]
        chosen: dict[str, list[str]] = {}
        if any(option.name == "steps" for option in command.params):
            chosen |= {
                "--steps": ["2"],
                "--draws": ["1"],
                "--region-size": ["6"],
                "--images": [str(folder / "pictures")],
            }
        if name in ("run", "operators"):
            chosen["--out"] = [str(folder / "runs" / str(rng.random()))]
        options = [one for one in command.params if one.param_type_name == "option" and one.name != "help"]
        for option in rng.sample(options, min(len(options), rng.choice([0, 1, 1, 2, 3]))):
            if option.is_flag:
                chosen[option.opts[0]] = []
            else:
                chosen[option.opts[0]] = [cli_value(rng, folder, option)]
        given = [name]
        for argument in (one for one in command.params if one.param_type_name == "argument"):
            given.append(str(run) if rng.random() < 0.7 else cli_value(rng, folder, argument))
        for key, values in chosen.items():
            given += [f"{key}={values[0]}" if values and rng.random() < 0.5 else key, *values[: 1 if values else 0]]
            if values and given[-2].startswith(f"{key}="):
                given.pop()
        yield f"faithmap {given!r}", lambda given=given: invoke(runner, app, given)


def cli_value(rng: random.Random, folder: Path, option: Any) -> str:
    """A value that starts nothing outside this process and reaches nothing outside this machine."""
    while True:
        value = text(rng, folder) if rng.random() < 0.7 else str(rng.choice([0, 1, 2, 3, -1, 10**6, 10**12, 0.5, "x"]))
        value = value.replace("\0", "0").encode("utf-8", "replace").decode()
        if "int" in str(getattr(option, "type_descriptor", "")).lower() and rng.random() < 0.8:
            return str(rng.choice([0, 1, 2, 3, 7, -1, 10**4, 10**9, 10**20]))
        if not value.startswith(("s3", "/dev")) and value not in ("/", "..", "../..", "photos", "fig4"):
            return value


def invoke(runner: Any, app: Any, given: list[str]) -> None:
    """Run a command in this process; anything but an exit with a sentence is raised."""
    result = runner.invoke(app, given)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    if "Traceback" in result.output:
        raise AssertionError(f"a traceback: {result.output[-500:]}")
    if result.exit_code not in (0, 1, 2):
        raise AssertionError(f"exit code {result.exit_code}: {result.output[-500:]}")


@contextlib.contextmanager
def stubbed() -> Iterator[None]:
    """`load_classifier` gives the small network, whatever the name."""
    import faithmap.classifiers

    def load(name: str, device: Any = "auto") -> faithmap.Classifier:
        from faithmap.classifiers import pick_device

        if not isinstance(name, str) or name != "squeezenet1_1-embedded":
            return real(name, device)
        return network().to(pick_device(device))

    real = faithmap.load_classifier
    faithmap.load_classifier = faithmap.classifiers.load_classifier = load  # type: ignore[assignment]
    try:
        yield
    finally:
        faithmap.load_classifier = faithmap.classifiers.load_classifier = real  # type: ignore[assignment]


def file_cases(rng: random.Random, folder: Path) -> Iterator[Case]:
    """Every kind of file that is read, with some of its bytes changed, cut off, doubled or replaced."""
    kinds = file_kinds(folder / "good")
    number = 0
    while True:
        name, read = rng.choice(list(kinds.items()))
        number += 1
        place = folder / f"case-{number % 4}"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(folder / "good" / name, place)
        victims = [path for path in place.rglob("*") if path.is_file() and not path.name.startswith(".lock")]
        victim = rng.choice(victims)
        seed = rng.random()
        victim.write_bytes(damaged(victim.read_bytes(), random.Random(seed)))
        yield f"{name}: {victim.relative_to(place)} damaged with {seed}", lambda read=read, place=place: read(place)


def damaged(data: bytes, rng: random.Random) -> bytes:
    """The same bytes, but not quite."""
    found = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8])):
        at = rng.randrange(len(found) + 1)
        match rng.randrange(8):
            case 0:
                del found[at:]
            case 1:
                found[at:at] = rng.randbytes(rng.choice([1, 7, 500]))
            case 2 if at < len(found):
                found[at] ^= 1 << rng.randrange(8)
            case 3:
                found[at : at + rng.choice([1, 4, 8])] = rng.choice(
                    [b"\0", b"\xff" * 4, b"\xff" * 8, b"\x7f\xff\xff\xff"]
                )
            case 4:
                found[at:] = found[at:] * 2
            case 5:
                del found[at : at + rng.choice([1, 4, 100])]
            case 6:
                found = bytearray(
                    rng.choice([b"", b"text", b"PK\x03\x04", b"\x93NUMPY", b"{}", b"[]", b"null", b"\x89PNG\r\n"])
                )
            case _:
                digits = [place for place, byte in enumerate(found[:4000]) if chr(byte).isdigit()]
                if digits:
                    found[rng.choice(digits)] = ord(rng.choice("0123456789-e."))
    return bytes(found)


def file_kinds(good: Path) -> dict[str, Callable[[Path], Any]]:
    """Name → what reads a folder of that name; the folders are made here, undamaged."""
    plain = faithmap.Preprocessing(crop=(SIZE, SIZE), resize=None)
    picture = Image.fromarray((pixels(1)[0].permute(1, 2, 0) * 255).byte().numpy())
    for suffix in ("png", "jpg", "gif", "bmp", "tiff", "webp", "ppm", "ico", "tga"):
        (good / f"image-{suffix}").mkdir(parents=True)
        picture.save(good / f"image-{suffix}" / f"a.{suffix}")
    for name in ("npy", "npz", "safetensors", "folder", "labels", "run", "resumed"):
        (good / name).mkdir(parents=True)
    maps = heatmap(2).numpy()
    np.save(good / "npy" / "m.npy", maps)
    np.savez_compressed(good / "npz" / "m.npz", **{"0": maps[0], "1": maps[1]})
    from safetensors.torch import save_file

    save_file({"0": heatmap()[0].contiguous(), "1": heatmap()[1].contiguous()}, good / "safetensors" / "m.safetensors")
    np.save(good / "folder" / "0.npy", maps[0])
    np.savez(good / "folder" / "1.npz", maps[1])
    np.save(good / "labels" / "0.npy", np.arange(SIZE * SIZE).reshape(SIZE, SIZE) // 100)
    labels = np.arange(SIZE * SIZE, dtype=np.uint8).reshape(SIZE, SIZE) // 50
    Image.fromarray(labels).save(good / "labels" / "1.png")
    for name in ("run", "resumed"):
        faithmap.evaluate(network(), pixels(), "sensitivity", protocol(), good / name, save_heatmaps=True)

    def image(place: Path) -> None:
        for one in faithmap.load_images(place):
            one.read(plain)

    def given(place: Path) -> None:
        path = next(iter(place.iterdir())) if len(list(place.iterdir())) == 1 else place
        faithmap.evaluate(network(), pixels(), {"mine": path}, protocol(), None)

    def segments(place: Path) -> None:
        asked = protocol().override(placement="segment", segments=f"folder:{place}")
        faithmap.evaluate(network(), pixels(), "sensitivity", asked, None)

    def stored(place: Path) -> None:
        run = faithmap.Run(place)
        run.scores()
        run.aopc()
        for example in run.examples(None):
            run.removal_step(example, "sensitivity:l2")
            run.fill(example)
        run.skipped, run.protocol, repr(run)

    def resumed(place: Path) -> None:
        from faithmap.cli.doctor import findings

        list(findings(place, None))
        run = faithmap.evaluate(network(), pixels(3), "sensitivity", protocol(), place, save_heatmaps=True)
        assert len(run.scores()) == 3 * 2 * 3, "rows were lost"
        assert not [one for one in findings(place, None) if one.state == "bad" and str(place) in one.what]

    images = {path.name: image for path in good.iterdir() if path.name.startswith("image-")}
    heatmaps = dict.fromkeys(("npy", "npz", "safetensors", "folder"), given)
    return images | heatmaps | {"labels": segments, "run": stored, "resumed": resumed}


FAMILIES: dict[str, Callable[[random.Random, Path], Iterator[Case]]] = {
    "api": api_cases,
    "cli": cli_cases,
    "files": file_cases,
}


# Running cases.


def repr_of(value: Any) -> str:
    """What Python shows of a value, even of one that refuses."""
    try:
        return repr(value)
    except Exception:
        return type(value).__name__


def shown(given: dict[str, Any]) -> str:
    """Arguments, short."""

    def one(value: Any) -> str:
        if isinstance(value, torch.Tensor):
            return f"<{value.dtype} {value.layout} {value.device}>"
        return repr_of(value)[:120]

    return ", ".join(f"{name}={one(value)}" for name, value in given.items())


def outcome(case: Callable[[], Any]) -> str | None:
    """What is wrong with how a case ended; None: nothing."""
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            case()
    except FaithmapError as error:
        said = str(error)
        if "\n" in said or not said or len(said) > 6000:
            return f"not one sentence: {type(error).__name__}: {said[:300]!r}"
    except TooLong:
        return f"took longer than {SECONDS} s\n" + "".join(traceback.format_exc().splitlines(keepends=True)[-12:])
    except (Exception, SystemExit, KeyboardInterrupt):
        return "".join(traceback.format_exc().splitlines(keepends=True)[-24:])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return f"took {grown:.0f} MB" if grown > MEGABYTES else None


def too_long(*_: Any) -> None:
    """The alarm of a case."""
    raise TooLong


def fuzz(family: str, seed: int, cases: float, seconds: float) -> tuple[int, int]:
    """Cases of a family, until there were enough of them or the time is over: (cases, findings)."""
    rng = random.Random(f"{family} {seed}")
    folder = Path(tempfile.mkdtemp(prefix=f"faithmap-fuzz-{family}-"))
    prepared(folder / "pictures")
    before, begun, done, found = Path.cwd(), time.monotonic(), 0, Counter[str]()
    (folder / "cwd").mkdir()
    os.chdir(folder / "cwd")
    signal.signal(signal.SIGALRM, too_long)
    try:
        with stubbed():
            for what, case in FAMILIES[family](rng, folder):
                if done >= cases or time.monotonic() - begun > seconds:
                    break
                done += 1
                wrong = outcome(case)
                if wrong is not None:
                    kind = wrong.strip().splitlines()[-1][:150]
                    found[kind] += 1
                    if found[kind] == 1:
                        print(f"FINDING {family} {seed} #{done}: {what}\n{wrong}", flush=True)
    finally:
        os.chdir(before)
        shutil.rmtree(folder, ignore_errors=True)
    return done, len(found)


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, help="how long, over all families")
    parser.add_argument("--cases", type=int, help="how many of each family")
    parser.add_argument("--family", choices=[*FAMILIES], action="append")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    families = asked.family or list(FAMILIES)
    seconds = 60 * asked.minutes / len(families) if asked.minutes else float("inf")
    cases = asked.cases or (float("inf") if asked.minutes else 500)
    wrong = 0
    for family in families:
        begun = time.monotonic()
        done, found = fuzz(family, asked.seed, cases, seconds)
        wrong += found
        took = time.monotonic() - begun
        print(f"{family}: {done:,} cases, {found} findings, {took:.0f} s, seed {asked.seed}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
