"""Never wrong silently: what could make the incremental engine wrong is handled, or leads to dense, with a reason."""

import dataclasses
import gc
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from benchmarks.memory import peak, reset
from torch import nn

import faithmap
from faithmap.errors import EngineError, EngineWarning
from faithmap.inference import Chains, examine, make_engine
from faithmap.inference.dense import DenseEngine
from faithmap.inference.incremental import engine as engine_module
from faithmap.inference.incremental import geometry, kernels, tail
from faithmap.inference.incremental.costs import Way
from faithmap.inference.incremental.engine import IncrementalEngine
from faithmap.inference.incremental.runner import Runner
from faithmap.inference.incremental.tracing import trace
from tests.test_incremental import (
    all_logits,
    assert_exact,
    classifier_of,
    draw_chains,
    from_scratch,
    memory_for,
    settled,
    small,
    stock_logits,
)
from tests.test_incremental_networks import Branches, Head, function


def network():
    return settled(Head(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 8, 3), channels=8), size=40)


def assert_dense(module, reason, chains=None):
    """Auto goes dense with one warning that matches, and its scores are the network's; incremental refuses."""
    chains = chains or draw_chains(size=40, steps=4, region=5)
    classifier = classifier_of(module)
    engine = make_engine(classifier, "auto")
    with pytest.warns(EngineWarning, match=reason) as caught:
        found = all_logits(engine, chains)
    assert len([w for w in caught if issubclass(w.category, EngineWarning)]) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error", EngineWarning)
        all_logits(engine, chains)  # said once
    torch.testing.assert_close(found, all_logits(make_engine(classifier, "dense"), chains))
    with pytest.raises(EngineError, match=reason):
        all_logits(make_engine(classifier, "incremental"), chains)


def test_hooks_lead_to_dense():
    module = network()
    seen = []
    module.body[0].register_forward_hook(lambda *args: seen.append(1))
    assert_dense(module, r"hook is registered on body\.0 \(Conv2d\)")
    assert seen


def test_control_flow_that_depends_on_data_leads_to_dense():
    body = function(lambda x: x * 2 if x.mean() > 0 else x)
    assert_dense(Head(nn.Conv2d(3, 8, 3, 2), body, channels=8), "cannot be recorded")


def test_random_numbers_in_the_forward_pass_lead_to_dense():
    module = Head(nn.Conv2d(3, 8, 3, 2), function(lambda x: x + 0 * torch.rand_like(x)), channels=8)
    assert_dense(module, r"rand_like.*random")
    active = Head(nn.Conv2d(3, 8, 3, 2), function(lambda x: F.dropout(x, 0.0)), channels=8)
    assert_dense(active, r"dropout.* is active")


def test_statistics_of_the_batch_lead_to_dense():
    module = Head(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8, track_running_stats=False), channels=8)
    chains = draw_chains(size=40, steps=4, region=5)
    with pytest.warns(EngineWarning, match="statistics of the batch"):
        all_logits(make_engine(classifier_of(module), "auto"), chains)


def test_a_changed_parameter_leads_to_dense():
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 8, 3, 2), nn.Linear(8, 4)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls.add_(0.0)
            return self.head(self.conv(x).mean((2, 3))) + self.calls

    assert_dense(Counts(), "changes")


def test_writing_through_a_view_leads_to_dense():
    def halves(x):
        first = x[:, :4]
        first.mul_(2.0)
        return x

    assert_dense(
        Head(nn.Conv2d(3, 8, 3, 2), function(halves), channels=8), "writes into memory that another tensor views"
    )


def test_in_place_operations_are_seen_by_later_readers():
    def reused(x):
        y = F.relu_(x)  # x itself is changed
        z = nn.Identity()(y)
        z += 0.5
        return torch.cat([x, y], 1) * x.repeat(1, 2, 1, 1).clamp_(max=3.0)

    module = settled(Head(nn.Conv2d(3, 4, 3, 2), function(reused), channels=8), size=40)
    chains = draw_chains(size=40, steps=4, region=5)
    classifier = classifier_of(module)
    found = all_logits(make_engine(classifier, "incremental"), chains)
    expected = stock_logits(classifier, chains)
    assert float((found - expected).abs().max()) <= 1e-5 * float(expected.std())


@pytest.mark.parametrize("written", ["copy", "original", "both"])
def test_a_copy_has_memory_of_its_own(written):
    def copied(x):
        y = x.clone()
        if written != "original":
            y.mul_(2.0)
        if written != "copy":
            F.relu_(x)
        return torch.cat([x, y], 1)

    module = settled(Head(nn.Conv2d(3, 4, 3, 2), function(copied), channels=8), size=40)
    chains = draw_chains(size=40, steps=4, region=5)
    found = assert_exact(module, chains)
    engine = make_engine(classifier_of(module), "incremental")
    assert torch.equal(all_logits(engine, chains), found)


def test_writing_into_what_may_be_a_copy_leads_to_dense():
    """Maps that are in this memory format already are not copied, others are."""

    def maybe(x):
        y = x.contiguous(memory_format=torch.channels_last)
        y.mul_(2.0)
        return x + y

    assert_dense(Head(nn.Conv2d(3, 8, 3, 2), function(maybe), channels=8), "a copy in some memory formats only")
    module = settled(Head(nn.Conv2d(3, 8, 3, 2), function(lambda x: F.relu_(x.contiguous())), channels=8), size=40)
    assert_exact(module, draw_chains(size=40, steps=4, region=5))  # nobody reads the other


def test_a_network_that_overwrites_its_input():
    module = settled(Head(function(lambda x: x.mul_(1.5)), nn.Conv2d(3, 8, 3, 2), channels=8), size=40)
    chains = draw_chains(size=40, steps=4, region=5)
    expected = stock_logits(classifier_of(module), chains)
    for name in ("dense", "incremental"):
        for _ in range(2):
            found = all_logits(make_engine(classifier_of(module), name), chains)
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_training_mode_is_left_alone_and_does_not_matter():
    module = settled(
        Head(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.Dropout(0.9), nn.Conv2d(8, 8, 3), channels=8), size=40
    )
    chains = draw_chains(size=40, steps=4, region=5)
    expected = all_logits(make_engine(classifier_of(module), "incremental"), chains)
    module.train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    assert torch.equal(all_logits(make_engine(classifier_of(module), "incremental"), chains), expected)
    assert all(one.training for one in module.modules())
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.body[2].weight.data.copy_(m.body[2].weight.data.flip(0)),
        lambda m: nn.init.zeros_(m.head.bias),
        lambda m: m.body.__setitem__(1, nn.SiLU()),
        lambda m: setattr(m.body[0], "stride", (1, 1)),
        lambda m: m.load_state_dict({name: value * 1.1 for name, value in m.state_dict().items()}),
    ],
    ids=["data", "in place", "another module", "an attribute", "a state dict"],
)
def test_changes_between_calls_are_noticed(change):
    module = network()
    chains = draw_chains(size=40, steps=4, region=5)
    classifier = classifier_of(module)
    engine = make_engine(classifier, "incremental")
    before = all_logits(engine, chains)
    with torch.no_grad():
        change(module)
    found = all_logits(engine, chains)
    assert not torch.equal(found, before)
    torch.testing.assert_close(found, stock_logits(classifier, chains), rtol=1e-4, atol=1e-5)


def test_a_wrong_rectangle_is_noticed_and_the_layer_named(monkeypatch):
    right = geometry._through

    def narrow(rectangle, window, size):  # forgets the last column of what a 3×3 window of stride 1 changes
        out = right(rectangle, window, size)
        if window.size == (3, 3) and window.stride == (1, 1):
            out[3] = torch.maximum(out[3] - 1, out[2])
        return out

    monkeypatch.setattr(geometry, "_through", narrow)
    module = network()
    chains = draw_chains(size=40, steps=6, region=5)
    with pytest.warns(EngineWarning, match=r"differ from the network's by .* at step \d .*; they part at body\.2\."):
        found = all_logits(make_engine(classifier_of(module), "auto"), chains)
    torch.testing.assert_close(found, stock_logits(classifier_of(module), chains), rtol=1e-4, atol=1e-5)


def test_inputs_that_are_not_finite_go_dense():
    chains = draw_chains(size=40, steps=4, region=5)
    chains.fill[0, 0, 3, 3] = torch.nan
    module = network()
    found = all_logits(make_engine(classifier_of(module), "incremental"), chains)
    assert found.isnan().any() == stock_logits(classifier_of(module), chains).isnan().any()


def test_a_value_that_is_not_finite_inside_the_network_is_not_lost(monkeypatch):
    """A fused ReLU makes zero of NaN, where torch's own keeps it. Here only the third chain has such a value."""
    root = function(lambda x: torch.sqrt(x + 1.0))
    module = Head(root, nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, 2), nn.ReLU(), channels=8).eval()
    chains = draw_chains(size=40, steps=4, region=5, chains=3, images=3)
    for pixels in (chains.pixels, chains.fill):
        pixels.clamp_(min=0.6)
    chains.fill[chains.fill_index[2], :, ::3] = 0.1
    classifier = classifier_of(module)
    expected = stock_logits(classifier, chains).isnan()
    assert expected.any((1, 2)).tolist() == [False, False, True]
    assert torch.equal(all_logits(make_engine(classifier, "incremental"), chains).isnan(), expected)
    monkeypatch.setattr(engine_module, "cheapest_way", lambda *_, **__: Way(0))
    monkeypatch.setattr(engine_module, "_MANY_SCORES", 0)
    # Whole images, in the network with fused convolutions.
    some = dataclasses.replace(chains, points=(0, 1, 3))
    found = [logits for _, step, logits in make_engine(classifier, "auto").logits(some) if bool((step > 0).all())]
    assert torch.cat(found).isnan().any(1).sum() == 2


@pytest.mark.parametrize(
    ("body", "finite"),
    [
        (lambda x: (x / 2 + x.sigmoid() * x).relu(), True),
        (lambda x: x / x.abs(), False),
        (lambda x: x.log(), False),
        (lambda x: x**0.5, False),
    ],
)
def test_which_networks_stay_finite(body, finite):
    shape = (2, 3, 8, 8)
    traced = trace(Head(function(body), channels=3).eval(), shape, torch.float32, torch.device("cpu"))
    assert traced.stays_finite == finite


def test_public_operations_give_the_same_numbers():
    for module in (network(), settled(Branches(), size=40)):
        classifier = classifier_of(module)
        chains = draw_chains(size=40, steps=4, region=5, chains=4)
        public = IncrementalEngine(classifier, DenseEngine(classifier), required=True, public=True)
        found = all_logits(public, chains)
        expected = all_logits(make_engine(classifier, "incremental"), chains)
        assert float((found - expected).abs().max()) <= 1e-5 * float(expected.std())
        assert torch.equal(found, from_scratch(public, chains))


def test_private_operations_that_are_missing_or_wrong_are_not_used(monkeypatch):
    class Wrong:
        _reorder_linear_weight = staticmethod(lambda weight, rows: weight)
        _linear_pointwise = staticmethod(lambda x, w, b, *rest: F.linear(x, w, b) + 1)

    class Operations:
        mkldnn = Wrong

    kernels._probe_private_linear.cache_clear()
    monkeypatch.setattr(kernels.torch, "ops", Operations)
    assert kernels.private_linear(torch.device("cpu")) is None
    kernels._probe_private_linear.cache_clear()


def test_products_whose_rows_depend_on_their_number_always_have_the_same(monkeypatch):
    monkeypatch.setattr(kernels.Product, "_rows_are_independent", lambda self: False)
    product = kernels.Product(torch.randn(4, 6), None, relu=False, rows=256)
    assert product.counted(1) == product.counted(200) == 256
    classifier, chains = classifier_of(network()), draw_chains(size=40, steps=4, region=5)
    engine = make_engine(classifier, "incremental")
    found = all_logits(engine, chains)
    assert torch.equal(found, from_scratch(engine, chains))


@pytest.mark.parametrize("independent", [True, False])
def test_the_last_batch_is_small_only_where_rows_are_independent(monkeypatch, independent):
    if not independent:
        monkeypatch.setattr(kernels.Product, "_rows_are_independent", lambda self: False)
    body = [nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 8, 3, 2), nn.ReLU()]
    module = settled(nn.Sequential(*body, nn.Flatten(), nn.Linear(8 * 81, 16), nn.ReLU(), nn.Linear(16, 5)), size=40)
    classifier, chains = classifier_of(module), draw_chains(size=40, steps=4, region=5, chains=3)
    engine = make_engine(classifier, "incremental")
    counts = []
    run = tail.Tail._run

    def watched(self):
        self.module.register_forward_pre_hook(lambda module, inputs: counts.append(len(inputs[0])))
        return run(self)

    monkeypatch.setattr(tail.Tail, "_run", watched)
    found = all_logits(engine, chains)
    assert set(counts) == {kernels.GRID if independent else tail.LARGEST_BATCH["cpu"]}
    assert torch.equal(found, from_scratch(engine, chains))
    torch.testing.assert_close(found, stock_logits(classifier, chains), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("at_once", [True, False])
def test_means_do_not_depend_on_the_chains_beside(monkeypatch, at_once):
    module = settled(nn.Sequential(nn.Conv2d(3, 40, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()), size=40)
    monkeypatch.setattr(tail, "_sums_are_independent", lambda *_: at_once)
    classifier, chains = classifier_of(module), draw_chains(size=40, steps=4, region=5, chains=5)
    engine = make_engine(classifier, "incremental")
    found = all_logits(engine, chains)
    assert torch.equal(found, from_scratch(engine, chains))
    torch.testing.assert_close(found, stock_logits(classifier, chains), rtol=1e-5, atol=1e-6)


def test_sums_that_depend_on_the_chains_beside_are_noticed(monkeypatch):
    inner, exact = torch.rand(2, 3, 4, 5), tail._sum_at_once

    def wrong(inner, kind):
        return exact(inner, kind) * (1 + 1e-6 * len(inner))

    monkeypatch.setattr(kernels, "_independent", {})
    assert tail._sums_are_independent(inner.shape[1:], inner.stride(), torch.float32, inner)
    monkeypatch.setattr(kernels, "_independent", {})
    monkeypatch.setattr(tail, "_sum_at_once", wrong)
    assert not tail._sums_are_independent(inner.shape[1:], inner.stride(), torch.float32, inner)


def test_memory_bounds_the_chains_at_a_time():
    classifier, chains = classifier_of(network()), draw_chains(size=40, steps=4, region=5, chains=5)
    engine = make_engine(classifier, "incremental")
    found = all_logits(engine, chains)
    little = make_engine(classifier, "incremental", memory=memory_for(engine, 1))
    assert torch.equal(all_logits(little, chains), found)
    assert little._runner.most == 1
    with pytest.raises(EngineError, match=r"one chain with maps of .* take more than the 1 MB that are allowed"):
        all_logits(make_engine(classifier, "incremental", memory=1_000_000), chains)


ALLOWED = 300_000_000


def memory_taken(points: tuple[int, ...] | None) -> float:
    """Bytes by which scoring raises the peak of this process, which should have done nothing else before.

    What earlier work left free would be taken without a trace.
    """
    classifier = faithmap.load_classifier("squeezenet1_1-embedded", device="cpu")
    random = torch.Generator().manual_seed(0)
    pixels, fill = (torch.rand(1, 3, 224, 224, generator=random) for _ in range(2))
    protocol = faithmap.Protocol.preset(steps=8, region_size=16)
    removal_step = faithmap.removal_steps(torch.randn(16, 224, 224, generator=random), protocol)
    zeros = torch.zeros(16, dtype=torch.int64)
    chains = Chains(pixels, fill, zeros, zeros, removal_step, zeros, 8, points=points)
    engine = make_engine(classifier, "incremental", memory=ALLOWED)
    engine._ready((224, 224))  # tracing imports much
    assert 4 < engine._runner.most < 16
    gc.collect()
    reset(os.getpid())
    before = peak(os.getpid())
    for _ in engine.logits(chains):
        pass
    return (peak(os.getpid()) - before) * 1e6


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are read from Linux")
@pytest.mark.parametrize("points", [None, (0, 8)])
def test_memory_is_a_bound_that_holds(points):
    script = f"from tests.test_incremental_safety import memory_taken; print(memory_taken({points}))"
    root = Path(__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root / "src"), str(root)])}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], env=environment, cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert 0.2 * ALLOWED < float(done.stdout.split()[-1]) < ALLOWED


def test_exhausted_memory_halves_the_batch_of_both_engines(monkeypatch):
    classifier, chains = classifier_of(network()), draw_chains(size=40, steps=4, region=5, chains=5)
    expected = all_logits(make_engine(classifier, "incremental"), chains)
    step, forward = Runner.step, classifier.outputs

    def scarce_step(self, state, changes, before, k):
        if state.chains > 2 and k == 3:
            raise torch.cuda.OutOfMemoryError("none left")
        step(self, state, changes, before, k)

    monkeypatch.setattr(Runner, "step", scarce_step)
    engine = make_engine(classifier, "incremental")
    engine._ready((40, 40)).most = 5
    with pytest.warns(EngineWarning, match="out of memory: going on with 2 chains at a time"):
        found = all_logits(engine, chains)
    assert torch.equal(found, expected)

    def scarce_forward(inputs):
        if len(inputs) > 16:
            raise torch.cuda.OutOfMemoryError("none left")
        return forward(inputs)

    monkeypatch.setattr(classifier, "outputs", scarce_forward)
    dense = make_engine(classifier, "dense", 64)
    with pytest.warns(EngineWarning, match="out of memory: going on with 10 inputs a forward pass"):
        found = all_logits(dense, chains)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_bfloat16_is_opt_in_and_near():
    module = small("squeezenet1_1")
    chains = draw_chains()
    classifier = classifier_of(module)
    exact = all_logits(make_engine(classifier, "dense"), chains)
    for name in ("dense", "incremental"):
        rounded = all_logits(make_engine(classifier, name, precision="bfloat16"), chains)
        difference = (rounded - exact).abs().max() / exact.std()
        assert 1e-4 < difference < 0.2
    assert next(module.parameters()).dtype is torch.float32
    with pytest.raises(EngineError, match="unknown precision 'float16'; did you mean"):
        make_engine(classifier, precision="float16")


def test_tensor_float_32_is_off_while_scores_are_computed_and_restored():
    matmul, before = torch.backends.cuda.matmul, torch.backends.cuda.matmul.allow_tf32
    seen = []

    class Looks(Head):
        def forward(self, x):
            seen.append(matmul.allow_tf32)
            return super().forward(x)

    module = Looks(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 8, 3), channels=8).eval()
    chains = draw_chains(size=40, steps=4, region=5)
    matmul.allow_tf32 = True
    try:
        for name in ("dense", "incremental"):
            for _ in make_engine(classifier_of(module), name).logits(chains):
                assert matmul.allow_tf32 is True
        assert set(seen) == {False}
        seen.clear()
        all_logits(make_engine(classifier_of(module), "dense", tf32=True), chains)
        assert set(seen) == {True}
    finally:
        matmul.allow_tf32 = before


def test_importing_changes_no_setting_of_the_process():
    code = (
        "import ctypes, torch; tf32 = torch.backends.cuda.matmul.allow_tf32, torch.get_num_threads()\n"
        "loaded = []; real = ctypes.CDLL.__getattr__\n"
        "def watch(self, name):\n    loaded.append(name); return real(self, name)\n"
        "ctypes.CDLL.__getattr__ = watch\n"
        "import faithmap, faithmap.inference\n"
        "assert 'mallopt' not in loaded\n"
        "assert tf32 == (torch.backends.cuda.matmul.allow_tf32, torch.get_num_threads())\n"
        "print(faithmap.inference.tune_allocator(), 'mallopt' in loaded)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": "src"})
    assert re.match(r"(True True|False \w+)\n", done.stdout), done.stderr


def test_examine_tells_layer_by_layer():
    cost = examine(classifier_of(small("alexnet")), (224, 224))
    assert cost.reason is None
    assert 3 < cost.gain < 6
    first = cost.layers[0]
    assert (first.name, first.operation, first.path, first.size) == (
        "features.0",
        "convolution + relu",
        "incremental",
        (55, 55),
    )
    assert first.multiply_adds == 55 * 55 * 64 * 3 * 121
    assert 0 < first.changed < 0.03
    shares = [layer.changed for layer in cost.layers]
    assert shares == sorted(shares)
    assert {layer.path for layer in cost.layers[-3:]} == {"dense"}
    gated = examine(classifier_of(Head(nn.Conv2d(3, 4, 1), function(lambda x: x * x.mean()), channels=4)), (32, 32))
    assert gated.stop.startswith("aten.mean.default")


def test_scores_of_both_engines_agree(squeezenet):
    chains = draw_chains(size=224, chains=2, steps=3, region=9)
    arguments = (chains.pixels, torch.tensor([3, 5]), chains.removal_step, chains.fill)
    found = faithmap.score_curves(squeezenet, *arguments, engine="incremental")
    expected = faithmap.score_curves(squeezenet, *arguments, engine="dense")
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_no_chains_and_no_steps():
    chains = draw_chains(size=40, chains=2, steps=4, region=5)
    engine = make_engine(classifier_of(network()), "incremental")
    none = Chains(
        chains.pixels, chains.fill, chains.image[:0], chains.image[:0], chains.removal_step[:0], chains.targets[:0], 4
    )
    assert sum(len(chain) for chain, _, _ in engine.logits(none)) == 0
    still = dataclasses.replace(chains, steps=0)
    expected = stock_logits(engine.classifier, still)
    torch.testing.assert_close(all_logits(engine, still), expected, rtol=1e-4, atol=1e-5)


def test_an_image_given_several_times_is_computed_once(monkeypatch):
    classifier, chains = classifier_of(network()), draw_chains(size=40, chains=4, steps=4, region=5)
    expected = all_logits(make_engine(classifier, "incremental"), chains)
    started = []
    start = Runner.start
    monkeypatch.setattr(
        Runner,
        "start",
        lambda self, image: (started.append(1), start(self, image)),
    )
    spread = dataclasses.replace(chains, pixels=chains.pixels[chains.image], image=torch.arange(4))
    assert torch.equal(all_logits(make_engine(classifier, "incremental"), spread), expected)
    assert len(started) == 2


def test_a_whole_run_gives_the_same_table_with_both_engines(tiny, tmp_path):
    pixels = torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(4))
    tiny.preprocessing = dataclasses.replace(tiny.preprocessing, crop=(24, 24))
    protocol = faithmap.Protocol.preset(steps=6, region_size=5)
    tables = [
        faithmap.evaluate(tiny, pixels, ["sensitivity:l2"], protocol, tmp_path / engine, engine=engine).aopc()
        for engine in ("dense", "incremental")
    ]
    numbers = [table.select_dtypes("number").to_numpy() for table in tables]
    assert abs(numbers[0] - numbers[1]).max() < 1e-6


def test_a_network_in_float64():
    module = network().double()
    chains = draw_chains(size=40, steps=4, region=5)
    found = all_logits(make_engine(classifier_of(module), "incremental"), chains)
    expected = stock_logits(classifier_of(module), chains, torch.float64)
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6)
