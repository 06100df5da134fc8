"""Measures that come from scores: from the frame of a run to one number per image and method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import torch

from faithmap.arguments import checked
from faithmap.checks import nested
from faithmap.errors import CurveError, among, nearest
from faithmap.grouping import GROUP_NOUN
from faithmap.protocol import RANDOM, Direction, Order, Protocol
from faithmap.statistics.curves import mean_over_fraction
from faithmap.statistics.groups import groups_of, noun_of
from faithmap.statistics.per_image import PerImage, abpc_of, aopc_of, both_orders, curves_of, score_name

ATTAINABLE = "shapley"
"""Methods of this family know the run's fill: they show what is attainable, and are not ranked."""
KNOWN_ANSWERS = ("blend", "smoothed")
"""Families of maps made from other maps, whose right place is known: they grade the measure, and are not ranked."""


def family_of(method: str) -> str:
    """The part of a method's name before its parameters."""
    return method.partition(":")[0]


@dataclass(frozen=True)
class Measured:
    """One number per image and method; NaN where the image does not count for the method.

    Attributes:
        label: the measure's name, as people write it.
        higher_is_better: which way is good.
        images: ids, sorted.
        groups: of each image; see `groups.groups_of`.
        methods: names, sorted.
        values: (images, methods), draws averaged.
        unit: of the values; for what comes from scores, which score.
        noun: what one group is called: "group", "photo", "patient".
    """

    label: str
    higher_is_better: bool
    images: np.ndarray
    groups: np.ndarray
    methods: list[str]
    values: np.ndarray
    unit: str = ""
    noun: str = GROUP_NOUN

    @property
    def sign(self) -> int:
        """1 where a high value is good, −1 where a low one is."""
        return 1 if self.higher_is_better else -1

    @property
    def has_random(self) -> bool:
        """Whether the reference has values."""
        return RANDOM in self.methods and bool(np.isfinite(self.column(RANDOM)).any())

    def column(self, method: str) -> np.ndarray:
        """The values of one method."""
        if method not in self.methods:
            raise CurveError(
                f"{self.label} holds no method '{method}'{nearest(method, self.methods)} "
                f"Known: {', '.join(self.methods)}."
            )
        column: np.ndarray = self.values[:, self.methods.index(method)]
        return column

    def relative(self) -> np.ndarray:
        """Values minus those of random orders on the same image; the values themselves where there are none."""
        relative: np.ndarray = self.values - self.column(RANDOM)[:, None] if self.has_random else self.values
        return relative

    def of_images(self, ids: Sequence[str]) -> Measured:
        """The same for some images."""
        rows = np.isin(self.images, list(ids))
        return replace(self, images=self.images[rows], groups=self.groups[rows], values=self.values[rows])

    def only(self, methods: list[str]) -> Measured:
        """The same for some methods."""
        for name in methods:
            self.column(name)
        return replace(self, methods=methods, values=self.values[:, [self.methods.index(name) for name in methods]])

    def candidates(self) -> Measured:
        """The same without references and known answers, which are not ranked; random stays.

        Where nothing else was measured, known answers are candidates.
        """
        ranked = [name for name in self.methods if family_of(name) != ATTAINABLE]
        plain = [name for name in ranked if family_of(name) not in KNOWN_ANSWERS]
        return self.only(plain if set(plain) - {RANDOM} else ranked)


@checked(CurveError)
def measured(
    frame: pd.DataFrame,
    measure: str = "aopc",
    score: str = "logit",
    step: int | None = None,
    order: str = Order.MORF,
    direction: str = Direction.REMOVE,
) -> Measured:
    """A measure of every image and method, from scores.

    Args:
        frame: from `Run.scores()`; images that share a value of the column group are not independent.
        measure: a name in `SCORE_MEASURES`.
        score: ``"logit"`` or ``"probability"``.
        step: over the steps 0…step; the last by default.
        order: for ``"aopc"``, which has one; the others name theirs.
        direction: the protocol's.
    Raises:
        CurveError: an unknown name, or a frame without the rows that are needed.
    """
    if measure not in SCORE_MEASURES:
        raise CurveError(
            f"no measure '{measure}' comes from scores{nearest(measure, SCORE_MEASURES)} "
            f"Known: {', '.join(SCORE_MEASURES)}."
        )
    aim_of(direction, order)
    kind = SCORE_MEASURES[measure]
    found, higher_is_better = kind.compute(frame, str(score), step, str(order), str(direction))
    values, unit = found.values[:, :, 0], score_name(frame, str(score))
    return Measured(
        kind.label, higher_is_better, found.images, found.groups, found.methods, values, unit, noun_of(frame)
    )


@checked(CurveError)
def measured_from(frame: pd.DataFrame, measure: str, *, higher_is_better: bool, label: str = "") -> Measured:
    """A measure of every image and method, from the tidy frame of a run's measures.

    Args:
        frame: columns image, method, measure, value, and where there are any group, draw.
        measure: a value of the column measure.
        higher_is_better: which way is good.
        label: the measure's name for people; `measure` by default.
    Raises:
        CurveError: a frame without the columns or rows that are needed.
    """
    if missing := [name for name in ("image", "method", "measure", "value") if name not in frame]:
        raise CurveError(f"the frame lacks {', '.join(missing)}: give the frame of Run.measures().")
    rows = frame[frame["measure"] == measure]
    if rows.empty:
        known = sorted(frame["measure"].astype(str).unique())
        raise CurveError(f"the frame holds no measure '{measure}'{among(measure, known)}")
    finite = rows["value"].where(np.isfinite(rows["value"].astype(float)))
    mean = finite.astype(float).groupby([rows["image"].astype(str), rows["method"].astype(str)])
    wide = mean.mean().where(mean.count() == mean.size()).unstack("method").sort_index()
    images = wide.index.to_numpy(dtype=object)
    groups = groups_of(rows.assign(image=rows["image"].astype(str)), images)
    methods, values = list(wide.columns), wide.to_numpy(dtype=float)
    return Measured(label or measure, higher_is_better, images, groups, methods, values, noun=noun_of(frame))


@checked(CurveError)
def measured_of(
    values: Any,
    methods: Sequence[str] | None = None,
    groups: Sequence[Any] | None = None,
    *,
    label: str = "value",
    higher_is_better: bool = True,
) -> Measured:
    """A measure from a plain table, such as published numbers: all statistics take what comes out.

    Args:
        values: (images, methods), an array, nested lists or a DataFrame; NaN where an image has no value.
        methods: names of the columns; those of a DataFrame, else ``"m0"``, ``"m1"``, …. A column ``"random"`` is the
            reference.
        groups: which images belong together, one name per row; by default each row is its own.
        label: the measure's name.
        higher_is_better: which way is good.
    Raises:
        CurveError: not a table, infinite values, no name or not one name per column or row, or two of one name.
    Example:
        >>> split_half(measured_of([[3, 2, 1], [3, 1, 2], [3, 2, 1], [2, 3, 1]])).groups
        4
    """
    table = plain_table(values, "values", ("images", "methods"))
    if methods is None:
        columns = values.columns if isinstance(values, pd.DataFrame) else [f"m{i}" for i in range(table.shape[1])]
        methods = [str(name) for name in columns]
    ids = np.array([f"{i:0{len(str(len(table)))}d}" for i in range(len(table))], dtype=object)
    of = ids if groups is None else np.array([f"group {name}" for name in groups], dtype=object)
    for what, names, count in (("methods", methods, table.shape[1]), ("groups", of, len(table))):
        if len(names) != count:
            raise CurveError(f"{what} are {len(names)} names, and values have shape {table.shape}: give {count}.")
    if len(set(methods)) < len(methods):
        raise CurveError(
            f"methods {', '.join(map(str, methods))} are not all different: give every column its own name."
        )
    order = np.argsort(np.array(methods, dtype=object), kind="stable")
    return Measured(label, higher_is_better, ids, of, [str(methods[i]) for i in order], table[:, order])


def plain_table(values: Any, name: str, axes: tuple[str, str]) -> np.ndarray:
    """A table of numbers, NaN where one is missing.

    Raises:
        CurveError: something else.
    """
    try:
        table = np.asarray(nested(values, name, CurveError), dtype=float)
    except Exception:  # anybody's object
        raise CurveError(f"{name} is no table of numbers: give ({', '.join(axes)}).") from None
    if table.ndim != 2 or not table.size:
        raise CurveError(f"{name} has shape {table.shape}, expected ({', '.join(axes)}), at least one of each.")
    if np.isinf(table).any():
        raise CurveError(f"{name} holds infinite numbers: give NaN where a value is missing.")
    return table


@checked(CurveError)
def r_oms(frame: pd.DataFrame, step: int | None = None) -> pd.Series:
    """How much of the network's confidence survives when regions go in random order, per image.

    Args:
        frame: from `Run.scores()`, with the method `random`; all its orders and draws count.
        step: over the steps 0…step; the last by default.
    Returns:
        image → mean probability along random orders. Low: without these regions the network no longer knows the
        image, so that scores along any order are those of inputs it was not made for.
    Source:
        Blücher et al. 2024, R-OMS: the mean probability of the original class along a random order, to full removal.
    """
    if missing := [name for name in ("method", "order") if name not in frame]:
        raise CurveError(f"the frame lacks {', '.join(missing)}: give the frame of Run.scores().")
    rows = frame[frame["method"] == RANDOM]
    if rows.empty:
        raise CurveError(f"the frame holds no method '{RANDOM}': R-OMS is the mean probability along random orders.")
    orders = [str(order) for order in Order if (rows["order"] == str(order)).any()]
    if not orders:
        raise CurveError(f"the frame holds no orders of '{RANDOM}': give the frame of Run.scores().")
    found = [_area(curves_of(rows, "probability", order), step) for order in orders]
    mean = np.mean([one.values[:, 0, 0] for one in found], axis=0)
    return pd.Series(mean, index=pd.Index(found[0].images, name="image"), name="r_oms")


@dataclass(frozen=True)
class ScoreMeasure:
    """A measure that comes from scores.

    Attributes:
        label: for people.
        line: what it is, in one sentence.
        source: of the definition.
        needs: the orders that the run must hold when it removes regions; ``("order",)`` is the order that is asked for.
        compute: frame, score, step, order, direction → values, and whether a high one is good.
    """

    label: str
    line: str
    source: str
    needs: tuple[str, ...]
    compute: Callable[[pd.DataFrame, str, int | None, str, str], tuple[PerImage, bool]]


def aim_of(direction: str, order: str) -> bool:
    """Whether a high AOPC is good: the score should fall when relevant regions go first, and stay when they go last."""
    if str(direction) not in list(Direction) or str(order) not in list(Order):
        raise CurveError(f"direction '{direction}' with order '{order}': give 'remove' or 'restore', 'morf' or 'lerf'.")
    return (str(direction) == Direction.REMOVE) == (str(order) == Order.MORF)


def _aopc(frame: pd.DataFrame, score: str, step: int | None, order: str, direction: str) -> tuple[PerImage, bool]:
    found = aopc_of(frame, score, order)
    return _at(found, step), aim_of(direction, order)


def _abpc(frame: pd.DataFrame, score: str, step: int | None, order: str, direction: str) -> tuple[PerImage, bool]:
    return _at(abpc_of(frame, score), step), aim_of(direction, Order.MORF)


def _drop_along(which: str) -> Callable[[pd.DataFrame, str, int | None, str, str], tuple[PerImage, bool]]:
    def compute(frame: pd.DataFrame, score: str, step: int | None, order: str, direction: str) -> tuple[PerImage, bool]:
        curves = curves_of(frame, score, which)
        drop = replace(curves, values=curves.values[..., :1] - curves.values)
        return _area(drop, step), aim_of(direction, which)

    return compute


def _score_along(remove: str, *, high: bool) -> Callable[..., tuple[PerImage, bool]]:
    # Regions restored in one order are regions removed in the other, seen from the end.
    def compute(frame: pd.DataFrame, score: str, step: int | None, order: str, direction: str) -> tuple[PerImage, bool]:
        reverse = Order.LERF if remove == Order.MORF else Order.MORF
        which = remove if direction == Direction.REMOVE else reverse
        return _area(curves_of(frame, score, str(which)), step), high

    return compute


def _srg(frame: pd.DataFrame, score: str, step: int | None, order: str, direction: str) -> tuple[PerImage, bool]:
    morf, lerf = both_orders(curves_of(frame, score, Order.MORF), curves_of(frame, score, Order.LERF))
    first, last = _area(morf, step), _area(lerf, step)
    # Restored most relevant first, the score should be high early: the other way round.
    sign = 1 if direction == Direction.REMOVE else -1
    return replace(first, values=sign * (last.values - first.values)), True


def _area(curves: PerImage, step: int | None) -> PerImage:
    """The mean over the fraction of the steps 0…step, as one point."""
    last = curves.place(step)
    if last == 0:
        raise CurveError("step is 0: a mean over the removed fraction needs at least one removed region.")
    values = torch.from_numpy(np.ascontiguousarray(curves.values[:, :, : last + 1]))
    area = mean_over_fraction(values, curves.steps[: last + 1].tolist())
    return replace(curves, steps=curves.steps[[last]], values=area.numpy()[:, :, None])


def _at(curves: PerImage, step: int | None) -> PerImage:
    at = curves.place(step)
    return replace(curves, steps=curves.steps[[at]], values=curves.values[:, :, [at]])


_SAMEK, _BLUECHER = "Samek et al. 2017", "Blücher et al. 2024"
SCORE_MEASURES: Mapping[str, ScoreMeasure] = MappingProxyType(
    {
        "aopc": ScoreMeasure("AOPC", "Mean drop of the score over the steps 0…L.", _SAMEK, ("order",), _aopc),
        "abpc": ScoreMeasure("ABPC", "Mean of LeRF − MoRF over the steps 0…L.", _SAMEK, ("morf", "lerf"), _abpc),
        "srg": ScoreMeasure(
            "SRG", "Mean of LeRF − MoRF over the removed fraction; 0 for random.", _BLUECHER, ("morf", "lerf"), _srg
        ),
        "morf": ScoreMeasure(
            "MoRF",
            "Mean drop over the removed fraction, most relevant first.",
            _BLUECHER,
            ("morf",),
            _drop_along(Order.MORF),
        ),
        "lerf": ScoreMeasure(
            "LeRF",
            "Mean drop over the removed fraction, least relevant first.",
            _BLUECHER,
            ("lerf",),
            _drop_along(Order.LERF),
        ),
        "deletion": ScoreMeasure(
            "deletion AUC",
            "Mean score over the removed fraction, most relevant removed first.",
            "Petsiuk et al. 2018",
            ("morf",),
            _score_along(Order.MORF, high=False),
        ),
        "insertion": ScoreMeasure(
            "insertion AUC",
            "Mean score over the restored fraction, most relevant restored first.",
            "Petsiuk et al. 2018",
            ("lerf",),
            _score_along(Order.LERF, high=True),
        ),
    }
)


def shown_measure(protocol: Protocol) -> str:
    """The measure of a protocol; AOPC where that takes both orders and only one is measured."""
    kind = SCORE_MEASURES.get(protocol.measure)
    needs_both = kind is not None and len(kind.needs) > 1
    return "aopc" if needs_both and len(protocol.orders) < 2 else protocol.measure
