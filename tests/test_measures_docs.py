"""docs/measures.md names every measure, with the direction that its declaration gives."""

import re
from pathlib import Path

from faithmap.measures.measure import MEASURES

TEXT = (Path(__file__).parents[1] / "docs" / "measures.md").read_text(encoding="utf-8")


def test_the_docs_name_every_measure_and_its_direction():
    found = {}
    for row in re.findall(r"^\| (`[^|]*) \|", TEXT, re.MULTILINE):
        for names, arrow in re.findall(r"((?:`[a-z-]+`(?:, )?)+) (↑|↓)", row):
            found |= dict.fromkeys(re.findall(r"`([a-z-]+)`", names), arrow)
    assert found == {name: "↑" if kind.higher_is_better else "↓" for name, kind in MEASURES.items()}
