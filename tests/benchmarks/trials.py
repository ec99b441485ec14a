"""One trial of member weights, every threshold at its exact optimum, beside a plain NumPy trial of one threshold vector.

    python tests/benchmarks/trials.py [--pixels 1165] [--page docs/performance.md]

The reference case: 160 samples of 29 classes, 5 members, with as many undecided pixels a (sample, class) as such masks
have at 512². The pixels are drawn, since a trial's cost depends on their number only. NumPy fuses and thresholds whole
512² planes of one sample, times 160. One thread, medians of process-CPU time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tables

from ensemble_kit.spec.mean import PROBABILITY
from ensemble_kit.spec.scoring import Measure
from ensemble_kit.tuning.search.undecided import ClassPixels, Setting, Undecided

SAMPLES, CLASSES, MEMBERS, GRID = 160, 29, 5, 512


def drawn(pixels: int, rng: np.random.Generator) -> Undecided:
    """Draw undecided pixels on both sides of 0.5, half of them in the truth."""
    classes = []
    for _ in range(CLASSES):
        count = SAMPLES * pixels
        z = rng.normal(0, 2, (count, 1)) + rng.normal(0, 1, (count, MEMBERS))
        q = np.clip((np.clip(z, -16, 16) + 16) / 32 * 65535 + 0.5, 0, 65535).astype(np.uint16)
        offsets = np.arange(SAMPLES + 1) * pixels
        on, hits, truth = np.full(SAMPLES, 5000), np.full(SAMPLES, 4900), np.full(SAMPLES, 4900 + pixels // 2)
        classes.append(
            ClassPixels(26000, 39000, np.ascontiguousarray(q.T), offsets, offsets[:-1] + pixels // 2, on, hits, truth)
        )
    return Undecided(tuple("abcde"), (1.0,) * MEMBERS, "q", 1, tuple(classes))


def planes(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw one sample: probabilities (M, C, h, w) and truth (C, h, w)."""
    return rng.random((MEMBERS, CLASSES, GRID, GRID), np.float32), rng.random((CLASSES, GRID, GRID)) < 0.1


def plain(planes: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> float:
    """Fuse probabilities (M, C, h, w) and score one vector of thresholds, as people write it."""
    on = np.tensordot(weights / weights.sum(), planes, 1) > 0.5
    both = (on & truth).sum((1, 2))
    return float((2 * both / (on.sum((1, 2)) + truth.sum((1, 2)))).mean())


def median(work: Callable[[], object], runs: int = 7) -> float:
    times = []
    for _ in range(runs):
        begin = time.process_time()
        work()
        times.append(time.process_time() - begin)
    return sorted(times)[runs // 2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pixels", type=int, default=1165, help="undecided pixels of a (sample, class)")
    parser.add_argument("--page", type=Path, default=tables.PAGE, help="its table between the marks is replaced")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    table = drawn(options.pixels, rng)

    def trial() -> None:
        setting = Setting(tuple(rng.random(MEMBERS)), PROBABILITY, (1.0,) * MEMBERS)
        table.try_setting(setting, Measure(), jobs=1)

    trial()
    ours = median(trial)
    probabilities, truth = planes(rng)
    naive = SAMPLES * median(lambda: plain(probabilities, truth, rng.random(MEMBERS)), 3)
    size = f"{options.pixels:,} a mask, {table.bytes / 1e6:.0f} MB"
    lines = [
        "| trial | CPU time | against ours | what it gives |",
        "|---|---:|---:|---|",
        f"| undecided pixels only ({size}) | {ours:.3f} s | 1 × | the exact optimum of 29 thresholds |",
        f"| NumPy, whole planes (scaled from one sample) | {naive:.1f} s | {naive / ours:.0f} × | one threshold vector |",
    ]
    tables.put(options.page, "trials", "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
