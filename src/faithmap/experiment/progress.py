"""How far a run is: what `evaluate` reports, and a bar that shows it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.progress import Progress as Bar
from rich.text import Text

from faithmap.store.records import Skipped


@dataclass
class Progress:
    """How far a run is. `scores` and `images` count from the start of this call."""

    scores: int = 0
    scores_total: int = 0
    images: int = 0
    images_total: int = 0
    skipped: list[Skipped] = field(default_factory=list)


class RateColumn(ProgressColumn):
    """Images per second and time left, worked out from scores, which come in smoothly."""

    def render(self, task: Task) -> Text:
        images = task.fields["images"]
        if not task.speed or not task.total:
            return Text(f"0/{images} images")
        share = task.completed / task.total
        left = (task.total - task.completed) / task.speed
        text = f"{int(images * share)}/{images} images · {images * task.speed / task.total:.2f} images/s"
        return Text(f"{text} · {task.speed:,.0f} scores/s · {int(left // 60)}:{int(left % 60):02d} left")


class ProgressDisplay:
    """A bar on a terminal; elsewhere (a log file) a line every half minute."""

    def __init__(self, console: Console | None = None, every: float = 30.0) -> None:
        self.console = console or Console(stderr=True)
        columns = (SpinnerColumn(), BarColumn(), TextColumn("{task.percentage:>3.0f}%"), RateColumn())
        quiet = not (self.console.is_terminal or self.console.is_jupyter)
        self.bar = Bar(*columns, console=self.console, disable=quiet)
        self.task = self.bar.add_task("", total=None, images=0)
        self.every, self.started, self.said = every, time.monotonic(), time.monotonic()

    def __enter__(self) -> ProgressDisplay:
        self.bar.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.bar.__exit__(*error)

    def __call__(self, state: Progress) -> None:
        """Show how far a run is."""
        self.bar.update(self.task, total=state.scores_total, completed=state.scores, images=state.images_total)
        now = time.monotonic()
        if self.bar.disable and now - self.said > self.every:
            self.said = now
            rate = state.scores / (now - self.started)
            left = (state.scores_total - state.scores) / rate if rate else 0
            self.console.print(
                f"{state.images}/{state.images_total} images, {rate:,.0f} scores/s, {left / 60:.0f} min left",
                highlight=False,
            )


@contextmanager
def shown(progress: Callable[[Progress], None] | bool) -> Iterator[Callable[[Progress], None]]:
    """What to call with the progress: a bar's update for True, nothing for False, or the function that was given."""
    if progress is True:
        with ProgressDisplay() as display:
            yield display
    else:
        yield progress if callable(progress) else lambda state: None
