"""Every command of `faithmap`, any of its options with any value."""

from __future__ import annotations

import contextlib
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.fuzzing.api import Case
from benchmarks.fuzzing.hostile import damaged, text
from benchmarks.fuzzing.valid import heatmap, masks, network, pixels, protocol

import faithmap

MEASURING = ("run", "operators", "study")
# Values that are right, or nearly so, for options that a random text rarely reaches.
RIGHT: dict[str, list[str]] = {
    "--measures": [
        "complexity",
        "gini,gini",
        "pointing-game",
        "max-sensitivity:n=2",
        "localisation,nobody",
        "gini:n=1",
    ],
    "--masks": ["masks", "voc", "coco.json", "bad.json", "maps", "groups.csv"],
    "--groups": ["folder", "(.)", "(", "groups.csv", "bad.csv", "(a+)+$"],
    "--target": ["label", "predicted", "1", "99", "-1", "targets.csv", "bad.csv", "pipe.csv", "0x1", "٣"],
    "--until": ["decided", "random", "sensitivity:l2,random", "a,b,c", ",", "sensitivity:l2,"],
    "--at-most": ["1", "2", "0"],
    "--heatmap-resize": ["nearest", "picture:bilinear", "picture:", "linear"],
    "--heatmaps": ["mine=maps", "mine=maps/a.npy", "=", "x=", "=maps", "a/b=maps", "[b]=maps", "mine=pipe.csv"],
    "--heatmaps-from": ["run", "masks", "study", "bad-run"],
    "--memory": ["1", "1GiB", "1e9", "999999999999GB", "-1", "0", "½GB"],
    "--on-refusal": ["skip", "error", "Skip"],
    "--settings": ["quick", "consistency"],
    "--fills": ["uniform,constant:mean", "uniform,uniform", "blur:sigma=1e9", ",", "drop,uniform"],
    "--region-sizes": ["6,8", "6", "0", "a", "6,,8", "1e3", "6.0", "99999999999"],
    "--points": ["2", "all", "1", "0", "1.5", "-3"],
    "--methods": ["sensitivity,edge", "fig4", "families", "edge,edge", "../..", "negated:edge", "random"],
    "--models": ["squeezenet1_1-embedded", ",", "squeezenet1_1-embedded,squeezenet1_1-embedded", "a/b:c"],
    "--model": ["onnx:nobody.onnx", "onnx:maps/a.npy", "hf:masks", "timm:", "onnx:", "onnx:pipe.csv?norm=x"],
    "--figure": ["steps", "heatmaps", "scorecard", "study", "reliability", "agreement", "curves"],
    "--compare": ["run", "study", "bad-run"],
    "--bands": ["all", "none", "edge", ",", "[b]"],
    "--images": ["masks", "pictures", "mosaic:pictures", "mosaic:", "maps", "pipe.csv", "groups.csv"],
    "--sort": ["gini", "srg", "nobody"],
    "--measure": ["srg", "gini", "aopc", "nobody"],
    "--executor": ["local", "Local", "dask"],
}


def cli_cases(rng: random.Random, folder: Path) -> Iterator[Case]:
    """For ever: (command line, what runs it); the network is small, and nothing is downloaded."""
    import typer.main
    from typer.testing import CliRunner

    from faithmap.cli import app

    root: Any = typer.main.get_command(app)
    runner = CliRunner()
    places = furnished(folder)
    names = [name for name in root.commands for _ in range(1 if name == "sanity" else 3)]
    while True:
        name = rng.choice(names)
        command = root.commands[name]
        chosen = quick(name, command, rng, folder)
        options = [one for one in command.params if one.param_type_name == "option" and one.name != "help"]
        for option in rng.sample(options, min(len(options), rng.choice([0, 1, 1, 2, 3]))):
            chosen[option.opts[0]] = None if option.is_flag else cli_value(rng, folder, option)
        given = [name]
        for argument in (one for one in command.params if one.param_type_name == "argument"):
            for _ in range(rng.choice([1, 2, 2, 3]) if argument.nargs == -1 else 1):
                right = rng.choice(places)
                if right.name == "bad-run":
                    spoil(right, rng)
                given.append(str(right) if rng.random() < 0.8 else cli_value(rng, folder, argument))
        for key, value in chosen.items():
            if value is None:
                given.append(key)
            elif rng.random() < 0.5:
                given.append(f"{key}={value}")
            else:
                given += [key, value]
        yield f"faithmap {given!r}", lambda given=given: invoke(runner, app, given)


def furnished(folder: Path) -> list[Path]:
    """What options name, in the current folder and in `folder`; returns run folders, good and bad ones."""
    here = Path.cwd()
    run = here / "run"
    asked = protocol().override(orders=("morf", "lerf"))
    how: dict[str, Any] = {"measures": "gini,pointing-game", "masks": masks(), "save_heatmaps": True}
    faithmap.evaluate(network(), pixels(), ["sensitivity", "edge"], asked, run, **how)
    settings = [asked, asked.override(fill="constant:mean")]
    faithmap.study(network(), pixels(), ["sensitivity", "edge"], settings, here / "study")
    shutil.copytree(run, here / "good")
    shutil.copytree(run, here / "bad-run")
    (here / "groups.csv").write_text("image,group\na.png,x\nb.png,x\n")
    (here / "targets.csv").write_text("image,class\na,1\nb,2\n")
    (here / "bad.csv").write_bytes(b"image,group\n\xff\0,\n,,,\n")
    (here / "coco.json").write_text('{"images": [], "annotations": []}')
    (here / "bad.json").write_text('{"images": 3}')
    shutil.copytree(folder / "pictures", here / "masks", symlinks=True, ignore=lambda *_: ["pipe.png", "zero.png"])
    (here / "voc").mkdir()
    (here / "voc" / "a.xml").write_text("<annotation/>")
    (here / "maps").mkdir()
    for name in "ab":
        np.save(here / "maps" / f"{name}.npy", heatmap(1)[0].numpy())
    (here / "pictures").symlink_to(folder / "pictures")
    (here / "pipe.csv").symlink_to(folder / "pictures" / "pipe.png")
    return [run, run, here / "study", here / "study" / "uniform-6", here / "bad-run"]


def spoil(run: Path, rng: random.Random) -> None:
    """Make the run anew and damage one of its files."""
    shutil.rmtree(run)
    shutil.copytree(run.parent / "good", run)
    victim = rng.choice([path for path in run.rglob("*") if path.is_file()])
    victim.write_bytes(damaged(victim.read_bytes(), rng))


def quick(name: str, command: Any, rng: random.Random, folder: Path) -> dict[str, str | None]:
    """Options that keep a case short; others may take their place."""
    known = {option.opts[0] for option in command.params if option.param_type_name == "option"}
    usual = {"--steps": "2", "--draws": "1", "--region-size": "6", "--images": str(folder / "pictures"), "--limit": "2"}
    if name == "study":
        usual |= {"--fills": "uniform,constant:mean", "--region-sizes": "6", "--points": "2"}
    if name in MEASURING:
        usual |= {"--methods": "sensitivity", "--method": "sensitivity", "--fill": "uniform"}
        usual["--out"] = str(folder / "runs" / str(rng.random()))
    if name == "sanity":
        usual["--methods"] = "sensitivity"
    return {key: value for key, value in usual.items() if key in known}


def cli_value(rng: random.Random, folder: Path, option: Any) -> str:
    """A value that starts nothing outside this process and reaches nothing outside this machine."""
    key = option.opts[0] if option.opts else ""
    if key in RIGHT and rng.random() < 0.5:
        return rng.choice(RIGHT[key])
    while True:
        value = text(rng, folder) if rng.random() < 0.7 else str(rng.choice([0, 1, 2, 3, -1, 10**6, 10**12, 0.5, "x"]))
        value = value.replace("\0", "0").encode("utf-8", "replace").decode()
        if "int" in str(getattr(option, "type_descriptor", "")).lower() and rng.random() < 0.8:
            return str(rng.choice([0, 1, 2, 3, 7, -1, 10**9, 10**20]))  # thousands of draws are right, and only long
        if not value.startswith(("s3", "/dev")) and value not in ("/", "..", "../..", "photos", "fig4"):
            return value


def invoke(runner: Any, app: Any, given: list[str]) -> None:
    """Run a command in this process; anything but an exit with one sentence is raised."""
    result = runner.invoke(app, given)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert "Traceback" not in result.output, f"a traceback: {result.output[-500:]}"
    said = result.stderr
    if result.exit_code == 1 and given[0] != "doctor":
        lines = said[said.rfind("error: ") :].strip().splitlines()
        assert len(lines) == 1, f"not one line: {said[-700:]}"
    assert result.exit_code in (0, 1, 2), f"exit code {result.exit_code}: {result.output[-500:]}"


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
