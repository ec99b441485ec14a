"""`Futures`, an executor over any `concurrent.futures.Executor`: processes, a batch system, a Dask cluster."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, TypeVar

from ensemble_kit.errors import EnskError, ResourceError
from ensemble_kit.execution.cores import cores
from ensemble_kit.execution.events import Listener, Progress, nobody
from ensemble_kit.execution.executor import Item, Items
from ensemble_kit.execution.task import pack, run, versions

T = TypeVar("T")

_TASKS = 4  # for each worker: enough to even out slow ones, few enough for a scheduler
_SECOND = 1.0  # between two looks at whether the workers are still there
_MOST = 64  # samples of a task: what a lost worker does again
_HELD = 1024  # samples in flight: where the first is slow the results of all others wait here
_LOOK = 0.05  # seconds between two looks at jobs of a batch system, which tell nobody that they are done


class Submits(Protocol):
    """What `Futures` needs of a pool, in fewer words than `concurrent.futures.Executor`: submitit's has no more."""

    def submit(self, function: Callable[..., object], /, *arguments: object) -> object:
        """Begin a call; return what has `done()`, `result()` and `cancel()`."""


class Gone(BrokenExecutor):
    """Results can come no more; its text says why, in whole words."""


@dataclass(frozen=True)
class Futures:
    """Run work elsewhere, some samples a task; results come in the order of the items.

    At most four tasks a worker are in flight, of 64 samples at most and of 1,024 together, so memory does not grow with
    the number of samples. A task holds the work and its items; a process opens the stores that the work names once, by
    their paths or URLs, which must mean the same there. Logits are never sent.

    Parameters
    ----------
    pool : where tasks are submitted.
    workers : how many tasks it runs at a time; default: those of a pool of this machine, else one for each core. A
        function is asked again and again, since a cluster grows and shrinks; it raises `Gone` where results can come
        no more.
    lost : what a future raises whose worker is gone for good.
    """

    pool: Submits
    workers: Callable[[], int] | int | None = None
    lost: tuple[type[Exception], ...] = ()

    def map(self, work: Callable[[Item], T], items: Items, verb: str, listener: Listener = nobody) -> Iterator[T]:
        """Do the work on every item. See `Executor.map`.

        Raises
        ------
        ResourceError
            A worker was lost, and the pool does not replace it; the calling process is as after a kill.
        """
        listener(Progress(verb, 0, len(items)))
        sent, ahead, ours = work if isinstance(self.pool, ThreadPoolExecutor) else pack(work), iter(items), versions()
        gone: tuple[type[Exception], ...] = (BrokenExecutor, CancelledError, *self.lost)
        waiting, tasks, done = deque[Future[list[T] | EnskError]](), dict[Future[list[T] | EnskError], list[str]](), 0
        try:
            while True:
                workers = self._workers()
                size = max(1, min(_MOST, -(-len(items) // (_TASKS * workers)), _HELD // (_TASKS * workers)))
                while len(waiting) < _TASKS * workers and (some := list(islice(ahead, size))):
                    waiting.append(self.pool.submit(run, sent, some, ours))  # type: ignore[arg-type]
                    tasks[waiting[-1]] = [item.sample for item in some]
                if not waiting:
                    return
                while not waiting[0].done():
                    _wait(tasks)
                    self._workers()
                    for future in [f for f in tasks if f.done() and f is not waiting[0]]:
                        done = _tell(tasks.pop(future), done, verb, len(items), listener)
                first = waiting.popleft()
                results = _result(first)
                if isinstance(results, EnskError):
                    raise results
                if first in tasks:
                    done = _tell(tasks.pop(first), done, verb, len(items), listener)
                yield from results
        except gone as error:
            raise self._lost(verb, error) from None
        finally:
            for future in waiting:
                if not future.done():  # scancel of a job that has ended fails
                    future.cancel()

    def _lost(self, verb: str, error: Exception) -> ResourceError:
        why = str(error).partition("\n")[0]
        item = f"a worker is gone ({type(error).__name__}{f': {why}' if why else ''})"
        try:
            self._workers()
        except Gone as known:
            item = str(known)
        item = why if isinstance(error, Gone) else item
        fix = "run it again; if workers die of their memory, start fewer of them on a machine"
        return ResourceError("worker-lost", f"cannot go on with {verb}", item=item, fix=fix)

    def _workers(self) -> int:
        if callable(self.workers):
            return self.workers()
        return self.workers or getattr(self.pool, "_max_workers", None) or cores()


def _result(future: Any) -> Any:
    if isinstance(future, Future):
        return future.result()
    try:
        return future.result()
    except Exception as error:  # noqa: BLE001 - a batch system's jobs raise its own errors, with whole logs in them
        last = (str(error).strip() or type(error).__name__).splitlines()[-1].strip()
        raise Gone(f"a job failed: {last}") from None


def _wait(futures: Iterable[Future[T]]) -> None:
    """Wait until a future is done, a second at most."""
    if all(isinstance(f, Future) for f in futures):
        wait(futures, _SECOND, "FIRST_COMPLETED")
        return
    until = time.monotonic() + _SECOND
    while time.monotonic() < until and not any(f.done() for f in futures):
        time.sleep(_LOOK)


def _tell(samples: list[str], done: int, verb: str, total: int, listener: Listener) -> int:
    """Report the samples of a task that is done; return how many are done in all."""
    for k, sample in enumerate(samples, done + 1):
        listener(Progress(verb, k, total, k, sample))
    return done + len(samples)
