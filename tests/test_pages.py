"""Pages over several runs: a study, the studies of two networks, runs beside each other; and what refuses a study."""

import html
import json
import re
import shutil

import pytest
from typer.testing import CliRunner

import faithmap
from faithmap.cli import app
from faithmap.errors import FaithmapError
from faithmap.protocol import Protocol
from faithmap.studies.pages import beside_page, networks_page, networks_verdict, studies_in
from tests.conftest import TinyNet
from tests.test_study import METHODS, pixels
from tests.web.tools import axe, violations

SETTINGS = {
    "noise": Protocol.preset("srg", region_size=4, points=5),
    "coarse": Protocol.preset("srg", region_size=8, points=4),
}


def network(name, seed=0):
    import torch

    torch.manual_seed(seed)
    return faithmap.Classifier(TinyNet(), mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), name=name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The studies of two networks; the second lacks a method."""
    base = tmp_path_factory.mktemp("networks")
    faithmap.study(network("one"), pixels(4), METHODS, SETTINGS, base / "one")
    faithmap.study(network("two <b>", 1), pixels(4), METHODS[:2], SETTINGS, base / "two")
    return base


def command(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def data_of(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page.read_text(), re.DOTALL)[1])


def ranks_on(page, score):
    """Method → the ranks in the page's table, as a reader sees them."""
    text = page.read_text()
    start = text.index('aria-label="Methods by', text.index(f'<div class="by-{score}">'))
    table = text[start : text.index("</table>", start)]
    rows = re.findall(r'<tr class="hue.*?</tr>', table, re.DOTALL)
    cells = [re.findall(r'<t[dh][^>]*class="num cell[^>]*>([^<]*)', row) for row in rows]
    return dict(zip([re.search(r'data-value="([^"]*)"', row)[1] for row in rows], cells, strict=True))


def test_the_page_of_a_study_from_the_command_line(folder):
    done = command("report", folder / "one")
    assert done.exit_code == 0, done.output
    page, study = folder / "one" / "report.html", faithmap.Study(folder / "one")
    text, data = page.read_text(), data_of(page)
    for score in ("logit", "probability"):
        assert study.verdict(score=score)[0].split(";")[0].replace("−", "&#8722;") in text
        wide = study.ranks(score=score).pivot(index="method", columns="setting", values="rank")
        shown = ranks_on(page, score)
        for method, ranks in wide.iterrows():
            assert shown[faithmap.text.display_name(method)] == [f"{ranks[name]:g}" for name in SETTINGS]
    assert set(data["choices"]) == {"r0", "r1"}
    # The figure of a chosen setting is that of its run, whatever its order of methods.
    names = {method["label"]: method["id"] for method in data["methods"]}
    for key, run in zip(data["choices"], study.runs().values(), strict=True):
        curves = faithmap.statistics.gap_table(run.scores(), "logit").set_index(["method", "step"])["mean"]
        for method in METHODS:
            mean = data["choices"][key]["curves"]["logit"]["relative"][names[faithmap.text.display_name(method)]][
                "mean"
            ]
            assert mean == pytest.approx(curves[method].to_list(), rel=1e-4)
    assert (folder / "one" / "report-settings" / "noise.html").is_file()


def test_several_networks_on_one_page(folder):
    assert list(studies_in(folder)) == ["one", "two <b>"]
    done = command("report", folder)
    assert done.exit_code == 0, done.output
    text = (folder / "report.html").read_text()
    assert 'colspan="2">one</th>' in text
    assert 'colspan="2">two &lt;b&gt;</th>' in text
    assert ranks_on(folder / "report.html", "logit")["edge"][2:] == ["–", "–"]
    assert len(data_of(folder / "report.html")["choices"]) == 4
    assert studies_in(folder / "one") == {}


def test_what_holds_on_several_networks_is_what_each_of_them_says(folder):
    """The page, the terminal and the studies themselves: who is first, how often, and what so few images can show."""
    studies = studies_in(folder)
    text = html.unescape((folder / "report.html").read_text())
    for score in ("logit", "probability"):
        said = networks_verdict(studies, "srg", score)
        for line, (name, study) in zip(said[1:], studies.items(), strict=True):
            own = study.verdict(score=score)
            assert line.startswith(f"{name}: {own[0]}")
            method = study.winner(score=score).method
            if method not in (None, "random"):
                assert line == f"{name}: {own[0]} {own[1]}"
                assert "With 4 images none of" in line
            assert line in text


def test_networks_of_which_one_has_a_single_setting_so_far(folder, tmp_path):
    shutil.copytree(folder / "one", tmp_path / "one")
    shutil.copytree(folder / "two", tmp_path / "two", ignore=shutil.ignore_patterns("coarse"))
    studies = studies_in(tmp_path)
    said = networks_verdict(studies, "srg", "logit")
    assert said[0] == "No method is first most often on every network by logit."
    assert said[2] == f"two <b>: {studies['two <b>'].verdict()[0]}"
    assert networks_page(studies, tmp_path / "report.html").is_file()


@pytest.fixture(scope="module")
def unlike(tmp_path_factory):
    """The studies of a classifier and of a network whose outputs are no classes, which comes first."""
    base = tmp_path_factory.mktemp("unlike")
    faithmap.study(network("classes"), pixels(4), METHODS[:2], SETTINGS, base / "classes")
    ages = network("ages", 1)
    ages = faithmap.Classifier(ages.module, mean=ages.mean, std=ages.std, name="ages", score="identity")
    faithmap.study(ages, pixels(4), METHODS[:2], SETTINGS, base / "ages")
    return base


def test_networks_of_unlike_scores_keep_the_names_of_their_scores(unlike):
    studies = studies_in(unlike)
    assert [study.scores for study in studies.values()] == [["logit"], ["logit", "probability"]]
    page = networks_page(studies, unlike / "report.html")
    text, data = page.read_text(), data_of(page)
    assert re.findall(r'name="score" value="(\w+)"[^>]*><span>([^<]*)', text) == [
        ("logit", "score or logit"),
        ("probability", "score or probability"),
    ]
    assert "network by score (ages) or logit (classes)" in text or "networks by score (ages) or logit" in text
    # What a network without a probability has stays in sight, whatever the switch says.
    ages = text[text.index('<div data-choice="r0"') : text.index('<div data-choice="r1"')]
    assert "by-" not in ages
    assert "by score" in ages
    for score in ("logit", "probability"):
        shown = ranks_on(page, score)
        for name, study in studies.items():
            wide = study.ranks(score=study.own_score(score)).pivot(index="method", columns="setting", values="rank")
            first = 0 if name == "ages" else len(SETTINGS)
            for method, ranks in wide.iterrows():
                cells = shown[faithmap.text.display_name(method)][first : first + len(SETTINGS)]
                assert cells == [f"{ranks[setting]:g}" for setting in SETTINGS]
    assert list(data["choices"]["r0"]["curves"]) == ["logit"]
    assert list(data["choices"]["r2"]["curves"]) == ["logit", "probability"]


def test_several_networks_in_a_table(folder):
    from faithmap.cli.studying import networks_table

    studies = studies_in(folder)
    shown = {column.header: list(column.cells) for column in networks_table(studies).columns}
    assert list(shown) == ["method", "one", "two <b>"]
    for title, study in studies.items():
        places = study.agreement().places().rename(index=faithmap.text.display_name)
        for method, cell in zip(shown["method"], shown[title], strict=True):
            row = places.loc[method] if method in places.index else None
            assert cell == ("–" if row is None else f"{row['mean']:.1f} ({row['first']:g}/{row['settings']:g})")
    assert shown["two <b>"][shown["method"].index("edge")] == "–"


def test_compared_runs_as_a_page(folder):
    page = folder / "compared.html"
    done = command("compare", folder / "one" / "noise", folder / "two" / "noise", "--page", page)
    assert done.exit_code == 0, done.output
    means = faithmap.Run(folder / "one" / "noise").ranking().set_index("method")["mean"]
    shown = ranks_on(page, "logit")
    assert float(shown["random"][0]) == 0
    for method in METHODS:
        said = float(shown[faithmap.text.display_name(method)][0].replace("−", "-"))
        assert said == pytest.approx(means[method], abs=0.006 * means.abs().max())


def test_the_figure_of_a_study(folder):
    assert command("plot", folder / "one").exit_code == 0
    assert (folder / "one" / "study.png").stat().st_size > 5000
    with pytest.raises(FaithmapError, match=r"one/noise, or choose study or reliability"):
        faithmap.Study(folder / "one").figure("heatmaps")


@pytest.mark.parametrize("name", ["one", "."])
@pytest.mark.parametrize("arguments", [["scorecard"], ["cite"], ["report", "--folder"], ["compare", "other"]])
def test_a_command_that_takes_a_run_names_one_of_a_study(folder, name, arguments):
    done = command(
        arguments[0], folder / name, *(folder / "one" / "noise" if a == "other" else a for a in arguments[1:])
    )
    assert done.exit_code == 1
    said = " ".join(done.stderr.split())
    assert "takes one run" in said
    assert f"{folder}/one/noise" in said


PAGES = ("one/report.html", "report.html", "compared.html")


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install playwright")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def written(folder):
    """The three pages."""
    faithmap.Study(folder / "one").report(folder / PAGES[0])
    networks_page(studies_in(folder), folder / PAGES[1])
    beside_page([faithmap.Run(folder / name / "noise") for name in ("one", "two")], folder / PAGES[2])
    return folder


def test_a_chosen_setting_and_score_change_the_whole_page(browser, written):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto((written / PAGES[0]).as_uri())
    page.wait_for_selector("html.ready")
    study = faithmap.Study(written / "one")
    for score in ("probability", "logit"):
        page.locator(f'input[name="score"][value="{score}"]').check()
        assert squeezed(page.locator("h1").inner_text()) == squeezed(study.verdict(score=score)[0])
        assert page.locator("table.matrix:visible").count() == 1
        for key, (name, run) in zip(("r0", "r1"), study.runs().items(), strict=True):
            page.locator("#choice").select_option(key)
            assert squeezed(page.locator("h2.verdict:visible").inner_text()) == squeezed(run.verdict(score=score)[0])
            assert page.locator("table.ranking:visible").count() == 1
            assert page.locator("#figure .lede:visible").inner_text().startswith(f"{name}: ")
            steps = page.locator("#figure [data-part=plot]").get_attribute("aria-valuemax")
            assert steps == str(run.scores()["step"].max())
    page.close()


def squeezed(text):
    return " ".join(text.replace("\u2011", "-").replace("\xa0", " ").split())


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(("width", "scheme"), [(375, "dark"), (768, "light"), (1280, "light"), (1920, "dark")])
def test_axe_finds_nothing(browser, written, name, width, scheme):
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.goto((written / name).as_uri())
    page.wait_for_selector("html.ready")
    found = axe(page)
    assert violations(found) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()
