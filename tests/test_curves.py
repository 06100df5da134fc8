import pytest
import torch

from faithmap.errors import CurveError
from faithmap.statistics.curves import abpc, aopc, relative_to_random


def test_aopc_follows_the_formula():
    curve = torch.rand(4, 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for image in range(4):
        for k in range(11):
            expected = sum(curve[image, 0] - curve[image, j] for j in range(k + 1)) / (k + 1)
            assert aopc(curve)[image, k] == pytest.approx(float(expected), abs=1e-12)


def test_relative_to_random_subtracts_per_image_after_averaging_the_draws():
    own = torch.tensor([[0.0, 1.0], [0.0, 3.0]])
    random = torch.tensor([[[0.0, 0.5], [0.0, 1.0]], [[0.0, 1.5], [0.0, 1.0]]])
    assert relative_to_random(own, random).tolist() == [[0.0, 0.0], [0.0, 2.0]]


def test_abpc_is_the_mean_gap():
    assert abpc(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0])).tolist() == [0.0, 0.5]


def test_a_score_that_is_not_finite_names_image_and_step():
    curve = torch.zeros(3, 5)
    curve[1, 2] = torch.nan
    with pytest.raises(CurveError, match="image 1 at step 2 is nan") as caught:
        aopc(curve)
    assert caught.value.index == 1


def test_one_point_is_no_curve():
    with pytest.raises(CurveError, match="at least two"):
        aopc(torch.zeros(1))
