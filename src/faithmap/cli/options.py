"""Options that several commands share, in groups.

A group is a dataclass, an option is one of its fields: ``steps: Annotated[str | None, "Regions removed."] = None`` is
``--steps`` of every command that takes the group. A command takes groups as arguments: `grouped` shows typer their
fields instead.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, get_args, get_origin, get_type_hints

import typer
from typer.models import OptionInfo

from faithmap.cli.console import one_line, path, place
from faithmap.declarations import split_names
from faithmap.errors import FaithmapError, among
from faithmap.protocol import Protocol

_F = TypeVar("_F", bound=Callable[..., Any])


class Options:
    """A group of options; `panel` is its heading in ``--help``."""

    panel: ClassVar[str | None] = None

    def __init_subclass__(cls, panel: str | None = None) -> None:
        cls.panel = panel or cls.panel


def grouped(command: _F) -> _F:
    """A command for typer: each group of options among its parameters is replaced by the group's options."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type[Any]] = {}
    shown: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        kind = hints[name]
        if isinstance(kind, type) and issubclass(kind, Options):
            groups[name] = kind
            shown += _options(kind)
        else:
            shown.append(parameter.replace(annotation=_option(name, kind, None), kind=parameter.KEYWORD_ONLY))

    @functools.wraps(command)
    def wrapper(**values: Any) -> Any:
        built = {
            name: kind(**{field.name: values.pop(field.name) for field in fields(kind)})
            for name, kind in groups.items()
        }
        return command(**built, **values)

    signature = inspect.Signature(shown)  # two options of one name are refused here
    wrapper.__signature__ = signature  # type: ignore[attr-defined]
    wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    return wrapper  # type: ignore[return-value]


def _options(group: type[Any]) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=_option(field.name, hints[field.name], group.panel),
        )
        for field in fields(group)
    ]


def _option(name: str, kind: Any, panel: str | None) -> Any:
    """An annotation that typer understands: a sentence becomes the help of the option ``--name``.

    Integers and paths are read in one way, whatever typer's own would take.
    """
    if get_origin(kind) is not Annotated:
        return kind
    base, said = get_args(kind)
    option = typer.Option(f"--{name.replace('_', '-')}", help=said) if isinstance(said, str) else said
    if isinstance(option, OptionInfo):
        option.rich_help_panel = option.rich_help_panel or panel
    for one, parser in _READ.items():
        if _holds(base, one):
            option.parser = option.parser or parser
    return Annotated[base, option]


def _holds(kind: Any, one: type) -> bool:
    """Whether an annotation is a type, or has it inside: ``int | None`` or ``list[Path]``."""
    return kind is one or any(_holds(inside, one) for inside in get_args(kind))


def is_integer(text: str) -> bool:
    """Whether a text is an integer as the command line takes it.

    Example:
        >>> is_integer("10"), is_integer("-3"), is_integer("1_0"), is_integer("1e3")
        (True, True, False, False)
    """
    return re.fullmatch(r"-?[0-9]{1,99}", text) is not None


def integer(text: str | int) -> int:
    """An integer as the command line takes it."""
    if isinstance(text, str) and not is_integer(text):
        raise typer.BadParameter(f"'{one_line(text)}' is no integer: write digits alone, such as 10.")
    return int(text)


def integer_or_word(text: str | None) -> int | str | None:
    """A number of steps or points, or a word for it such as ``all``."""
    return int(text) if text is not None and is_integer(text) else text


_READ: dict[type, Callable[[Any], Any]] = {int: integer, Path: path}


# Options and arguments that also stand alone.
Data = Annotated[Path | None, "Where downloaded data are kept and looked for."]
Device = Annotated[str, "`auto`, `cpu`, `cuda`, `cuda:1`, …"]
Score = Annotated[str | None, "Show `logit` or `probability`; both are stored."]
Channels = Annotated[
    str | None,
    "Which channels pictures show as red, green and blue, such as `3,2,1`, or one in grey; counted from 1. Default: "
    "the first three; of one or two channels the first.",
]
Seed = Annotated[int, "Key of all randomness."]
RunFolder = Annotated[
    Any,
    typer.Argument(
        help="A run folder, as given to `faithmap run --out`.", show_default=False, parser=place, metavar="RUN"
    ),
]


def channels_of(text: str | None) -> tuple[int, ...] | None:
    """`--channels`: one number or three.

    Example:
        >>> channels_of("3,2,1"), channels_of(None)
        ((3, 2, 1), None)
    """
    if text is None:
        return None
    if not re.fullmatch(r"\s*[0-9]{1,6}\s*(,\s*[0-9]{1,6}\s*,\s*[0-9]{1,6}\s*)?", text):
        raise FaithmapError(f"--channels is '{text}': give one channel, or three such as 3,2,1, counted from 1.")
    return tuple(int(one) for one in text.split(","))


@dataclass(frozen=True)
class Inputs(Options):
    """A network and images."""

    model: Annotated[
        str,
        "`squeezenet1_1-embedded` or `efficientnet-lite0-embedded` (no download), a torchvision classifier such as "
        "`alexnet`, `timm:NAME`, `hf:NAME` or `hf:FOLDER`, `onnx:FILE?norm=imagenet` (scores only).",
    ] = "squeezenet1_1-embedded"
    images: Annotated[
        str, "`photos` (embedded), `imagenette` (downloaded once), or a folder: flat, or one folder per class."
    ] = "photos"
    limit: Annotated[int | None, "How many images; a random choice that depends on the seed. Default: all."] = None
    groups: Annotated[
        str | None,
        "What belongs together (photo, patient, video) and is not independent: `folder`, a regular expression with one "
        "capture such as `'(patient[0-9]+)_'`, or a CSV file with the columns image,group. A named capture, "
        "`'(?P<patient>[0-9]+)_'`, or another name of the second column says what a group is called. Embedded photos "
        "come grouped.",
    ] = None


@dataclass(frozen=True)
class Measured(Options, panel="What is measured"):
    """A protocol: a preset and the parts that are given. A field that is a part of `Protocol` overrides it."""

    protocol: Annotated[
        str | None,
        "`srg`, `samek2017`, `replication2021`, `deletion` or `insertion`; any part can be overridden. Default: `srg`; "
        "for Figure 4 and the table of operators `samek2017`.",
    ] = None
    steps: Annotated[str | None, "Regions removed, L, or `all` that fit."] = None
    points: Annotated[
        str | None, "How many of the steps are scored, dense at both ends, or `all`. More points extend a folder."
    ] = None
    draws: Annotated[int | None, "Repetitions with new noise and a new random order."] = None
    random_draws: Annotated[int | None, "Draws of the random order, whose noise enters every difference."] = None
    region_size: Annotated[int | None, "Side of a region in pixels; with placement `pixel`, pixels per step."] = None
    placement: Annotated[
        str | None,
        "`grid`: cells of a fixed grid; `patch`: the network's own patches; `centre`: windows centred on the highest "
        "remaining pixel; `pixel`: single pixels; `segment`: segments of any shape.",
    ] = None
    segments: Annotated[str | None, "For placement `segment`: `slic:n=50`, or `folder:PATH` of label maps."] = None
    target: Annotated[
        str | None,
        "Score the `predicted` class or the `label`; for `faithmap run` also one class for all images (index or name), "
        "or a CSV file with lines image,class.",
    ] = None
    score: Score = None
    seed: Seed = 0

    def build(self, usual: str = "srg") -> Protocol:
        """The protocol; what cannot be measured is refused.

        Args:
            usual: the preset where none was named.
        """
        return Protocol.preset(self.protocol or usual, **self.overrides())

    def overrides(self) -> dict[str, Any]:
        """The parts that were given; None where the preset's stays."""
        parts = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "protocol"}
        for part in ("steps", "points"):
            parts[part] = integer_or_word(parts[part])
        return parts


@dataclass(frozen=True)
class FullyMeasured(Measured):
    """A protocol with its fill and orders."""

    direction: Annotated[str | None, "`remove` regions from the image, or `restore` them onto the fill."] = None
    fill: Annotated[
        str | None,
        "What replaces a region: `uniform`, `uniform-grey`, `dirichlet`, `constant:mean`, `constant:dataset-mean`, "
        "`constant:#808080`, `blur:sigma=5`, `noisy-linear`, `cv2-telea`, `cv2-navier-stokes`, `histogram`, `swap`, "
        "`drop`.",
    ] = None
    orders: Annotated[str | None, "`morf` (most relevant first), `lerf` (least), or `morf,lerf`."] = None

    def build_with_targets(self) -> tuple[Protocol, str | None]:
        """The protocol, and the classes where `--target` names them."""
        if self.target in (None, "predicted", "label"):
            return self.build(), None
        return replace(self, target=None).build(), self.target

    def overrides(self) -> dict[str, Any]:
        """See `Measured`."""
        parts = super().overrides()
        if self.orders is not None:
            parts["orders"] = tuple(part.strip() for part in self.orders.split(","))
        return parts


@dataclass(frozen=True)
class Properties(Options, panel="What is measured"):
    """Measures beyond the curves."""

    measures: Annotated[
        str | None,
        "Sets (`faithfulness`, `robustness`, `randomisation`, `complexity`, `localisation`) and names, separated by "
        "commas; see `faithmap measures`.",
    ] = None
    masks: Annotated[
        Path | None,
        "Where the object is, for `localisation`: a folder of PNG masks or of VOC boxes, named by image id; or a COCO "
        "file.",
    ] = None

    on_refusal: Annotated[
        str | None,
        "A method that means nothing on the network: `skip` leaves it out and says why, `error` ends the run. Default: "
        "`skip` for methods of a set, `error` for methods asked for by name.",
    ] = None

    def arguments(self) -> dict[str, Any]:
        """The arguments of `evaluate`."""
        return {"measures": self.measures, "masks": self.masks, "on_refusal": self.on_refusal}


_UNITS = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def bytes_of(text: str | None) -> int | None:
    """A number of bytes as people write it.

    Example:
        >>> bytes_of("2GiB"), bytes_of("1.5 MB"), bytes_of(None)
        (2147483648, 1500000, None)
    """
    if text is None:
        return None
    match = re.fullmatch(r"\s*([0-9]{1,12}(?:\.[0-9]{1,6})?)\s*([KMGkmg]?[Ii]?[Bb]?)\s*", text)
    unit = match[2].lower() if match else "?"
    unit = "" if unit == "b" else unit
    if match is None or unit not in _UNITS:
        raise FaithmapError(f"--memory is '{text}': give bytes, such as 2GiB, 500MB or 1000000000.")
    return int(float(match[1]) * _UNITS[unit])


@dataclass(frozen=True)
class Computed(Options, panel="How it is computed"):
    """What changes speed and memory only."""

    device: Device = "auto"
    batch_size: Annotated[int | None, "Inputs per forward pass; changes speed and memory only."] = None
    memory: Annotated[
        str | None,
        "What an engine may take, such as `2GiB` or `500MB`; changes speed only. Default: half of what is free.",
    ] = None
    engine: Annotated[
        str,
        "`auto`: recompute only what a step changes, where that is possible; `incremental`, or fail; `dense`: run the "
        "whole network at every step.",
    ] = "auto"

    def arguments(self) -> dict[str, Any]:
        """The arguments of `evaluate`."""
        return {"batch_size": self.batch_size, "memory": bytes_of(self.memory), "engine": self.engine}


@dataclass(frozen=True)
class Executed(Computed):
    """… and where: in this process or on a cluster."""

    precision: Annotated[str, "`float32`, or `bfloat16` for screening (marked wherever it shows)."] = "float32"
    executor: Annotated[str, "`local`, or `ray`: spread over the workers of a Ray cluster."] = "local"
    address: Annotated[
        str | None, "Ray cluster: `auto` (of this machine) or `host:port`. Default: one is started for this run."
    ] = None
    workers: Annotated[int | None, "Ray workers. Default: one per GPU, else one per CPU core."] = None
    threads: Annotated[int | None, "CPU threads, of each worker. Other threads may round otherwise."] = None

    def arguments(self) -> dict[str, Any]:
        """See `Computed`."""
        return super().arguments() | {"precision": self.precision, "executor": self.build_executor()}

    def build_executor(self) -> Any:
        """Where tasks are computed."""
        from faithmap.experiment.cluster import RayExecutor
        from faithmap.experiment.executors import LocalExecutor

        if self.executor == "ray":
            return RayExecutor(self.address, self.workers, self.threads or 1)
        if self.executor != "local":
            known = ["local", "ray"]
            raise FaithmapError(f"unknown executor '{self.executor}'{among(self.executor, known)}")
        if self.address is not None or self.workers is not None:
            raise FaithmapError("--address and --workers are for --executor ray.")
        return LocalExecutor(self.threads)


@dataclass(frozen=True)
class Places(Options, panel="Where things are"):
    """A run folder, and downloaded data."""

    out: Annotated[
        Any,
        typer.Option(
            help="Run folder: a path, or a URL such as `s3://…`. Default: `runs/IMAGES-MODEL`.",
            parser=place,
            metavar="FOLDER",
            show_default=False,
        ),
    ] = None
    data: Data = None


@dataclass(frozen=True)
class Files(Places):
    """… and heatmaps that are there already."""

    heatmaps: Annotated[
        list[str] | None,
        "`NAME=PATH`: heatmaps that are there already, a file or a folder; images are matched by name. May be given "
        "several times.",
    ] = None
    heatmap_resize: Annotated[
        str | None,
        "How given heatmaps of another size are resized: `nearest`, `bilinear`, `bicubic` (they cover the network's "
        "input) or `picture:bilinear` and so on (they cover the whole picture). Default: such maps are skipped.",
    ] = None
    save_heatmaps: Annotated[bool, "Store the heatmaps of all images, not of a sample."] = False
    heatmaps_from: Annotated[Path | None, "Use the heatmaps that another run folder holds."] = None
    until: Annotated[
        str | None,
        "Add images in stages, and stop when it is `decided` which method is ahead, when the best is better than "
        "`random`, or when two methods, `A,B`, differ. Looking often is corrected for.",
    ] = None
    channels: Channels = None
    at_most: Annotated[int | None, "With `--until`: how many groups there are at most. Default: all."] = None
    dry_run: Annotated[bool, "Say what it would take, from half a minute's measuring."] = False

    def arguments(self) -> dict[str, Any]:
        """The arguments of `evaluate`."""
        return {
            "save_heatmaps": self.save_heatmaps,
            "heatmaps_from": self.heatmaps_from,
            "heatmap_resize": self.heatmap_resize,
            "until": self.question(),
            "at_most": self.at_most,
        }

    def question(self) -> Any:
        """`--until`: a word, or two methods."""
        if self.until is None or "," not in self.until:
            return self.until
        from faithmap.declarations import split_names

        return tuple(split_names(self.until))

    def given_heatmaps(self) -> list[dict[str, Path]]:
        """`--heatmaps NAME=PATH`."""
        found = []
        for pair in self.heatmaps or ():
            name, equals, path = pair.partition("=")
            if not (name and equals and path):
                raise FaithmapError(f"--heatmaps is '{pair}', expected NAME=PATH, such as tf-ig=heatmaps/ig.npz.")
            found.append({name: Path(path)})
        return found


@dataclass(frozen=True)
class Drawn(Options, panel="How it is drawn"):
    """What a figure shows, and how."""

    score: Score = None
    style: Annotated[str | None, "`paper` (one column), `wide` (two columns) or `slides`."] = None
    methods: Annotated[str | None, "Names separated by commas. Default: all that fit."] = None
    bands: Annotated[str | None, "Shaded intervals in `fig4`: `best`, `all`, `none`, or names of methods."] = None
    compare: Annotated[list[Path] | None, "Another run folder beside this one, for `fig4`; several times for more."] = (
        None
    )
    image: Annotated[str | None, "For `steps`: an image's id. Default: the first example."] = None
    channels: Channels = None

    def arguments(self) -> dict[str, Any]:
        """The arguments of `Run.figure`: what was given."""
        bands = self.bands if self.bands in (None, "best", "all", "none") else split_names(self.bands)
        asked = {
            "score": self.score,
            "style": self.style,
            "methods": None if self.methods is None else split_names(self.methods),
            "bands": bands,
            "compare": self.compare,
            "image": self.image,
            "channels": channels_of(self.channels),
        }
        return {name: value for name, value in asked.items() if value is not None}
