"""Factors of exclusive classes, tuned by sweeps of exact line searches (docs/concepts.md#rule-11-factors).

Lachiche and Flach, "Improving accuracy and cost of two-class and multi-class probabilistic classifiers using ROC
curves", ICML 2003, search one factor after the other for the area under the curve; here it is the overlap of masks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ensemble_kit.ensemble import Ensemble
from ensemble_kit.errors import MismatchError
from ensemble_kit.execution.cores import cores
from ensemble_kit.execution.events import Listener, nobody
from ensemble_kit.execution.executor import THREADS, Executor
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.spec.factors import ONE
from ensemble_kit.spec.scoring import Measure
from ensemble_kit.thresholds.records import ClassFactor, CrossValidation, DecisionRecord, Validation
from ensemble_kit.thresholds.thresholdset import ThresholdSet
from ensemble_kit.tuning.contenders import RATIOS, ContenderTable
from ensemble_kit.tuning.counting import folds_of
from ensemble_kit.tuning.factorfolds import FoldedFits, cross_validate
from ensemble_kit.tuning.folds import Groups
from ensemble_kit.tuning.gathering import exclusive_truth, gather
from ensemble_kit.tuning.statistics import source_of
from ensemble_kit.tuning.sweeps import Fitted, fit

if TYPE_CHECKING:
    from numpy.typing import NDArray


def tune_factors(
    ensemble: Ensemble,
    truth: MaskSet,
    measure: Measure,
    background: str | None = None,
    folds: int | None = None,
    groups: Groups = None,
    seed: int = 0,
    shrink: bool = True,
    known: ContenderTable | None = None,
    keep: Callable[[ContenderTable], None] | None = None,
    executor: Executor = THREADS,
    jobs: int | None = None,
    listener: Listener = nobody,
) -> ThresholdSet:
    """Find the factor of every class, exact over all factors from 1/128 to 128 one class at a time.

    Contenders are gathered for factors at most 64 apart; where a line search is not certain that no factor beyond is
    better, they are gathered anew for 512, then for all.

    Parameters
    ----------
    truth : masks of the ensemble's samples and classes, one class a pixel.
    background : a class that wins pixels, whose mask is not written and not scored.
    folds, groups, seed, shrink : as for `tune_thresholds`.
    known : statistics of an earlier run, used if they suffice.
    keep : called with the statistics if they had to be gathered.
    jobs : threads of the fits.

    Raises
    ------
    IncompleteError
        Samples without truth.
    MismatchError
        Truth of other classes, samples or image sizes, or with a pixel in two classes; statistics of something else.
    """
    truth = exclusive_truth(ensemble, truth, background)
    if known is not None and (known.source, known.background) != (source_of(ensemble, truth), background):
        item = "they were counted from other stores, another fusion, another truth or another background"
        fix = "pass the file of this ensemble, or another path (--statistics) to count anew"
        raise MismatchError("statistics-differ", "cannot tune with these statistics", item=item, fix=fix)
    split, names = folds_of(ensemble, folds, groups, seed)
    for ratio in RATIOS:
        if known is not None and ratio < known.ratio:
            continue
        own = known is not None and ratio == known.ratio
        table = known if own and known else gather(ensemble, truth, ratio, background, executor, listener)
        found = _fit(table, measure, split, names, shrink, seed, jobs or cores(), listener)
        if found is not None:
            break
    assert found is not None  # with the last ratio every class that could win is a contender
    if keep is not None and not own:
        keep(table)
    return _recorded(table, ensemble, measure, *found, seed)


def _fit(
    table: ContenderTable,
    measure: Measure,
    split: list[NDArray[np.int64]],
    names: list[str],
    shrink: bool,
    seed: int,
    jobs: int,
    listener: Listener,
) -> tuple[Fitted, CrossValidation | None] | None:
    """Fit, and cross-validate where there is more than one fold; None where a line search is not certain."""
    if len(split) == 1:
        fitted = fit(table, measure)
        return (fitted, None) if fitted.is_certain else None
    crossed = cross_validate(FoldedFits(table, measure, split, jobs, listener), names, shrink, seed)
    return None if crossed is None else (crossed[1], crossed[0])


def _recorded(
    table: ContenderTable,
    ensemble: Ensemble,
    measure: Measure,
    fitted: Fitted,
    crossed: CrossValidation | None,
    seed: int,
) -> ThresholdSet:
    """Make the set of what was found."""
    truth, scored = table.areas, table.scored
    tuned, at_one = table.counts(fitted.factors), table.counts((ONE,) * len(table.classes))

    def score(c: int, counts: tuple[NDArray[np.int64], NDArray[np.int64]]) -> float:
        return measure.of_class(*(v[:, c] for v in (*counts, truth))) if c in scored else float("nan")

    def score_all(counts: tuple[NDArray[np.int64], NDArray[np.int64]]) -> float:
        return measure.of_all(*(v[:, scored].T for v in (*counts, truth)))

    samples, positives = len(table.samples), (truth > 0).sum(0).tolist()
    found = zip(table.classes, fitted.factors, fitted.plateaus, positives, strict=True)
    classes = tuple(
        ClassFactor(name, factor, score(c, tuned), score(c, at_one), plateau, positive, samples)
        for c, (name, factor, plateau, positive) in enumerate(found)
    )
    return ThresholdSet.of(
        (),
        ensemble.fusion,
        ensemble.records,
        measure,
        Validation.of(ensemble.samples, score_all(tuned), score_all(at_one), crossed),
        {"method": "exact", "seed": seed, "trials": None, "sweeps": fitted.sweeps, "ratio": 1 << table.ratio},
        {},
        classes,
        DecisionRecord("argmax", table.background),
    )
