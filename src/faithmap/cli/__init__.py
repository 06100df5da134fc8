"""The command line; only this package prints."""

from faithmap.cli.commands import app, main, replication

__all__ = ["app", "main", "replication"]
