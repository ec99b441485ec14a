"""Volumes beside votes: thresholds and factors from exact counts, cases imported from nnU-Net, votes by integers.

Rivals score one vector of thresholds or factors on fused scores that lie in memory already; we start from the stores and
find the best of all. Memory is what the process has of its own above what it had before, at most.
"""

from __future__ import annotations

import ctypes
import gc
import json
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jobs
import nibabel
import numpy as np
import rivals
from factors import trials
from measure import Bar
from nnunet_commands import AFFINE, probabilities
from numpy.typing import NDArray
from volume_votes import CLASSES, FOLDS, Size, as_text, exclusive_rivals, in_memory, logits_of

import ensemble_kit as ek
from ensemble_kit.dumping.nnunet import dump_nnunet
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.scores.fusing import open_sample
from ensemble_kit.scores.inputs import Inputs
from ensemble_kit.spec.geometry import Placement
from ensemble_kit.spec.mean import Mean

VOLUMES = 20
EXACT = "every voxel of every class is evaluated"
DOUBTED = "voxels that no class has for certain are evaluated in integers"


def rows(scale: jobs.Scale) -> jobs.Rows:
    """Measure both searches, an import, and votes that evaluate in integers what is doubted."""
    full = scale.plane >= jobs.Scale().plane
    grid, image = ((24, 64, 64), (48, 128, 128)) if full else ((4, 32, 32), (8, 64, 64))
    yield from searches(scale, grid, image, VOLUMES if full else 2)
    yield imported(scale, (50, 256, 256) if full else (4, 40, 48), CLASSES if full else 4)
    yield from doubted(scale, *(((50, 128, 128), (100, 256, 256)) if full else (grid, image)))


# --- thresholds and factors ----------------------------------------------------------------------------------


def searches(scale: jobs.Scale, grid: Size, image: Size, volumes: int) -> jobs.Rows:
    """Measure thresholds of overlapping classes and factors of exclusive ones, from stores to the set."""
    size = f"{volumes} volumes × {CLASSES} classes, {as_text(grid)} fp16 → {as_text(image)}"
    for activation, what in (("sigmoid", "thresholds"), ("softmax", "factors")):
        job = f"exact {what} of {size}"
        if scale.only not in job + scale.tag:
            continue
        with tempfile.TemporaryDirectory() as folder:
            ensemble, truth = tuning_case(Path(folder), grid, image, volumes, activation)

            def ours(ensemble: ek.Ensemble = ensemble, truth: MaskSet = truth) -> float:
                return ek.tune_thresholds(ensemble, truth, jobs=1).score

            ours()
            note = f"{memory_of(ours) / 2**20:.0f} MiB of memory"
            others = search_rivals(ensemble, truth, image, what) if scale.rivals else {}
            yield jobs.measured(scale, job, ours, others, "a search", (), EXACT, note=note)


def tuning_case(folder: Path, grid: Size, image: Size, volumes: int, activation: Any) -> tuple[ek.Ensemble, MaskSet]:
    """Write a store of generated volumes; the truth is what another member sees."""
    names, classes = [f"v{k}" for k in range(volumes)], [f"class {c}" for c in range(CLASSES)]
    masks = {}
    with ek.LogitWriter(folder / "own.zarr", classes, names, grid, activation) as out:
        for k, name in enumerate(names):
            out.write(name, logits_of(grid, CLASSES, 0, k, background=activation == "softmax"), image)
            seen = logits_of(grid, CLASSES, 1, k, background=activation == "softmax")
            inputs = in_memory([seen], image, (), activation)
            found = vote(inputs) if activation == "softmax" else open_sample(inputs, "x").decide(half(inputs))
            masks |= {(name, c): found.mask(i, image) for i, c in enumerate(classes)}
    return ek.Ensemble([folder / "own.zarr"]), MaskSet(masks)


def vote(inputs: Inputs) -> Any:
    return open_sample(inputs, "x").winners([65536] * len(inputs.classes))


def half(inputs: Inputs) -> dict[int, int]:
    return dict.fromkeys(range(len(inputs.classes)), 32768)


def search_rivals(ensemble: ek.Ensemble, truth: MaskSet, image: Size, what: str) -> dict[str, Callable[[], Any]]:
    """Score one vector on the first volume, times the number of volumes."""
    name, rows_of_all = ensemble.samples[0], image[0] * image[1]
    fused = (open_sample(ensemble.inputs, name).values(0, rows_of_all) / 65536).astype(np.float32)
    drawn = np.stack([truth[name, c].decode().reshape(rows_of_all, image[2]) for c in truth.classes])
    if what == "factors":
        one = trials(fused, drawn.argmax(0))
        return {n: rivals.scaled(job, len(ensemble.samples) * getattr(job, "factor", 1)) for n, job in one.items()}

    def score() -> float:
        on = fused >= 32768
        hits, sizes = (on & drawn).sum((1, 2)), on.sum((1, 2)) + drawn.sum((1, 2))
        return float((2 * hits / np.maximum(sizes, 1)).mean())

    n = len(ensemble.samples)
    return {"NumPy, one trial": rivals.scaled(score, n)}


def memory_of(job: Callable[[], Any]) -> int:
    """Run a job, and return by how much the process's own memory grows meanwhile, at most, in bytes."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed before would be taken again, and not be seen
    before, most, done = own_memory(), 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.is_set():
            most = max(most, own_memory())
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        job()
    finally:
        done.set()
        watcher.join()
    return max(0, most - before)


def own_memory() -> int:
    """Anonymous memory of this process in bytes."""
    text = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("RssAnon")) * 1024


# --- import --------------------------------------------------------------------------------------------------


def imported(scale: jobs.Scale, size: Size, heads: int) -> Any:
    """Measure the import of a compressed case of probabilities, beside `np.load` of it."""
    job = f"import of a compressed nnU-Net case: {heads} × {as_text(size)} float32 → a store"
    if scale.only not in job + scale.tag:
        return None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        p, _ = probabilities(size, heads, 0)
        np.savez_compressed(folder / "case.npz", probabilities=p)
        nibabel.save(nibabel.Nifti1Image(p.argmax(0).astype(np.uint8).T, AFFINE), folder / "case.nii.gz")
        labels = {"background": 0} | {f"organ_{k}": k for k in range(1, heads)}
        (folder / "dataset.json").write_text(json.dumps({"labels": labels, "file_ending": ".nii.gz"}))
        values = p.nbytes
        del p

        def ours() -> Any:
            return list(dump_nnunet(folder, str(folder / "out.zarr"), force=True, jobs=1))

        def load() -> Any:
            with np.load(folder / "case.npz") as file:
                return file["probabilities"]

        ours()
        note = f"{memory_of(ours) / 2**20:.0f} MiB of memory, np.load {memory_of(load) / 2**20:.0f}"
        bars = (Bar("times", 0.5, "np.load"),)
        limit = "all classes but one are decoded twice: they follow each other in the file, and lie together in a store"
        return jobs.measured(
            scale, job, ours, {"np.load": load}, "a case", bars, limit, reading=None, read_bytes=values, note=note
        )


# --- doubted voxels ------------------------------------------------------------------------------------------


def doubted(scale: jobs.Scale, grid: Size, image: Size) -> jobs.Rows:
    """Measure other windows than each other's, means of powers, thresholds of exclusive classes."""
    size = f"{FOLDS} folds × {CLASSES} exclusive classes × {as_text(grid)} fp16 → {as_text(image)}"
    logits = [logits_of(grid, CLASSES, m) for m in range(FOLDS)]
    whole = in_memory(logits, image, (), "softmax")
    halves = half(whole)
    powers = replace(whole, fusion=replace(whole.fusion, mean=Mean.of("power:0.5")))
    own: dict[str, Callable[[], Any]] = {
        "argmax of a volume, two windows": partial(vote, windowed(whole, logits, image)),
        "argmax of a volume, mean='power:0.5'": partial(vote, powers),
        "thresholds of a volume": lambda: open_sample(whole, "x").decide(halves),
    }
    for name, ours in own.items():
        others = exclusive_rivals(logits, image, ()) if scale.rivals else {}
        slices = {n: job for n, job in others.items() if n == "torch, slice by slice"}
        bars = (Bar("times", 3, "torch"),)
        yield jobs.measured(
            scale, f"{name}: {size}", ours, slices, "a volume", bars, DOUBTED, read=logits,
            note="torch: argmax of whole members, mean of probabilities",
        )  # fmt: skip


def windowed(inputs: Inputs, logits: Sequence[NDArray[np.float16]], image: Size) -> Inputs:
    """Let every second member see all but a margin of an eighth on each side."""
    low, high = [n // 8 for n in image], [n - n // 8 for n in image]
    own = []
    for k, (member, z) in enumerate(zip(inputs.members, logits, strict=True)):
        place = Placement.of(z.shape[1:], image, window=(*low, *high) if k % 2 else None)
        own.append(type(member)(member.member, member.classes, {"x": z}, {"x": place}, "softmax"))
    return replace(inputs, members=tuple(own))
