"""From scores to curves: AOPC, relative to random, ABPC. Pure functions on tensors."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

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


def aopc(curve: Float[Tensor, "*batch points"]) -> Float[Tensor, "*batch points"]:
    """Area over the perturbation curve up to every step.

    Args:
        curve: target score at k = 0…L, in score units.
    Returns:
        Mean drop from k = 0 over the steps 0…k, same units and type; positive means that the score fell.
    Raises:
        CurveError: fewer than two points, or a score that is not finite (names image and step).
    Source:
        Samek et al. 2017, the AOPC formula with L replaced by every k ≤ L, as in Figure 4.
    Example:
        >>> aopc(torch.tensor([1.0, 0.5, 0.0]))
        tensor([0.0000, 0.2500, 0.5000])
    """
    check_curve(curve)
    score = curve.double()
    drop = score[..., :1] - score
    points = torch.arange(1, curve.shape[-1] + 1, dtype=torch.float64, device=curve.device)
    return (drop.cumsum(-1) / points).to(curve.dtype)


def relative_to_random(
    aopc: Float[Tensor, "*batch points"], random_aopc: Float[Tensor, "draws *batch points"]
) -> Float[Tensor, "*batch points"]:
    """AOPC minus that of random orders on the same image, before any average over images.

    Args:
        aopc: one curve an image.
        random_aopc: the curves of the random orders, draws first; averaged over the draws.
    Source:
        Samek et al. 2017, Figure 4.
    """
    return aopc - random_aopc.mean(0)


def abpc(morf: Float[Tensor, "*batch points"], lerf: Float[Tensor, "*batch points"]) -> Float[Tensor, "*batch points"]:
    """Area between the LeRF and the MoRF curve up to every step.

    Args:
        morf, lerf: target score at k = 0…L when the most (least) relevant regions go first.
    Returns:
        Mean of LeRF − MoRF over the steps 0…k; positive means that the order is better than its reverse.
    Source:
        Samek et al. 2017, the appendix on perturbation operators.
    Example:
        >>> abpc(torch.tensor([1.0, 0.0, 0.0]), torch.tensor([1.0, 1.0, 0.5]))
        tensor([0.0000, 0.5000, 0.5000])
    """
    return aopc(morf) - aopc(lerf)
