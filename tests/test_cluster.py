"""Work elsewhere: a pool of processes and a Dask cluster of processes give the bytes of one thread, lost workers or not."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Executor as Pool
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import ensemble_kit as ek
from conftest import smooth_logits, write_store
from ensemble_kit.execution import dask
from ensemble_kit.execution.events import Progress
from ensemble_kit.execution.executor import Item, Items
from ensemble_kit.execution.futures import Futures
from trying import ensk, refused

if TYPE_CHECKING:
    from distributed import Client

ROOT = Path(__file__).parent.parent
CLASSES = ("x", "y", "z")
IDS = tuple(f"s{k:02}" for k in range(24))
slow = pytest.mark.slow


def members(folder: Path, activation: str) -> list[Path]:
    rng = np.random.default_rng(3)
    out = []
    for name in ("a", "b"):
        arrays = {s: 3 * smooth_logits(rng, (3, 20, 24)) for s in IDS}
        write_store(folder / f"{name}.zarr", arrays, (40, 50), CLASSES, member=name, activation=activation)
        out.append(folder / f"{name}.zarr")
    return out


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return members(tmp_path_factory.mktemp("sigmoid"), "sigmoid")


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, memory_limit=0) as here,
        Client(here) as found,
    ):
        yield found


class Noted:
    """A work that returns the sample's id, doubled."""

    def __call__(self, item: Item) -> str:
        return item.sample * 2


@pytest.mark.parametrize("count", [0, 1, 7, 300])
@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_the_order_of_the_items(count: int, workers: int) -> None:
    ids, told = [str(k) for k in range(count)], list[Progress]()
    with ThreadPoolExecutor(workers) as pool:
        assert list(Futures(pool).map(Noted(), Items(ids), "noting", told.append)) == [i * 2 for i in ids]
    assert [p.done for p in told] == list(range(count + 1))
    assert sorted(str(p.sample) for p in told[1:]) == sorted(ids)


class Fails:
    """A work that fails as a damaged store does."""

    def __call__(self, item: Item) -> str:
        raise ek.DamagedError("sample-damaged", "cannot read", item=item.sample, fix="dump it again")


def test_an_error_of_the_work_is_raised_and_the_rest_is_called_off() -> None:
    with ThreadPoolExecutor(1) as pool, pytest.raises(ek.DamagedError, match="cannot read: 0 ·"):
        list(Futures(pool).map(Fails(), Items(["0", "1"]), "failing"))


@slow
@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.parametrize("kind", ["processes", "dask"])
def test_elsewhere_gives_the_bytes_of_one_thread(kind: str, activation: str, client: Client, tmp_path: Path) -> None:
    ens = ek.Ensemble(members(tmp_path, activation))
    executor: Pool | Client = client if kind == "dask" else ProcessPoolExecutor(2, multiprocessing.get_context("spawn"))
    truth = ens.vote(ek.Argmax({"y": 1.2}) if activation == "softmax" else 0.45, jobs=1)
    voted, tuned = ens.vote(jobs=1), ek.tune_thresholds(ens, truth, folds=3, jobs=1)
    assert ens.vote(executor=executor) == voted
    assert ek.tune_thresholds(ens, truth, folds=3, executor=executor) == tuned
    if isinstance(executor, Pool):
        executor.shutdown()


@slow
def test_a_killed_worker_changes_nothing(client: Client, stores: list[Path]) -> None:
    """R18: its tasks are done by others."""
    ens, killed = ek.Ensemble(stores), list[int]()

    def kill(told: Progress) -> None:
        if told.done == 5 and not killed:
            killed.extend(client.run(os.getpid).values())
            os.kill(killed[0], signal.SIGKILL)

    assert ens.vote(0.4, executor=client, listener=kill) == ens.vote(0.4, jobs=1)
    assert len(killed) == 2


@slow
@pytest.mark.parametrize("kind", ["processes", "dask"])
def test_a_store_that_workers_cannot_open_is_named(kind: str, client: Client, tmp_path: Path) -> None:
    """R20: by the task's own error; Dask's workers broke off over a message that they could not unpickle, for ever."""
    ens = ek.Ensemble(members(tmp_path, "sigmoid"))
    (tmp_path / "a.zarr").rename(tmp_path / "elsewhere.zarr")
    executor: Pool | Client = client if kind == "dask" else ProcessPoolExecutor(2, multiprocessing.get_context("spawn"))
    with refused(ek.IncompleteError, "store-missing", str(tmp_path / "a.zarr")):
        ens.vote(0.4, executor=executor)
    (tmp_path / "elsewhere.zarr").rename(tmp_path / "a.zarr")
    assert ens.vote(0.4, executor=executor) == ens.vote(0.4, jobs=1)  # the workers are still there
    if isinstance(executor, Pool):
        executor.shutdown()


class Dies:
    """A work that kills its process."""

    def __call__(self, item: Item) -> str:
        os.kill(os.getpid(), signal.SIGKILL)
        return item.sample


@slow
def test_a_pool_that_is_lost_is_named() -> None:
    with (
        ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool,
        pytest.raises(ek.ResourceError, match=r"cannot go on with dying: a worker is gone \(BrokenProcessPool"),
    ):
        list(Futures(pool).map(Dies(), Items(["0"]), "dying"))


def command(*words: object, **environment: str) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]), **environment}
    return subprocess.Popen(
        [sys.executable, "-m", *map(str, words)], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address of a scheduler that is a process of its own, and the process."""
    file = tmp_path / "scheduler.json"
    process = command("distributed.cli.dask_scheduler", "--port", 0, "--no-dashboard", "--scheduler-file", file)
    while not file.exists() or not file.stat().st_size:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    yield json.loads(file.read_text())["address"], process
    process.kill()
    process.communicate()


@pytest.fixture
def worker(scheduler: tuple[str, subprocess.Popen[str]], tmp_path: Path) -> Iterator[None]:
    process = start_worker(scheduler[0], tmp_path)
    yield
    process.kill()
    process.communicate()


def start_worker(address: str, folder: Path, **environment: str) -> subprocess.Popen[str]:
    options = ("--nthreads", 1, "--no-nanny", "--no-dashboard", "--local-directory", folder, "--death-timeout", 20)
    return command("distributed.cli.dask_worker", address, *options, **environment)


@slow
@pytest.mark.usefixtures("worker")
def test_the_command_works_on_a_cluster_and_a_killed_scheduler_leaves_nothing(
    scheduler: tuple[str, subprocess.Popen[str]], stores: list[Path], tmp_path: Path
) -> None:
    address, process = scheduler
    here, there = tmp_path / "here.csv", tmp_path / "there.csv"
    ek.Ensemble(stores).vote(0.4).write(here)
    vote = ("ensemble_kit", "vote", *stores, "--thresholds", 0.4, "--out", there, "--dask", address)
    ran = command(*vote)
    _, told = ran.communicate(timeout=120)
    assert ran.returncode == 0, told
    assert there.read_bytes() == here.read_bytes()
    there.unlink()
    process.kill()
    ran = command(*vote)
    _, told = ran.communicate(timeout=120)
    assert (ran.returncode, there.exists()) == (5, False)
    assert f"error[dask-unreachable] cannot connect to a Dask scheduler: {address}" in told


@slow
@pytest.mark.usefixtures("worker")
def test_a_scheduler_that_is_killed_in_the_middle_is_named(
    scheduler: tuple[str, subprocess.Popen[str]], stores: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(told: Progress) -> None:
        if told.done == 3:
            scheduler[1].kill()

    with (
        pytest.raises(ek.ResourceError, match="cannot go on with voting: a worker"),
        dask.cluster(scheduler[0]) as there,
    ):
        ek.Ensemble(stores).vote(0.4, executor=there, listener=kill)


@slow
def test_workers_of_other_versions_are_refused_before_work(
    scheduler: tuple[str, subprocess.Popen[str]], stores: list[Path], tmp_path: Path
) -> None:
    """R19."""
    (tmp_path / "numba-0.1.dist-info").mkdir()
    (tmp_path / "numba-0.1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: numba\nVersion: 0.1\n")
    path = os.pathsep.join([str(tmp_path), str(ROOT), os.environ.get("PYTHONPATH", "")])
    process = start_worker(scheduler[0], tmp_path, PYTHONPATH=path)
    with (
        pytest.raises(ek.MismatchError, match=r"worker tcp://.*numba 0\.1 there, .* here"),
        dask.cluster(scheduler[0]) as executor,
    ):
        ek.Ensemble(stores).vote(0.4, executor=executor)
    process.kill()
    process.communicate()


@slow
def test_a_cluster_without_workers_is_named(
    scheduler: tuple[str, subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask, "_STARTING", 1)
    with pytest.raises(ek.ResourceError, match="has no worker after 1 s"), dask.cluster(scheduler[0]):
        pass


def test_options_that_a_cluster_does_not_hold_are_refused() -> None:
    with pytest.raises(ek.UsageError, match="--jobs 2 beside --dask tcp://x:1"), dask.cluster("tcp://x:1", 2):
        pass


def test_mask_files_are_not_counted_on_a_cluster(tmp_path: Path) -> None:
    masks = ek.MaskSet({("x", "bone"): ek.encode(np.eye(4, dtype=bool))})
    for name in "ab":
        masks.write(tmp_path / f"{name}.npz")
    with refused(ek.UsageError, "option-idle", "--dask", "counted in this process"):
        ensk("vote", tmp_path / "a.npz", tmp_path / "b.npz", "--out", tmp_path / "o.npz", "--dask", "local")
