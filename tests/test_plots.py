"""The figures: what they draw is what the tables say, nothing overlaps, text stays text."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from faithmap import plots, statistics
from faithmap.errors import FaithmapError
from faithmap.perturbation import perturb
from faithmap.plots.pictures import scaled
from faithmap.plots.series import COLOURS, MARKERS, series_of
from faithmap.plots.style import EndLabels, spread
from faithmap.protocol import Protocol
from faithmap.statistics.significance import split_letters
from faithmap.store.records import Example
from tests.frames import METHODS, frame_of

pytestmark = pytest.mark.filterwarnings("error")

HOSTILE = "a$x^2$\nb\x1b<script>{}%s\\frac"


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return frame_of(orders=("morf", "lerf"))


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    from matplotlib import pyplot

    mpl.use("agg")
    yield
    pyplot.close("all")


def end_labels(ax: Axes) -> EndLabels:
    return next(artist for artist in ax.get_children() if isinstance(artist, EndLabels))


def drawn(figure: Figure) -> None:
    figure.canvas.draw()


def overlaps(texts: list) -> list[tuple[str, str]]:
    renderer = texts[0].figure.canvas.get_renderer()
    boxes = [(text.get_text(), mpl.text.Text.get_window_extent(text, renderer)) for text in texts]
    return [(a, b) for (a, one), (b, two) in combinations(boxes, 2) if one.y0 < two.y1 - 1 and two.y0 < one.y1 - 1]


def test_fig4_draws_the_table(frame: pd.DataFrame) -> None:
    ax = plots.fig4(frame, score="probability", bands="all")
    table = statistics.aopc_table(frame, "probability")
    names = [name for name in dict.fromkeys(table["method"]) if name != "random"]
    lines = [line for line in ax.get_lines() if len(line.get_xdata()) > 2]
    assert len(lines) == len(ax.collections) == 7
    for name, line, band in zip(names, lines, ax.collections, strict=True):
        rows = table[table["method"] == name]
        np.testing.assert_allclose(line.get_ydata(), rows["mean"])
        y = band.get_paths()[0].vertices[:, 1]
        assert (y.min(), y.max()) == pytest.approx((rows["low"].min(), rows["high"].max()))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("perturbation steps", "AOPC relative to random (probability)")
    labels = {label.get_text(): label.xy for label in end_labels(ax).labels}
    assert labels["random"] == (20, 0)
    assert any(text.get_text().startswith("30 images") for text in ax.texts)


def test_fig4_says_the_verdict_and_shows_the_best(frame: pd.DataFrame) -> None:
    ax = plots.fig4(frame)
    figure = ax.get_figure(root=True)
    assert figure is not None
    said = " ".join(figure.get_suptitle().split())
    assert said == statistics.headline(frame)
    best = statistics.ranking(frame)["method"].iloc[0]
    lines = {line.get_label(): line.get_linewidth() for line in ax.get_lines() if len(line.get_xdata()) > 2}
    assert max(lines, key=lambda name: lines[name]) == series_of([best])[best].label
    assert len(ax.collections) == 1
    asked = plots.fig4(frame, bands=["deconvolution:l2"])
    assert len(asked.collections) == 2
    assert len(plots.fig4(frame, bands="none").collections) == 0
    with pytest.raises(FaithmapError, match="no method 'lrp'"):
        plots.fig4(frame, bands=["lrp"])
    forest = figure.axes[1]
    assert [text.get_text() for text in forest.get_yticklabels()] == [
        series_of([name])[name].label for name in statistics.ranking(frame)["method"]
    ]


def test_variants_that_cover_each_other_share_a_label() -> None:
    near = frame_of(methods={"lrp-epsilon:0": 0.05, "lrp-epsilon:0.01": 0.05, "sensitivity:l2": 0.03, "random": 0.015})
    near.loc[near["method"] == "lrp-epsilon:0.01", "logit"] = near.loc[
        near["method"] == "lrp-epsilon:0", "logit"
    ].to_numpy()
    labels = [label.get_text() for label in end_labels(plots.fig4(near)).labels]
    assert "LRP-ε (0, 0.01)" in " ".join(labels)
    assert len(labels) == 3


def test_curves_draw_scores(frame: pd.DataFrame) -> None:
    for order in ("morf", "lerf"):
        ax = plots.curves(frame, order=order)
        of_random = frame[(frame["method"] == "random") & (frame["order"] == order)].groupby("step")["logit"].mean()
        line = next(line for line in ax.get_lines() if line.get_marker() in ("", "None", None))
        np.testing.assert_allclose(line.get_ydata(), of_random, rtol=1e-5)


@pytest.mark.parametrize("style", ["paper", "slides"])
@pytest.mark.parametrize("methods", [METHODS, {**{f"m-{i:02d}:x": 0.03 + i / 9e4 for i in range(20)}, "random": 0.015}])
def test_labels_do_not_overlap_at_any_size(style: str, methods: dict[str, float]) -> None:
    ax = plots.fig4(frame_of(images=12, methods=methods), style=style)
    figure = ax.get_figure(root=True)
    drawn(figure)
    labels = end_labels(ax).labels
    assert overlaps(labels) == []
    right = max(mpl.text.Text.get_window_extent(label).x1 for label in labels)
    assert right <= figure.bbox.width + 1
    figure.set_size_inches(*(figure.get_size_inches() * [1.2, 1.5]))
    drawn(figure)
    assert overlaps(labels) == []


@given(st.lists(st.floats(0, 100), min_size=1, max_size=12), st.floats(0.1, 8))
def test_spread_keeps_order_and_distance(ends: list[float], apart: float) -> None:
    placed = spread(np.array(ends), apart, 0.0, 100.0)
    order = np.argsort(ends, kind="stable")
    assert (np.diff(placed[order]) >= apart - 1e-6).all()
    assert placed.min() >= apart / 2 - 1e-6
    assert placed.max() <= 100 - apart / 2 + 1e-6


def test_spread_leaves_what_is_apart_where_it_is() -> None:
    np.testing.assert_allclose(spread(np.array([10.0, 50.0, 30.0]), 5.0, 0.0, 100.0), [10, 50, 30])
    np.testing.assert_allclose(spread(np.array([50.0, 50.0]), 6.0, 0.0, 100.0), [47, 53])


def test_every_method_looks_different_and_the_same_in_every_figure(frame: pd.DataFrame) -> None:
    found = series_of(list(METHODS))
    own = [one for name, one in found.items() if name != "random"]
    assert len({one.marker for one in own}) == len({(one.colour, one.dash) for one in own}) == 7
    assert series_of([*METHODS, "zzz"])["sensitivity:l2"].colour == found["sensitivity:l2"].colour
    for ax in (plots.fig4(frame), plots.curves(frame)):
        lines = {line.get_label(): line for line in ax.get_lines()}
        for one in own:
            assert lines[one.label].get_color() == one.colour
            assert lines[one.label].get_marker() == one.marker


def test_many_methods_of_one_or_many_families_differ() -> None:
    for names in ([f"own{i}" for i in range(40)], [f"lrp-epsilon:{i}" for i in range(12)] + ["sensitivity:l2"]):
        found = series_of(names)
        assert len({(found[name].colour, found[name].dash) for name in names}) == len(names)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_colours_can_be_read_as_text_on_both_papers() -> None:
    for light, dark in COLOURS:
        assert 1.05 / (luminance(light) + 0.05) >= 4.5
        assert (luminance(dark) + 0.05) / (luminance("#1c1f23") + 0.05) >= 4.5
    assert len(MARKERS) == len({sign for sign, _ in MARKERS.values()})


def test_figures_take_axes_and_return_them(frame: pd.DataFrame) -> None:
    axes = Figure(figsize=(12, 8), layout="constrained").subplots(2, 2).ravel()
    for ax, draw in zip(axes, (plots.fig4, plots.curves, plots.ranking, plots.agreement), strict=True):
        assert draw(frame, ax, title=HOSTILE) is ax
    drawn(axes[0].get_figure())


def test_settings_of_the_user_stay(frame: pd.DataFrame) -> None:
    before = dict(mpl.rcParams)
    plots.fig4(frame, style="slides")
    assert dict(mpl.rcParams) == before


def test_two_runs_share_their_scale(frame: pd.DataFrame) -> None:
    axes = plots.fig4_compare({"AlexNet": frame, HOSTILE: frame_of(seed=1)})
    assert len(axes) == 2
    assert axes[0].get_ylim() == axes[1].get_ylim()
    drawn(axes[0].get_figure())
    assert axes[0].get_title("left") == "AlexNet"
    with pytest.raises(FaithmapError, match="no run was given"):
        plots.fig4_compare({})


def test_ranking_shows_intervals_and_groups(frame: pd.DataFrame) -> None:
    ax = plots.ranking(frame)
    table = statistics.ranking(frame)
    rows = {
        round(line.get_ydata()[0]): line.get_xdata()
        for line in ax.get_lines()
        if len(line.get_xdata()) == 2 and len(set(line.get_ydata())) == 1
    }
    for row, (name, low, high) in enumerate(table[["method", "low", "high"]].itertuples(index=False, name=None)):
        if name != "random":
            np.testing.assert_allclose(rows[row], [low, high])
    written = [(text.xy[1], text.get_text()) for text in ax.texts]
    expected = [(row, letter) for row, cell in enumerate(table["letters"]) for letter in split_letters(cell)]
    assert sorted(written) == sorted(expected)


def test_agreement_writes_the_table(frame: pd.DataFrame) -> None:
    ax = plots.agreement(frame)
    table = statistics.agreement(frame)
    order = [name for name in series_of(list(table.index)) if name in table.index]
    np.testing.assert_allclose(ax.images[0].get_array(), table.loc[order, order])
    assert [text.get_text() for text in ax.texts][:7] == [
        f"{v:.2f}".replace("-", "−") for v in table.loc[order, order].iloc[0]
    ]


@pytest.fixture
def examples(frame: pd.DataFrame) -> list[Example]:
    generator = torch.Generator().manual_seed(0)

    def heat(scale: float) -> torch.Tensor:
        return torch.randn(24, 24, generator=generator) * scale

    return [
        Example(
            image=image,
            pixels=torch.rand(3, 24, 24, generator=generator),
            label=2,
            predicted=1,
            target=1,
            heatmaps={
                "lrp-epsilon:100": heat(1e-29),
                "sensitivity:l2": heat(1e3),
                "lrp-epsilon:0": torch.zeros(24, 24),
            },
        )
        for image in statistics.chosen_images(frame).values()
    ]


def test_heatmaps_share_one_map_centred_at_zero(frame: pd.DataFrame, examples: list[Example]) -> None:
    axes = plots.heatmaps(frame, examples, labels={1: HOSTILE, 2: "dog, hound"})
    drawn(axes[0][0].get_figure())
    pictures = [ax.images[0] for row in axes for ax in row[1:]]
    assert {(p.norm.vmin, p.norm.vmax, p.cmap.name) for p in pictures} == {(-1, 1, "RdBu_r")}
    assert [row[0].get_ylabel() for row in axes] == ["best", "median", "worst"]
    aopc = statistics.per_image_aopc(frame, relative=True)[20]
    names = [ax.get_title().replace("\n", " ") for ax in axes[0][1:]]
    assert set(names) == {"LRP-ε (100)", "sensitivity (ℓ2)", "LRP-ε (0)"}
    column = names.index("LRP-ε (100)") + 1
    for row, example in zip(axes, examples, strict=True):
        shown = float(row[column].get_xlabel().replace("−", "-"))
        assert shown == pytest.approx(aopc[example.image, "lrp-epsilon:100"], abs=0.06)
        assert "is dog" in row[0].get_xlabel()
        assert "hound" not in row[0].get_xlabel()
        assert row[0].get_xlabel().count("\n") == 2
        np.testing.assert_allclose(np.asarray(row[0].images[0].get_array()), example.pixels.permute(1, 2, 0))


def test_scaled_keeps_sign_and_zero_at_any_size() -> None:
    heatmap = torch.tensor([[-2e-29, 0.0, 1e-29, 4e-29]])
    result = scaled(heatmap)
    assert result[0, 1] == 0
    assert result.sign().tolist() == heatmap.sign().tolist()
    assert result.abs().amax() == 1
    assert scaled(torch.zeros(2, 2)).tolist() == [[0, 0], [0, 0]]
    spike = torch.zeros(30, 30)
    spike[0, 0] = -5.0
    assert scaled(spike)[0, 0] == -1


def test_a_method_without_a_heatmap_leaves_a_gap(frame: pd.DataFrame, examples: list[Example]) -> None:
    axes = plots.heatmaps(frame, examples[:1], methods=["sensitivity:l2", "mine:$x$"], style="slides")
    assert not axes[0][2].images
    assert axes[0][2].get_xlabel() == "–"
    drawn(axes[0][0].get_figure())
    with pytest.raises(FaithmapError, match="no example"):
        plots.heatmaps(frame, [])
    with pytest.raises(FaithmapError, match="steps 0…20"):
        plots.heatmaps(frame, examples, step=99)


def test_steps_show_the_perturbed_image(frame: pd.DataFrame) -> None:
    generator = torch.Generator().manual_seed(0)
    pixels, fill = torch.rand(2, 3, 12, 12, generator=generator)
    removal_step = torch.randint(0, 21, (12, 12), generator=generator)
    image = str(frame["image"].iloc[0])
    axes = plots.steps(
        pixels, {"lrp-epsilon:0": removal_step, "random": removal_step.T}, fill, (0, 5, 20), frame=frame, image=image
    )
    drawn(axes[0][0].get_figure())
    for k, ax in zip((0, 5, 20), axes[1], strict=True):
        expected = perturb(pixels, removal_step.T, fill, k).permute(1, 2, 0)
        np.testing.assert_allclose(np.asarray(ax.images[0].get_array()), expected)
    score = frame.query("image == @image and method == 'random' and order == 'morf' and draw == 0 and step == 5")[
        "logit"
    ]
    assert float(axes[1][1].get_xlabel().replace("−", "-")) == pytest.approx(score.item(), rel=0.01, abs=0.01)
    with pytest.raises(FaithmapError, match="nothing to show"):
        plots.steps(pixels, {}, fill)


@pytest.mark.parametrize("images", [1, 2])
def test_few_images_can_be_drawn(images: int) -> None:
    frame = frame_of(images=images)
    for draw in (plots.fig4, plots.curves, plots.ranking, plots.agreement):
        drawn(draw(frame).get_figure())


def test_svg_and_pdf_hold_text_as_text(frame: pd.DataFrame, tmp_path: Path) -> None:
    ax = plots.fig4(frame, title=HOSTILE)
    svg = plots.save(ax, tmp_path / "a.svg").read_text("utf-8")
    for text in (
        "LRP-ε (0.01)",
        "deconvolution (ℓ∞)",
        "perturbation steps",
        "random",
        "a$x^2$\\nb\\x1b&lt;script&gt;{}%s\\frac",
    ):
        assert re.search(rf"<text[^>]*>[^<]*{re.escape(text)}", svg), text
    assert svg == plots.save(ax, tmp_path / "b.svg").read_text("utf-8")
    pdf = plots.save(ax, tmp_path / "a.pdf").read_bytes()
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf
    assert plots.save(ax.get_figure(), tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_places_and_endings_that_cannot_be_written(frame: pd.DataFrame, tmp_path: Path) -> None:
    ax = plots.fig4(frame)
    with pytest.raises(FaithmapError, match=r"ends in '\.pgn', expected"):
        plots.save(ax, tmp_path / "a.pgn")
    with pytest.raises(FaithmapError, match="cannot be written"):
        plots.save(ax, tmp_path / "nowhere" / "a.png")
    with pytest.raises(FaithmapError, match=r"no style 'slide'.*did you mean 'slides'"):
        plots.fig4(frame, style="slide")
    with pytest.raises(FaithmapError, match="has no method 'lrp'"):
        plots.fig4(frame, methods=["lrp"])


def test_study_shows_ranks_best_on_top() -> None:
    rows = [(f"s{i}", name, rank) for i in range(3) for rank, name in enumerate(["grad-cam", "lrp-plus", "random"], 1)]
    rows[0], rows[1] = ("s0", "grad-cam", 2), ("s0", "lrp-plus", 1)
    ax = plots.study(pd.DataFrame(rows, columns=["setting", "method", "rank"]), title=HOSTILE)
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names == ["Grad-CAM  (1st in 2 of 3)", "LRP-plus  (1st in 1 of 3)", "random  "]
    assert np.asarray(ax.images[0].get_array()).tolist() == [[2, 1, 1], [1, 2, 2], [3, 3, 3]]
    drawn(ax.get_figure())
    with pytest.raises(FaithmapError, match="lacks rank"):
        plots.study(pd.DataFrame({"setting": [], "method": []}))


def test_scorecard_ranks_within_a_measure_and_knows_which_way_is_good() -> None:
    table = pd.DataFrame(
        [
            ("a", "srg", 2.0, True),
            ("b", "srg", 1.0, True),
            ("a", "drift", 0.9, False),
            ("b", "drift", 0.1, False),
            ("a", "size", 3.0, None),
            ("b", "size", 4.0, None),
        ],
        columns=["method", "measure", "mean", "higher_is_better"],
    )
    ax = plots.scorecard(table)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["srg ↑", "drift ↓", "size"]
    places = np.asarray(ax.images[0].get_array(), dtype=float)
    np.testing.assert_array_equal(np.ma.filled(places, np.nan)[:, :2], [[0, 1], [1, 0]])
    assert [text.get_text() for text in ax.texts] == ["2.00", "0.900", "3.00", "1.00", "0.100", "4.00"]
    drawn(ax.get_figure())


def test_reliability_draws_each_property() -> None:
    facts = {"property": ["images", "draws"], "setting": ["", HOSTILE], "value": [0.3, -0.1], "grade": ["poor", ""]}
    table = pd.DataFrame({**facts, "low": [0.1, np.nan], "high": [0.5, np.nan]})
    ax = plots.reliability(table)
    assert ax.texts[1].get_text() == "−0.10"
    assert ax.get_xlim()[0] <= -0.1
    drawn(ax.get_figure())


def test_figures_are_asked_for_by_name() -> None:
    class Given:
        protocol = Protocol.preset("samek2017")

        def scores(self) -> pd.DataFrame:
            return frame_of()

    assert {"fig4", "curves", "ranking", "heatmaps", "steps", "agreement", "study", "scorecard"} <= set(plots.FIGURES)
    assert plots.draw("ranking", Given(), {"score": None, "style": "slides"}).get_figure().get_size_inches()[0] == 10
    with pytest.raises(FaithmapError, match="did you mean 'ranking'"):
        plots.draw("rankin", Given(), {})
    with pytest.raises(FaithmapError, match="figure 'ranking' takes no image"):
        plots.draw("ranking", Given(), {"image": "a"})
    with pytest.raises(FaithmapError, match="give the folder of a study"):
        plots.draw("study", Given(), {})


def test_two_methods_of_one_colour_differ_in_dashes_and_markers():
    """Whichever two of 40 methods are put beside each other."""
    names = [f"own-{place:02}" for place in range(37)] + [f"lrp-epsilon:{place}" for place in range(3)]
    looks = [look for look in series_of(names).values() if look.method != "random"]
    for one, other in itertools.combinations(looks, 2):
        if one.colour == other.colour:
            assert one.dash != other.dash
            assert one.marker != other.marker


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_the_colour_bar_of_an_agreement_is_as_long_as_its_label(count: int) -> None:
    own = [name for name in METHODS if name != "random"][:count]
    frame = frame_of()
    ax = plots.agreement(frame[frame["method"].isin([*own, "random"])])
    figure = ax.get_figure()
    assert figure is not None
    drawn(figure)
    bar = next(other for other in figure.axes if other is not ax)
    box = bar.yaxis.label.get_window_extent()
    assert box.y0 >= 0
    assert box.y1 <= figure.bbox.height
