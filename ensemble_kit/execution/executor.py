"""`Executor`, which runs work on samples, and `Threads`, the one that is built in.

Work is a callable value that takes one item and returns something small (counts, runs); an item names its sample and
carries what belongs to that sample alone, such as its truth. Both can be pickled, so that an executor may run them in
other processes or on other machines.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

from ensemble_kit.errors import check_number
from ensemble_kit.execution.cores import cores
from ensemble_kit.execution.events import Listener, Progress, nobody

A = TypeVar("A")
T = TypeVar("T")


class Item(NamedTuple):
    """One sample to work on.

    Parameters
    ----------
    sample : its id.
    truth : its true masks, where the work compares with them, in the form that the work documents.
    """

    sample: str
    truth: Any = None


@dataclass(frozen=True)
class Items:
    """The items of one pass, in order; each is made in its turn, so that memory does not grow with their number.

    Parameters
    ----------
    samples : their ids.
    truth : makes the `truth` of a sample's item; default: none.
    """

    samples: Sequence[str]
    truth: Callable[[str], Any] | None = None

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Item]:
        return (Item(s, None if self.truth is None else self.truth(s)) for s in self.samples)


class Executor(Protocol):
    """Runs work on items. The smallest one runs it in the calling thread::

    class Serial:
        def map(self, work, items, verb, listener=nobody):
            return map(work, items)
    """

    def map(self, work: Callable[[Item], T], items: Items, verb: str, listener: Listener = nobody) -> Iterator[T]:
        """Do the work on every item and yield the results in the order of the items.

        Parameters
        ----------
        work : a value that can be pickled.
        verb : what is being done, for `Progress`.
        listener : called for every sample that is done.
        """


@dataclass(frozen=True)
class Threads:
    """Threads of this process; kernels release the GIL.

    At most two samples a thread are in flight, so memory does not grow with their number.

    Parameters
    ----------
    jobs : number of threads; default: one for each core of this process.

    Raises
    ------
    UsageError
        Fewer than one thread.
    """

    jobs: int | None = None

    def __post_init__(self) -> None:
        if self.jobs is not None:
            check_number("jobs", self.jobs, "pass 1 or more threads", least=1, whole=True, what="cannot share out work")

    def map(self, work: Callable[[Item], T], items: Items, verb: str, listener: Listener = nobody) -> Iterator[T]:
        """Do the work in threads; one job runs in the calling thread. See `Executor.map`."""
        listener(Progress(verb, 0, len(items)))
        results = in_threads(work, items, self.jobs or cores())
        for k, (sample, result) in enumerate(zip(items.samples, results, strict=True)):
            listener(Progress(verb, k + 1, len(items), k + 1, sample))
            yield result


def in_threads(work: Callable[[A], T], items: Iterable[A], threads: int) -> Iterator[T]:
    """Do the work on every item, at most two a thread in flight, and yield the results in the order of the items.

    One thread is the calling one: where memory is too short to start another, that still runs.
    """
    if threads == 1:
        yield from map(work, items)
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="ensk-sample")
    waiting: deque[Future[T]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) == 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # a signal does not wait for the samples in flight


THREADS = Threads()
"""The default: one thread for each core."""


def threads_here(executor: Executor) -> int:
    """Count the threads that work of this process may take beside an executor: its own, or one for each core."""
    return (executor.jobs if isinstance(executor, Threads) else None) or cores()
