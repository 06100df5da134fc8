"""The page without a browser: packed bytes, words and numbers, what is escaped, what is missing."""

import itertools
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import faithmap
from faithmap.errors import StoreError
from faithmap.report import flipbook_html, report_html, run_html, write_report
from faithmap.report import summary as numbers
from faithmap.report.flipbook import flipbook
from faithmap.report.notebook import spread
from faithmap.report.packing import SCALE_QUANTILE, pack, quantise
from faithmap.report.summary import lines, summarise
from faithmap.report.templates import script_json
from faithmap.run import Run
from tests.reference.unpacking import unpack_twin
from tests.report_runs import EVIL, EVIL_METHOD, evil_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return evil_run(tmp_path_factory.mktemp("evil"))


class Elements(HTMLParser):
    """Tags and attributes as a browser would find them, and the text outside of scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        (self.scripts if self.tags and self.tags[-1][0] in ("script", "style") else self.words).append(data)


@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(1, 7),
    width=st.integers(1, 7),
    methods=st.integers(1, 3),
    shared=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_packed_bytes_read_back(height, width, methods, shared, seed):
    """Any removal steps, also segments of any shape and more than 255 steps."""
    random = np.random.default_rng(seed)
    pixels = torch.from_numpy(random.random((3, height, width), dtype=np.float32))
    names = [f"m{i}" for i in range(methods)]
    steps = {
        n: torch.from_numpy(random.choice([0, 1, 2, 255, 256, 700], (height, width)).astype(np.int32)) for n in names
    }
    heatmaps = {n: torch.from_numpy(random.normal(size=(height, width)).astype(np.float32)) for n in names[1:]}
    fills = [
        torch.from_numpy(random.random((3, height, width), dtype=np.float32)) for _ in range(1 if shared else methods)
    ]
    packed = pack(pixels, steps, heatmaps, fills)
    assert packed.shared_fill == (len(fills) == 1)
    got = unpack_twin(packed.data, names, height, width, packed.shared_fill)
    assert np.abs(np.array(got[0]).transpose(2, 0, 1) / 255 - pixels.numpy()).max() <= 0.5 / 255 + 1e-6
    for i, name in enumerate(names):
        assert np.array_equal(got[1][name], steps[name])
        fill = fills[min(i, len(fills) - 1)].numpy()
        for y, x in zip(*np.nonzero(steps[name].numpy()), strict=True):
            assert np.abs(np.array(got[3][name][y][x]) / 255 - fill[:, y, x]).max() <= 0.5 / 255 + 1e-6
        levels = packed.levels[name]
        if name not in heatmaps:
            assert levels == 0
            assert not np.any(got[2][name])
            continue
        heatmap = heatmaps[name].double().numpy()
        scale = np.quantile(np.abs(heatmap), SCALE_QUANTILE)
        shown = np.array(got[2][name]) / levels
        assert np.abs(shown - np.clip(heatmap / scale, -1, 1)).max() <= 0.5 / levels + 1e-9


def test_tiny_relevance_is_shown_like_any_other():
    """LRP with ε = 100 yields values near 1e-29."""
    heatmap = np.random.default_rng(0).normal(size=(20, 20))
    assert np.array_equal(quantise(heatmap * 1e-29)[1], quantise(heatmap)[1])
    assert not quantise(np.zeros((4, 4)))[1].any()


def test_a_heatmap_of_few_high_pixels_is_not_lost():
    heatmap = np.zeros((100, 100))
    heatmap[3, 4] = 2.0
    assert quantise(heatmap)[1][3, 4] == quantise(heatmap)[0]


def test_curves_of_the_page_are_those_of_the_statistics(run):
    summary = summarise(run)
    curves = numbers.curves(summary)
    for score in ("logit", "probability"):
        for against in ("relative", "raw"):
            table = faithmap.statistics.aopc_table(run.scores(), score, against == "relative")
            for line in summary.lines:
                expected = table[table.method == line.method].sort_values("step")
                if against == "relative" and line.method == "random":
                    assert line.id not in curves[score][against]
                    continue
                for part in ("mean", "low", "high"):
                    got = np.array(curves[score][against][line.id][part], dtype=float)
                    np.testing.assert_allclose(got, expected[part].to_numpy(), rtol=1e-4)


def test_nothing_from_outside_becomes_an_element(run):
    for page in (report_html(run), run_html(run)):
        found = Elements(page)
        tags = [tag for tag, _ in found.tags]
        assert not [a for tag, a in found.tags if any(name.startswith("on") for name in a)]
        assert not [a for tag, a in found.tags if a.get("src") == "x"]
        assert "iframe" not in tags
        assert not set(tags) & {"marquee", "object", "embed", "link"}
    text = " ".join(Elements(report_html(run)).words)
    assert EVIL_METHOD.split(":")[0] in text
    assert "</script>" in text  # as text, in the table of what was skipped and in the methods
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', report_html(run), re.DOTALL)
    parsed = json.loads(data[1])
    assert any(
        EVIL[1] in example["target_name"] + example["predicted_name"] for example in parsed["flipbook"]["examples"]
    )


def test_json_cannot_end_its_script():
    hostile = {"a": "</script><!--<script>", "b": "\u2028\u2029\ud800", "c": "&lt;"}
    text = script_json(hostile)
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == hostile
    with pytest.raises(ValueError, match="not JSON compliant"):
        script_json(math.nan)


def test_the_page_asks_nothing_of_any_network(run):
    page = report_html(run)
    (policy,) = [a["content"] for _, a in Elements(page).tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "http" not in policy
    assert "unsafe" not in policy
    for tag, attributes in Elements(page).tags:
        for name in ("src", "href", "action", "data", "srcset"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")), (tag, value)
    css = (Path(faithmap.__file__).parent / "report" / "web" / "page.css").read_text()
    assert "url(" not in css
    assert "@import" not in css


def test_the_file_stays_within_its_budget(run):
    summary = summarise(run)
    examples = run.examples()
    whole, blobs = flipbook(summary, examples)
    assert whole["left_out"] == ""
    sizes = [len(blobs[example["blob"]]) for example in whole["examples"]]
    book, blobs = flipbook(summary, examples, budget=sizes[0] + sizes[1])
    assert len(book["examples"]) == len(blobs) == 2
    assert book["left_out"].startswith(f"{len(examples) - 2} of the {len(examples)}")


def test_what_was_run_is_told(run):
    details = numbers.details(summarise(run))
    assert dict(details["protocol"])["region size"] == "5"
    assert "Protocol.from_dict" in details["command"]
    assert [row["image"] for row in details["skipped"]] == ["0-</broken>.png"]
    run.manifest = run.manifest.updated(command="faithmap run --images 'a b'")
    assert numbers.details(summarise(run))["command"] == "faithmap run --images 'a b'"
    run.manifest = run.manifest.updated(command=None)


def test_ranking_agrees_with_the_statistics(run):
    summary = summarise(run)
    shown = numbers.ranking(summary)
    table = faithmap.statistics.ranking(run.scores(), summary.score)
    assert [row["label"] for row in shown["rows"]] == [faithmap.text.display_name(m) for m in table.method]
    for row, (_, expected) in zip(shown["rows"], table.iterrows(), strict=True):
        assert float(row["value"]) == pytest.approx(expected["mean"], rel=1e-4, abs=1e-9)
        assert row["group_value"] == expected["letters"]
        if math.isfinite(expected["low"]):
            assert row["x_low"] <= row["x"] <= row["x_high"]
        aopc = faithmap.statistics.per_image_aopc(run.scores(), summary.score, relative=True).iloc[:, -1].unstack()
        values = aopc[expected["method"]]
        if expected["method"] != "random":
            wins = ((values > 0).sum() + 0.5 * (values == 0).sum()) / values.notna().sum()
            assert float(row["wins_value"]) == pytest.approx(wins)


def changed(run, frame=None, **manifest):
    """The same run with some of what it holds replaced."""
    parts = {name: getattr(run, name) for name in ("protocol", "skipped", "store", "examples", "removal_step", "fill")}
    scores = run.scores() if frame is None else frame
    return SimpleNamespace(**parts, scores=lambda: scores, manifest=run.manifest.updated(**manifest))


@pytest.mark.parametrize(
    ("name", "keep"),
    [
        ("one image", lambda f: f[f.image == f.image.iloc[0]]),
        ("one method and random", lambda f: f[f.method.isin(["edges", "random"])]),
        ("random only", lambda f: f[f.method == "random"]),
        ("no random", lambda f: f[f.method != "random"]),
        ("a method on one image only", lambda f: f[(f.method != "edges") | (f.image == f.image.iloc[0])]),
        ("two steps", lambda f: f[f.step <= 1]),
        ("one draw of a method missing", lambda f: f[(f.method != "edges") | (f.draw == 0)]),
    ],
)
def test_half_finished_and_lopsided_runs_have_a_page(run, name, keep):
    part = changed(run, keep(run.scores()).reset_index(drop=True), finished=None)
    page = report_html(part)
    assert "This run is not finished" in page
    assert "NaN" not in re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert "preliminary" in run_html(part)


@pytest.mark.parametrize(
    ("overrides", "sign", "words"),
    [
        ({"orders": ("lerf",)}, -1, ("least relevant first", "How fast does the score fall?", "low is good")),
        ({"direction": "restore", "fill": "blur:sigma=3"}, -1, ("most relevant first", "score rise?", "low is good")),
        (
            {"direction": "restore", "fill": "blur:sigma=3", "orders": ("lerf",)},
            1,
            ("least relevant first", "score rise?", "high is good"),
        ),
    ],
)
def test_other_aims_than_falling_fast(tmp_path, overrides, sign, words):
    """Where the score should stay or come back, a low AOPC is the good one."""
    run = evil_run(tmp_path, **overrides)
    summary = summarise(run)
    assert summary.sign == sign
    page = report_html(run)
    assert not [word for word in words if word not in page]
    frame = run.scores()
    aopc = frame.groupby(["method", "image", "draw"])["logit"].agg(lambda curve: (curve.iloc[0] - curve).mean())
    by_method = aopc.groupby("method").mean()
    own = [line.method for line in summary.lines if line.method != "random"]
    assert own == sorted(own, key=lambda name: -sign * by_method[name])
    ranked = numbers.ranking(summary)["rows"]
    assert [float(row["value"]) * sign for row in ranked] == sorted(
        (float(r["value"]) * sign for r in ranked), reverse=True
    )
    for line in summary.lines:
        row = next(row for row in ranked if row["label"] == line.label)
        better = sign * (aopc[line.method] - aopc["random"]).groupby("image").mean()
        if line.method != "random":
            assert float(row["wins_value"]) == pytest.approx((better > 0).mean())


def test_no_heatmaps_no_flipbook(run):
    bare = changed(run)
    bare.examples = lambda count: []
    assert "holds no heatmaps" in report_html(bare)
    with pytest.raises(StoreError, match="holds no heatmaps"):
        flipbook_html(bare)


def test_the_flipbook_of_an_unknown_image_names_the_known(run):
    with pytest.raises(StoreError, match=r"no heatmaps of image 'nosuch'.*0-"):
        flipbook_html(run, "nosuch")


def test_a_run_shows_itself(run, tmp_path):
    assert "<svg" in run._repr_html_()
    assert run.flipbook()._repr_html_().startswith("<iframe")
    assert run.report(tmp_path / "r.html", examples=1).stat().st_size > 50_000
    empty = Run(run.folder)
    empty.scores = lambda: (_ for _ in ()).throw(StoreError("no scores"))
    assert empty._repr_html_() is None


def test_the_command_writes_the_page(run, tmp_path):
    from typer.testing import CliRunner

    from faithmap import cli

    result = CliRunner().invoke(cli.app, ["report", str(run.folder), "-o", str(tmp_path / "page.html")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    result = CliRunner().invoke(cli.app, ["report", str(tmp_path)])
    assert result.exit_code == 1
    assert "holds no run" in result.output


def test_the_file_is_replaced_as_a_whole(run, tmp_path):
    path = tmp_path / "new" / "report.html"
    assert write_report(run, path) == path
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="could not be written"):
        write_report(run, tmp_path / "file" / "report.html")


def test_hues_tell_families_and_dashes_their_members():
    methods = ["lrp-epsilon:0", "sensitivity:l2", "lrp-epsilon:0.01", "random"]
    zero, sensitivity, small, random = lines(methods)
    assert zero.hue == small.hue != sensitivity.hue
    assert zero.dash != small.dash
    assert random.hue == "hue-random"
    only = lines(["lrp:1", "lrp:2"])
    assert only[0].hue != only[1].hue
    many = lines([f"own{i}" for i in range(40)])
    assert len({(line.hue, line.dash) for line in many}) == len(many) == len({line.id for line in many})


def test_a_family_of_many_has_a_style_for_each():
    many = lines([f"lrp-epsilon:{i}" for i in range(12)] + ["sensitivity:l2"])
    assert len({(line.hue, line.dash) for line in many}) == 13


@given(st.lists(st.floats(0, 100), min_size=1, max_size=9))
def test_labels_are_spread_in_their_order(places):
    moved = spread(places, 13.0, 0.0, 200.0)
    by_place = [moved[i] for i in np.argsort(places, kind="stable")]
    assert all(b - a >= 13.0 - 1e-9 for a, b in itertools.pairwise(by_place))
    assert min(moved) >= 0
    assert max(moved) <= 200


@pytest.mark.parametrize(
    ("value", "digits", "text"), [(-0.0004, 3, "0.000"), (-0.5, 1, "−0.5"), (12.34, 2, "12.34"), (math.nan, 2, "–")]
)
def test_numbers_for_people(value, digits, text):
    assert numbers.number(value, digits) == text


def test_class_names(run):
    summary = summarise(run)
    assert summary.class_name(None) == summary.class_name(pd.NA) == ""
    assert summary.class_name(99) == "class 99"
    assert summary.class_name(2) == "new\\nline"
