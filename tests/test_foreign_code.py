"""Other people's code inside ours, and ours inside theirs: buffers, modes, scripts, global state."""

import contextlib
import random
import warnings

import numpy as np
import pytest
import torch

from faithmap import Classifier, Protocol, aopc, evaluate, heatmaps, load_classifier, removal_steps, score_curves
from faithmap.attribution.method import Method
from faithmap.errors import ClassifierError, EngineWarning, FaithmapError, HeatmapError, MethodError
from faithmap.testbeds import shapes
from tests.conftest import TinyNet

PROTOCOL = Protocol.preset(steps=4, region_size=4, draws=1)
PIXELS = torch.rand(11, 3, 24, 24, generator=torch.Generator().manual_seed(5))
TARGETS = torch.arange(11) % 5


def channel_sum(inputs, targets):
    return inputs.sum(1) * (targets.view(-1, 1, 1) + 1)


def into_a_buffer(inputs, targets, buffer=torch.empty(8, 24, 24)):  # noqa: B008 (the fault that is tested)
    """What `channel_sum` returns, always in the same memory."""
    if len(inputs) != 8:
        return channel_sum(inputs, targets)
    return torch.mul(inputs.sum(1), targets.view(-1, 1, 1) + 1, out=buffer)


def spoiling(inputs, targets):
    found = channel_sum(inputs, targets)
    inputs.zero_()
    targets.fill_(0)
    return found


def spoiling_storage(inputs, targets):
    found = channel_sum(inputs, targets)
    inputs.detach().numpy()[:] = 7
    targets.numpy()[:] = 0
    return found


def as_array(inputs, targets):
    return channel_sum(inputs, targets).numpy()


def sparse(inputs, targets):
    return channel_sum(inputs, targets).to_sparse()


def with_gradients(inputs, targets):
    return channel_sum(inputs.requires_grad_(), targets)


def scores(run, method):
    frame = run.scores()
    frame = frame[frame["method"] == method].sort_values(["image", "draw", "step"])
    return frame[["logit", "probability"]].to_numpy()


@pytest.mark.parametrize("function", [into_a_buffer, spoiling, spoiling_storage, as_array, sparse, with_gradients])
def test_how_a_function_uses_memory_changes_no_number(tiny, tmp_path, function):
    """Two blocks of eight, and another method before and after, so that whatever is overwritten shows."""
    methods = {"first": channel_sum, "odd": function, "last": channel_sum}
    run = evaluate(tiny, PIXELS.clone(), methods, PROTOCOL, tmp_path)
    assert not run.skipped
    for name in ("first", "odd"):
        np.testing.assert_array_equal(scores(run, name), scores(run, "last"))


@pytest.mark.parametrize("batching", ["fixed", "single", "whole"])
def test_methods_of_ones_own_may_reuse_a_buffer_and_spoil_the_batch(tiny, batching):
    buffers = {}

    def compute(batch):
        buffer = buffers.setdefault(len(batch.pixels), torch.empty(len(batch.pixels), 24, 24))
        torch.sum(batch.inputs, 1, out=buffer)
        batch.inputs.zero_()
        batch.targets.zero_()
        return buffer

    pixels, targets = PIXELS.clone(), TARGETS.clone()
    found = heatmaps(tiny, pixels, targets, Method("mine", {"method": "mine"}, compute, batching=batching))
    torch.testing.assert_close(found, tiny.normalise(PIXELS).sum(1), rtol=0, atol=0)
    assert torch.equal(pixels, PIXELS)
    assert torch.equal(targets, TARGETS)


def test_callers_tensors_stay_as_they_are(tiny):
    pixels, targets = PIXELS.clone(), TARGETS.clone()
    heatmaps(Classifier(tiny.module, name="plain"), pixels, targets, spoiling_storage)
    assert torch.equal(pixels, PIXELS)
    assert torch.equal(targets, TARGETS)


class Buffered(torch.nn.Module):
    """A network that always writes its logits to the same place."""

    def __init__(self, network):
        super().__init__()
        self.network, self.buffer = network, torch.empty(128, 5)

    def forward(self, x):
        logits = self.network(x)
        return logits if logits.requires_grad else self.buffer[: len(x)].copy_(logits)


@pytest.mark.parametrize("engine", ["auto", "dense"])
@pytest.mark.parametrize("kind", ["module", "function", "array", "spoils its input"])
def test_a_classifier_may_reuse_its_buffer(tiny, tmp_path, kind, engine):
    buffered = Buffered(tiny.module)

    def spoils(inputs):
        logits = buffered(inputs)
        inputs.numpy()[:] = 0
        return logits

    module = {
        "module": buffered,
        "function": lambda inputs: buffered(inputs),
        "array": lambda inputs: buffered(inputs).numpy(),
        "spoils its input": spoils,
    }[kind]
    classifier = Classifier(module, mean=tiny.mean, std=tiny.std, name="tiny")
    torch.testing.assert_close(classifier.predict(PIXELS), tiny.predict(PIXELS))
    first = classifier(PIXELS[:8])
    classifier(PIXELS[3:])
    torch.testing.assert_close(first, tiny(PIXELS[:8]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EngineWarning)
        odd = evaluate(classifier, PIXELS, channel_sum, PROTOCOL, tmp_path / "odd", engine=engine)
        expected = evaluate(tiny, PIXELS, channel_sum, PROTOCOL, tmp_path / "expected", engine="dense")
    np.testing.assert_allclose(scores(odd, "channel_sum"), scores(expected, "channel_sum"), rtol=1e-4, atol=1e-5)
    assert odd.scores()["predicted"].tolist() == expected.scores()["predicted"].tolist()


def in_place(network):
    with torch.no_grad():
        network.head.weight.mul_(2)


def through_data(network):
    network.features[0].weight.data.add_(1)


def another_layer(network):
    network.head = torch.nn.Linear(network.head.in_features, 5)


def another_forward(network):
    network.forward = lambda x: x.flatten(1)[:, :5]


@pytest.mark.parametrize("change", [in_place, through_data, another_layer, another_forward])
def test_a_method_that_changes_the_network_ends_the_run_and_is_named(tiny, tmp_path, change):
    def careless(inputs, targets):
        change(tiny.module)
        return channel_sum(inputs, targets)

    with pytest.raises(ClassifierError, match=r"heatmap method 'mine' changed the (network|weights of) tiny"):
        evaluate(tiny, PIXELS, {"mine": careless}, PROTOCOL, tmp_path)
    assert not list((tmp_path / "scores").glob("*")), "scores of another network were stored"


@pytest.mark.parametrize("change", [in_place, through_data, another_layer, another_forward])
def test_a_single_call_notices_it_too(tiny, change):
    def careless(inputs, targets):
        change(tiny.module)
        return channel_sum(inputs, targets)

    with pytest.raises(ClassifierError, match="changed"):
        heatmaps(tiny, PIXELS, TARGETS, careless)


def test_modes_hooks_and_gradient_flags_are_put_back(tiny, tmp_path):
    called = []

    def careless(inputs, targets):
        tiny.module.train()
        tiny.module.head.register_forward_hook(lambda m, i, o: called.append(1) or o * 0)
        tiny.module.features[0].register_forward_pre_hook(lambda m, i: None)
        tiny.module.features[3].register_full_backward_hook(lambda m, i, o: None)
        tiny.module.requires_grad_(False)
        return channel_sum(inputs, targets)

    tiny.module.eval()
    kept = tiny.module.features[1].register_forward_hook(lambda m, i, o: None)
    with pytest.warns(EngineWarning, match=r"left hooks on tiny \(hooks of 'features\.0'.*: removed"):
        run = evaluate(tiny, PIXELS, {"odd": careless, "good": channel_sum}, PROTOCOL, tmp_path, engine="dense")
    np.testing.assert_array_equal(scores(run, "odd"), scores(run, "good"))
    assert not called
    assert not any(m.training for m in tiny.module.modules())
    assert all(p.requires_grad for p in tiny.module.parameters())
    assert list(tiny.module.features[1]._forward_hooks) == [kept.id]


def test_a_function_that_raises_after_it_left_a_hook(tiny):
    def careless(inputs, targets):
        tiny.module.head.register_forward_hook(lambda m, i, o: o * 0)
        raise ValueError("halfway")

    with pytest.raises(HeatmapError, match="halfway"), pytest.warns(EngineWarning, match="hooks of 'head'"):
        heatmaps(tiny, PIXELS, TARGETS, careless)
    assert not tiny.module.head._forward_hooks


BAD = {"000003", "3", "03"}


@pytest.mark.parametrize(
    "fault",
    [
        lambda: 1 / 0,
        lambda: {}["no such key"],
        lambda: torch.zeros(3)[7],
        lambda: exec("raise SystemExit(3)"),
        lambda: exec("raise RecursionError('deep')"),
    ],
)
def test_a_function_that_raises_for_one_image_loses_that_image_alone(tiny, tmp_path, fault):
    marked = PIXELS.clone()
    marked[3, :, 0, 0] = 1.0

    def moody(inputs, targets):
        pixels = inputs * torch.tensor(tiny.std).view(1, 3, 1, 1) + torch.tensor(tiny.mean).view(1, 3, 1, 1)
        if (pixels[:, :, 0, 0] > 0.99999).all(1).any():
            fault()
        return channel_sum(inputs, targets)

    run = evaluate(tiny, marked, {"moody": moody, "good": channel_sum}, PROTOCOL, tmp_path)
    assert [(one.image, one.method) for one in run.skipped] == [("03", "moody")]
    assert "moody fails on tiny" in run.skipped[0].reason
    frame = run.scores()
    both = [set(frame.loc[frame["method"] == name, "image"]) for name in ("moody", "good")]
    assert both[1] - both[0] == {"03"}
    good = frame[(frame["method"] == "good") & (frame["image"] != "03")]
    np.testing.assert_array_equal(scores(run, "moody"), good.sort_values(["image", "step"])[["logit", "probability"]])


@pytest.mark.parametrize(
    "answer",
    [
        None,
        "a map",
        [1, 2],
        torch.zeros(11, 24, 24, dtype=torch.complex64),
        torch.empty(11, 24, 24, device="meta"),
        torch.zeros(0),
        torch.zeros(11, 24, 24, dtype=torch.int32),
        np.array(["a"] * 11, dtype=object),
        np.zeros(11, dtype="U3"),
        (torch.zeros(11, 24, 24),),
    ],
)
def test_what_is_no_heatmap_is_named(tiny, tmp_path, answer):
    with pytest.raises(HeatmapError, match="odd"):
        heatmaps(tiny, PIXELS, TARGETS, Method("odd", {}, lambda batch: answer, batching="whole"))
    with pytest.raises(FaithmapError, match="odd"):
        evaluate(tiny, PIXELS, {"odd": lambda inputs, targets: answer}, PROTOCOL, tmp_path)


def test_a_network_that_counts_its_calls_is_not_blamed(tmp_path):
    class Counting(TinyNet):
        calls = 0

        def forward(self, x):
            self.calls += 1
            return super().forward(x)

    run = evaluate(Classifier(Counting(), name="c"), PIXELS, channel_sum, PROTOCOL, tmp_path, engine="dense")
    assert not run.skipped


def global_state():
    return (
        torch.get_rng_state().tolist(),
        np.random.get_state()[1].tolist(),
        random.getstate(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_default_dtype(),
        torch.get_default_device(),
        list(warnings.filters),
    )


@contextlib.contextmanager
def default_dtype(dtype):
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


MODES = {
    "no_grad": torch.no_grad,
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "device meta": lambda: torch.device("meta"),
    "float64": lambda: default_dtype(torch.float64),
}


@pytest.mark.parametrize("mode", MODES)
def test_modes_of_the_caller_change_no_number_and_stay_as_they_are(tiny, mode):
    """A bfloat16 that the caller has switched on would be stored as float32."""

    def everything():
        pixels, targets = PIXELS.clone(), TARGETS.clone()
        run = evaluate(tiny, pixels, {"mine": channel_sum, "ours": "sensitivity"}, PROTOCOL)
        maps = heatmaps(tiny, pixels, targets, "rise:n=4")
        steps = removal_steps(maps, PROTOCOL)
        curves = score_curves(tiny, pixels, targets, steps, 1 - pixels)
        drops = aopc(curves[0])
        bed = shapes(4, 16).measure("sensitivity")
        return [scores(run, "mine"), scores(run, "ours"), maps, steps, *curves, drops, bed["value"].to_numpy()]

    expected = everything()
    with MODES[mode]():
        before = global_state()
        found = everything()
        assert global_state() == before
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


@pytest.mark.parametrize("mode", ["no_grad", "device meta", "float64"])
@pytest.mark.parametrize(
    "make", [lambda: load_classifier("squeezenet1_1-embedded", "cpu"), lambda: shapes(4, 16).classifier]
)
def test_networks_are_built_alike_in_every_mode_and_take_no_random_number(make, mode):
    expected = make().fingerprint()
    with MODES[mode]():
        before = global_state()
        assert make().fingerprint() == expected
        assert global_state() == before


def frozen(network):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.freeze(torch.jit.script(network.eval()))


def test_a_frozen_script_is_known_by_its_weights_and_is_run(tiny, tmp_path):
    """It has neither parameters nor modes, and its `repr` says nothing of what it computes."""
    prints = []
    for factor in (1.0, 1.0, 2.0):
        network = TinyNet()
        with torch.no_grad():
            network.head.weight.mul_(factor)
        classifier = Classifier(frozen(network), mean=tiny.mean, std=tiny.std, name="tiny")
        prints.append(classifier.fingerprint())
        run = evaluate(classifier, PIXELS, {"mine": channel_sum, "ours": "sensitivity"}, PROTOCOL, engine="dense")
        assert classifier.fingerprint() == prints[-1]
        if factor == 1:
            expected = evaluate(tiny, PIXELS, {"mine": channel_sum, "ours": "sensitivity"}, PROTOCOL, engine="dense")
            np.testing.assert_array_equal(scores(run, "mine"), scores(expected, "mine"))
            np.testing.assert_array_equal(scores(run, "ours"), scores(expected, "ours"))
    assert prints[0] == prints[1] != prints[2]


def test_scripts_of_the_same_weights_and_another_stride_differ():
    def print_of(stride):
        layer = torch.nn.Conv2d(3, 4, 5, stride=stride)
        torch.nn.init.ones_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
        network = torch.nn.Sequential(layer, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return [
                Classifier(script, name="s").fingerprint()
                for script in (torch.jit.script(network), torch.jit.trace(network, PIXELS[:1]))
            ]

    assert print_of(1) == print_of(1)
    assert not set(print_of(1)) & set(print_of(2))


class Exported(torch.nn.Module):
    """What a script reads of itself is no constant of its graph."""

    factor: float
    table: dict[str, list[torch.Tensor]]

    def __init__(self, factor: float, table: float, kept: float):
        super().__init__()
        self.factor = factor
        self.table = {"a": [torch.full((2000,), table)]}
        self.register_buffer("kept", torch.full((2000,), kept), persistent=False)

    @torch.jit.export
    def scaled(self, x: torch.Tensor):
        return x * self.factor + self.table["a"][0].sum() + self.kept.sum()


class Partly(torch.nn.Module):
    """A network of which some parts are scripts, and some of these without `forward`."""

    def __init__(self, *values):
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.scale = torch.jit.script(Exported(*values))
            self.layers = torch.jit.script(torch.nn.ModuleList([torch.nn.Flatten()]))

    def forward(self, x):
        return self.layers[0](self.scale.scaled(x))


def test_parts_that_are_scripts_are_known_by_what_they_read_and_compute():
    networks = [Partly(*values) for values in [(1.0, 1.0, 1.0), (1.0, 1.0, 1.0), (2.0, 1.0, 1.0), (1.0, 2.0, 1.0)]]
    networks += [Partly(1.0, 1.0, 2.0).train(), Partly(1.0, 1.0, 2.0).eval()]
    same, again, *others, training, evaluating = (Classifier(one, name="s").fingerprint() for one in networks)
    assert same == again
    assert training == evaluating
    assert len({same, *others, training}) == 4


class Around(torch.nn.Module):
    """A network whose forward pass is wrapped."""

    def __init__(self, network, function):
        super().__init__()
        self.network, self.function = network, function

    def forward(self, x):
        return self.function(self.network, x)


@pytest.mark.parametrize(
    "forward",
    [
        torch.no_grad()(lambda network, x: network(x)),
        torch.inference_mode()(lambda network, x: network(x)),
        lambda network, x: network(x).detach(),
        lambda network, x: network(x.detach()),
    ],
)
def test_a_network_without_gradients_is_named_where_they_are_needed(tiny, tmp_path, forward):
    classifier = Classifier(Around(tiny.module, forward), mean=tiny.mean, std=tiny.std, name="tiny")
    for method in ("sensitivity", "lrp-epsilon:0.01", "gradient-x-input"):
        with pytest.raises(MethodError, match=r"gradients|forward pass|followed"):
            heatmaps(classifier, PIXELS, TARGETS, method)
    run = evaluate(classifier, PIXELS, {"mine": channel_sum}, PROTOCOL, engine="dense")
    np.testing.assert_array_equal(
        scores(run, "mine"), scores(evaluate(tiny, PIXELS, channel_sum, PROTOCOL, engine="dense"), "channel_sum")
    )


def test_weights_of_inference_mode_are_named_where_gradients_are_needed(tiny):
    with torch.inference_mode():
        classifier = Classifier(TinyNet(), mean=tiny.mean, std=tiny.std, name="tiny")
    with pytest.raises(MethodError, match="made in inference mode"):
        evaluate(classifier, PIXELS, "sensitivity", PROTOCOL)
    run = evaluate(classifier, PIXELS, {"mine": channel_sum}, PROTOCOL)
    assert not run.skipped


class Labelled(torch.Tensor):
    """What libraries of images return: a tensor with something of its own, that is not for others."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function in (torch.cat, torch.stack):
            return NotImplemented
        return super().__torch_function__(function, types, args, kwargs or {})


def test_subclasses_of_tensors_are_taken_as_tensors(tiny):
    network = Around(tiny.module, lambda network, x: network(x).as_subclass(Labelled))
    classifier = Classifier(network, mean=tiny.mean, std=tiny.std, name="tiny")
    run = evaluate(
        classifier,
        PIXELS,
        {"odd": lambda i, t: channel_sum(i, t).as_subclass(Labelled), "good": channel_sum},
        PROTOCOL,
        engine="dense",
    )
    np.testing.assert_array_equal(scores(run, "odd"), scores(run, "good"))
