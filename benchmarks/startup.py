"""How long the command line takes to answer, of that on the CPU, and its peak memory, beside `import torch`.

python benchmarks/startup.py --repeats 5
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

COMMANDS = {
    'python -c "import torch"': ["-c", "import torch"],
    'python -c "import faithmap"': ["-c", "import faithmap"],
    "faithmap --help": ["-m", "faithmap", "--help"],
    "faithmap methods": ["-m", "faithmap", "methods"],
    "faithmap run --help": ["-m", "faithmap", "run", "--help"],
}


def measured(arguments: list[str]) -> tuple[float, float, float]:
    """Seconds, seconds on the CPU, and peak memory in MB of a Python process."""
    begun = time.perf_counter()
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{arguments} ended with {process.returncode}")
    return time.perf_counter() - begun, used.ru_utime + used.ru_stime, used.ru_maxrss / 1e3


def main() -> None:
    """Print the median of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    for arguments in COMMANDS.values():  # bytecode and the file cache are there for all
        measured(arguments)
    for name, arguments in COMMANDS.items():
        seconds, busy, peaks = zip(*(measured(arguments) for _ in range(repeats)), strict=True)
        took = f"{statistics.median(seconds):6.2f} s ({statistics.median(busy):.2f} s CPU)"
        print(f"{name:30} {took}  {max(peaks):7.1f} MB", flush=True)


if __name__ == "__main__":
    main()
