"""The figure of `--memory` against the peak of real commands, each a process of its own: within a quarter.

A figure and a peak are of the whole process: Python, its libraries and the machine code of kernels, which other runs have
compiled (a run that compiles takes more, and says so), are in both. Peaks are the kernel's own maximum of resident memory,
pages of mapped files among them, so a busy machine changes nothing; where threads share the work, how many of them are at
their largest at one time does, which is part of the quarter.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import harness as h
import numpy as np
import peaks
import pytest

import ensemble_kit as ek


class Shape(NamedTuple):
    """What stores hold: a few large images, many small ones, many classes, and so on."""

    samples: int
    classes: int
    grid: tuple[int, ...]
    image: tuple[int, ...]
    activation: str = "sigmoid"
    noise: float = 1.0


SHAPES = {
    "large images": Shape(4, 6, (512, 512), (1024, 1024)),
    "very large images": Shape(4, 3, (512, 512), (4096, 4096), noise=0),
    "many classes": Shape(20, 200, (48, 48), (96, 96)),
    "counts in a file": Shape(40, 30, (256, 256), (512, 512)),
    "exclusive": Shape(6, 8, (256, 256), (512, 512), "softmax"),
    "volumes": Shape(3, 5, (32, 64, 64), (64, 128, 128)),
    "exclusive volumes": Shape(3, 5, (24, 64, 64), (48, 128, 128), "softmax"),
}
VOTE = "vote a.zarr b.zarr --thresholds 0.5 --out o.csv"
TUNE = "tune-thresholds a.zarr b.zarr --val val.npz --out o.json"
CASES = [
    ("many small images", VOTE, 2),
    ("many small images", TUNE, 2),
    ("many small images", "vote a.zarr b.zarr val.npz --hard --image-size 16 --out o.csv", 2),
    ("large images", VOTE, 1),
    ("large images", VOTE, 2),
    ("large images", TUNE, 1),
    ("large images", TUNE, 2),
    ("large images", f"{TUNE} --folds 0", 2),
    ("large images", "vote a.zarr b.zarr val.npz --hard --out o.csv", 2),
    ("very large images", VOTE, 2),
    ("many classes", VOTE, 2),
    ("many classes", TUNE, 1),
    ("many classes", TUNE, 2),
    ("counts in a file", TUNE, 2),
    ("counts in a file", f"{TUNE} --folds 0", 1),
    ("exclusive", "vote a.zarr b.zarr --out o.npz", 2),
    ("exclusive", "vote a.zarr b.zarr --format label-map --out o", 2),
    ("exclusive", TUNE, 2),
    ("volumes", "vote a.zarr b.zarr --thresholds 0.5 --out o.npz", 2),
    ("volumes", TUNE, 2),
    ("exclusive volumes", "vote a.zarr b.zarr --out o.npz", 2),
    ("exclusive volumes", TUNE, 1),
]


def fill(folder: Path, shape: Shape) -> None:
    """Write two stores that nearly agree, and the masks of one."""
    names, ids = [f"c{k}" for k in range(shape.classes)], [f"s{k:03}" for k in range(shape.samples)]
    for seed, name in enumerate("ab"):
        rng = np.random.default_rng(seed)
        with ek.LogitWriter(folder / f"{name}.zarr", names, ids, shape.grid, shape.activation) as out:  # type: ignore[arg-type]
            for k, sample in enumerate(ids):
                blocks = np.random.default_rng(k).normal(size=(shape.classes, *(-(-n // 8) for n in shape.grid))) * 6
                for axis, size in enumerate(shape.grid, start=1):
                    blocks = np.repeat(blocks, 8, axis).take(range(size), axis)
                noise = rng.normal(size=blocks.shape) * shape.noise
                out.write(sample, (blocks - 1 + noise).astype(np.float16), shape.image)
    ensemble = ek.Ensemble([folder / "b.zarr"])
    masks = ensemble.vote() if shape.activation == "softmax" else ensemble.vote(0.5)
    masks.write(folder / "val.npz")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Make them when they are first asked for."""

    class Made(dict[str, Path]):
        def __missing__(self, name: str) -> Path:
            self[name] = folder = tmp_path_factory.mktemp("shape")
            if name == "many small images":
                peaks.data(folder, 3000, arrays=False)
            else:
                fill(folder, SHAPES[name])
            return folder

    return Made()


@pytest.fixture(scope="module")
def compiled() -> set[tuple[object, ...]]:
    """Commands that have run, so that their kernels are there: by the kinds of stores."""
    return set()


def run(folder: Path, command: str, jobs: int, budget: int | None) -> int:
    """Run a command that succeeds within a budget; return its peak in bytes."""
    given = [] if budget is None else ["--memory", str(budget)]
    line = [*h.COMMAND, *command.split(), "--jobs", str(jobs), "--force", "-q", *given]
    done = subprocess.run(
        [sys.executable, "-c", peaks.PEAK, *line], capture_output=True, text=True, cwd=folder, timeout=300
    )
    code, peak = done.stdout.split()
    assert code == "0", done.stderr
    return int(peak)


def refused(folder: Path, command: str, jobs: int, budget: int) -> tuple[int, int]:
    """Run a command that a budget does not hold; return the figure of its refusal, and what its fix says, in bytes.

    A hard vote that does not hold its mask files says just that; it knows the rest once they are read.
    """
    done = h.spawn(*command.split(), "--jobs", str(jobs), "--force", "-q", "--memory", str(budget), cwd=folder)
    h.judge(done, 5, "memory-budget", "are needed, --memory allows")
    needed, fix = (
        re.search(text, done.stderr) for text in (r"about ([\d,]+) MB are", r"pass --memory (\d+)MB or more")
    )
    assert needed is not None, done.stderr
    if fix is None and "--hard" in command:
        assert "pass several times that" in done.stderr
        return refused(folder, command, jobs, int(needed[1].replace(",", "")) * 1_000_000 + 1_000_000)
    assert fix is not None, done.stderr
    return int(needed[1].replace(",", "")) * 1_000_000, int(fix[1]) * 1_000_000


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "command", "jobs"), CASES)
def test_a_figure_is_the_peak_within_a_quarter_and_its_fix_works(
    shape: str, command: str, jobs: int, folders: dict[str, Path], compiled: set[tuple[object, ...]]
) -> None:
    folder, made = folders[shape], SHAPES.get(shape)
    kernels = command, made and (made.activation, len(made.grid))
    if kernels not in compiled:
        run(folder, command, jobs, None)
        compiled.add(kernels)
    needed, allowed = refused(folder, command, jobs, 1000)
    peak = run(folder, command, jobs, allowed)
    assert peak < allowed, f"needed {needed:,}, peak {peak:,}"
    assert abs(needed - peak) < 0.25 * peak, f"needed {needed:,}, peak {peak:,}"
    refused(folder, command, jobs, int(0.9 * needed))


@pytest.mark.slow
def test_a_search_stays_within_the_least_budget_that_it_is_given(folders: dict[str, Path]) -> None:
    """Its undecided pixels are as many as the budget holds: the figure is that of the least."""
    folder, command = folders["many classes"], f"{TUNE} --folds 3 --search greedy"
    run(folder, command, 2, None)
    _, allowed = refused(folder, command, 2, 1000)
    peak = run(folder, command, 2, allowed)
    assert peak < allowed
