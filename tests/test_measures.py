"""What a measure is, how it is named, and how measures of a block become rows."""

import math
import subprocess
import sys

import pytest
import torch

import faithmap
from faithmap.attribution import resolve_methods
from faithmap.errors import HeatmapError, MeasureError
from faithmap.measures.compute import compute_measures, value_frame, why_not
from faithmap.measures.measure import MEASURES, SETS, Measure, measure
from faithmap.measures.registry import measure_table, resolve_measures
from faithmap.measures.subject import Subject

# Small versions of all measures that are computed on images.
SMALL = (
    "infidelity:n=12,sensitivity-n:sizes=3,n=6,cell=4,faithfulness-correlation:n=8,cell=4,region-effect:n=2,cell=6,"
    "monotonicity:n=2,cell=6,average-drop,average-increase,irof:n=9,compactness=1,completeness,complexity,max-sensitivity:n=3,"
    "randomisation-top-down:n=2,randomisation-bottom-up:stages=2,randomisation-complexity,random-logit,localisation,"
    "background-mass,background-rank,background-pointing"
)


def pixels(count=3):
    return torch.rand(count, 3, 24, 24, generator=torch.Generator().manual_seed(0))


def subject(classifier, images=None, masked=True, **how):
    images = pixels() if images is None else images
    ids = how.pop("ids", [f"image {row}" for row in range(len(images))])
    mask = torch.zeros(24, 24, dtype=torch.bool)
    mask[4:12, 6:20] = True
    masks = dict.fromkeys(ids, mask) if masked else {}
    return Subject(classifier, images, classifier.predict(images), ids, masks=masks, **how)


def heatmaps_of(one, methods):
    return {
        method.name: dict(
            enumerate(faithmap.heatmaps(one.classifier, one.pixels, one.targets, method, image_ids=one.ids))
        )
        for method in methods
        if not method.is_random
    }


def measured(one, names="lrp-epsilon:0,sensitivity,edge", measures=SMALL, draws=1, heatmaps=None):
    methods = resolve_methods(names)
    values, failed = compute_measures(
        one, methods, heatmaps or heatmaps_of(one, methods), resolve_measures(measures), draws
    )
    return value_frame(values), failed


def test_all_measures_give_a_value_for_all_methods_they_apply_to(tiny):
    frame, failed = measured(subject(tiny))
    assert not failed
    found = set(zip(frame.method, frame.measure, strict=True))
    methods, measures = resolve_methods("lrp-epsilon:0,sensitivity,edge"), resolve_measures(SMALL)
    expected = {(m.name, one.name) for m in methods for one in measures if why_not(one, m) is None}
    assert found == expected
    assert len(frame) == 3 * len(expected)
    assert list(frame.columns) == ["image", "group", "method", "measure", "draw", "value"]
    # Every declared measure that needs no scores is among them.
    asked = {one.spec["measure"] for one in measures}
    assert asked == {kind.name for kind in MEASURES.values() if kind.needs != "scores"}
    assert {kind.set for kind in MEASURES.values()} == set(SETS)


def test_values_depend_on_no_other_image_method_or_measure(tiny):
    whole, _ = measured(subject(tiny), draws=2)
    at = ["image", "method", "measure", "draw"]
    expected = whole.set_index(at).value
    order = torch.tensor([2, 0])
    ids = ["image 2", "image 0"]
    some, failed = measured(subject(tiny, pixels()[order], ids=ids), "edge,sensitivity", draws=2)
    assert not failed
    found = some.set_index(at).value
    assert len(found) > 50
    assert found.equals(expected.loc[found.index])
    one, _ = measured(subject(tiny), "sensitivity", "max-sensitivity:n=3", draws=2)
    mine = one.set_index(at).value
    assert mine.equals(expected.loc[mine.index])


def test_draws_are_new_and_seeds_change_them(tiny):
    def value(draw, seed):
        frame, _ = measured(subject(tiny, seed=seed), "sensitivity", "infidelity:n=5,gini", draws=2)
        rows = frame[(frame.image == "image 0") & (frame.method == "sensitivity:l2") & (frame.draw == draw)]
        return rows.set_index("measure").value.to_dict()

    assert value(0, 0)["infidelity:n=5"] != value(1, 0)["infidelity:n=5"]
    assert value(0, 0)["infidelity:n=5"] != value(0, 1)["infidelity:n=5"]
    assert value(0, 0)["gini"] == value(0, 1)["gini"]
    assert set(value(1, 0)) == {"infidelity:n=5"}  # what is not drawn has draw 0 alone


def test_groups_stand_beside_the_images(tiny):
    methods = resolve_methods("edge")
    one = subject(tiny)
    values, _ = compute_measures(one, methods, heatmaps_of(one, methods), resolve_measures("gini"))
    frame = value_frame(values, {"image 0": "patient 7"})
    assert set(frame.loc[frame.image == "image 0", "group"]) == {"patient 7"}
    assert set(frame.loc[frame.image == "image 1", "group"]) == {"image 1"}


def dark(inputs, targets):
    """A method that fails on dark images."""
    wrong = (inputs.mean((1, 2, 3)) < -1.2).nonzero()
    if len(wrong):
        raise HeatmapError("too dark.", int(wrong[0]))
    return inputs.sum(1)


def test_one_bad_image_map_or_measure_takes_nothing_with_it(tiny):
    images = pixels()
    images[1] = 0.01
    one = subject(tiny, images, masked=False)
    methods = resolve_methods({"dark": dark, "edge": "edge"})
    maps = {
        "dark": {row: torch.ones(24, 24) for row in range(3)},
        "edge": {0: torch.full((24, 24), -1.0), 2: torch.rand(24, 24)},
    }

    def breaks(classifier, pixels, targets, heatmaps):
        raise RuntimeError("my own fault\nwith details")

    measures = resolve_measures({"drop": "average-drop", "sens": "max-sensitivity:n=2", "mine": breaks, "gini": "gini"})
    measures += resolve_measures("relevance-mass")
    values, failed = compute_measures(one, methods, maps, measures)
    found = {(v.image, v.method, v.measure) for v in values}
    reasons = {(f.image, f.method, f.measure): f.reason for f in failed}
    assert ("image 0", "dark", "drop") in found
    assert "no positive relevance" in reasons["image 0", "edge", "drop"]
    assert ("image 2", "edge", "drop") in found
    assert ("image 0", "dark", "sens") in found
    assert "too dark" in reasons["image 1", "dark", "sens"]
    assert reasons["image 2", "edge", "mine"] == "my own fault"
    assert "image 0' has no mask" in reasons["image 0", "dark", "relevance-mass"]
    assert ("image 1", "edge", "gini") not in found | set(reasons)  # no heatmap, no value
    assert ("image 1", "random", "gini") in found


def test_a_value_that_is_not_finite_is_a_reason(tiny):
    one = subject(tiny)

    def infinite(classifier, pixels, targets, heatmaps):
        return torch.tensor([math.inf])

    values, failed = compute_measures(one, resolve_methods("random"), {}, resolve_measures({"mine": infinite}))
    assert not values
    assert "mine is inf" in failed[0].reason


@pytest.mark.filterwarnings("ignore::faithmap.errors.EngineWarning")
def test_networks_whose_score_is_not_a_class_logit():
    def network(score, classes):
        linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 24 * 24, classes))
        return faithmap.Classifier(linear, score=score)

    regression = subject(network("identity", 1), masked=False)
    frame, failed = measured(regression, "sensitivity", "average-drop,random-logit,max-sensitivity:n=2,infidelity:n=4")
    assert set(frame.measure) == {"max-sensitivity:n=2", "infidelity:n=4"}
    reasons = {one.measure: one.reason for one in failed}
    assert "has no probability" in reasons["average-drop"]
    assert "has one score" in reasons["random-logit"]
    labels = subject(network("sigmoid", 3), masked=False)
    frame, failed = measured(labels, "sensitivity", "average-drop,random-logit")
    assert not failed
    assert len(frame) == 3 * 2 + 3  # `random` has no heatmap of another class


def test_what_a_measure_means_nothing_for_is_said_in_advance(tmp_path):
    edge, random = resolve_methods("edge")
    given = resolve_methods({"given": {"a": torch.rand(4, 4).numpy()}})[0]
    sensitivity, complete, gini = resolve_measures("max-sensitivity,completeness,gini")
    assert "drawn" in why_not(sensitivity, random)
    assert "given" in why_not(sensitivity, given)
    assert "does not promise" in why_not(complete, edge)
    assert why_not(gini, random) is why_not(gini, given) is why_not(sensitivity, edge) is None


def test_names_parameters_and_sets():
    names = [one.name for one in resolve_measures("gini,infidelity:n=50,side=0.1,gini,pointing-game:5")]
    assert names == ["gini", "infidelity:n=50,side=0.1", "pointing-game:tolerance=5"]
    assert {one.set for one in resolve_measures("complexity")} == {"complexity"}
    assert "background-mass" not in [one.name for one in resolve_measures("localisation")]
    assert resolve_measures(None) == []
    assert [one.name for one in resolve_measures({"small": "infidelity:n=5"})] == ["small"]
    with pytest.raises(MeasureError, match="unknown measure 'ginny'; did you mean 'gini'"):
        resolve_measures("ginny")
    with pytest.raises(MeasureError, match=r"has no parameter 'm'.*Known: n, side"):
        resolve_measures("infidelity:m=3")
    with pytest.raises(MeasureError, match="n is '0', expected"):
        resolve_measures("infidelity:n=0")
    with pytest.raises(MeasureError, match="two measures are called 'a'"):
        resolve_measures([{"a": "gini"}, {"a": "png"}])
    with pytest.raises(MeasureError, match="received int"):
        resolve_measures(3)
    with pytest.raises(MeasureError, match="stands for 5 measures"):
        resolve_measures({"all": "complexity"})
    with pytest.raises(MeasureError, match="belongs to set 'beauty'"):
        measure("x", line="", source="", set="beauty", needs="heatmap", higher_is_better=True)


def test_costs_are_counted(tiny):
    infidelity, cascade, effect = resolve_measures("infidelity:n=50,randomisation-top-down:n=3,region-effect:n=2")
    assert infidelity.passes() == (50, 0)
    assert cascade.passes(layers=26) == (0, 78)
    assert effect.passes(cells=196) == (392, 0)
    irof, drop = resolve_measures("irof:n=20,average-drop")
    assert (irof.passes(methods=7), drop.passes(methods=7)) == ((140, 0), (7, 0))


def test_a_run_folder_keeps_what_is_said_of_a_measure():
    one = resolve_measures("infidelity:n=50")[0]
    again = Measure.from_dict(one.name, one.to_dict())
    assert again == one
    assert (again.arrow, again.unit, again.spec) == ("↓", "logit²", one.spec)
    with pytest.raises(MeasureError, match="read from a run folder"):
        compute_measures(
            Subject(faithmap.Classifier(lambda x: x.mean((2, 3))), pixels(1), torch.tensor([0]), ["a"]),
            resolve_methods("random"),
            {},
            [again],
        )


def test_what_a_measure_is_loads_no_network():
    code = "import sys, faithmap.measures.measure; print('torch' in sys.modules, 'faithmap.classifiers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_the_table_names_every_measure_with_its_defaults():
    rows = {row["name"].partition(":")[0]: row for row in measure_table()}
    assert set(rows) == set(MEASURES)
    assert rows["infidelity"]["name"] == "infidelity:n=100,side=0.2,noise=0"
    assert (rows["infidelity"]["better"], rows["gini"]["better"]) == ("↓", "↑")
    assert rows["max-sensitivity"]["cost"] == "n heatmaps per method"
