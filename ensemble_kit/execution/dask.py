"""Work on a Dask cluster: `ensk … --dask ADDRESS`, or a `distributed.Client` as `executor=`."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ensemble_kit.errors import MismatchError, ResourceError, UsageError, some
from ensemble_kit.execution.cores import cores
from ensemble_kit.execution.executor import Executor
from ensemble_kit.execution.futures import Futures

LOCAL = "local"
_PACKAGES = ("ensemble_kit", "numpy", "numba", "zarr")
_RETRIES = 2  # of a task that fails otherwise than by an error; tasks of a lost worker are given to others anyway
_CONNECTING = 10  # seconds to wait for the scheduler
_STARTING = 30  # and for a first worker


def of_client(client: Any) -> Futures:
    """Return the executor of a client's cluster.

    Raises
    ------
    ResourceError
        The cluster has no worker.
    MismatchError
        A worker has another version of the kit, or of what its results depend on.
    """
    from distributed import CancelledError, KilledWorker
    from distributed import TimeoutError as Late
    from distributed.comm.core import CommClosedError

    try:
        client.wait_for_workers(1, timeout=_STARTING)
    except Late:
        raise ResourceError(
            "dask-no-workers",
            "cannot work on a Dask cluster",
            item=f"{_address(client)} has no worker after {_STARTING} s",
            fix=f"start some: dask worker {_address(client)}",
        ) from None
    _check(client)
    threads = sum(client.nthreads().values())
    pool = client.get_executor(pure=False, retries=_RETRIES)
    lost = (KilledWorker, CancelledError, CommClosedError)
    return Futures(pool, threads, lost, lambda: client.status == "running")


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
    if address != LOCAL:
        if jobs is not None:
            item, fix = f"--jobs {jobs} beside --dask {address}", "leave it out: dask worker --nthreads says it there"
            raise UsageError("option-idle", "cannot set the threads of a Dask cluster", item=item, fix=fix)
        try:
            client = Client(address, timeout=_CONNECTING, set_as_default=False)
        except (OSError, ValueError) as error:
            raise ResourceError(
                "dask-unreachable",
                "cannot connect to a Dask scheduler",
                item=f"{address}: {error}",
                fix="pass the address that `dask scheduler` prints, such as tcp://host:8786, or local",
            ) from None
        with client:
            yield of_client(client)
        return
    own = {"n_workers": jobs or cores(), "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with LocalCluster(**own, memory_limit=0) as here, Client(here, set_as_default=False) as client:
        yield of_client(client)


def _check(client: Any) -> None:
    """Refuse workers whose results might differ from ours."""
    ours = versions()
    for worker, theirs in client.run(versions, on_error="return").items():
        if isinstance(theirs, BaseException):
            differ = [f"ensemble_kit cannot be imported there ({theirs})"]
        else:
            differ = [f"{name} {theirs[name]} there, {own} here" for name, own in ours.items() if theirs[name] != own]
        if differ:
            raise MismatchError(
                "dask-versions",
                "cannot work on a Dask cluster",
                item=f"worker {worker}: {some(differ)}",
                fix="install the same versions on every worker: pip freeze here, pip install -r there",
            )


def versions() -> dict[str, Any]:
    """Return the versions of Python and of the packages that results depend on."""
    from importlib.metadata import version

    return {
        "python": ".".join(platform.python_version_tuple()[:2]),
        **{name: version(name) for name in _PACKAGES},
    }


def _address(client: Any) -> str:
    return str(client.scheduler.address) if client.scheduler else "the cluster"
