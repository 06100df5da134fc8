"""Scores at some of the steps: the same numbers as at all of them, for less work."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import faithmap
from faithmap.errors import EngineError
from faithmap.inference import Chains, examine, make_engine, score_chains
from faithmap.inference.incremental import engine as engine_module
from faithmap.inference.incremental import runner as runner_module
from faithmap.inference.incremental.costs import Way, cheapest_way, narrow_ends
from faithmap.inference.incremental.geometry import Pixels, bounding_rectangles, covered
from faithmap.inference.incremental.runner import network_of
from tests.test_incremental import all_logits, classifier_of, draw_chains, from_scratch, settled, small
from tests.test_incremental_networks import Head

POINTS = [(0, 12), (0, 1, 3, 4, 9), (0,)]
# Zeros around a map, and −∞ around one that may be negative.
PADDED = [nn.Conv2d(3, 8, 3), nn.ZeroPad2d((0, 1, 0, 1)), nn.MaxPool2d(3, 2), nn.Conv2d(8, 8, 3, 1, 2, dilation=2)]
SURROUNDED = [
    nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3), nn.MaxPool2d(3, 2, 1), nn.Conv2d(8, 8, 3),
    nn.ConstantPad2d(2, 0.5),
]  # fmt: skip


def points_of(engine, chains):
    """Logits (chains, points, classes); every pair must come exactly once, and no other."""
    column = {step: at for at, step in enumerate(chains.scored)}
    found = {}
    for chain, step, logits in engine.logits(chains):
        for row, key in enumerate(zip(chain.tolist(), step.tolist(), strict=True)):
            assert key not in found
            assert key[1] in column
            found[key] = logits[row].float()
    assert len(found) == len(chains) * len(column)
    return torch.stack([torch.stack([found[chain, step] for step in column]) for chain in range(len(chains))])


def network(body):
    if body == "squeezenet1_1":
        return small(body)
    return settled(Head(*{"padded": PADDED, "surrounded": SURROUNDED}[body], channels=8), size=64)


@pytest.mark.parametrize("body", ["squeezenet1_1", "padded"])
def test_bits_do_not_depend_on_the_points(body):
    classifier, chains = classifier_of(network(body)), draw_chains(size=56, chains=4, steps=12, region=7)
    engine = make_engine(classifier, "incremental")
    every = all_logits(engine, chains)
    for points in POINTS:
        some = replace(chains, points=points)
        assert torch.equal(points_of(engine, some), every[:, list(points)])
    two = replace(chains.take(torch.tensor([3, 1])), points=(0, 3, 7, 12))
    assert torch.equal(points_of(engine, two), every[[3, 1]][:, [0, 3, 7, 12]])


def test_segments_of_any_shape():
    classifier, chains = classifier_of(network("padded")), draw_chains(size=64, chains=3, steps=12)
    random = torch.Generator().manual_seed(3)
    scattered = torch.randint(0, 13, (3, 64, 64), generator=random) * (torch.rand(3, 64, 64, generator=random) < 0.05)
    chains = replace(chains, removal_step=scattered)
    engine = make_engine(classifier, "incremental")
    every = all_logits(engine, chains)
    assert torch.equal(points_of(engine, replace(chains, points=(0, 4, 5, 12))), every[:, [0, 4, 5, 12]])


def test_the_dense_engine_runs_the_asked_steps_only_and_a_common_end_once(monkeypatch):
    classifier = classifier_of(network("padded"))
    chains = draw_chains(size=64, chains=4, steps=12)
    one = chains.removal_step[1]
    chains.removal_step[3] = torch.where(one > 0, 13 - one, 0)  # the same image and fill, the other way round
    engine = make_engine(classifier, "dense", 16)
    every = all_logits(engine, chains)
    seen = []
    forward = engine.forward
    monkeypatch.setattr(engine, "forward", lambda *given: seen.append(len(given[0])) or forward(*given))
    for points in POINTS:
        seen.clear()
        some = replace(chains, points=points)
        assert torch.equal(points_of(engine, some), every[:, list(points)])
        assert sum(seen) == 2 + 4 * (len(points) - 1) - (points[-1] == 12)  # two images, and a common end


@pytest.mark.parametrize("engine", ["auto", "incremental", "dense"])
@pytest.mark.parametrize("how", [{}, {"restore": True}, {"imputed": True}])
def test_curves_at_some_points(tiny, engine, how):
    chains = draw_chains(size=24, chains=3, images=3, steps=6, region=5)
    images, noise = chains.pixels, chains.fill * (0.01 if how.get("imputed") else 1)
    arguments = (tiny, images, torch.tensor([0, 2, 1]), chains.removal_step, noise)
    every = faithmap.inference.score_curves(*arguments, engine=engine, **how)
    some = faithmap.inference.score_curves(*arguments, engine=engine, points=[0, 2, 3, 6], **how)
    for full, few in zip(every, some, strict=True):
        assert few.shape == (3, 4)
        torch.testing.assert_close(few, full[:, [0, 2, 3, 6]], rtol=1e-4, atol=1e-5)


def test_points_that_cannot_be():
    chains = draw_chains(size=24, steps=6, region=5)
    for points in ((), (1, 2), (0, 2, 2), (0, 3, 1), (0, 7)):
        with pytest.raises(EngineError, match="expected ascending steps from 0 to at most 6, 0 included"):
            replace(chains, points=points)


def test_the_cheaper_way_is_chosen_chain_by_chain(monkeypatch):
    """Leading points by lists of pixels, the others as whole images; each to the bit what that engine computes."""
    classifier = classifier_of(network("padded"))
    chains = replace(draw_chains(size=64, chains=4, steps=12), points=(0, 1, 2, 5, 12))
    chains.removal_step[1] = torch.where(chains.removal_step[1] > 6, 0, chains.removal_step[1])  # smaller regions
    small_ones = []

    def way(network, region, points, **_):
        small_ones.append(region)
        return Way(3 if region < 7 else 0)

    monkeypatch.setattr(engine_module, "cheapest_way", way)
    found = points_of(make_engine(classifier, "auto"), chains)
    assert min(small_ones) < 7 <= max(small_ones)
    incremental = points_of(make_engine(classifier, "incremental"), chains)
    dense = points_of(make_engine(classifier, "dense"), chains)
    assert torch.equal(found[1, :3], incremental[1, :3])
    assert torch.equal(found[1, 3:], dense[1, 3:])
    assert torch.equal(found[[0, 2, 3]], dense[[0, 2, 3]])


def test_the_cost_model_takes_what_is_cheaper():
    network_cut = network_of(faithmap.load_classifier("squeezenet1_1-embedded", device="cpu"), (224, 224))
    assert cheapest_way(network_cut, 16, range(197)) == Way(197)
    assert cheapest_way(network_cut, 16, (0, 1, 2, 3, 100, 196), shared_end=True) == Way(4)
    assert cheapest_way(network_cut, 16, (*range(40), 60, *range(61, 100))) == Way(80)  # across a gap that does not pay
    assert cheapest_way(network_cut, 16, (0, 1), single=True) == Way(2)
    assert cheapest_way(network_cut, 200, (0, 1), single=True) == Way(0)
    few = (0, 3, 13, 29, 49, 73, 98, 123, 147, 167, 183, 193, 196)
    way = cheapest_way(network_cut, 16, few)  # the first maps alone
    assert way.leading == 13
    assert network_cut.layers[way.layers - 1].size == (28, 28)
    assert cheapest_way(network_cut, 16, few, shared_end=True).leading == 12
    assert cheapest_way(network_cut, 16, (0,)) == Way(0)


@pytest.mark.parametrize("body", ["squeezenet1_1", "padded", "mobilenet_v2", "shufflenet_v2_x0_5"])
def test_an_early_end_of_the_front_gives_the_same_scores(body, monkeypatch):
    """Behind each layer that is all that the rest reads; to the bit whatever chains are scored together."""
    classifier = classifier_of(small(body) if body.endswith(("v2", "x0_5")) else network(body))
    chains = replace(draw_chains(size=56, chains=5, steps=12, region=7), points=(0, 2, 3, 7, 12))
    dense = points_of(make_engine(classifier, "dense"), chains)
    front = network_of(classifier, (56, 56))
    ends = narrow_ends(front)
    assert len(ends) >= 3
    monkeypatch.setattr(engine_module, "WORTHWHILE", 0.0)
    for layers in ends[:: max(1, len(ends) // 4)]:
        monkeypatch.setattr(engine_module, "cheapest_way", lambda *_, layers=layers, **__: Way(4, layers))
        engine = make_engine(classifier, "auto")
        found = points_of(engine, chains)
        early = engine._early[layers].plan.network
        assert [one.name for one in early.layers] == [one.name for one in front.layers[:layers]]
        assert len(early.tail_inputs) == 1
        assert (found - dense).abs().max() < 1e-4 * dense.std()
        assert torch.equal(found[:, 4], dense[:, 4])  # the last point is an image like others
        some = replace(chains.take(torch.tensor([4, 1])), points=(0, 3, 7, 12))
        monkeypatch.setattr(engine_module, "cheapest_way", lambda *_, layers=layers, **__: Way(3, layers))
        assert torch.equal(points_of(engine, some), found[[4, 1]][:, [0, 2, 3, 4]])


def test_whom_a_chain_meets_changes_no_bit_of_it(monkeypatch):
    """A chain whose end is no whole removal does not take the common end from the others."""
    classifier = classifier_of(network("squeezenet1_1"))
    whole = torch.arange(64).reshape(8, 8).add(1).repeat_interleave(7, 0).repeat_interleave(7, 1)
    part = torch.where(whole > 63, 0, whole)
    images = draw_chains(size=56, chains=3)
    chains = replace(images, removal_step=torch.stack([whole, part, whole.flip(0)]).int(), steps=64, points=(0, 9, 64))
    asked = []

    def way(*_, shared_end, **__):
        asked.append(shared_end)
        return Way(2 if shared_end else 3)

    monkeypatch.setattr(engine_module, "cheapest_way", way)
    engine = make_engine(classifier, "auto")
    together = points_of(engine, chains)
    assert sorted(asked) == [False, True]
    for row in range(3):
        assert torch.equal(points_of(engine, chains.take(torch.tensor([row]))), together[row : row + 1])
    dense, own = (points_of(make_engine(classifier, name), chains) for name in ("dense", "incremental"))
    assert torch.equal(together[[0, 2], 2], dense[[0, 2], 2])
    assert torch.equal(together[1], own[1])


def test_layers_behind_which_one_map_is_read():
    front = network_of(classifier_of(network("squeezenet1_1")), (56, 56))
    for count in range(2, len(front.layers)):
        first = set(front.layers[:count])
        read = {source for layer in front.layers[count:] for source in layer.inputs}
        read |= {one.layer for one in front.tail_inputs}
        assert (count in narrow_ends(front)) == (len(first & read) == 1)


def early(monkeypatch, layers=4):
    monkeypatch.setattr(engine_module, "cheapest_way", lambda *_, **__: Way(3, layers))
    return classifier_of(network("squeezenet1_1")), replace(draw_chains(size=56, steps=12, region=7), points=(0, 3, 12))


def test_a_wrong_early_end_is_noticed(monkeypatch):
    classifier, chains = early(monkeypatch)
    dense = points_of(make_engine(classifier, "dense"), chains)
    right = runner_module.Tail._run
    monkeypatch.setattr(runner_module.Tail, "_run", lambda self: (*(found := right(self))[:2], found[2] + 0.01))
    engine = make_engine(classifier, "auto")
    with pytest.warns(faithmap.errors.EngineWarning, match="differ from the network's"):
        assert torch.equal(points_of(engine, chains), dense)
    assert engine.reason is not None


def test_an_early_end_without_memory_or_private_operations(monkeypatch):
    classifier, chains = early(monkeypatch)
    dense = points_of(make_engine(classifier, "dense"), chains)
    engine = make_engine(classifier, "auto")
    points_of(engine, replace(chains, points=(0, *range(1, 13))))
    engine.memory = engine._runner.plan.bytes_once()
    assert torch.equal(points_of(engine, chains), dense)
    assert engine._early == {4: None}
    monkeypatch.delattr(torch._C._nn, "mkldnn_reorder_conv2d_weight")
    other = make_engine(classifier, "auto")
    assert (points_of(other, chains) - dense).abs().max() < 1e-4 * dense.std()
    assert other._early[4] is not None


def test_where_memory_is_bounded_one_runner_at_a_time_keeps_maps(monkeypatch):
    classifier, chains = early(monkeypatch)
    engine = make_engine(classifier, "auto", memory=4 << 30)
    for points, whole in (((0, 3, 12), 0), (range(13), 1), ((0, 3, 12), 0)):
        points_of(engine, replace(chains, points=tuple(points)))
        assert [engine._runner.bytes_kept() > 0, engine._early[4].bytes_kept() > 0] == [whole, 1 - whole]
    engine.memory = None
    points_of(engine, replace(chains, points=tuple(range(13))))
    assert engine._runner.bytes_kept() > 0
    assert engine._early[4].bytes_kept() > 0


def test_a_single_step_over_much_of_the_image_is_run_as_an_image():
    """Scattered pixels change everything; a window changes little. Every chain is judged for itself."""
    classifier = faithmap.load_classifier("squeezenet1_1-embedded", device="cpu")
    random = torch.Generator().manual_seed(0)
    pixels, fill = (torch.rand(1, 3, 96, 96, generator=random) for _ in range(2))
    removal_step = (torch.rand(3, 96, 96, generator=random) < 0.02).int()
    removal_step[1] = 0
    removal_step[1, 40:50, 3:12] = 1
    zeros = torch.zeros(3, dtype=torch.int64)
    chains = Chains(pixels, fill, zeros, zeros, removal_step, zeros, 1)
    found = all_logits(make_engine(classifier, "auto"), chains)
    dense, incremental = (all_logits(make_engine(classifier, name), chains) for name in ("dense", "incremental"))
    assert torch.equal(found[[0, 2]], dense[[0, 2]])
    assert torch.equal(found[1], incremental[1])


def test_examine_says_which_way_is_taken():
    classifier = classifier_of(network("squeezenet1_1"))
    assert examine(classifier, (64, 64)).leading is None
    assert examine(classifier, (64, 64), points=range(9), region=4).leading == 9
    far = examine(classifier, (64, 64), points=(0, 8, 16), region=16)
    assert (far.leading, far.until) == (0, None)
    some = examine(classifier, (64, 64), points=(0, 1, 3, 6, 9, 12, 15, 18), region=8)
    assert some.leading == 8
    assert some.until is not None


def test_rectangles_of_a_single_step_are_those_of_the_first_of_several():
    steps = torch.zeros((5, 20, 30), dtype=torch.int32)
    steps[0, 3:5, 7:9], steps[0, 9, 9], steps[1, 0, 0], steps[2, 19, 29], steps[4] = 1, 2, 1, 1, 1
    first = bounding_rectangles(steps, 2)[:, :1]
    assert torch.equal(bounding_rectangles(steps, 1), first)
    assert first.squeeze(1).T.tolist() == [[3, 5, 7, 9], [0, 1, 0, 1], [19, 20, 29, 30], [0, 0, 0, 0], [0, 20, 0, 30]]


def test_covered_pixels_are_those_inside_a_rectangle():
    random = torch.Generator().manual_seed(0)
    size, steps, chains = (9, 7), 4, 3
    low = torch.stack([torch.randint(0, n, (steps, chains), generator=random) for n in size])
    high = torch.stack([torch.randint(0, n + 1, (steps, chains), generator=random) for n in size])
    rectangles = torch.stack([low[0], high[0], low[1], high[1]])
    rectangles[:, (high <= low).any(0)] = 0  # empty
    rectangles[:, 0, 0] = torch.tensor([0, 9, 0, 7])  # the whole map
    expected = torch.zeros(chains, *size, dtype=torch.bool)
    for step in range(steps):
        for chain in range(chains):
            top, bottom, left, right = rectangles[:, step, chain].tolist()
            expected[chain, top:bottom, left:right] = True
    assert not expected.all()
    assert torch.equal(covered(rectangles, size), expected)
    pixels = Pixels.inside_any(rectangles, size)
    assert torch.equal(torch.stack([pixels.chain, pixels.row, pixels.column], 1), expected.nonzero())


@pytest.mark.parametrize("body", ["squeezenet1_1", "padded", "surrounded"])
def test_single_steps_are_undone_to_the_bit(body, monkeypatch):
    """More chains than are kept, of three images: most find their maps as the chain before has left them.

    The last chain is one of fewer than are kept, whose maps lie in the memory of these.
    """
    classifier = classifier_of(network(body))
    chains = draw_chains(size=56, chains=13, steps=1, region=17, images=3)
    engine = make_engine(classifier, "incremental")
    expected = all_logits(engine, chains)  # thirteen are kept: nothing is undone
    undone = []
    restore = runner_module.Runner.restore
    monkeypatch.setattr(runner_module.Runner, "restore", lambda *given: undone.append(1) or restore(*given))
    monkeypatch.setattr(runner_module, "FEW_CHAINS", {"cpu": 2})
    assert torch.equal(all_logits(engine, chains), expected)
    assert len(undone) > 3
    assert torch.equal(expected, from_scratch(engine, chains))


def test_scores_come_in_the_order_of_the_points(tiny):
    chains = draw_chains(size=24, chains=3, steps=6, region=5)
    engine = make_engine(tiny, "dense")
    logit, probability = score_chains(engine, chains)
    some = score_chains(engine, replace(chains, points=(0, 5, 6)))
    assert torch.equal(some[0], logit[:, [0, 5, 6]])
    assert torch.equal(some[1], probability[:, [0, 5, 6]])
