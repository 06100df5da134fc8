"""What regions are replaced with (`draw_fill`), and the image at step k (`perturb`).

A fill is drawn once per (seed, image, draw) for every pixel and channel and kept over all steps, so that x⁽ᵏ⁾ and
x⁽ᵏ⁻¹⁾ differ in one region only, and all methods are compared on the same noise. The one fill that cannot be drawn
beforehand is noisy linear imputation, whose values depend on which pixels are left: see `imputation`.
"""

from faithmap.perturbation.fills import (
    FILLS,
    FillKind,
    check_fill,
    draw_fill,
    fill,
    fill_parameters,
    is_dropped,
    is_imputed,
    resolve_fill,
    takes_partner,
)
from faithmap.perturbation.imputation import impute, imputed_steps
from faithmap.perturbation.inpainting import Imputer, imputer_of
from faithmap.perturbation.regions import check_regions_fit, removal_steps
from faithmap.perturbation.segments import resolve_segments, segment
from faithmap.perturbation.steps import chain_fill, chain_removal_step, perturb

__all__ = [
    "FILLS",
    "FillKind",
    "Imputer",
    "chain_fill",
    "chain_removal_step",
    "check_fill",
    "check_regions_fit",
    "draw_fill",
    "fill",
    "fill_parameters",
    "impute",
    "imputed_steps",
    "imputer_of",
    "is_dropped",
    "is_imputed",
    "perturb",
    "removal_steps",
    "resolve_fill",
    "resolve_segments",
    "segment",
    "takes_partner",
]
