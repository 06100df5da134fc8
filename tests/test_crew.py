"""Several runners at a time: the same bits, nothing left behind."""

import threading

import pytest
import torch
import torchvision

from faithmap.inference import make_engine
from faithmap.inference.incremental.runner import Runner, network_of, runners_for
from tests.test_incremental import all_logits, classifier_of, draw_chains, settled


def small():
    """Most of what a step costs is before the mean."""
    layers = [torch.nn.Conv2d(3, 16, 3, 2, 1), torch.nn.Conv2d(16, 48, 3, 2, 1), torch.nn.Conv2d(48, 32, 3, 1, 1)]
    body = [one for layer in layers for one in (layer, torch.nn.ReLU())]
    return settled(
        torch.nn.Sequential(*body, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(32, 7))
    )


@pytest.fixture
def threads():
    """Sets torch's number of threads; as before afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def in_a_thread(function):
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.parametrize(("count", "runners"), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 1), (6, 3), (8, 4), (16, 4)])
def test_runners_share_the_threads_evenly(threads, count, runners):
    threads(count)
    network = network_of(classifier_of(small()), (64, 64))
    assert runners_for(network, torch.device("cpu")) == runners
    assert runners_for(network, torch.device("meta")) == 1


def test_a_tail_of_whole_maps_has_one_runner(threads):
    threads(4)
    sizes = {"alexnet": 4, "resnet18": 4, "densenet121": 1, "mobilenet_v2": 1}
    found = {name: network_of(classifier_of(torchvision.models.get_model(name).eval()), (224, 224)) for name in sizes}
    assert {name: runners_for(network, torch.device("cpu")) for name, network in found.items()} == sizes
    whole = found["alexnet"]
    early = network_of(
        classifier_of(torchvision.models.alexnet().eval()), (224, 224), until=whole.operation(whole.layers[2])
    )
    assert runners_for(early, torch.device("cpu")) == 1


def test_bits_do_not_depend_on_the_number_of_runners(threads):
    classifier, chains = classifier_of(small()), draw_chains(size=72, chains=5, steps=6, images=3)
    found = {}
    for count in (1, 2, 4):
        threads(count)
        engine = make_engine(classifier, "incremental")
        found[count] = all_logits(engine, chains)
        assert len(engine._crew.runners) == count
        assert [in_a_thread(torch.get_num_threads), torch.get_num_threads()] == [count, count]
        assert all(one.submit(torch.get_num_threads).result() == 1 for one in engine._crew._threads)
    assert torch.equal(found[1], found[2])
    assert torch.equal(found[1], found[4])


def test_another_number_of_threads_prepares_anew(threads):
    classifier, chains = classifier_of(small()), draw_chains()
    engine = make_engine(classifier, "incremental")
    crews = []
    for count in (2, 2, 1):
        threads(count)
        all_logits(engine, chains)
        crews.append(engine._crew)
    assert crews[0] is crews[1]
    assert [len(crew.runners) for crew in crews] == [2, 2, 1]


def test_a_runners_error_is_raised_and_the_next_call_is_right(threads, monkeypatch):
    threads(2)
    classifier, chains = classifier_of(small()), draw_chains(chains=4)
    engine = make_engine(classifier, "incremental")
    expected = all_logits(engine, chains)
    right, running = Runner.step, []

    def failing(self, state, changes, before, step):
        running.append(threading.get_ident())
        if step == 3 and self is engine._crew.runners[1]:
            raise ValueError("a broken step")
        right(self, state, changes, before, step)

    monkeypatch.setattr(Runner, "step", failing)
    with pytest.raises(ValueError, match="a broken step"):
        all_logits(engine, chains)
    assert len(set(running)) == 2
    monkeypatch.setattr(Runner, "step", right)
    assert torch.equal(all_logits(engine, chains), expected)


def test_scores_that_nobody_asks_for_any_more_are_not_computed(threads, monkeypatch):
    threads(2)
    classifier, chains = classifier_of(small()), draw_chains(size=96, chains=4, steps=500, region=4)
    engine = make_engine(classifier, "incremental")
    expected = all_logits(engine, chains)
    right, steps = Runner.step, []

    def counted(self, *arguments):
        steps.append(self)
        right(self, *arguments)

    monkeypatch.setattr(Runner, "step", counted)
    for _ in engine.logits(chains):
        break
    seen = len(steps)
    assert seen < 700
    assert torch.equal(all_logits(engine, chains), expected)
    assert len(steps) == seen + 1000
