"""Where the truth is known: masks, against Quantus and plain loops."""

import numpy as np
import pytest
import torch

from faithmap.errors import MeasureError
from faithmap.measures import localisation
from tests.reference import measures as twin


def case(seed=0):
    generator = torch.Generator().manual_seed(seed)
    heatmaps = torch.randn(4, 12, 15, generator=generator)
    masks = torch.zeros(4, 12, 15, dtype=torch.bool)
    for at in range(4):
        masks[at, at : at + 5, 3 : 7 + at] = True
    return heatmaps, masks


def lists(one):
    return [m.tolist() for m in one]


def test_they_equal_the_definitions():
    heatmaps, masks = case()
    pairs = list(zip(lists(heatmaps), lists(masks), strict=True))
    for tolerance in (0, 2):
        found = localisation.pointing_game(heatmaps, masks, tolerance=tolerance)
        assert found.tolist() == [twin.pointing_game(h, m, tolerance) for h, m in pairs]
    assert localisation.relevance_mass(heatmaps, masks).tolist() == pytest.approx(
        [twin.relevance_mass(h, m) for h, m in pairs]
    )
    assert localisation.relevance_rank(heatmaps, masks).tolist() == pytest.approx(
        [twin.relevance_rank(h, m) for h, m in pairs]
    )
    area = masks.double().mean((1, 2))
    assert localisation.attribution_localisation(heatmaps, masks).tolist() == pytest.approx(
        [twin.relevance_mass(h, m) / float(a) for (h, m), a in zip(pairs, area, strict=True)]
    )


def test_the_complement_is_measured_by_the_same_functions():
    heatmaps, masks = case(1)
    assert localisation.background_mass(heatmaps, masks).tolist() == pytest.approx(
        (1 - localisation.relevance_mass(heatmaps, masks)).tolist()
    )
    assert localisation.background_rank(heatmaps, masks).tolist() == pytest.approx(
        localisation.relevance_rank(heatmaps, ~masks).tolist()
    )
    hit = localisation.pointing_game(heatmaps, masks, tolerance=0)
    assert (localisation.background_pointing(heatmaps, masks) == 100 - hit).all()


def test_they_equal_quantus():
    quantus = pytest.importorskip("quantus")
    heatmaps, masks = case(2)
    positive = heatmaps.clamp(min=0) + 1e-3  # Quantus sums what is negative, too

    def theirs(metric, **how):
        one = getattr(quantus, metric)(normalise=False, abs=False, disable_warnings=True, **how)
        found = one(
            model=torch.nn.Identity(),
            x_batch=np.zeros((4, 3, 12, 15)),
            y_batch=np.zeros(4, dtype=int),
            a_batch=positive.unsqueeze(1).numpy().copy(),
            s_batch=masks.unsqueeze(1).numpy(),
            channel_first=True,
        )
        return [float(v) for v in np.asarray(found).ravel()]

    assert localisation.relevance_mass(positive, masks).tolist() == pytest.approx(
        theirs("RelevanceMassAccuracy"), abs=1e-5
    )
    assert localisation.relevance_rank(positive, masks).tolist() == pytest.approx(
        theirs("RelevanceRankAccuracy"), abs=1e-5
    )
    assert localisation.relevance_mass(positive, masks).tolist() == pytest.approx(
        theirs("AttributionLocalisation"), abs=1e-5
    )
    hit = localisation.pointing_game(positive, masks, tolerance=0) / 100
    assert hit.tolist() == theirs("PointingGame")


def test_known_maps_have_known_answers():
    _, masks = case()
    area = masks.double().mean((1, 2)).tolist()
    perfect, complement, uniform = masks.float(), (~masks).float(), torch.ones(masks.shape)
    for measure in (localisation.relevance_mass, localisation.relevance_rank):
        assert measure(perfect, masks).tolist() == [1, 1, 1, 1]
        assert measure(complement, masks).tolist() == [0, 0, 0, 0]
        assert measure(uniform, masks).tolist() == pytest.approx(area)
        assert measure(perfect * 1e-30, masks).tolist() == [1, 1, 1, 1]
    assert localisation.attribution_localisation(uniform, masks).tolist() == pytest.approx([1, 1, 1, 1])
    assert localisation.pointing_game(perfect, masks, tolerance=0).tolist() == [100] * 4
    assert localisation.pointing_game(complement, masks, tolerance=0).tolist() == [0] + [0] * 3


def test_what_has_no_answer_is_said():
    heatmaps, masks = case()
    with pytest.raises(MeasureError, match="no positive relevance"):
        localisation.relevance_mass(-heatmaps.abs(), masks)
    for mask in (torch.zeros_like(masks), torch.ones_like(masks)):
        with pytest.raises(MeasureError, match="covers nothing or all"):
            localisation.relevance_rank(heatmaps, mask)
