"""Groups of options: declared once, spread out on the command line, handed over as one object."""

import inspect
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, get_args

import pytest
import typer
from typer.testing import CliRunner

from faithmap.cli import app, replication
from faithmap.cli.app import ORDER
from faithmap.cli.options import FullyMeasured, Options, grouped, integer, is_integer
from faithmap.protocol import Protocol
from tests.terminal import invoke


@dataclass(frozen=True)
class Toy(Options, panel="Toys"):
    """A group."""

    how_many: Annotated[int, "How many toys."] = 3
    loud: Annotated[bool, "With noise."] = False


@dataclass(frozen=True)
class Larger(Toy):
    """A group with one more."""

    colour: Annotated[str | None, "Which colour."] = None


def program(received):
    made = typer.Typer()

    @made.command()
    @grouped
    def play(toy: Larger, name: Annotated[str, "Whose."] = "mine") -> None:
        received.append((toy, name))

    return made


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], (Larger(), "mine")),
        (["--how-many", "5", "--loud", "--colour", "red", "--name", "yours"], (Larger(5, True, "red"), "yours")),
    ],
)
def test_a_group_arrives_as_one_object(arguments, expected):
    received = []
    result = CliRunner().invoke(program(received), arguments)
    assert result.exit_code == 0, result.output
    assert received == [expected]


def test_help_has_the_sentences_under_the_heading_of_the_group():
    shown = CliRunner().invoke(program([]), ["--help"], env={"COLUMNS": "100"}).stdout
    ours, toys = shown.split("Toys")
    assert "--name" in ours
    assert "Whose." in ours
    for text in ("--how-many", "How many toys.", "[default: 3]", "--loud", "--colour"):
        assert text in toys
    assert "--no-loud" not in shown


def test_two_options_of_one_name_are_refused():
    def play(toy: Toy, loud: bool = False) -> None: ...

    with pytest.raises(ValueError, match="duplicate parameter name: 'loud'"):
        grouped(play)


def test_what_is_given_overrides_the_preset():
    asked = FullyMeasured("deletion", steps="7", orders="morf, lerf", seed=4).build()
    assert asked == Protocol.preset("deletion", steps=7, orders=("morf", "lerf"), seed=4)
    assert FullyMeasured("samek2017", steps="all").build() == Protocol.preset("samek2017", steps="all")


def test_no_command_takes_more_than_eight_things():
    for command in (*app.registered_commands, *replication.registered_commands):
        assert len(inspect.signature(inspect.unwrap(command.callback)).parameters) <= 8


def test_help_lists_commands_as_a_person_needs_them():
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "100"}).stdout.split("Commands")[1]
    names = [line.split()[1] for line in shown.splitlines() if line.startswith("│ ") and line[2] != " "]
    assert names == [name for name in ORDER if name in names]
    assert set(names) == {command.name for command in app.registered_commands}


@pytest.mark.parametrize("text", ["1_0", " 10", "+10", "1e1", "10.0", "٣", "", "0x10"])
def test_an_integer_is_digits_alone_wherever_one_is_asked_for(text):
    """Python's own `int` takes some of these, and what --steps takes --draws takes."""
    said = {}
    for option in ("draws", "steps", "points", "limit", "seed", "batch-size", "threads"):
        result = invoke(["run", f"--{option}", text, "--images", "no/such"])
        assert result.exit_code in (1, 2), option
        said[option] = result.stderr
    assert all("no/such" not in one for one in said.values()), said
    assert is_integer("10")
    assert integer("-3") == -3


@pytest.mark.parametrize("kind", [int, Path])
def test_integers_and_paths_are_read_in_one_way(kind):
    commands = (*app.registered_commands, *replication.registered_commands)
    annotations = [one.annotation for each in commands for one in inspect.signature(each.callback).parameters.values()]
    found = [said for base, said in map(get_args, annotations) if re.search(rf"\b{kind.__name__}\b", str(base))]
    assert len(found) > 8
    assert all(said.parser is not None for said in found)


@pytest.mark.parametrize(
    "given",
    [
        ["leaderboard", ""],
        ["leaderboard", " "],
        ["report", "run", "--out", ""],
        ["cite", "run", "--out", ""],
        ["compare", "a", "b", "--page", ""],
        ["plot", "run", "--compare", ""],
        ["operators", "--out", ""],
        ["run", "--out", ""],
        ["run", "--data", ""],
        ["run", "--masks", ""],
        ["run", "--heatmaps-from", ""],
    ],
)
def test_an_empty_path_is_not_the_current_folder(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = invoke(given)
    assert result.exit_code == 2, result.output
    assert "it is empty: give a path" in result.stderr
    assert not list(tmp_path.iterdir())
