"""Large jobs: very many samples, classes or files, very large images, a greedy selection; each command a process of its own.

    python tests/benchmarks/large.py [--only samples classes plane files greedy] [--quick] [--page docs/performance.md]

Stores and truth are generated, each sample other numbers; those of the greedy selection come from networks. Processor seconds are of all threads, wall time is what a user
waits, and the peak is the system's own figure (VmHWM), with the mapped pages of the stores.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import commands
import numpy as np
import tables
from numpy.typing import NDArray
from scipy.ndimage import zoom

import ensemble_kit as ek

GIGABYTE = 1e9


class Step(NamedTuple):
    """A command of a job, and what it may take: seconds of wall time (None: no bar) and bytes; what limits it."""

    name: str
    words: Sequence[str]
    seconds: float | None = None
    peak: float = GIGABYTE
    limit: str = ""


def smooth(seed: int, classes: int, grid: int, member: int, cells: int = 8) -> NDArray[np.float16]:
    """Draw logits (C, grid, grid) that are sure: blobs that members share, and a little noise of the member's own."""
    size = min(grid, cells)
    blobs = np.random.default_rng(seed).normal(-10, 16, (classes, size, size)).astype(np.float32)
    blobs += np.random.default_rng((seed, member)).normal(0, 0.7, blobs.shape).astype(np.float32)
    return (zoom(blobs, (1, grid / size, grid / size), order=1) if grid > size else blobs).astype(np.float16)


def make(folder: Path, samples: int, classes: int, grid: int, image: int, members: int) -> list[str]:
    """Write members' stores and, as `truth.csv`, masks that differ from every member's; return the stores' names."""
    ids, names = [f"s{k:06}" for k in range(samples)], tuple(f"class {k:04}" for k in range(classes))
    stores = [f"m{m}.zarr" for m in range(members)]
    for m, store in enumerate([*stores, "hidden.zarr"]):
        with ek.LogitWriter(folder / store, names, ids, (grid, grid), activation="sigmoid", member=store[:-5]) as out:
            step = max(1, min(64, 2**24 // (classes * grid * grid)))
            for first in range(0, samples, step):
                group = range(first, min(first + step, samples))
                logits = np.stack([smooth(k, classes, grid, m) for k in group])
                out.write([ids[k] for k in group], logits, (image, image))
    commands.run(["vote", "hidden.zarr", "--out", "truth.csv", "--quiet"], folder)
    return stores


def samples(folder: Path, quick: bool) -> Iterator[Step]:
    """Every command on very many small samples."""
    count = 500 if quick else 50_000
    stores = make(folder, count, 4, 32, 64, 2)
    what = f"{count:,} samples × 4 classes, 32² → 64², two members"
    yield Step(f"inspect, {what}", ["inspect", stores[0]])
    yield Step("verify, one member of the same", ["verify", stores[0]])
    tune = ["tune-thresholds", *stores, "--val", "truth.csv", "--out", "set.json"]
    yield Step("tune-thresholds, the same", tune, 60)
    yield Step("vote to CSV, the same", ["vote", *stores, "--thresholds", "set.json", "--out", "voted.csv"])
    size = ["--image-size", "64x64"]
    yield Step("score, the same", ["score", "voted.csv", "--val", "truth.csv", *size])
    yield Step("convert to PNG, the same", ["convert", "voted.csv", "--out", "png/", *size])


def classes(folder: Path, quick: bool) -> Iterator[Step]:
    """Every command on very many classes."""
    count = 100 if quick else 3_000
    stores = make(folder, 20, count, 32, 64, 2)
    what = f"20 samples × {count:,} classes, 32² → 64², two members"
    tune = ["tune-thresholds", *stores, "--val", "truth.csv", "--out", "set.json", "--memory", "1GB"]
    yield Step(f"tune-thresholds --memory 1GB, {what}", tune, 30)
    yield Step("vote to CSV, the same", ["vote", *stores, "--thresholds", "set.json", "--out", "voted.csv"])
    yield Step("score, the same", ["score", "voted.csv", "--val", "truth.csv", "--image-size", "64x64"])


def plane(folder: Path, quick: bool) -> Iterator[Step]:
    """Every command on one very large image."""
    size, most = (400, 1.5 * GIGABYTE) if quick else (30_000, 1.5 * GIGABYTE)
    stores, image = make(folder, 1, 3, size // 4, size, 2), ["--image-size", f"{size}x{size}"]
    what = f"an image of {size:,}², grid of {size // 4:,}², 3 classes, two members"
    yield Step(f"vote to CSV, {what}", ["vote", *stores, "--out", "voted.csv"], peak=most)
    yield Step("vote to PNG, the same", ["vote", *stores, "--out", "png/"], peak=most)
    tune = ["tune-thresholds", *stores, "--val", "truth.csv", "--out", "set.json"]
    yield Step("tune-thresholds, the same", tune, peak=most)
    ruled = ["vote", *stores, "--thresholds", "set.json", "--out", "ruled.csv"]
    ruled += ["--rule", "drop-small:500", "--rule", "fill-holes", "--rule", "keep-largest"]
    yield Step("vote with three rules, the same", ruled, peak=most)
    yield Step("score these PNGs against the CSV", ["score", "png/", "--val", "truth.csv"], peak=most)
    yield Step("convert PNG to CSV", ["convert", "png/", "--out", "back.csv"], peak=most)
    yield Step("convert CSV to PNG", ["convert", "back.csv", "--out", "again/", *image], peak=most)


def files(folder: Path, quick: bool) -> Iterator[Step]:
    """A file for each mask."""
    count = 20 if quick else 1_000
    stores, image = make(folder, count, 4, 32, 512, 1), ["--image-size", "512x512"]
    commands.run(["vote", *stores, "--out", "voted.csv", "--quiet"], folder)
    yield Step(f"convert CSV to {4 * count:,} PNGs of 512²", ["convert", "voted.csv", "--out", "png/", *image], 4)
    yield Step("convert them to CSV", ["convert", "png/", "--out", "back.csv"])


def greedy(folder: Path, quick: bool) -> Iterator[Step]:
    """A greedy selection among the networks of hands, which are unsure of the bones' borders."""
    import hands

    pictures, truth = hands.images(folder, 2 if quick else 43, 256)
    stores = hands.dump(pictures, folder)
    truth.write(folder / "truth.csv")
    what = f"{len(truth.samples)} samples × {len(truth.classes)} classes, 256² → 256², three networks of hands"
    tune = ["tune-thresholds", *map(str, stores), "--val", "truth.csv", "--out", "set.json"]
    tune += ["--search", "greedy", "--folds", "3"]
    limit = "half is trials of sums over every pixel that members leave undecided, half counting, collecting and truth"
    yield Step(f"tune-thresholds --search greedy --folds 3, {what}", tune, 6, limit=limit)


JOBS: dict[str, Callable[[Path, bool], Iterator[Step]]] = {
    "samples": samples, "classes": classes, "plane": plane, "files": files, "greedy": greedy,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(JOBS), default=list(JOBS))
    parser.add_argument("--quick", action="store_true", help="small inputs")
    parser.add_argument("--page", type=Path, help="its table between the marks is replaced")
    options = parser.parse_args()
    lines = ["| command | wall | processor | peak | bar |", "|---|---:|---:|---:|---|"]
    for job in options.only:
        with tempfile.TemporaryDirectory() as folder:
            for step in JOBS[job](Path(folder), options.quick):
                began = time.perf_counter()
                taken = commands.run([*step.words, "--quiet"], Path(folder))
                wall = time.perf_counter() - began
                lines.append(line(step, wall, taken))
                print(lines[-1], flush=True)
    if options.page:
        tables.put(options.page, "large", "\n".join(lines) + "\n")


def line(step: Step, wall: float, taken: commands.Taken) -> str:
    """Write a row, with what it misses of its bar."""
    bar = (f"{step.seconds:.0f} s, " if step.seconds else "") + f"{step.peak / GIGABYTE:g} GB"
    missed = (step.seconds is not None and wall > step.seconds) or taken.peak > step.peak
    figures = f"{wall:.1f} s | {taken.seconds:.1f} s | {taken.peak / GIGABYTE:.2f} GB"
    told = "; **missed**" + (f": {step.limit}" if step.limit else "") if missed else ""
    return f"| {step.name} | {figures} | {bar}{told} |"


if __name__ == "__main__":
    main()
