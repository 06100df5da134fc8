"""A study: the same question under several settings, heatmaps computed once, each setting an ordinary run."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import faithmap
from faithmap import statistics
from faithmap.errors import ProtocolError, StoreError
from faithmap.protocol import Protocol
from faithmap.statistics import Measured
from faithmap.studies.settings import GRIDS, resolve_settings, setting_name
from faithmap.studies.study import Winner, leads, winner

ROOT = Path(__file__).parents[1]
METHODS = ["sensitivity:l2", "gradient-x-input", "edge"]
SETTINGS = {
    "noise": Protocol.preset("srg", region_size=4, points=5),
    "blur": Protocol.preset("srg", region_size=4, points=5, fill="blur:sigma=3"),
    "coarse": Protocol.preset("srg", region_size=8, points=4),
}


def pixels(count: int = 6) -> torch.Tensor:
    return torch.rand(8, 3, 24, 24, generator=torch.Generator().manual_seed(7))[:count]


def make(classifier, folder, count=6, methods=METHODS, settings=SETTINGS, **how):
    return faithmap.study(classifier, pixels(count), methods, settings, folder, **how)


@pytest.fixture(scope="module")
def tiny_net():
    from tests.conftest import TinyNet

    return faithmap.Classifier(TinyNet(), mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), name="tiny")


@pytest.fixture(scope="module")
def found(tiny_net, tmp_path_factory):
    return make(tiny_net, tmp_path_factory.mktemp("study") / "one")


def test_every_setting_has_the_numbers_of_a_run_of_its_own(tiny_net, found, tmp_path):
    runs = found.runs()
    assert list(runs) == list(SETTINGS)
    for name, run in runs.items():
        alone = faithmap.evaluate(tiny_net, pixels(), METHODS, SETTINGS[name], tmp_path / name)
        pd.testing.assert_frame_equal(run.scores(), alone.scores(), check_exact=True, check_categorical=False)


def test_a_study_grows_and_stays_what_runs_of_its_own_would_be(tiny_net, tmp_path):
    """Scores and heatmaps, bit for bit; Shapley values belong to a setting's regions and fill."""
    methods = ["edge", "shapley:permutations=2"]
    two = {name: SETTINGS[name] for name in ("noise", "coarse")}
    make(tiny_net, tmp_path / "one", count=3, methods=["edge"], settings=two)
    make(tiny_net, tmp_path / "one", count=3, methods=methods, settings=two)
    study = make(tiny_net, tmp_path / "one", count=5, methods=methods, save_heatmaps=True)
    shapley = {}
    for name, run in study.runs().items():
        alone = faithmap.evaluate(tiny_net, pixels(5), methods, SETTINGS[name], tmp_path / name, save_heatmaps=True)
        pd.testing.assert_frame_equal(run.scores(), alone.scores(), check_exact=True, check_categorical=False)
        pairs = list(zip(run.examples(None), alone.examples(None), strict=True))
        assert len(pairs) == 5
        for own, other in pairs:
            assert own.heatmaps.keys() == other.heatmaps.keys() == set(methods)
            assert all(torch.equal(own.heatmaps[method], other.heatmaps[method]) for method in methods)
        shapley[name] = pairs[0][0].heatmaps["shapley:permutations=2"]
    assert not torch.equal(shapley["noise"], shapley["blur"])


def test_a_study_that_was_killed_goes_on(tiny_net, found, tmp_path):
    script = (
        "import sys; from tests.test_study import *; from tests.conftest import TinyNet; import time\n"
        "net = faithmap.Classifier(TinyNet(), mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), name='tiny')\n"
        "def slow(name):\n"
        "    return lambda state: name == 'blur' and (Path(sys.argv[1], 'there').touch(), time.sleep(600))\n"
        "make(net, sys.argv[1], progress=slow)"
    )
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    with subprocess.Popen(
        [sys.executable, "-c", script, tmp_path / "one"], env={**os.environ, "PYTHONPATH": paths}
    ) as it:
        for _ in range(1200):
            if (tmp_path / "one" / "there").exists() or it.poll() is not None:
                break
            time.sleep(0.1)
        assert it.poll() is None
        it.kill()
    again = make(tiny_net, tmp_path / "one")
    assert list(again.runs()) == list(SETTINGS)
    for name, run in again.runs().items():
        pd.testing.assert_frame_equal(
            run.scores(), found.runs()[name].scores(), check_exact=True, check_categorical=False
        )


def counted(inputs, targets):
    """Counts in the environment: what a function refers to is part of its identity, and may not change."""
    os.environ["FAITHMAP_TEST_CALLS"] = str(int(os.environ["FAITHMAP_TEST_CALLS"]) + len(inputs))
    return inputs.abs().sum(1)


def test_heatmaps_are_computed_once(tmp_path, tiny_net, monkeypatch):
    monkeypatch.setenv("FAITHMAP_TEST_CALLS", "0")
    make(tiny_net, tmp_path / "one", methods={"mine": counted})
    assert os.environ["FAITHMAP_TEST_CALLS"] == "8"  # one block, filled up
    # The same call again computes nothing, another setting computes no heatmap.
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "one").rglob("part-*")}
    make(tiny_net, tmp_path / "one", methods={"mine": counted})
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "one").rglob("part-*")}
    more = {**SETTINGS, "mean": Protocol.preset("srg", region_size=6, points=4, fill="constant:mean")}
    assert list(make(tiny_net, tmp_path / "one", methods={"mine": counted}, settings=more).settings) == list(more)
    assert os.environ["FAITHMAP_TEST_CALLS"] == "8"


def test_a_study_that_was_interrupted_goes_on(tiny_net, found, tmp_path):
    class EnoughError(Exception):
        pass

    def stop(name):
        def report(state):
            if name == "blur" and state.scores > 20:
                raise EnoughError

        return report

    with pytest.raises(EnoughError):
        make(tiny_net, tmp_path / "one", progress=stop)
    half = faithmap.Study(tmp_path / "one")
    assert "noise" in half.runs()
    assert "coarse" not in half.runs()
    assert any("of 3 settings" in line for line in half.verdict())
    again = make(tiny_net, tmp_path / "one")
    for name, run in again.runs().items():
        pd.testing.assert_frame_equal(
            run.scores(), found.runs()[name].scores(), check_exact=True, check_categorical=False
        )


def test_ranks_are_those_of_the_runs(found):
    ranks = found.ranks(score="logit").pivot(index="method", columns="setting", values="rank")
    assert set(found.ranks()["score"]) == {"logit", "probability"}
    for name, run in found.runs().items():
        scores = run.scores()
        area = {}
        for (image, method, order, draw), curve in scores.groupby(["image", "method", "order", "draw"], observed=True):
            steps, values = curve["step"].to_numpy(), curve["logit"].to_numpy(dtype=float)
            total = 0.0
            for i in range(len(steps) - 1):
                total += (steps[i + 1] - steps[i]) * (values[i] + values[i + 1]) / 2
            area[image, method, order, draw] = total / steps[-1]
        table = pd.Series(area).groupby(level=[0, 1, 2]).mean().unstack()
        mean = (table["lerf"] - table["morf"]).groupby(level=1).mean()
        expected = mean.rank(ascending=False)
        assert ranks[name].to_dict() == expected.to_dict()


def test_a_study_says_what_holds(found):
    agreement = found.agreement()
    first = winner(agreement)
    sentence = found.verdict()[0]
    assert first.method is None or f"first in {'all 3' if first.first == 3 else f'{first.first} of 3'}" in sentence
    assert {"between settings", "between images"} <= set(found.grade().table()["property"])


def test_a_study_has_a_page_and_a_figure(found, tmp_path):
    page = found.report(tmp_path / "report.html").read_text()
    assert found.verdict()[0].replace("−", "&#8722;")[:30] in page or found.verdict()[0][:30] in page
    for name in SETTINGS:
        assert f"report-settings/{name}.html" in page
        assert (tmp_path / "report-settings" / f"{name}.html").exists()
    found.figure("study", tmp_path / "study.png")
    assert (tmp_path / "study.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("one", "sentence"),
    [
        (Winner("edge", 3, 3), "edge is first in all 3 settings by logit."),
        (Winner("edge", 2, 3, {"grad-cam": 1}), "edge is first in 2 of 3 settings by logit; Grad-CAM in 1."),
        (
            Winner("edge", 3, 3, {"twin": 1}, 1),
            "edge is first in all 3 settings by logit (shared in 1); twin in 1.",
        ),
        (Winner("random", 3, 3), "Random orders are first in all 3 settings by logit."),
        (
            Winner(None, 0, 3, {"a": 1, "b": 1}),
            "No method is first in more settings than every other by logit. First are a in 1, b in 1 of 3 settings.",
        ),
        (Winner(None, 0, 3), "No method is first in more settings than every other by logit. None has a value in any"),
    ],
)
def test_the_answer_of_a_study_in_words(one, sentence):
    assert one.sentence("logit").replace("grad CAM", "Grad-CAM").startswith(sentence)


def counting(monkeypatch):
    """How often the scores of a run are read from now on."""
    reads = []
    original = faithmap.Run.scores
    monkeypatch.setattr(faithmap.Run, "scores", lambda self: reads.append(self.store.url) or original(self))
    return reads


def test_scores_are_read_once_and_again_when_the_folder_has_changed(tiny_net, tmp_path, monkeypatch):
    made = make(tiny_net, tmp_path / "one")
    reads = counting(monkeypatch)
    said, table = made.verdict(), made.grade().table()
    made.ranks()
    made.agreement()
    assert sorted(reads) == sorted(f"{made.url}/{name}" for name in SETTINGS)
    more = {**SETTINGS, "mean": Protocol.preset("srg", region_size=6, points=4, fill="constant:mean")}
    make(tiny_net, tmp_path / "one", count=8, settings=more)
    assert list(made.runs()) == list(more)
    assert {one.groups.size for one in made.measured().values()} == {8}
    fresh = faithmap.Study(tmp_path / "one")
    assert made.verdict() == fresh.verdict() != said
    pd.testing.assert_frame_equal(made.grade().table(), fresh.grade().table())
    assert len(table) < len(fresh.grade().table())


def simulated(seed, settings=5, methods=5, images=12):
    """Settings with rankings of their own, twins, and methods that some lack."""
    rng = np.random.default_rng(seed)
    names = [f"m{i}" for i in range(methods)] + ["random"]
    ids = np.array([f"{i:02}" for i in range(images)], dtype=object)
    found = {}
    for at in range(settings):
        effects = rng.choice([0.0, 0.2, 1.0, 2.0], methods + 1)
        values = effects + rng.normal(size=(images, methods + 1)) * rng.choice([0.01, 0.5])
        values[:, 1] = values[:, 0] if rng.random() < 0.5 else values[:, 1]
        found[f"s{at}"] = Measured("SRG", bool(seed % 2), ids, ids, names, values, "logit")
    return found


@pytest.mark.parametrize("seed", range(12))
def test_a_study_never_contradicts_its_tables(seed):
    found = simulated(seed)
    agreement = statistics.agreement_of_settings(found)
    first, places, ranks = winner(agreement), agreement.places(), agreement.ranks
    said = first.sentence("logit")
    top = places["first"].sort_values(ascending=False)
    assert sum(first.others.values()) + first.first == int(top.sum())
    if first.method is None:
        assert top.iloc[0] == top.iloc[1]
        assert said.startswith("No method is first")
    else:
        assert (first.method, first.first) == (top.index[0], top.iloc[0])
        assert top.iloc[0] > top.iloc[1]
    assert ("shared in" in said) == ((ranks == ranks.min()).sum() > 1).any()
    if first.method not in (None, "random"):
        counts = [int(n) for n in re.findall(r"in (\d+) of 5", leads(found, first.method))]
        for one in found.values():
            table = statistics.ranking(one).set_index("method")
            if table["vs_random"].get(first.method) != "better":
                counts[0] += 1
            others = [letters for name, letters in table["letters"].items() if name not in (first.method, "random")]
            own = set(table.loc[first.method, "letters"])
            if table["rank"].drop("random").idxmin() != first.method or any(own & set(text) for text in others):
                counts[1] += 1
        assert counts == [5, 5]


def same_in_all(groups, methods, settings=4, images=6, lead=5.0, spread=1.0, noun="photo"):
    """Settings that differ by noise; the first method leads, random is 0."""
    rng = np.random.default_rng(groups + methods)
    ids = np.array([f"{g:03}/{i}" for g in range(groups) for i in range(images)], dtype=object)
    of = np.array([name[:3] for name in ids], dtype=object)
    means = np.r_[10 + lead, np.linspace(10, 9, methods - 1), 0]
    found = {}
    for at in range(settings):
        noise = np.repeat(rng.normal(0, spread, (groups, methods + 1)), images, axis=0)
        values = means + noise + 0.01 * rng.normal(size=(groups * images, methods + 1))
        names = [f"m{i}" for i in range(methods)] + ["random"]
        found[f"s{at}"] = Measured("SRG", True, ids, of, names, values, "logit", noun)
    return found


RANDOM_FEW = "With 8 photos none of 8 comparisons with random orders can be significant; at least 9 are needed."


@pytest.mark.parametrize(
    ("groups", "methods", "images", "says"),
    [
        (8, 8, 6, [RANDOM_FEW, "With 8 photos none of 28 pairs of methods can be significantly different"]),
        (8, 8, 1, ["With 8 images none of 28 pairs of methods can be significantly different; at least 11 are needed"]),
        (
            10,
            8,
            6,
            [
                "It is significantly better than random orders in 4 of 4 settings.",
                "With 10 photos none of 28 pairs of methods can be significantly different; at least 11 are needed",
            ],
        ),
        (6, 2, 6, ["With 6 photos two methods cannot be significantly different; at least 7 are needed"]),
        (5, 1, 6, ["With 5 photos its comparison with random orders cannot be significant; at least 6 are needed."]),
        (1, 3, 6, ["One photo gives no test."]),
    ],
)
def test_a_study_of_too_few_groups_says_how_many_it_takes(groups, methods, images, says):
    found = same_in_all(groups, methods, images=images)
    said = leads(found, "m0")
    assert all(part in said for part in says)
    assert "in 0 of 4 settings" not in said  # what cannot be is not counted
    # At the numbers that it names the same lead is significant.
    for count in map(int, re.findall(r"at least (\d+) are needed", said)):
        enough = same_in_all(count, methods, images=images, spread=0.001)
        assert "in 4 of 4 settings" in leads(enough, "m0")
    fewest = max(map(int, re.findall(r"at least (\d+) are needed", said)), default=0)
    if fewest:
        assert "are needed" not in leads(same_in_all(fewest, methods, images=images, spread=0.001), "m0")


def test_a_study_whose_lead_takes_more_groups_says_about_how_many():
    found = same_in_all(14, 4, settings=6, lead=1.0, spread=1.0)
    said = leads(found, "m0")
    assert re.search(r"every other method in [01] of 6 settings", said)
    count = int(re.search(r"but not significantly, about (\d+) photos would show it; here are 14\.", said)[1])
    assert count > 14
    needed = []
    for one in found.values():
        pairs = statistics.compare(one)
        own = pairs[(pairs["family"] == "pairs") & ((pairs["a"] == "m0") | (pairs["b"] == "m0"))]
        if (own["a"] == "m0").all() and not own["significant"].all():
            needed.append(own.loc[~own["significant"], "groups_needed"].max())
    assert count == pytest.approx(np.median(needed), abs=5.1)
    shown = leads(same_in_all(2 * count, 4, settings=6, lead=1.0, spread=1.0), "m0")
    assert int(re.search(r"every other method in (\d) of 6", shown)[1]) >= 3


def test_some_settings_of_too_few_groups_are_counted():
    few, many = same_in_all(8, 8, settings=1), same_in_all(30, 8, settings=2)
    said = leads({"few": few["s0"], **many}, "m0")
    assert "than every other method in 2 of 3 settings" in said
    assert "With 8 photos none of 28 pairs of methods can be significantly different in 1 of 3 settings" in said


def test_a_setting_that_ties_all_methods_takes_no_number_from_the_others():
    found = same_in_all(12, 4, settings=3)
    tied = found["s0"]
    tied = Measured("SRG", True, tied.images, tied.groups, tied.methods, np.ones_like(tied.values), "logit", "photo")
    without, agreement = statistics.agreement_of_settings(found), statistics.agreement_of_settings({**found, "t": tied})
    assert agreement.tau == pytest.approx(without.tau)
    assert agreement.tau_low == pytest.approx(without.tau_low)
    means = np.stack([[np.mean(column) for column in one.values.T] for one in [*found.values(), tied]])
    assert agreement.tau == pytest.approx(statistics.mean_tau(means))


def test_the_default_grid_covers_fills_and_region_sizes():
    settings = resolve_settings("consistency", (224, 224))
    fills, sides = ({getattr(one, part) for one in settings.values()} for part in ("fill", "region_size"))
    assert len(settings) == 12
    assert len(fills) >= 4
    assert sides == {9, 16, 32}
    assert all({str(order) for order in one.orders} == {"morf", "lerf"} for one in settings.values())
    assert {one.region_size for one in resolve_settings("quick", (112, 140)).values()} == {8, 16}
    assert len(GRIDS) >= 2


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("consistancy", "did you mean 'consistency'"),
        (["srg"], "received 1: give at least two"),
        (["srg", Protocol.preset("srg")], "two settings are called 'uniform-16'"),
    ],
)
def test_settings_that_cannot_be_are_named(settings, says):
    with pytest.raises(ProtocolError, match=says):
        resolve_settings(settings, (224, 224))


def test_a_study_does_not_stop_when_one_setting_is_decided(tiny_net, tmp_path):
    with pytest.raises(ProtocolError, match="until is 'decided', and a study has the same images in every setting"):
        make(tiny_net, tmp_path / "one", until="decided")
    assert not (tmp_path / "one").exists()


@pytest.mark.parametrize("wrong", [1, "yes", torch.zeros(2), None])
def test_whether_heatmaps_are_saved_is_asked_before_work_starts(tiny_net, tmp_path, wrong):
    with pytest.raises(faithmap.FaithmapError, match="save_heatmaps is"):
        faithmap.study(tiny_net, torch.rand(2, 3, 12, 12), "edge", "quick", tmp_path / "s", save_heatmaps=wrong)
    assert not (tmp_path / "s").exists()


def test_names_of_settings_are_folders():
    assert setting_name(Protocol.preset("srg", fill="constant:#80ff00", region_size=9)) == "constant-80ff00-9"
    assert setting_name(Protocol.preset(placement="centre")) == "uniform-centre-9"


TWICE = '{"settings": {"a": "same", "b": "same"}}'


@pytest.mark.parametrize("text", ["{", "[]", '{"settings": {}}', '{"settings": {"a": 1}}', "[" * 100_000, TWICE])
def test_a_damaged_study_gets_one_sentence(tmp_path, text):
    with pytest.raises(StoreError, match="holds no study"):
        faithmap.Study(tmp_path)
    (tmp_path / "study.json").write_text(text)
    with pytest.raises(StoreError, match="damaged"):
        faithmap.Study(tmp_path)
    (tmp_path / "study.json").write_text(json.dumps({"settings": {"a": "a"}}))
    with pytest.raises(StoreError, match="holds no scores yet"):
        faithmap.Study(tmp_path).runs()


def test_a_setting_that_measures_the_same_as_another_is_left_out(tiny_net, tmp_path):
    """It would agree with its twin, and the settings would seem to agree more than they do."""
    three = {"noise": SETTINGS["noise"], "again": SETTINGS["noise"].override(name="other"), "blur": SETTINGS["blur"]}
    with pytest.warns(UserWarning, match="setting 'again' measures the same as 'noise' on tiny, and is left out"):
        study = make(tiny_net, tmp_path / "three", count=3, methods="edge", settings=three)
    assert list(study.runs()) == list(study.settings) == ["noise", "blur"]
    del three["blur"]
    said = "noise, again measure the same on tiny"
    with pytest.warns(UserWarning, match="left out"), pytest.raises(ProtocolError, match=said):
        make(tiny_net, tmp_path / "two", count=3, methods="edge", settings=three)
    assert not (tmp_path / "two").exists()


def test_a_network_of_large_patches_has_fewer_settings(tmp_path):
    """Regions of the usual size, 16 pixels, become patches of 32, and settings of 32 pixels are asked for as well."""
    from torchvision import models

    sizes = {"image_size": 64, "patch_size": 32, "num_layers": 1, "num_heads": 2, "hidden_dim": 8, "mlp_dim": 12}
    network = faithmap.Classifier(models.VisionTransformer(**sizes, num_classes=5), name="large")
    settings = [
        Protocol.preset("srg", region_size=side, fill=fill) for side in (16, 32) for fill in ("uniform", "blur")
    ]
    with pytest.warns(UserWarning, match="'uniform-32' measures the same as 'uniform-16' on large"):
        study = faithmap.study(network, torch.rand(2, 3, 64, 64), "edge", settings, tmp_path / "study")
    assert [run.protocol.region_size for run in study.runs().values()] == [32, 32]


def test_a_setting_that_was_refused_is_no_part_of_the_study(tiny_net, tmp_path):
    """Else every verdict would say that settings are missing."""
    two = {"noise": SETTINGS["noise"], "blur": SETTINGS["blur"]}
    with pytest.raises(faithmap.FaithmapError):
        make(tiny_net, tmp_path / "one", 3, "edge", {**two, "huge": SETTINGS["noise"].override(region_size=25)})
    assert list(make(tiny_net, tmp_path / "one", 3, "edge", two).settings) == ["noise", "blur"]
