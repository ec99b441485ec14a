"""Cross-validation of factors: judged on samples that did not choose them, and which of them gain above noise."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from ensemble_kit.execution.events import Listener, Progress, nobody
from ensemble_kit.spec.factors import ONE
from ensemble_kit.spec.scoring import Measure
from ensemble_kit.thresholds.crossed import ClassFolds, CrossValidation, Interval
from ensemble_kit.tuning.contenders import ContenderTable
from ensemble_kit.tuning.resampling import Counts, Pair, Resampler
from ensemble_kit.tuning.sweeps import Fitted, Widening, fit

if TYPE_CHECKING:
    from numpy.typing import NDArray

Folds = frozenset[int]


@dataclass
class FoldedFits:
    """Fits on unions of folds, each made once.

    Parameters
    ----------
    wider : the contenders of all samples.
    folds : sample numbers of each.
    jobs : threads; a fit takes one.
    """

    wider: Widening
    measure: Measure
    folds: Sequence[NDArray[np.int64]]
    jobs: int
    listener: Listener = nobody
    _known: dict[tuple[Folds, tuple[int, ...]], Fitted] = field(default_factory=dict)

    @property
    def table(self) -> ContenderTable:
        """Contenders of all samples, for every factor that was found."""
        return self.wider.widest

    def samples(self, which: Iterable[int]) -> NDArray[np.int64]:
        """Return the sample numbers of some folds, ascending."""
        return np.sort(np.concatenate([self.folds[k] for k in which]))

    def of(self, which: Iterable[int], free: Sequence[int] | None = None) -> Fitted:
        """Return the fit on some folds, of some classes' factors.

        Default: of all that mean something and that a sample of these folds has; the others keep 1, since only their
        false pixels would speak.
        """
        folds = frozenset(which)
        if free is None:
            seen = self.table.areas[self.samples(folds)].sum(axis=0) > 0
            free = [c for c in self.table.free if seen[c]]
        key = folds, tuple(free)
        if key not in self._known:
            self._known[key] = fit(self.wider.tables[0], self.measure, self.wider, self.samples(key[0]), key[1])
        return self._known[key]

    def prepare(self, wanted: Sequence[tuple[Folds, Sequence[int] | None]]) -> None:
        """Make several fits at once."""
        with ThreadPoolExecutor(self.jobs) as pool:
            for done, _ in enumerate(pool.map(lambda w: self.of(*w), wanted), start=1):
                self.listener(Progress("fitting", done, len(wanted), done))


def cross_validate(fits: FoldedFits, names: Sequence[str], shrink: bool, seed: int) -> tuple[CrossValidation, Fitted]:
    """Fit factors on all folds but one and judge them on that one, for every fold; and fit those of all samples.

    With `shrink` a class whose factor gains nothing above noise on samples that did not choose it has factor 1, and
    the others are fitted again beside it. Inside each fold this is decided on the other folds alone (nested).

    Parameters
    ----------
    names : the group of each sample.

    Returns
    -------
    What it found, and the factors of all samples.
    """
    measure, every = fits.measure, frozenset(range(len(fits.folds)))
    less = [every - {k} for k in every]
    inner = [every - {j, k} for j, k in combinations(every, 2)] if shrink else []
    fits.prepare([(which, None) for which in (every, *less, *inner)])
    judge = _Judge(fits, Resampler(names, seed))
    keeps = {which: judge.keeps(which) if shrink else None for which in (*less, every)}
    # each fold decides for itself which factors it keeps, and all samples may decide otherwise: both are judged
    fits.prepare([*((which, keeps[which]) for which in (*less, every)), *((which, keeps[every]) for which in less)])
    table = fits.table
    tuned = judge.out_of_fold(every, lambda rest: fits.of(rest, keeps[rest]).factors)
    own = judge.out_of_fold(every, lambda rest: fits.of(rest).factors)
    one = judge.at_one()
    truth = judge.truth
    classes, kept = {}, keeps[every]
    for c, name in enumerate(table.classes):
        row = table.scored.index(c) if c in table.scored else None
        classes[name] = ClassFolds(
            tuple(fits.of(rest).factors[c] for rest in less),
            judge.gain(c, own) if c in table.free else Interval(0.0, 0.0, 0.0),
            c in (table.free if kept is None else kept) or c not in table.free,
            float("nan") if row is None else measure.of_class(tuned[0][row], tuned[1][row], truth[row]),
        )
    scores = {n: measure.of_all(*counts, truth) for n, counts in {"tuned": tuned, "own": own, "one": one}.items()}
    pairs: list[Pair] = [(tuned, one, truth), (tuned, None, truth)]
    if shrink:
        pairs.append((judge.out_of_fold(every, lambda rest: fits.of(rest, keeps[every]).factors), one, truth))
    gain, score, *as_decided = judge.resampler.intervals(measure, pairs)
    decided = as_decided[0] if as_decided else None
    crossed = CrossValidation(len(fits.folds), len(set(names)), shrink, scores, gain, ONE, classes, decided, score)
    return crossed, fits.of(every, keeps[every])


class _Judge:
    """Counts of the scored classes, int64 (classes, samples), under factors that the samples did not choose."""

    def __init__(self, fits: FoldedFits, resampler: Resampler) -> None:
        self.fits, self.resampler = fits, resampler
        self.truth = np.ascontiguousarray(fits.table.areas[:, fits.table.scored].T)

    def out_of_fold(self, which: Folds, factors: Callable[[Folds], Sequence[int]]) -> Counts:
        """Fill in each fold of `which` what the factors of the others of `which` do there; zeros elsewhere."""
        tp, pred = np.zeros_like(self.truth), np.zeros_like(self.truth)
        for j in which:
            fold = self.fits.folds[j]
            counts = self.fits.table.counts(factors(which - {j}), fold)
            tp[:, fold], pred[:, fold] = (v[:, self.fits.table.scored].T for v in counts)
        return tp, pred

    def at_one(self) -> Counts:
        """Count with all factors 1, which need no training."""
        table = self.fits.table
        tp, pred = (v[:, table.scored].T for v in table.counts((ONE,) * len(table.classes)))
        return tp, pred

    def _without(self, c: int, which: Folds) -> Counts:
        """The same with factor 1 for class `c`."""

        def factors(rest: Folds) -> list[int]:
            return [ONE if k == c else f for k, f in enumerate(self.fits.of(rest).factors)]

        return self.out_of_fold(which, factors)

    def keeps(self, which: Folds) -> list[int]:
        """Find the classes whose factor gains above noise, over factor 1, on the folds of `which`."""
        own = self.out_of_fold(which, lambda rest: self.fits.of(rest).factors)
        seen, measure = self.fits.samples(which), self.fits.measure
        return [
            c
            for c in self.fits.table.free
            if self.resampler.above_noise(measure, own, self._without(c, which), self.truth, seen)
        ]

    def gain(self, c: int, own: Counts) -> Interval:
        """The gain of class `c`'s factor over 1, out of fold, with its interval."""
        every = frozenset(range(len(self.fits.folds)))
        return self.resampler.interval(self.fits.measure, own, self._without(c, every), self.truth)
