"""How often a tuned set's gain on new samples lies in the intervals that its report states.

    python tests/benchmarks/gains.py [--draws 100] [--page docs/performance.md]

A population of samples is drawn: true and false pixels of each class have normal logits whose means differ from class to
class and from sample to sample. Of it `n` samples are tuned on, by the kit's own cross-validation, and as many others are
scored. The last row draws halves of the demo's 28 validation and test images, which no network was trained on.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tables
from scipy.stats import norm

import ensemble_kit as ek
from ensemble_kit.demo.run import DATA
from ensemble_kit.spec.scoring import Measure
from ensemble_kit.thresholds.crossed import Interval
from ensemble_kit.tuning.calibration import full_statistics
from ensemble_kit.tuning.crossval import cross_validate
from ensemble_kit.tuning.curve import Curve
from ensemble_kit.tuning.folds import make_folds
from ensemble_kit.tuning.statistics import ClassStatistics, Statistics

GOLDEN = Path(__file__).parent.parent / "golden"
LOW, HIGH, HALF = 3277, 62260, 32768
LEVELS = np.unique(np.linspace(LOW + 200, HIGH - 1, 60).astype(np.uint16))


def logit(level: np.ndarray | float) -> np.ndarray:
    return np.log(level / 65535) - np.log1p(-np.asarray(level) / 65535)


def drawn(rng: np.random.Generator, n: int, classes: int, off: float) -> list[ClassStatistics]:
    """Draw the counts of `n` samples; `off` is how far classes' scores lie from calibrated ones."""
    out, common = [], rng.normal(size=n) * 0.4
    at = logit(np.append(LEVELS, HIGH))
    for c in range(classes):
        of_class = np.random.default_rng(c)
        mu, nu, shift = of_class.uniform(1, 3), of_class.uniform(2, 4), of_class.normal() * off
        truth = np.round(np.exp(rng.normal(6, 0.8, n))) * (rng.random(n) > 0.1)
        own = common + rng.normal(size=n) * 0.8 + shift
        tp = np.round(truth[:, None] * norm.sf((at - (own + mu)[:, None]) / 1.5)).astype(np.int64)
        false = np.round(10_000 * norm.sf((at - (0.7 * own - nu)[:, None]) / 1.5)).astype(np.int64)
        pred, size = tp + false, LEVELS.size
        counts = (v[:, :-1].reshape(-1).astype(np.uint32) for v in (pred, tp))
        ends = np.arange(n + 1) * size
        above = pred[:, -1].copy(), tp[:, -1].copy()
        out.append(ClassStatistics(LOW, HIGH, ends, np.tile(LEVELS, n), *counts, *above, truth.astype(np.int64)))
    return out


def taken(table: ClassStatistics, samples: Sequence[int]) -> ClassStatistics:
    """Keep some samples of a table."""
    parts = [slice(table.offsets[s], table.offsets[s + 1]) for s in samples]
    arrays = (np.concatenate([v[own] for own in parts]) for v in (table.levels, table.pred, table.tp))
    ends = np.cumsum([0, *(own.stop - own.start for own in parts)])
    rest = (v[list(samples)] for v in (table.above, table.above_tp, table.truth))
    return ClassStatistics(table.low, table.high, ends, *arrays, *rest)


def judged(
    val: list[ClassStatistics], test: list[ClassStatistics], measure: Measure, shrink: bool, folds: int
) -> tuple[Interval, Interval, float]:
    """Tune on some samples: the two intervals that are stated, and the gain on others."""
    names = tuple(f"s{k}" for k in range(val[0].truth.size))
    split = make_folds(names, folds, None, 0)
    statistics = Statistics(names, tuple(map(str, range(len(val)))), tuple(val), "")
    curves = [Curve(table, measure, split) for table in val]
    found = cross_validate(statistics, measure, split, names, HALF, shrink, 0, curves)
    kept = zip(found.classes.values(), curves, strict=True)
    levels = [curve.best().level if own.keeps else found.common_level for own, curve in kept]

    def score(at: list[int]) -> float:
        counts = [table.at(min(level, table.high)) for table, level in zip(test, at, strict=True)]
        tp, pred = (np.stack([own[k] for own in counts]) for k in (0, 1))
        return measure.of_all(tp, pred, np.stack([table.truth for table in test]))

    plain = all(level == HALF for level in levels)
    expected = Interval(0, 0, 0) if plain else found.expected(test[0].truth.size)
    assert expected is not None
    return found.gain, expected, score(levels) - score([HALF] * len(levels))


def genuine() -> list[ClassStatistics]:
    """Count the demo's three networks on its validation and its test images."""
    parts = []
    for split in ("val", "test"):
        ens = ek.Ensemble([GOLDEN / f"{name}_{split}.zip" for name in ("unet", "fpn", "dilated")])
        parts.append(full_statistics(ens, ek.read_masks(DATA / split / "masks", classes=ens.classes)).tables)
    out = []
    for a, b in zip(*parts, strict=True):
        joined = [np.concatenate(pair) for pair in ((a.levels, b.levels), (a.pred, b.pred), (a.tp, b.tp))]
        ends = np.append(a.offsets, a.offsets[-1] + b.offsets[1:])
        rest = [np.concatenate(p) for p in ((a.above, b.above), (a.above_tp, b.above_tp), (a.truth, b.truth))]
        out.append(ClassStatistics(a.low, a.high, ends, *joined, *rest))
    return out


def row(name: str, found: list[tuple[Interval, Interval, float]]) -> str:
    """Write in how many of the draws each interval holds the gain on new samples."""
    inside = [np.mean([i.low <= gain <= i.high for i, gain in pairs]) for pairs in (
        [(gain, new) for gain, _, new in found], [(expected, new) for _, expected, new in found],
    )]  # fmt: skip
    width = np.median([e.high - e.low for _, e, _ in found])
    return f"| {name} | {inside[0]:.0%} | {inside[1]:.0%} | {width:.3f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--page", type=Path, default=tables.PAGE, help="its table between the marks is replaced")
    parser.add_argument(
        "--rows", type=int, nargs="*", help="numbers of the rows to compute; default: all, and the page"
    )
    options = parser.parse_args()
    mean, pooled = Measure(), Measure("pooled")
    settings = [
        ("20 samples, 6 classes", 20, 6, 1.0, mean, True, 5),
        ("40 samples, 6 classes", 40, 6, 1.0, mean, True, 5),
        ("40 samples, hardly a gain", 40, 6, 0.2, mean, True, 5),
        ("40 samples, pooled, each class its own", 40, 6, 1.0, pooled, False, 5),
        ("160 samples, 1 class, 10 folds", 160, 1, 1.0, mean, True, 10),
    ]
    lines = ["| tuned on | confidence interval | prediction interval | its width, Dice |", "|---|---:|---:|---:|"]
    for k, (name, n, classes, off, measure, shrink, folds) in enumerate(settings):
        if options.rows and k not in options.rows:
            continue
        found = []
        for seed in range(options.draws):
            rng = np.random.default_rng(seed)
            val, test = (drawn(rng, n, classes, off) for _ in range(2))
            found.append(judged(val, test, measure, shrink, folds))
        lines.append(row(name, found))
        print(lines[-1], flush=True)
    if not options.rows or len(settings) in options.rows:
        every, found = genuine(), []
        for seed in range(options.draws):
            order = np.random.default_rng(seed).permutation(every[0].truth.size).tolist()
            halves = [[taken(table, part) for table in every] for part in (order[:14], order[14:])]
            found.append(judged(*halves, mean, True, 5))
        other = [one for one in found if one[1].low < one[1].high]  # a set that is 0.5 gains exactly nothing
        lines.append(row(f"14 of the demo's 28 images, the {len(other)} sets that are not 0.5", other))
        print(lines[-1], flush=True)
    if not options.rows:
        tables.put(options.page, "gains", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
