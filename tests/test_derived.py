"""Known answers and controls: maps blended with noise in a known proportion, and blurred copies."""

import numpy as np
import pytest
import torch

import faithmap
from faithmap.attribution import Batch, batch_heatmaps, resolve_methods
from faithmap.attribution.derived import region_grid
from faithmap.errors import MethodError
from faithmap.randomness import generator

PROTOCOL = faithmap.Protocol.preset("srg", region_size=5)  # 24×24: four whole regions a side, and a border


def maps(classifier, name: str, protocol=PROTOCOL, ids=("a", "b")):
    pixels = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(4))
    method = resolve_methods(name, protocol)[0]
    return batch_heatmaps(method, Batch.of(classifier, pixels, torch.tensor([0, 1]), list(ids), 0))


def order(heatmap, protocol=PROTOCOL):
    return faithmap.removal_steps(heatmap, protocol, "morf")


def test_without_noise_a_blend_removes_regions_in_the_order_of_its_map(tiny):
    assert torch.equal(order(maps(tiny, "blend:sensitivity:l2,share=0")), order(maps(tiny, "sensitivity:l2")))


def test_all_noise_does_not_know_the_map(tiny):
    noise = maps(tiny, "blend:sensitivity:l2,share=1")
    assert torch.equal(noise, maps(tiny, "blend:edge,share=1"))
    assert not torch.equal(noise[0], noise[1])
    assert torch.equal(noise, maps(tiny, "blend:edge,share=1"))
    assert not torch.equal(noise, maps(tiny, "blend:edge,share=1", ids=("c", "d")))


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_a_blend_by_hand(tiny, share):
    plain, found = maps(tiny, "edge"), maps(tiny, f"blend:edge,share={share}")
    for row, name in enumerate(("a", "b")):
        sums = [0.0] * 16
        for y in range(20):  # nothing removes the pixels beyond the last whole region
            for x in range(20):
                sums[y // 5 * 4 + x // 5] += float(plain[row, y, x])
        rank = np.argsort(np.argsort(sums, kind="stable"), kind="stable")
        noise = generator("blend", 0, name).permutation(16)
        for y in range(24):
            for x in range(24):
                cell = y // 5 * 4 + x // 5 if max(y, x) < 20 else None
                expected = 0 if cell is None else ((1 - share) * rank[cell] + share * noise[cell]) / 16
                assert float(found[row, y, x]) == pytest.approx(expected, rel=1e-6)


def test_more_noise_agrees_less_with_the_map(tiny):
    plain = maps(tiny, "blend:edge,share=0").flatten()
    agreement = [
        float(torch.corrcoef(torch.stack([plain, maps(tiny, f"blend:edge,share={share}").flatten()]))[0, 1])
        for share in (0, 0.25, 0.5, 0.75, 1)
    ]
    assert agreement == sorted(agreement, reverse=True)


def test_a_blurred_copy_by_hand(tiny):
    plain, found = maps(tiny, "edge")[0].double(), maps(tiny, "smoothed:edge,sigma=1")[0]
    radius = 4
    weight = torch.exp(-(torch.arange(-radius, radius + 1).double() ** 2) / 2)
    weight /= weight.sum()
    for y, x in ((0, 0), (11, 7), (23, 23), (0, 12)):
        total = 0.0
        for dy in range(-radius, radius + 1):
            for dx in range(-radius, radius + 1):
                yy, xx = min(max(y + dy, 0), 23), min(max(x + dx, 0), 23)
                total += float(weight[dy + radius] * weight[dx + radius] * plain[yy, xx])
        assert float(found[y, x]) == pytest.approx(total, rel=1e-5)


def test_names_hold_the_other_method_with_its_parameters():
    methods = resolve_methods("blend:smoothgrad:n=25,sigma=0.1,share=0.25,smoothed:lrp-epsilon:0.01,edge", PROTOCOL)
    assert [method.name for method in methods[:3]] == [
        "blend:smoothgrad:n=25,sigma=0.1,share=0.25",
        "smoothed:lrp-epsilon:0.01",
        "edge",
    ]
    assert methods[0].spec["protocol"] == {"placement": "grid", "region_size": 5}
    assert methods[0].spec["of"]["parameters"] == {"n": 25, "sigma": 0.1, "norm": "l2"}
    assert methods[0].batching == "single"


@pytest.mark.parametrize("name", ["blend:random", "blend:blend:edge", "smoothed:blend:edge,share=0.5", "blend:nothing"])
def test_what_means_nothing_is_refused(name):
    with pytest.raises(MethodError, match=r"name a method that computes|unknown method"):
        resolve_methods(name, PROTOCOL)


def test_regions_that_are_no_squares_are_refused(tiny):
    with pytest.raises(MethodError, match="placement is 'segment'"):
        maps(tiny, "blend:edge", faithmap.Protocol.preset(placement="segment", segments="slic:n=9"))
    assert region_grid(faithmap.Protocol.preset(placement="pixel", region_size=3), (2, 3)).tolist() == [
        [0, 1, 2],
        [3, 4, 5],
    ]
