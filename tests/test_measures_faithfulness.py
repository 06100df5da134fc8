"""Measures that remove pixels, against captum, Quantus and plain loops on the same network, maps and draws."""

import numpy as np
import pytest
import torch
from captum.metrics import infidelity as captum_infidelity

import faithmap
from faithmap.measures import faithfulness
from faithmap.measures.completeness import completeness
from faithmap.measures.faithfulness import grid, squares, subset_sizes, subsets
from faithmap.perturbation.segments import segment
from tests.reference import measures as twin
from tests.test_measures import heatmaps_of, subject

METHODS = faithmap.attribution.resolve_methods("gradient-x-input,sensitivity")[:2]


def one_image(classifier, row=0):
    whole = subject(classifier)
    maps = torch.stack([maps[row] for maps in heatmaps_of(whole, METHODS).values()])
    return whole.row(row), maps


def logit_of(one):
    """The class logit of an image given as nested lists."""

    def logit(image):
        with torch.no_grad():
            return float(one.classifier(torch.tensor(image).unsqueeze(0))[0, one.targets[0]])

    return logit


def drops_by_hand(one, removed, fill):
    logit, image = logit_of(one), one.pixels[0].tolist()
    return [logit(image) - twin.removed_score(logit, image, mask, fill.tolist()) for mask in removed.tolist()]


def relevance_by_hand(heatmaps, removed):
    return [[twin.relevance(h, mask) for mask in removed.tolist()] for h in heatmaps.tolist()]


@pytest.mark.parametrize("scaled", [True, False])
def test_infidelity_equals_captum(tiny, scaled):
    one, maps = one_image(tiny)
    removed = squares(one.size, 12, 0.3, one.generator("infidelity"))
    relevance = faithfulness.relevance_of(maps, removed)
    drops = one.drops(removed, one.mean_colour)
    inputs = tiny.normalise(one.pixels)

    def perturb(inputs):
        mask = removed.unsqueeze(1).expand(-1, 3, -1, -1).float()
        return mask, inputs * (1 - mask)

    for heatmap, mine in zip(maps, relevance, strict=True):
        attributions = (heatmap / 3).expand(1, 3, -1, -1)
        expected = captum_infidelity(
            tiny.logits, perturb, inputs, attributions, target=one.targets, n_perturb_samples=12, normalize=scaled
        )
        assert float(faithfulness.infidelity(mine, drops, scaled=scaled)) == pytest.approx(float(expected), rel=1e-4)
    if scaled:
        found = faithfulness.infidelity_of_squares(one, maps, n=12, side=0.3)
        assert found.tolist() == pytest.approx([float(faithfulness.infidelity(r, drops)) for r in relevance])
        # The unit of a heatmap does not matter, however small.
        tiny_unit = faithfulness.infidelity_of_squares(one, maps.double() * 1e-200, n=12, side=0.3)
        assert tiny_unit.tolist() == pytest.approx(found.tolist(), rel=1e-6)


@pytest.mark.filterwarnings("ignore::faithmap.errors.EngineWarning")
def test_a_heatmap_of_the_true_effects_is_faithful_by_all_of_them(tiny):
    # A linear network: the drop of a set of pixels is the sum of their contributions.
    linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 24 * 24, 4))
    classifier = faithmap.Classifier(linear, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
    one = subject(classifier).row(0)
    weight = linear[1].weight[int(one.targets[0])].detach().view(3, 24, 24)
    true = (weight * classifier.normalise(one.pixels)[0]).sum(0)
    maps = torch.stack([true, -true, true.flip(0)])
    assert faithfulness.infidelity_of_squares(one, maps, n=20, side=0.2)[0] == pytest.approx(0, abs=1e-8)
    for found in (
        faithfulness.sensitivity_n(one, maps, sizes=4, n=10, cell=4),
        faithfulness.faithfulness_correlation(one, maps, n=20, part=0.2, cell=4),
    ):
        assert found[0] == pytest.approx(1, abs=1e-5)
        assert found[1] == pytest.approx(-1, abs=1e-5)
        assert abs(found[2]) < 0.9


def test_infidelity_equals_the_definition_with_random_squares_of_its_own(tiny):
    one, maps = one_image(tiny, 1)
    removed = squares(one.size, 6, 0.2, one.generator("infidelity"))
    assert removed.sum((1, 2)).tolist() == [25] * 6  # 0.2 of 24 pixels
    drops = drops_by_hand(one, removed, one.mean_colour)
    found = faithfulness.infidelity_of_squares(one, maps, n=6, side=0.2)
    for value, sums in zip(found.tolist(), relevance_by_hand(maps, removed), strict=True):
        beta = sum(a * b for a, b in zip(sums, drops, strict=True)) / sum(a * a for a in sums)
        error = twin.mean([(beta * a - b) ** 2 for a, b in zip(sums, drops, strict=True)])
        assert value == pytest.approx(error, rel=1e-4)


@pytest.mark.parametrize("scaled", [True, False])
def test_infidelity_with_gaussian_noise_equals_captum_on_the_same_draws(tiny, scaled):
    one, maps = one_image(tiny)
    noise = 0.3 * torch.from_numpy(one.generator("infidelity").standard_normal((20, 24, 24))).float()

    def perturb(inputs):
        given = noise.unsqueeze(1).expand(-1, 3, -1, -1)
        return given, inputs - given

    drops = faithfulness.drops_under(one, noise)
    found = faithfulness.infidelity_of_squares(one, maps, n=20, side=0.2, noise=0.3).tolist()
    for place, heatmap in enumerate(maps):
        expected = captum_infidelity(
            tiny.logits, perturb, tiny.normalise(one.pixels), (heatmap / 3).expand(1, 3, -1, -1),
            target=one.targets, n_perturb_samples=20, normalize=scaled,
        )  # fmt: skip
        mine = faithfulness.relevance_of(heatmap[None], noise)[0]
        assert float(faithfulness.infidelity(mine, drops, scaled=scaled)) == pytest.approx(float(expected), rel=1e-4)
        if scaled:
            assert found[place] == pytest.approx(float(expected), rel=1e-4)
    # A draw of its own for every number of the key; more variants keep the first ones' scores.
    assert torch.equal(faithfulness.drops_under(one, noise[:3]), drops[:3])


def test_irof_equals_the_definition(tiny):
    one, maps = one_image(tiny)
    labels = segment("slic:n=9,compactness=1", one.pixels[0], one.ids[0]).tolist()
    found = faithfulness.irof(one, torch.cat([maps, torch.zeros(1, 24, 24)]), n=9, compactness=1.0)
    image, mean = one.pixels[0].tolist(), one.mean_colour.tolist()

    def probability(pixels):
        with torch.no_grad():
            return float(one.classifier(torch.tensor(pixels).unsqueeze(0)).softmax(1)[0, one.targets[0]])

    for heatmap, value in zip([*maps.tolist(), [[0.0] * 24] * 24], found.tolist(), strict=True):
        assert value == pytest.approx(twin.irof(probability, image, heatmap, labels, mean), abs=1e-5)
    regression = subject(faithmap.Classifier(tiny.module, score="identity")).row(0)
    with pytest.raises(faithmap.errors.MeasureError, match="no probability"):
        faithfulness.irof(regression, maps, n=9, compactness=1.0)


def test_sensitivity_n_equals_the_definition(tiny):
    one, maps = one_image(tiny)
    labels, random = grid(one.size, 4), one.generator("sensitivity-n")
    sizes = subset_sizes(36, 3)
    assert sizes == [1, 5, 28]  # 80 % of 36 cells, evenly spaced on a logarithmic scale
    drawn = [subsets(labels, size, 5, random) for size in sizes]
    assert [int(mask.sum()) for masks in drawn for mask in masks] == [16] * 5 + [80] * 5 + [448] * 5
    drops = [drops_by_hand(one, masks, one.mean_colour) for masks in drawn]
    found = faithfulness.sensitivity_n(one, maps, sizes=3, n=5, cell=4)
    for at, heatmap in enumerate(maps):
        sums = [relevance_by_hand(heatmap.unsqueeze(0), masks)[0] for masks in drawn]
        assert float(found[at]) == pytest.approx(twin.sensitivity_n(list(zip(drops, sums, strict=True))), abs=1e-5)
    flat = faithfulness.sensitivity_n(one, torch.ones(1, 24, 24), sizes=3, n=5, cell=4)
    assert flat.tolist() == [0.0]


def test_faithfulness_correlation_equals_quantus(tiny, monkeypatch):
    quantus = pytest.importorskip("quantus")
    one, maps = one_image(tiny)
    labels = grid(one.size, 4)
    removed = subsets(labels, 7, 10, one.generator("faithfulness-correlation"))  # 0.2 of 36 cells
    plane = 24 * 24
    # Quantus draws single values of single channels; here it is told to take whole cells.
    drawn = iter(
        [np.concatenate([mask.flatten().nonzero().squeeze(1) + c * plane for c in range(3)]) for mask in removed]
    )
    monkeypatch.setattr(np.random, "choice", lambda *_, **__: next(drawn))
    metric = quantus.FaithfulnessCorrelation(
        nr_runs=10, subset_size=1, perturb_baseline=0.0, normalise=False, return_aggregate=False, disable_warnings=True
    )
    for at, heatmap in enumerate(maps):
        if at:
            drawn = iter(
                [np.concatenate([m.flatten().nonzero().squeeze(1) + c * plane for c in range(3)]) for m in removed]
            )
        expected = metric(
            model=tiny.module.eval(),
            x_batch=tiny.normalise(one.pixels).numpy(),
            y_batch=one.targets.numpy(),
            a_batch=heatmap[None, None].numpy(),
            softmax=False,
            channel_first=True,
            device="cpu",
        )
        found = faithfulness.faithfulness_correlation(one, heatmap.unsqueeze(0), n=10, part=0.2, cell=4)
        assert float(found[0]) == pytest.approx(float(expected[0]), abs=1e-5)


def test_single_regions_are_correlated_with_their_relevance(tiny):
    one, maps = one_image(tiny, 2)
    labels = grid(one.size, 6)
    cells = torch.stack([labels == at for at in range(16)])
    fills = [
        faithmap.draw_fill("uniform", one.pixels[0], seed=one.seed, image_id=one.ids[0], draw=draw) for draw in (0, 1)
    ]
    drops = [drops_by_hand(one, cells, fill) for fill in fills]
    sums = relevance_by_hand(maps, cells)
    effect = faithfulness.region_effect(one, maps, n=2, cell=6)
    expected = [twin.mean(pair) for pair in zip(*drops, strict=True)]
    assert effect.tolist() == pytest.approx([twin.spearman(s, expected) for s in sums], abs=1e-5)
    squared = [twin.mean([d * d for d in pair]) for pair in zip(*drops, strict=True)]
    found = faithfulness.monotonicity(one, maps, n=2, cell=6)
    assert found.tolist() == pytest.approx([twin.spearman([abs(v) for v in s], squared) for s in sums], abs=1e-5)


def test_drop_and_increase_equal_the_definition(tiny):
    one, maps = one_image(tiny)
    image, target = one.pixels[0].tolist(), int(one.targets[0])

    def probability(picture):
        with torch.no_grad():
            return float(tiny(torch.tensor(picture).unsqueeze(0)).softmax(1)[0, target])

    whole, drops, rises = probability(image), [], []
    for heatmap in maps.tolist():
        most = max(max(row) for row in heatmap)
        seen = [
            [
                [v * max(r, 0) / most for v, r in zip(row, own, strict=True)]
                for row, own in zip(plane, heatmap, strict=True)
            ]
            for plane in image
        ]
        drops.append(100 * max(0, whole - probability(seen)) / whole)
        rises.append(100.0 if whole < probability(seen) else 0.0)
    assert faithfulness.average_drop(one, maps).tolist() == pytest.approx(drops, abs=1e-3)
    assert faithfulness.average_increase(one, maps).tolist() == rises


def test_completeness_is_the_error_of_the_promised_sum(tiny):
    whole = subject(tiny)
    names = "integrated-gradients:n=64,lrp-epsilon:0,integrated-gradients:n=64,reference=black"
    methods = faithmap.attribution.resolve_methods(names)[:3]
    maps = {method: heatmaps_of(whole, [method])[method.name] for method in methods}
    found = completeness(whole, maps)
    with torch.no_grad():
        logit = tiny(whole.pixels)[0, whole.targets[0]]
        nothing = tiny.logits(torch.zeros(1, 3, 24, 24))[0, whole.targets[0]]
        black = tiny(torch.zeros(1, 3, 24, 24))[0, whole.targets[0]]
    for method, promised in zip(methods, (logit - nothing, logit, logit - black), strict=True):
        total = maps[method][0].double().sum()
        assert found[method.name, 0] == pytest.approx(float(abs(total - promised) / abs(promised)), abs=1e-5)
    assert found[methods[0].name, 0] < 0.05  # integrated gradients keep their promise


def test_grids_and_squares():
    labels = grid((7, 9), 3)
    assert labels.max() == 5
    assert labels[6].tolist() == [-1] * 9
    assert labels[3].tolist() == [3, 3, 3, 4, 4, 4, 5, 5, 5]
    with pytest.raises(faithmap.FaithmapError, match=r"1 regions of 16 pixels fit into 24×24.*cell=6"):
        grid((24, 24), 16)
    wide = grid((4, 12), 4)
    assert wide.max() == 2
    inside = squares((10, 30), 50, 0.5, np.random.default_rng(0))
    assert inside.sum((1, 2)).tolist() == [25] * 50
    assert inside.any(0).float().mean() > 0.8  # they fall everywhere
    picked = subsets(grid((8, 8), 2), 3, 40, np.random.default_rng(1))
    assert picked.sum((1, 2)).tolist() == [12] * 40
    assert subset_sizes(5, 8) == [1, 2, 3, 4]


@pytest.mark.filterwarnings("ignore::faithmap.errors.EngineWarning")
def test_perturbed_images_are_scored_once_for_all_methods(tiny):
    one, maps = one_image(tiny)
    counted = []
    handle = tiny.module.register_forward_hook(lambda module, inputs, output: counted.append(len(inputs[0])))
    try:
        faithfulness.infidelity_of_squares(one, maps, n=20, side=0.2)
        first = sum(counted)
        faithfulness.infidelity_of_squares(one, maps, n=20, side=0.2)
        assert sum(counted) == first
    finally:
        handle.remove()
