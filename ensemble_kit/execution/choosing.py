"""The executor that the user's `executor=` and `jobs=` stand for."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor as Pool
from typing import TYPE_CHECKING, Union, cast

from ensemble_kit.errors import UsageError, check_kind
from ensemble_kit.execution import dask
from ensemble_kit.execution.events import Listener
from ensemble_kit.execution.executor import Executor, Threads
from ensemble_kit.execution.futures import Futures, Submits

if TYPE_CHECKING:
    from distributed import Client

Given = Union[Executor, Pool, Submits, "Client", None]
"""What stands for an executor: one, a pool of `concurrent.futures` or submitit, a Dask client; None is threads."""


def chosen(executor: Given, jobs: int | None, listener: Listener) -> Executor:
    """Return the executor that the user passed, beside a listener; default: threads.

    Raises
    ------
    UsageError
        Both an executor and a number of threads; a value of another type.
    ResourceError, MismatchError
        A Dask cluster without workers, or with workers of other versions.
    """
    check_kind("the listener", listener, Callable, "pass a function that takes a Progress")  # type: ignore[arg-type]
    if executor is None:
        return Threads(jobs)
    if jobs is not None:
        raise UsageError(
            "option-idle", "cannot use jobs here", item=f"jobs={jobs} beside an executor", fix="pass one of the two"
        )
    if (client := dask.client_behind(executor)) is not None:
        return dask.of_client(client)
    if isinstance(executor, Pool) or callable(getattr(executor, "submit", None)):
        return Futures(cast("Submits", executor))
    if not callable(getattr(executor, "map", None)):
        fix = "pass a distributed.Client, a concurrent.futures executor, or one of the kit's, such as Threads(4)"
        check_kind("the executor", executor, Threads, fix)
    return cast("Executor", executor)
