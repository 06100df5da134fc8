"""Tasks spread over a Ray cluster: one warm network per worker, parts written by the workers to the shared run folder.

Ray starts the workers, restarts those that die and repeats their tasks. Which task is handed out next is decided here.
"""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import torch

from faithmap.checks import as_integer, as_text
from faithmap.classifiers.watch import Watch
from faithmap.errors import EngineWarning, FaithmapError, missing
from faithmap.experiment.executors import MOST_THREADS, Report, compute, task_key
from faithmap.experiment.task import Experiment, Task
from faithmap.store.folder import HeatmapParts, Store
from faithmap.store.storage import absolute
from faithmap.text import first_line

MOST_WORKERS = 100_000
IN_FLIGHT = 2  # tasks handed to a worker: the one it computes, and the next


@dataclass(frozen=True)
class RayExecutor:
    """Tasks over the workers of a Ray cluster.

    Args:
        address: ``"auto"`` finds the cluster of this machine, ``"host:port"`` or ``"ray://…"`` another; None starts
            one of this machine's CPUs and GPUs, and ends it afterwards.
        workers: how many; by default one a GPU, or, where there are none, as many as the CPUs hold.
        threads: CPU threads of each. Numbers are the same for the same threads, however many workers there are.
    """

    address: str | None = None
    workers: int | None = None
    threads: int = 1

    def __post_init__(self) -> None:
        for name, value in (("workers", self.workers), ("threads", self.threads)):
            if value is not None:
                most = MOST_THREADS if name == "threads" else MOST_WORKERS
                object.__setattr__(self, name, as_integer(value, name, 1, most, FaithmapError))
        if self.address is not None:
            object.__setattr__(self, "address", as_text(self.address, "address", FaithmapError))

    def describe(self) -> dict[str, Any]:
        """See `Executor`. Connects, because the cluster says which devices there are."""
        resources = self._connect().cluster_resources()
        gpus = int(resources.get("GPU", 0))
        kinds = sorted(name.removeprefix("accelerator_type:") for name in resources if "accelerator_type:" in name)
        device = {"device": ", ".join(kinds) or "cuda"} if gpus else {}
        workers = self.workers or gpus or max(1, int(resources.get("CPU", 1)) // self.threads)
        return {"executor": "ray", "workers": workers, "threads": self.threads, **device}

    def run(
        self, experiment: Experiment, tasks: Sequence[Task], store: Store, report: Callable[[Report], None]
    ) -> None:
        """See `Executor`."""
        ray = self._connect()
        started_here = self.address is None
        device, home = ("cuda" if ray.cluster_resources().get("GPU") else "cpu"), experiment.classifier.device
        experiment.classifier.to("cpu")
        actors: list[Any] = []
        try:
            sent = ray.put(portable(experiment))
            worker = ray.remote(
                num_cpus=self.threads,
                num_gpus=1 if device == "cuda" else 0,
                max_restarts=-1,
                max_task_retries=-1,
            )(Worker)
            count = min(self.describe()["workers"], max(1, len(tasks)))
            actors += [worker.remote([sent], device, absolute(store.url), self.threads) for _ in range(count)]
            for news in hand_out(ray, actors, [at_absolute_paths(task) for task in tasks]):
                for note in news.notes:
                    warnings.warn(note, EngineWarning, stacklevel=2)
                report(news)
        except ray.exceptions.RayTaskError as error:
            cause = error.cause
            raise (cause if isinstance(cause, FaithmapError) else FaithmapError(f"a worker failed: {cause}")) from error
        except ray.exceptions.RayError as error:
            raise FaithmapError(f"the Ray cluster failed ({error}): run the same command again to go on.") from error
        finally:
            for actor in actors:
                ray.kill(actor)
            experiment.classifier.to(home)
            if started_here:
                ray.shutdown()
        store.repair()  # a worker that outlived its driver may have written what another computed as well

    def _connect(self) -> ModuleType:
        ray = import_ray()
        if not ray.is_initialized():
            cpus = max(os.cpu_count() or 1, (self.workers or 1) * self.threads)
            own: dict[str, Any] = {} if self.address else {"num_cpus": cpus, "include_dashboard": False}
            try:
                ray.init(self.address or "local", log_to_driver=False, **own)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise FaithmapError(
                    f"no Ray cluster at '{self.address}' ({first_line(error)}): start one with "
                    "`ray start --head`, or leave the address out."
                ) from error
        return ray


class Worker:
    """One warm network, in a process of its own."""

    def __init__(self, experiment: Sequence[Any], device: str, url: str, threads: int) -> None:
        torch.set_num_threads(threads)
        # In a list, because Ray would copy an argument by itself into every worker's start, and warn about restarts.
        sent: Experiment = import_ray().get(experiment[0])
        self.experiment = replace(sent, classifier=sent.classifier.to(device))
        self.watch = Watch(self.experiment.classifier.module, self.experiment.classifier.name)
        self.store = Store(url)

    def ready(self) -> None:
        """Returns once the network is there."""

    def compute(self, task: Task) -> Report:
        """Compute what is not stored yet of a task, which may be tried for the second time, and write it."""
        stored = self.store.keys()
        draws = [draw for draw in task.draws if task_key(task, draw) not in stored]
        left = replace(task, chains=tuple(key for key in task.chains if key.draw in draws))
        with warnings.catch_warnings(record=True) as said:
            news = list(compute(self.experiment, left, self.store, self.watch)) if left.chains or left.heatmaps else []
        return Report(
            scores=task.scores,
            images=len(task.images),
            skipped=[one for new in news for one in new.skipped],
            notes=list(dict.fromkeys(str(one.message) for one in said)),
        )


def hand_out(ray: Any, actors: Iterable[Any], tasks: Iterable[Task]) -> Iterator[Report]:
    """Give each worker that is ready its next task until all are done; yields what comes back."""
    left = deque(tasks)
    waking = {actor.ready.remote(): actor for actor in actors}
    running: dict[Any, Any] = {}
    while left or running:
        (done, *_), _ = ray.wait([*waking, *running], num_returns=1)
        if done in waking:
            actor, room = waking.pop(done), IN_FLIGHT
            ray.get(done)
        else:
            actor, room = running.pop(done), 1
            yield ray.get(done)
        for _ in range(min(room, len(left))):
            running[actor.compute.remote(left.popleft())] = actor


def portable(experiment: Experiment) -> Experiment:
    """The experiment without what is bound to this process and its working directory."""
    places: Mapping[Any, Any] = {
        key: (absolute(url), *rest) for key, (url, *rest) in experiment.stored_heatmaps.places.items()
    }
    others = experiment.others.absolute() if experiment.others is not None else None
    return replace(experiment, stored_heatmaps=HeatmapParts(places), others=others)


def at_absolute_paths(task: Task) -> Task:
    """The task with its images as other working directories see them."""
    return replace(task, images=tuple(image.absolute() for image in task.images))


def import_ray() -> ModuleType:
    """Ray, or what to install.

    Raises:
        FaithmapError: it is not installed.
    """
    try:
        import ray
    except ImportError:
        raise FaithmapError(missing("the executor 'ray' needs", "ray", extra="ray")) from None
    module: ModuleType = ray
    return module
