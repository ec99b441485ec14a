"""Work in pools of `concurrent.futures` and in jobs of a batch system: order, progress, errors, what is lost."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ensemble_kit as ek
from conftest import smooth_logits, write_store
from ensemble_kit.execution import task
from ensemble_kit.execution.events import Progress
from ensemble_kit.execution.executor import Item, Items
from ensemble_kit.execution.futures import Futures
from trying import refused

ROOT = Path(__file__).parent.parent
slow = pytest.mark.slow


class Noted:
    """A work that returns the sample's id, doubled."""

    def __call__(self, item: Item) -> str:
        return item.sample * 2


class Fails:
    """A work that fails as a damaged store does."""

    def __call__(self, item: Item) -> str:
        raise ek.DamagedError("sample-damaged", "cannot read", item=item.sample, fix="dump it again")


class Dies:
    """A work that kills its process."""

    def __call__(self, item: Item) -> str:
        os.kill(os.getpid(), signal.SIGKILL)
        return item.sample


@contextmanager
def processes(workers: int = 1) -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        yield pool


@pytest.mark.parametrize("count", [0, 1, 7, 300])
@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_the_order_of_the_items(count: int, workers: int) -> None:
    ids, told = [str(k) for k in range(count)], list[Progress]()
    with ThreadPoolExecutor(workers) as pool:
        assert list(Futures(pool).map(Noted(), Items(ids), "noting", told.append)) == [i * 2 for i in ids]
    assert [p.done for p in told] == list(range(count + 1))
    assert sorted(str(p.sample) for p in told[1:]) == sorted(ids)


def test_progress_moves_although_the_first_task_is_slow() -> None:
    others, ids = threading.Event(), [str(k) for k in range(8)]

    def first_waits(item: Item) -> str:
        assert item.sample != "0" or others.wait(60)
        return item.sample

    def hear(told: Progress) -> None:
        if told.done == 5:
            others.set()

    with ThreadPoolExecutor(2) as pool:
        assert list(Futures(pool).map(first_waits, Items(ids), "waiting", hear)) == ids


def test_tasks_are_coarse_and_follow_a_pool_that_grows() -> None:
    """At most four tasks a worker, and smaller ones once there are more workers."""
    seen, ids = list[int](), [str(k) for k in range(64)]

    class Counted(ThreadPoolExecutor):
        def submit(self, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> Any:
            seen.append(len(arguments[1]))
            return super().submit(function, *arguments, **options)

    with Counted(1) as pool:
        assert list(Futures(pool, 2).map(Noted(), Items(ids), "noting")) == [i * 2 for i in ids]
    assert seen == [8] * 8
    seen.clear()
    with Counted(1) as pool:
        list(Futures(pool, lambda: 1 if len(seen) < 2 else 4).map(Noted(), Items(ids * 5), "noting"))
    assert (seen[:4], sum(seen), max(seen[4:])) == ([64] * 4, 320, 20)
    seen.clear()
    with Counted(1) as pool:
        list(Futures(pool, 64).map(Noted(), Items(ids * 50), "noting"))
    assert seen == [4] * 800


class Opens:
    """A work that is slow to open, and counts how often it is."""

    opened = 0

    def __getstate__(self) -> dict[str, int]:
        return {"id": id(self)}

    def __setstate__(self, _: object) -> None:
        time.sleep(0.05)
        Opens.opened += 1

    def __call__(self, item: Item) -> str:
        return item.sample


def test_threads_of_a_worker_open_work_once() -> None:
    packed = task.pack(Opens())
    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(task.run, packed, [Item(str(k))], task.versions()) for k in range(8)]
        assert [r.result() for r in running] == [[str(k)] for k in range(8)]
    assert Opens.opened == 1


def test_an_error_of_the_work_is_raised_and_the_rest_is_called_off() -> None:
    with ThreadPoolExecutor(1) as pool, pytest.raises(ek.DamagedError, match="cannot read: 0 ·"):
        list(Futures(pool).map(Fails(), Items(["0", "1"]), "failing"))


def test_an_error_names_the_machine() -> None:
    """It is returned, so that no other try follows; that of a disk or a network is raised, so that one does."""
    found = task.run(task.pack(Fails()), [Item("0")], task.versions())
    assert isinstance(found, ek.DamagedError)
    assert (found.code, found.item, found.fix) == ("sample-damaged", f"0 (on {socket.gethostname()})", "dump it again")
    with refused(ek.MismatchError, "worker-versions", f"worker {socket.gethostname()}: numba", "there, 0.1 here"):
        raise task.run(task.pack(Fails()), [Item("0")], task.versions() | {"numba": "0.1"})  # type: ignore[misc]
    unknown = pickle.dumps(Noted()).replace(b"Noted", b"Nowhr")
    with refused(ek.MismatchError, "work-unknown", "Nowhr", f"(on {socket.gethostname()})"):
        raise task.run(unknown, [Item("0")], task.versions())  # type: ignore[misc]


@slow
def test_a_pool_that_is_lost_is_named() -> None:
    with (
        processes() as pool,
        pytest.raises(ek.ResourceError, match=r"cannot go on with dying: a worker is gone \(BrokenProcessPool"),
    ):
        list(Futures(pool).map(Dies(), Items(["0"]), "dying"))


def one_store(folder: Path, seed: int) -> Path:
    logits = {f"s{k}": smooth_logits(np.random.default_rng(seed), (2, 8, 8)) for k in range(3)}
    write_store(folder / "a.zarr", logits, (20, 20), ("x", "y"), member="a")
    return folder / "a.zarr"


@slow
def test_a_store_that_is_not_the_same_where_the_work_runs_is_named(tmp_path: Path) -> None:
    """A path that leads nowhere there, or to another store: never an answer of other logits."""
    ens = ek.Ensemble([one_store(tmp_path, 1)])
    shutil.rmtree(tmp_path / "a.zarr")
    host = re.escape(socket.gethostname())
    with processes() as pool:
        with pytest.raises(ek.ResourceError, match=rf"a\.zarr does not exist there \(on {host}\) · fix: let its path"):
            ens.vote(0.5, executor=pool)
        one_store(tmp_path, 2)
        with pytest.raises(
            ek.MismatchError, match=rf"a\.zarr has the fingerprint .* \(on {host}\) · fix: let its path"
        ):
            ens.vote(0.5, executor=pool)
        again = ek.Ensemble([tmp_path / "a.zarr"])
        assert again.vote(0.5, executor=pool) == again.vote(0.5, jobs=1)


@slow
def test_a_kept_store_that_is_written_again_gives_its_new_logits(tmp_path: Path) -> None:
    with processes() as pool:
        votes = []
        for seed in (1, 2):
            shutil.rmtree(tmp_path / "a.zarr", ignore_errors=True)
            ens = ek.Ensemble([one_store(tmp_path, seed)])
            votes.append(ens.vote(0.5, executor=pool))
            assert votes[-1] == ens.vote(0.5, jobs=1)
    assert votes[0] != votes[1]


@slow
def test_what_a_script_defines_is_sent_by_its_code(tmp_path: Path) -> None:
    """As in a notebook: a decision of `__main__`, in processes that know another `__main__`."""
    one_store(tmp_path, 1)
    (tmp_path / "script.py").write_text("""
import sys
from dataclasses import dataclass
import ensemble_kit as ek
from toy_decision import Brightest

@dataclass(frozen=True)
class Mine(Brightest):
    pass

if __name__ == "__main__":
    from joblib.externals.loky import get_reusable_executor
    ens = ek.Ensemble(["a.zarr"])
    assert ens.vote(Mine(0.2), executor=get_reusable_executor(2)) == ens.vote(Mine(0.2), jobs=1)
""")
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}, capture_output=True,
        text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@slow
def test_jobs_of_a_batch_system(tmp_path: Path) -> None:
    """Of submitit, whose executors and jobs only resemble those of `concurrent.futures`."""
    import submitit

    ids = ["0", "1"]
    system = submitit.AutoExecutor(tmp_path / "logs", cluster="local")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]))
        assert list(Futures(system, 1).map(Noted(), Items(ids), "noting")) == [i * 2 for i in ids]
        with pytest.raises(ek.DamagedError, match="cannot read: 0 "):
            list(Futures(system, 1).map(Fails(), Items(["0"]), "failing"))
        with pytest.raises(ek.ResourceError, match="cannot go on with dying: a job failed: "):
            list(Futures(system, 1).map(Dies(), Items(["0"]), "dying"))
