"""What takes the place of a valid value: tensors, objects, texts and bytes that nobody should hand over."""

from __future__ import annotations

import itertools
import os
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import torch
from benchmarks.fuzzing.valid import SIZE, heatmap, network, pixels, protocol
from PIL import Image

import faithmap


class Rude:
    """An object that raises whatever is asked of it."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"no {name}")

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


def raising(*_: Any, **__: Any) -> Any:
    """What a method of somebody's class may do."""
    raise RuntimeError("no")


def endless(_: Any) -> Iterator[str]:
    """Another thing that it may do."""
    while True:
        yield "edge"


def odd_list(rng: random.Random, entries: Sequence[Any] = ("edge",)) -> list[Any]:
    """A list that raises, lies or never ends where it is asked for something."""
    ways: dict[str, list[Any]] = {
        "__len__": [raising, lambda _: -1, lambda _: 10**12],
        "__iter__": [raising, endless, lambda _: None],
        "__getitem__": [raising],
        "__bool__": [raising],
        "__eq__": [raising],
        "__repr__": [raising],
    }
    chosen = rng.sample(list(ways), rng.choice([1, 1, 2, 6]))
    return type("OddList", (list,), {name: rng.choice(ways[name]) for name in chosen})(entries)


def odd_text(rng: random.Random) -> str:
    """A text that raises or lies where it is asked for something."""
    ways = {"__str__": raising, "__repr__": raising, "__format__": raising, "__eq__": raising, "__hash__": str.__hash__}
    name = rng.choice(["__str__", "__repr__", "__format__", "__eq__"])
    return type("OddText", (str,), {name: ways[name], "__hash__": str.__hash__})(rng.choice(["edge", "logit", "auto"]))


def odd_mapping(rng: random.Random) -> Any:
    """A mapping that is no dict, or a dict that raises."""
    if rng.random() < 0.3:
        return MappingProxyType({"0": "edge"})
    chosen = rng.sample(["__iter__", "__getitem__", "items", "keys", "get", "__len__"], 2)
    return type("OddMapping", (dict,), dict.fromkeys(chosen, raising))({"0": "edge"})


def freed(value: torch.Tensor) -> torch.Tensor:
    """A tensor whose memory was given back, as those of sharded networks are."""
    value = value.clone()
    value.untyped_storage().resize_(0)
    return value


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
        lambda: freed(value),
        lambda: torch._neg_view(value.float()),
        lambda: value.to(rng.choice([torch.uint16, torch.uint64, torch.int8, torch.float8_e4m3fn])),
        lambda: value.as_subclass(type("Other", (torch.Tensor,), {})),
        lambda: torch.tensor(0.5).expand(2**20, 3, 2**12, 2**12),
        lambda: np.broadcast_to(np.float32(0.5), (2**20, 3, 2**12, 2**12)),
        lambda: np.flip(value.numpy()),
        lambda: odd_list(rng, value.tolist()),
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
        lambda: odd_list(rng),
        lambda: [odd_list(rng, [1, 2])],
        lambda: odd_text(rng),
        lambda: odd_mapping(rng),
        lambda: itertools.repeat("edge"),
        lambda: rng.choice([10**400, Fraction(10**400, 3), Decimal("sNaN"), 1j, np.timedelta64(3)]),
    ]
    return rng.choice(made)()


NEAR: dict[str, list[Callable[[], Any]]] = {
    "measures": [
        lambda: "gini,entropy",
        lambda: ["gini", "gini"],
        lambda: {"mine": lambda *_: 1.0},
        lambda: {"mine": lambda *_, **__: None},
        lambda: {"a/b\n": "gini"},
        lambda: [lambda heatmap: float("nan")],
        lambda: "max-sensitivity:n=100000000",
        lambda: "localisation",
        lambda: "infidelity:n=0",
        lambda: ["gini", None],
    ],
    "masks": [
        lambda: {"0": torch.ones(3, 3)},
        lambda: {"0": np.zeros((SIZE, SIZE))},
        lambda: {"0": torch.full((SIZE, SIZE), float("nan"))},
        lambda: {"0": "a mask"},
        lambda: {"0": torch.ones(SIZE, SIZE, device="meta")},
        lambda: {"0": torch.ones(0, 5)},
        lambda: {0: torch.ones(1, SIZE, SIZE)},
        lambda: {"nobody": torch.ones(SIZE, SIZE)},
        dict,
    ],
    "targets": [
        lambda: {"0": 1, "1": 2},
        lambda: {"0": 10**20},
        lambda: {"0": 1.5},
        lambda: ["1", "no such class"],
        lambda: [np.int64(1), np.uint8(2)],
        lambda: torch.tensor([0, 99]),
        lambda: torch.tensor([[0, 1], [1, 0]]),
        lambda: torch.tensor([0.0, 1.0]),
        lambda: [True, False],
        lambda: {"0": None, "1": -1},
        lambda: np.array([0, 1], dtype=object),
        lambda: np.int64(3),
        lambda: np.array(3),
    ],
    "groups": [
        lambda: {"0": "a", "1": "a"},
        lambda: {"0": None},
        lambda: {"0": ["a"], "1": {}},
        lambda: {"0": "a\nb\ud800"},
        lambda: {0: 1, 1: 2},
        lambda: "(a+)+$",
        lambda: "(.)",
        lambda: "(",
        lambda: "(?P<x>.)(.)",
        lambda: "folder",
        lambda: "nobody.csv",
    ],
    "until": [
        lambda: "decided",
        lambda: "random",
        lambda: ("sensitivity:l2", "random"),
        lambda: ["sensitivity:l2", "edge"],
        lambda: ("a",),
        lambda: ("a", "a", "a"),
        lambda: (None, None),
    ],
    "methods": [
        lambda: ["sensitivity", "sensitivity"],
        lambda: {"a/../b": "sensitivity"},
        lambda: {"random": lambda inputs, targets: inputs},
        lambda: {"[bold]a\n": lambda inputs, targets: inputs},
        lambda: {"mine": lambda inputs, targets: torch.zeros(3)},
        lambda: {"mine": lambda inputs, targets: inputs.to_sparse()},
        lambda: {"mine": lambda inputs, targets: inputs.to("meta")},
        lambda: {"mine": lambda inputs, targets: inputs.to(torch.complex64)},
        lambda: {"mine": lambda inputs, targets: inputs.mul_(0)},
        lambda: {"mine": lambda inputs, targets: [inputs]},
        lambda: {"mine": lambda inputs: inputs},
        lambda: {"mine": torch.rand(2, SIZE, SIZE)},
        lambda: {"mine": np.zeros((2, SIZE, SIZE))},
        lambda: {"": "sensitivity"},
        lambda: {None: "sensitivity"},
        lambda: [lambda inputs, targets: inputs] * 2,
        lambda: "swap-of:random",
        lambda: "negated:random,blurred:sensitivity",
        lambda: [torch.nn.Identity()],
        lambda: [["sensitivity"]],
    ],
    "settings": [
        lambda: {"../../x": protocol(), "b": protocol()},
        lambda: {"": protocol(), "/": protocol()},
        lambda: {".": protocol(), "..": "samek2017"},
        lambda: {"a\n": protocol(), "\ud800": protocol()},
        lambda: {"A": protocol(), "a": protocol(), "study.json": protocol()},
        lambda: {1: protocol(), None: protocol()},
        lambda: {"x" * 400: protocol(), "y": protocol()},
        lambda: [protocol(), None],
        lambda: "quick",
    ],
    "heatmap_resize": [
        lambda: "nearest",
        lambda: "picture:bilinear",
        lambda: "picture:",
        lambda: ":",
        lambda: "linear",
    ],
    "memory": [lambda: 1, lambda: 10**6, lambda: 2**70, lambda: 1.5],
    "module": [
        lambda: lambda inputs: inputs.flatten(1)[:, :5],
        lambda: lambda inputs: None,
        lambda: lambda inputs: inputs.flatten(1)[:, :5].to_sparse(),
        lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(3)),
        lambda: network().module.to("meta"),
        lambda: network().module.half(),
        lambda: torch.nn.Module(),
    ],
    "score": [
        lambda: "logit",
        lambda: "probability",
        lambda: "sigmoid",
        lambda: lambda outputs, targets: outputs.gather(1, targets[:, None])[:, 0],
        lambda: lambda outputs, targets: outputs,
        lambda: lambda outputs, targets: outputs.mul_(0).sum(1),
        lambda: lambda: 1,
    ],
    "fill": [
        lambda: lambda pixels: torch.zeros_like(pixels),
        lambda: lambda pixels: pixels.mul_(0),
        lambda: lambda pixels, *_, **__: None,
        lambda: "histogram",
        lambda: "drop",
        lambda: "cv2-telea",
        lambda: "noisy-linear",
        lambda: "dirichlet:concentration=1e300",
        lambda: "blur:sigma=0",
    ],
    "segments": [
        lambda: "slic:n=5",
        lambda: "slic:n=0",
        lambda: "folder:",
        lambda: torch.zeros(2, SIZE, SIZE, dtype=torch.int64),
        lambda: torch.zeros(2, SIZE, SIZE),
    ],
}
"""Argument → values that are almost right, or right and rare."""


def other_frame(value: pd.DataFrame, rng: random.Random) -> Any:
    """A frame that is not quite `value`."""
    columns = list(value.columns)
    column = rng.choice(columns)
    numbers = [name for name in columns if pd.api.types.is_numeric_dtype(value[name])]
    number = rng.choice(numbers)
    made: list[Callable[[], Any]] = [
        lambda: value.drop(columns=column),
        lambda: value.iloc[:0],
        lambda: value.sample(frac=0.5, random_state=rng.randrange(99)),
        lambda: pd.concat([value, value]),
        lambda: value.assign(**{number: float("nan")}),
        lambda: value.assign(**{number: float("inf")}),
        lambda: value.assign(**{number: value[number].astype(float).where(value.index % 3 > 0)}),
        lambda: value.assign(**{column: None}),
        lambda: value.assign(**{column: "x"}),
        lambda: value.astype({column: str}),
        lambda: value.astype(object),
        lambda: value.assign(**{number: -1}),
        lambda: value.rename(columns={column: "other"}),
        lambda: value.set_index(column),
        lambda: value[value["method"] == "random"],
        lambda: value[value["method"] != "random"],
        lambda: value.to_dict(),
        lambda: value.to_numpy(),
        lambda: value.iloc[0],
        lambda: value.T,
        lambda: pd.DataFrame(),
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
