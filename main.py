"""Figure 4 of Samek et al. (2017) on AlexNet and Imagenette: `python main.py --help`."""

import sys

try:
    from faithmap.cli import replication
except ModuleNotFoundError as error:
    sys.exit(f"{error}: run `make install` and `.venv/bin/python main.py`, or `pip install -e .` first.")

if __name__ == "__main__":
    replication()
