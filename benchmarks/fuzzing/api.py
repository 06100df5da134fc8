"""Public functions with one to three of their arguments replaced."""

from __future__ import annotations

import contextlib
import inspect
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from benchmarks.fuzzing.hostile import NEAR, hostile, other_frame, other_tensors, text
from benchmarks.fuzzing.valid import calls, function_of, further_calls

SLOW = ("load_classifier", "operator_table", "study", "Run.report", "Study.report", "Run.figure", "Study.figure")
RUNS = ("evaluate", "operator_table", "study")
Case = tuple[str, Callable[[], Any]]


def api_cases(rng: random.Random, folder: Path) -> Iterator[Case]:
    """For ever: (what reproduces a case, what to call)."""
    valid = calls()
    valid |= {name: make for name, make in further_calls().items() if name not in valid}
    names = [name for name in valid for _ in range(1 if name in SLOW else 20 if name == "evaluate" else 6)]
    while True:
        name = rng.choice(names)
        function = function_of(name)
        given = valid[name]()
        kinds = inspect.signature(function).parameters.values()
        further = [p.name for p in kinds if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) and p.name != "self"]
        further += [one for one in given if one not in further and one != "self"]
        for argument in rng.sample(further, min(len(further), rng.choice([1, 1, 1, 2, 3]))):
            given[argument] = replaced(argument, given.get(argument), rng, folder)
        if name == "load_classifier" and repr_of(given["name"]) == "'squeezenet1_1-embedded'":
            given["name"] = text(rng, folder)
        if name in RUNS and given.get("out") is not None:
            given["out"] = folder / "runs" / f"{rng.random()}" if rng.random() < 0.5 else given["out"]
        yield f"faithmap.{name}(**{shown(given)})", lambda function=function, given=given: called(function, given)


def called(function: Callable[..., Any], given: dict[str, Any]) -> Any:
    """Call it; a bound method where there is a `self`."""
    owner = given.get("self")
    if owner is None:
        return function(**given)
    return function(owner, **{name: value for name, value in given.items() if name != "self"})


def replaced(argument: str, value: Any, rng: random.Random, folder: Path) -> Any:
    """Something else for an argument."""
    if argument in ("progress", "executor"):  # a function of one's own may raise what it likes
        return rng.choice([None, True, "ray", 3, object(), b"x"])
    if argument in ("ax", "figure") and rng.random() < 0.5:
        return None
    if argument in NEAR and rng.random() < 0.6:
        return rng.choice(NEAR[argument])()
    with contextlib.suppress(Exception):  # some kinds cannot be made of some tensors
        if isinstance(value, torch.Tensor) and rng.random() < 0.7:
            return other_tensors(value, rng)
        if isinstance(value, pd.DataFrame) and rng.random() < 0.9:
            return other_frame(value, rng)
    return hostile(rng, folder)


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
        if isinstance(value, pd.DataFrame):
            return f"<frame {value.shape} {' '.join(map(str, value.dtypes))}>"
        return repr_of(value)[:120]

    return ", ".join(f"{name}={one(value)}" for name, value in given.items())
