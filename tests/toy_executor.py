"""Executors in one file: processes that share nothing with this one, and the thread that asks."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from ensemble_kit.execution.events import Listener, Progress, nobody
from ensemble_kit.execution.executor import Executor, Item, Items


class Serial:
    """Work in the thread that asks."""

    def map(self, work: Callable[[Item], Any], items: Items, verb: str, listener: Listener = nobody) -> Iterator[Any]:
        return map(work, items)


class Processes:
    """Work in two processes that were started, not forked, so that work and items have to be pickled whole."""

    def __init__(self) -> None:
        self.pool = ProcessPoolExecutor(2, multiprocessing.get_context("spawn"))

    def map(self, work: Callable[[Item], Any], items: Items, verb: str, listener: Listener = nobody) -> Iterator[Any]:
        for k, (sample, result) in enumerate(zip(items.samples, self.pool.map(work, items), strict=True)):
            listener(Progress(verb, k + 1, len(items), k + 1, sample))
            yield result


_: list[type[Executor]] = [Serial, Processes]
