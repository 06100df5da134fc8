"""The page without a browser: packed bytes, words and numbers, what is escaped, what is missing."""

import itertools
import json
import math
import os
import re
from dataclasses import replace
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
from faithmap.report import extras, flipbook_html, report_html, run_html, sections, several, write_report
from faithmap.report.flipbook import flipbook, wins
from faithmap.report.notebook import spread
from faithmap.report.packing import SCALE_QUANTILE, pack, quantise
from faithmap.report.summary import summarise
from faithmap.report.templates import script_json, template
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
    curves = sections.curves(summary)
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
    details = sections.details(summarise(run))
    assert dict(details["protocol"])["region size"] == "5"
    assert "Protocol.from_dict" in details["command"]
    assert [row["image"] for row in details["skipped"]] == ["0-</broken>.png"]
    run.manifest = run.manifest.updated(command="faithmap run --images 'a b'")
    assert sections.details(summarise(run))["command"] == "faithmap run --images 'a b'"
    run.manifest = run.manifest.updated(command=None)


def test_ranking_agrees_with_the_statistics(run):
    summary = summarise(run)
    shown = sections.ranking(summary, sections.compared(summary, summary.score))
    table = faithmap.statistics.ranking(run.scores(), summary.score)
    assert [row["label"] for row in shown["rows"]] == [faithmap.text.display_name(m) for m in table.method]
    for row, (_, expected) in zip(shown["rows"], table.iterrows(), strict=True):
        assert float(row["value"]) == pytest.approx(expected["mean"], rel=1e-4, abs=1e-9)
        assert row["letters_value"] == expected["letters"]
        if math.isfinite(expected["low"]):
            assert row["x_low"] <= row["x"] <= row["x_high"]
        aopc = faithmap.statistics.per_image_aopc(run.scores(), summary.score, relative=True).iloc[:, -1].unstack()
        values = aopc[expected["method"]]
        if expected["method"] != "random":
            wins = ((values > 0).sum() + 0.5 * (values == 0).sum()) / values.notna().sum()
            assert float(row["wins_value"]) == pytest.approx(wins)


def changed(run, frame=None, **manifest):
    """The same run with some of what it holds replaced."""
    names = ("protocol", "skipped", "store", "examples", "removal_step", "fill", "score_name")
    parts = {name: getattr(run, name) for name in names}
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
    ranked = sections.ranking(summary, sections.compared(summary, summary.score))["rows"]
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


def test_a_method_looks_the_same_on_the_page_in_figures_and_in_a_notebook(run):
    from faithmap.plots import series_of

    looks = series_of([line.method for line in summarise(run).lines])
    page, notebook = report_html(run), run_html(run)
    for line in summarise(run).lines:
        assert line.look == looks[line.method]
        if line.method != "random":
            assert f"--{line.hue.replace('hue-', 'c')}:{line.look.colour}" in page
            assert f"--{line.hue.replace('hue-', 'c')}:{line.look.dark}" in page
            assert line.look.colour in notebook
            assert line.look.outline in notebook
            assert line.look.outline in page


def test_the_answer_comes_by_both_scores(run):
    summary = summarise(run)
    answers = {answer["score"]: answer for answer in sections.opening(summary)["answers"]}
    assert set(answers) == {"logit", "probability"}
    page = report_html(run)
    for score, answer in answers.items():
        assert answer["sentence"] == faithmap.statistics.headline(run.scores(), score)
        assert score in answer["unit"]
        assert f'id="ranking-{score}"' in page
    words = " ".join(Elements(page).words)
    assert words.index("See it happen") > words.index("Differs from the next")
    assert words.index("What was run") > words.index("How fast does the score fall?") > words.index("See it happen")


def test_groups_are_counted(run):
    summary = summarise(run)
    assert sections.how_many(summary) == "7 images"
    grouped = replace(
        summary, frame=summary.frame.assign(group=summary.frame["image"].astype(str).str[0].replace("5", "4"))
    )
    assert sections.how_many(grouped) == "6 groups (7 images)"


def test_wins_are_counted_over_all_images(run):
    summary = summarise(run)
    aopc = faithmap.statistics.per_image_aopc(run.scores(), "logit").iloc[:, -1].unstack("method")
    found = wins(summary, "logit")
    for a, b in itertools.permutations(summary.lines, 2):
        assert found[a.id][b.id] == [int((aopc[a.method] > aopc[b.method]).sum()), 7]


def test_a_scorecard_has_a_place_for_every_measure():
    rows = [("a", "srg", 2.0, 1.5, 2.5, True), ("b", "srg", 1.0, 0.5, 1.5, True), ("c", "srg", 0.0, -0.5, 0.5, True)]
    rows += [("a", "size", 3.0, math.nan, math.nan, None), ("b", "</script>", 1.0, 0.0, 2.0, False)]
    table = pd.DataFrame(rows, columns=["method", "measure", "mean", "low", "high", "higher_is_better"])
    card = extras.scorecard_of(table, ["a", "b", "c", "never"])
    assert [measure["good"] for measure in card["measures"]] == ["high", "", "low"]
    assert [row["label"] for row in card["rows"]] == ["a", "b", "c"]
    assert [row["cells"][0]["tint"] for row in card["rows"]] == [4, 2, 0]
    assert card["rows"][0]["cells"][0]["interval"] == "1.50 … 2.50"
    assert card["rows"][2]["cells"][1]["text"] == "–"
    html = template("sections.html").module.scorecard_section(card)
    assert "&lt;/script&gt;" in html
    assert html.count("<tr") == 4


def test_a_study_shows_who_is_first_where():
    rows = [(f"net: {s}×{s}", m, k) for s in (9, 16) for k, m in enumerate(["grad-cam", "edge", "random"], 1)]
    part = several.ranks_part(
        "logit",
        pd.DataFrame([*rows, ("net: 9×9", "<b>", 4)], columns=["setting", "method", "rank"]),
        ["Grad-CAM is first in both.", "More."],
        [{"name": "between settings", "value": "τ 1.00", "text": "high"}],
    )
    assert [(row["label"], row["first"]) for row in part["rows"]] == [
        ("Grad-CAM", "2 of 2"),
        ("edge", ""),
        ("random", ""),
        ("<b>", ""),  # missing in a setting
    ]
    assert [cell["tint"] for cell in part["rows"][0]["cells"]] == [4, 4]
    assert part["rows"][3]["cells"][1]["text"] == "–"
    assert part["groups"] == [{"name": "net", "span": 2}]
    sections_ = template("sections.html").module
    html = sections_.beside(part, {"noun": "setting"})
    assert html.count('class="num cell') == 8
    assert "&lt;b&gt;" in html
    assert "between settings" in sections_.several_grade({"parts": [part]})


def test_a_folder_holds_every_example_beside_the_page(run, tmp_path):
    page = run.report(tmp_path / "report", folder=True)
    assert page == tmp_path / "report" / "index.html"
    text = page.read_text()
    assert len(text) < 400_000
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])
    shown = data["flipbook"]["examples"]
    assert len(shown) == 7
    for index, example in enumerate(shown):
        script = (page.parent / example["file"]).read_text()
        assert script.startswith(f"faithmapExample({index}, {{")
        assert json.loads(script.split(", ", 1)[1].removesuffix(");\n"))["curves"]
        assert (page.parent / example["thumbnail"]).read_bytes().startswith(b"\xff\xd8")
    with pytest.raises(StoreError, match="expected a folder"):
        run.report(page, folder=True)


def test_what_is_not_a_file_is_left_alone(run, tmp_path):
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    with pytest.raises(StoreError, match="not a file"):
        write_report(run, fifo)
    assert fifo.is_fifo()


def test_a_notebook_says_why_a_method_is_missing(run):
    skipped = [faithmap.store.Skipped("a.png", "grad-cam", "no <convolution>")] * 2
    part = changed(run)
    part.skipped = skipped
    assert "Grad-CAM is missing: no &lt;convolution&gt;" in run_html(part)


def test_the_page_says_why_a_method_is_missing_and_names_one_reason_once(run):
    part = changed(run)
    reason = "grad-cam fails: no <convolution>"
    part.skipped = [faithmap.store.Skipped(f"{place}.png", "grad-cam", reason) for place in range(9)]
    part.skipped += [faithmap.store.Skipped(name, None, "no picture") for name in ("x", "y")]
    assert sections.missing(summarise(part)) == [f"Not measured: {reason}"]
    page = report_html(part, examples=0)
    assert page.count("no &lt;convolution&gt;") == 2  # below the ranking, and among what was skipped
    shown = [(row["image"], row["method"]) for row in sections.details(summarise(part))["skipped"]]
    assert shown == [("9 images", "Grad-CAM"), ("x, y", "all")]


def test_no_method_at_all_is_said_once(run):
    frame = run.scores()
    summary = summarise(changed(run, frame[frame["method"] == "random"]))
    found = sections.answer(summary, "logit")
    assert found["sentence"].startswith("No heatmap method was measured")
    assert not [said for said in found["others"] if "No heatmap method" in said]


def test_a_grade_beside_its_sentence_is_not_said_twice(run):
    for item in sections.graded(summarise(run), "logit")["items"]:
        assert not item["grade"] or f": {item['grade']}" not in item["sentence"]


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
    assert faithmap.text.number(value, digits) == text


def test_class_names(run):
    summary = summarise(run)
    assert summary.class_name(None) == summary.class_name(pd.NA) == ""
    assert summary.class_name(99) == "class 99"
    assert summary.class_name(2) == "new\\nline"
