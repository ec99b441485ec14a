"""How often the score of a tuned set, and its gain, on new samples lie in the intervals that its report states.

    python tests/benchmarks/gains.py [--set NAME=FOLDER ...] [--draws 100] [--page docs/performance.md]

A population of samples is drawn: true and false pixels of each class have normal logits whose means differ from class to
class and from sample to sample; where groups are said, ten samples of a group are alike. Of it `n` samples are tuned on, by
the kit's own cross-validation, and as many others are scored. Of the demo's 28 validation and test images, which no network
was trained on, and of each set, halves are drawn, by groups. (Two halves of a fixed set differ more than two draws of a
population: what is high in one is missing in the other.)
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import populations
import tables
from choices import MIOU, folds_of
from populations import HALF, MEAN, Samples

from ensemble_kit.spec.factors import ONE
from ensemble_kit.spec.scoring import Measure
from ensemble_kit.thresholds.crossed import Choice, CrossValidation, Interval
from ensemble_kit.tuning.choosing import Chooser
from ensemble_kit.tuning.contenders import ContenderTable
from ensemble_kit.tuning.crossval import cross_validate
from ensemble_kit.tuning.curve import Curve
from ensemble_kit.tuning.factorfolds import FoldedFits
from ensemble_kit.tuning.factorfolds import cross_validate as cross_validate_factors
from ensemble_kit.tuning.sweeps import Widening

MEAN_DICE, POOLED = Measure(), Measure("pooled")
Halves = Callable[[int], tuple[Samples, Samples]]
Job = tuple[Halves, Measure, Choice, int]
HEAD = (
    "| tuned on | gain: confidence | prediction | its width | score: confidence | prediction | its width |",
    "|---|---:|---:|---:|---:|---:|---:|",
)


@dataclass(frozen=True)
class Judged:
    """The intervals that a tuning stated, and what came of it on other samples.

    Parameters
    ----------
    stated : of the gain and of the score: their confidence intervals and their prediction intervals.
    came : the gain and the score.
    """

    stated: tuple[tuple[Interval, Interval], tuple[Interval, Interval]]
    came: tuple[float, float]


def judged(val: Samples, test: Samples, measure: Measure, choose: Choice, folds: int) -> Judged:
    """Tune on some samples and score others."""
    split, groups = folds_of(val, 0, folds), len(set(test.names))
    if isinstance(val.tables, ContenderTable):
        fits = FoldedFits(Widening(val.gathered, [val.tables]), measure, split, 2)
        found, fitted = cross_validate_factors(fits, val.names, choose == "shrunk", 0)
        plain = all(f == ONE for f in fitted.factors)
        scores = [
            measure.of_all(*(v.T for v in (*test.tables.counts(factors), test.tables.areas)))
            for factors in (fitted.factors, (ONE,) * len(fitted.factors))
        ]
        return _judged(found, groups, plain, *scores)
    curves = [Curve(table, measure, split) for table in val.tables]
    chooser = Chooser(curves, val.names, HALF, choose, MEAN, 0)
    found, chosen = cross_validate(chooser, [str(c) for c in range(len(curves))])
    truth = np.stack([t.truth for t in test.tables])

    def score(levels: list[int]) -> float:
        counts = [t.at(min(level, t.high)) for t, level in zip(test.tables, levels, strict=True)]
        return measure.of_all(*(np.stack([c[k] for c in counts]) for k in (0, 1)), truth)

    plain = all(level == HALF for level in chosen.levels)
    return _judged(found, groups, plain, score(chosen.levels), score([HALF] * len(curves)))


def _judged(found: CrossValidation, groups: int, plain: bool, tuned: float, base: float) -> Judged:
    expected, score = Interval(0, 0, 0) if plain else found.expected(groups), found.expected_score(groups)
    assert expected is not None and found.score is not None and score is not None
    return Judged(((found.gain, expected), (found.score, score)), (tuned - base, tuned))


def row(name: str, found: list[Judged]) -> str:
    """Write in how many of the draws each interval holds what came, and how wide those of predictions are."""
    cells = []
    for k in (0, 1):
        for way in (0, 1):
            inside = [f.stated[k][way].low <= f.came[k] <= f.stated[k][way].high for f in found]
            cells.append(f"{np.mean(inside):.0%}")
        cells.append(f"{np.median([f.stated[k][1].high - f.stated[k][1].low for f in found]):.3f}")
    return f"| {name} | {' | '.join(cells)} |"


def jobs(sets: Sequence[str]) -> dict[str, Job]:
    """Return what is drawn and how it is tuned, by the row's name; `sets` are texts NAME=FOLDER."""

    def simulated(*size: float) -> Halves:
        def draw(seed: int) -> tuple[Samples, Samples]:
            rng = np.random.default_rng(seed)
            return populations.drawn(rng, *size), populations.drawn(rng, *size)

        return draw

    out: dict[str, Job] = {
        "20 samples, 6 classes": (simulated(20, 6, 1.0), MEAN_DICE, "bagged", 5),
        "40 samples, 6 classes": (simulated(40, 6, 1.0), MEAN_DICE, "bagged", 5),
        "40 samples, 6 classes, shrunk": (simulated(40, 6, 1.0), MEAN_DICE, "shrunk", 5),
        "40 samples, a smaller gain": (simulated(40, 6, 0.2), MEAN_DICE, "bagged", 5),
        "40 samples, pooled, each class its own": (simulated(40, 6, 1.0), POOLED, "own", 5),
        "160 samples, 1 class, 10 folds": (simulated(160, 1, 1.0), MEAN_DICE, "bagged", 10),
        "80 samples of 8 groups, 6 classes": (simulated(80, 6, 1.0, 10), MEAN_DICE, "bagged", 5),
        "200 samples of 20 groups, 6 classes": (simulated(200, 6, 1.0, 10), MEAN_DICE, "bagged", 5),
        "half of the demo's 28 images": (populations.demo().halves, MEAN_DICE, "bagged", 5),
    }
    for text in sets:
        name, _, path = text.partition("=")
        every = populations.of_folder(Path(path))
        usual: Choice = "shrunk" if every.by_argmax else "bagged"
        size, groups = len(every.names), len(set(every.names))
        said = f"half of {name}'s {size} images{f' of {groups} groups' if groups < size else ''}"
        out[said] = every.halves, MIOU if every.by_argmax else MEAN_DICE, usual, 5
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--page", type=Path, help="its table between the marks is replaced")
    options = parser.parse_args()
    lines = list(HEAD)
    for name, (halves, *how) in jobs(options.set).items():
        lines.append(row(name, [judged(*halves(seed), *how) for seed in range(options.draws)]))
        print(lines[-1], flush=True)
    if options.page:
        tables.put(options.page, "gains", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
