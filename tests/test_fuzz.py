"""A short run of the fuzzer, in a process of its own, and what public functions leave of their arguments."""

import copy
import inspect
import itertools
import os
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from benchmarks import fuzz
from benchmarks.fuzzing.api import called
from benchmarks.fuzzing.hostile import NEAR
from benchmarks.fuzzing.valid import SIZE, calls, function_of, further_calls, measured_run, network, pixels, protocol

import faithmap
from faithmap import foreign
from faithmap.report.page import write_text

ROOT = Path(__file__).parent.parent
CALLS = calls()


@pytest.mark.parametrize(("family", "cases"), [("api", 500), ("cli", 20), ("files", 40)])
def test_hostile_cases_end_in_a_result_or_a_sentence(family, cases):
    command = [sys.executable, "-m", "benchmarks.fuzz", "--family", family, "--cases", str(cases), "--seed", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert f"{family}: {cases} cases, 0 findings" in done.stdout


def test_arguments_that_once_ended_in_a_traceback():
    class Rude:
        def __repr__(self):
            raise RuntimeError("no repr")

    with pytest.raises(faithmap.errors.ClassifierError, match="index"):
        network().label(Rude())
    with pytest.raises(faithmap.errors.FaithmapError, match=r"fractions is .*: give a list of numbers"):
        faithmap.statistics.boundary(fractions=np.array(0.0), level=0.05)
    for path in (".", "/", ".."):
        with pytest.raises(faithmap.errors.StoreError, match="is not a file"):
            write_text(Path(path), "")
    frame = measured_run().scores()
    with pytest.raises(faithmap.errors.FaithmapError, match=r"methods is .*: give a list of texts"):
        faithmap.plots.curves(frame, methods=b"")
    with pytest.raises(faithmap.errors.FaithmapError, match=r"column .order. with missing values"):
        faithmap.statistics.per_image_aopc(frame.assign(order=[None, *frame["order"].astype(str)[1:]]))
    seeds = [faithmap.statistics.ranking(frame, seed=seed) for seed in (2, np.array(2), torch.tensor(2))]
    assert seeds[0].equals(seeds[1])
    assert seeds[0].equals(seeds[2])
    for channels in (np.zeros((2, 2)), np.array([]), torch.rand(3)):
        with pytest.raises(faithmap.errors.InputError, match=r"channels is|a channel .* is"):
            measured_run().report("unused.html", channels=channels)


class Endless:
    """Has a length, and never comes to its end."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return 1


class NoPath(os.PathLike):
    """A path that is none, or that fails."""

    def __init__(self, answer):
        self.answer = answer

    def __fspath__(self):
        if self.answer is None:
            raise RuntimeError("no path")
        return self.answer


class Deaf:
    """Raises whatever is asked of it."""

    def __getattr__(self, name):
        raise RuntimeError(f"no {name}")

    def __eq__(self, other):
        raise RuntimeError("no equality")

    __hash__ = None


def odd(kind, *entries, **ways):
    """A subclass of a plain type, with some of its methods replaced."""
    return lambda: type(f"Odd{kind.__name__}", (kind,), {"__hash__": None, **ways})(*entries)


def raising(*_):
    raise RuntimeError("no")


def endless(_):
    return itertools.repeat("edge")


def itself():
    found = []
    found.append(found)
    return found


def freed():
    found = pixels()
    found.untyped_storage().resize_(0)
    return found


TEXT = {"__hash__": str.__hash__}
MISBEHAVING = {
    "text without equality": odd(str, "edge", __eq__=raising, **TEXT),
    "text without words": odd(str, "edge", __str__=raising, __repr__=raising, __format__=raising, **TEXT),
    "long text": lambda: "a" * 10**6,
    "list of long text": lambda: ["a" * 10**5],
    "list of half a character": lambda: {"\ud800": "edge"},
    "list without length": odd(list, ["edge"], __len__=raising),
    "list without truth": odd(list, ["edge"], __bool__=raising),
    "list of a negative length": odd(list, ["edge"], __len__=lambda _: -1),
    "list that cannot be read": odd(list, ["edge"], __iter__=raising),
    "list without end": odd(list, ["edge"], __iter__=endless),
    "list in itself": itself,
    "list of something endless": lambda: [Endless()],
    "mapping that cannot be read": odd(dict, {"0": "edge"}, __iter__=raising, items=raising, keys=raising),
    "mapping without entries": odd(dict, {"0": "edge"}, __getitem__=raising, get=raising),
    "generator that fails": lambda: (1 / 0 for _ in "a"),
    "integer beyond floats": lambda: 10**400,
    "fraction beyond floats": lambda: Fraction(10**400, 3),
    "integer that cannot be read": odd(int, 1, __index__=raising, __int__=raising, __float__=raising, __repr__=raising),
    "tensor beyond memory": lambda: torch.tensor(0.5).expand(2**20, 3, 2**12, 2**12),
    "integers beyond memory": lambda: torch.tensor(1).expand(2**40),
    "array beyond memory": lambda: np.broadcast_to(np.float32(0.5), (2**20, 3, 2**12, 2**12)),
    "tensor without memory": freed,
    "negated view": lambda: torch._neg_view(pixels()),
    "wide unsigned integers": lambda: torch.ones(2, SIZE, SIZE).to(torch.uint64),
    "frame": pd.DataFrame,
    "frame of something else": lambda: pd.DataFrame({"image": [1]}),
    "mapping": dict,
    "series": lambda: pd.Series([1, 2]),
    "no values": lambda: np.array([]),
    "records": lambda: np.array([(1, 2)], dtype=[("a", "i4"), ("b", "i4")]),
    "missing": lambda: pd.NA,
    "measured": lambda: measured_run().measured(),
    "pair": tuple,
    "same twice": lambda: ("edge", "edge"),
    "endless": Endless,
    "no end": lambda: itertools.repeat("a"),
    "deaf": Deaf,
    "class": lambda: Deaf,
    "half a character": lambda: "\ud800",
    "half a character in a path": lambda: Path("\ud800"),
    "long path": lambda: Path("a" * 300),
    "no path": lambda: NoPath(None),
    "path of a number": lambda: NoPath(3),
    "path of bytes": lambda: NoPath(b"abc"),
}
# Of each family some that answer at once; the fuzzer calls all of them.
QUICK = [
    "heatmaps", "aopc", "Protocol.preset", "attribution.resolve_methods", "measures.masks.load_masks",
    "studies.leaderboard.leaderboard", "statistics.boundary", "statistics.decided", "statistics.verdict",
    "statistics.measured_from", "Classifier", "load_images", "perturb", "removal_steps", "relative_to_random",
    "statistics.kendalls_w", "measures.registry.resolve_measures", "Protocol.from_dict", "Protocol.override",
    "Images.grouped", "Run.figure", "mosaics.mosaics", "testbeds.shapes", "inference.examine", "studies.settings.grid",
    "Classifier.class_index",
]  # fmt: skip


@pytest.fixture
def alarm(monkeypatch):
    """A case that takes longer than ten seconds of processor time is ended, and is a finding."""
    monkeypatch.setattr(fuzz, "SECONDS", 10)
    monkeypatch.setattr(foreign, "MOST_ENTRIES", 10_000)
    before = {one: signal.signal(one, fuzz.too_long) for one in (signal.SIGALRM, signal.SIGPROF)}
    yield
    for one, handler in before.items():
        signal.signal(one, handler)


@pytest.mark.usefixtures("alarm")
@pytest.mark.parametrize("name", QUICK)
def test_objects_that_misbehave_end_in_a_result_or_a_sentence(name):
    """Each of them as each argument."""
    make = {**further_calls(), **CALLS}[name]
    known = inspect.signature(function_of(name)).parameters.values()
    arguments = [
        one.name for one in known if one.name != "self" and one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
    ]
    wrong = {
        f"{argument} is {kind}": found
        for argument in arguments
        for kind, value in MISBEHAVING.items()
        if (found := fuzz.outcome(lambda: called(function_of(name), {**make(), argument: value()}))) is not None  # noqa: B023
    }
    assert not wrong, "\n".join(f"{what}:\n{how}" for what, how in wrong.items())


@pytest.mark.usefixtures("alarm")
@pytest.mark.parametrize("kind", [kind for kind in MISBEHAVING if kind.startswith(("list ", "mapping "))])
@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("evaluate", "targets"),
        ("plots.steps", "removal_steps"),
        ("plots.steps", "fill"),
        ("complexity_table", "heatmaps"),
    ],
)
def test_lists_and_mappings_that_misbehave_end_in_a_sentence(name, argument, kind):
    given = {**{**further_calls(), **CALLS}[name](), argument: MISBEHAVING[kind]()}
    assert fuzz.outcome(lambda: called(function_of(name), given)) is None


def test_figures_may_be_as_coarse_as_is_said(tmp_path):
    axes = measured_run().plot()
    assert faithmap.plots.save(axes, tmp_path / "f.png", dpi=20).stat().st_size
    with pytest.raises(faithmap.FaithmapError, match="dots per inch from 20 to 2400"):
        faithmap.plots.save(axes, tmp_path / "f.png", dpi=19)


def test_classes_that_are_no_numbers_are_named():
    frame = measured_run().scores()
    with pytest.raises(faithmap.errors.CurveError, match="column 'label' of"):
        faithmap.statistics.subsets(frame.assign(label="x"))


# Argument → the function that takes it, with arguments that are valid.
TAKES = {
    "evaluate": ("measures", "masks", "targets", "groups", "until", "methods", "heatmap_resize", "memory"),
    "study": ("settings",),
    "Classifier": ("module", "score"),
    "draw_fill": ("fill",),
    "removal_steps": ("segments",),
}


@pytest.mark.parametrize(
    ("name", "argument", "at"),
    [(name, one, at) for name, taken in TAKES.items() for one in taken for at in range(len(NEAR[one]))],
)
def test_values_that_are_almost_right_end_in_a_result_or_a_sentence(name, argument, at):
    """Also where a network or a fill is used afterwards."""
    given = {**CALLS[name](), argument: NEAR[argument][at]()}

    def case():
        made = getattr(faithmap, name)(**given)
        if name == "Classifier":
            faithmap.evaluate(made, pixels(), "edge", protocol())

    assert fuzz.outcome(case) is None


@pytest.mark.parametrize("at", range(len(NEAR["fill"])))
def test_fills_of_all_kinds_end_in_a_result_or_a_sentence(at):
    def case():
        faithmap.evaluate(network(), pixels(), "edge", protocol().override(fill=NEAR["fill"][at]()))

    assert fuzz.outcome(case) is None


def test_the_fuzzer_finds_what_it_looks_for():
    def endless():
        while True:
            pass

    def raising(error):
        raise error

    assert fuzz.outcome(lambda: None) is None
    assert fuzz.outcome(lambda: raising(faithmap.FaithmapError("a sentence"))) is None
    for error in (ValueError("no"), KeyError(), SystemExit(1), faithmap.FaithmapError(), Careless()):
        assert fuzz.outcome(lambda error=error: raising(error)) is not None
    before = fuzz.SECONDS
    try:
        fuzz.SECONDS = 0.2
        fuzz.signal.signal(fuzz.signal.SIGPROF, fuzz.too_long)
        assert "longer than" in fuzz.outcome(endless)
    finally:
        fuzz.SECONDS = before


class Careless(faithmap.FaithmapError):
    """Goes around what keeps a message on one line."""

    def __str__(self):
        return "two\nlines"


def test_a_process_that_dies_is_a_finding(capfd):
    def cases(rng, folder):
        yield "a case that ends the process", lambda: os.kill(os.getpid(), 9)

    fuzz.FAMILIES["deadly"] = cases
    try:
        assert fuzz.guarded("deadly", 0, 5, 60) == 1
    finally:
        del fuzz.FAMILIES["deadly"]
    assert "ended with -9 at #1: a case that ends the process" in capfd.readouterr().out


def test_every_public_function_is_called():
    public = {name for name in faithmap.__all__ if inspect.isfunction(inspect.unwrap(getattr(faithmap, name)))}
    assert public <= CALLS.keys()


def state(value):
    """What must be the same before and after: values, storage versions, modes, hooks."""
    if isinstance(value, torch.Tensor):
        return (value.clone(), value._version, value.requires_grad, value.grad is None)
    if isinstance(value, torch.nn.Module):
        modes = [(one.training, len(one._forward_hooks), len(one._backward_hooks)) for one in value.modules()]
        return (modes, [state(one) for one in (*value.parameters(), *value.buffers())])
    if isinstance(value, faithmap.Classifier):
        return (state(value.module), value.mean, value.std, value.labels, value.preprocessing, value.name)
    if isinstance(value, faithmap.Images):
        return (value.name, [(one.id, state(getattr(one, "pixels", None)), one.label) for one in value])
    if isinstance(value, dict):
        return {name: state(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [state(one) for one in value]
    if isinstance(value, np.ndarray | pd.DataFrame):
        return value.copy()
    return copy.copy(value) if isinstance(value, str | int | float | faithmap.Protocol | None) else None


def same(before, after):
    if isinstance(before, torch.Tensor):
        return torch.equal(before, after)
    if isinstance(before, dict):
        return before.keys() == after.keys() and all(same(before[name], after[name]) for name in before)
    if isinstance(before, list | tuple):
        return len(before) == len(after) and all(map(same, before, after))
    if isinstance(before, np.ndarray):
        return np.array_equal(before, after)
    return bool(before == after)


@pytest.mark.parametrize("name", [name for name in CALLS if name != "load_classifier"])
def test_no_argument_is_modified(name):
    """Also those of a network in training mode, whose mode must come back."""
    given = CALLS[name]()
    if "classifier" in given:
        given["classifier"].module.train()
    before = state(given)
    inspect.unwrap(getattr(faithmap, name))(**given)
    assert same(before, state(given))


def test_a_modified_argument_would_be_seen():
    for change in (
        lambda given: given["pixels"].mul_(1),
        lambda given: given["classifier"].module.eval(),
        lambda given: given["classifier"].module[0].register_forward_hook(lambda *_: None),
        lambda given: given["image_ids"].append("c"),
        lambda given: given["classifier"].module[0].weight.data.add_(1),
    ):
        given = CALLS["heatmaps"]()
        before = state(given)
        change(given)
        assert not same(before, state(given))
