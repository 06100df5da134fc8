"""A command line in a terminal of a known width."""

from typing import Any

from click.testing import Result
from typer.testing import CliRunner

from faithmap.cli import app, console


def invoke(arguments: list[Any], columns: int = 200) -> Result:
    """Run `faithmap` in a terminal of this width, whatever other tests left in the environment."""
    before = console.out._width, console.out._height
    console.out._width, console.out._height = columns, 50
    try:
        return CliRunner(env={"COLUMNS": str(columns)}).invoke(app, [str(one) for one in arguments])
    finally:
        console.out._width, console.out._height = before
