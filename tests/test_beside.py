"""Runs beside each other, in the terminal and as a page."""

import html
import re
import shutil

import pytest

from faithmap.errors import ProtocolError, StoreError
from faithmap.report import sections
from faithmap.report.summary import summarise
from faithmap.run import Run
from faithmap.studies.beside import beside
from faithmap.studies.leaderboard import leaderboard
from faithmap.studies.pages import beside_page
from faithmap.text import decimals, display_name, number, plain
from tests import terminal
from tests.paper_runs import small_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two networks and one run that asks something else."""
    base = tmp_path_factory.mktemp("many")
    small_run(base / "a")
    small_run(base / "b", name="<b>other</b>", seed=2, methods="gradient-x-input,centre", draws=2)
    small_run(base / "deep" / "c", fill="constant:0.5", methods="gradient-x-input,smoothgrad:n=3")
    return base


def invoke(*arguments, columns=200):
    return terminal.invoke(list(arguments), columns)


def test_the_table_holds_each_run_s_own_ranking(folder):
    runs = [Run(folder / name) for name in "ab"]
    found = beside(runs)
    assert found.titles == ["net_1 & co, tensor", "<b>other</b>, tensor"]
    for title, run in zip(found.titles, runs, strict=True):
        own = run.ranking("srg")
        rows = found.table[found.table["run"] == title]
        for column in ("method", "rank", "mean", "low", "high", "letters"):
            assert rows[column].tolist() == own[column].tolist()
    both, some = {"gradient-x-input", "random", "centre"}, {"sensitivity:l2", "smoothgrad:n=2"}
    assert set(found.methods()[:3]) == both
    assert set(found.methods()[3:]) == some


def test_what_is_best_everywhere_is_what_shares_the_first_letter_in_every_run(folder):
    found = beside([Run(folder / name) for name in "ab"])
    table = found.table

    def told(letters):
        for title, some in letters.items():
            for name, letter in some.items():
                table.loc[(table["run"] == title) & (table["method"] == name), "letters"] = letter
        return found.sentence()

    one, two = found.titles
    plain = dict.fromkeys(table["method"], "c")
    said = told({one: plain, two: plain})
    assert said.startswith("The best method is not significantly better than random orders on net_1")
    tests = (table["run"] == one).sum() - 1  # each method against random
    few = int(table.loc[table["run"] == one, "groups"].max())
    assert (f"{one} has too few groups of images for that: {few}, and at least" in said) == (2 * tests / 2**few >= 0.05)
    table["groups"] = 40
    assert told({one: plain, two: plain}) == said.partition(f" {one} has too few")[0]
    # The first method in both runs is gradient × input.
    assert set(table.loc[table["rank"] == 1, "method"]) == {"gradient-x-input"}
    alone = plain | {"gradient-x-input": "a"}
    assert told({one: alone, two: alone}) == (
        "Best, or not distinguishable from the best, in all 2 runs: gradient × input."
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fill": "constant:0.5"}, "fill: uniform → constant:0.5"),
        ({"region_size": 10}, "region_size: 8 → 10"),
        ({"steps": 5}, "steps: all → 5"),
        ({"orders": ("morf",)}, "measure: srg → aopc"),
        ({"score": "probability"}, "score: logit → probability"),
        ({"target": "label"}, "target: predicted → label"),
    ],
)
def test_another_question_is_refused_by_name(folder, tmp_path, change, said, monkeypatch):
    one, other = Run(folder / "a"), Run(folder / "b")
    changed = other.manifest.updated(protocol=other.protocol.override(**change))
    monkeypatch.setattr(other, "manifest", changed)
    with pytest.raises(ProtocolError, match="ask different questions") as error:
        beside([one, other])
    assert said in str(error.value)


def test_other_parameters_of_a_method_are_another_question(folder, monkeypatch):
    one, other = Run(folder / "a"), Run(folder / "b")
    spec = {**other.manifest.methods["centre"], "parameters": {"sigma": 0.5}}
    methods = {**other.manifest.methods, "centre": spec}
    monkeypatch.setattr(other, "manifest", other.manifest.updated(methods=methods))
    with pytest.raises(ProtocolError, match=r"centre: sigma: 0\.25 → sigma: 0\.5"):
        beside([one, other])


def test_draws_and_names_are_no_other_question(folder):
    assert Run(folder / "a").protocol.draws != Run(folder / "b").protocol.draws
    assert len(beside([Run(folder / "a"), Run(folder / "b")]).titles) == 2


def test_regions_that_fill_images_of_different_sizes_are_the_same_question(folder, monkeypatch):
    one, other = Run(folder / "a"), Run(folder / "b")
    record = other.manifest.classifier
    larger = record.model_copy(update={"preprocessing": {**record.preprocessing, "crop": [48, 56]}})
    protocol = other.protocol.override(steps=42)
    monkeypatch.setattr(other, "manifest", other.manifest.updated(classifier=larger, protocol=protocol))
    monkeypatch.setattr(other, "ranking", lambda *_: one.ranking())
    assert len(beside([one, other]).titles) == 2


def test_compare_prints_one_column_per_run(folder, tmp_path):
    found = invoke("compare", folder / "a", folder / "b", "--figure", tmp_path / "both.png")
    assert found.exit_code == 0, found.output
    assert "run 2: <b>other</b>, tensor" in found.output
    assert "–" in next(line for line in found.output.splitlines() if "SmoothGrad" in line)
    assert (tmp_path / "both.png").stat().st_size > 5000
    narrow = invoke("compare", *[folder / "a", folder / "b"] * 4, columns=60)
    assert narrow.exit_code == 0, narrow.output
    assert "…" not in narrow.output.partition("method")[2]
    assert max(map(len, narrow.output.splitlines())) <= 60
    assert "run 8" in narrow.output


@pytest.mark.parametrize(("names", "said"), [("a", "give at least two"), (["a", "deep/c"], "fill: uniform → constant")])
def test_compare_refuses_in_one_sentence(folder, names, said):
    found = invoke("compare", *(folder / name for name in names))
    assert found.exit_code == 1
    assert said in found.output


def cells_of(page):
    """The table of a page: for each row, column → (value, text)."""
    head = re.search(r"<thead>(.*?)</thead>", page, re.S).group(1)
    names = [html.unescape(name) for name in re.findall(r"<button[^>]*>(.*?)</button>", head)]
    rows = []
    for row in re.findall(r"<tr class=.*?</tr>", page, re.S):
        cells = re.findall(r'<t[hd][^>]* data-value="([^"]*)">(.*?)</t[hd]>', row, re.S)
        rows.append({n: tuple(map(html.unescape, c)) for n, c in zip(names, cells, strict=True)})
    return names, rows


def test_the_page_has_a_row_per_run_and_method_with_every_measure(folder):
    names, rows = cells_of(leaderboard(folder).html())
    assert names[:5] == ["Method", "Network", "Images", "Protocol", "Question"]
    assert {"SRG", "gini", "Rank", "Letters", "Run"} <= set(names)
    found = {(row["Run"][0], row["Method"][0]): row for row in rows}
    assert len(found) == len(rows)
    for name in ("a", "b", "deep/c"):
        run = Run(folder / name)
        card = run.scorecard().set_index(["measure", "method"])
        for own in run.ranking().itertuples():
            row = found.pop((name, display_name(own.method)))
            assert row["SRG"][0] == plain(own.mean)
            assert (row["Rank"][0], row["Letters"][0]) == (str(own.rank), own.letters)
            assert (row["Images"][0], row["Question"][0]) == ("6", run.manifest.fingerprint[:8])
            if ("gini", own.method) in card.index:
                assert row["gini"][0] == plain(card.loc[("gini", own.method), "mean"])
    assert not found


def test_names_from_outside_stay_text(folder):
    page = leaderboard(folder).html()
    assert "<b>other" not in page
    assert "&lt;b&gt;other&lt;/b&gt;" in page
    assert "default-src 'none'" in html.unescape(page)
    assert not re.search(r"(?:src|href)=.https?:", page)


def margin(outputs, targets):
    return outputs[:, 0] - outputs[:, 1]


def test_runs_of_other_scores_are_told_apart(folder, tmp_path):
    """A probability that one of them has not is not offered; each run's score goes by its name."""
    small_run(tmp_path / "function", name="net margin", score=margin)
    runs = [Run(folder / "a"), Run(tmp_path / "function")]
    found = beside(runs)
    assert "of the logit (net_1 & co, tensor) or score margin (net margin, tensor) relative" in found.line()
    page = beside_page(runs, tmp_path / "page.html").read_text("utf-8")
    assert found.line() in html.unescape(page)
    assert 'name="score" value="probability"' not in page
    assert len(re.findall(r'"score_names": ?{"logit": ?"score margin"}', page)) == 1
    alone = beside([runs[1], runs[1]])
    assert alone.named == "score margin"
    parameters = dict(sections.details(summarise(runs[1]))["protocol"])
    assert parameters["score"] == "score margin"
    assert dict(sections.details(summarise(runs[0]))["protocol"])["score"] == "logit"


def test_the_scorecard_says_what_the_ranking_subtracts(folder):
    """Random orders' mean, with the figures of the column: the values of the ranking are the difference."""
    run = Run(folder / "a")
    card, ranked = run.scorecard(), run.ranking("srg").set_index("method")
    means = card[card["measure"] == "srg"].set_index("method")["mean"]
    assert (means - means["random"]).drop("random").tolist() == pytest.approx(
        ranked["mean"].reindex(means.index).drop("random").tolist(), abs=1e-6
    )
    said = f"the ranking subtracts those of random orders (SRG {number(means['random'], decimals(means))})."
    assert said in " ".join(invoke("scorecard", str(folder / "a")).stdout.split())
    assert said in run.report(folder / "a.html").read_text("utf-8")


def test_a_broken_run_is_named_and_ends_nothing(folder, tmp_path):
    shutil.copytree(folder / "a", tmp_path / "a")
    (tmp_path / "<i>broken").mkdir()
    (tmp_path / "<i>broken" / "manifest.json").write_text("{")
    (tmp_path / "a" / "report.html").write_text("")
    found = invoke("leaderboard", tmp_path, "-o", tmp_path / "pages" / "all.html")
    assert found.exit_code == 0, found.output
    assert "left out: <i>broken" in found.output
    assert "1 run, 5 methods" in found.output
    page = (tmp_path / "pages" / "all.html").read_text()
    assert "&lt;i&gt;broken" in page
    assert 'href="../a/report.html"' in page
    with pytest.raises(StoreError, match="holds no run"):
        leaderboard(tmp_path / "pages")
    with pytest.raises(StoreError, match="is no folder"):
        leaderboard(tmp_path / "pages" / "all.html")


def test_a_run_itself_is_a_folder_of_one(folder):
    assert {row.folder for row in leaderboard(folder / "a").rows} == {"a"}


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")
def test_any_column_sorts_in_a_browser_without_a_network(folder, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install playwright")
    file = leaderboard(folder).write(tmp_path / "page.html")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--headless", "--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        said, asked = [], []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(file.as_uri())
        page.wait_for_selector("html.ready")
        for column, name in enumerate(cells_of(file.read_text())[0]):
            page.click(f"thead th:nth-child({column + 1}) button")
            values = page.evaluate(
                f"[...document.querySelectorAll('tbody tr')].map(r => r.cells[{column}].dataset.value)"
            )
            held = [value for value in values if value]
            assert values == held + [""] * (len(values) - len(held))
            if name in ("SRG", "gini"):
                assert [float(v) for v in held] == sorted(map(float, held), reverse=True)
            elif name in ("Rank", "Images"):
                assert [float(v) for v in held] == sorted(map(float, held))
            else:
                assert held == page.evaluate("some => [...some].sort((a, b) => a.localeCompare(b))", held)
        assert (said, asked) == ([], [file.as_uri()])
        browser.close()
