"""Run work over samples and yield results in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from ensemble_kit.errors import UsageError
from ensemble_kit.execution.cores import cores
from ensemble_kit.execution.events import Listener, Progress, nobody

T = TypeVar("T")


def over_samples(
    work: Callable[[str], T], samples: Sequence[str], jobs: int | None, verb: str, listener: Listener = nobody
) -> Iterable[tuple[str, T]]:
    """Run `work` on every sample in threads (kernels release the GIL) and yield results in the order of `samples`.

    At most two samples a thread are in flight, so memory does not grow with their number.
    """
    if jobs is not None and jobs < 1:
        raise UsageError("option-invalid", "cannot share out work", item=f"jobs={jobs}", fix="pass 1 or more threads")
    threads = jobs or cores()
    listener(Progress(verb, 0, len(samples)))
    if threads == 1:  # where memory is so short that no thread can start, this still runs
        for k, sample in enumerate(samples):
            result = work(sample)
            listener(Progress(verb, k + 1, len(samples), k + 1, sample))
            yield sample, result
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="ensk-sample")
    waiting: list[Future[T]] = []
    ahead = iter(samples)
    try:
        for k, sample in enumerate(samples):
            while len(waiting) < 2 * threads and (following := next(ahead, None)) is not None:
                waiting.append(pool.submit(work, following))
            result = waiting.pop(0).result()
            listener(Progress(verb, k + 1, len(samples), k + 1, sample))
            yield sample, result
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # a signal does not wait for the samples in flight
