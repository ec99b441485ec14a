"""Common commands run once on tiny inputs, so that the machine code of their kernels lies in its cache.

Numba compiles under one lock a process, so commands run as processes side by side, as many as there are cores.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ensemble_kit.errors import ResourceError
from ensemble_kit.logits.writer import LogitWriter
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.runs import encode
from ensemble_kit.spec.fusion import Activation
from ensemble_kit.spec.geometry import Shape

_CLASSES, _SAMPLES = ("a", "b", "c"), tuple("pqrs")

COMMANDS = (
    "tune-thresholds a.zarr b.zarr --val val.csv --search weights --trials 1 --out weights.json",
    "tune-thresholds a.zarr b.zarr --val val.csv --out set.json",
    "tune-thresholds a.zarr c.zarr --val val.csv --upsample scores --out scores.json",
    "vote x.zarr y.zarr --out argmax.csv",
    "tune-thresholds x.zarr y.zarr --val val.csv --out factors.json",
    "vote u.zarr v.zarr --out volumes.npz",
    "vote s.zarr t.zarr --out labels.npz",
    "vote a.zarr b.zarr --rule drop-small:3 --rule keep-largest:1 --rule fill-holes --out soft.csv",
    "vote a.zarr c.zarr --upsample scores --out two.csv",
    "vote a.zarr c.zarr --mean logit --out logit.csv",
    "vote a.zarr b.zarr --decide rank --out rank.csv",
    "vote --hard val.csv other.csv third.csv --image-size 96x96 --out hard.csv",
    "score val.csv --val other.csv --image-size 96x96",
    "convert val.csv --image-size 96x96 --out val.json --format coco",
)
"""The dearest first, so that the processes end together."""


def warm(processes: int, say: Callable[[str], None]) -> int:
    """Run the common commands, so many at a time; return how many there were.

    Raises
    ------
    ResourceError
        Machine code cannot be kept, or a command failed.
    """
    from ensemble_kit.kernels.jit import is_kept

    if not is_kept():
        raise ResourceError(
            "cache-unusable",
            "cannot keep the machine code of kernels",
            item="the folder ensemble_kit in $XDG_CACHE_HOME, or in ~/.cache, is not a writable folder of yours",
            fix="set XDG_CACHE_HOME to a folder that you can write to",
        )
    with tempfile.TemporaryDirectory(prefix="ensk-warm-") as made:
        folder = Path(made)
        write_inputs(folder)

        def run(line: str) -> None:
            command = [sys.executable, "-m", "ensemble_kit", *shlex.split(line), "-q", "--jobs", "1"]
            done = subprocess.run(  # noqa: S603 - this Python, and words that stand above
                command, check=False, cwd=folder, env=_environment(), capture_output=True, text=True
            )
            if done.returncode:
                raise ResourceError(
                    "warm-failed",
                    "cannot compile the kernels of a command",
                    item=f"ensk {line}: {done.stderr.strip()[-500:]}",
                    fix="run ensk doctor, and mend the problems that it lists",
                )
            say(f"compiled: ensk {line}")

        with ThreadPoolExecutor(processes) as pool:
            list(pool.map(run, COMMANDS))
    return len(COMMANDS)


def _environment() -> dict[str, str]:
    """Return ours, with the folders from which modules are imported here: the command runs in another folder."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(str(Path(p).absolute()) for p in sys.path)}


def write_inputs(folder: Path) -> None:
    """Write stores of one grid and of another, of classes that overlap and that exclude each other, and masks."""
    image, volume = ((32, 32), (96, 96)), ((4, 16, 16), (6, 40, 40))
    kinds: Sequence[tuple[str, Activation, tuple[Shape, Shape]]] = (
        ("ab", "sigmoid", image),
        ("c", "sigmoid", ((16, 16), image[1])),
        ("xy", "softmax", image),
        ("uv", "sigmoid", volume),
        ("st", "softmax", volume),
    )
    for names, activation, (grid, size) in kinds:
        for name in names:
            with LogitWriter(folder / f"{name}.zarr", _CLASSES, _SAMPLES, None, activation=activation) as out:
                for sample in _SAMPLES:
                    out.write(sample, _logits(name + sample, grid), size)
    for name in ("val", "other", "third"):
        masks = {s: _logits(name + s, image[1]) for s in _SAMPLES}
        found = {(s, c): encode(m.argmax(0) == k) for s, m in masks.items() for k, c in enumerate(_CLASSES)}
        MaskSet(found).write(folder / f"{name}.csv", "handbone")


def _logits(name: str, shape: Sequence[int]) -> NDArray[np.float16]:
    """Draw a disk for each class, with noise of its own for each name."""
    noise = np.random.default_rng(list(name.encode())).normal(size=(len(_CLASSES), *shape))
    away = sum((np.linspace(-1, 1, n).reshape([-1] + [1] * k) ** 2 for k, n in enumerate(reversed(shape))), np.zeros(1))
    return (noise + 6 * (np.arange(1, len(_CLASSES) + 1).reshape(-1, *[1] * len(shape)) / 4 - away)).astype(np.float16)
