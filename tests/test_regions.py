import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from faithmap.errors import HeatmapError, RegionError
from faithmap.perturbation.regions import removal_steps
from faithmap.protocol import Order, Placement, Protocol
from tests.reference.ordering import pixel_steps_twin, removal_steps_twin, segment_steps_twin


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
    placement=st.sampled_from([Placement.GRID, Placement.CENTRE]),
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
        with pytest.raises(RegionError, match=r"^\d+ regions") as caught:
            removal_steps(batch, protocol, order)
        index = caught.value.index or 0
        assert int(re.match(r"\d+", str(caught.value))[0]) == expected[index]
    else:
        assert removal_steps(batch, protocol, order).tolist() == expected


@pytest.mark.parametrize("placement", [Placement.GRID, Placement.CENTRE])
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
    for placement in (Placement.GRID, Placement.CENTRE, Placement.PIXEL):
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


def check_against(expected, batch, protocol, order, segments=None):
    """Equal to the twins' steps, or refused with the number that fits into the first image where they are too few."""
    few = [one for one in expected if isinstance(one, int)]
    if few:
        with pytest.raises(RegionError, match=rf"^{few[0]} regions"):
            removal_steps(batch, protocol, order, segments)
    else:
        assert removal_steps(batch, protocol, order, segments).tolist() == expected


@settings(max_examples=200, deadline=None)
@given(
    kind=st.sampled_from(["random", "ties", "patch", "tiny"]),
    height=st.integers(2, 14),
    width=st.integers(2, 14),
    count=st.integers(1, 40),
    steps=st.integers(1, 12),
    order=st.sampled_from(list(Order)),
    seed=st.integers(0, 2**31),
)
def test_pixels_equal_the_loop_only_twin(kind, height, width, count, steps, order, seed):
    count = min(count, height * width)
    heatmaps = [make_heatmap(kind, height, width, seed + i) for i in range(2)]
    expected = [pixel_steps_twin(h.astype(float).tolist(), steps, count, order is Order.LERF) for h in heatmaps]
    protocol = Protocol.preset(steps=steps, region_size=count, placement="pixel")
    check_against(expected, torch.from_numpy(np.stack(heatmaps)), protocol, order)


@settings(max_examples=200, deadline=None)
@given(
    kind=st.sampled_from(["random", "ties", "patch", "tiny"]),
    height=st.integers(3, 14),
    width=st.integers(3, 14),
    labels=st.integers(1, 15),
    steps=st.integers(1, 12),
    order=st.sampled_from(list(Order)),
    seed=st.integers(0, 2**31),
)
def test_segments_equal_the_loop_only_twin(kind, height, width, labels, steps, order, seed):
    heatmaps = [make_heatmap(kind, height, width, seed + i) for i in range(2)]
    random = np.random.default_rng(seed)
    segments = random.choice(random.integers(-2, 1000, labels), (2, height, width))
    expected = [
        segment_steps_twin(h.astype(float).tolist(), s.tolist(), steps, order is Order.LERF)
        for h, s in zip(heatmaps, segments, strict=True)
    ]
    protocol = Protocol.preset(steps=steps, placement="segment")
    check_against(expected, torch.from_numpy(np.stack(heatmaps)), protocol, order, torch.from_numpy(segments))


def test_all_steps_remove_every_cell_and_every_pixel():
    heat = torch.randn(1, 20, 30, generator=torch.Generator().manual_seed(1))
    grid = removal_steps(heat, Protocol.preset(steps="all", region_size=7))
    assert grid.max() == 2 * 4
    assert (grid > 0).sum() == 14 * 28
    pixels = removal_steps(heat, Protocol.preset(steps="all", region_size=37, placement="pixel"))
    assert pixels.max() == 17
    assert pixels.min() == 1
    assert (pixels == 17).sum() == 600 - 16 * 37


def test_segments_of_another_size_or_none_are_refused():
    heat = torch.randn(1, 6, 6)
    protocol = Protocol.preset(steps=1, placement="segment")
    with pytest.raises(RegionError, match=r"segments are \(1, 5, 6\), the heatmap is \(1, 6, 6\)"):
        removal_steps(heat, protocol, segments=torch.zeros(1, 5, 6, dtype=torch.int64))
    with pytest.raises(RegionError, match="no segments were given"):
        removal_steps(heat, protocol)
