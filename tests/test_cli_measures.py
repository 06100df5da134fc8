"""`faithmap measures`, and the options of `faithmap run` for them."""

import pandas as pd
import torch
from PIL import Image

import faithmap
from faithmap.cli.listing import listed_measures
from faithmap.measures.measure import MEASURES
from tests.terminal import invoke as run


def test_measures_are_listed_as_they_are_declared():
    listed = {one.name: one for _, one in listed_measures()}
    assert set(listed) == set(MEASURES)
    for name, one in listed.items():
        kind = MEASURES[name]
        assert (one.line, one.source, one.unit, one.set, one.needs) == (
            kind.line,
            kind.source,
            kind.unit,
            kind.set,
            kind.needs,
        )
        assert (one.higher_is_better, one.cost, one.defaults) == (kind.higher_is_better, kind.cost, kind.defaults)
    done = run(["measures"])
    assert done.exit_code == 0
    assert "max-sensitivity:n=10,radius=0.02 ↓" in done.output
    assert "n heatmaps per method" in done.output


def test_a_run_measures_what_is_asked_for(tmp_path):
    images = tmp_path / "images"
    masks = tmp_path / "masks"
    for folder in (images, masks):
        folder.mkdir()
    noise = (torch.rand(3, 80, 80, 3, generator=torch.Generator().manual_seed(0)) * 255).byte().numpy()
    for at in range(3):
        Image.fromarray(noise[at]).save(images / f"{at}.png")
    for at in range(2):
        mask = Image.new("L", (80, 80))
        mask.paste(255, (10, 10, 60, 40))
        mask.save(masks / f"{at}.png")
    asked = ["run", "--images", str(images), "--methods", "edge", "--steps", "2", "--draws", "1"]
    asked += ["--out", str(tmp_path / "run"), "--measures", "gini,localisation", "--masks", str(masks)]
    done = run(asked)
    assert done.exit_code == 0, done.output
    found: pd.DataFrame = faithmap.Run(tmp_path / "run").measures()
    assert set(found.measure) == {
        "gini",
        "pointing-game",
        "relevance-mass",
        "relevance-rank",
        "attribution-localisation",
    }
    assert set(found.loc[found.measure == "relevance-mass", "image"]) == {"0.png", "1.png"}
    assert any("image '2.png' has no mask" in one.reason for one in faithmap.Run(tmp_path / "run").skipped)
    assert "Mean, 95 % interval, letters" in done.output
    shown = run(["scorecard", str(tmp_path / "run"), "--sort", "relevance-mass"])
    assert shown.exit_code == 0
    assert "relevance-mass ↑" in shown.output
    narrow = run(["scorecard", str(tmp_path / "run")], 60).output
    assert "attribution-localisation ↑" in narrow
    assert max(map(len, narrow.splitlines()[:20])) <= 60
    table = run(["scorecard", str(tmp_path / "run"), "--latex"]).output
    assert table.startswith("\\begin{tabular}{lrrrrrr}")
    assert "gini $\\uparrow$" in table
    assert table.count("\\\\") == 3  # the head, edge and random
    wrong = run([*asked[:-4], "--measures", "ginny"])
    assert wrong.exit_code != 0
    assert "did you mean 'gini'" in wrong.output + (wrong.stderr or "")
