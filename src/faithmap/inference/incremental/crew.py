"""Several runners of one plan, each with its share of the chains and of the processor's threads.

Operations on lists of pixels are short. Threads that share one of them wait for each other at its end, and all but one
wait while Python prepares the next. Chains do not depend on each other, so on a CPU each runner takes some of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from queue import SimpleQueue
from threading import Event

import torch
from torch import Tensor

from faithmap.inference.chains import Chains
from faithmap.inference.incremental.runner import Plan, Runner

Scores = tuple[Tensor, Tensor, Tensor]


class Crew:
    """Runs a plan over groups of chains.

    Args:
        chains_at_a_time: of all runners together.
    """

    def __init__(self, plan: Plan, chains_at_a_time: int) -> None:
        self.plan = plan
        count = min(plan.runners, chains_at_a_time)
        shares = [(chains_at_a_time + at) // count for at in range(count)]
        self.runners = [Runner(plan, share, plan.tail.beside() if at else plan.tail) for at, share in enumerate(shares)]
        needed = plan.threads != torch.get_num_threads()
        self._threads = [_thread(plan.threads) for _ in self.runners] if needed else []

    @property
    def most(self) -> int:
        """Chains at a time."""
        return sum(runner.most for runner in self.runners)

    def logits(self, chains: Chains, images: Tensor, fills: Tensor) -> Iterator[Scores]:
        """See `Runner.logits`."""
        if not self._threads:
            yield from self.runners[0].logits(chains, images, fills)
            return
        # Chains of one image stay together, because each runner computes the images that it meets.
        order = torch.argsort(chains.image, stable=True)
        parts = order.tensor_split(min(len(self.runners), len(order)))
        found: SimpleQueue[Scores | BaseException | None] = SimpleQueue()  # None: a runner has come to its end
        stop = Event()
        work = [
            thread.submit(_work, runner, chains.take(part), part, images, fills, found.put, stop)
            for thread, runner, part in zip(self._threads, self.runners, parts, strict=False)
        ]
        try:
            running = len(work)
            while running:
                one = found.get()
                if isinstance(one, BaseException):
                    raise one
                if one is None:
                    running -= 1
                else:
                    yield one
        finally:
            stop.set()
            wait(work)

    def shrink(self) -> bool:
        """Half as many chains at a time; False where no runner has more than one."""
        before = self.most
        for runner in self.runners:
            runner.shrink()
        return self.most < before

    def bytes_kept(self) -> int:
        """Memory that the maps of chains take now."""
        return sum(runner.bytes_kept() for runner in self.runners)

    def forget(self) -> None:
        """Give back the memory of the chains."""
        for runner in self.runners:
            runner.forget()


def _work(
    runner: Runner,
    chains: Chains,
    rows: Tensor,
    images: Tensor,
    fills: Tensor,
    hand_over: Callable[[Scores | BaseException | None], None],
    stop: Event,
) -> None:
    """One runner's part of the chains; `rows` says which of all chains these are."""
    try:
        with torch.inference_mode():
            for chain, step, logits in runner.logits(chains, images, fills):
                if stop.is_set():
                    return
                hand_over((rows[chain], step, logits))
        hand_over(None)
    except BaseException as error:  # raised again where the scores are asked for
        hand_over(error)


def _thread(threads: int) -> ThreadPoolExecutor:
    """A thread whose operations have so many threads."""
    thread = ThreadPoolExecutor(1, "faithmap-runner")
    before = torch.get_num_threads()
    thread.submit(torch.get_num_threads).result()  # torch sets a thread up when that is first asked for
    thread.submit(torch.set_num_threads, threads).result()
    torch.set_num_threads(before)  # what threads that others make begin with
    return thread
