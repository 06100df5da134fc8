"""The command line; only this package prints."""

from faithmap.cli import checks, commands, papers, scorecards, studying  # noqa: F401  (they declare their commands)
from faithmap.cli.app import app, main
from faithmap.cli.replication import replication

__all__ = ["app", "main", "replication"]
