"""Draw every figure of a run folder again, for docs/figures.md.

    faithmap run --limit 24 --protocol srg --region-size 28 --points 12 --measures complexity --out runs/gallery \
        --methods grad-cam,lrp-epsilon-plus,lrp-epsilon:0.01,lrp-epsilon:0,sensitivity:l2,deconvolution:l2
    python docs/gallery.py runs/gallery
    python docs/gallery.py runs/gallery --eyes /tmp/eyes      # and as other eyes see them
    python docs/gallery.py runs/gallery --page                # and the part of the page above the fold
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import matplotlib as mpl
import numpy as np
from PIL import Image

from faithmap import FaithmapError, Run, plots

IMAGES = Path(__file__).parent / "images" / "figures"
DPI = {"heatmaps": 90, "steps": 50}  # photos and noise hardly deflate
# What people with a colour deficiency see, in linear RGB; Machado, Oliveira & Fernandes 2009, severity 1. And grey.
EYES = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    "grey": [[0.2126, 0.7152, 0.0722]] * 3,
}


def seen(picture: np.ndarray, matrix: list[list[float]]) -> np.ndarray:
    """A picture (H, W, 3) in 0 … 255 as other eyes see it."""
    srgb = picture / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4) @ np.array(matrix).T
    linear = np.clip(linear, 0, 1)
    back = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(255 * back).astype(np.uint8)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("run", type=Path)
    arguments.add_argument("--out", type=Path, default=IMAGES)
    arguments.add_argument("--eyes", type=Path, help="also write sheets for colour deficiencies and grey into here")
    arguments.add_argument("--page", action="store_true", help="also take a picture of the page, with Chromium")
    given = arguments.parse_args()
    mpl.use("agg")
    given.out.mkdir(parents=True, exist_ok=True)
    run = Run(given.run)
    for name in plots.FIGURES:
        try:
            axes = run.figure(name, style="wide" if name in ("fig4", "scorecard", "study") else "paper")
        except FaithmapError as error:
            print(f"{name}: left out: {error}")
            continue
        path = plots.save(axes, given.out / f"{name}.png", dpi=DPI.get(name, 110))
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
        if given.eyes:
            given.eyes.mkdir(parents=True, exist_ok=True)
            picture = np.asarray(Image.open(path).convert("RGB"), dtype=float)
            sheet = np.concatenate([seen(picture, matrix) for matrix in EYES.values()])
            Image.fromarray(sheet).save(given.eyes / f"{name}.png")
    if given.page:
        photograph(run, given.out.parent / "page.png")


def photograph(run: Run, path: Path) -> None:
    """The page as it opens at 1280×800."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as place, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(run.report(Path(place) / "report.html").as_uri())
        page.wait_for_selector("html.ready")
        page.screenshot(path=path)
        browser.close()


if __name__ == "__main__":
    main()
