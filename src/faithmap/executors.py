"""Where tasks are computed. An executor computes each task, writes its part, and reports."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from faithmap.experiment import Experiment, Skipped, Task, evaluate_task
from faithmap.store import Store


@dataclass(frozen=True)
class Report:
    """What happened lately: scores computed, images finished, and what was skipped."""

    scores: int = 0
    images: int = 0
    skipped: list[Skipped] = field(default_factory=list)


@runtime_checkable
class Executor(Protocol):
    """Computes tasks, writes each finished one to the store, and calls `report` from the calling process."""

    def run(
        self, experiment: Experiment, tasks: Sequence[Task], store: Store, report: Callable[[Report], None]
    ) -> None: ...


class LocalExecutor:
    """One task after the other, in this process."""

    def run(
        self, experiment: Experiment, tasks: Sequence[Task], store: Store, report: Callable[[Report], None]
    ) -> None:
        """See `Executor`."""
        for task in tasks:
            report(compute(experiment, task, store, lambda scores: report(Report(scores=scores))))


def compute(experiment: Experiment, task: Task, store: Store, progress: Callable[[int], None]) -> Report:
    """Compute a task and write its part; an image without a single score leaves no row."""
    frame, skipped = evaluate_task(experiment, task, progress)
    if len(frame):
        store.write_part(frame)
    return Report(images=len(task.images), skipped=skipped)


def blocks(tasks: Sequence[Task], size: int) -> Iterator[Task]:
    """Tasks cut to at most `size` images."""
    for task in tasks:
        for start in range(0, len(task.images), size):
            yield Task(task.images[start : start + size], task.chains, task.first_step)
