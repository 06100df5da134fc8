"""`python -m faithmap` is the command `faithmap`; Ctrl-C ends it without a traceback, even while it is imported."""

import sys


def main() -> None:
    """The command `faithmap`."""
    try:
        from faithmap.cli import main as command

        command()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
