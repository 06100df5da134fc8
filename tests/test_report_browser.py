"""The page in a real browser: headless Chromium, driven by Playwright. Skips where there is none."""

import html
import itertools
import re
import shutil

import numpy as np
import pytest
import torch

import faithmap
from faithmap.report import flipbook_html, run_html, write_report
from faithmap.report.summary import summarise
from faithmap.text import display_name, number, printable
from tests.report_runs import EVIL_METHOD, HEIGHT, WIDTH, evil_run
from tests.web.tools import axe, violations

playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
HOSTILE_LABEL = display_name(EVIL_METHOD)


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    with playwright.sync_playwright() as driver:
        folder = tmp_path_factory.mktemp("browser")
        browser = driver.chromium.launch_persistent_context(
            str(folder), executable_path=CHROMIUM, args=FLAGS, viewport={"width": 1280, "height": 900}
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A run and its page."""
    return reported(tmp_path_factory.mktemp("run"))


def reported(folder, **overrides):
    run = evil_run(folder, **overrides)
    return run, write_report(run, folder / "report.html")


@pytest.fixture
def page(context, report):
    """The page, opened from disk; whatever it complains about or asks of a network fails the test."""
    yield from opened(context, report[1].as_uri())


def opened(context, address, **media):
    page = context.new_page()
    page.set_default_timeout(5000)
    page.emulate_media(**{"color_scheme": "light", **media})
    complaints, requests = [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(address)
    page.wait_for_selector("html.ready")
    yield page
    assert complaints == []
    assert {url for url in requests if not url.startswith(("data:", "about:", "blob:"))} == {address}
    assert page.evaluate("typeof hacked") == "undefined"
    page.close()


def part(page, name):
    return page.locator(f'#flipbook [data-part="{name}"]')


def set_step(page, step):
    """All steps are scored in these runs, so a step is its own place."""
    part(page, "step").evaluate(
        "(slider, step) => { slider.value = step; slider.dispatchEvent(new Event('input')); }", str(step)
    )


def canvas(page, name):
    """The pixels of a canvas, (3, H, W) in [0, 1]."""
    flat = part(page, name).evaluate(
        "c => [c.width, c.height, ...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"
    )
    width, height = flat[:2]
    rgba = np.array(flat[2:], dtype=np.float32).reshape(height, width, 4)
    assert (rgba[..., 3] == 255).all()
    return rgba[..., :3].transpose(2, 0, 1) / 255


def ids(run):
    return {line.method: line.id for line in summarise(run).lines}


def pick(page, run, image):
    card = page.locator(".card", has=page.get_by_alt_text(re.compile("^" + re.escape(printable(image)))))
    card.locator("img").click()
    playwright.expect(part(page, "caption").locator("strong")).to_have_text(printable(image))


PROTOCOLS = {
    "grid": {},
    "own fill": {"paired_fill": False, "fill": "uniform-grey", "placement": "centre"},
    "restored": {"direction": "restore", "fill": "blur:sigma=3"},
    "pixels": {"placement": "pixel", "region_size": 150},
}


@pytest.mark.parametrize("overrides", PROTOCOLS.values(), ids=PROTOCOLS)
def test_the_canvas_shows_what_python_perturbs(context, tmp_path, overrides):
    run, path = reported(tmp_path, **overrides)
    for page in opened(context, path.as_uri()):
        worst = 0.0
        for example in run.examples()[:2]:
            pick(page, run, example.image)
            for first, second in (("edges", EVIL_METHOD), ("random", "edges")):
                part(page, "method-a").select_option(ids(run)[first])
                part(page, "method-b").select_option(ids(run)[second])
                for step in (0, 7, 12):
                    set_step(page, step)
                    for side, method in (("a", first), ("b", second)):
                        expected = perturbed(run, example, method, step)
                        got = canvas(page, f"image-{side}")
                        assert got.shape == (3, HEIGHT, WIDTH)
                        worst = max(worst, float(np.abs(got - expected).max()))
        assert 0 < worst <= 1 / 255 + 1e-6


def perturbed(run, example, method, step):
    """x⁽ᵏ⁾ as Python computes it."""
    removal, fill = run.removal_step(example, method), run.fill(example, method=method)
    if run.protocol.direction == "restore":
        return faithmap.perturb(fill, removal, example.pixels, step).numpy()
    return faithmap.perturb(example.pixels, removal, fill, step).numpy()


def test_an_imputed_fill_is_owned_up_to(context, tmp_path):
    """Values that are computed anew at every step cannot be shown; grey stands for them, and the page says so."""
    run, path = reported(tmp_path, fill="noisy-linear")
    for page in opened(context, path.as_uri()):
        assert "grey stands for it" in page.locator("main").inner_text()
        assert "pixel by pixel" not in page.locator("main").inner_text()
        example = run.examples()[0]
        pick(page, run, example.image)
        part(page, "method-a").select_option(ids(run)["edges"])
        set_step(page, 12)
        removed = run.removal_step(example, "edges").numpy() > 0
        assert np.abs(canvas(page, "image-a")[:, removed] - 0.5).max() <= 1 / 255


def test_outlines_enclose_the_removed_regions(report, page):
    run, _ = report
    example = run.examples()[0]
    pick(page, run, example.image)
    part(page, "method-a").select_option(ids(run)["edges"])
    removal = run.removal_step(example, "edges").numpy()
    for step in (1, 5, 12):
        set_step(page, step)
        drawn = part(page, "heatmap-outline-a").locator(".past").get_attribute("d")
        assert edges_of_path(drawn) == edges_of_map(np.where(removal <= step, removal, 0))
        now = part(page, "image-outline-a").locator(".now").last.get_attribute("d")
        assert edges_of_path(now) == edges_of_map(np.where(removal == step, 1, 0))


def test_outlines_of_segments_of_any_shape(page):
    """Blobs instead of squares, with holes and touching corners."""
    random = np.random.default_rng(2)
    removal = random.choice([0, 1, 2, 3], (17, 23), p=[0.4, 0.2, 0.2, 0.2])
    found = page.evaluate("([steps, h, w]) => outlines(steps, h, w)", [removal.ravel().tolist(), 17, 23])
    for step in (1, 2, 3):
        path = "".join(piece or "" for piece in found["all"][1 : step + 1])
        assert edges_of_path(path) == edges_of_map(np.where(removal <= step, removal, 0))
        assert edges_of_path(found["own"][step]) == edges_of_map(np.where(removal == step, 1, 0))


def edges_of_path(path):
    """Unit edges of a path such as M3 4h2M5 0v1."""
    edges = set()
    for x, y, kind, length in re.findall(r"M(\d+) (\d+)([hv])(\d+)", path or ""):
        for i in range(int(length)):
            edges.add((int(x) + i, int(y), "h") if kind == "h" else (int(x), int(y) + i, "v"))
    return edges


def edges_of_map(region):
    """Unit edges between two pixels of different regions, or a region and the outside."""
    height, width = region.shape
    framed = np.pad(region, 1)
    horizontal = {
        (x, y, "h") for y in range(height + 1) for x in range(width) if framed[y, x + 1] != framed[y + 1, x + 1]
    }
    return horizontal | {
        (x, y, "v") for y in range(height) for x in range(width + 1) if framed[y + 1, x] != framed[y + 1, x + 1]
    }


def test_heatmaps_show_sign_and_size(report, page):
    run, _ = report
    example = run.examples()[0]
    pick(page, run, example.image)
    part(page, "method-a").select_option(ids(run)[EVIL_METHOD])
    heatmap = example.heatmaps[EVIL_METHOD]
    red, _, blue = canvas(page, "heatmap-a")
    strong = heatmap.abs() > heatmap.abs().quantile(0.8)
    assert (red[strong & (heatmap > 0)] > blue[strong & (heatmap > 0)]).all()
    assert (red[strong & (heatmap < 0)] < blue[strong & (heatmap < 0)]).all()
    part(page, "method-a").select_option(ids(run)["random"])
    assert "no heatmap" in part(page, "note-a").inner_text()
    assert np.ptp(canvas(page, "heatmap-a"), axis=(1, 2)).max() == 0


def test_dragging_the_slider_turns_the_pages(page):
    slider = part(page, "step")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 3, middle)
    page.mouse.down()
    seen = []
    for share in (0.3, 0.6, 1.0):
        page.mouse.move(box["x"] + share * box["width"] - 2, middle)
        seen.append(slider.input_value())
    page.mouse.up()
    assert seen == sorted(seen, key=int)
    assert seen[-1] == "12"
    assert part(page, "step-text").inner_text() == "12 of 12"
    x = float(part(page, "chart").locator(".cross").get_attribute("x1"))
    set_step(page, 6)
    assert float(part(page, "chart").locator(".cross").get_attribute("x1")) < x


def test_readouts_are_the_measured_scores(report, page):
    run, _ = report
    example = run.examples()[0]
    pick(page, run, example.image)
    part(page, "method-a").select_option(ids(run)["edges"])
    frame = run.scores()
    rows = frame[(frame.image == example.image) & (frame.method == "edges") & (frame.draw == 0)].set_index("step")
    for score in ("logit", "probability"):
        page.locator(f'input[name="score"][value="{score}"]').check()
        set_step(page, 5)
        start, then = rows[score][0], rows[score][5]
        text = part(page, "readout-a").inner_text().replace("\xa0", " ")
        if score == "logit":
            change = number(round(then, 2) - round(start, 2), 2)  # of the numbers that a reader sees
            change = ("+" if then > start else "") + change
            assert text == f"{number(start, 2)} → {number(then, 2)} ({change})"
        else:
            assert text == f"{per_cent(start)} → {per_cent(then)}"


def per_cent(value):
    return f"{100 * value:.1f} %" if 100 * value < 9.95 or value > 0.99 else f"{100 * value:.0f} %"


def test_it_opens_where_the_curves_part_and_says_when_half_is_gone(report, page):
    run, _ = report
    frame = run.scores()
    frame = frame[frame.draw == 0]
    by_id = {line.id: line.method for line in summarise(run).lines}
    for card in (0, 3):
        picture = page.locator(".card").nth(card).locator("img")
        name = picture.get_attribute("alt")
        example = next(one for one in run.examples() if name.startswith(printable(one.image)))
        pick(page, run, example.image)
        image = printable(example.image)
        own = frame[frame.image.map(printable) == image]
        a, b = (
            own[own.method == by_id[part(page, f"method-{side}").input_value()]].sort_values("step").logit.to_numpy()
            for side in "ab"
        )
        assert part(page, "step-text").inner_text() == f"{np.abs(a - b).argmax()} of 12"
        level = (a[0] + min(a.min(), b.min())) / 2
        said = part(page, "story").inner_text()
        for letter, curve in (("A", a), ("B", b)):
            there = np.flatnonzero(curve <= level)
            assert (f"{letter} at step {there[0]}" if len(there) else f"{letter} not within 12 steps") in said
    set_step(page, 3)
    part(page, "telling").click()
    assert part(page, "step-text").inner_text() != "3 of 12"


def test_marks_and_ends_of_the_curves_do_not_cover_each_other(report, page):
    run, _ = report
    chart = page.locator("#flipbook .chart")
    shown = [chart.locator(f".{name}").count() for name in ("end-label", "tie")]
    assert shown == [2, 2]  # those of A and B: the reference has no label, so nothing leads to one
    for method in summarise(run).lines[:2]:  # the same method twice: both marks stand at one step
        for side in "ab":
            part(page, f"method-{side}").select_option(method.id)
        boxes = [note.bounding_box() for note in chart.locator(".note-text").all()]
        for one, other in itertools.combinations(boxes, 2):
            assert one["y"] + one["height"] <= other["y"] + 1 or other["y"] + other["height"] <= one["y"] + 1


def test_one_switch_for_the_whole_page(report, page):
    run, _ = report
    for score in ("probability", "logit"):
        page.locator(f'input[name="score"][value="{score}"]').check()
        said = faithmap.statistics.headline(run.scores(), score)
        assert squeezed(page.locator("h1").inner_text()) == squeezed(said)
        assert page.locator(f"#ranking-{score}").is_visible()
        assert page.locator("table.ranking:visible").count() == 1
        assert page.locator("#figure .chart .axis-title").first.text_content().endswith(score)
        assert part(page, "chart").locator(".axis-title").first.text_content().startswith(score)
        assert "better on" in part(page, "wins").inner_text()


def squeezed(text):
    return " ".join(text.replace("\u2011", "-").replace("\xa0", " ").split())


def test_the_flipbook_by_keyboard(page):
    slider, text = part(page, "step"), part(page, "step-text")
    slider.focus()
    for key, expected in [
        ("Home", 0),
        ("ArrowRight", 1),
        ("ArrowRight", 2),
        ("ArrowLeft", 1),
        ("End", 12),
        ("Home", 0),
    ]:
        page.keyboard.press(key)
        assert text.inner_text() == f"{expected} of 12"
    assert "step 0 of 12" in slider.get_attribute("aria-valuetext")
    page.locator("#flipbook").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    assert text.inner_text() == "11 of 12"
    page.keyboard.press("Space")
    playwright.expect(text).to_have_text("12 of 12")
    playwright.expect(part(page, "play")).to_have_attribute("aria-pressed", "false")
    page.keyboard.press("Space")
    playwright.expect(slider).not_to_have_value("12")
    assert part(page, "play").get_attribute("aria-label") == "Pause"
    page.keyboard.press("Space")
    assert part(page, "play").get_attribute("aria-label") == "Play"


def test_images_by_keyboard(page):
    cards = page.locator(".card input")
    cards.first.focus()
    before = part(page, "caption").inner_text()
    page.keyboard.press("ArrowRight")
    playwright.expect(part(page, "caption")).not_to_have_text(before)
    assert cards.nth(1).is_checked()


def test_everything_can_be_reached_with_tab(page):
    seen = set()
    for _ in range(90):
        page.keyboard.press("Tab")
        seen.add(
            page.evaluate("(e => e.dataset.part || e.dataset.copy || e.name || e.tagName)(document.activeElement)")
        )
    wanted = {"plot", "bands", "against", "score", "method", "theme", "flipbook-image", "method-a", "method-b", "play"}
    assert seen >= wanted | {"back", "step", "on", "telling", "flipbook-sort", "command", "BUTTON", "SUMMARY"}


def test_images_are_sorted_by_disagreement(report, page):
    run, _ = report
    aopc = faithmap.statistics.per_image_aopc(run.scores(), "logit").iloc[:, -1].unstack()
    for first, second in (("edges", EVIL_METHOD), ("edges", "random"), ("edges", "edges")):
        part(page, "method-a").select_option(ids(run)[first])
        part(page, "method-b").select_option(ids(run)[second])
        shown = page.locator(".card img").evaluate_all("all => all.map(e => e.alt)")
        differences = (aopc[first] - aopc[second]).abs()
        by_name = {printable(image): value for image, value in differences.items()}
        values = [next(v for n, v in by_name.items() if alt.startswith(n)) for alt in shown]
        assert len(values) == len(run.examples()) == 7
        assert values == sorted(values, reverse=True)
    part(page, "method-b").select_option(ids(run)[EVIL_METHOD])
    signed = aopc["edges"] - aopc[EVIL_METHOD]
    for value, sign in (("-1", 1), ("1", -1)):
        page.locator(f'input[name="flipbook-sort"][value="{value}"]').check()
        first = page.locator(".card img").first.get_attribute("alt")
        best = (sign * signed).sort_values().index[-1]
        assert first.startswith(printable(best))


def test_the_table_sorts(page):
    table = page.locator("#ranking-logit")

    def column(index):
        return table.locator("tbody tr").evaluate_all(
            "(rows, i) => rows.map(row => row.cells[i].dataset.value ?? row.cells[i].textContent)", index
        )

    assert column(0) == ["1", "2", "3"]
    table.get_by_role("button", name="AOPC").click()
    values = [float(value) for value in column(3)]
    assert values == sorted(values, reverse=True)
    table.get_by_role("button", name="AOPC").click()
    assert [float(value) for value in column(3)] == sorted(values)
    assert table.locator('th[aria-sort="ascending"]').inner_text().startswith("AOPC")
    cells = table.locator("tbody tr td:nth-child(4)")
    for i, value in enumerate(("9", "-20.5", "100")):
        cells.nth(i).evaluate("(cell, value) => (cell.dataset.value = value)", value)
    table.get_by_role("button", name="AOPC").click()
    assert column(3) == ["100", "9", "-20.5"]
    table.get_by_role("button", name="AOPC").click()
    assert column(3) == ["-20.5", "9", "100"]
    table.get_by_role("button", name="Method").press("Enter")
    assert column(1) == sorted(column(1), key=str.casefold)
    table.get_by_role("button", name="#").click()
    assert column(0) == ["1", "2", "3"]


def test_methods_switch_off_and_on(report, page):
    run, _ = report
    line = page.locator(f'#figure path.line[data-method="{ids(run)["edges"]}"]')
    assert line.count() == 1
    toggle = page.locator(f'#figure input[value="{ids(run)["edges"]}"]')
    toggle.focus()
    page.keyboard.press("Space")
    assert line.count() == 0
    page.keyboard.press("Space")
    assert line.count() == 1


def test_the_figure_tells_its_values(report, page):
    """By the arrow keys and by the mouse, for both scores, relative and raw."""
    run, _ = report
    plot = page.locator('[data-part="plot"]')
    label = "edges"
    for score in ("logit", "probability"):
        for against in ("relative", "raw"):
            page.locator(f'input[name="score"][value="{score}"]').check()
            page.locator(f'#figure input[value="{against}"]').check()
            table = faithmap.statistics.aopc_table(run.scores(), score, against == "relative").set_index(
                ["method", "step"]
            )
            plot.focus()
            page.keyboard.press("Home")
            for _ in range(4):
                page.keyboard.press("ArrowRight")
            assert plot.get_attribute("aria-valuenow") == "4"
            key = page.locator("#figure .key", has=page.get_by_text(label, exact=True))
            shown = float(key.locator(".value").inner_text().replace("−", "-"))
            low, high = (float(v) for v in key.locator(".interval").inner_text().replace("−", "-").split(" … "))
            expected = table.loc[("edges", 4)]
            digits = max(1, len(key.locator(".value").inner_text().split(".")[-1]))
            for got, wanted in ((shown, expected["mean"]), (low, expected["low"]), (high, expected["high"])):
                assert abs(got - wanted) <= 0.51 * 10**-digits
    box = plot.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert 0 < int(plot.get_attribute("aria-valuenow")) < 12
    assert page.locator("#figure path.band").count() == 1
    page.locator('#figure input[value="all"]').check()
    assert page.locator("#figure path.band").count() == 3


def test_hostile_names_are_text(report, page):
    assert page.evaluate("document.querySelectorAll('[onerror], img[src=\"x\"], marquee').length") == 0
    assert page.locator("select >> nth=0").inner_text().count("</script><script>hacked=1</script>") == 1
    assert page.locator("h1").inner_text() != ""
    assert "{{7*7}}" in " ".join(page.locator(".card img").evaluate_all("all => all.map(e => e.alt)"))
    assert page.title().startswith("</script><img src=x")


@pytest.mark.parametrize("width", [375, 768, 1100, 1280, 1920])
def test_no_sideways_scrolling(page, width):
    page.set_viewport_size({"width": width, "height": 900})
    page.wait_for_timeout(150)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    outside = page.evaluate(
        """() => [...document.querySelectorAll('main *, header *')]
        .filter(e => !e.closest('.scroll, .strip, svg, select, .bar .segmented, ' +
        '.visually-hidden') && e.getBoundingClientRect().right > innerWidth + 1)
        .map(e => e.outerHTML.slice(0, 80))"""
    )
    assert outside == []
    cut = page.evaluate(
        "() => [...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth + 1 &&"
        " e.querySelector('.ranking')).map(e => e.scrollWidth + ' of ' + e.clientWidth)"
    )
    assert cut == []


def test_print_cuts_nothing_and_shows_the_last_step(page):
    page.set_viewport_size({"width": 688, "height": 1000})  # A4 within its margins
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    page.wait_for_timeout(150)
    assert part(page, "step-text").text_content() == "12 of 12"
    assert page.evaluate("document.documentElement.scrollWidth") <= 688
    cut = "() => [...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth + 1).length"
    assert page.evaluate(cut) == 0
    assert not page.locator(".bar").is_visible()


@pytest.mark.parametrize("width", [375, 768, 1280, 1920])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(context, report, width, scheme):
    page = context.new_page()
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    page.goto(report[1].as_uri())
    page.wait_for_selector("html.ready")
    found = axe(page)
    assert violations(found) == []
    assert len(found["passes"]) > 20
    page.close()


# The contrast of all text with what lies behind it, by the formula of WCAG 2.
CONTRAST = """() => {
  const rgba = text => { const c = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
    c.fillStyle = text; c.fillRect(0, 0, 1, 1); const d = c.getImageData(0, 0, 1, 1).data;
    return [d[0], d[1], d[2], d[3] / 255]; };
  const luminance = rgb => { const [r, g, b] = rgb.map(v => v / 255).map(v =>
    v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = e => { for (; e; e = e.parentElement) { const c = rgba(getComputedStyle(e).backgroundColor);
    if (c[3] > 0.99) return c; } return [255, 255, 255, 1]; };
  const bad = []; let checked = 0;
  for (const e of document.querySelectorAll('body *')) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()) || !e.getClientRects().length) continue;
    if (e.closest('script, style, noscript, .visually-hidden, select') || e.matches(':disabled + *')) continue;
    const style = getComputedStyle(e); const inSvg = e instanceof SVGElement;
    const ink = rgba(inSvg ? style.fill : style.color).slice(0, 3); const paper = behind(e).slice(0, 3);
    const [high, low] = [luminance(ink), luminance(paper)].sort((a, b) => b - a);
    const ratio = (high + 0.05) / (low + 0.05); checked += 1;
    if (ratio < 4.5) bad.push(`${e.textContent.trim().slice(0, 30)} ${ratio.toFixed(2)}`);
  }
  return [checked, bad];
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(context, report, scheme):
    for page in opened(context, report[1].as_uri(), color_scheme=scheme):
        page.evaluate("document.querySelectorAll('details').forEach(e => (e.open = true))")
        checked, bad = page.evaluate(CONTRAST)
        assert checked > 100
        assert bad == []


def test_the_theme_can_be_chosen(report, page):
    def paper():
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    light = paper()
    middle = canvas(page, "heatmap-a").mean()
    page.locator('input[name="theme"][value="dark"]').check()
    assert paper() != light
    assert canvas(page, "heatmap-a").mean() < middle
    page.reload()
    page.wait_for_selector("html.ready")
    assert paper() != light
    page.locator('input[name="theme"][value="auto"]').check()
    assert paper() == light
    page.evaluate("localStorage.clear()")


def test_every_picture_and_control_has_a_name(page):
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('img, canvas, button, input, select, [role]')].filter(e =>
        !(e.alt || e.getAttribute('aria-label') || e.getAttribute('aria-labelledby') || e.textContent.trim() ||
        (e.labels && [...e.labels].some(l => l.textContent.trim() || l.querySelector('img[alt]')))))
        .map(e => e.outerHTML)"""
    )
    assert nameless == []
    headings = page.locator("h1, h2, h3").evaluate_all("all => all.map(e => Number(e.tagName[1]))")
    assert headings[0] == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(headings))
    twice = page.evaluate("() => { const all = [...document.querySelectorAll('[id]')].map(e => e.id);"
                          "return all.filter((id, i) => all.indexOf(id) !== i); }")  # fmt: skip
    assert twice == []


def test_a_folder_loads_its_examples_lazily(context, report, tmp_path):
    """Opened from disk, under its own policy: only the example that is looked at is read."""
    run, _ = report
    index = run.report(tmp_path / "folder", folder=True)
    page = context.new_page()
    complaints, requests = [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(index.as_uri())
    page.wait_for_selector("html.ready")
    playwright.expect(part(page, "caption")).not_to_be_empty()
    assert len([url for url in requests if url.endswith(".js")]) == 1
    example = run.examples()[0]
    pick(page, run, example.image)
    part(page, "method-a").select_option(ids(run)["edges"])
    set_step(page, 7)
    assert np.abs(canvas(page, "image-a") - perturbed(run, example, "edges", 7)).max() <= 1 / 255 + 1e-6
    assert {url.rpartition("/")[0] for url in requests} <= {index.parent.as_uri(), (index.parent / "flipbook").as_uri()}
    assert complaints == []
    (index.parent / "flipbook" / "00001.js").unlink()
    left = page.locator('.card input[value="1"]')
    left.evaluate("input => input.click()")
    playwright.expect(part(page, "story")).to_contain_text("missing beside the page")
    page.close()


def test_many_images_get_their_cards_when_they_come_near(context, tmp_path):
    """The strip grows before its end is in sight; the arrow keys reach every image, in the order that was chosen."""
    images = np.random.default_rng(4).random((70, 3, 16, 16), dtype=np.float32)
    network = faithmap.Classifier(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 3)), name="linear")
    network.preprocessing = faithmap.Preprocessing(crop=(16, 16), resize=None)
    protocol = faithmap.Protocol.preset(steps=2, region_size=8)
    run = faithmap.evaluate(
        network, images, ["edge", "centre"], protocol, tmp_path / "run", engine="dense", save_heatmaps=True
    )
    index = run.report(tmp_path / "folder", folder=True)
    page = context.new_page()
    page.goto(index.as_uri())
    page.wait_for_selector("html.ready")
    cards = page.locator(".card input")
    assert cards.count() == 60
    cards.first.focus()
    for place in range(1, 70):
        page.keyboard.press("ArrowRight")
        page.wait_for_function("at => document.querySelectorAll('.card input')[at]?.checked", arg=place, timeout=5000)
    assert sorted(int(card.get_attribute("value")) for card in cards.all()) == list(range(70))
    last = page.evaluate("document.activeElement.value")
    page.locator('input[name="flipbook-sort"][value="-1"]').check()
    assert cards.count() == 60
    assert page.locator(".strip").evaluate("strip => strip.scrollLeft") == 0
    page.locator(".strip").evaluate("strip => strip.scrollTo(strip.scrollWidth, 0)")
    playwright.expect(cards).to_have_count(70)
    assert page.locator(".card input:checked").get_attribute("value") == last
    page.close()


def test_the_command_is_copied(context, report, page):
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    button = page.get_by_role("button", name="Copy")
    button.click()
    playwright.expect(page.locator("[data-copy]")).to_have_text("Copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == page.locator("#command").text_content()
    assert "Protocol.from_dict" in copied


def test_the_flipbook_in_a_notebook(context, report, tmp_path):
    """In a frame like a notebook's output, under the same escaping."""
    run, _ = report
    example = run.examples()[1]
    notebook = tmp_path / "notebook.html"
    frame = flipbook_html(run, example.image)
    notebook.write_text(f"<!doctype html><meta charset=utf-8><body>{run_html(run)}{frame}")
    page = context.new_page()
    complaints = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(notebook.as_uri())
    inside = page.frame_locator("iframe")
    inside.locator("html.ready").wait_for()
    inside.locator('[data-part="step"]').press("End")
    page.wait_for_timeout(100)
    assert inside.locator('[data-part="step-text"]').inner_text() == "12 of 12"
    data = inside.locator('[data-part="image-a"]').evaluate(
        "c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"
    )
    got = torch.tensor(data).view(HEIGHT, WIDTH, 4)[..., :3].permute(2, 0, 1) / 255
    names = {line.id: line.method for line in summarise(run).lines}
    method = names[inside.locator('[data-part="method-a"]').input_value()]
    expected = faithmap.perturb(example.pixels, run.removal_step(example, method), run.fill(example, method=method), 12)
    assert (got - expected).abs().max() <= 1 / 255 + 1e-6
    assert inside.locator(".card").count() == 0
    for width in (1280, 760, 375):  # wherever it is scrolled to, the step can be moved
        page.set_viewport_size({"width": width, "height": 900})
        box = inside.locator('[data-part="play"]').bounding_box()
        outer = page.locator("iframe").bounding_box()
        assert outer["y"] <= box["y"], width
        assert box["y"] + box["height"] <= outer["y"] + outer["height"], width
    assert complaints == []
    assert page.evaluate("typeof hacked") == "undefined"
    assert page.locator("body > div svg path").count() > 3
    assert html.escape(HOSTILE_LABEL[:20]) in run_html(run)
    page.close()
