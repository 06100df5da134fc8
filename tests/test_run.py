"""Whole runs: against a brute-force twin, extended, resumed, and with bad images."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import faithmap
from faithmap.errors import FaithmapError, RegionError, StoreError
from faithmap.experiment.planning import images_of_task, missing_steps
from faithmap.run import Run
from tests.reference.experiment import aopc_twin, network_twin, noise_twin, scores_twin

SIZE = 24


def edges(inputs, targets):
    """A heatmap of its own for every image."""
    return (inputs - inputs.roll(1, -1)).abs()


def signed(inputs, targets):
    return inputs.sum(1) * (targets + 1).view(-1, 1, 1)


METHODS = {"edges": edges, "signed": signed}


@pytest.fixture
def network(tiny):
    tiny.preprocessing = faithmap.Preprocessing(crop=(SIZE, SIZE), resize=None)
    return tiny


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    path = tmp_path / "images"
    for name in ("0/a", "0/b", "1/c", "3/d d", "4/e"):
        file = path / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)).save(file)
    return path


def protocol(**overrides):
    return faithmap.Protocol.preset(**({"steps": 4, "region_size": 5, "draws": 2, "seed": 3} | overrides))


def same(a: pd.DataFrame, b: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(a, b, check_exact=False, rtol=1e-6, atol=1e-7, check_categorical=False)


@pytest.mark.parametrize("placement", ["grid", "centre"])
def test_a_whole_run_equals_brute_force(network, folder, placement):
    run = faithmap.evaluate(network, folder, METHODS, protocol(placement=placement))
    scores = run.scores()
    assert len(scores) == 5 * 3 * 2 * 5
    forward = network_twin(network.module, network.mean, network.std)
    for image in run.manifest.images:
        pixels = np.array(Image.open(folder / image)).transpose(2, 0, 1).astype(np.float32) / 255
        logits = forward(pixels)
        target = logits.index(max(logits))
        inputs = network.normalise(torch.from_numpy(pixels)[None])
        for method, of in METHODS.items():
            heatmap = of(inputs, torch.tensor([target]))[0]
            heatmap = heatmap.sum(0) if heatmap.ndim == 3 else heatmap
            for draw in (0, 1):
                fill = noise_twin(("fill", 3, image, draw), (3, SIZE, SIZE))
                expected = scores_twin(forward, pixels, target, heatmap.double().tolist(), fill, 4, 5, placement)
                rows = scores[(scores.image == image) & (scores.method == method) & (scores.draw == draw)]
                assert rows.step.tolist() == [0, 1, 2, 3, 4]
                assert (rows.target == target).all()
                np.testing.assert_allclose(rows[["logit", "probability"]], expected, rtol=1e-5, atol=1e-5)
                curve = torch.tensor(rows.logit.to_numpy())
                np.testing.assert_allclose(faithmap.aopc(curve), aopc_twin(rows.logit.tolist()), atol=1e-5)


def test_examples_rebuild_the_curves_that_were_stored(network, folder):
    run = faithmap.evaluate(network, folder, METHODS, protocol(orders=("morf", "lerf"), paired_fill=False))
    examples = run.examples()
    assert {example.image for example in examples} == set(run.manifest.images)
    stored = run.scores().set_index(["image", "method", "order", "draw", "step"]).logit
    for example in examples:
        for method in ("edges", "signed", "random"):
            for order in ("morf", "lerf"):
                removal_step = run.removal_step(example, method, order, draw=1)
                fill = run.fill(example, draw=1, method=method)
                logits, _ = faithmap.score_curves(
                    network,
                    example.pixels[None],
                    torch.tensor([example.target]),
                    removal_step[None],
                    fill[None],
                    engine="dense",
                )
                expected = stored[example.image, method, order, 1].to_numpy()
                np.testing.assert_allclose(logits[0], expected, rtol=1e-5, atol=1e-6)


def test_random_orders_differ_between_draws(network, folder):
    run = faithmap.evaluate(network, folder, METHODS, protocol())
    example = run.examples()[0]
    first, second = (run.removal_step(example, "random", draw=draw) for draw in (0, 1))
    assert not torch.equal(first, second)


def test_a_folder_is_extended_by_what_is_missing(network, folder, tmp_path):
    whole = faithmap.evaluate(network, folder, METHODS, protocol(orders=("morf", "lerf")), tmp_path / "whole")
    images = faithmap.load_images(folder)
    out = tmp_path / "grown"
    faithmap.evaluate(network, images[:2], {"edges": edges}, protocol(steps=2, draws=1), out)
    faithmap.evaluate(network, images[1:], {"edges": edges}, protocol(steps=2, draws=1), out)
    faithmap.evaluate(network, images, METHODS, protocol(steps=2, draws=1), out)
    faithmap.evaluate(network, images, METHODS, protocol(steps=4, draws=1), out)
    grown = faithmap.evaluate(network, images, METHODS, protocol(orders=("morf", "lerf")), out)
    same(grown.scores(), whole.scores())
    counted = []
    faithmap.evaluate(network, images, METHODS, protocol(orders=("morf", "lerf")), out, progress=counted.append)
    assert not counted  # nothing is computed twice
    assert Run(out).protocol == whole.protocol


def test_a_tensor_whose_images_have_other_names_is_refused(network, tmp_path):
    pixels, out = torch.rand(12, 3, SIZE, SIZE), tmp_path / "grown"
    faithmap.evaluate(network, pixels[:5], {"edges": edges}, protocol(draws=1), out)
    grown = faithmap.evaluate(network, pixels[:8], {"edges": edges}, protocol(draws=1), out)
    assert grown.scores().image.nunique() == 8
    with pytest.raises(StoreError, match="called like '0', these are called like '00'"):
        faithmap.evaluate(network, pixels, {"edges": edges}, protocol(draws=1), out)
    assert Run(out).scores().image.nunique() == 8


def test_a_lost_part_is_computed_again(network, folder, tmp_path):
    run = faithmap.evaluate(network, folder, METHODS, protocol(), tmp_path / "run")
    before = run.scores()
    part = run.folder / run.store.parts()[0]
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(StoreError, match="damaged"):
        run.scores()
    with pytest.warns(UserWarning, match=f"{part.name} is damaged: set aside"):
        again = faithmap.evaluate(network, folder, METHODS, protocol(), tmp_path / "run")
    same(again.scores(), before)


def test_steps_that_are_lost_in_the_middle_are_filled_in(network, folder, tmp_path):
    out = tmp_path / "run"
    for steps in (1, 3, 4):
        run = faithmap.evaluate(network, folder, METHODS, protocol(steps=steps, draws=1), out)
    before = run.scores()
    for part in run.store.parts():
        if set(run.store.frame(parts=[part]).step) == {2, 3}:
            (run.folder / part).unlink()
    same(faithmap.evaluate(network, folder, METHODS, protocol(draws=1), out).scores(), before)


def test_missing_steps():
    assert missing_steps([range(3), range(5, 6)], range(8)) == (3, 4, 6, 7)
    assert missing_steps([], range(3)) == (0, 1, 2)
    assert missing_steps([range(9), range(2)], range(5)) == ()
    assert missing_steps([range(2), range(4, 9)], (0, 3, 7, 10)) == (3, 10)


def test_another_question_in_the_same_folder_is_refused(network, folder, tmp_path):
    faithmap.evaluate(network, folder, METHODS, protocol(), tmp_path / "run")
    with pytest.raises(StoreError, match=r"changed: fill: uniform → uniform-grey.*choose a new folder"):
        faithmap.evaluate(network, folder, METHODS, protocol(fill="uniform-grey"), tmp_path / "run")
    with torch.no_grad():
        network.module.head.bias += 1
    with pytest.raises(StoreError, match="classifier fingerprint"):
        faithmap.evaluate(network, folder, METHODS, protocol(), tmp_path / "run")


def test_bad_images_and_heatmaps_are_skipped_and_named(network, folder, tmp_path):
    (folder / "0" / "broken.png").write_bytes(b"no picture")

    def sometimes_constant(inputs, targets):
        heat = inputs.sum(1)
        heat[heat[:, 0, 0] == heat[:, 0, 0].max()] = 1.0
        return heat

    good = faithmap.evaluate(network, folder, {"edges": edges}, protocol(draws=1)).scores()
    run = faithmap.evaluate(
        network, folder, {"edges": edges, "flaky": sometimes_constant}, protocol(draws=1), tmp_path / "run"
    )
    by_image = {(one.image, one.method): one.reason for one in run.skipped}
    assert "not an image" in by_image.pop(("0/broken.png", None))
    ((image, method),) = by_image
    assert method == "flaky"
    assert "constant" in by_image[image, method]
    scores = run.scores()
    assert scores.query("method == 'flaky'").image.nunique() == 4
    same(
        scores.query("method == 'edges'").reset_index(drop=True), good.query("method == 'edges'").reset_index(drop=True)
    )
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["skipped"]
    (folder / "0" / "broken.png").unlink()
    Image.new("RGB", (SIZE, SIZE), "red").save(folder / "0" / "broken.png")


def test_an_image_on_which_the_network_is_not_finite_is_skipped(network, folder):
    pixels = torch.rand(4, 3, SIZE, SIZE)

    class Explodes(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            bad = (x[:, 0, 0, 0] > 100).view(-1, 1)
            return torch.where(bad, torch.nan, self.inner(x))

    classifier = faithmap.Classifier(Explodes(network.module))
    run = faithmap.evaluate(classifier, pixels, {"edges": edges}, protocol())
    assert not run.skipped
    with torch.no_grad():
        classifier.std = (1.0, 1.0, 1.0)
        classifier.mean = (-1000.0 * (pixels[2, 0, 0, 0] > 0).item(), 0, 0)
    with pytest.raises(FaithmapError, match=r"not one image could be measured: .*not finite"):
        faithmap.evaluate(classifier, pixels, {"edges": edges}, protocol())


def test_labels_come_from_folders(network, folder):
    run = faithmap.evaluate(network, folder, METHODS, protocol(target="label"))
    targets = run.scores().groupby("image").target.first().to_dict()
    assert targets == {"0/a.png": 0, "0/b.png": 0, "1/c.png": 1, "3/d d.png": 3, "4/e.png": 4}


def test_an_image_without_a_label_is_skipped_when_labels_are_scored(network, folder):
    Image.new("RGB", (SIZE, SIZE), "red").save(folder / "flat.png")
    run = faithmap.evaluate(network, folder, METHODS, protocol(target="label"))
    assert [(one.image, "true class is not known" in one.reason) for one in run.skipped] == [("flat.png", True)]


def test_regions_that_do_not_fit_are_refused_before_any_work(network, folder):
    with pytest.raises(RegionError, match="16 regions of 5 pixels fit into 24×24, 100 steps"):
        faithmap.evaluate(network, folder, METHODS, protocol(steps=100))


def test_stored_heatmaps_are_used_by_another_protocol(network, folder, tmp_path):
    calls = tmp_path / "calls"  # a list would be part of what the function holds, and make it another one

    def counted(inputs, targets):
        with open(calls, "a") as file:
            file.write("once\n")
        return edges(inputs, targets)

    first = faithmap.evaluate(network, folder, {"edges": counted}, protocol(), tmp_path / "a", save_heatmaps=True)
    before = calls.read_text()
    assert before
    second = faithmap.evaluate(
        network, folder, {"edges": counted}, protocol(region_size=4), tmp_path / "b", heatmaps_from=tmp_path / "a"
    )
    assert calls.read_text() == before
    assert len(second.scores()) == len(first.scores())
    # Another class is another heatmap.
    faithmap.evaluate(
        network, folder, {"edges": counted}, protocol(target="label"), tmp_path / "c", heatmaps_from=tmp_path / "a"
    )
    assert len(calls.read_text()) > len(before)


def test_batches_do_not_show(network, folder):
    one = faithmap.evaluate(network, folder, METHODS, protocol(), batch_size=1).scores()
    other = faithmap.evaluate(network, faithmap.load_images(folder)[::-1], METHODS, protocol(), batch_size=64).scores()
    same(one, other)


def test_tasks_are_as_large_as_the_workers_allow():
    assert images_of_task(1000, "cpu", {"workers": 1}) == 16
    assert images_of_task(1000, "cpu", {"workers": 8}) == 16
    assert images_of_task(100, "cpu", {"workers": 4}) == 8
    assert images_of_task(3, "cuda", {"workers": 1}) == 64
    assert images_of_task(50_000, "cpu", {"workers": 64, "device": "H100"}) == 64
    assert images_of_task(5_000, "cpu", {"workers": 64, "device": "H100"}) == 19
