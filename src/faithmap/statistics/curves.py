"""From scores to curves and areas: AOPC, ABPC, areas over the removed fraction, SRG. Pure functions on tensors.

This file holds the formulas; everything else calls them. Scores may be known at some steps only (the points of a
protocol): `steps` then says which, always from 0, and the curve is taken to be linear between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from faithmap.arguments import checked
from faithmap.checks import as_floats, as_tensor
from faithmap.errors import CurveError


def check_curve(curve: Float[Tensor, "*batch points"]) -> None:
    """Raise a `CurveError` for a curve with fewer than two points or a score that is not finite."""
    if curve.shape[-1] < 2:
        raise CurveError(f"a curve has {curve.shape[-1]} points, expected at least two: k = 0 and k = 1.")
    finite = curve.isfinite()
    if not finite.all():
        *position, step = (int(i) for i in (~finite).nonzero()[0])
        image = position[0] if position else None
        where = f" of image {image}" if position else ""
        raise CurveError(
            f"the score{where} at step {step} is {curve[(*position, step)]:g}, not a finite number.", image
        )


def as_curve(curve: Any, name: str = "curve") -> Float[Tensor, "*batch points"]:
    """A curve, or curves of the same length, as a tensor of its own type.

    Raises:
        CurveError: anything else.
    """
    found = as_floats(curve, name, CurveError)
    if found.ndim == 0:
        raise CurveError(f"{name} is one number, expected a score at every step.")
    return found


@checked(CurveError, steps=object)  # which may be fractions; `_steps` looks at them
def aopc(curve: Float[Tensor, "*batch points"], steps: Sequence[int] | None = None) -> Float[Tensor, "*batch points"]:
    """Area over the perturbation curve up to every step.

    Args:
        curve: target score at k = 0…L, or at `steps`; in score units.
        steps: k of every point, from 0, rising; None means 0…L.
    Returns:
        Mean drop from k = 0 over all steps 0…k, at every point, same units and type; positive means that the score
        fell. Steps between two points are interpolated.
    Raises:
        CurveError: fewer than two points, a score that is not finite (names image and step), or steps that do not rise
            from 0.
    Source:
        Samek et al. 2017, the AOPC formula with L replaced by every k ≤ L, as in Figure 4.
    Example:
        >>> aopc(torch.tensor([1.0, 0.5, 0.0]))
        tensor([0.0000, 0.2500, 0.5000])
    """
    scores = as_curve(curve)
    check_curve(scores)
    return mean_drop(scores.double(), steps).to(scores.dtype)


def mean_drop(score: Float[Tensor, "*batch points"], steps: Sequence[int] | None) -> Float[Tensor, "*batch points"]:
    """`aopc` without its checks: a score that is not finite makes this and all later points NaN."""
    k = _steps(steps, score.shape[-1]).to(score.device)
    drop = score[..., :1] - score
    if bool((k.diff() == 1).all()):
        return drop.cumsum(-1) / (k + 1)
    # Σ over all steps of a piecewise linear curve is its trapezoid area plus half its ends, and the first is 0.
    area = torch.zeros_like(drop)
    area[..., 1:] = ((drop[..., 1:] + drop[..., :-1]) / 2 * k.diff()).cumsum(-1)
    return (area + drop / 2) / (k + 1)


@checked(CurveError, steps=object)  # which may be fractions; `_steps` looks at them
def mean_over_fraction(
    curve: Float[Tensor, "*batch points"], steps: Sequence[int] | None = None
) -> Float[Tensor, "*batch"]:
    """Mean of a curve over the fraction k/L of its steps, by the trapezoid rule.

    Args:
        curve, steps: as in `aopc`; steps may be any rising numbers from 0, such as removed fractions. With L = all
            regions, k/L is the removed fraction of the image, 0…1.
    Returns:
        In score units; NaN where a score is not finite. Of probabilities along random orders, this is R-OMS.
    Raises:
        CurveError: fewer than two points, or steps that do not rise from 0.
    Source:
        Petsiuk et al. 2018, the area under the deletion curve.
    Example:
        >>> mean_over_fraction(torch.tensor([1.0, 0.5, 0.0]))
        tensor(0.5000)
        >>> mean_over_fraction(torch.tensor([1.0, 0.0]), [0, 10])
        tensor(0.5000)
    """
    found = as_curve(curve)
    if found.shape[-1] < 2:
        raise CurveError(f"a curve has {found.shape[-1]} points, expected at least two: k = 0 and k = 1.")
    k = _steps(steps, found.shape[-1]).to(found.device)
    score = found.double()
    return (((score[..., 1:] + score[..., :-1]) / 2 * k.diff()).sum(-1) / k[-1]).to(found.dtype)


@checked(CurveError, steps=object)  # which may be fractions; `_steps` looks at them
def srg(
    morf: Float[Tensor, "*batch points"], lerf: Float[Tensor, "*batch points"], steps: Sequence[int] | None = None
) -> Float[Tensor, "*batch"]:
    """Symmetric relevance gain: how much longer the score lasts when the least relevant regions go first.

    Args:
        morf, lerf: target score when the most (least) relevant regions go first.
        steps: as in `aopc`.
    Returns:
        Mean over the removed fraction of LeRF − MoRF, in score units; its expectation is 0 for a random order. NaN
        where a score is not finite.
    Raises:
        CurveError: curves of different shapes, fewer than two points, or steps that do not rise from 0.
    Source:
        Blücher et al. 2024, Decoupling Pixel Flipping and Occlusion Strategy for Consistent XAI Benchmarks.
    Example:
        >>> srg(torch.tensor([1.0, 0.0, 0.0]), torch.tensor([1.0, 1.0, 0.0]))
        tensor(0.5000)
    """
    first, second = _alike(morf, lerf)
    return mean_over_fraction(second, steps) - mean_over_fraction(first, steps)


@checked(CurveError)
def relative_to_random(
    aopc: Float[Tensor, "*batch points"], random_aopc: Float[Tensor, "draws *batch points"]
) -> Float[Tensor, "*batch points"]:
    """AOPC minus that of random orders on the same image, before any average over images.

    Args:
        aopc: one curve per image.
        random_aopc: the curves of the random orders, draws first; averaged over the draws.
    Raises:
        CurveError: curves that do not belong together.
    Source:
        Samek et al. 2017, Figure 4.
    """
    own, reference = as_curve(aopc, "aopc"), as_curve(random_aopc, "random_aopc")
    if reference.ndim != own.ndim + 1 or reference.shape[1:] != own.shape or len(reference) == 0:
        raise CurveError(
            f"random_aopc has shape {tuple(reference.shape)}, and aopc {tuple(own.shape)}: give (draws, "
            f"{', '.join(map(str, own.shape))})."
        )
    return own - reference.to(own.device).mean(0)


@checked(CurveError, steps=object)  # which may be fractions; `_steps` looks at them
def abpc(
    morf: Float[Tensor, "*batch points"], lerf: Float[Tensor, "*batch points"], steps: Sequence[int] | None = None
) -> Float[Tensor, "*batch points"]:
    """Area between the LeRF and the MoRF curve up to every step.

    Args:
        morf, lerf: target score at k = 0…L when the most (least) relevant regions go first.
        steps: as in `aopc`.
    Returns:
        Mean of LeRF − MoRF over the steps 0…k; positive means that the order is better than its reverse.
    Source:
        Samek et al. 2017, the appendix on perturbation operators.
    Example:
        >>> abpc(torch.tensor([1.0, 0.0, 0.0]), torch.tensor([1.0, 1.0, 0.5]))
        tensor([0.0000, 0.5000, 0.5000])
    """
    first, second = _alike(morf, lerf)
    return aopc(first, steps) - aopc(second, steps)


def _alike(morf: Any, lerf: Any) -> tuple[Tensor, Tensor]:
    """The curves of both orders on one device, of one shape."""
    first, second = as_curve(morf, "morf"), as_curve(lerf, "lerf")
    if first.shape != second.shape:
        raise CurveError(
            f"morf has shape {tuple(first.shape)} and lerf {tuple(second.shape)}: give curves of the same."
        )
    return first, second.to(first.device)


def _steps(steps: Sequence[int] | None, points: int) -> Float[Tensor, "points"]:
    k = torch.arange(points, dtype=torch.float64) if steps is None else as_tensor(steps, "steps", CurveError).double()
    if k.ndim != 1 or not k.isfinite().all():
        raise CurveError("steps is no list of numbers: give one step per point, rising from 0.")
    if len(k) != points or k[0] != 0 or not bool((k.diff() > 0).all()):
        shown = f"{len(k)} steps {[int(i) for i in k[:5]]}…"
        raise CurveError(f"a curve of {points} points has {shown}: give one step per point, rising from 0.")
    return k
