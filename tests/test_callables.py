"""Methods that a user brings: their names, their identity, captum's and zennit's objects with arguments."""

import functools
import os
import subprocess
import sys
import threading
import types
import warnings

import captum.attr
import numpy as np
import pytest
import torch
from captum.attr import Attribution
from torch import nn
from zennit.attribution import Gradient
from zennit.composites import EpsilonPlus

import faithmap
from faithmap.attribution import resolve_methods
from faithmap.errors import MethodError, MethodWarning, StoreError
from faithmap.identity import callable_identity, callable_name
from tests.conftest import TinyNet


def power(inputs, targets, power=1.0, sign=1):
    return sign * inputs.abs() ** power


class Explainer:
    def __init__(self, scale, weights=None):
        self.scale, self.weights = scale, weights

    def __call__(self, inputs, targets):
        return inputs * self.scale

    def heatmap(self, inputs, targets):
        return inputs + self.scale


def names(*methods):
    return [method.name for method in resolve_methods(list(methods)) if not method.is_random]


def test_callables_of_one_name_are_methods_of_their_own():
    assert names(lambda x, t: x, lambda x, t: -x, lambda x, t: x * 2)[1:] == [
        f"test_callables_of_one_name_are_methods_of_their_own.<lambda>-{n}" for n in (2, 3)
    ]
    partials = [functools.partial(power, power=p) for p in (1.0, 2.0)]
    assert names(*partials) == ["power:power=1", "power:power=2"]
    assert names(Explainer(1), Explainer(2)) == ["Explainer", "Explainer-2"]
    assert names(Explainer(1).heatmap, Explainer(2).heatmap) == ["Explainer.heatmap", "Explainer.heatmap-2"]
    assert names(functools.partial(power, power=torch.ones(1)), functools.partial(power, power=torch.zeros(1))) == [
        "power",
        "power-2",
    ]
    assert names(power, power, "sensitivity", "sensitivity") == ["power", "sensitivity:l2"]
    net = TinyNet()
    pairs = [(captum.attr.Occlusion(net), {"sliding_window_shapes": (3, s, s)}) for s in (4, 8)]
    assert names(*pairs) == ["Occlusion:sliding_window_shapes=3x4x4", "Occlusion:sliding_window_shapes=3x8x8"]
    assert names((power, {"power": 2.0}), captum.attr.Saliency(net), captum.attr.Saliency(TinyNet(size=32)))[0] == (
        "power:power=2"
    )


def compiled(source, **values):
    """A function from source text, as an edited notebook cell makes it."""
    scope = dict(values)
    exec(compile(source, "cell", "exec"), scope)
    return scope["heatmap"]


SOURCE = "def heatmap(inputs, targets, n=2):\n    return helper(inputs) * n\ndef helper(x):\n    return x + 1\n"


def closure(value):
    return lambda inputs, targets: inputs * value


def changed_network():
    net = TinyNet()
    with torch.no_grad():
        net.head.bias[0] += 1e-3
    return net


PAIRS = {
    "code": (compiled(SOURCE), compiled(SOURCE.replace("* n", "/ n"))),
    "a constant": (compiled(SOURCE), compiled(SOURCE.replace("x + 1", "x + 2"))),
    "a default": (compiled(SOURCE), compiled(SOURCE.replace("n=2", "n=3"))),
    "a helper": (compiled(SOURCE), compiled(SOURCE.replace("return x + 1", "return -x"))),
    "a closure": (closure(1), closure(2)),
    "a tensor in a closure": (closure(torch.ones(3)), closure(torch.tensor([1.0, 1.0, 2.0]))),
    "an array in a closure": (closure(np.ones(3)), closure(np.ones(3, dtype=np.float32))),
    "a partial": (functools.partial(power, sign=1), functools.partial(power, sign=-1)),
    "positional against named": (functools.partial(power, 1), functools.partial(power, sign=1)),
    "state": (Explainer(1), Explainer(2)),
    "nested state": (Explainer({"a": [1, 2]}), Explainer({"a": [1, 3]})),
    "a bound object": (Explainer(1).heatmap, Explainer(2).heatmap),
    "another function of an object": (Explainer(1), Explainer(1).heatmap),
    "weights": (captum.attr.Saliency(TinyNet()), captum.attr.Saliency(changed_network())),
    "arguments": ((captum.attr.Saliency(TinyNet()), {"abs": True}), (captum.attr.Saliency(TinyNet()), {"abs": False})),
    "a random state": (Explainer(np.random.default_rng(0)), Explainer(np.random.default_rng(1))),
    "one and True": (closure(1), closure(True)),
    "a text and a number": (closure("1"), closure(1)),
}


@pytest.mark.parametrize("case", PAIRS)
def test_what_decides_the_numbers_is_part_of_the_identity(case):
    one, other = (callable_identity(value) for value in PAIRS[case])
    assert one.digest != other.digest
    assert one.unknown is None
    assert other.unknown is None


SAME = {
    "code": lambda: compiled(SOURCE),
    "a closure": lambda: closure(torch.arange(3.0)),
    "a partial": lambda: functools.partial(power, power=2.0),
    "an object": lambda: Explainer({"b": 1, "a": {3, 1, 2}}, weights=np.arange(4)),
    "captum": lambda: captum.attr.IntegratedGradients(TinyNet()),
    "zennit": lambda: Gradient(TinyNet(), EpsilonPlus()),
    "a circle": lambda: circle(),
}


def circle():
    one, other = Explainer(1), Explainer(2)
    one.weights, other.weights = other, one
    return one


@pytest.mark.parametrize("case", SAME)
def test_the_same_made_twice_is_the_same(case):
    assert callable_identity(SAME[case]()) == callable_identity(SAME[case]())


def test_a_dict_filled_in_another_order_is_the_same():
    assert callable_identity(Explainer({"a": 1, "b": 2})) == callable_identity(Explainer({"b": 2, "a": 1}))


def test_the_identity_does_not_depend_on_the_process():
    text = (
        "import functools, torch; from tests.test_callables import power, Explainer; "
        "from faithmap.identity import callable_identity as f; "
        "print(f(functools.partial(power, power=torch.ones(2))).digest, f(Explainer({'x', 'y', 'z'})).digest)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    digests = [
        subprocess.run(
            [sys.executable, "-c", text],
            capture_output=True,
            text=True,
            check=True,
            env={**environment, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    ]
    assert digests[0] == digests[1]


def test_what_cannot_be_known_is_said():
    hidden = Explainer(threading.Lock())
    assert callable_identity(hidden).unknown == "a _thread.lock"
    with pytest.warns(MethodWarning, match=r"'Explainer' holds a _thread.lock.*cannot be extended"):
        resolve_methods([hidden])
    with pytest.warns(MethodWarning):
        assert names(Explainer(threading.Lock()), Explainer(threading.Lock())) == ["Explainer", "Explainer-2"]


def measured(method, out):
    protocol = faithmap.Protocol.preset(steps=3, region_size=5, draws=1)
    pixels = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    return faithmap.evaluate(faithmap.Classifier(TinyNet()), pixels, {"mine": method}, protocol, out=out)


CHANGES = {
    "code": (compiled(SOURCE), compiled(SOURCE.replace("* n", "- n"))),
    "a partial": (functools.partial(power, power=1.0), functools.partial(power, power=2.0)),
    "an object": (Explainer(1), Explainer(2)),
    "arguments": ((captum.attr.Saliency(TinyNet()), {"abs": True}), (captum.attr.Saliency(TinyNet()), {"abs": False})),
}


@pytest.mark.parametrize("case", CHANGES)
def test_a_run_is_not_extended_by_something_else_of_the_same_name(case, tmp_path):
    one, other = CHANGES[case]
    before = measured(one, tmp_path).scores()
    assert measured(one, tmp_path).scores().equals(before)
    with pytest.raises(StoreError, match=r"changed: method 'mine'.*choose a new folder"):
        measured(other, tmp_path)
    assert faithmap.Run(tmp_path).scores().equals(before)


@pytest.mark.filterwarnings("ignore")
def test_objects_of_captum_stay_what_they_are():
    net = plain_network()
    classifier, pixels = faithmap.Classifier(net), torch.rand(2, 3, 14, 14)
    names = ("Occlusion", "DeepLift", "Lime", "KernelShap", "IntegratedGradients", "FeatureAblation", "GradientShap")
    for made in [getattr(captum.attr, name)(net) for name in names] + [
        captum.attr.NoiseTunnel(captum.attr.DeepLift(net))
    ]:
        before = callable_identity(made)
        faithmap.heatmaps(classifier, pixels, torch.tensor([0, 3]), made)
        assert callable_identity(made) == before


@pytest.mark.filterwarnings("ignore::faithmap.errors.MethodWarning")
def test_a_run_is_not_extended_by_what_cannot_be_known(tmp_path):
    method = Explainer(1, weights=threading.Lock())
    measured(method, tmp_path)
    with pytest.raises(StoreError, match=r"'mine' holds a _thread.lock, of which nobody can know"):
        measured(method, tmp_path)


def test_names_are_short():
    assert callable_name(functools.partial(functools.partial(power, power=2.0), sign=-1)) == "power:power=2,sign=-1"
    assert callable_name(types.SimpleNamespace) == "SimpleNamespace"


def captum_kinds():
    for name in sorted(dir(captum.attr)):
        kind = getattr(captum.attr, name)
        if isinstance(kind, type) and issubclass(kind, Attribution) and "LLM" not in name:
            yield name


ABSTRACT = {
    "Attribution", "GradientAttribution", "PerturbationAttribution", "LayerAttribution", "NeuronAttribution",
    "DataLoaderAttribution",
}  # fmt: skip
REFUSED = {
    "FeaturePermutation": "exchanges features",
    "LayerFeaturePermutation": "exchanges features",
    "LimeBase": "give Lime",
    "ShapleyValues": "feature_mask",
}


class PlainNet(nn.Module):
    """Modules that captum's rules know, none of them used twice or in place."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(4)
        self.first, self.relu = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()
        self.pool, self.last = nn.MaxPool2d(2), nn.Conv2d(4, 4, 3, padding=1)
        self.relu2, self.mean, self.head = nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Linear(16, 5)
        with torch.no_grad():
            self.head.weight.mul_(20)

    def forward(self, x):
        return self.head(self.mean(self.relu2(self.last(self.pool(self.relu(self.first(x)))))).flatten(1))


def plain_network():
    return PlainNet().eval()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(set(captum_kinds()) - ABSTRACT))
def test_every_attribution_of_captum_is_a_method_as_it_is(name):
    net = plain_network()
    kind = getattr(captum.attr, name)
    if name == "NoiseTunnel":
        made = kind(captum.attr.Saliency(net))
    elif name.startswith(("Layer", "Neuron", "Internal", "GuidedGradCam")):
        made = kind(net, net.last)
    elif name == "LimeBase":
        made = object.__new__(kind)
    else:
        made = kind(net)
    classifier = faithmap.Classifier(net)
    pixels = torch.rand(3, 3, 14, 14, generator=torch.Generator().manual_seed(1))
    targets = torch.tensor([0, 3, 1])
    if name in REFUSED or name.startswith("Neuron"):
        with pytest.raises(MethodError, match=REFUSED.get(name, "explains a neuron, not a class")):
            faithmap.heatmaps(classifier, pixels, targets, made)
        return
    found = faithmap.heatmaps(classifier, pixels, targets, made)
    assert found.shape == (3, 14, 14)
    assert found.abs().amax() > 0
    # An image's map does not depend on which images are computed with it.
    alone = faithmap.heatmaps(classifier, pixels[1:2], targets[1:2], made, image_ids=["1"])
    torch.testing.assert_close(alone[0], found[1], rtol=1e-4, atol=1e-6)


def test_arguments_reach_captum():
    net = plain_network()
    classifier, pixels = faithmap.Classifier(net), torch.rand(2, 3, 14, 14)
    targets = torch.tensor([0, 3])
    found = faithmap.heatmaps(
        classifier,
        pixels,
        targets,
        (captum.attr.Occlusion(net), {"sliding_window_shapes": (3, 5, 5), "baselines": 0.5}),
    )
    expected = captum.attr.Occlusion(net).attribute(
        pixels, sliding_window_shapes=(3, 5, 5), baselines=0.5, target=targets
    )
    torch.testing.assert_close(found, expected.sum(1))
    found = faithmap.heatmaps(classifier, pixels, targets, (power, {"power": 2.0}))
    torch.testing.assert_close(found, pixels.square().sum(1))


def test_a_run_measures_all_of_a_list():
    pixels = torch.rand(2, 3, 24, 24)
    protocol = faithmap.Protocol.preset(steps=3, region_size=5, draws=1)
    methods = [lambda x, t: x, lambda x, t: -x, functools.partial(power, power=2.0)]
    with warnings.catch_warnings():
        warnings.simplefilter("error", MethodWarning)
        frame = faithmap.evaluate(faithmap.Classifier(TinyNet()), pixels, methods, protocol).scores()
    assert frame["method"].nunique() == 4
