"""The jobs that begin with stores on disk: hot and cold, up to counts, and up to a CSV by the API and by `ensk vote`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import inputs
import jobs
import numpy as np
import rivals
from measure import Bar, after_eviction, files_reader
from numpy.typing import NDArray

import ensemble_kit as ek
from ensemble_kit.execution.executor import Threads
from ensemble_kit.tuning.statistics import count

ENSK = "from ensemble_kit.cli.app import main; main()"
REPEATS = 4  # each different sample stands in a store that many times


def rows(scale: jobs.Scale) -> jobs.Rows:
    with tempfile.TemporaryDirectory(prefix="ensk-bench-") as folder:
        yield from store_rows(scale, Path(folder, "grid"))
        yield from vote_rows(replace(scale, seconds=3 * scale.seconds), Path(folder, "plane"))


def write_stores(folder: Path, scale: jobs.Scale, members: int, plane: int) -> list[Path]:
    """Write members of bones; a sample's logits stand in a store `REPEATS` times under different names."""
    classes = [f"bone {c}" for c in range(scale.classes)]
    different = max(1, scale.samples // 2)
    names = [f"s{k:03}.png" for k in range(different * REPEATS)]
    paths = [folder / f"m{m}.zarr" for m in range(members)]
    grid = (scale.grid, scale.grid)
    writers = [ek.LogitWriter(p, classes, names, grid, member=p.stem) for p in paths]
    for seed in range(different):
        for writer, logits in zip(
            writers, inputs.bone_logits(members, scale.classes, scale.grid, seed=seed), strict=True
        ):
            for name in names[seed::different]:
                writer.write(name, logits, (plane, plane))
    for writer in writers:
        writer.close()
    return paths


def chunk_files(paths: Sequence[Path]) -> list[Path]:
    return sorted(f for p in paths for f in (p / "logits").iterdir() if f.is_file() and f.name.startswith("c"))


# --- store → counts ------------------------------------------------------------------------------------------


def store_rows(scale: jobs.Scale, folder: Path) -> jobs.Rows:
    members = min(scale.members, 4)
    paths = write_stores(folder, scale, members, scale.grid)
    files, cores = chunk_files(paths), len(os.sched_getaffinity(0))
    kept = ek.Ensemble(paths, upsample="scores")
    truth, bands = moved_votes(kept), dict.fromkeys(range(len(kept.classes)), jobs.BAND)
    samples, size = len(kept.samples), sum(f.stat().st_size for f in files)
    label = f"{members} stores → fused → counts by level, {scale.classes} × {scale.grid}²"

    def counted(ensemble: ek.Ensemble, threads: int = 1) -> Any:
        return count(ensemble, truth, bands, Threads(threads))

    def opened() -> ek.Ensemble:
        return ek.Ensemble(paths, upsample="scores")

    in_memory = ek.Ensemble([InMemory(p) for p in paths], upsample="scores")
    others = {
        "the same kernel, arrays in memory": lambda: counted(in_memory),
        "zarr + our kernel": lambda: counted(ek.Ensemble([ThroughZarr(p) for p in paths], upsample="scores")),
        "zarr + NumPy": rivals.scaled(lambda: numpy_counts(paths, truth, kept.samples[:1]), samples),
    }
    bar = Bar("times", 0.7, "the same kernel")
    limit = "the first read verifies every byte where it lies, so a sample passes from memory twice"
    common: dict[str, Any] = {"unit": "a sample", "per": samples, "read_bytes": size}
    yield jobs.measured(
        scale, f"{label}, hot, stores opened anew", lambda: counted(opened()), others,
        bars=[bar], limit=limit, reading=files_reader(files, 1), **common,
    )  # fmt: skip
    yield jobs.measured(
        scale, f"{label}, hot, read before", lambda: counted(kept),
        {name: others[name] for name in list(others)[:1]}, bars=[bar], reading=files_reader(files, 1), **common,
    )  # fmt: skip
    cold = {
        "zarr + our kernel": after_eviction(
            lambda: counted(ek.Ensemble([ThroughZarr(p) for p in paths], upsample="scores"), cores), files
        )
    }
    yield jobs.measured(
        scale, f"{label}, cold, all cores", after_eviction(lambda: counted(opened(), cores), files), cold,
        bars=[Bar("reads", 1.1)], limit="what is read is verified and counted too", clock="wall",
        reading=files_reader(files, cores, cold=True), **common,
    )  # fmt: skip
    shutil.rmtree(folder)


def moved_votes(ensemble: ek.Ensemble) -> ek.MaskSet:
    """Truth that differs from the ensemble at boundaries: its masks at 0.4, a pixel to the right."""
    masks = ensemble.vote(0.4)
    return ek.MaskSet({key: ek.encode(np.roll(r.decode(), 1, axis=1)) for key, r in masks.items()})


class InMemory(ek.LogitStore):
    """A store whose logits are read once and kept."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._kept = {s: super(InMemory, self).read(s).copy() for s in self.samples}

    def read(self, sample: str, out: Any = None) -> NDArray[np.float16]:
        return self._kept[sample]


class ThroughZarr(ek.LogitStore):
    """A store that zarr's own reader reads."""

    def __init__(self, path: Path) -> None:
        import zarr

        super().__init__(path)
        self._array = zarr.open_group(path, mode="r")["logits"]
        self._row = {s: k for k, s in enumerate(self.samples)}

    def read(self, sample: str, out: Any = None) -> NDArray[np.float16]:
        return self._array[self._row[sample]]


def numpy_counts(paths: Sequence[Path], truth: ek.MaskSet, samples: Sequence[str]) -> list[NDArray[np.int64]]:
    """Count pixels and truth pixels by level as people write it: zarr, sigmoids, their mean, histograms."""
    import zarr

    arrays = [zarr.open_group(p, mode="r")["logits"] for p in paths]
    out = []
    for k, sample in enumerate(samples):
        mean = np.mean([1 / (1 + np.exp(-a[k].astype(np.float32))) for a in arrays], axis=0)
        levels = (mean * 65535 + 0.5).astype(np.uint16)
        for plane, name in zip(levels, truth.classes, strict=True):
            mask = truth[sample, name].decode()
            out += [np.bincount(plane.reshape(-1), minlength=65536), np.bincount(plane[mask], minlength=65536)]
    return out


# --- store → CSV ---------------------------------------------------------------------------------------------


def vote_rows(scale: jobs.Scale, folder: Path) -> jobs.Rows:
    paths = write_stores(folder, scale, scale.members, scale.plane)
    files, cores, out = chunk_files(paths), len(os.sched_getaffinity(0)), folder / "out.csv"
    ensemble = ek.Ensemble(paths)
    samples, size, plane = ensemble.samples, sum(f.stat().st_size for f in files), (scale.plane, scale.plane)
    label = f"{scale.members} stores of {scale.classes} × {scale.grid}² → CSV at {scale.plane}², {len(samples)} samples"

    def by_api() -> None:
        ek.Ensemble(paths).vote(0.5).write(out, "handbone")

    def by_process() -> None:
        options = ["--soft", "-q", "--thresholds", "0.5", "--out", str(out), "--force"]
        subprocess.run([sys.executable, "-c", ENSK, "vote", *map(str, paths), *options], check=True)

    others: dict[str, Any] = {}
    if rivals.optional("torch"):
        others["zarr + torch, class by class"] = rivals.scaled(lambda: torch_vote(paths, plane), len(samples))
    for name, job in (("the public API", by_api), ("an `ensk vote` process", by_process)):
        for cold in (False, True):
            yield jobs.measured(
                scale, f"{label}, by {name}, {'cold' if cold else 'hot'}, all cores",
                after_eviction(job, files) if cold else job, {} if cold else others, "a sample",
                reading=files_reader(files, cores, cold), read_bytes=size, per=len(samples), clock="wall",
            )  # fmt: skip


def torch_vote(paths: Sequence[Path], plane: tuple[int, int]) -> None:
    """Vote on one sample with zarr and torch, class by class and with all cores."""
    import torch
    import zarr

    members = [zarr.open_group(p, mode="r")["logits"][0] for p in paths]
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    try:
        rivals.soft_rivals(members, plane, "logits", rivals.tuned_text)["torch, class by class"]()
    finally:
        torch.set_num_threads(1)
