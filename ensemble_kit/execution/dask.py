"""Work on a Dask cluster: `ensk … --dask ADDRESS`, or a `distributed.Client` as `executor=`."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any

from ensemble_kit.errors import ResourceError, UsageError
from ensemble_kit.execution.cores import cores
from ensemble_kit.execution.executor import Executor
from ensemble_kit.execution.futures import Futures, Gone
from ensemble_kit.execution.task import differences, other_worker, versions

LOCAL = "local"
_RETRIES = 2  # of a task that fails otherwise than by an error; tasks of a lost worker are given to others anyway
_CONNECTING = 10  # seconds to wait for the scheduler
_STARTING = 30  # and for a first worker, or for another when all are lost
_SECOND = 1.0  # between two questions to the scheduler


def client_behind(executor: object) -> Any | None:
    """Return the Dask client that an executor is, or submits to; None if it is something else."""
    if "distributed" not in sys.modules:
        return None
    from distributed import Client
    from distributed.cfexecutor import ClientExecutor

    if isinstance(executor, ClientExecutor):
        return executor._client
    return executor if isinstance(executor, Client) else None


def of_client(client: Any) -> Futures:
    """Return the executor of a client's cluster.

    Raises
    ------
    UsageError
        An asynchronous client.
    ResourceError
        The cluster has no worker.
    MismatchError
        A worker has another version of the kit, or of what its results depend on.
    """
    from distributed import CancelledError, KilledWorker
    from distributed import TimeoutError as Late
    from distributed.comm.core import CommClosedError

    if client.asynchronous:
        item, fix = "its calls return coroutines", "pass one made without asynchronous=True"
        raise UsageError("dask-asynchronous", "cannot use an asynchronous Dask client", item=item, fix=fix)
    try:
        client.wait_for_workers(1, timeout=_STARTING)
        found = client.run(versions, on_error="return")
    except CommClosedError as error:
        raise _unreachable(_address(client), error) from None
    except Late:
        raise ResourceError(
            "dask-no-workers",
            "cannot work on a Dask cluster",
            item=f"{_address(client)} has no worker after {_STARTING} s",
            fix=f"start some: dask worker {_address(client)}",
        ) from None
    for worker, theirs in found.items():
        if isinstance(theirs, BaseException):
            raise other_worker(worker, f"ensemble_kit cannot be imported there ({theirs})")
        if differ := differences(versions(), theirs):
            raise other_worker(worker, differ)
    pool = client.get_executor(pure=False, retries=_RETRIES)
    return Futures(pool, _Workers(client), (KilledWorker, CancelledError, CommClosedError))


class _Workers:
    """Counts the threads of a cluster's workers, once a second: workers come and go."""

    def __init__(self, client: Any) -> None:
        self._client, self._threads, self._asked = client, 1, 0.0
        self._alone: float | None = None  # since when there is no worker

    def __call__(self) -> int:
        now = time.monotonic()
        if self._client.status != "running":
            raise Gone("the connection to the scheduler is closed")
        if now - self._asked < _SECOND:
            return self._threads
        try:
            threads = sum(self._client.nthreads().values())
        except OSError as error:
            raise Gone(f"the scheduler does not answer: {error}") from None
        self._asked = now
        if threads:
            self._threads, self._alone = threads, None
        elif self._alone is None:
            self._alone = now
        elif now - self._alone > _STARTING:
            raise Gone(f"the cluster has had no worker for {_STARTING} s")
        return self._threads


@contextmanager
def cluster(address: str, jobs: int | None = None) -> Iterator[Executor]:
    """Connect to a scheduler, or start processes of this machine, for the length of a `with`.

    Parameters
    ----------
    address : of a scheduler, such as `tcp://host:8786`, or "local".
    jobs : number of processes with "local"; default: one for each core.

    Raises
    ------
    UsageError
        The package distributed is missing; `jobs` with an address, whose workers have their own number of threads.
    ResourceError
        Nothing answers at the address, or it has no worker.
    MismatchError
        As for `of_client`.
    """
    try:
        from distributed import Client, LocalCluster
    except ModuleNotFoundError:
        raise UsageError(
            "dask-missing",
            "cannot work on a Dask cluster",
            item="the package distributed is not installed",
            fix="pip install 'ensemble_kit[dask]', or leave out --dask",
        ) from None
    with _silent():
        if address != LOCAL:
            with _connected(address, jobs, Client) as client:
                yield of_client(client)
            return
        own: dict[str, Any] = {
            "n_workers": jobs or cores(),
            "threads_per_worker": 1,
            "processes": True,
            "memory_limit": 0,
        }
        own |= {"dashboard_address": "127.0.0.1:0", "silence_logs": logging.CRITICAL}
        with _undisturbed():
            here = _started(LocalCluster, own)
        with here, Client(here, set_as_default=False, direct_to_workers=True) as client:
            yield of_client(client)


def _started(LocalCluster: Any, own: dict[str, Any]) -> Any:
    """Start processes of this machine."""
    try:
        return LocalCluster(**own)
    except (OSError, RuntimeError) as error:
        item = f"{own['n_workers']} processes of this machine: {error}"
        fix = "run it again; if they die of their memory, pass fewer --jobs, or leave --dask out"
        raise ResourceError("dask-no-workers", "cannot start Dask workers", item=item, fix=fix) from None


def _connected(address: str, jobs: int | None, Client: Any) -> Any:
    """Connect to a scheduler."""
    if jobs is not None:
        item, fix = f"--jobs {jobs} beside --dask {address}", "leave it out: dask worker --nthreads says it there"
        raise UsageError("option-idle", "cannot set the threads of a Dask cluster", item=item, fix=fix)
    from distributed.comm import resolve_address

    try:
        resolve_address(address)  # a client of an address that is none would be waited for at the end, and fail again
        return Client(address, timeout=_CONNECTING, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:  # TypeError: tls:// where Dask was told no certificates
        raise _unreachable(address, error) from None


def _unreachable(address: str, error: Exception) -> ResourceError:
    fix = "pass the address that `dask scheduler` prints, such as tcp://host:8786, or local"
    return ResourceError("dask-unreachable", "cannot connect to a Dask scheduler", item=f"{address}: {error}", fix=fix)


@contextmanager
def _silent() -> Iterator[None]:
    """Keep what Dask logs and warns of out of a command's stderr: it has tracebacks where a worker is lost."""
    off = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sending large graph")
            yield
    finally:
        logging.disable(off)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Start processes that are silent when the command is interrupted; they end when it has ended.

    A terminal sends SIGINT to all of them. Python's resource tracker warns of what an ended command did not put away.
    """
    before = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = ",".join(
        filter(None, (before, "ignore::UserWarning:multiprocessing.resource_tracker"))
    )
    resource_tracker.ensure_running()  # which, started later, would let the signal in again
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # also in threads and processes that are started here
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        os.environ.pop("PYTHONWARNINGS") if before is None else os.environ.update(PYTHONWARNINGS=before)


def _address(client: Any) -> str:
    return str(client.scheduler.address) if client.scheduler else "the cluster"
