"""What the page weighs and how fast it is: size, first paint, a step of the flipbook, contrast, targets.

    python benchmarks/report.py runs/demo [--repeats 5]

Needs Chromium and Playwright (extra `test`). Times are medians over fresh pages opened from disk at 1280×800.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

from faithmap import Run

# First contentful paint and the moment at which everything works, in ms from the start of navigation.
PAINT = """() => new Promise(done => new PerformanceObserver(list => {
  const found = list.getEntriesByName('first-contentful-paint')[0]; if (found) done(found.startTime);
}).observe({type: 'paint', buffered: true}))"""
# The script's own time for one step, in ms: the slider's handler, layout included.
STEP = """() => { const slider = document.querySelector('[data-part="step"]');
  const last = Number(slider.max); const times = [];
  for (let at = 0; at <= last; at += 1) { slider.value = String(at); const before = performance.now();
    slider.dispatchEvent(new Event('input')); document.body.getBoundingClientRect();
    times.push(performance.now() - before); }
  times.sort((a, b) => a - b); return [times[times.length >> 1], times[times.length - 1]]; }"""
# The lowest contrast of text, of lines and marks, of borders of controls; and the smallest target.
LOOKS = """() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = text => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const luminance = ([r, g, b]) => { const [x, y, z] = [r, g, b].map(v => v / 255).map(v =>
    v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * x + 0.7152 * y + 0.0722 * z; };
  const behind = e => { for (; e; e = e.parentElement) { const c = rgba(getComputedStyle(e).backgroundColor);
    if (c[3] > 250) return c; } return [255, 255, 255]; };
  const contrast = (colour, e) => { const [high, low] = [luminance(rgba(colour)), luminance(behind(e))]
    .sort((a, b) => b - a); return (high + 0.05) / (low + 0.05); };
  const seen = e => e.getClientRects().length > 0;
  const all = selector => [...document.querySelectorAll(selector)].filter(seen);
  const text = all('body *').filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()) &&
    !e.closest('script, style, noscript, .visually-hidden, select'))
    .map(e => contrast(e instanceof SVGElement ? getComputedStyle(e).fill : getComputedStyle(e).color, e));
  const marks = [...all('.line, .whisk, .cross, .tie').map(e => contrast(getComputedStyle(e).stroke, e)),
    ...all('.mark, .dot').map(e => contrast(getComputedStyle(e).fill, e)),
    ...all('select, .segmented, .plain, .round.small').map(e => contrast(getComputedStyle(e).borderTopColor, e))];
  const targets = all('button, select, summary, input:not(.visually-hidden), .key, .card').map(e => {
    const box = (e.closest('label') ?? e).getBoundingClientRect(); return Math.min(box.width, box.height); });
  return [Math.min(...text), Math.min(...marks), Math.min(...targets)]; }"""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("run", type=Path)
    arguments.add_argument("--repeats", type=int, default=5)
    given = arguments.parse_args()
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    run = Run(given.run)
    with tempfile.TemporaryDirectory() as place, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for kind in ("file", "folder"):
            page = run.report(Path(place) / f"{kind}.html", folder=kind == "folder")
            files = [page] if kind == "file" else [one for one in page.parent.rglob("*") if one.is_file()]
            every = sum(one.stat().st_size for one in files)
            print(f"{kind}: {page.stat().st_size / 1e6:.2f} MB to open, {every / 1e6:.2f} MB in all")
            measure(browser, page, given.repeats)
        browser.close()


def measure(browser: Any, file: Path, repeats: int) -> None:
    """Open the page several times and print what was measured."""
    paints, steps = [], []
    for _ in range(repeats):
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(file.as_uri())
        paints.append(page.evaluate(PAINT))
        page.wait_for_selector("html.ready")
        page.wait_for_function("document.querySelector('[data-part=\"caption\"]')?.textContent")
        steps.append(page.evaluate(STEP))
        page.close()
    median, worst = (statistics.median(one[i] for one in steps) for i in (0, 1))
    print(f"  first paint {statistics.median(paints):.0f} ms; a step {median:.1f} ms, the slowest {worst:.1f} ms")
    for scheme in ("light", "dark"):
        page = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme=scheme)
        page.goto(file.as_uri())
        page.wait_for_selector("html.ready")
        page.wait_for_function("document.querySelector('[data-part=\"caption\"]')?.textContent")
        page.evaluate("document.querySelectorAll('details').forEach(e => (e.open = true))")
        text, marks, target = page.evaluate(LOOKS)
        looks = f"contrast of text {text:.2f}, of lines and borders {marks:.2f}"
        print(f"  {scheme}: {looks}; smallest target {target:.0f} px")
        page.close()


if __name__ == "__main__":
    main()
