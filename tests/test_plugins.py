"""Methods, fills and measures of other packages: built, installed, listed and used; a broken one does no harm."""

import subprocess
import sys

import pytest

PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "{name}"
version = "1.0"
[project.entry-points."faithmap.methods"]
anything = "{module}"
[project.entry-points."faithmap.fills"]
anything = "{module}"
[project.entry-points."faithmap.measures"]
anything = "{module}"
[tool.setuptools]
py-modules = ["{module}"]
"""
GOOD = """
from faithmap.attribution import heatmap_method
from faithmap.declarations import Parameter, integer
from faithmap.measures.measure import measure
from faithmap.perturbation import fill

@heatmap_method("toy-channel", line="one channel", source="Toy et al.", parameters={"of": Parameter(0, integer(low=0))})
def channel(batch, *, of):
    return batch.pixels[:, of]

@fill("toy-mirror", line="left and right exchanged", source="Toy et al.")
def mirror(pixels, random):
    return pixels.flip(2)

@measure("toy-peak", line="largest relevance", source="Toy et al.", set="complexity", needs="heatmap",
         higher_is_better=True)
def peak(heatmaps):
    return heatmaps.amax((1, 2))
"""
BROKEN = """
from faithmap.attribution import heatmap_method

@heatmap_method("half-done", line="a line", source="nobody")
def half(batch):
    return batch.pixels

import a_package_that_is_not_there
"""
CLASHING = """
from faithmap.attribution import heatmap_method

@heatmap_method("grad-cam", line="mine", source="nobody")
def mine(batch):
    return batch.pixels
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with three packages: one built and installed by pip, two as pip leaves them."""
    target, source = tmp_path_factory.mktemp("installed"), tmp_path_factory.mktemp("source")
    (source / "pyproject.toml").write_text(PROJECT.format(name="faithmap-toy", module="toy_things"))
    (source / "toy_things.py").write_text(GOOD)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*pip, "--target", str(target), str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name, code in (("broken", BROKEN), ("clashing", CLASHING)):
        (target / f"{name}_things.py").write_text(code)
        record = target / f"faithmap_{name}-1.0.dist-info"
        record.mkdir()
        (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: faithmap-{name}\nVersion: 1.0\n")
        (record / "entry_points.txt").write_text(f"[faithmap.methods]\nanything = {name}_things\n")
    return target


def python(installed, *arguments):
    """Run Python in a process of its own, where the packages are installed."""
    start = f"import sys; sys.path.append({str(installed)!r})"
    script = f"{start}\n{arguments[0]}"
    done = subprocess.run([sys.executable, "-c", script, *arguments[1:]], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def test_packages_are_listed_and_broken_ones_named(installed):
    script = "import os; os.environ['COLUMNS'] = '200'; from faithmap.cli import main; main()"
    done = python(installed, script, "methods")
    lines = done.stdout.splitlines()
    (method,) = [line for line in lines if "toy-channel:of=0" in line]
    (fill,) = [line for line in lines if "toy-mirror" in line]
    (measure,) = [line for line in lines if "toy-peak" in line]
    assert method.split()[-1] == fill.split()[-1] == measure.split()[-1] == "faithmap-toy"
    assert any(line.split()[0] == "grad-cam" and line.split()[-1] == "faithmap" for line in lines if line.strip())
    assert "half-done" not in done.stdout
    notes = " ".join(done.stderr.split())
    assert "faithmap-broken, which adds to faithmap.methods, is left out: No module named 'a_package" in notes
    assert (
        "faithmap-clashing, which adds to faithmap.methods, is left out: method 'grad-cam' of clashing_things" in notes
    )
    assert "has the name of one of faithmap.attribution.gradients: give it another name." in notes


def test_what_packages_declare_is_used_by_name_and_who_uses_ours_never_meets_a_broken_one(installed):
    done = python(
        installed,
        """
import sys, torch, faithmap
from faithmap.attribution import resolve_methods
from faithmap.measures.registry import resolve_measures
from faithmap.perturbation import check_fill

resolve_methods("fig4,grad-cam")
resolve_measures("gini")
check_fill("blur:sigma=3")
assert not {"toy_things", "broken_things", "clashing_things"} & sys.modules.keys()
print("nothing was said", file=sys.stderr)

module = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 4))
images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
protocol = faithmap.Protocol.preset(steps=2, region_size=4, draws=1, fill="toy-mirror")
run = faithmap.evaluate(faithmap.Classifier(module), images, "toy-channel:2", protocol)
assert set(run.scores()["method"]) == {"toy-channel:of=2", "random"}
assert torch.equal(faithmap.draw_fill("toy-mirror", images[0], seed=0, image_id="0", draw=0), images[0].flip(2))
from faithmap.cli.doctor import plugins
found = [(one.what, one.state) for one in plugins()]
assert ("faithmap-toy adds heatmap methods: toy-channel", "good") in found
assert ("faithmap-broken cannot add heatmap methods: No module named 'a_package_that_is_not_there'", "bad") in found
assert torch.equal(resolve_measures("toy-peak")[0].function(images[:, 0]), images[:, 0].amax((1, 2)))
""",
    )
    assert done.stderr.startswith("nothing was said")
