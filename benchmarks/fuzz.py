"""Hostile arguments, options and files, for as long as you like: whatever comes back must be a result or one sentence.

    python -m benchmarks.fuzz --minutes 60 --seed 0
    python -m benchmarks.fuzz --cases 500 --family api --seed 7

Three families: `api` calls every public function with some of its arguments replaced; `cli` gives random values to
options of every command; `files` damages every kind of file that is read. A finding is an exception that is no
`FaithmapError`, a message that is not one printable line, a case that takes longer than `SECONDS`, memory that grows
beyond `MEGABYTES`, or a process that dies. Each is printed with what reproduces it; the exit code says whether there
were any.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from benchmarks.fuzzing.api import Case, api_cases
from benchmarks.fuzzing.cli import cli_cases, stubbed
from benchmarks.fuzzing.files import file_cases
from benchmarks.fuzzing.hostile import prepared

from faithmap.errors import FaithmapError

SECONDS = 60
"""Of this process's own time; ten times as many pass on the clock before a case that waits for something is ended."""
MEGABYTES = 2500
FAMILIES: dict[str, Callable[[random.Random, Path], Iterator[Case]]] = {
    "api": api_cases,
    "cli": cli_cases,
    "files": file_cases,
}


class TooLong(BaseException):
    """A case took longer than `SECONDS`."""


def too_long(*_: Any) -> None:
    """The alarm of a case."""
    raise TooLong


def outcome(case: Callable[[], Any]) -> str | None:
    """What is wrong with how a case ended; None: nothing."""
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.setitimer(signal.ITIMER_REAL, 10 * SECONDS)
    before = peak(reset=True)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            case()
    except FaithmapError as error:
        said = str(error)
        if not said or not said.isprintable() or len(said) > 6000:
            return f"not one sentence: {type(error).__name__}: {said[:300]!r}"
    except TooLong:
        return f"took longer than {SECONDS} s\n" + "".join(traceback.format_exc().splitlines(keepends=True)[-12:])
    except (Exception, SystemExit, KeyboardInterrupt):
        return "".join(traceback.format_exc().splitlines(keepends=True)[-24:])
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
    grown = peak() - before
    return f"took {grown:.0f} MB" if grown > MEGABYTES else None


def peak(reset: bool = False) -> float:
    """The most memory that this process has held, in MB, since it was last reset; 0 where Linux's /proc is not."""
    with contextlib.suppress(OSError):
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
    return 0.0


def fuzz(family: str, seed: int, cases: float, seconds: float, last: Path) -> tuple[int, int]:
    """Cases of a family, until there were enough of them or the time is over: (cases, findings).

    Args:
        family, seed: which cases.
        cases, seconds: how many, and how long.
        last: where each case is written down before it starts, for a process that dies.
    """
    rng = random.Random(f"{family} {seed}")
    folder = last.parent / family
    prepared(folder / "pictures")
    (folder / "cwd").mkdir()
    os.chdir(folder / "cwd")
    begun, done, found = time.monotonic(), 0, Counter[str]()
    signal.signal(signal.SIGALRM, too_long)
    signal.signal(signal.SIGPROF, too_long)
    with stubbed():
        for what, case in FAMILIES[family](rng, folder):
            if done >= cases or time.monotonic() - begun > seconds:
                break
            done += 1
            last.write_text(f"#{done}: {what}", "utf-8", "backslashreplace")
            wrong = outcome(case)
            if wrong is not None:
                kind = wrong.strip().splitlines()[-1][:150]
                found[kind] += 1
                if found[kind] == 1:
                    print(f"FINDING {family} {seed} #{done}: {what}\n{wrong}".encode("ascii", "replace").decode())
                    sys.stdout.flush()
    return done, len(found)


def guarded(family: str, seed: int, cases: float, seconds: float) -> int:
    """A family in a process of its own, so that one that dies is a finding; returns the findings."""
    with tempfile.TemporaryDirectory(prefix=f"faithmap-fuzz-{family}-", ignore_cleanup_errors=True) as scratch:
        last = Path(scratch) / "last"
        last.write_text("the start")
        begun = time.monotonic()
        process = os.fork()
        if process == 0:
            code = 99
            try:
                done, findings = fuzz(family, seed, cases, seconds, last)
                took = time.monotonic() - begun
                print(f"{family}: {done:,} cases, {findings} findings, {took:.0f} s, seed {seed}", flush=True)
                code = min(findings, 98)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        if code < 0 or code == 99:
            print(f"FINDING {family} {seed}: the process ended with {code} at {last.read_text()}", flush=True)
            return 1
        return code


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, help="how long, over all families")
    parser.add_argument("--cases", type=int, help="how many of each family")
    parser.add_argument("--family", choices=[*FAMILIES], action="append")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    families = asked.family or list(FAMILIES)
    seconds = 60 * asked.minutes / len(families) if asked.minutes else float("inf")
    cases = asked.cases or (float("inf") if asked.minutes else 500)
    return 1 if sum(guarded(family, asked.seed, cases, seconds) for family in families) else 0


if __name__ == "__main__":
    sys.exit(main())
