"""Fills that depend on what is left (OpenCV, functions), and colours of the image's histogram."""

import pickle

import numpy as np
import pytest
import torch

import faithmap
from faithmap.errors import ProtocolError, StoreError
from faithmap.perturbation import draw_fill
from faithmap.perturbation.inpainting import inpainted
from faithmap.randomness import generator
from tests.conftest import TinyNet
from tests.reference.outputs import score_twin

PIXELS = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(4))
KEY = {"seed": 0, "image_id": "a", "draw": 3}


def protocol(fill, **parts):
    return faithmap.Protocol.preset("samek2017", steps=3, region_size=6, draws=1, fill=fill, **parts)


def measured(fill, out=None, **parts):
    return faithmap.evaluate(faithmap.Classifier(TinyNet()), PIXELS, ["edge"], protocol(fill, **parts), out=out)


def mean_of_left(pixels, removed):
    left = pixels[:, ~removed]
    return torch.where(removed, left.mean(1).view(-1, 1, 1), pixels)


def paint(pixels, removed):
    """A function that also changes what is left, its arguments, and nothing of what counts."""
    pixels[:, removed] = 0.25
    removed[:] = True
    return pixels * 1.0


def curve_by_hand(run, replace):
    """Logits of the first image, one step after the other, every region replaced by `replace`."""
    example = run.examples()[0]
    step = run.removal_step(example, "edge")
    curve = []
    for k in range(4):
        removed = (step > 0) & (step <= k)
        x = replace(example.pixels, removed) if k else example.pixels
        with torch.no_grad():
            curve.append(score_twin(TinyNet().eval()(x[None]), example.target, "softmax")[0])
    frame = run.scores().query(f"method == 'edge' and image == '{example.image}'").sort_values("step")
    return frame["logit"].to_numpy(), np.array(curve)


@pytest.mark.parametrize("fill", ["cv2-telea", "cv2-navier-stokes:radius=5"])
def test_opencv_inpaints_at_every_step(fill):
    cv2 = pytest.importorskip("cv2")
    flag = cv2.INPAINT_TELEA if "telea" in fill else cv2.INPAINT_NS
    radius = 5 if "radius" in fill else 3

    def replace(pixels, removed):
        image = np.zeros((24, 24, 3), np.uint8)
        for channel in range(3):
            for y in range(24):
                for x in range(24):
                    image[y, x, channel] = round(float(pixels[channel, y, x]) * 255)
        found = cv2.inpaint(image, removed.numpy().astype(np.uint8), radius, flag)
        return torch.where(removed, torch.from_numpy(found).permute(2, 0, 1) / 255, pixels)

    found, expected = curve_by_hand(measured(fill), replace)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_inpainting_keeps_what_is_left_and_continues_what_is_flat(channels):
    pytest.importorskip("cv2")
    pixels = torch.full((channels, 20, 20), 0.4)
    removed = torch.zeros(20, 20, dtype=torch.bool)
    removed[5:12, 3:9] = True
    for name in ("cv2-telea", "cv2-navier-stokes"):
        torch.testing.assert_close(inpainted(pixels, removed, name=name, radius=3), pixels, atol=3 / 255, rtol=0)
        noisy = torch.rand(channels, 20, 20)
        assert torch.equal(inpainted(noisy, removed, name=name, radius=3)[:, ~removed], noisy[:, ~removed])
        assert not torch.equal(inpainted(noisy, removed, name=name, radius=3)[:, removed], noisy[:, removed])
        gone = inpainted(noisy, torch.ones_like(removed), name=name, radius=3)
        torch.testing.assert_close(gone, noisy.mean((1, 2), keepdim=True).expand_as(noisy))


def test_a_function_replaces_regions_at_every_step():
    for function in (mean_of_left, paint):
        expected_of = mean_of_left if function is mean_of_left else lambda x, r: torch.where(r, torch.tensor(0.25), x)
        before = PIXELS.clone()
        found, expected = curve_by_hand(measured(function), expected_of)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
        assert torch.equal(PIXELS, before)


def test_a_function_is_part_of_the_question(tmp_path):
    measured(mean_of_left, tmp_path)
    run = measured(mean_of_left, tmp_path)
    assert run.protocol.fill.startswith("function:mean_of_left#")
    with pytest.raises(StoreError, match="changed: fill"):
        measured(paint, tmp_path)
    # A run folder does not hold the function, and the page says so.
    with pytest.raises(ProtocolError, match="a run folder does not hold"):
        run.fill(run.examples()[0])
    assert run.report(tmp_path / "report.html").is_file()
    assert pickle.loads(pickle.dumps(protocol(mean_of_left).fill)).function is mean_of_left


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda pixels, removed: 1 / 0, "fails: division by zero"),
        (lambda pixels, removed: pixels[:1], "fails: fill has shape"),
        (lambda pixels, removed: None, "fails"),
        (lambda pixels, removed: pixels * float("nan"), "not finite"),
    ],
)
def test_functions_that_do_not_fit_are_named(function, message):
    with pytest.raises(ProtocolError, match=f"fill 'function:.*{message}"):
        measured(function)


def test_curves_cannot_start_from_what_is_computed_from_the_rest():
    for fill in (mean_of_left, "cv2-telea"):
        with pytest.raises(ProtocolError, match="a curve cannot start"):
            protocol(fill, direction="restore")


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_histogram_draws_whole_colours_of_the_image(channels):
    pixels = torch.rand(channels, 9, 7)
    found = draw_fill("histogram", pixels, **KEY)
    drawn = generator("fill", 0, "a", 3).integers(0, 63, 63)
    for place in range(63):
        for channel in range(channels):
            expected = pixels[channel, int(drawn[place]) // 7, int(drawn[place]) % 7]
            assert found[channel, place // 7, place % 7] == expected


def test_histogram_draws_colours_as_often_as_they_are():
    pixels = torch.zeros(3, 100, 100)
    pixels[:, :25] = 1.0
    found = draw_fill("histogram", pixels, **KEY)
    assert abs(float(found.mean()) - 0.25) < 4 * (0.25 * 0.75 / 10_000) ** 0.5
