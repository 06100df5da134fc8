import pytest

from faithmap.errors import ProtocolError
from faithmap.protocol import PRESETS, Placement, Protocol


def test_presets_say_what_the_papers_say():
    paper = Protocol.preset("samek2017")
    assert (paper.steps, paper.region_size, paper.draws, paper.placement) == (100, 9, 10, "grid")
    assert (paper.fill, paper.target, paper.score, paper.paired_fill) == ("uniform", "predicted", "logit", True)
    student = Protocol.preset("replication2021")
    assert (student.steps, student.region_size, student.draws, student.placement) == (100, 9, 1, "centre")
    assert (student.fill, student.target, student.score) == ("uniform-grey", "label", "probability")
    assert not student.paired_fill


@pytest.mark.parametrize("name", PRESETS)
def test_a_protocol_survives_json(name):
    protocol = Protocol.preset(name, seed=4)
    assert Protocol.from_dict(protocol.to_dict()) == protocol


def test_the_fingerprint_follows_what_changes_a_number():
    protocol = Protocol.preset()
    assert protocol.fingerprint() == protocol.override(steps=7, draws=2, score="probability").fingerprint()
    for change in ({"seed": 1}, {"placement": Placement.CENTRE}, {"region_size": 7}, {"fill": "uniform-grey"}):
        assert protocol.fingerprint() != protocol.override(**change).fingerprint()
    for change in ({"direction": "restore"}, {"segments": "slic:n=9"}, {"placement": "pixel"}):
        assert protocol.fingerprint() != protocol.override(**change).fingerprint()


def test_fingerprints_of_stored_runs_stay_what_they_were():
    assert Protocol.preset("samek2017").fingerprint() == "9ec6e6f862acdf3d"
    assert Protocol.preset("replication2021").fingerprint() == "a0bff622ad21481f"


def test_all_steps_become_a_number_where_it_does_not_depend_on_the_image():
    assert Protocol.preset("deletion").fitted(224, 224).steps == 224
    assert Protocol.preset(steps="all").fitted(224, 200).steps == 24 * 22
    assert Protocol.preset(steps=5).fitted(8, 8).steps == 5
    with pytest.raises(ProtocolError, match="differs from image to image"):
        Protocol.preset(steps="all", placement="centre").fitted(224, 224)
    with pytest.raises(ProtocolError, match="from 1 to 32,767"):
        Protocol.preset(steps="all", placement="pixel", region_size=1).fitted(224, 224)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"region_size": 2.5}, "region_size is 2.5"),
        ({"placement": "gird"}, "did you mean 'grid'"),
        ({"stepps": 3}, "did you mean 'steps'"),
        ({"orders": ()}, "orders is empty"),
        ({"direction": "restor"}, "did you mean 'restore'"),
        ({"direction": "restore", "fill": "noisy-linear"}, "cannot start from"),
        ({"steps": 40_000}, "from 1 to 32,767"),
    ],
)
def test_what_cannot_be_measured_is_refused(parts, message):
    with pytest.raises(ProtocolError, match=message):
        Protocol.preset(**parts)


def test_an_unknown_preset_proposes_the_nearest():
    with pytest.raises(ProtocolError, match="did you mean 'samek2017'"):
        Protocol.preset("samek2018")
