"""Where tasks are computed. An executor computes each task, writes its part, and reports."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import torch

from faithmap.checks import as_integer
from faithmap.classifiers.watch import Watch
from faithmap.errors import FaithmapError, shown
from faithmap.experiment.pipeline import evaluate_task
from faithmap.experiment.task import Experiment, Task
from faithmap.store.folder import Store
from faithmap.store.records import Skipped

MOST_THREADS = 1024  # torch takes any number, and ends the process where the system has fewer


@dataclass(frozen=True)
class Report:
    """What happened lately: scores computed, images finished, what was skipped, and warnings."""

    scores: int = 0
    images: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@runtime_checkable
class Executor(Protocol):
    """Computes tasks, writes each finished one to the store, and calls `report` from the calling process."""

    def run(
        self, experiment: Experiment, tasks: Sequence[Task], store: Store, report: Callable[[Report], None]
    ) -> None: ...

    def describe(self) -> dict[str, Any]:
        """What the manifest says of it: name, workers, threads of each."""
        ...


@dataclass(frozen=True)
class LocalExecutor:
    """One task after the other, in this process.

    Args:
        threads: CPU threads; None leaves them as they are.
    """

    threads: int | None = None

    def __post_init__(self) -> None:
        if self.threads is not None:
            threads = as_integer(self.threads, "threads", 1, MOST_THREADS, FaithmapError)
            object.__setattr__(self, "threads", threads)

    def run(
        self, experiment: Experiment, tasks: Sequence[Task], store: Store, report: Callable[[Report], None]
    ) -> None:
        """See `Executor`."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads or before)
        try:
            watch = Watch(experiment.classifier.module, experiment.classifier.name)
            for task in tasks:
                for news in compute(experiment, task, store, watch, lambda scores: report(Report(scores=scores))):
                    report(news)
            watch.check()
        finally:
            torch.set_num_threads(before)

    def describe(self) -> dict[str, Any]:
        """See `Executor`."""
        return {"executor": "local", "workers": 1, "threads": self.threads or torch.get_num_threads()}


def as_executor(value: Any) -> Executor:
    """An executor; None is this process.

    Raises:
        FaithmapError: a name, a class, or anything else.
    """
    if value is None:
        return LocalExecutor()
    if isinstance(value, type) or not isinstance(value, Executor):
        raise FaithmapError(f"executor is {shown(value)}: give None, LocalExecutor() or RayExecutor().")
    return value


def compute(
    experiment: Experiment,
    task: Task,
    store: Store,
    watch: Watch,
    progress: Callable[[int], None] = lambda scores: None,
) -> Iterator[Report]:
    """Compute a task and write each finished piece; an image without a single score leaves no row.

    Nothing is written that was computed by another network than the one that the watch began with.
    """
    for result in evaluate_task(experiment, task, progress):
        watch.check()
        if result.examples:
            store.write_examples(result.examples)
        if result.measures is not None:
            store.write_measures(result.measures)
        if result.scores is not None:
            store.write_part(result.scores, task_key(task, result.draw))
        yield Report(skipped=result.skipped)
    yield Report(images=len(task.images))


def blocks(tasks: Sequence[Task], size: int) -> Iterator[Task]:
    """Tasks split into pieces of at most `size` images."""
    for task in tasks:
        for start in range(0, len(task.images), size):
            images = task.images[start : start + size]
            heatmaps = {image.id: task.heatmaps[image.id] for image in images if image.id in task.heatmaps}
            yield replace(task, images=images, heatmaps=heatmaps)


def task_key(task: Task, draw: int | None) -> str:
    """Stands for the rows of one draw that a task asks for."""
    asked = ([image.id for image in task.images], [key for key in task.chains if key.draw == draw], task.steps)
    return hashlib.sha256(repr(asked).encode("utf-8", "backslashreplace")).hexdigest()[:24]
