import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from faithmap.errors import HeatmapError
from faithmap.measures.complexity import by_method, complexity, complexity_table, effective_pixels, gini
from tests.reference import measures as twin


def gini_twin(weights):
    """Mean absolute difference of all pairs over twice the mean."""
    n = len(weights)
    total = sum(abs(a - b) for a in weights for b in weights)
    return total / (2 * n * sum(weights))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=25).filter(lambda w: sum(w) > 1e-3))
def test_gini_is_the_mean_difference_of_pairs(weights):
    assert gini(np.array(weights)) == pytest.approx(gini_twin(weights), abs=1e-9)


def test_known_values():
    one = torch.zeros(1, 8, 8)
    one[0, 3, 5] = 1e-29  # the unit does not matter
    flat = torch.ones(1, 8, 8)
    half = torch.ones(1, 8, 8)
    half[0, :4] = -1
    found = complexity(torch.cat([one, flat, half]))
    assert found.gini.tolist() == pytest.approx([1 - 1 / 64, 0, 0])
    p = 1 / 64
    assert found.entropy.tolist() == pytest.approx([-p * math.log2(p) - (1 - p) * math.log2(1 - p), 0, 1])


def test_sizes_are_those_of_the_picture_drawn_pixel_by_pixel():
    heat = torch.randn(1, 30, 20, generator=torch.Generator().manual_seed(0))
    largest = max(abs(float(v)) for v in heat.flatten())
    picture = Image.new("RGB", (20, 30))
    for y in range(30):
        for x in range(20):
            level = round(float(heat[0, y, x]) / largest * 127)
            fade = round(255 * (1 - abs(level) / 127))
            picture.putpixel((x, y), (fade, fade, 255) if level < 0 else (255, fade, fade))
    sizes = []
    for kind, how in (("PNG", {"compress_level": 6}), ("JPEG", {"quality": 75, "subsampling": 0})):
        buffer = io.BytesIO()
        picture.save(buffer, kind, **how)
        sizes.append(len(buffer.getvalue()))
    assert complexity(heat)[["png", "jpeg"]].iloc[0].tolist() == sizes


def test_noise_is_more_complex_than_a_blob():
    y, x = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 64), indexing="ij")
    blob = (-8 * (y**2 + x**2)).exp().expand(3, 64, 64)
    noise = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(0))
    table = complexity_table({"noise": noise, "blob": blob})
    assert table.method.tolist() == ["blob", "noise"]
    assert (table.heatmaps == 3).all()
    for measure in ("entropy", "png", "jpeg"):
        assert table[measure][0] < table[measure][1]
    assert table.gini[0] > table.gini[1]
    assert table.png_se[0] == 0
    assert table.png_se[1] == pytest.approx(float(complexity(noise).png.std() / math.sqrt(3)))


def test_examples_become_one_batch_a_method():
    one, other = torch.randn(2, 4, 4), torch.randn(2, 4, 4)
    found = by_method([{"a": one[0], "b": other[0]}, {"a": one[1]}, {"a": one[1], "b": other[1]}])
    assert torch.equal(found["a"], one)
    assert torch.equal(found["b"], other)
    with pytest.raises(HeatmapError, match="no image has a heatmap of every method"):
        by_method([{"a": one[0]}, {"b": one[0]}])


@pytest.mark.parametrize(("value", "message"), [(0.0, "0 everywhere"), (torch.inf, "not finite")])
def test_heatmaps_without_complexity_are_named(value, message):
    heat = torch.randn(2, 4, 4)
    heat[1] = value
    with pytest.raises(HeatmapError, match=f"mine: heatmap .*{message}") as caught:
        complexity_table({"mine": heat})
    assert caught.value.index == 1


def test_effective_pixels_equal_the_definition_and_quantus():
    heat = torch.randn(3, 9, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = effective_pixels(heat)
    assert found.tolist() == pytest.approx([twin.effective_pixels(one) for one in heat.tolist()])
    one = torch.zeros(1, 5, 5)
    one[0, 2, 2] = -1e-30
    assert effective_pixels(torch.cat([one, torch.ones(1, 5, 5)])).tolist() == pytest.approx([1 / 25, 1])
    quantus = pytest.importorskip("quantus")
    entropy = quantus.Complexity(abs=True, normalise=False, disable_warnings=True)(
        model=torch.nn.Identity(),
        x_batch=np.zeros((3, 3, 9, 12)),
        y_batch=np.zeros(3, dtype=int),
        a_batch=heat.unsqueeze(1).numpy().copy(),
        channel_first=True,
    )
    assert found.tolist() == pytest.approx(list(np.exp(entropy) / 108), abs=1e-5)
