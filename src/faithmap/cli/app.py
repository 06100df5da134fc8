"""The command `faithmap`: what all its commands have in common."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperGroup

from faithmap._version import __version__
from faithmap.cli.console import guarded, out, show_warning, write_anything
from faithmap.cli.options import grouped

_F = TypeVar("_F", bound=Callable[..., Any])

# As a person needs them; others follow.
ORDER = (
    "run",
    "study",
    "report",
    "plot",
    "scorecard",
    "compare",
    "leaderboard",
    "cite",
    "methods",
    "measures",
    "operators",
    "sanity",
    "doctor",
)


class InOrder(TyperGroup):
    """Commands in `ORDER`, wherever they are declared."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names, as ``--help`` shows them."""
        names = super().list_commands(ctx)
        return sorted(names, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))


app = typer.Typer(
    name="faithmap",
    cls=InOrder,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""**Which heatmap can you trust?** faithmap removes regions of an image in the order that a heatmap gives and
measures how fast the class score falls (AOPC, Samek et al. 2017), relative to a random order.

Try it without any download:

    faithmap run --model squeezenet1_1-embedded --images photos --draws 1 --out runs/demo

then open `runs/demo/report.html`. The same command again goes on where it stopped.""",
)


def command(name: str) -> Callable[[_F], _F]:
    """A command of `faithmap`: its groups of options are spread out, what goes wrong becomes one sentence."""

    def declare(function: _F) -> _F:
        app.command(name)(guarded(grouped(function)))
        return function

    return declare


def main() -> None:
    """The command `faithmap`."""
    write_anything()
    warnings.showwarning = show_warning
    try:
        app()
    except OSError as error:  # of a command it is a sentence already; this is of --help, onto a full disk
        sys.exit(f"error: {error.strerror or error}.")


def version(asked: bool) -> None:
    """Print the version and leave."""
    if asked:
        out.print(f"faithmap {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options of all commands."""
