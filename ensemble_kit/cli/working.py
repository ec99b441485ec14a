"""Where a command's work on samples runs: in threads, or on a Dask cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ensemble_kit.cli.common import Common
from ensemble_kit.cli.plain import size
from ensemble_kit.errors import UsageError

if TYPE_CHECKING:
    from ensemble_kit.execution.executor import Executor


def check_work(common: Common, address: str | None) -> None:
    """Refuse a budget of memory that would not be held, since the work is done by other processes."""
    if address is not None and common.memory is not None:
        item = f"--memory {size(common.memory)} beside --dask {address}"
        fix = "leave it out, and give workers fewer threads: dask worker --nthreads, or --jobs with --dask local"
        raise UsageError("option-idle", "cannot hold a budget of memory on a Dask cluster", item=item, fix=fix)


@contextmanager
def working(common: Common, address: str | None) -> Iterator[Executor]:
    """Give the executor of `--dask` and `--jobs` for the length of a `with`."""
    from ensemble_kit.execution import dask
    from ensemble_kit.execution.executor import Threads

    if address is None:
        yield Threads(common.jobs)
        return
    with dask.cluster(address, common.jobs) as executor:
        yield executor
