"""Only some steps are scored, dense at both ends; random orders have more draws than methods."""

import itertools
import math

import pandas as pd
import pytest
import torch

import faithmap
from faithmap.protocol import Protocol, Steps


def test_points_are_dense_at_both_ends():
    steps = Protocol.preset("srg", steps=196).scored_steps()
    by_hand = sorted({round(196 * (1 - math.cos(math.pi * i / 19)) / 2) for i in range(20)})
    assert list(steps) == by_hand
    assert steps[0] == 0
    assert steps[-1] == 196
    gaps = [b - a for a, b in itertools.pairwise(steps)]
    assert gaps[0] < gaps[len(gaps) // 2] > gaps[-1]


def test_all_points_and_more_points_than_steps_are_all_steps():
    assert Protocol.preset(steps=5).scored_steps() == (0, 1, 2, 3, 4, 5)
    assert Protocol.preset(steps=5, points=50).scored_steps() == (0, 1, 2, 3, 4, 5)
    assert Protocol.preset(steps=5, points=2).scored_steps() == (0, 5)


def test_points_and_draws_extend_a_question_and_do_not_change_it():
    one, other = Protocol.preset("srg"), Protocol.preset("srg", points="all", random_draws=5, draws=2)
    assert one.fingerprint() == other.fingerprint()
    joined = one.joined(other)
    assert (joined.points, joined.random_draws, joined.draws) == (Steps.ALL, 5, 2)
    assert Protocol.from_dict(joined.to_dict()) == joined
    assert joined.draws_of("random") == 5
    assert joined.draws_of("edge") == 2


@pytest.mark.parametrize("wrong", [{"points": 1}, {"points": "some"}, {"random_draws": 0}])
def test_what_cannot_be_is_refused(wrong):
    with pytest.raises(faithmap.FaithmapError, match=f"{next(iter(wrong))} is"):
        Protocol.preset("srg", **wrong)


def evaluate(classifier, folder, **parts):
    pixels = torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    protocol = Protocol.preset("srg", region_size=4, **{"points": 6, **parts})
    # Engine "auto" may run distant points as whole images, which round otherwise.
    return faithmap.evaluate(classifier, pixels, ["sensitivity:l2", "edge"], protocol, folder, engine="incremental")


def test_only_the_asked_points_are_scored_and_they_are_the_scores_of_all_points(tiny, tmp_path):
    some, every = evaluate(tiny, tmp_path / "some"), evaluate(tiny, tmp_path / "all", points="all")
    asked = some.protocol.scored_steps()
    assert some.protocol.steps == 36
    scores = some.scores()
    assert sorted(scores["step"].unique()) == list(asked)
    assert len(scores) == 3 * (2 * 1 + 3) * 2 * len(
        asked
    )  # images × (methods × draws + draws of random) × orders × points
    whole = every.scores()
    whole = whole[whole["step"].isin(asked)].reset_index(drop=True)
    pd.testing.assert_frame_equal(scores, whole, check_exact=True, check_categorical=False)


def test_more_points_extend_the_folder(tiny, tmp_path):
    evaluate(tiny, tmp_path / "run")
    stored = set((tmp_path / "run" / "scores").iterdir())
    run = evaluate(tiny, tmp_path / "run", points=9)
    assert stored < set((tmp_path / "run" / "scores").iterdir())
    anew = evaluate(tiny, tmp_path / "anew", points=9)
    assert run.protocol.points == 9
    pd.testing.assert_frame_equal(run.scores(), anew.scores(), check_exact=True, check_categorical=False)
    before = len(list((tmp_path / "run" / "scores").iterdir()))
    evaluate(tiny, tmp_path / "run")  # fewer points are there already
    assert len(list((tmp_path / "run" / "scores").iterdir())) == before


def test_random_orders_have_draws_of_their_own(tiny, tmp_path):
    run = evaluate(tiny, tmp_path / "run")
    draws = run.scores().groupby("method", observed=True)["draw"].nunique()
    assert draws.to_dict() == {"edge": 1, "random": 3, "sensitivity:l2": 1}
    fewer = evaluate(tiny, tmp_path / "fewer", random_draws=1).scores()
    same = run.scores()
    same = same[same["draw"] == 0].reset_index(drop=True)
    pd.testing.assert_frame_equal(fewer, same, check_exact=True, check_categorical=False)
