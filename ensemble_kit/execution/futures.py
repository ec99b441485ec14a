"""`Futures`, an executor over any `concurrent.futures.Executor`: processes, a batch system, a Dask cluster."""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Future, wait
from concurrent.futures import Executor as Pool
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, TypeVar

from ensemble_kit.errors import ResourceError
from ensemble_kit.execution.cores import cores
from ensemble_kit.execution.events import Listener, Progress, nobody
from ensemble_kit.execution.executor import Item, Items

T = TypeVar("T")

_TASKS = 4  # for each worker: enough to even out slow ones, few enough for a scheduler
_SECOND = 1.0  # between two looks at whether the workers are still there
_MOST = 64  # samples of a task: results that wait do not grow with the number of samples


@dataclass(frozen=True)
class Futures:
    """Run work elsewhere, some samples a task; results come in the order of the items.

    At most four tasks a worker are in flight, of 64 samples at most, so memory does not grow with the number of
    samples. A task holds the work and its items; a worker opens the stores that the work names once, by their paths or
    URLs, which must mean the same there. Logits are never sent.

    Parameters
    ----------
    pool : where tasks are submitted.
    workers : how many tasks it runs at a time; default: those of a pool of this machine, else one for each core.
    lost : what a future raises whose worker is gone for good.
    alive : whether results can still come; asked every second in which none comes.
    """

    pool: Pool
    workers: int | None = None
    lost: tuple[type[Exception], ...] = ()
    alive: Callable[[], bool] = lambda: True

    def map(self, work: Callable[[Item], T], items: Items, verb: str, listener: Listener = nobody) -> Iterator[T]:
        """Do the work on every item. See `Executor.map`.

        Raises
        ------
        ResourceError
            A worker was lost, and the pool does not replace it; the calling process is as after a kill.
        """
        listener(Progress(verb, 0, len(items)))
        workers = self.workers or getattr(self.pool, "_max_workers", None) or cores()
        size = max(1, min(_MOST, -(-len(items) // (_TASKS * workers))))
        ahead, task = iter(items), Task(work)
        gone: tuple[type[Exception], ...] = (BrokenExecutor, CancelledError, *self.lost)
        waiting, tasks, done = deque[Future[list[T]]](), dict[Future[list[T]], list[str]](), 0
        try:
            while True:
                while len(waiting) < _TASKS * workers and (some := list(islice(ahead, size))):
                    waiting.append(self.pool.submit(task, some))
                    tasks[waiting[-1]] = [item.sample for item in some]
                if not waiting:
                    return
                while not waiting[0].done():
                    if not wait(tasks, _SECOND, "FIRST_COMPLETED").done and not self.alive():
                        raise BrokenExecutor("the connection is closed")
                    for future in [f for f in tasks if f.done() and f is not waiting[0]]:
                        done = _tell(tasks.pop(future), done, verb, len(items), listener)
                first = waiting.popleft()
                results = first.result()
                if first in tasks:
                    done = _tell(tasks.pop(first), done, verb, len(items), listener)
                yield from results
        except gone as error:
            raise ResourceError(
                "worker-lost",
                f"cannot go on with {verb}",
                item=f"a worker is gone ({type(error).__name__}{f': {error}' if str(error) else ''})",
                fix="run it again; if workers die of their memory, start fewer of them on a machine",
            ) from None
        finally:
            for future in waiting:
                future.cancel()


def _tell(samples: list[str], done: int, verb: str, total: int, listener: Listener) -> int:
    """Report the samples of a task that is done; return how many are done in all."""
    for k, sample in enumerate(samples, done + 1):
        listener(Progress(verb, k, total, k, sample))
    return done + len(samples)


class Task(Generic[T]):
    """Does work on items where the task runs, and unpickles it there, once the task has begun.

    A store that the worker may not open is then the task's error. Of what fails while a pool takes its messages apart
    Dask tells nobody, and the caller waits for ever; a pool of processes breaks.
    """

    def __init__(self, work: Callable[[Item], T]) -> None:
        self._work: Callable[[Item], T] | bytes = work

    def __call__(self, items: list[Item]) -> list[T]:
        """Do the work on these items, in their order."""
        work: Any = pickle.loads(self._work) if isinstance(self._work, bytes) else self._work  # noqa: S301 - our own
        return list(map(work, items))

    def __getstate__(self) -> dict[str, bytes]:
        return {"_work": self._work if isinstance(self._work, bytes) else _pickled(self._work)}


def _pickled(work: object) -> bytes:
    """Pickle by value what was defined in a notebook, as Dask does, where its pickler is installed."""
    try:
        from cloudpickle import dumps
    except ModuleNotFoundError:
        return pickle.dumps(work)
    return bytes(dumps(work))
