"""Whole runs with other fills, regions and directions than the default."""

import numpy as np
import pandas as pd
import pytest
import torch

import faithmap
from faithmap.errors import ProtocolError, StoreError
from faithmap.images import PixelSource
from faithmap.perturbation import impute, is_imputed, resolve_fill
from faithmap.perturbation.segments import resolve_segments, segment

SIZE = 24


def edges(inputs, targets):
    """A heatmap of its own for every image."""
    return (inputs - inputs.roll(1, -1)).abs()


@pytest.fixture
def network(tiny):
    tiny.preprocessing = faithmap.Preprocessing(crop=(SIZE, SIZE), resize=None)
    return tiny


@pytest.fixture
def images():
    smooth = torch.rand(5, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    return faithmap.load_images(torch.nn.functional.interpolate(smooth, size=(SIZE, SIZE), mode="bilinear"))


def protocol(**overrides):
    return faithmap.Protocol.preset(**({"steps": 4, "region_size": 5, "draws": 2, "seed": 3} | overrides))


def expected_logits(network, run, images, others):
    """Every score again: one image, one step, one forward pass at a time, from heatmap and fill."""
    found, asked = {}, run.protocol
    for image in images:
        pixels = image.read(network.preprocessing)
        target = int(network.predict(pixels[None])[0])
        heatmap = edges(network.normalise(pixels[None]), None).sum(1)
        maps = segment(asked.segments, pixels, image.id)[None] if asked.segments else None
        removal_step = faithmap.removal_steps(heatmap, asked, segments=maps)[0]
        for draw in range(asked.draws):
            fill = faithmap.draw_fill(asked.fill, pixels, seed=asked.seed, image_id=image.id, draw=draw, others=others)
            for step in range(asked.steps + 1):
                gone = (removal_step > 0) & (removal_step <= step)
                if is_imputed(asked.fill):
                    x = impute(pixels, gone, fill)
                elif asked.direction == "restore":
                    x = torch.where(gone, pixels, fill)
                else:
                    x = torch.where(gone, fill, pixels)
                found[image.id, draw, step] = float(network(x[None])[0, target].detach())
    return found


PARTS = [
    {"fill": "dirichlet"},
    {"fill": "swap"},
    {"fill": "constant:dataset-mean"},
    {"fill": "noisy-linear:noise=0.02"},
    {"direction": "restore", "fill": "blur:sigma=2"},
    {"placement": "pixel", "region_size": 30, "steps": 7},
    {"placement": "segment", "segments": "slic:n=12,compactness=20"},
]


@pytest.mark.parametrize("parts", PARTS, ids=lambda parts: " ".join(map(str, parts.values())))
def test_a_run_equals_its_scores_one_by_one_and_goes_on_where_it_stopped(network, images, tmp_path, parts):
    asked = protocol(**parts)
    run = faithmap.evaluate(network, images, {"edges": edges}, asked, tmp_path / "whole")
    assert not run.skipped
    others = PixelSource(images, network.preprocessing)
    expected = expected_logits(network, run, images, others)
    rows = run.scores().query("method == 'edges'")
    assert len(rows) == len(expected)
    for row in rows.itertuples():
        assert row.logit == pytest.approx(expected[row.image, row.draw, row.step], abs=2e-4)
    faithmap.evaluate(network, images, {"edges": edges}, asked.override(steps=2, draws=1), tmp_path / "grown")
    grown = faithmap.evaluate(network, images, {"edges": edges}, asked, tmp_path / "grown")
    pd.testing.assert_frame_equal(run.scores(), grown.scores(), check_exact=False, atol=2e-4)


def test_all_steps_and_presets_run_to_the_end(network, images):
    run = faithmap.evaluate(network, images, {"edges": edges}, protocol(steps="all"))
    assert run.protocol.steps == run.scores().step.max() == 16
    for name in ("deletion", "insertion"):
        run = faithmap.evaluate(network, images, {"edges": edges}, faithmap.Protocol.preset(name, region_size=100))
        curve = run.scores().query("method == 'edges' and image == '0'").sort_values("step").logit.to_numpy()
        pixels = images[0].read(network.preprocessing)
        fill = faithmap.draw_fill(run.protocol.fill, pixels, seed=0, image_id="0", draw=0)
        ends = network(torch.stack([pixels, fill])).detach()
        target = int(ends[0].argmax())
        ends = ends[:, target] if name == "deletion" else ends[:, target].flip(0)
        np.testing.assert_allclose(curve[[0, -1]], ends, atol=1e-4)


@pytest.mark.parametrize("fill", ["swap", "constant:dataset-mean"])
def test_what_depends_on_the_image_set_is_not_extended_by_other_images(network, images, tmp_path, fill):
    asked = protocol(fill=fill)
    faithmap.evaluate(network, images[:3], {"edges": edges}, asked, tmp_path)
    with pytest.raises(StoreError, match=r"changed: fill: \w+:"):
        faithmap.evaluate(network, images, {"edges": edges}, asked, tmp_path)


def test_segments_from_files(network, images, tmp_path):
    random = np.random.default_rng(0)
    for image in images[:4]:
        np.save(tmp_path / f"{image.id}.npy", random.integers(-1, 9, (SIZE, SIZE)))
    np.save(tmp_path / "4.npy", np.zeros((3, 3), dtype=np.int64))
    asked = protocol(placement="segment", segments=f"folder:{tmp_path}")
    run = faithmap.evaluate(network, images, {"edges": edges}, asked)
    assert run.scores().image.nunique() == 4
    assert "label map of image '4' is (3, 3)" in run.skipped[0].reason
    before = resolve_segments(f"folder:{tmp_path}")
    np.save(tmp_path / "4.npy", np.zeros((SIZE, SIZE), dtype=np.int64))
    assert resolve_segments(f"folder:{tmp_path}") != before
    assert resolve_segments(before) != before


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"placement": "segment"}, "segments are not named"),
        ({"placement": "segment", "segments": "slik"}, "segments is 'slik'"),
        ({"placement": "segment", "segments": "slic:n=0"}, "'n=0' is not understood"),
        ({"placement": "segment", "segments": "folder:/nowhere"}, "there is no folder /nowhere"),
        ({"placement": "centre", "steps": "all"}, "differs from image to image"),
        ({"fill": "blr"}, "did you mean 'blur'"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_any_work(network, images, parts, message):
    with pytest.raises(ProtocolError, match=message):
        faithmap.evaluate(network, images, {"edges": edges}, protocol(**parts))


def test_resolved_names_are_stable(network, images):
    others = PixelSource(images, network.preprocessing)
    for fill in ("swap", "constant:dataset-mean", "dirichlet"):
        assert resolve_fill(resolve_fill(fill, others), others) == resolve_fill(fill, others)


def test_the_right_order_of_a_linear_network_is_found():
    """f(x) = Σ w·x with one known weight a cell and fill 0: removing cell c costs 25 w_c, so the curve is known."""
    weights = torch.tensor([[3.0, -1.0, 0.5], [7.0, 2.0, -4.0], [0.0, 1.0, 5.0]])
    linear = torch.nn.Linear(3 * 15 * 15, 2, bias=False)
    with torch.no_grad():
        linear.weight.zero_()
        linear.weight[0] = weights.repeat_interleave(5, 0).repeat_interleave(5, 1).expand(3, 15, 15).flatten() / 3
    classifier = faithmap.Classifier(
        torch.nn.Sequential(torch.nn.Flatten(), linear), preprocessing=faithmap.Preprocessing((15, 15), None)
    )
    images = faithmap.load_images(torch.ones(1, 3, 15, 15))
    asked = faithmap.Protocol.preset(
        steps="all", region_size=5, fill="constant:0,0,0", draws=1, orders=("morf", "lerf")
    )

    def input_times_gradient(inputs, targets):
        return inputs * linear.weight.view(2, 3, 15, 15)[targets]

    run = faithmap.evaluate(classifier, images, {"right": input_times_gradient}, asked)
    scores = run.scores().query("method == 'right'").sort_values("step")
    for order, ranked in (("morf", [7, 5, 3, 2, 1, 0.5, 0, -1, -4]), ("lerf", [-4, -1, 0, 0.5, 1, 2, 3, 5, 7])):
        curve = [25 * sum(ranked[k:]) for k in range(10)]
        np.testing.assert_allclose(scores[scores.order == order].logit, curve, rtol=1e-5, atol=1e-3)
    step = run.removal_step(run.examples()[0], "right")[::5, ::5]
    assert step.tolist() == [[3, 8, 6], [1, 4, 9], [7, 5, 2]]
    # No order has a larger AOPC under MoRF: each curve is a sum of the largest possible drops.
    random = run.scores().query("method == 'random'").sort_values("step").logit.to_numpy()[:10]
    right = scores[scores.order == "morf"].logit.to_numpy()
    assert (right <= random + 1e-3).all()


def test_a_film_strip_starts_where_the_curve_starts(network, images, tmp_path):

    for direction in ("remove", "restore"):
        asked = protocol(fill="constant:0,0,0", direction=direction)
        run = faithmap.evaluate(network, images, {"edges": edges}, asked, tmp_path / direction)
        axes = run.figure("steps")
        first = axes[0][0].images[0].get_array()
        assert (abs(first).sum() == 0) == (direction == "restore")
        last = axes[0][-1].images[0].get_array()
        black = (last == 0).all(-1).mean() - (first == 0).all(-1).mean()
        assert black > 0 if direction == "remove" else black < 0
    run = faithmap.evaluate(network, images, {"edges": edges}, protocol(fill="noisy-linear"), tmp_path / "imputed")
    with pytest.raises(faithmap.FaithmapError, match="choose another figure"):
        run.figure("steps")
