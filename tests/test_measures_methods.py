"""Measures that compute heatmaps anew: robustness and randomisation, against captum and Quantus."""

from functools import partial

import numpy as np
import pytest
import torch
from captum.metrics import sensitivity_max

import faithmap
from faithmap.attribution import Batch, batch_heatmaps, resolve_methods
from faithmap.errors import MeasureError
from faithmap.measures import randomisation, robustness
from faithmap.measures.adapters import _pixels
from faithmap.measures.randomisation import forward_order, histogram_entropy, redraw_layers, stage_counts
from tests.conftest import TinyNet
from tests.reference import measures as twin
from tests.test_measures import heatmaps_of, pixels, subject

METHODS = resolve_methods("gradient-x-input,sensitivity,edge")[:3]


def maps_of(one, methods=METHODS):
    found = heatmaps_of(one, methods)
    return {method: found[method.name] for method in methods}


def test_max_sensitivity_equals_captum(tiny):
    whole = subject(tiny)
    found = robustness.max_sensitivity_of_methods(whole, maps_of(whole), n=4, radius=0.05)
    for row in range(3):
        noisy = robustness.noisy_copies(whole, row, 4, 0.05)
        assert float((noisy - whole.pixels[row]).abs().max()) <= 0.05
        assert float(noisy.min()) >= 0
        assert float(noisy.max()) <= 1
        perturbed = tiny.normalise(noisy)
        for method in METHODS:

            def explain(inputs, method=method, row=row):
                given = inputs[0] if isinstance(inputs, tuple) else inputs
                targets = whole.targets[row].repeat(len(given))
                return (faithmap.heatmaps(tiny, _pixels(tiny, given), targets, method),)

            expected = sensitivity_max(
                explain,
                tiny.normalise(whole.pixels[row, None]),
                perturb_func=partial(lambda noisy, inputs: noisy, perturbed),
                n_perturb_samples=4,
            )
            assert found[method.name, row] == pytest.approx(float(expected), rel=1e-4)


def test_max_sensitivity_of_known_maps():
    heatmap = torch.tensor([[3.0, 4.0]])
    noisy = torch.tensor([[[3.0, 4.0]], [[3.0, 9.0]], [[4.0, 4.0]]])
    assert float(robustness.max_sensitivity(heatmap, noisy)) == pytest.approx(1.0)
    assert float(robustness.max_sensitivity(heatmap * 1e-30, noisy * 1e-30)) == pytest.approx(1.0)
    assert robustness.max_sensitivity(heatmap * 0, noisy).isnan()


class Keyed(TinyNet):
    """A network whose layers, when they reset themselves, depend on their names alone, whoever asks."""

    def __init__(self):
        super().__init__()
        for key, name in enumerate(("features.0", "features.3", "head")):
            layer = self.get_submodule(name)
            layer.reset_parameters = lambda layer=layer, key=key: self.draw(layer, key)

    @staticmethod
    def draw(layer, key):
        generator = torch.Generator().manual_seed(100 + key)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)


def keyed_case():
    net = Keyed()
    # The closures of a copied network must reset the copy.
    net.__class__.__deepcopy__ = lambda self, memo: copied(self)
    return faithmap.Classifier(net, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))


def copied(net):
    other = Keyed()
    other.load_state_dict(net.state_dict())
    return other.train(net.training)


def quantus_says(metric, whole, method, maps, softmax=False):
    """A metric of Quantus on the same network, images and heatmaps, with the same method."""
    classifier = whole.classifier

    def explain(model, inputs, targets, **_):
        other = faithmap.Classifier(model, mean=classifier.mean, std=classifier.std)
        given = _pixels(other, torch.as_tensor(inputs, dtype=torch.float32))
        batch = Batch.of(other, given, torch.as_tensor(np.asarray(targets)).long())
        found = batch_heatmaps(method, batch)
        return found.unsqueeze(1).numpy()

    found = metric(
        model=classifier.module.eval(),
        x_batch=classifier.normalise(whole.pixels).numpy(),
        y_batch=whole.targets.numpy(),
        a_batch=torch.stack(list(maps[method].values())).unsqueeze(1).numpy(),
        explain_func=explain,
        channel_first=True,
        softmax=softmax,
        device="cpu",
    )
    return [float(v) for v in np.asarray(found).ravel()]


@pytest.mark.parametrize("order", ["top_down", "bottom_up"])
def test_cascading_randomisation_equals_quantus(order):
    quantus = pytest.importorskip("quantus")
    whole = subject(keyed_case())
    maps = maps_of(whole)
    measure = randomisation.randomisation_top_down if order == "top_down" else randomisation.randomisation_bottom_up
    found = measure(whole, maps, n=1, noise=0.1, stages=0)
    for method in METHODS:
        metric = quantus.MPRT(layer_order=order, return_average_correlation=True, disable_warnings=True)
        # Quantus counts the trained network itself among the stages, with a correlation of 1.
        expected = [(4 * value - 1) / 3 for value in quantus_says(metric, whole, method, maps)]
        assert [found[method.name, row] for row in range(3)] == pytest.approx(expected, abs=1e-5)
    # The last stage alone: all layers drawn anew.
    last = measure(whole, maps, n=1, noise=0.1, stages=1)
    metric = quantus.MPRT(layer_order=order, return_last_correlation=True, disable_warnings=True)
    expected = quantus_says(metric, whole, METHODS[0], maps)
    assert [last[METHODS[0].name, row] for row in range(3)] == pytest.approx(expected, abs=1e-5)


def test_rise_of_the_entropy_equals_quantus():
    quantus = pytest.importorskip("quantus")
    whole = subject(keyed_case())
    maps = maps_of(whole)
    found = randomisation.randomisation_complexity(whole, maps)
    for method in METHODS:
        metric = quantus.EfficientMPRT(complexity_func_kwargs={"n_bins": 100}, disable_warnings=True)
        expected = quantus_says(metric, whole, method, maps, softmax=True)
        assert [found[method.name, row] for row in range(3)] == pytest.approx(expected, abs=1e-5)


def test_another_class_equals_quantus(tiny, monkeypatch):
    quantus = pytest.importorskip("quantus")
    whole = subject(tiny)
    maps = maps_of(whole)
    found = randomisation.random_logit(whole, maps)
    drawn = [int(whole.generator("random-logit", row).integers(4)) for row in range(3)]
    monkeypatch.setattr(np.random, "randint", lambda *_, **__: np.array(drawn))
    for method in METHODS:
        metric = quantus.RandomLogit(
            num_classes=5, similarity_func=quantus.similarity_func.correlation_spearman, disable_warnings=True
        )
        expected = quantus_says(metric, whole, method, maps)
        assert [found[method.name, row] for row in range(3)] == pytest.approx(expected, abs=1e-5)
    assert found["edge", 0] == 1  # it does not look at the class


def test_the_other_class_is_never_the_explained_one(tiny):
    seen = []

    def records(inputs, targets):
        seen.append(targets.clone())
        return inputs.sum(1)

    images = torch.rand(40, 3, 24, 24, generator=torch.Generator().manual_seed(4))
    whole = subject(tiny, images)
    method = resolve_methods({"records": records})[0]
    randomisation.random_logit(whole, {method: dict(enumerate(images.sum(1)))})
    others = torch.cat(seen)[:40]
    assert not (others == whole.targets).any()
    assert set(others.tolist()) == set(range(5))


def test_cascades_equal_the_definition_with_noisy_copies(tiny):
    whole = subject(tiny)
    method = METHODS[1]
    found = randomisation.randomisation_top_down(whole, {method: maps_of(whole)[method]}, n=2, noise=0.1, stages=2)
    assert stage_counts(3, 2) == [2, 3]
    for row in range(3):
        image = whole.pixels[row]
        normal = whole.generator("randomisation", row).standard_normal((2, *image.shape))
        noisy = image + 0.1 * float(image.max() - image.min()) * torch.from_numpy(normal).float()

        def averaged(classifier, noisy=noisy, row=row):
            batch = Batch.of(classifier, noisy, whole.targets[row].repeat(2))
            return batch_heatmaps(method, batch).mean(0).abs().flatten().tolist()

        trained = averaged(tiny)
        layers = ["head", "features.3", "features.0"]
        each = [twin.spearman(trained, averaged(redraw_layers(tiny, layers[:count]))) for count in (2, 3)]
        assert found[method.name, row] == pytest.approx(twin.mean(each), abs=1e-5)


def test_what_never_looks_at_the_network_is_exposed(tiny):
    whole = subject(tiny)

    def inputs_alone(inputs, targets):
        return inputs.sum(1)

    methods = [resolve_methods({"input": inputs_alone})[0], METHODS[1]]
    maps = maps_of(whole, methods)
    for measure in (randomisation.randomisation_top_down, randomisation.randomisation_bottom_up):
        found = measure(whole, maps, n=1, noise=0.1, stages=0)
        assert [found["input", row] for row in range(3)] == [1, 1, 1]
        assert max(found["sensitivity:l2", row] for row in range(3)) < 0.8
    assert randomisation.randomisation_complexity(whole, maps)["input", 0] == 0


class Shuffled(torch.nn.Module):
    """Runs its layers in another order than it lists them, and a parameter inside attention that is never called."""

    def __init__(self):
        super().__init__()
        self.last = torch.nn.Linear(12, 4)
        self.attention = torch.nn.MultiheadAttention(12, 2, batch_first=True)
        self.first = torch.nn.Conv2d(3, 12, 4, stride=4)
        self.unused = torch.nn.Linear(2, 2)

    def forward(self, x):
        tokens = self.first(x).flatten(2).transpose(1, 2)
        mixed, _ = self.attention(tokens, tokens, tokens)
        return self.last(mixed.mean(1))


def test_layers_stand_in_the_order_in_which_the_network_runs_them():
    classifier = faithmap.Classifier(Shuffled())
    assert forward_order(classifier, pixels(1)) == ["first", "attention", "attention.out_proj", "last", "unused"]
    bare = faithmap.Classifier(torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()))
    with pytest.raises(MeasureError, match="no layer with weights"):
        forward_order(bare, pixels(1))


def test_draws_of_weights_are_keyed_and_leave_the_network_alone(tiny):
    before = {name: value.clone() for name, value in tiny.module.state_dict().items()}
    one, again = (redraw_layers(tiny, ["head"], seed=1, draw=2) for _ in range(2))
    assert torch.equal(one.module.head.weight, again.module.head.weight)
    assert not torch.equal(one.module.head.weight, redraw_layers(tiny, ["head"], 1, 3).module.head.weight)
    assert torch.equal(one.module.features[0].weight, before["features.0.weight"])
    assert all(torch.equal(value, before[name]) for name, value in tiny.module.state_dict().items())


def test_entropy_of_a_histogram():
    heatmap = torch.randn(9, 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert histogram_entropy(heatmap) == pytest.approx(twin.histogram_entropy(heatmap.flatten().tolist(), 100))
    assert stage_counts(26, 0) == list(range(1, 27))
    assert stage_counts(26, 5) == [5, 10, 16, 21, 26]
    assert stage_counts(2, 5) == [1, 2]
