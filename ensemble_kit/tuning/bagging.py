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

    t, measure = curve.table, curve.measure
    ladder = _ladder(mean)
    ladder = ladder[(ladder >= t.low) & (ladder <= min(t.high, LEVELS - 1))]
    tp, pred = (np.empty((t.truth.size, ladder.size), np.int64) for _ in range(2))
    ladders.counts_on_ladder(ladder, t.offsets, t.levels, t.pred, t.tp, t.above, t.above_tp, tp, pred)
    truth, eps = t.truth[:, None], 0.0
    if measure.objective == "pooled":
        a, b, c = coefficients(measure.metric)
        top, foot, eps = a * tp, pred + b * truth - c * tp, measure.convention.eps
    else:
        values = measure.values(tp, pred, truth)
        top, foot = np.nan_to_num(values), (~np.isnan(values)).astype(np.float64)
        foot = foot[:, :1] if (foot == foot[:, :1]).all() else foot
    order = np.argsort(np.abs(2 * ladder - (LEVELS - 1)), kind="stable")
    found = []
    for bag in bags:
        some = bag.draws @ (bag.by_group(truth > 0)[:, 0] > 0) > 0
        out = np.zeros(int(some.sum()), np.int64)
        ladders.best_of_draws(bag.draws[some], bag.by_group(top), bag.by_group(foot), eps, order, out)
        found.append(ladder[out])
    return found


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
