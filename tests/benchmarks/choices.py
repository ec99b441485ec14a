"""Ways of choosing thresholds, or factors of argmax, compared out of fold and on other samples.

    python tests/benchmarks/choices.py [--set NAME=FOLDER ...] [--splits 10] [--page docs/performance.md]

Samples of a set (`populations.py` says what its folder holds) are dealt out at random, by groups, into two halves. One is
tuned on with five folds, nested; the other is what thresholds are for. Without --set: simulated samples and the demo's.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import populations
import tables
from numpy.typing import NDArray
from populations import HALF, MEAN, Samples

from ensemble_kit.spec.factors import ONE
from ensemble_kit.spec.scoring import Convention, Measure
from ensemble_kit.tuning.bagging import Bag, best_levels
from ensemble_kit.tuning.choosing import Chooser, Chosen, Which
from ensemble_kit.tuning.contenders import ContenderTable
from ensemble_kit.tuning.crossval import cross_validate
from ensemble_kit.tuning.curve import Curve
from ensemble_kit.tuning.factorfolds import FoldedFits
from ensemble_kit.tuning.factorfolds import cross_validate as cross_validate_factors
from ensemble_kit.tuning.folds import make_folds
from ensemble_kit.tuning.sweeps import Widening

FOLDS, MIOU = 5, Measure("pooled", "iou", Convention(0.0, "skip"))
HEAD = (
    "| set | thresholds or factors | out of fold (gain ± its standard error) | other half |",
    "|---|---|---:|---:|",
)


class Smoothed(Chooser):
    """The best level of a class's curve that a Gaussian of 0.2 logits smooths."""

    def own(self, c: int, which: Which, common: int) -> int:
        """Return it; `common` where no sample has the class."""
        curve = self.curves[c]
        if not curve.has_positives(which):
            return common
        at = np.arange(-2.9, 2.9, 0.025)
        levels = np.clip([MEAN.level_of(1 / (1 + np.exp(-z))) for z in at], curve.table.low, curve.table.high - 1)
        bell = np.exp(-0.5 * (np.arange(-24, 25) / 8) ** 2)
        scores = np.pad(curve.scores(which)[levels - curve.table.low], 24, mode="edge")
        return int(levels[np.argmax(np.convolve(scores, bell / bell.sum(), "valid"))])


class Moved(Chooser):
    """Each class's level moved towards the shared one by its noise: empirical Bayes on the logit scale.

    DerSimonian and Laird, "Meta-analysis in clinical trials", 1986; the noise is the spread over draws of groups.
    """

    def on(self, which: Which) -> Chosen:
        """Choose the levels of all classes."""
        chosen, shared = super().on(which), self.shared(which)
        bag = Bag.of(self.names, self.curves[0].samples(which), self.seed)
        draws = [best_levels(curve, [bag], MEAN)[0] for curve in self.curves]
        noise = np.array([np.var(_logits(d)) if d.size else np.inf for d in draws]) + 1e-4
        own, aim, w = _logits(np.array(chosen.levels)), _logits(np.array([shared]))[0], 1 / noise
        mean = (w * own).sum() / w.sum()
        rest = w.sum() - (w**2).sum() / w.sum()
        between = max(0.0, ((w * (own - mean) ** 2).sum() - (w.size - 1)) / rest) if rest > 0 else np.inf
        moved = own if np.isinf(between) else (between * own + noise * aim) / (between + noise)
        levels = [MEAN.level_of(1 / (1 + np.exp(-z))) for z in np.where(np.isnan(moved), aim, moved)]
        return Chosen(levels, levels, chosen.keeps, chosen.common, chosen.shares)


WAYS: dict[str, Callable[..., Chooser]] = {
    "each class its own": lambda *how: Chooser(*how[:3], "own", *how[3:]),
    "one shared": lambda *how: Chooser(*how[:3], "shared", *how[3:]),
    "shrunk: its own where above one standard error": lambda *how: Chooser(*how[:3], "shrunk", *how[3:]),
    "partly shrunk towards the shared": lambda *how: Moved(*how[:3], "own", *how[3:]),
    "best of the smoothed curve": lambda *how: Smoothed(*how[:3], "own", *how[3:]),
    "bagged: mean of its own over draws": lambda *how: Chooser(*how[:3], "bagged", *how[3:]),
}
FACTOR_WAYS = {"each class its own": False, "shrunk: its own where above one standard error": True}


def compared(val: Samples, test: Samples, seed: int) -> dict[str, tuple[float, float]]:
    """Score every way out of fold and on the other samples; first 0.5, or factors of 1."""
    if isinstance(val.tables, ContenderTable):
        return _factors(val, test, seed)
    measure, split = Measure(), folds_of(val, seed)
    curves = [Curve(table, measure, split) for table in val.tables]
    truth = np.stack([t.truth for t in test.tables])

    def score(levels: list[int]) -> float:
        counts = [t.at(min(level, t.high)) for t, level in zip(test.tables, levels, strict=True)]
        return measure.of_all(*(np.stack([c[k] for c in counts]) for k in (0, 1)), truth)

    found = {}
    for name, way in WAYS.items():
        crossed, chosen = cross_validate(way(curves, val.names, HALF, MEAN, seed), [str(c) for c in range(len(curves))])
        found.setdefault("0.5", (crossed.scores["half"], score([HALF] * len(curves))))
        found[name] = crossed.scores["tuned"], score(chosen.levels)
    return found


def _factors(val: Samples, test: Samples, seed: int) -> dict[str, tuple[float, float]]:
    fits = FoldedFits(Widening(val.gathered, [val.tables]), MIOU, folds_of(val, seed), 2)

    def score(factors: tuple[int, ...]) -> float:
        return MIOU.of_all(*(v.T for v in (*test.tables.counts(factors), test.tables.areas)))

    found = {}
    for name, shrink in FACTOR_WAYS.items():
        crossed, fitted = cross_validate_factors(fits, val.names, shrink, seed)
        found.setdefault("factors of 1", (crossed.scores["one"], score((ONE,) * len(fitted.factors))))
        found[name] = crossed.scores["tuned"], score(fitted.factors)
    return found


def folds_of(val: Samples, seed: int, folds: int = FOLDS) -> list[NDArray[np.int64]]:
    """Share samples out by group; as many folds as there are groups, if these are fewer."""
    ids = [f"s{k}" for k in range(len(val.names))]
    return make_folds(ids, min(folds, len(set(val.names))), dict(zip(ids, val.names, strict=True)), seed)


def table(name: str, found: list[dict[str, tuple[float, float]]]) -> list[str]:
    """Write the rows of a set: means over splits, and of the ways their gain over the first with its standard error."""
    first = next(iter(found[0]))
    base = np.array([f[first] for f in found])
    out = []
    for way in found[0]:
        scores = np.array([f[way] for f in found])
        gain = scores - base
        errors = gain.std(axis=0, ddof=1) / np.sqrt(len(found)) if len(found) > 1 else np.zeros(2)
        cells = [f"{100 * v:.2f}" for v in scores.mean(axis=0)]
        if way != first:
            cells = [
                f"{c} ({100 * g:+.2f} ± {100 * e:.2f})" for c, g, e in zip(cells, gain.mean(0), errors, strict=True)
            ]
        out.append(f"| {name} | {way} | {cells[0]} | {cells[1]} |")
        name = ""
    return out


def _logits(levels: NDArray[np.int64]) -> NDArray[np.float64]:
    p = np.clip(levels, 1, 65534) / 65535
    return np.asarray(np.log(p) - np.log1p(-p))


def jobs(sets: Sequence[str], overlapping: Sequence[str] = ()) -> dict[str, Callable[[int], tuple[Samples, Samples]]]:
    """Return what is drawn, by the rows' name; texts are NAME=FOLDER, `overlapping` are decided by thresholds."""

    def simulated(*size: float) -> Callable[[int], tuple[Samples, Samples]]:
        def draw(seed: int) -> tuple[Samples, Samples]:
            rng = np.random.default_rng(seed)
            return populations.drawn(rng, *size), populations.drawn(rng, *size)

        return draw

    out = {
        "simulated, 40 samples, 6 classes": simulated(40, 6, 1.0),
        "simulated, 85 samples, 29 classes": simulated(85, 29, 0.5),
        "the demo's 28 images": populations.demo().halves,
    }
    for text in [*sets, *overlapping]:
        name, _, path = text.partition("=")
        out[name] = populations.of_folder(Path(path), False if text in overlapping else None).halves
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--set", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--overlapping", action="append", default=[], metavar="NAME=FOLDER", help="by thresholds")
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--page", type=Path, help="its table between the marks is replaced")
    options = parser.parse_args()
    lines = list(HEAD)
    for name, halves in jobs(options.set, options.overlapping).items():
        rows = table(name, [compared(*halves(seed), seed) for seed in range(options.splits)])
        lines += rows
        print("\n".join(rows), flush=True)
    if options.page:
        tables.put(options.page, "choices", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
