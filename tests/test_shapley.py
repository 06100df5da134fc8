"""Shapley values of regions by permutations, against all coalitions."""

import pytest
import torch

import faithmap
from faithmap.attribution import Batch, batch_heatmaps, resolve_methods
from faithmap.attribution.derived import region_grid
from faithmap.attribution.shapley import shapley_values
from faithmap.errors import HeatmapError, MethodError
from faithmap.perturbation import draw_fill
from faithmap.protocol import Protocol
from tests.reference.shapley import shapley_by_coalitions


@pytest.fixture
def game(tiny):
    """Two images, 2 × 4 regions of different sizes, pixels that are never removed, one fill each."""
    random = torch.Generator().manual_seed(1)
    pixels, fills = (torch.rand(2, 3, 24, 24, generator=random) for _ in range(2))
    rows, columns = torch.arange(24) // 12, torch.tensor([0] * 3 + [1] * 9 + [2] * 6 + [3] * 6)
    regions = (rows[:, None] * 4 + columns).repeat(2, 1, 1)
    regions[1, 20:] = -1
    regions[1][regions[1] == 7] = 3
    return tiny, pixels, torch.tensor([1, 3]), regions, fills.unsqueeze(1)


def exact(classifier, pixels, target, regions, fill):
    present = sorted({one for one in regions.flatten().tolist() if one >= 0})

    def value(removed):
        gone = torch.tensor([[one in removed for one in row] for row in regions.tolist()])
        with torch.inference_mode():
            return float(classifier(torch.where(gone, fill, pixels)[None])[0, target])

    return shapley_by_coalitions(present, value)


def test_equal_exact_values_as_permutations_grow(game):
    classifier, pixels, targets, regions, fills = game
    found = shapley_values(classifier, pixels, targets, regions, fills, permutations=400, seed=3)
    for row in range(2):
        right = exact(classifier, pixels[row], int(targets[row]), regions[row], fills[row, 0])
        for region, value in right.items():
            error = float(found.values[row, region]) - value
            assert abs(error) < 4.5 * float(found.standard_error[row, region]) + 1e-5
            assert abs(error) < 0.05 * max(abs(v) for v in right.values())
    assert bool(found.samples[1, :, 7].isnan().all())  # a region that the second image does not have


def test_all_permutations_of_three_regions_are_exact(tiny):
    """Each of the 3! permutations once: no sampling error at all."""
    random = torch.Generator().manual_seed(1)
    pixels, fill = (torch.rand(1, 3, 24, 24, generator=random) for _ in range(2))
    regions = (torch.arange(24) // 8).expand(24, 24)[None]
    pairs = {}
    for pair in range(40):
        one = shapley_values(tiny, pixels, torch.tensor([2]), regions, fill[None], permutations=2, first=2 * pair)
        pairs[tuple(one.samples.flatten().tolist())] = one.values[0]
    assert len(pairs) == 3  # pairs of six permutations
    right = exact(tiny, pixels[0], 2, regions[0], fill[0])
    torch.testing.assert_close(
        torch.stack(list(pairs.values())).mean(0).float(), torch.tensor(list(right.values())), atol=1e-5, rtol=1e-4
    )


def test_values_add_up_to_the_whole_fall_and_more_permutations_extend(game):
    classifier, pixels, targets, regions, fills = game
    found = shapley_values(classifier, pixels, targets, regions, fills, permutations=6)
    gone = regions >= 0
    with torch.inference_mode():
        whole = classifier(pixels) - classifier(torch.where(gone[:, None], fills[:, 0], pixels))
    torch.testing.assert_close(
        found.values.nansum(1).float(), whole.gather(1, targets[:, None])[:, 0], atol=1e-4, rtol=1e-4
    )
    first = shapley_values(classifier, pixels, targets, regions, fills, permutations=4)
    more = shapley_values(classifier, pixels, targets, regions, fills, permutations=2, first=4)
    torch.testing.assert_close(first.extended(more).samples, found.samples, equal_nan=True, rtol=0, atol=0)
    alone = shapley_values(classifier, pixels[1:], targets[1:], regions[1:], fills[1:], permutations=6, image_ids=["1"])
    torch.testing.assert_close(alone.samples[0], found.samples[1][:, :7], rtol=0, atol=0)


def test_every_pair_meets_its_fill(game):
    classifier, pixels, targets, regions, fills = game
    both = torch.cat([fills, fills.flip(0)], 1)
    found = shapley_values(classifier, pixels, targets, regions, both, permutations=4)
    for pair in range(2):
        one = shapley_values(
            classifier, pixels, targets, regions, both[:, pair : pair + 1], permutations=2, first=2 * pair
        )
        torch.testing.assert_close(found.samples[:, pair], one.samples[:, 0], equal_nan=True, rtol=0, atol=0)


def test_the_method_takes_regions_and_fill_of_the_protocol(tiny):
    pixels = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    protocol = Protocol.preset("srg", region_size=8, fill="blur:sigma=3", seed=5)
    method = next(one for one in resolve_methods("shapley:permutations=4", protocol) if not one.is_random)
    assert method.name == "shapley:permutations=4"
    assert method.spec["protocol"]["fill"] == "blur:sigma=3"
    found = batch_heatmaps(method, Batch.of(tiny, pixels, torch.tensor([2]), ["a"], 5))
    regions = region_grid(protocol, (24, 24))
    fill = draw_fill("blur:sigma=3", pixels[0], seed=5, image_id="a", draw=0)
    right = shapley_values(
        tiny, pixels, torch.tensor([2]), regions[None], fill[None, None], permutations=4, seed=5, image_ids=["a"]
    )
    torch.testing.assert_close(found[0], right.values[0].float()[regions])
    pixelwise = Protocol.preset("deletion")
    with pytest.raises(MethodError, match="placement is 'pixel'"):
        batch_heatmaps(resolve_methods("shapley", pixelwise)[0], Batch.of(tiny, pixels, torch.tensor([2])))


def test_what_cannot_be(game):
    classifier, pixels, targets, regions, fills = game
    for permutations in (0, 3):
        with pytest.raises(MethodError, match="expected even numbers of at least 2"):
            shapley_values(classifier, pixels, targets, regions, fills, permutations=permutations)
    fills[1] = torch.nan
    with pytest.raises(HeatmapError, match="not finite") as caught:
        shapley_values(classifier, pixels, targets, regions, fills, permutations=2)
    assert caught.value.index == 1


def test_the_twin_on_a_game_by_hand():
    """Three players; 0 and 1 together win 6, 2 adds 1."""

    def value(removed):
        return 6 * (not {0, 1} & removed) + (2 not in removed)

    assert shapley_by_coalitions([0, 1, 2], value) == pytest.approx({0: 3, 1: 3, 2: 1})


def test_a_fill_that_takes_other_images_is_refused_by_name(tiny, tmp_path):
    pixels = torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    protocol = faithmap.Protocol.preset("srg", region_size=8, points=4, fill="swap")
    with pytest.raises(MethodError, match=r"shapley:permutations=2 on .*fill 'swap' takes: choose another fill"):
        faithmap.evaluate(tiny, pixels, ["edge", "shapley:permutations=2"], protocol, tmp_path / "run")
    with pytest.warns(faithmap.errors.MethodWarning, match="choose another fill"):
        run = faithmap.evaluate(
            tiny, pixels, ["edge", "shapley:permutations=2"], protocol, tmp_path / "run", on_refusal="skip"
        )
    assert set(run.scores()["method"]) == {"edge", "random"}
