"""Dask clusters that cannot be reached or started: told at once, and nothing else is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import ensemble_kit as ek
from conftest import smooth_logits, write_store
from ensemble_kit.execution.dask import LOCAL, cluster
from running import command
from trying import refused

pytest.importorskip("distributed")

NO_ADDRESSES = {
    "no port": ("foo", "missing port number"),
    "empty": ("", "missing port number"),
    "one slash": ("tcp:/127.0.0.1:8786", "invalid address"),
    "another scheme": ("http://127.0.0.1:8786", "unknown address scheme 'http'"),
    "unknown host": ("no-such-host.invalid:8786", "no-such-host.invalid:8786"),
}


@pytest.mark.parametrize(("address", "words"), NO_ADDRESSES.values(), ids=NO_ADDRESSES)
def test_an_address_that_is_none(address: str, words: str) -> None:
    with refused(ek.ResourceError, "dask-unreachable", words), cluster(address):
        pass


@pytest.mark.slow
def test_nothing_but_the_error_is_said_of_a_wrong_address(tmp_path: Path) -> None:
    """A client that was made of it was waited for 20 s at the end, and its traceback printed."""
    write_store(tmp_path / "m.zarr", {"s": smooth_logits(np.random.default_rng(0), (1, 8, 8))}, (8, 8), ("x",))
    ran = command("ensemble_kit", "vote", tmp_path / "m.zarr", "--out", tmp_path / "o.csv", "--dask", "foo", "-q")
    _, told = ran.communicate(timeout=15)
    assert ran.returncode == 5
    assert told.startswith("error[dask-unreachable] cannot connect to a Dask scheduler: foo: missing port")
    assert told.count("\n") == 1


@pytest.mark.slow
def test_processes_that_end_while_they_start() -> None:
    """As where memory is too short, or a person kills them."""
    import dask

    with (
        dask.config.set({"distributed.worker.preload": ["import os; os._exit(9)"]}),
        refused(ek.ResourceError, "dask-no-workers", "cannot start Dask workers: 1 processes of this machine"),
        cluster(LOCAL, 1),
    ):
        pass
