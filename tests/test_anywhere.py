"""The same bytes wherever the work runs: sets, statistics, CSVs, mask files, label maps and reviews.

`WAYS` is the table: each way takes a `Case` and a folder, and writes its answers there. The first is one thread; all
others must write its bytes. The Dask cluster has two processes, and loses one while it works.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest

import ensemble_kit as ek
from conftest import smooth_logits, write_store
from ensemble_kit.execution.choosing import Given, chosen
from ensemble_kit.execution.events import nobody
from ensemble_kit.recipes.tune import measure_of
from ensemble_kit.recipes.tuning import Tuning
from ensemble_kit.remote.objects import Objects
from ensemble_kit.spec.scoring import Measure
from trying import ensk

if TYPE_CHECKING:
    from distributed import LocalCluster

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow


class Case(NamedTuple):
    """Stores with a truth, stores to vote over, and what their masks are written as."""

    val: list[Path]
    truth: Path
    test: list[Path]
    out: str


def demo(folder: Path) -> Case:
    """The stores that `ensk demo` dumps, and its real images' masks."""
    val, test = (
        [ROOT / f"tests/golden/{n}_{part}.zip" for n in ("unet", "fpn", "dilated")] for part in ("val", "test")
    )
    return Case(val, ROOT / "ensemble_kit/demo/data/val/masks", test, "masks.csv")


def hands(folder: Path) -> Case:
    """Generated hands, 29 bones that overlap, and two members that err at boundaries as networks do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "examples/hand_bones"))
        from hand_bones.generator import generate
        from hand_bones.layout import read_layout
        from hand_bones.truth import truth_masks
    generate(folder / "data", people=4, size=256)
    truth, rng = truth_masks(read_layout(folder / "data", "train")), np.random.default_rng(5)
    truth.write(folder / "truth.csv", format="handbone")
    stores = []
    for name in ("a", "b"):
        logits = {}
        for sample in truth.samples:
            share = np.stack([truth[sample, c].decode().reshape(64, 4, 64, 4).mean((1, 3)) for c in truth.classes])
            logits[sample] = (12 * share - 6 + smooth_logits(rng, (29, 64, 64), 1.0)).astype(np.float16)
        stores.append(folder / f"{name}.zarr")
        write_store(stores[-1], logits, (256, 256), truth.classes, member=name)
    return Case(stores, folder / "truth.csv", stores, "masks.npz")


def softmax(folder: Path) -> Case:
    """Exclusive classes, whose factors of argmax are tuned, as label maps."""
    rng, classes = np.random.default_rng(3), ("background", "liver", "spleen")
    stores = []
    for name in ("a", "b"):
        logits = {f"s{k:02}": 3 * smooth_logits(rng, (3, 24, 28)) for k in range(16)}
        stores.append(folder / f"{name}.zarr")
        write_store(stores[-1], logits, (60, 70), classes, member=name, activation="softmax")
    ek.Ensemble(stores).vote(ek.Argmax({"liver": 1.4, "spleen": 0.7})).write(folder / "truth", format="label-map")
    return Case(stores, folder / "truth", stores, "maps")


CASES = (demo, hands, softmax)


@pytest.fixture(scope="module", params=CASES, ids=[c.__name__ for c in CASES])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    found: Case = request.param(tmp_path_factory.mktemp(request.param.__name__))
    return found


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    """Start a cluster for one test: it loses a worker, and would lose the next one while it starts that anew."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0", memory_limit=0
    ) as found:
        yield found


def shell(case: Case, out: Path, *options: object) -> None:
    """Tune, vote and review by the command line."""
    written = "--format", "label-map"
    tune = "--val", case.truth, "--statistics", out / "counts.npz", "--out", out / "set.json"
    ensk("tune-thresholds", *case.val, *tune, "-q", *options)
    vote = "--thresholds", out / "set.json", "--out", out / case.out
    ensk("vote", *case.test, *vote, *(written if case.out == "maps" else ()), "-q", *options)
    ensk("review", *case.test, "--thresholds", out / "set.json", "--out", out / "review.csv", "-q", *options)


def python(case: Case, out: Path, executor: Given = None, jobs: int | None = None) -> None:
    """Tune, vote and review in Python, as the commands do."""
    ensemble, exclusive = ek.Ensemble(case.val), case.out == "maps"
    truth = ek.read_masks(
        case.truth,
        classes=ensemble.classes,
        image_size={s: ensemble.members[0].image_size(s) for s in ensemble.samples},
    )
    measure = measure_of(exclusive, None, None, 0.0, None)
    assert isinstance(measure, Measure)
    where = chosen(executor, jobs, nobody)
    tuned = Tuning(ensemble, measure, "auto").run(truth, None, lambda counts: counts.save(out / "counts.npz"), where)
    tuned.set.save(out / "set.json")
    found = ek.Ensemble(case.test).as_tuned(tuned.set)
    masks = found.vote(tuned.set, jobs=jobs, executor=executor)
    masks.write(out / case.out, format="label-map" if exclusive else None)
    found.review(tuned.set, jobs=jobs, executor=executor).write(out / "review.csv")


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as found:
        yield found


@contextmanager
def loses_a_worker(cluster: LocalCluster) -> Iterator[None]:
    """Kill a worker of two as soon as it has a task."""
    killed: list[int] = []
    nannies = cluster.workers

    def kill() -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until and not killed:
            for worker in list(cluster.scheduler.workers.values()):
                if worker.processing and (pid := nannies[worker.name].pid):
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
                    return
            time.sleep(0.0005)

    thread = threading.Thread(target=kill)
    thread.start()
    yield
    thread.join()
    assert killed


def dask_python(case: Case, out: Path, cluster: LocalCluster) -> None:
    with cluster.get_client() as client, loses_a_worker(cluster):
        client.wait_for_workers(2)
        python(case, out, client)


def dask_shell(case: Case, out: Path, cluster: LocalCluster) -> None:
    with loses_a_worker(cluster):
        shell(case, out, "--dask", cluster.scheduler_address)


def parts(case: Case, out: Path) -> None:
    """Tune and vote by three parts each, done in no order, merge them, and tune with what is merged."""
    counts, masks = out / "counts.npz", out / case.out
    tune = ["tune-thresholds", *case.val, "--val", case.truth, "-q", "--statistics", counts]
    vote = ["vote", *case.test, "--thresholds", out / "set.json", "-q"]
    vote += ["--format", "label-map"] if case.out == "maps" else []
    for k in (3, 1, 2):
        ensk(*tune, "--part", f"{k}/3")
    ensk("merge", counts, "--out", counts)
    ensk(*tune, "--out", out / "set.json")
    for k in (2, 3, 1):
        ensk(*vote, "--out", masks, "--part", f"{k}/3")
    ensk("merge", masks, "--out", masks)
    for path in out.glob("*.part-*"):
        path.unlink()
    ensk("review", *case.test, "--thresholds", out / "set.json", "--out", out / "review.csv", "-q")


def object_storage(case: Case, out: Path, base: str) -> None:
    """Tune, vote and review by the command line on stores that were copied to a bucket, and the truth if it is a file."""
    bucket = Objects(base)

    def copied(path: Path) -> str:
        folder = path
        if path.suffix == ".zip":
            folder = out / "unpacked" / path.stem
            shutil.unpack_archive(path, folder)
        files = [p for p in folder.rglob("*") if p.is_file()] if folder.is_dir() else [folder]
        for file in files:
            name = file.relative_to(folder) if folder.is_dir() else ""
            bucket.put(f"{path.name.replace('.zip', '.zarr')}/{name}".rstrip("/"), file.read_bytes())
        return f"{base}/{path.name.replace('.zip', '.zarr')}"

    truth = copied(case.truth) if case.truth.is_file() else case.truth
    there = {path: copied(path) for path in dict.fromkeys([*case.val, *case.test])}
    shutil.rmtree(out / "unpacked", ignore_errors=True)
    shell(Case([there[p] for p in case.val], truth, [there[p] for p in case.test], case.out), out)  # type: ignore[list-item,arg-type]


WAYS: dict[str, Callable[..., None]] = {
    "one thread": partial(python, jobs=1),
    "threads": partial(python, jobs=4),
    "processes": python,
    "dask": dask_python,
    "command, one thread": lambda case, out: shell(case, out, "--jobs", 1),
    "command, dask": dask_shell,
    "command, parts": parts,
    "command, S3": object_storage,
}
"""What must end in the same bytes; a third argument is a pool or a cluster of two processes, or a prefix in a bucket."""
NEEDED = {"processes": "pool", "dask": "cluster", "command, dask": "cluster", "command, S3": "s3"}


def answers(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its name."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def wanted(case: Case, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one thread writes."""
    out = tmp_path_factory.mktemp("one")
    WAYS["one thread"](case, out)
    found = answers(out)
    assert {"set.json", "counts.npz", "review.csv"} < set(found)
    return found


@pytest.mark.parametrize("way", list(WAYS)[1:])
def test_every_way_writes_the_bytes_of_one_thread(
    way: str, case: Case, wanted: dict[str, bytes], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if way == "command, S3":
        pytest.importorskip("obstore")
    more = [request.getfixturevalue(NEEDED[way])] if way in NEEDED else []
    WAYS[way](case, tmp_path, *more)
    found = answers(tmp_path)
    assert list(found) == list(wanted)
    assert [name for name in wanted if found[name] != wanted[name]] == []
