import numpy as np
import pytest
import torch

import faithmap
from faithmap.errors import MethodError, ProtocolError
from faithmap.studies.operators import operator_table


def edges(inputs, targets):
    return (inputs - inputs.roll(1, -1)).abs()


@pytest.fixture
def network(tiny):
    tiny.preprocessing = faithmap.Preprocessing(crop=(24, 24), resize=None)
    return tiny


PROTOCOL = {"steps": 5, "region_size": 5, "draws": 2}


def test_the_table_is_the_area_between_the_curves(network, tmp_path):
    pixels = torch.rand(4, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    fills = ["uniform", "constant:#808080", "swap"]
    seen = []
    table = operator_table(
        network,
        pixels,
        {"edges": edges},
        faithmap.Protocol.preset(**PROTOCOL),
        fills,
        out=tmp_path,
        progress=lambda fill, state: seen.append(fill),
    )
    assert set(seen) == set(fills)
    assert table["mean"].is_monotonic_decreasing
    assert (table.images == 4).all()
    targets = network.predict(pixels)
    heat = edges(network.normalise(pixels), targets).sum(1)
    images = faithmap.load_images(pixels)
    protocol = faithmap.Protocol.preset(**PROTOCOL)
    morf, lerf = (faithmap.removal_steps(heat, protocol, order) for order in ("morf", "lerf"))
    for fill in ("uniform", "constant:0.501961,0.501961,0.501961"):
        areas = []
        for draw in range(2):
            noise = torch.stack(
                [
                    faithmap.draw_fill(fill, one, seed=0, image_id=image.id, draw=draw)
                    for one, image in zip(pixels, images, strict=True)
                ]
            )
            curves = [faithmap.score_curves(network, pixels, targets, steps, noise)[0] for steps in (morf, lerf)]
            areas.append(faithmap.abpc(*curves)[:, -1].double().numpy())
        row = table[table.fill == fill].iloc[0]
        assert row["mean"] == pytest.approx(np.mean(areas), abs=1e-4)
        assert row.low < row["mean"] < row.high


def test_what_is_no_table_is_refused_before_any_work(network):
    pixels = torch.rand(2, 3, 24, 24)
    with pytest.raises(MethodError, match=r"one heatmap method, received \['lrp-epsilon:0.01', 'sensitivity:l2'\]"):
        operator_table(network, pixels, "lrp-epsilon:0.01,sensitivity:l2")
    with pytest.raises(ProtocolError, match="did you mean 'blur'"):
        operator_table(network, pixels, {"edges": edges}, fills=["uniform", "blurr"])
