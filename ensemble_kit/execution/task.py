"""A task: some work and some items, which run in another process or on another machine, and what comes back."""

from __future__ import annotations

import pickle
import platform
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, TypeVar, cast

from ensemble_kit import __version__
from ensemble_kit.errors import EnskError, MismatchError, ResourceError
from ensemble_kit.execution.executor import Item

T = TypeVar("T")
Work = Callable[[Item], T]

_PACKAGES = ("numpy", "numba", "zarr")
_OPENING = threading.Lock()


def pack(work: Work[T]) -> bytes:
    """Pickle work, once for all of its tasks.

    What the user defined in a script or a notebook is sent by its code where cloudpickle is installed, as Dask does it;
    pickle alone would send a name that other processes do not know.
    """
    try:
        packed = pickle.dumps(work)
        ours = b"__main__" not in packed
    except (pickle.PicklingError, AttributeError, TypeError):
        if find_spec("cloudpickle") is None:
            raise
        ours = False
    if ours or find_spec("cloudpickle") is None:
        return packed
    import cloudpickle

    return cast("bytes", cloudpickle.dumps(work))


def run(work: bytes | Work[T], items: Sequence[Item], asked_by: Mapping[str, str]) -> list[T] | EnskError:
    """Do a task's work on its items, where the task runs.

    Parameters
    ----------
    work : as `pack` made it, or as it is where the task runs in the process that asks.
    asked_by : the versions of the process that asks.

    Returns
    -------
    The results; or the error, where another try would end in it too.

    Raises
    ------
    ResourceError
        A disk or a network says no: another try may succeed.
    """
    if callable(work):
        return list(map(work, items))
    host = socket.gethostname()
    if differ := differences(asked_by, versions()):
        return other_worker(host, differ)
    try:
        return list(map(_unpacked(work), items))
    except ResourceError as error:
        raise error.on(host) from None
    except EnskError as error:
        return error.on(host)


def _unpacked(packed: bytes) -> Work[Any]:
    with _OPENING:  # two threads of a worker would open the same stores
        return _unpickled(packed)


@lru_cache(maxsize=2)
def _unpickled(packed: bytes) -> Work[Any]:
    """Unpickle work, which opens its stores, once for all of its tasks in a process."""
    try:
        return cast("Work[Any]", pickle.loads(packed))  # noqa: S301 - from whoever runs code in this process anyway
    except (ImportError, AttributeError) as error:
        raise MismatchError(
            "work-unknown",
            "cannot load work where it runs",
            item=str(error),
            fix="install there the module that defines it, in the version that is installed here",
        ) from None


@cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {"python": python, "ensemble_kit": __version__, **{name: version(name) for name in _PACKAGES}}


def differences(ours: Mapping[str, str], theirs: Mapping[str, str]) -> str:
    """Say which versions of a worker, if any, are not those of the process that asks."""
    return ", ".join(f"{name} {theirs[name]} there, {own} here" for name, own in ours.items() if theirs[name] != own)


def other_worker(worker: str, why: str) -> MismatchError:
    """Make the error of a worker whose results might differ from ours."""
    fix = "install the same versions on every worker: pip freeze here, pip install -r there"
    return MismatchError("worker-versions", "cannot share out work", item=f"worker {worker}: {why}", fix=fix)
