"""Looking often without crying wolf: when is a question decided, if it is asked again after every stage of a run?

Testing at 5 % after each of several stages finds differences that are not there far more often than in 5 % of runs. A
group-sequential boundary spends the 5 % over the looks: little at first, nearly all at the end.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from scipy import optimize, special

from faithmap.arguments import checked
from faithmap.errors import CurveError, shown
from faithmap.foreign import plain_text
from faithmap.protocol import RANDOM
from faithmap.statistics.comparing import VS_RANDOM, Comparison, comparison
from faithmap.statistics.measured import Measured
from faithmap.text import display_name, several

_GRID = 1001  # odd: Simpson's rule


def spent(fraction: float, level: float, spending: str = "obrien-fleming") -> float:
    """How much of the level may be spent when this fraction of the groups is there.

    Args:
        fraction: of the groups that there will be at most, 0…1.
        level: of the two-sided test over all looks.
        spending: ``"obrien-fleming"`` (little at first) or ``"pocock"`` (evenly).
    Source:
        Lan and DeMets 1983, Discrete sequential boundaries for clinical trials.
    """
    if not 0 < fraction <= 1:
        raise CurveError(f"a look is at the fraction {fraction:g} of the groups, expected more than 0 and at most 1.")
    if spending == "obrien-fleming":
        return float(4 * special.ndtr(special.ndtri(level / 4) / np.sqrt(fraction)))
    if spending == "pocock":
        return float(level * np.log(1 + (np.e - 1) * fraction))
    raise CurveError(f"spending is '{spending}': give 'obrien-fleming' or 'pocock'.")


@checked(CurveError)
def boundary(fractions: Sequence[float], level: float = 0.05, spending: str = "obrien-fleming") -> tuple[float, ...]:
    """The two-sided p-value below which each look decides.

    Args:
        fractions: of the groups that there will be at most, at each look; rising, at most 1.
        level: of all looks together.
        spending: as in `spent`.
    Returns:
        One p-value per look. Tests that are significant at these levels are wrong in at most `level` of the runs.
    Raises:
        CurveError: fractions that do not rise, or lie outside 0…1.
    Source:
        Lan and DeMets 1983 for the spending; Armitage, McPherson and Rowe 1969 for the recursion; Jennison and Turnbull
        2000, Group Sequential Methods, section 3.8 for using nominal levels where the test is not normal.
    Example:
        >>> [round(p, 4) for p in boundary([0.5, 1.0])]
        [0.0031, 0.049]
    """
    if not len(fractions) or any(b <= a for a, b in itertools.pairwise(fractions)):
        raise CurveError(
            f"looks are at {list(fractions)}: give at least one fraction, each larger than the one before."
        )
    return _boundary(tuple(float(fraction) for fraction in fractions), level, spending)


@lru_cache(maxsize=256)
def _boundary(fractions: tuple[float, ...], level: float, spending: str) -> tuple[float, ...]:
    """Looks one after the other: the boundary at which what is left of the density above it is what may be spent now.

    The density is that of the score process S = Z √fraction, in runs that no earlier look has stopped. Its increments
    are independent and normal, with the increments of the fraction as variances.
    """
    bounds: list[float] = []
    before, done = 0.0, 0.0
    at, density = np.zeros(1), np.ones(1)  # S before the first look: a point mass at 0
    for fraction in fractions:
        step = float(np.sqrt(fraction - before))
        budget = max(spent(fraction, level, spending) - done, 1e-14)
        edge = optimize.brentq(_excess, 0.0, 12.0 * np.sqrt(fraction), args=(at, density, step, budget))
        bounds.append(edge / np.sqrt(fraction))
        now = np.linspace(-edge, edge, _GRID)
        kernel = np.exp(-(((now[:, None] - at) / step) ** 2) / 2) / (step * np.sqrt(2 * np.pi))
        density = (kernel @ density) * _simpson(now[1] - now[0])
        at, before, done = now, fraction, done + budget
    return tuple(float(2 * special.ndtr(-z)) for z in bounds)


def _excess(edge: float, at: np.ndarray, density: np.ndarray, step: float, budget: float) -> float:
    """log of P(|S| > edge after this step, in runs that go on) over what may be spent."""
    tails = special.ndtr((at - edge) / step) + special.ndtr((-edge - at) / step)
    return float(np.log(max(tails @ density, 1e-300) / budget))


def _simpson(width: float) -> np.ndarray:
    weights = np.ones(_GRID)
    weights[1:-1:2], weights[2:-1:2] = 4, 2
    return weights * width / 3


@dataclass(frozen=True)
class Decision:
    """Whether a run may stop.

    Attributes:
        decided: the contrast is significant at this look's level.
        leader: the best method so far.
        level: the p-value below which this look decides, after Holm's correction.
        groups: there so far.
        at_most: groups there will be at most.
        sentence: in words.
    """

    decided: bool
    leader: str
    level: float
    groups: int
    at_most: int
    sentence: str


@checked(CurveError, one=Measured)
def decided(
    one: Measured,
    looks: Sequence[int],
    at_most: int,
    contrast: str | tuple[str, str] = "leader",
    level: float = 0.05,
    spending: str = "obrien-fleming",
    seed: int = 0,
) -> Decision:
    """Whether a question is decided after this stage of a run, corrected for how often it was and will be asked.

    Args:
        one: a measure of all groups so far; see `measured`.
        looks: how many groups there were at each look so far, this one last.
        at_most: how many groups there will be at most; the plan must not change on what was seen.
        contrast: ``"leader"``: the best method is significantly better than every other one, and than random orders;
            ``"random"``: the best method is significantly better than random orders; or two methods: they differ.
        level: the most often that any look of a run decides where nothing differs.
        spending: as in `spent`.
        seed: of the bootstrap over groups.
    Raises:
        CurveError: looks that do not rise or exceed `at_most`, more groups than this look's, or a method that was not
            measured.
    """
    contrast = plain_text(contrast) if isinstance(contrast, str) else contrast
    _check_contrast(contrast)
    if not looks or looks[-1] > at_most:
        raise CurveError(
            f"looks are at {list(looks)} groups of at most {at_most}: give the number at each look so far."
        )
    groups = len(set(one.groups[np.isfinite(one.values).any(1)].tolist()))
    if groups > looks[-1]:
        raise CurveError(f"{groups} groups have values, and this look is at {looks[-1]}: give the groups of this look.")
    now = boundary([look / at_most for look in looks], level, spending)[-1]
    found = comparison(one.only([*contrast]) if isinstance(contrast, tuple) else one, 1 - now, seed, power=None)
    table = found.table[(found.table["method"] != RANDOM) & (found.table["n"] > 0)]
    if table.empty:
        return Decision(False, "", now, looks[-1], at_most, "Nothing was measured so far.")
    leader = str(table["method"].iloc[0])
    yes = _holds(found, leader, contrast)
    lost = f", {several(looks[-1] - groups, one.noun)} without values" if groups < looks[-1] else ""
    progress = (
        f"after {looks[-1]} of at most {several(at_most, one.noun)}{lost}, at look {len(looks)} with p < {now:.2g}"
    )
    what = _in_words(contrast, leader, found.measured.has_random)
    sentence = f"Decided {progress}: {what}." if yes else f"Not decided {progress}: whether {what}."
    return Decision(yes, leader, now, looks[-1], at_most, sentence)


def _check_contrast(contrast: Any) -> None:
    words = isinstance(contrast, str) and contrast in ("leader", "random")
    pair = isinstance(contrast, tuple) and len(contrast) == 2 and all(isinstance(one, str) for one in contrast)
    if not words and not (pair and contrast[0] != contrast[1]):
        raise CurveError(f"contrast is {shown(contrast)}: give 'leader', 'random' or two methods.")


def _holds(found: Comparison, leader: str, contrast: str | tuple[str, str]) -> bool:
    pairs = found.pairs
    own = pairs[(pairs["a"] == leader) | (pairs["b"] == leader)]
    if isinstance(contrast, tuple):
        return bool(pairs["significant"].all()) and len(pairs) == 1
    better = own["a" if found.measured.higher_is_better else "b"] == leader
    if contrast == "random":
        own, better = own[own["family"] == VS_RANDOM], better[own["family"] == VS_RANDOM]
    return bool(len(own)) and bool((own["significant"] & better).all())


def _in_words(contrast: str | tuple[str, str], leader: str, has_random: bool) -> str:
    if isinstance(contrast, tuple):
        first, second = map(display_name, contrast)
        return f"{first} and {second} are significantly different"
    if contrast == "random":
        return f"{display_name(leader)} is significantly better than random orders"
    reference = " and than random orders" if has_random else ""
    return f"{display_name(leader)} is significantly better than every other method{reference}"
