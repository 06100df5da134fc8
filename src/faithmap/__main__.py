"""`python -m faithmap` is the command `faithmap`."""

from faithmap.cli import main

main()
