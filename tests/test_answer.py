"""What a run says in a terminal: words, bars, progress, and terminals that cannot write them."""

import io

import pytest
from rich.console import Console

from faithmap.cli import answer, console
from faithmap.experiment.progress import Progress, ProgressDisplay, percentage, told


def row(label, x, low, high, letters="a", reference=False):
    return {
        "label": label,
        "mean": "0.50",
        "interval": "the reference" if reference else "−0.10 … 1.10",
        "x": x,
        "x_low": low,
        "x_high": high,
        "letters_value": letters,
        "reference": reference,
    }


ROWS = [
    row("LRP-ε (100)", 60, 30, 90),
    row("[bold]x[/b]" + "y" * 30, 40, 10, 70, "ab"),
    row("random", 20, 20, 20, "b", True),
]


def printed(width, encoding="utf-8"):
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, errors="strict", write_through=True)
    shown = Console(file=file, width=width)
    shown.print(answer.ranking_table({"rows": ROWS, "zero": 20.0}, "AOPC", width))
    return raw.getvalue().decode(encoding)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_table_fits_and_names_are_what_they_are(width):
    lines = printed(width).splitlines()
    assert max(map(len, lines)) <= width
    assert "[bold]x[/b]" in lines[2]
    assert next(line.rstrip()[-1] for line in lines if "0.50" in line) == "a"
    starts = {line.index("0.50") for line in lines if "0.50" in line}
    assert len(starts) == 1


def test_bars_show_the_interval_and_random_orders():
    assert answer.interval_bar(ROWS[0], 20.0, 21) == "    ┊ ──────●──────  "
    assert answer.interval_bar(ROWS[1], 20.0, 21) == "  ──┼───●──────      "
    assert answer.interval_bar(ROWS[2], 20.0, 21) == "    ┊                "
    assert "●" not in answer.interval_bar(row("a", None, None, None), None, 9)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_a_terminal_of_any_encoding_takes_whatever_is_printed(monkeypatch, encoding):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    monkeypatch.setattr("sys.stdout", stream)
    console.write_anything()
    console.out.print("−1.5 … 2 ●──┊ ε ℓ∞ ✓ \U0001f600 ä", highlight=False)
    said = raw.getvalue().decode(encoding)
    if encoding == "ascii":
        assert said.strip() == "-1.5 ... 2 o--: eps linf + \\U0001f600 \\xe4"
    elif encoding == "utf-8":
        assert "●──┊" in said
    else:
        assert said.rstrip().endswith("ä")


def test_progress_is_worked_out_from_real_work():
    assert told(Progress(), 3.0) == "starting"
    assert told(Progress(images_total=12, scores_total=1200), 3.0) == "0/12 images · heatmaps first"
    half = Progress(scores=600, scores_total=1200, images=5, images_total=12)
    assert told(half, 3.0) == "5/12 images · 2.0/s · 3 s left"
    first = Progress(images=0, images_total=48, scores=30, scores_total=12_000)
    assert told(first, 44.0) == "0/48 images"  # not "10/h · 4 h 55 min left"
    assert told(first, 600.0) == "0/48 images"
    assert "/h · " in told(Progress(images=1, images_total=48, scores=250, scores_total=12_000), 600.0)
    assert told(half, 600.0) == "5/12 images · 36/h · 10 min left"
    assert percentage(Progress()) == 0
    assert percentage(Progress(scores=1199, scores_total=1200)) == 99


def test_a_log_file_gets_a_line_a_minute(monkeypatch):
    clock = iter([0.0, 0.0, 30.0, 61.0, 90.0, 122.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    file = io.StringIO()
    display = ProgressDisplay(Console(file=file, width=80))
    for scores in (100, 200, 300, 400):
        display(Progress(scores=scores, scores_total=400, images=scores // 100, images_total=4))
    lines = file.getvalue().splitlines()
    assert lines == ["50 % · 2/4 images · 2/min · 61 s left", "100 % · 4/4 images · 2/min · 0 s left"]


def test_the_bar_is_one_line_that_fits(monkeypatch):
    file = io.StringIO()
    shown = Console(file=file, width=80, force_terminal=True, force_interactive=False, no_color=True)
    with ProgressDisplay(shown) as display:
        display(Progress(scores=499, scores_total=1000, images=4999, images_total=10000))
    last = [line for line in file.getvalue().replace("\r", "\n").split("\n") if "images" in line][-1]
    assert "50 %" in last
    assert "4999/10000 images" in last
