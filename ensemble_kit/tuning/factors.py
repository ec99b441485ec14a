"""Factors of exclusive classes, tuned by sweeps of exact line searches (docs/concepts.md#rule-11-factors).

Lachiche and Flach, "Improving accuracy and cost of two-class and multi-class probabilistic classifiers using ROC
curves", ICML 2003, search one factor after the other for the area under the curve; here it is the overlap of masks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ensemble_kit.decisions.argmax import Argmax
from ensemble_kit.ensemble import Ensemble
from ensemble_kit.errors import MismatchError
from ensemble_kit.execution.cores import cores
from ensemble_kit.execution.events import Listener, nobody
from ensemble_kit.execution.executor import THREADS, Executor
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.metrics.overlap import iou
from ensemble_kit.spec.factors import ONE
from ensemble_kit.spec.scoring import Measure
from ensemble_kit.thresholds.crossed import Choice, CrossValidation
from ensemble_kit.thresholds.records import ClassFactor, DecisionRecord, Validation
from ensemble_kit.thresholds.thresholdset import ThresholdSet
from ensemble_kit.tuning.choosing import usual
from ensemble_kit.tuning.contenders import RATIOS, ContenderTable
from ensemble_kit.tuning.counting import folds_of
from ensemble_kit.tuning.factorfolds import FoldedFits, cross_validate
from ensemble_kit.tuning.folds import Groups
from ensemble_kit.tuning.gathering import exclusive_truth, gather
from ensemble_kit.tuning.resampling import Counts
from ensemble_kit.tuning.statistics import source_of
from ensemble_kit.tuning.sweeps import Fitted, Widening, fit


def tune_factors(
    ensemble: Ensemble,
    truth: MaskSet,
    measure: Measure,
    background: str | None = None,
    folds: int | None = None,
    groups: Groups = None,
    seed: int = 0,
    choose: Choice | None = None,
    known: ContenderTable | None = None,
    keep: Callable[[ContenderTable], None] | None = None,
    executor: Executor = THREADS,
    jobs: int | None = None,
    listener: Listener = nobody,
    least: float | None = None,
) -> ThresholdSet:
    """Find the factor of every class, exact over all factors from 1/128 to 128 one class at a time.

    Contenders are gathered for factors at most 32 apart; where a line search is not certain that no factor beyond is
    better, they are gathered anew for 512, then for all.

    Parameters
    ----------
    truth : masks of the ensemble's samples and classes, one class a pixel.
    background : a class that wins pixels, whose mask is not written and not scored.
    folds, groups, seed, choose : as for `tune_thresholds`.
    known : statistics of an earlier run, used if they suffice.
    keep : called with the statistics if they had to be gathered.
    jobs : threads of the fits.
    least : probability that a pixel's class must reach, recorded in the set. Factors are found without it: a class that
        wins a pixel may lose it again by a larger factor of another, which no order of ratios shows. In-sample scores
        are with it, those out of fold without.

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
    split, names = folds_of(ensemble.samples, folds, groups, seed)
    choose = usual(choose, folds, by_argmax=True)

    def gathered(ratio: int) -> ContenderTable:
        return gather(ensemble, truth, ratio, background, executor, listener)

    wider = Widening(gathered, [gathered(RATIOS[0]) if known is None else known])
    if len(split) == 1:
        fitted, crossed = fit(wider.tables[0], measure, wider), None
    else:
        folded = FoldedFits(wider, measure, split, jobs or cores(), listener)
        crossed, fitted = cross_validate(folded, names, choose == "shrunk", seed)
    if keep is not None and wider.widest is not known:
        keep(wider.widest)
    table = wider.widest
    every = [fitted.factors, (ONE,) * len(table.classes)]
    if least is None:
        counts = [table.counts(factors) for factors in every]
    else:
        counts = [_voted(ensemble, truth, table, f, least, executor, listener) for f in every]
    how = {"method": "exact", "seed": seed, "trials": None, "sweeps": fitted.sweeps, "ratio": 1 << table.ratio}
    if folds:
        how["choose"] = choose
    return recorded(table, ensemble, measure, fitted, crossed, how, counts, least)


def _voted(
    ensemble: Ensemble,
    truth: MaskSet,
    table: ContenderTable,
    factors: Sequence[int],
    least: float,
    executor: Executor,
    listener: Listener,
) -> Counts:
    """Count hits, and pixels by winner, of a vote with a least probability, int64 (samples, C); the background: 0."""
    named = {name: factor / ONE for name, factor in zip(table.classes, factors, strict=True)}
    masks = ensemble.vote(Argmax(named, table.background, least), executor=executor, listener=listener)
    scored = iou(masks, truth.arranged(masks.samples, masks.classes))
    tp, pred = (np.zeros((len(table.samples), len(table.classes)), np.int64) for _ in range(2))
    columns = [table.classes.index(name) for name in masks.classes]
    tp[:, columns], pred[:, columns] = scored.tp, scored.pred
    return tp, pred


def recorded(
    table: ContenderTable,
    ensemble: Ensemble,
    measure: Measure,
    fitted: Fitted,
    crossed: CrossValidation | None,
    how: dict[str, Any],
    counts: Sequence[Counts],
    least: float | None,
) -> ThresholdSet:
    """Make the set of what was found; `counts` are those with its factors, and with factors of 1."""
    truth, scored = table.areas, table.scored
    tuned, at_one = counts

    def score(c: int, counts: Counts) -> float:
        return measure.of_class(*(v[:, c] for v in (*counts, truth))) if c in scored else float("nan")

    def score_all(counts: Counts) -> float:
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
        how,
        {},
        classes,
        DecisionRecord("argmax", table.background, least),
        ensemble.member_classes,
    )
