"""The documentation site: built strictly, complete, and with nothing on its pages that is loaded from elsewhere."""

import importlib
import re
import shlex
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from inspect import isclass, isroutine
from pathlib import Path

import pytest
import typer.main

import faithmap
from faithmap.attribution.registry import resolve_methods
from faithmap.cli import app
from faithmap.measures.registry import resolve_measures
from faithmap.studies.settings import resolve_settings

ROOT = Path(__file__).parents[1]
WHICH = (ROOT / "docs" / "which-measure.md").read_text(encoding="utf-8")
LOADED = {"link": "href", "script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src"}


class Resources(HTMLParser):
    """What a page loads by itself, and the ids on it."""

    def __init__(self, page):
        super().__init__()
        self.loaded, self.ids = [], set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids.add(found.get("id"))
        if found.get(LOADED.get(tag)):
            self.loaded.append(found[LOADED[tag]])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs")
    pytest.importorskip("material")
    pytest.importorskip("mkdocstrings")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_is_there(site):
    for page in (ROOT / "docs").rglob("*.md"):
        assert (site / page.relative_to(ROOT / "docs").with_suffix(".html")).exists()


def test_nothing_is_loaded_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    for page in pages:
        if page.name == "404.html":  # its addresses begin at the root of a server
            continue
        for url in Resources(page).loaded:
            assert "//" not in url, f"{page.name} loads {url}"
            assert (page.parent / url.partition("#")[0].partition("?")[0]).exists(), f"{page.name} loads {url}"
    for style in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", style.read_text(encoding="utf-8"))


def test_the_api_has_every_public_name(site):
    ids = Resources(site / "api" / "index.html").ids
    assert {f"faithmap.{name}" for name in faithmap.__all__ if name != "__version__"} <= ids
    assert "faithmap.Run.scores" in ids  # of a base class
    for page in (ROOT / "docs" / "api").glob("*.md"):
        if page.stem == "index":
            continue
        package = importlib.import_module(f"faithmap.{page.stem}")
        ids = Resources(site / "api" / f"{page.stem}.html").ids
        for name in getattr(package, "__all__", []):
            thing = getattr(package, name)
            if isroutine(thing) or isclass(thing):
                # A function may share the name of its module, and is then found in it.
                assert ids & {f"faithmap.{page.stem}.{name}", f"faithmap.{page.stem}.{name}.{name}"}, name


def test_sections_of_a_docstring_are_sections(site):
    page = (site / "api" / "index.html").read_text(encoding="utf-8")
    assert page.count('<p><span class="doc-section-title">Raises:</span></p>') >= 5
    assert "<p>Raises:" not in page


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_the_search_works_from_a_folder(site):
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page, asked = browser.new_page(), []
        page.on("request", lambda request: asked.append(request.url))
        page.goto((site / "index.html").as_uri())
        page.locator(".md-search__input").press_sequentially("infidelity")  # it listens to keys, not to a value
        page.wait_for_selector(".md-search-result__link[href*='measures.html']")
        browser.close()
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


@pytest.mark.parametrize("part", WHICH.split("\n    faithmap ")[1:], ids=lambda part: part.split()[0])
def test_what_the_table_of_measures_adds_is_understood(part):
    first, *rows = part.splitlines()
    cells = [row.split("|")[3] for row in rows if row.startswith("|")]
    added = [" ".join(re.findall(r"`([^`]*)`", cell)) for cell in cells if "`--" in cell]
    assert len(added) >= 2
    for options in added:
        name, *words = shlex.split(f"{first} {options}")
        values = typer.main.get_command(app).commands[name].make_context(name, words).params
        assert str(values["out"]).startswith("runs/")
        if values.get("protocol"):
            faithmap.Protocol.preset(values["protocol"])
        if values.get("measures"):
            resolve_measures(values["measures"])
        if values.get("settings"):
            resolve_settings(values["settings"], (224, 224))
        if "--methods" in options:
            assert len(resolve_methods(values["methods"])) == 4  # three, and random
