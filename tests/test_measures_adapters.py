"""Measures that a user brings: callables, and metrics of Quantus and captum as they are."""

from functools import partial

import numpy as np
import pytest
import torch
from captum.metrics import infidelity, sensitivity_max

import faithmap
from faithmap.attribution import resolve_methods
from faithmap.errors import MeasureError
from faithmap.measures.compute import compute_measures
from faithmap.measures.registry import resolve_measures
from tests.test_measures import heatmaps_of, subject


def values_of(one, measures, names="sensitivity,edge"):
    methods = resolve_methods(names)
    values, failed = compute_measures(one, methods, heatmaps_of(one, methods), resolve_measures(measures))
    return {(v.image, v.method): v.value for v in values}, {(f.image, f.method): f.reason for f in failed}


def spread(classifier, pixels, targets, heatmaps):
    """The standard deviation of a heatmap, with some noise."""
    return heatmaps.std((1, 2)) + float(np.random.rand()) + torch.rand(1)


spread.higher_is_better = False
spread.unit = "relevance"


def test_a_callable_of_ones_own(tiny):
    measure = resolve_measures({"spread": spread})[0]
    assert (measure.name, measure.higher_is_better, measure.unit) == ("spread", False, "relevance")
    assert resolve_measures(spread)[0].name == "spread"
    whole = subject(tiny)
    np.random.seed(0)
    first, failed = values_of(whole, {"spread": spread})
    assert not failed
    assert ("image 0", "random") in first
    torch.manual_seed(5)
    again, _ = values_of(subject(tiny), {"spread": spread}, "edge")
    assert again == {key: value for key, value in first.items() if key in again}  # its randomness is keyed
    assert resolve_measures(lambda *_: 0)[0].higher_is_better


def test_two_callables_are_the_same_measure_when_they_compute_the_same():
    def made(factor):
        return lambda classifier, pixels, targets, heatmaps: factor * heatmaps.mean((1, 2))

    one, same, other = (resolve_measures({"mean": made(factor)})[0] for factor in (2, 2, 3))
    assert one.spec == same.spec != other.spec
    with pytest.raises(MeasureError, match="two measures are called 'mean'"):
        resolve_measures([{"mean": made(2)}, {"mean": made(3)}])


def test_random_states_are_as_they_were(tiny):
    np.random.seed(3)
    torch.manual_seed(3)
    expected = np.random.rand(), float(torch.rand(1))
    np.random.seed(3)
    torch.manual_seed(3)
    values_of(subject(tiny), {"spread": spread})
    assert (np.random.rand(), float(torch.rand(1))) == expected


def test_metrics_of_quantus_as_they_are(tiny):
    quantus = pytest.importorskip("quantus")
    sparse = quantus.Sparseness(disable_warnings=True, abs=True, normalise=False)
    robust = quantus.MaxSensitivity(nr_samples=3, lower_bound=0.1, disable_warnings=True, normalise=False)
    mass = quantus.RelevanceMassAccuracy(disable_warnings=True)
    random = quantus.MPRT(disable_warnings=True, return_average_correlation=True)
    measures = resolve_measures([sparse, robust, mass, random])
    assert [(m.name, m.higher_is_better, m.set) for m in measures] == [
        ("Sparseness", True, "complexity"),
        ("MaxSensitivity", False, "robustness"),
        ("RelevanceMassAccuracy", True, "localisation"),
        ("MPRT", False, "randomisation"),
    ]
    whole = subject(tiny)
    found, failed = values_of(whole, {"gini": sparse})
    ours, _ = values_of(whole, "gini")
    assert not failed
    assert found == pytest.approx(ours, abs=1e-4)  # Quantus adds 1e-7 to every pixel
    found, failed = values_of(whole, {"robust": robust})
    assert found["image 0", "sensitivity:l2"] > 0
    assert "cannot be computed anew" in failed["image 0", "random"]
    again, _ = values_of(subject(tiny), {"robust": robust}, "sensitivity")
    assert again["image 1", "sensitivity:l2"] == found["image 1", "sensitivity:l2"]
    found, _ = values_of(whole, {"mass": mass})
    ours, _ = values_of(whole, "relevance-mass")
    assert found["image 0", "edge"] == pytest.approx(ours["image 0", "edge"], abs=1e-5)
    found, _ = values_of(whole, {"mprt": random})
    assert found["image 0", "edge"] == pytest.approx(1)
    assert found["image 0", "sensitivity:l2"] < 0.9
    found, failed = values_of(whole, {"mprt": quantus.MPRT(disable_warnings=True)})
    assert not found
    assert "expected one: set it up so that it averages" in failed["image 0", "edge"]


def noise(inputs):
    """captum's perturbation: what is taken away, and the rest."""
    drawn = torch.randn_like(inputs) * 0.1
    return drawn, inputs - drawn


def test_metrics_of_captum_as_they_are(tiny):
    measures = resolve_measures([partial(infidelity, perturb_func=noise, n_perturb_samples=5), sensitivity_max])
    assert [(m.name, m.higher_is_better, m.set) for m in measures] == [
        ("infidelity", False, "faithfulness"),
        ("sensitivity_max", False, "robustness"),
    ]
    whole = subject(tiny)
    found, failed = values_of(whole, measures[0])
    assert not failed
    assert all(value >= 0 for value in found.values())
    assert values_of(subject(tiny), measures[0], "edge")[0]["image 2", "edge"] == found["image 2", "edge"]
    found, failed = values_of(whole, measures[1])
    assert found["image 0", "sensitivity:l2"] > found["image 0", "edge"] > 0
    assert "cannot be computed anew" in failed["image 0", "random"]


def test_what_is_not_a_measure_is_refused():
    def measure(*_):
        return 0

    measure.set = "taste"
    with pytest.raises(MeasureError, match="belongs to set 'taste'"):
        resolve_measures(measure)
    assert faithmap.FaithmapError in MeasureError.__mro__
