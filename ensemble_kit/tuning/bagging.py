"""Best levels of a class in draws of groups: their mean transfers better than the best level of all samples.

Breiman, "Bagging predictors", Machine Learning 24, 1996. Here the predictor is a class's best level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.kernels import tables
from ensemble_kit.spec.mean import LEVELS, Mean
from ensemble_kit.spec.scoring import coefficients
from ensemble_kit.tuning.curve import Curve

if TYPE_CHECKING:
    from numpy.typing import NDArray

DRAWS, FEW = 200, 50
"""Draws behind a level, and behind one that only helps to decide whether levels gain."""
_STEP = 1 / 40  # of the logits of the levels that are scored in a draw; a threshold of 0.5 moves by 0.006
_AT_ONCE = 1024
"""Samples whose counts are scored at a time."""
_ENDS = 11.5  # logits beyond those of levels 1 and 65534


@dataclass(frozen=True)
class Bag:
    """Draws, with replacement, of the groups of some samples.

    Parameters
    ----------
    samples : their numbers.
    index : number of the group of each of them.
    draws : int64 (draws, groups), how often each draw has each group.
    """

    samples: NDArray[np.int64]
    index: NDArray[np.int64]
    draws: NDArray[np.int64]

    @classmethod
    def of(cls, names: Sequence[str], samples: NDArray[np.int64], seed: int, draws: int = DRAWS) -> Bag:
        """Draw as many groups as there are, some times, by whole numbers alone: the same on any machine."""
        found = np.unique(np.array(names, object).astype(str)[samples], return_inverse=True)[1]
        groups = int(found.max()) + 1
        drawn = np.random.default_rng(seed).integers(0, groups, size=(draws, groups))
        return cls(samples, found, np.stack([np.bincount(row, minlength=groups) for row in drawn]))

    def by_group(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Sum rows, one for each sample of all, over the samples of each group; in their order."""
        out = np.zeros((self.draws.shape[1], values.shape[1]))
        if len(out) == self.samples.size:
            out[self.index] = values[self.samples]
            return out
        for s, group in zip(self.samples.tolist(), self.index.tolist(), strict=True):
            out[group] += values[s]
        return out


def bytes_of_draws(samples: int, mean: Mean, folds: int | None) -> float:
    """Project what choosing levels by draws takes, beside the tables: a class's fractions, twice, and the draws."""
    return 8.0 * samples * (2.2 * _ladder(mean).size + DRAWS * (1 + (folds or 0)))


def best_levels(curve: Curve, bags: Sequence[Bag], mean: Mean) -> list[NDArray[np.int64]]:
    """Find the best of several hundred levels in every draw of every bag; the nearest to 0.5 among equals.

    Parameters
    ----------
    mean : the scale of levels.

    Returns
    -------
    list of int64 arrays
        Of each bag the levels; a draw without a sample that has the class has no say.
    """
    from ensemble_kit.kernels import ladders

    t = curve.table
    ladder = _ladder(mean)
    ladder = ladder[(ladder >= t.low) & (ladder <= min(t.high, LEVELS - 1))]
    top, foot, eps = _fractions(curve, ladder)
    truth = t.truth[:, None]
    order = np.argsort(np.abs(2 * ladder - (LEVELS - 1)), kind="stable")
    found = []
    for bag in bags:
        some = bag.draws @ (bag.by_group(truth > 0)[:, 0] > 0) > 0
        out = np.zeros(int(some.sum()), np.int64)
        ladders.best_of_draws(bag.draws[some], bag.by_group(top), bag.by_group(foot), eps, order, out)
        found.append(ladder[out])
    return found


def _fractions(curve: Curve, ladder: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any], float]:
    """Return the scores of samples at levels as numerators and denominators, and what is added to the sums of both.

    Some samples at a time: what lies between counts and scores is several times as large as they are.
    """
    from ensemble_kit.kernels import ladders

    t, measure = curve.table, curve.measure
    pooled = measure.objective == "pooled"
    top = np.empty((t.truth.size, ladder.size), np.int64 if pooled else np.float64)
    foot = np.empty_like(top) if pooled else np.ones((t.truth.size, 1))
    for first in range(0, t.truth.size, _AT_ONCE):
        some = slice(first, first + _AT_ONCE)
        truth = t.truth[some, None]
        tp, pred = (np.empty((truth.size, ladder.size), np.int64) for _ in range(2))
        offsets = t.offsets[first : first + _AT_ONCE + 1]
        ladders.counts_on_ladder(ladder, offsets, t.levels, t.pred, t.tp, t.above[some], t.above_tp[some], tp, pred)
        if pooled:
            a, b, c = coefficients(measure.metric)
            top[some], foot[some] = a * tp, pred + b * truth - c * tp
            continue
        values = measure.values(tp, pred, truth)
        skipped = np.isnan(values)
        top[some] = np.nan_to_num(values)
        if foot.shape[1] == 1 and not (skipped == skipped[:, :1]).all():
            foot = np.repeat(foot, ladder.size, axis=1)
        foot[some] = ~skipped[:, : foot.shape[1]]
    t.release()
    return top, foot, measure.convention.eps if pooled else 0.0


def mean_level(levels: NDArray[np.int64]) -> int:
    """Return the mean of levels, rounded half up."""
    total, n = int(levels.sum()), levels.size
    return (2 * total + n) // (2 * n)


@lru_cache(maxsize=8)
def _ladder(mean: Mean) -> NDArray[np.int64]:
    """Return levels that are evenly spaced on the logit scale, ascending, without the first and the last."""
    steps = round(_ENDS / _STEP)
    at = tables.sigmoid(np.arange(-steps, steps + 1) * _STEP)
    return np.unique([min(max(mean.level_of(p), 1), LEVELS - 2) for p in at.tolist()])
