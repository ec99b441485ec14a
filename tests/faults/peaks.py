"""Peaks of memory: every command as a process of its own, projected against measured, at two numbers of samples.

    python tests/faults/peaks.py                              print the table
    python tests/faults/peaks.py --only vote --samples 500 50000

A command is run with `--memory 1MB` and then with what its refusal says it needs, until it runs: that is what it
projects, and its peak is measured within that budget. `figures.py --only memory` writes the table into
docs/reliability.md.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

import ensemble_kit as ek
from ensemble_kit.logits import records
from ensemble_kit.logits.description import describe
from ensemble_kit.logits.records import Record

CLASSES, GRID, DIFFERENT = ("w", "x", "y", "z"), (16, 16), 50
PEAK = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], capture_output=True, text=True)
print(done.returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
sys.stderr.write(done.stderr)
"""
COMMANDS = {
    "vote": "vote a.zarr b.zarr --thresholds 0.5 --out o.csv",
    "vote --like": "vote a.zarr b.zarr --thresholds 0.5 --like val.csv --out o.csv",
    "vote, softmax, .npz": "vote s.zarr t.zarr --format label-map --out o.npz",
    "vote, a folder of PNGs": "vote a.zarr b.zarr --thresholds 0.5 --format png --out o",
    "vote --hard": "vote a.zarr b.zarr val.csv --hard --image-size 16 --out o.csv",
    "tune-thresholds": "tune-thresholds a.zarr b.zarr --val val.csv --folds 3 --out o.json",
    "tune-thresholds, softmax": "tune-thresholds s.zarr t.zarr --val exclusive.npz --folds 3 --out o.json",
    "tune-thresholds --calibration": "tune-thresholds a.zarr --val val.csv --folds 0 --calibration --out o.json",
    "score": "score val.csv --val val.npz --image-size 16",
    "convert": "convert val.npz --out o.csv",
    "convert, packing": "convert a.zarr --out o.zip",
    "inspect, a store": "inspect a.zarr",
    "inspect, masks": "inspect val.npz",
    "verify": "verify a.zarr",
    "repair": "repair a.zarr",
    "fuse": "fuse a.zarr b.zarr --out o.zarr",
    "fuse --uncertainty, files": "fuse a.zarr b.zarr --format npz --uncertainty --out o",
    "review": "review a.zarr b.zarr --out o.csv",
    "report": "report a.zarr b.zarr --val val.csv --out o.html",
    "stack": "stack a.zarr b.zarr --val val.csv --folds 3 --out o.zarr --model o.json",
    "dump-logits, arrays": "dump-logits arrays --images images --classes classes.txt --id stem --out o.zarr",
}


class Peak(NamedTuple):
    """What one run was projected to take, in bytes, and what it took."""

    command: str
    samples: int
    projected: float
    measured: int

    @property
    def held(self) -> bool:
        """Whether the process stayed within a quarter more than was projected, which a refusal asks for."""
        return self.measured <= 1.25 * self.projected


def store(path: Path, samples: int, activation: str, seed: int) -> None:
    """Write a store of which only 50 samples differ: the others are hard links to their chunks."""
    rng, ids = np.random.default_rng(seed), [f"s{k:06}" for k in range(samples)]
    different = min(DIFFERENT, samples)
    with ek.LogitWriter(path, CLASSES, ids, GRID, activation, member=path.stem) as out:  # type: ignore[arg-type]
        for sample in ids[:different]:
            hill = np.hypot(*(np.indices(GRID) - rng.uniform(4, 12, 2)[:, None, None]))
            maps = [3 - np.roll(hill, 4 * k, 1) + rng.normal(size=GRID) for k in range(len(CLASSES))]
            out.write(sample, np.stack(maps).astype(np.float16), GRID)
    if samples == different:
        return
    segment, *others = (path / "logits/manifest").glob("*.jsonl")
    assert not others
    spec = json.loads((path / "zarr.json").read_text())["attributes"]["ensemble_kit"]["store"]
    first = [json.loads(line) for line in segment.read_text().splitlines()]
    described = describe(path)[0]
    known = [Record.from_json(line, described) for line in first if "crcs" in line]
    rows = (Record(s, k, known[k % different].array, known[k % different].crcs) for k, s in enumerate(ids))
    segment.write_bytes(records.to_segment(spec, rows))
    for k in range(different, samples):
        os.link(path / f"logits/c.{k % different}.0.0.0", path / f"logits/c.{k}.0.0.0")


def data(folder: Path, samples: int, arrays: bool) -> None:
    """Write stores, masks and, where they are wanted, arrays with their images."""
    for seed, (name, activation) in enumerate([("a", "sigmoid"), ("b", "sigmoid"), ("s", "softmax"), ("t", "softmax")]):
        store(folder / f"{name}.zarr", samples, activation, seed)
    masks = ek.Ensemble([folder / "b.zarr"]).vote(0.5)
    masks.write(folder / "val.csv")
    masks.write(folder / "val.npz")
    ek.Ensemble([folder / "t.zarr"]).vote().write(folder / "exclusive.npz")
    (folder / "classes.txt").write_text("\n".join(CLASSES))
    if arrays:
        from PIL import Image

        opened = ek.LogitStore(folder / "a.zarr")
        for part in ("images", "arrays"):
            (folder / part).mkdir()
        for k, sample in enumerate(opened.samples):
            if k < DIFFERENT:
                Image.new("L", GRID).save(folder / f"images/{sample}.png")
                np.save(folder / f"arrays/{sample}.npy", opened.read(sample))
            else:
                for part, end in (("images", "png"), ("arrays", "npy")):
                    os.link(folder / f"{part}/s{k % DIFFERENT:06}.{end}", folder / f"{part}/{sample}.{end}")


def run(folder: Path, command: str, budget: int | None) -> tuple[int, int, str]:
    """Run a command; return its exit code, its peak in bytes and what it said."""
    for path in folder.glob("o*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    given = [] if budget is None else ["--memory", str(budget)]
    line = [sys.executable, "-c", PEAK, sys.executable, "-m", "ensemble_kit", *command.split(), *given, "--jobs", "2"]
    ran = subprocess.run(line, capture_output=True, text=True, cwd=folder, check=True)
    code, peak = ran.stdout.split()
    return int(code), int(peak), ran.stderr


def measure(folder: Path, name: str, samples: int) -> Peak:
    """Find what a command projects, and measure it within that budget."""
    budget = 1_000_000  # an array of a dump that alone is larger has a refusal of its own
    for _ in range(6):
        code, peak, said = run(folder, COMMANDS[name], budget)
        if code == 0:
            return Peak(name, samples, budget, peak)
        found = re.search(r"about ([\d,]+) (MB|bytes) ", said)
        if "error[memory-budget]" not in said or found is None:
            raise SystemExit(f"{name}, {samples} samples: {said}")
        needed = int(found[1].replace(",", "")) * (1_000_000 if found[2] == "MB" else 1)
        budget = max(needed + 1_000_000, budget + 1_000_000)
    raise SystemExit(f"{name}, {samples} samples: refused again and again: {said}")


def peaks(counts: Sequence[int], only: Sequence[str] | None = None) -> Iterator[Peak]:
    """Measure commands at each number of samples."""
    names = [name for name in COMMANDS if only is None or name in only]
    for samples in counts:
        folder = Path(tempfile.mkdtemp())
        try:
            data(folder, samples, any("arrays" in COMMANDS[name] for name in names))
            for name in names:
                yield measure(folder, name, samples)
        finally:
            shutil.rmtree(folder)


def table(found: Sequence[Peak]) -> list[str]:
    """Lay peaks out, a command a row."""
    counts = list(dict.fromkeys(p.samples for p in found))
    known = {(p.command, p.samples): p for p in found}
    lines = [
        "| command | " + " | ".join(f"{n:,} samples: projected | peak" for n in counts) + " | held |",
        "|---|" + "---|" * (2 * len(counts) + 1),
    ]
    for name in dict.fromkeys(p.command for p in found):
        own = [known[name, n] for n in counts]
        cells = [f"{p.projected / 1e6:.0f} MB | {p.measured / 1e6:.0f} MB" for p in own]
        lines.append(f"| {name} | {' | '.join(cells)} | {'yes' if all(p.held for p in own) else 'NO'} |")
    return lines


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=COMMANDS, action="append")
    parser.add_argument("--samples", type=int, nargs="+", default=[500, 5000])
    args = parser.parse_args()
    found = []
    for peak in peaks(args.samples, args.only):
        found.append(peak)
        print(
            f"{peak.command}, {peak.samples}: projected {peak.projected / 1e6:.0f} MB, peak {peak.measured / 1e6:.0f} MB",
            file=sys.stderr,
            flush=True,
        )
    print("\n".join(table(found)))


if __name__ == "__main__":
    main()
