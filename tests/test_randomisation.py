import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import faithmap
from faithmap.errors import HeatmapError, InputError, MethodError
from faithmap.measures.randomisation import (
    randomisation_check,
    randomisation_table,
    rank_correlation,
    redrawn,
    weighted_layers,
)


def rank_correlation_twin(a, b):
    """Pearson's correlation of ranks that are counted: 1 + values below + half of the other equal ones."""

    def ranks(values):
        return [1 + sum(w < v for w in values) + (sum(w == v for w in values) - 1) / 2 for v in values]

    p, q = ranks(a), ranks(b)
    mean = (len(a) + 1) / 2
    both = sum((x - mean) * (y - mean) for x, y in zip(p, q, strict=True))
    own = sum((x - mean) ** 2 for x in p) * sum((y - mean) ** 2 for y in q)
    return both / own**0.5 if own else float("nan")


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-3, 3)), min_size=2, max_size=20))
def test_rank_correlation_equals_the_twin(pairs):
    a, b = zip(*pairs, strict=True)
    found = rank_correlation(np.array(a, dtype=float), np.array(b, dtype=float))
    assert found == pytest.approx(rank_correlation_twin(a, b), nan_ok=True)


def colours(inputs, targets):
    """A heatmap that never looks at the network."""
    return inputs.mean(1)


def pixels(count=3):
    return torch.rand(count, 3, 24, 24, generator=torch.Generator().manual_seed(0))


def test_what_never_looks_at_the_network_does_not_change(tiny):
    check = randomisation_check(tiny, pixels(), {"colours": colours, "gradient": "sensitivity:l2"})
    assert len(check) == 2 * 5 * 3
    assert check[check.method == "colours"].absolute.tolist() == pytest.approx([1] * 15)
    table = randomisation_table(check).set_index("method")
    assert list(table.index) == ["gradient", "colours"]
    assert table.loc["gradient", 1.0] < 0.6
    assert table.loc["gradient", 0.0] < 1


def test_the_correlations_are_those_of_the_heatmaps(tiny):
    check = randomisation_check(tiny, pixels(), "lrp-epsilon:0.01", shares=[0.5], seed=7)
    targets = tiny.predict(pixels())
    other = redrawn(tiny, 2, seed=7)
    a, b = (faithmap.heatmaps(c, pixels(), targets, "lrp-epsilon:0.01").double().numpy() for c in (tiny, other))
    assert check.layers.tolist() == [2, 2, 2]
    assert check.lowest.tolist() == ["features.3"] * 3
    for row in check.itertuples():
        x, y = a[row.image].ravel(), b[row.image].ravel()
        assert row.signed == pytest.approx(rank_correlation(x, y), abs=1e-6)
        assert row.absolute == pytest.approx(rank_correlation(abs(x), abs(y)), abs=1e-6)


def test_layers_are_redrawn_from_the_top_each_by_its_own_key(tiny):
    before = {name: value.clone() for name, value in tiny.module.state_dict().items()}
    assert weighted_layers(tiny.module) == ["features.0", "features.3", "head"]
    torch.manual_seed(0)
    one, two = redrawn(tiny, 1), redrawn(tiny, 2)
    torch.manual_seed(5)
    again = redrawn(tiny, 2)
    for name, value in tiny.module.state_dict().items():
        assert torch.equal(value, before[name])  # the trained network stays as it is
        top = name.startswith("head")
        assert torch.equal(one.module.state_dict()[name], value) != top
        assert torch.equal(two.module.state_dict()[name], value) == name.startswith("features.0")
        assert torch.equal(two.module.state_dict()[name], again.module.state_dict()[name])
        if top:
            assert torch.equal(one.module.state_dict()[name], two.module.state_dict()[name])
    assert not torch.equal(redrawn(tiny, 1, seed=1).module.head.weight, one.module.head.weight)


class Scale(torch.nn.Module):
    """A layer without a way to reset itself."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(10_000) * 3 + 2)


def test_layers_of_their_own_kind_keep_mean_and_spread():
    classifier = faithmap.Classifier(torch.nn.Sequential(Scale()))
    weight = redrawn(classifier, 1).module[0].weight.detach()
    assert not torch.equal(weight, classifier.module[0].weight)
    assert float(weight.mean()) == pytest.approx(2, abs=0.2)
    assert float(weight.std()) == pytest.approx(3, abs=0.2)


def fails_on_the_second(inputs, targets):
    """Fails for a whole batch, then for one image alone."""
    dark = inputs.mean((1, 2, 3)) < inputs.mean() - 0.5 if len(inputs) > 1 else inputs.mean((1, 2, 3)) < -1
    if dark.any():
        raise HeatmapError("too dark.", int(dark.nonzero()[0]))
    return inputs.mean(1)


def test_an_image_without_a_heatmap_is_left_out_alone(tiny):
    images = pixels()
    images[1] = 0
    check = randomisation_check(tiny, images, {"mine": fails_on_the_second}, shares=[1.0])
    assert check.absolute.isna().tolist() == [False, True, False]


def test_what_cannot_be_checked_is_refused(tiny):
    with pytest.raises(MethodError, match="besides 'random'"):
        randomisation_check(tiny, pixels(), "random")
    with pytest.raises(InputError, match=r"a share of the layers is 1.5"):
        randomisation_check(tiny, pixels(), {"colours": colours}, shares=[1.5])
    bare = faithmap.Classifier(torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()))
    with pytest.raises(InputError, match="no layer with weights"):
        randomisation_check(bare, pixels(), {"colours": colours})
