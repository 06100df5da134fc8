"""The command line answers at once: what it lists is read from source files, torch is imported when it is needed."""

import importlib
import subprocess
import sys

import pytest

from faithmap.cli.listing import KINDS
from faithmap.declared import declared_in

HEAVY = ("torch", "numpy", "pandas", "matplotlib", "scipy", "pyarrow", "zennit")


@pytest.mark.parametrize("arguments", [["--help"], ["methods"], ["run", "--help"], ["plot", "--help"], ["--version"]])
def test_nothing_heavy_is_imported(arguments):
    script = (
        "import sys\n"
        "from faithmap.cli import app\n"
        "app(sys.argv[1:], standalone_mode=False)\n"
        f"print(sorted(sys.modules.keys() & {set(HEAVY)}), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "[]\n"
    assert done.stdout


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.title)
def test_what_is_listed_is_what_is_registered(kind):
    module, _, name = kind.registry.partition(":")
    registry = getattr(importlib.import_module(module), name)

    def rows(declarations):
        return [(d.written(d.defaults), d.line, d.source, dict(d.aliases)) for d in declarations]

    ours = [declaration for declaration in registry.values() if declaration.module.startswith("faithmap.")]
    assert rows(kind.listed()["faithmap"]) == rows(ours)


def test_a_name_in_a_declaration_must_be_assigned(tmp_path):
    (tmp_path / "one.py").write_text("@fill(NAME, line='', source='')\ndef one(): ...\n")
    with pytest.raises(LookupError, match="'NAME' in a declaration is not assigned at the top"):
        declared_in(tmp_path, "fill")


def test_the_package_itself_imports_next_to_nothing():
    script = "import sys; before = set(sys.modules); import faithmap; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "faithmap" in loaded
    assert not loaded & {*HEAVY, "typer", "rich"}
