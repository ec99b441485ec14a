"""Count in a band of levels, and widen the band until every best level is certain."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ensemble_kit.ensemble import Ensemble
from ensemble_kit.execution.events import Listener, nobody
from ensemble_kit.execution.executor import THREADS, Executor, in_threads, threads_here
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.spec.mean import LEVELS
from ensemble_kit.spec.scoring import Measure
from ensemble_kit.tuning.class_statistics import Band, ClassStatistics
from ensemble_kit.tuning.curve import Curve
from ensemble_kit.tuning.folds import Groups, group_of, make_folds
from ensemble_kit.tuning.statistics import Statistics, check_source, check_truth, count, source_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

LOWS = (3277, 328, 0)  # 0.05, 0.005, everything: what a scan begins with, and how it widens
HIGHS = (62260, 65208, LEVELS)
HELD = 128_000_000
"""Bytes of sums by level that are held at a time, of all classes, where they are asked for again."""
WIDER = (*zip(LOWS[1:], HIGHS[1:], strict=True),)
"""The bands after the first, low and high."""


def gather(
    ensemble: Ensemble,
    truth: MaskSet,
    measures: Sequence[Measure],
    split: Sequence[NDArray[np.int64]],
    subsets: Sequence[Sequence[int]],
    executor: Executor = THREADS,
    listener: Listener = nobody,
) -> Statistics:
    """Count in a band of levels, and widen it for the classes that need it until every best level is certain.

    Parameters
    ----------
    measures : what will be asked of the statistics.
    split, subsets : sample numbers of each fold, and the unions of folds whose best levels will be asked for.

    Raises
    ------
    IncompleteError, MismatchError
        Truth that does not fit the ensemble.
    """
    certain = reaches(measures, split, subsets, threads_here(executor))
    return count_until(certain, ensemble, truth, executor, listener)


Certain = Callable[[Mapping[int, ClassStatistics], Iterable[int]], Mapping[int, tuple[bool, bool]]]
"""Tells of the classes that were counted last whether their bands reach far enough, below and above."""


def reaches(
    measures: Sequence[Measure],
    split: Sequence[NDArray[np.int64]],
    subsets: Sequence[Sequence[int]],
    threads: int = 1,
) -> Certain:
    """Return what tells whether the best levels of these measures are certain, as for `gather`; in threads.

    The sums that were made for it are held for what is asked next, as long as those of all classes are few.
    """

    def certain(tables: Mapping[int, ClassStatistics], counted: Iterable[int]) -> dict[int, tuple[bool, bool]]:
        def of_class(c: int) -> tuple[bool, bool]:
            sides = []
            for measure in measures:
                curve = Curve(tables[c], measure, split)
                sides += [curve.certain(subset) for subset in subsets]
                if not curve.nbytes or len(tables) * curve.nbytes > HELD:
                    curve.release()
            return all(s[0] for s in sides), all(s[1] for s in sides)

        numbers = list(counted)
        return dict(zip(numbers, in_threads(of_class, numbers, threads), strict=True))

    return certain


def count_until(
    certain: Certain,
    ensemble: Ensemble,
    truth: MaskSet,
    executor: Executor = THREADS,
    listener: Listener = nobody,
) -> Statistics:
    """Count in a band of levels, and widen it for the classes whose band does not reach far enough.

    Parameters
    ----------
    certain : asked after every pass, with the tables of all classes.

    Raises
    ------
    IncompleteError, MismatchError
        Truth that does not fit the ensemble.
    """
    check_truth(ensemble, truth)

    def counted(bands: Mapping[int, Band]) -> dict[int, ClassStatistics]:
        return count(ensemble, truth, bands, executor, listener)

    tables = widened(certain, len(ensemble.classes), counted)
    return Statistics(ensemble.samples, ensemble.classes, tables, source_of(ensemble, truth))


def widened(
    certain: Certain, classes: int, take: Callable[[Mapping[int, Band]], Mapping[int, ClassStatistics]]
) -> tuple[ClassStatistics, ...]:
    """Take the tables of all classes in a band of levels, and in wider ones of the classes that need it.

    Parameters
    ----------
    take : returns the tables of some classes, each in a band.
    """
    todo = dict.fromkeys(range(classes), (0, 0))
    tables: dict[int, ClassStatistics] = {}
    while todo:
        for c in todo:  # nothing asks for a narrower band any more
            tables.pop(c, None)
        tables |= take({c: (LOWS[low], HIGHS[high]) for c, (low, high) in todo.items()})
        sides = certain(tables, todo)
        todo = {
            c: (low + (not sides[c][0]), high + (not sides[c][1]))
            for c, (low, high) in todo.items()
            if not all(sides[c])
        }
    return tuple(tables[c] for c in range(classes))


def statistics_for(
    ensemble: Ensemble,
    truth: MaskSet,
    measure: Measure,
    folds: int | None = None,
    groups: Groups = None,
    seed: int = 0,
    known: Statistics | None = None,
    executor: Executor = THREADS,
    listener: Listener = nobody,
) -> Statistics:
    """Return statistics that answer every question of a tuning: `known` if they do, otherwise new ones.

    Parameters
    ----------
    measure, folds, groups, seed : of the tuning, as for `tune_thresholds`.
    known : statistics of an earlier run.

    Raises
    ------
    IncompleteError, MismatchError
        Truth or known statistics that do not fit the ensemble.
    """
    check_truth(ensemble, truth)
    split, _ = folds_of(ensemble.samples, folds, groups, seed)
    subsets = unions_of(split)
    if known is not None:
        fix = "pass the file of this ensemble, or another path (--statistics) to count anew"
        check_source(known, ensemble, truth, "cannot tune with these statistics", fix)
        certain = reaches([measure], split, subsets, threads_here(executor))
        sides = certain(dict(enumerate(known.tables)), range(len(known.tables)))
        if all(below and above for below, above in sides.values()):
            return known
    return gather(ensemble, truth, [measure], split, subsets, executor, listener)


def folds_of(
    samples: Sequence[str], folds: int | None, groups: Groups, seed: int
) -> tuple[list[NDArray[np.int64]], list[str]]:
    """Return sample numbers of each fold (one fold of all without a cross-validation), and each sample's group."""
    names = group_of(samples, groups)
    if not folds:
        return [np.arange(len(samples))], names
    return make_folds(samples, folds, groups, seed), names


def unions_of(split: Sequence[NDArray[np.int64]]) -> list[list[int]]:
    """Return the unions of folds whose best levels are asked for: all, and all but one or two."""
    every = range(len(split))
    without = [[j for j in every if j not in (i, k)] for i in every for k in every if i <= k]
    return [list(every), *(without if len(split) > 1 else [])]
