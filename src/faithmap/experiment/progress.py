"""How far a run is: what `evaluate` reports, and a bar that shows it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from faithmap.store.records import Skipped
from faithmap.text import duration

# What must be done before a rate means something: a fraction of the scores; or an image, after so many seconds.
_WORK, _LONG = 0.05, 120.0


@dataclass
class Progress:
    """How far a run is. `scores` and `images` count from the start of this call."""

    scores: int = 0
    scores_total: int = 0
    images: int = 0
    images_total: int = 0
    skipped: list[Skipped] = field(default_factory=list)


def told(state: Progress, elapsed: float) -> str:
    """Images, their rate and the time that is left, worked out from the scores that were computed in this call.

    The first scores come after the first heatmaps and what is set up once, so a rate is only told once `_WORK` of the
    scores, or `_LONG` seconds, have passed.

    Example:
        >>> told(Progress(scores=300, scores_total=1200, images=3, images_total=12), 60.0)
        '3/12 images · 3/min · 3 min left'
        >>> told(Progress(scores=3, scores_total=1200, images=0, images_total=12), 12.0)
        '0/12 images'
        >>> told(Progress(), 1.0)
        'starting'
    """
    if not state.scores_total:
        return "starting"
    done = state.scores / state.scores_total
    counted = f"{state.images}/{state.images_total} images"
    if not state.scores or elapsed <= 0:
        return f"{counted} · heatmaps first"
    if done < _WORK and not (elapsed >= _LONG and state.images):
        return counted
    rate = state.images_total * done / elapsed
    pace = f"{rate:.1f}/s" if rate >= 1 else f"{60 * rate:.0f}/min" if rate >= 1 / 60 else f"{3600 * rate:.0f}/h"
    return f"{counted} · {pace} · {duration(elapsed * (1 - done) / done)} left"


def percentage(state: Progress) -> int:
    """How much is done; 100 only when all is."""
    return int(100 * state.scores / state.scores_total) if state.scores_total else 0


class ProgressDisplay:
    """A bar on a terminal, in one line; elsewhere (a log file) a line a minute."""

    def __init__(self, console: Console | None = None, every: float = 60.0) -> None:
        self.console = console or Console(stderr=True)
        columns = (
            BarColumn(18),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.description}", markup=False),
        )
        quiet = not (self.console.is_terminal or self.console.is_jupyter)
        self.bar = Bar(*columns, console=self.console, disable=quiet)
        self.task = self.bar.add_task("starting", total=None)
        self.every, self.started, self.said = every, time.monotonic(), time.monotonic()

    def __enter__(self) -> ProgressDisplay:
        self.bar.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.bar.__exit__(*error)

    def __call__(self, state: Progress) -> None:
        """Show how far a run is."""
        now = time.monotonic()
        text = told(state, now - self.started)
        total = state.scores_total or None
        self.bar.update(self.task, total=total, completed=state.scores, description=text)
        if self.bar.disable and now - self.said >= self.every:
            self.said = now
            self.console.print(f"{percentage(state)} % · {text}", highlight=False, markup=False)


@contextmanager
def shown(progress: Callable[[Progress], None] | bool) -> Iterator[Callable[[Progress], None]]:
    """What to call with the progress: a bar's update for True, nothing for False, or the function that was given."""
    if progress is True:
        with ProgressDisplay() as display:
            yield display
    else:
        yield progress if callable(progress) else lambda state: None
