"""Networks are told apart that have the same weights and the same `repr`."""

import copy
import functools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import faithmap
from faithmap.errors import StoreError
from tests.conftest import TinyNet


class Scaled(nn.Module):
    def __init__(self, body, factor=2.0, shift=(0.0, 1.0)):
        super().__init__()
        self.body, self.factor, self.shift = body, factor, shift
        self.register_buffer("hidden", torch.zeros(2), persistent=False)
        self.calls, self.seen = 0, []

    def forward(self, x):
        self.calls += 1
        self.seen.append(len(x))
        return self.body(x) * self.factor + self.shift[0] + self.hidden[0]


def made(**options):
    torch.manual_seed(0)
    return Scaled(TinyNet(), **options)


def with_hidden():
    module = made()
    module.hidden += 1
    return module


def with_function(function):
    module = made()
    module.forward = functools.partial(function, module) if function is doubled else function.__get__(module)
    return module


def doubled(module, x):
    return 2 * module.body(x)


def tripled(module, x):
    return 3 * module.body(x)


def hooked(factor):
    module = made()
    module.body.register_forward_hook(lambda _, inputs, output: output * factor)
    return module


def in_closure(factor):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = made()

        def forward(self, x):
            return self.body(x) * factor

    return Scaled()


def twin(body):
    """A class of the same name whose forward pass is another."""

    class Scaled(nn.Module):
        __qualname__ = "Scaled"

        def __init__(self):
            super().__init__()
            self.body = body

        def forward(self, x):
            return F.relu(self.body(x))

    return Scaled()


OTHERS = {
    "number": lambda: made(factor=3.0),
    "tuple": lambda: made(shift=(1.0, 1.0)),
    "buffer that is not saved": with_hidden,
    "forward of its own": lambda: with_function(tripled),
    "hook": lambda: hooked(1.0),
    "code": lambda: twin(TinyNet()),
}


def code(module):
    return faithmap.Classifier(module, name="network").code()


@pytest.mark.parametrize("other", OTHERS)
def test_what_decides_the_logits_is_part_of_its_code(other):
    assert code(made()) == code(made()) == code(copy.deepcopy(made()))
    assert code(OTHERS[other]()) == code(OTHERS[other]()) != code(made())


def test_of_what_packages_brought_there_is_none():
    assert code(torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.Flatten())) == ""
    assert faithmap.load_classifier("squeezenet1_1-embedded", "cpu").code() == ""


@pytest.mark.parametrize("make", [hooked, in_closure])
def test_a_number_around_a_function_counts(make):
    assert code(make(2.0)) == code(make(2.0)) != code(make(3.0))


class Deaf:
    def __getattr__(self, name):
        raise RuntimeError("no")


def test_a_class_may_hold_what_cannot_be_asked():
    module = in_closure(2.0)
    before = code(module)
    type(module).deaf = Deaf()
    assert code(module) == before


def test_what_a_network_writes_down_does_not_count():
    module = made()
    before = code(module)
    module(torch.rand(2, 3, 24, 24))
    assert (module.calls, module.seen) == (1, [2])
    assert code(module) == before


def test_a_run_is_not_continued_with_another_number(tmp_path):
    pixels, protocol = torch.rand(2, 3, 24, 24), faithmap.Protocol.preset("samek2017", steps=2, region_size=4, draws=1)
    for factor in (2.0, 2.0):
        network = faithmap.Classifier(made(factor=factor), name="network")
        faithmap.evaluate(network, pixels, "edge", protocol, tmp_path / "run", engine="dense")
    network = faithmap.Classifier(made(factor=3.0), name="network")
    with pytest.raises(StoreError, match="classifier code"):
        faithmap.evaluate(network, pixels, "edge", protocol, tmp_path / "run", engine="dense")
