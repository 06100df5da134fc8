"""Methods and fills declare themselves; names are theirs alone."""

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from faithmap.attribution import heatmap_method, heatmaps, resolve_methods
from faithmap.attribution.method import METHODS
from faithmap.cli import app
from faithmap.declarations import Parameter, integer
from faithmap.errors import FaithmapError, MethodError, ProtocolError
from faithmap.perturbation import FILLS, check_fill, draw_fill, fill, resolve_fill
from faithmap.plots import FIGURES, figure


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    """What a test declares is gone after it."""
    for declared in (METHODS, FILLS, FIGURES):
        list(declared)
        monkeypatch.setattr(declared, "_declared", dict(declared._declared))
        monkeypatch.setattr(declared, "aliases", dict(declared.aliases))


def test_a_declared_method_is_used_by_name_with_its_parameters(tiny):
    @heatmap_method(
        "channel",
        line="one channel",
        source="none",
        parameters={"of": Parameter(0, integer(low=0))},
        aliases={"red": "channel:0"},
    )
    def channel(batch, *, of):
        return batch.pixels[:, of]

    method = resolve_methods("channel:2")[0]
    spec = {"method": "channel", "parameters": {"of": 2}, "package": "tests"}
    assert (method.name, method.spec) == ("channel:of=2", spec)
    assert resolve_methods("red")[0].name == "channel:of=0"
    pixels = torch.rand(3, 3, 24, 24)
    assert torch.equal(heatmaps(tiny, pixels, torch.zeros(3, dtype=torch.long), method), pixels[:, 2])


def test_a_declared_fill_is_used_by_name_with_its_parameters():
    @fill("steps", line="noise in steps", source="none", parameters={"n": Parameter(4, integer(low=1))})
    def steps(pixels, random, *, n):
        return torch.from_numpy(random.integers(0, n, tuple(pixels.shape)) / n)

    key = {"seed": 0, "image_id": "a", "draw": 0}
    drawn = draw_fill("steps:n=2", torch.zeros(3, 8, 8), **key)
    assert np.unique(drawn.numpy()).tolist() == [0.0, 0.5]
    assert resolve_fill("steps", None) == "steps:n=4"
    with pytest.raises(ProtocolError, match="n is '0', expected an integer from 1 to"):
        check_fill("steps:n=0")


@pytest.mark.parametrize("name", ["grad-cam", "random", "lrp-alpha2-beta1"])
def test_a_name_that_is_taken_is_refused(name):
    with pytest.raises(MethodError, match=f"'{name}' of tests.test_declarations has the name of one of faithmap"):

        @heatmap_method(name, line="mine", source="none")
        def mine(batch):
            return batch.pixels

    assert METHODS["grad-cam"].module == "faithmap.attribution.gradients"


def test_an_alias_that_is_taken_is_refused():
    with pytest.raises(MethodError, match="'edge' of"):

        @heatmap_method("mine", line="mine", source="none", aliases={"edge": "mine"})
        def mine(batch):
            return batch.pixels

    assert "mine" not in METHODS


def test_a_function_may_be_declared_again_and_the_last_one_counts():
    for value in (1, 2):

        @heatmap_method("again", line=f"line {value}", source="none")
        def again(batch):
            return batch.pixels

    assert METHODS["again"].line == "line 2"


@pytest.mark.parametrize(
    ("look", "message"),
    [
        (lambda: resolve_methods("gradcam"), r"unknown method 'gradcam'; did you mean 'grad-cam'\? Known: .*random"),
        (lambda: resolve_methods("qqq"), r"unknown method 'qqq'\. Known: "),
        (lambda: check_fill("qqq"), r"unknown fill 'qqq'\. Known: uniform, "),
        (lambda: check_fill("blur:qqq=3"), r"has no parameter 'qqq'\. Known: sigma, radius\."),
    ],
)
def test_an_unknown_name_ends_as_a_sentence(look, message):
    with pytest.raises(FaithmapError, match=message):
        look()


def test_a_figure_is_declared_like_the_others():
    @figure("dots", line="dots")
    def dots(frame, ax=None): ...

    assert FIGURES["dots"].function is dots
    with pytest.raises(FaithmapError, match=r"figure 'ranking' of tests\.test_declarations has the name of one of"):
        figure("ranking", line="mine")(dots)


def test_figures_are_listed_without_a_run():
    shown = CliRunner().invoke(app, ["plot", "--list"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0, shown.output
    assert [line.split()[0] for line in shown.stdout.splitlines()] == list(FIGURES)
