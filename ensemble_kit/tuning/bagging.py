"""Best levels of a class in draws of groups: their mean transfers better than the best level of all samples.

Breiman, "Bagging predictors", Machine Learning 24, 1996. Here the predictor is a class's best level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ensemble_kit.kernels import tables
from ensemble_kit.once import once
from ensemble_kit.spec.mean import LEVELS, Mean
from ensemble_kit.spec.scoring import coefficients
from ensemble_kit.tuning.curve import Curve

if TYPE_CHECKING:
    from numpy.typing import NDArray

DRAWS, FEW = 200, 50
"""Draws behind a level, and behind one that only helps to decide whether levels gain."""
_STEP = 1 / 40  # of the logits of the levels that are scored in a draw; a threshold of 0.5 moves by 0.006
_AT_ONCE = 128
"""Samples whose counts are scored at a time, with all of their groups: their scores stay in the second-level cache."""
_ENDS = 11.5  # logits beyond those of levels 1 and 65534


class _Share(NamedTuple):
    """What a bag draws of a block of samples: which, the first of their groups, and each one's, counted from that.

    `inside` is None where it is the whole block, `groups` where each sample is a group of its own.
    """

    inside: NDArray[np.bool_] | None
    first: int
    groups: NDArray[np.int64] | None


@dataclass(frozen=True)
class Bag:
    """Draws, with replacement, of the groups of some samples.

    Parameters
    ----------
    ranks : int64 (samples of all,), the rank of each one's group among the names of groups.
    numbers : int64 (samples of all,), the number of each one's group in the draws, which ascends with its rank; -1 for
        a sample that is not drawn.
    draws : uint8 (draws, groups), how often each draw has each group; 256 times is beyond chance.
    """

    ranks: NDArray[np.int64]
    numbers: NDArray[np.int64]
    draws: NDArray[np.uint8]

    @classmethod
    def of(cls, names: Sequence[str], samples: NDArray[np.int64], seed: int, draws: int = DRAWS) -> Bag:
        """Draw as many groups as there are, some times, by whole numbers alone: the same on any machine."""
        ranks = np.unique(np.array(names, object).astype(str), return_inverse=True)[1]
        found = np.unique(ranks[samples], return_inverse=True)[1]
        numbers = np.full(ranks.size, -1)
        numbers[samples] = found
        groups, rng = int(found.max()) + 1, np.random.default_rng(seed)
        drawn = np.empty((draws, groups), np.uint8)
        for row in drawn:
            row[:] = np.bincount(rng.integers(0, groups, size=groups), minlength=groups)
        return cls(ranks, numbers, drawn)

    def has(self, positives: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Tell for each draw whether it has a sample with positives."""
        if positives.all():
            return np.ones(len(self.draws), np.bool_)
        own = self.numbers[positives]
        return np.asarray(self.draws[:, np.unique(own[own >= 0])].any(axis=1))

    @once
    def blocks(self) -> list[NDArray[np.int64]]:
        """Blocks of all samples, in the order of their groups, none of which is in two."""
        return _blocks(self.ranks)

    @once
    def shares(self) -> list[_Share | None]:
        """What is drawn of each block; None of one that has nothing to be drawn."""
        return [self._share(self.numbers[samples]) for samples in self.blocks]

    def _share(self, own: NDArray[np.int64]) -> _Share | None:
        inside = own >= 0
        if not inside.any():
            return None
        first = int(own[inside][0])
        groups = own[inside] - first
        each = int(groups[-1]) + 1 == groups.size
        return _Share(None if inside.all() else inside, first, None if each else groups)


class _Sums:
    """Numerators and denominators of a bag's draws at the levels of a ladder."""

    def __init__(self, bag: Bag, levels: int, wide: bool, eps: float) -> None:
        self._bag = bag
        self._tops, self._feet = (np.full((len(bag.draws), n), eps) for n in (levels, levels if wide else 1))

    def add(self, block: int, top: NDArray[np.float64], foot: NDArray[np.float64]) -> None:
        """Add a block of samples, all of their groups, in the order of these."""
        from ensemble_kit.kernels import ladders

        share = self._bag.shares[block]
        if share is None:
            return
        tops, feet = (v if share.inside is None else v[share.inside] for v in (top, foot))
        if share.groups is not None:
            tops, feet = (_by_group(v, share.groups) for v in (tops, feet))
        ladders.add_to_draws(self._bag.draws, share.first, tops, feet, self._tops, self._feet)

    def best(self, order: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the index of each draw's best level; of equal ones the first in `order`."""
        from ensemble_kit.kernels import ladders

        out = np.zeros(len(self._tops), np.int64)
        ladders.best_of_draws(self._tops, self._feet, order, out)
        return out


def _by_group(values: NDArray[np.float64], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sum rows, one for each sample, over the samples of each group; in their order."""
    out = np.zeros((int(groups[-1]) + 1, values.shape[1]))
    np.add.at(out, groups, values)
    return out


def bytes_of_draws(samples: int, mean: Mean, folds: int, at_once: int, wide: bool) -> float:
    """Project what choosing levels by draws takes: the draws, and sums over them of the classes at work.

    Parameters
    ----------
    at_once : classes at work at a time.
    wide : whether each level has a denominator of its own, as of pooled scores.
    """
    draws, ladder = DRAWS * (1 + folds) + FEW * folds * (folds - 1) / 2, _ladder(mean).size
    fractions = 40 * ladder * min(_AT_ONCE, samples)  # counts and scores of some samples
    return draws * samples + at_once * (draws * 8 * (2 if wide else 1) * ladder + fractions)


def best_levels(curve: Curve, bags: Sequence[Bag], mean: Mean) -> list[NDArray[np.int64]]:
    """Find the best of several hundred levels in every draw of every bag; the nearest to 0.5 among equals.

    Samples are scored some at a time, in the order of their groups, and added to the draws that have them: memory does
    not grow with their number.

    Parameters
    ----------
    bags : of one tuning, whose samples have the same groups.
    mean : the scale of levels.

    Returns
    -------
    list of int64 arrays
        Of each bag the levels; a draw without a sample that has the class has no say.
    """
    if not bags:
        return []
    t, measure = curve.table, curve.measure
    ladder = _ladder(mean)
    ladder = ladder[(ladder >= t.low) & (ladder <= min(t.high, LEVELS - 1))]
    pooled = measure.objective == "pooled"
    wide, eps = pooled or measure.convention.empty == "skip", measure.convention.eps if pooled else 0.0
    sums = [_Sums(bag, ladder.size, wide, eps) for bag in bags]
    for k, samples in enumerate(bags[0].blocks):
        top, foot = _fractions(curve, ladder, samples)
        for own in sums:
            own.add(k, top, foot)
        t.let_go()
    order = np.argsort(np.abs(2 * ladder - (LEVELS - 1)), kind="stable")
    positives = t.truth > 0
    return [ladder[own.best(order)[bag.has(positives)]] for bag, own in zip(bags, sums, strict=True)]


def _blocks(ranks: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Share samples out into blocks, in the order of their groups, none of which is in two."""
    order = np.argsort(ranks, kind="stable")
    starts = np.flatnonzero(np.diff(ranks[order])) + 1
    cuts = np.searchsorted(starts, np.arange(_AT_ONCE, order.size, _AT_ONCE))
    return np.split(order, np.unique(starts[cuts[cuts < starts.size]]))


def _fractions(
    curve: Curve, ladder: NDArray[np.int64], samples: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the scores of some samples at levels as numerators and denominators."""
    from ensemble_kit.kernels import ladders

    t, measure = curve.table, curve.measure
    truth = t.truth[samples, None]
    tp, pred = (np.empty((samples.size, ladder.size), np.int64) for _ in range(2))
    ladders.counts_on_ladder(samples, ladder, t.offsets, t.levels, t.pred, t.tp, t.above, t.above_tp, tp, pred)
    if measure.objective == "pooled":
        a, b, c = coefficients(measure.metric)
        return np.trunc(a * tp), np.trunc(pred + b * truth - c * tp)
    values = measure.values(tp, pred, truth)
    if measure.convention.empty != "skip":
        return values, np.ones((samples.size, 1))
    return np.nan_to_num(values), (~np.isnan(values)).astype(np.float64)


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
