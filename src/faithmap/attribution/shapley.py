"""Shapley values of an image's regions under a fill: what is attainable by an order of these regions.

A permutation of the regions and its reverse are two removal chains; a region's value is by how much the class logit
falls when it goes, on average over all chains. Each chain is scored by the engine that scores removal curves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from faithmap.attribution.batch import Batch
from faithmap.attribution.derived import region_grid
from faithmap.attribution.method import heatmap_method
from faithmap.attribution.variants import target_logits
from faithmap.classifiers import Classifier
from faithmap.declarations import Parameter, integer
from faithmap.errors import HeatmapError, MethodError
from faithmap.inference import Chains, Engine
from faithmap.perturbation import Imputer, draw_fill, imputer_of, is_imputed, takes_partner
from faithmap.perturbation.segments import segment
from faithmap.protocol import Placement, Protocol
from faithmap.randomness import generator


@dataclass(frozen=True)
class ShapleyValues:
    """Estimated Shapley values of the regions of images.

    Attributes:
        samples: a region's mean fall over each permutation and its reverse, (images, pairs, regions); NaN for regions
            that an image does not have. Pairs are independent of each other.
    """

    samples: Float[Tensor, "images pairs regions"]

    @property
    def values(self) -> Float[Tensor, "images regions"]:
        """In logits. Those of an image add up to the fall from the untouched image to the one without any region."""
        return self.samples.mean(1)

    @property
    def standard_error(self) -> Float[Tensor, "images regions"]:
        """Sampling error of `values`; NaN for a single pair."""
        error: Tensor = self.samples.std(1) / self.samples.shape[1] ** 0.5
        return error

    def extended(self, more: ShapleyValues) -> ShapleyValues:
        """With further pairs, see `first` of `shapley_values`."""
        return ShapleyValues(torch.cat([self.samples, more.samples], 1))


def shapley_values(
    classifier: Classifier,
    pixels: Float[Tensor, "images channels height width"],
    targets: Int[Tensor, "images"],
    regions: Int[Tensor, "images height width"],
    fills: Float[Tensor, "images draws channels height width"],
    *,
    permutations: int = 32,
    first: int = 0,
    seed: int = 0,
    image_ids: Sequence[str] | None = None,
    imputed: bool = False,
    imputer: Imputer | None = None,
    engine: Engine | None = None,
) -> ShapleyValues:
    """Shapley values of regions for the class logit, by permutations in pairs: each and its reverse.

    Args:
        classifier: pixel space in, logits out.
        pixels: untouched images in [0, 1].
        targets: class indices, int64.
        regions: the number of each pixel's region, 0…R − 1; below 0: never removed.
        fills: replacement values in pixel space; pair i is scored under fill i modulo draws.
        permutations: how many chains in each image, reverses included; an even number.
        first: how many permutations are known already: those that follow are drawn. Pair i of an image is the same
            whenever it is drawn.
        seed, image_ids: the key of the permutations; by default images are named by their row.
        imputed, imputer: as in `faithmap.inference.Chains`.
        engine: runs the network; by default one that is kept for the classifier.
    Raises:
        MethodError: an odd number of permutations, or none.
        HeatmapError: logits that are not finite; `index` says for which image.
    Source:
        Castro et al. 2009 (sampling permutations); Mitchell et al. 2022 (in pairs with their reverses).
    Example:
        >>> found = shapley_values(classifier, pixels, targets, regions, fills)
        >>> found.values.shape
        torch.Size([8, 196])
    """
    if permutations < 2 or permutations % 2 or first % 2:
        raise MethodError(
            f"permutations is {permutations} after {first}, expected even numbers of at least 2: each goes with its "
            "reverse."
        )
    ids = [str(row) for row in range(len(pixels))] if image_ids is None else list(image_ids)
    batch = Batch.of(classifier, pixels, targets, ids, seed)
    most = int(regions.amax()) + 1
    samples = torch.full((len(pixels), permutations // 2, most), torch.nan, dtype=torch.float64, device=pixels.device)
    for row, name in enumerate(ids):
        present = torch.unique(regions[row])
        present = present[present >= 0]
        ranks = _ranks(name, seed, len(present), range(first // 2, (first + permutations) // 2))
        # Step of every region: its rank + 1 in the permutation, in the order (permutation, reverse) of every pair.
        step = torch.zeros(permutations, most + 1, dtype=torch.int32, device=pixels.device)  # the last: never removed
        step[:, present] = (ranks + 1).to(step)
        pair = torch.arange(permutations, device=pixels.device) // 2
        zeros = torch.zeros_like(pair)
        chains = Chains(
            pixels=batch.pixels[row : row + 1],
            fill=fills[row],
            image=zeros,
            fill_index=(pair + first // 2) % fills.shape[1],
            removal_step=step[:, regions[row].clamp(min=-1)],
            targets=batch.targets[row].expand(permutations),
            steps=len(present),
            imputed=imputed,
            imputer=imputer,
        )
        try:
            score = target_logits(batch.select([row]), chains, engine).double()
        except HeatmapError as error:
            raise HeatmapError(str(error), row) from error
        fall = (score[:, :-1] - score[:, 1:]).gather(1, ranks.to(score.device))
        samples[row][:, present] = fall.view(permutations // 2, 2, -1).mean(1)
    return ShapleyValues(samples)


def _ranks(image_id: str, seed: int, regions: int, pairs: range) -> Int[Tensor, "permutations regions"]:
    """The place of every region in each permutation, every second one the reverse of the one before."""
    found = []
    for pair in pairs:
        rank = torch.from_numpy(generator("shapley", seed, image_id, pair).permutation(regions))
        found += [rank, regions - 1 - rank]
    return torch.stack(found)


@heatmap_method(
    "shapley",
    line="Shapley values of the run's regions under its fill, by permutations: what an order can attain",
    source="Castro et al. 2009",
    parameters={"permutations": Parameter(32, integer(low=2))},
    batching="single",
    reads=("placement", "region_size", "segments", "fill"),
)
def shapley(batch: Batch, *, permutations: int, protocol: Protocol) -> Float[Tensor, "batch height width"]:
    """Every pixel has the value of its region. It knows the run's fill and regions, which other methods do not.

    Its noise is its own: each permutation and its reverse meet a fill that is drawn for them.

    Args:
        batch: images and classes.
        permutations: how many removal chains, reverses included; an even number.
        protocol: gives regions and fill.
    """
    if protocol.placement is Placement.PIXEL:
        raise MethodError("placement is 'pixel', every pixel a region: choose placement 'grid' or 'segment'.")
    if takes_partner(protocol.fill):
        raise MethodError("a method does not see the other images that fill 'swap' takes: choose another fill.")
    found = []
    for row, name in enumerate(batch.image_ids):
        one = batch.rows(row, 1)
        if protocol.placement is Placement.SEGMENT:
            regions = segment(protocol.segments, one.pixels[0], name)
        else:
            regions = region_grid(protocol, (int(one.pixels.shape[-2]), int(one.pixels.shape[-1])))
        regions = regions.to(one.pixels.device)
        fills = [
            draw_fill(protocol.fill, one.pixels[0], seed=batch.seed, image_id=name, draw=pair, method="shapley")
            for pair in range(permutations // 2)
        ]
        values = shapley_values(
            one.classifier, one.pixels, one.targets, regions[None], torch.stack(fills).to(one.pixels)[None],
            permutations=permutations, seed=batch.seed, image_ids=[name], imputed=is_imputed(protocol.fill),
            imputer=imputer_of(protocol.fill),
        ).values[0]  # fmt: skip
        found.append(torch.where(regions >= 0, values[regions.clamp(min=0)], 0.0))
    return torch.stack(found).to(batch.inputs.dtype)
