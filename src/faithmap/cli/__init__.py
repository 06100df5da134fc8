"""The command line; only this package prints."""

import os

# torch looks at it once, while it is loaded, which the commands do when they need it. With pages of 2 MiB the maps of
# many chains are found faster: about 5 % of the engine's time.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

from faithmap.cli import checks, commands, papers, scorecards, studying  # noqa: F401  (they declare their commands)
from faithmap.cli.app import app, main
from faithmap.cli.replication import replication

__all__ = ["app", "main", "replication"]
