"""Where tasks are computed. An executor computes each task, writes its part, and reports."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
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
            for news in compute(experiment, task, store, lambda scores: report(Report(scores=scores))):
                report(news)


def compute(
    experiment: Experiment, task: Task, store: Store, progress: Callable[[int], None] = lambda scores: None
) -> Iterator[Report]:
    """Compute a task and write each finished piece; an image without a single score leaves no row."""
    for result in evaluate_task(experiment, task, progress):
        if result.examples:
            store.write_examples(result.examples)
        if result.scores is not None:
            store.write_part(result.scores)
        yield Report(skipped=result.skipped)
    yield Report(images=len(task.images))


def blocks(tasks: Sequence[Task], size: int) -> Iterator[Task]:
    """Tasks cut to at most `size` images."""
    for task in tasks:
        for start in range(0, len(task.images), size):
            yield replace(task, images=task.images[start : start + size])
