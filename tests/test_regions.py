import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from faithmap.errors import HeatmapError, RegionError
from faithmap.protocol import Order, Placement, Protocol
from faithmap.regions import removal_steps
from tests.reference.ordering import removal_steps_twin


def make_heatmap(kind: str, height: int, width: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    heat = random.standard_normal((height, width)).astype(np.float32)
    if kind == "ties":
        heat = random.integers(0, 3, (height, width)).astype(np.float32) * np.float32(0.1)
    elif kind == "patch":
        heat[height // 4 : height // 2, width // 4 :] = 0.5
    elif kind == "border":
        heat[0], heat[-1], heat[:, 0], heat[:, -1] = 3, 3, 3, 3
    elif kind == "tiny":
        heat *= np.float32(1e-29)
    heat[0, 0] += 1 if kind != "tiny" else 1e-30  # never constant
    return heat


@settings(max_examples=400, deadline=None)
@given(
    kind=st.sampled_from(["random", "ties", "patch", "border", "tiny"]),
    height=st.integers(4, 20),
    width=st.integers(4, 20),
    size=st.integers(1, 6),
    steps=st.integers(1, 12),
    placement=st.sampled_from(list(Placement)),
    order=st.sampled_from(list(Order)),
    seed=st.integers(0, 2**31),
)
def test_equals_the_loop_only_twin(kind, height, width, size, steps, placement, order, seed):
    size = min(size, height, width)
    protocol = Protocol.preset(steps=steps, region_size=size, placement=placement)
    heatmaps = [make_heatmap(kind, height, width, seed + i) for i in range(3)]
    expected = [
        removal_steps_twin(h.astype(float).tolist(), steps, size, str(placement), order is Order.LERF) for h in heatmaps
    ]
    batch = torch.from_numpy(np.stack(heatmaps))
    if any(isinstance(e, int) for e in expected):
        with pytest.raises(RegionError, match=r"\d+ regions fit") as caught:
            removal_steps(batch, protocol, order)
        index = caught.value.index or 0
        assert int(re.match(r"\d+", str(caught.value))[0]) == expected[index]
    else:
        assert removal_steps(batch, protocol, order).tolist() == expected


@pytest.mark.parametrize("placement", list(Placement))
@pytest.mark.parametrize("kind", ["random", "ties", "border"])
def test_equals_the_twin_at_full_size(placement, kind):
    heat = make_heatmap(kind, 224, 224, 5)
    expected = removal_steps_twin(heat.astype(float).tolist(), 100, 9, str(placement))
    protocol = Protocol.preset(placement=placement)
    assert removal_steps(torch.from_numpy(heat)[None], protocol)[0].tolist() == expected


def test_lerf_reverses_morf_on_a_grid():
    heat = torch.randn(2, 18, 27, generator=torch.Generator().manual_seed(0))
    protocol = Protocol.preset(steps=6, region_size=9)
    morf, lerf = removal_steps(heat, protocol, "morf"), removal_steps(heat, protocol, "lerf")
    assert torch.equal(lerf, 7 - morf)


def test_a_permutation_of_the_batch_permutes_the_result():
    heat = torch.randn(7, 30, 30, generator=torch.Generator().manual_seed(1))
    permutation = torch.tensor([3, 1, 6, 0, 2, 5, 4])
    for placement in Placement:
        protocol = Protocol.preset(steps=5, region_size=4, placement=placement)
        assert torch.equal(removal_steps(heat[permutation], protocol), removal_steps(heat, protocol)[permutation])


@pytest.mark.parametrize(
    ("heat", "message"),
    [
        (torch.ones(2, 9, 9), "constant"),
        (torch.full((1, 9, 9), torch.nan), "not finite"),
        (torch.randn(1, 9, 9).half(), "float16"),
    ],
)
def test_a_heatmap_without_an_order_is_refused(heat, message):
    with pytest.raises(HeatmapError, match=message):
        removal_steps(heat, Protocol.preset(steps=1, region_size=3))


def test_a_region_larger_than_the_image_is_refused():
    with pytest.raises(RegionError, match="region_size is 9 pixels, the image is 8×20"):
        removal_steps(torch.randn(1, 8, 20), Protocol.preset(steps=1))
