"""What threads, a pool of processes and a Dask cluster cost against one another on this machine.

Prints the table of docs/scale.md: a vote and a tuning of 60 samples, 3 members, 29 classes, 256² → 1024². The ways take
turns, and the shortest of some turns counts, since other work on the machine only ever adds; beside it stands the
processor time of all processes. They are started and warmed (kernels loaded, stores opened) before the turns; how long
that takes is a column of its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import inputs
import numpy as np

import ensemble_kit as ek
from ensemble_kit.execution.executor import Threads

CLASSES = [f"bone {c}" for c in range(29)]


def write(folder: Path, samples: int, grid: int, size: int) -> tuple[ek.Ensemble, ek.MaskSet]:
    """Write three stores; the truth is what a fourth member decides."""
    drawn = [inputs.bone_logits(4, len(CLASSES), grid, seed=k) for k in range(min(samples, 6))]
    names = [f"s{k}" for k in range(samples)]
    for m in range(4):
        store = folder / f"{m}.zarr"
        with ek.LogitWriter(store, classes=CLASSES, samples=names, grid=(grid, grid), member=f"m{m}") as out:
            for k, name in enumerate(names):
                moved = np.roll(drawn[k % len(drawn)][m], k // len(drawn), axis=2)
                out.write(name, moved, image_size=(size, size))
    return ek.Ensemble([folder / f"{m}.zarr" for m in range(3)]), ek.Ensemble([folder / "3.zarr"]).vote(0.5)


def processor_time() -> float:
    """Seconds of this process and of all that it started."""
    parents, ticks = dict[int, int](), dict[int, int]()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            parents[int(process.name)], ticks[int(process.name)] = int(fields[1]), int(fields[11]) + int(fields[12])

    def ours(pid: int) -> bool:
        return pid == os.getpid() or (pid in parents and ours(parents[pid]))

    return sum(own for pid, own in ticks.items() if ours(pid)) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="six small samples")
    options = parser.parse_args()
    from distributed import LocalCluster

    shape = (6, 64, 256) if options.quick else (60, 256, 1024)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        ensemble, truth = write(Path(folder), *shape)

        def dask() -> Any:
            own = {"n_workers": options.workers, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
            return stack.enter_context(stack.enter_context(LocalCluster(**own)).get_client())

        def pool() -> Any:
            context = multiprocessing.get_context("spawn")
            return stack.enter_context(ProcessPoolExecutor(options.workers, context))

        jobs: dict[str, Callable[[Any], object]] = {
            "vote": lambda where: ensemble.vote(0.5, executor=where),
            "tune": lambda where: ek.tune_thresholds(ensemble, truth, executor=where),
        }
        ways: dict[str, Callable[[], Any]] = {
            "one thread": lambda: Threads(1), f"{options.workers} threads": lambda: Threads(options.workers),
            f"pool of {options.workers} processes": pool, f"Dask, {options.workers} processes": dask,
        }  # fmt: skip
        for job in jobs.values():  # kernels are compiled, files are in memory
            job(Threads(1))
        executors, started = {}, {}
        for name, start in ways.items():
            begin = time.perf_counter()
            executors[name] = start()
            jobs["vote"](executors[name])
            started[name] = time.perf_counter() - begin
        best = {(name, job): (float("inf"), float("inf")) for name in ways for job in jobs}
        for _ in range(options.turns):
            for name, job in list(best):
                begin, before = time.perf_counter(), processor_time()
                jobs[job](executors[name])
                taken, used = time.perf_counter() - begin, processor_time() - before
                best[name, job] = min(best[name, job][0], taken), min(best[name, job][1], used)
    print("| where | start and first vote | vote | its processor time | tune | its processor time |")
    print("|---|---|---|---|---|---|")
    for name in ways:
        cells = [f"{seconds:.2f} s" for job in jobs for seconds in best[name, job]]
        print(f"| {' | '.join([name, f'{started[name]:.1f} s', *cells])} |")


if __name__ == "__main__":
    main()
