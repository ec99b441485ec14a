"""Work on a Dask cluster of processes: what it refuses, and what is left when workers, scheduler or command are lost."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import ensemble_kit as ek
from conftest import smooth_logits, write_store
from ensemble_kit.execution import dask
from ensemble_kit.execution.choosing import chosen
from ensemble_kit.execution.events import Progress, nobody
from ensemble_kit.execution.executor import Item, Items
from running import command, listening, processes
from trying import ensk, refused

if TYPE_CHECKING:
    from distributed import Client

ROOT = Path(__file__).parent.parent
CLASSES = ("x", "y", "z")
IDS = tuple(f"s{k:02}" for k in range(24))
slow = pytest.mark.slow


def members(folder: Path, image: tuple[int, int], seed: int = 3) -> list[Path]:
    rng = np.random.default_rng(seed)
    out = []
    for name in ("a", "b"):
        arrays = {s: 3 * smooth_logits(rng, (3, 20, 24)) for s in IDS}
        write_store(folder / f"{name}.zarr", arrays, image, CLASSES, member=name)
        out.append(folder / f"{name}.zarr")
    return out


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return members(tmp_path_factory.mktemp("small"), (40, 50))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Stores whose vote takes a worker some seconds."""
    return members(tmp_path_factory.mktemp("large"), (2000, 2500))


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0", memory_limit=0
        ) as here,
        Client(here) as found,
    ):
        yield found


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
def test_workers_that_kept_a_store_see_that_it_was_written_again(client: Client, tmp_path: Path) -> None:
    client.wait_for_workers(2)
    pids, votes = set(client.run(os.getpid).values()), []
    for seed in (1, 2):
        shutil.rmtree(tmp_path / "a.zarr", ignore_errors=True)
        shutil.rmtree(tmp_path / "b.zarr", ignore_errors=True)
        ens = ek.Ensemble(members(tmp_path, (40, 50), seed))
        votes.append(ens.vote(0.4, executor=client))
        assert votes[-1] == ens.vote(0.4, jobs=1)
    assert votes[0] != votes[1]
    assert set(client.run(os.getpid).values()) == pids


class Tries:
    """A work that notes each try in a file, and fails."""

    def __init__(self, notes: Path, kind: type[ek.EnskError]) -> None:
        self.notes, self.kind = notes, kind

    def __call__(self, item: Item) -> str:
        with self.notes.open("a") as notes:
            notes.write("x")
        raise self.kind("remote", "cannot read", item=item.sample, fix="try again")


@slow
@pytest.mark.parametrize(("kind", "tries"), [(ek.ResourceError, 3), (ek.DamagedError, 1)], ids=["disk", "damage"])
def test_what_another_try_may_mend_is_tried_again(
    kind: type[ek.EnskError], tries: int, client: Client, tmp_path: Path
) -> None:
    work = Tries(tmp_path / "notes", kind)
    with pytest.raises(kind, match="cannot read: 0 "):
        list(chosen(client, None, nobody).map(work, Items(["0"]), "trying"))
    assert work.notes.read_text() == "x" * tries


class Dies:
    """A work that kills its process, as the system does where memory is short."""

    def __call__(self, item: Item) -> str:
        os.kill(os.getpid(), signal.SIGKILL)
        return item.sample


@slow
def test_work_that_kills_every_worker_is_named(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """R21: as for want of memory, which Dask's nannies end processes for."""
    monkeypatch.setattr(
        client.cluster.scheduler, "allowed_failures", 0
    )  # workers that one task may take; Dask's own: 3
    with refused(
        ek.ResourceError, "worker-lost", "cannot go on with dying: a worker is gone (KilledWorker: ", "memory"
    ):
        list(chosen(client, None, nobody).map(Dies(), Items(["0"]), "dying"))


@slow
def test_a_local_cluster_listens_on_this_machine_alone(stores: list[Path]) -> None:
    """R22, X34: whoever reaches a scheduler can run code."""
    found = set[str]()

    def look(told: Progress) -> None:
        if told.done == 1:
            found.update(listening([os.getpid(), *processes(1, os.getpid())]))

    with dask.cluster("local", 1) as here:
        ek.Ensemble(stores).vote(0.4, executor=here, listener=look)
    assert found == {"0100007F"}


@slow
def test_what_stands_for_a_cluster(client: Client, stores: list[Path]) -> None:
    from distributed import Client

    ens = ek.Ensemble(stores)
    assert ens.vote(0.4, executor=client.get_executor()) == ens.vote(0.4, jobs=1)
    with refused(ek.UsageError, "argument-kind", "LocalCluster", "pass a distributed.Client"):
        ens.vote(0.4, executor=client.cluster)

    async def asynchronous() -> None:
        async with Client(client.scheduler.address, asynchronous=True, set_as_default=False) as other:
            ens.vote(0.4, executor=other)

    with refused(ek.UsageError, "dask-asynchronous", "asynchronous=True"):
        asyncio.run(asynchronous())


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


def other_numba(folder: Path) -> str:
    """A PYTHONPATH where Numba says that it is another version."""
    (folder / "numba-0.1.dist-info").mkdir()
    (folder / "numba-0.1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: numba\nVersion: 0.1\n")
    return os.pathsep.join([str(folder), str(ROOT), os.environ.get("PYTHONPATH", "")])


def works(address: str) -> None:
    """Wait until a task runs on the cluster."""
    from distributed import Client

    until = time.monotonic() + 60
    with Client(address, set_as_default=False) as watching:
        while not any(watching.processing().values()):
            assert time.monotonic() < until
            time.sleep(0.02)


@slow
@pytest.mark.usefixtures("worker")
def test_the_command_works_on_a_cluster_and_a_killed_scheduler_leaves_nothing(
    scheduler: tuple[str, subprocess.Popen[str]], stores: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    monkeypatch.setattr(dask, "_CONNECTING", 1)
    with refused(ek.ResourceError, "dask-unreachable", f"cannot connect to a Dask scheduler: {address}"):
        ensk(*vote[1:])
    assert not there.exists()


@slow
@pytest.mark.usefixtures("worker")
def test_a_scheduler_that_is_killed_in_the_middle_is_named(
    scheduler: tuple[str, subprocess.Popen[str]], large: list[Path], tmp_path: Path
) -> None:
    """And nothing else is said: Dask logs tracebacks of its own."""
    out = tmp_path / "old.csv"
    out.write_text("old")
    ran = command(
        "ensemble_kit", "vote", *large, "--thresholds", 0.4, "--out", out, "--force", "--dask", scheduler[0], "-q"
    )
    works(scheduler[0])
    scheduler[1].kill()
    _, told = ran.communicate(timeout=120)
    wanted = (
        "error[worker-lost] cannot go on with voting: the connection to the scheduler is closed · fix: run it again;"
    )
    assert (ran.returncode, out.read_text()) == (5, "old")
    assert told.startswith(wanted)
    assert told.count("\n") == 1


@slow
def test_a_cluster_whose_last_worker_is_killed_does_not_hang(
    scheduler: tuple[str, subprocess.Popen[str]], large: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = start_worker(scheduler[0], tmp_path)

    def kill(_: Progress) -> None:
        monkeypatch.setattr(dask, "_STARTING", 1)
        process.kill()

    with (
        pytest.raises(ek.ResourceError, match="cannot go on with voting: the cluster has had no worker for 1 s"),
        dask.cluster(scheduler[0]) as there,
    ):
        ek.Ensemble(large).vote(0.4, executor=there, listener=kill)
    process.communicate()


@slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda n: n.name)
def test_a_killed_command_leaves_no_output_and_no_process(number: int, large: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    ran = command(
        "ensemble_kit", "vote", *large, "--thresholds", 0.4, "--out", out, "--dask", "local", "--jobs", 2, "-q",
        start_new_session=True,
    )  # fmt: skip
    while len(processes(3, ran.pid)) < 3 and ran.poll() is None:
        time.sleep(0.05)
    time.sleep(1)  # in the middle of connecting, or of the work
    if number == signal.SIGINT:  # as a terminal sends it
        os.killpg(ran.pid, number)
    else:
        ran.send_signal(number)
    _, told = ran.communicate(timeout=60)
    code, words = {
        signal.SIGTERM: (143, "ended by SIGTERM"), signal.SIGINT: (130, "ended by SIGINT"), signal.SIGKILL: (-9, ""),
    }[number]  # fmt: skip
    assert (ran.returncode, out.exists()) == (code, False)
    assert told.strip() == (f"{words}; run the same command again to continue" if words else "")
    until = time.monotonic() + 30
    while processes(3, ran.pid) and time.monotonic() < until:
        time.sleep(0.1)
    assert processes(3, ran.pid) == []


@slow
@pytest.mark.parametrize("late", [False, True], ids=["at the start", "later"])
def test_workers_of_other_versions_are_refused(
    late: bool, scheduler: tuple[str, subprocess.Popen[str]], stores: list[Path], tmp_path: Path
) -> None:
    """R19: also those that join once the work has begun."""
    from distributed import Client

    first = start_worker(scheduler[0], tmp_path)
    with Client(scheduler[0], set_as_default=False) as client:
        client.wait_for_workers(1)
        executor = chosen(client, None, nobody)
        second = start_worker(scheduler[0], tmp_path, PYTHONPATH=other_numba(tmp_path))
        client.wait_for_workers(2)
        with pytest.raises(ek.MismatchError, match=r"cannot share out work: worker .*: numba 0\.1 there, .* here"):
            ek.Ensemble(stores).vote(0.4, executor=executor if late else client)
    for process in (first, second):
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
