"""The best factor of one class with the others fixed, exact over all of them (docs/concepts.md#rule-11-factors)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ensemble_kit.kernels.arguments import Line, Score
from ensemble_kit.spec.factors import LEAST, MOST, ONE
from ensemble_kit.spec.scoring import Measure, coefficients
from ensemble_kit.tuning.contenders import ContenderTable
from ensemble_kit.tuning.curve import best_case, or_perfect

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ZERO = 1 << 31  # the key of an offset of 0: keys of sums are not negative


@dataclass(frozen=True)
class BestFactor:
    """The best factor of one class, with the others fixed.

    Parameters
    ----------
    factor, score : the factor as an integer, 65536 for 1, and the objective over all classes there.
    plateau : the range of factors around it with the same score, both ends included.
    is_certain : whether no factor beyond the ratio that the table was gathered for can reach the score.
    """

    factor: int
    score: float
    plateau: tuple[int, int]
    is_certain: bool


class _Scanned(NamedTuple):
    """Stretches of factors without an event inside: int64 (n,) each, and the counts behind the last.

    Parameters
    ----------
    keys : where a stretch begins; firsts, lasts : its factors; none where first > last.
    values : float64, the objective, to about 1e-15.
    same : bool, whether no score differs from the stretch before.
    end : int64 (2, rows, C).
    """

    keys: NDArray[np.int64]
    firsts: NDArray[np.int64]
    lasts: NDArray[np.int64]
    values: NDArray[np.float64]
    same: NDArray[np.bool_]
    end: NDArray[np.int64]


class FactorSearch:
    """Factors of all classes on some samples, and the counts that they give; line searches change one at a time.

    Parameters
    ----------
    table : contenders of all samples.
    measure : what is maximised.
    samples : numbers of those that count; default: all.
    factors : integers, 65536 for 1; default: all 1.

    Attributes
    ----------
    tp, pred : int64 (samples or, with the objective "pooled", 1, C), hits and pixels by winner.
    """

    def __init__(
        self,
        table: ContenderTable,
        measure: Measure,
        samples: NDArray[np.int64] | None = None,
        factors: Sequence[int] | None = None,
    ) -> None:
        self.table, self.measure = table, measure
        self._samples = np.arange(len(table.samples)) if samples is None else np.asarray(samples, np.int64)
        pooled = measure.objective == "pooled"
        self._rows = np.zeros_like(self._samples) if pooled else np.arange(self._samples.size)
        self.factors = [ONE] * len(table.classes) if factors is None else list(factors)
        self._truth, self._scored = self._by_row(table.areas), np.array(table.scored)
        counted = table.counts(self.factors, self._samples)
        self.tp, self.pred = (self._summed(v) for v in counted)
        convention, skip = measure.convention, measure.convention.empty == "skip"
        empty = 0.0 if convention.empty == "skip" else float(convention.empty)
        self._score = Score(*coefficients(measure.metric), convention.eps, empty, skip)
        self._shift = min(52, 62 - self._truth.size.bit_length())

    def _by_row(self, values: NDArray[Any]) -> NDArray[np.int64]:
        return self._summed(values[self._samples])

    def _summed(self, values: NDArray[Any]) -> NDArray[np.int64]:
        if self.measure.objective == "pooled":
            return values.sum(0, dtype=np.int64, keepdims=True)
        return np.ascontiguousarray(values, np.int64)

    @property
    def score(self) -> float:
        """The objective at the present factors; 1 where every pair is skipped."""
        return self._exact(self.tp, self.pred)

    def _exact(self, tp: NDArray[np.int64], pred: NDArray[np.int64]) -> float:
        return or_perfect(self.measure.of_all(*(v[:, self._scored].T for v in (tp, pred, self._truth))))

    def search(self, c: int) -> BestFactor:
        """Find the best factor of class `c`, and take it.

        Of equal maxima the factor nearest to 1 in its logarithm is best, then the smaller.
        """
        from ensemble_kit.kernels import factors as kernels

        at = self._line(c)
        states, events = self._events(c, at)
        line = self._scan(c, at, states[1], events)
        values = np.where(line.firsts > line.lasts, -1.0, line.values)  # sums only: no factor's offset lies there
        near = np.flatnonzero(values >= values.max() - 4 * (2.0**-self._shift + 2.0**-52))
        groups = np.split(near, np.flatnonzero((np.diff(near) > 1) | ~line.same[near[1:]]) + 1)
        stretches = [(int(g[0]), int(line.firsts[g[0]]), int(line.lasts[g[-1]])) for g in groups]
        factor, score, plateau = self._decide(c, events, states[1], line.keys, stretches)
        self.factors[c], self.tp, self.pred = factor, states[1, 0].copy(), states[1, 1].copy()
        kernels.replay(c, events[: _upto(events, self._key(factor))], self.tp, self.pred)
        return BestFactor(factor, score, plateau, self._is_certain(c, at, states, line.end, score))

    def plateau(self, c: int) -> tuple[int, int]:
        """Return the range of factors around that of class `c` with the same scores, both ends included."""
        at = self._line(c)
        states, events = self._events(c, at)
        line = self._scan(c, at, states[1], events)
        first = last = int(np.searchsorted(line.keys, at.now, "right")) - 1
        while line.same[first]:
            first -= 1
        while last + 1 < line.keys.size and line.same[last + 1]:
            last += 1
        return int(line.firsts[first]), int(line.lasts[last])

    def _scan(self, c: int, at: Line, low: NDArray[np.int64], events: NDArray[np.uint64]) -> _Scanned:
        """Score every stretch of factors between two events."""
        from ensemble_kit.kernels import factors as kernels

        tp, pred, room = low[0].copy(), low[1].copy(), events.size + 1
        keys, sums, counted = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.int64)
        same, laid = np.empty(room, np.bool_), (self._truth, self.table.silent, self._score, self._shift)
        n = kernels.scan(c, events, tp, pred, *laid, keys, sums, counted, same)
        keys[0] = at.low
        firsts = self._first_factor(keys[:n])
        lasts = np.append(firsts[1:], self._first_factor(np.array([at.high + 1]))) - 1
        values = np.where(counted[:n] == 0, 1.0, sums[:n] / np.maximum(counted[:n], 1) / 2.0**self._shift)
        return _Scanned(keys[:n], firsts, lasts, values, same[:n], np.stack([tp, pred]))

    def _decide(
        self,
        c: int,
        events: NDArray[np.uint64],
        low: NDArray[np.int64],
        keys: NDArray[np.int64],
        stretches: Sequence[tuple[int, int, int]],
    ) -> tuple[int, float, tuple[int, int]]:
        """Choose among stretches of one score each (number, first and last factor) by exactly rounded scores."""
        from ensemble_kit.kernels import factors as kernels

        tp, pred, done, scores = low[0].copy(), low[1].copy(), 0, list[float]()
        for k, _, _ in stretches:
            upto = _upto(events, int(keys[k])) if k else 0
            kernels.replay(c, events[done:upto], tp, pred)
            done = upto
            scores.append(self._exact(tp, pred))
        best, spans = max(scores), list[tuple[int, int]]()
        for (_, first, last), score in zip(stretches, scores, strict=True):
            if score == best:
                joins = bool(spans) and spans[-1][1] == first - 1
                spans = [*spans[:-1], (spans[-1][0], last)] if joins else [*spans, (first, last)]
        factor, plateau = min(((nearest_to_one(*s), s) for s in spans), key=lambda s: from_one(s[0]))
        return factor, best, plateau

    def _line(self, c: int) -> Line:
        """Where a search of class `c` is exact: as long as no two factors are further apart than the table's ratio."""
        others = [f for k, f in enumerate(self.factors) if k != c]
        bottom, top, now = (self._key(f) for f in (LEAST, MOST, self.factors[c]))
        if self.table.adds:
            gap = self.table.room.gap
            low, high = self._key(max(others)) - gap, self._key(min(others)) + gap
        else:
            low, high = -(-max(others) >> self.table.ratio), min(others) << self.table.ratio
        return Line(bottom, max(low, bottom), min(high, top), top, now)

    def _key(self, factor: int) -> int:
        from ensemble_kit.kernels import tables

        return int(tables.offsets(factor)) + _ZERO if self.table.adds else factor

    def _first_factor(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """The least integer factor whose key is at least each of `keys`."""
        if not self.table.adds:
            return keys
        return LEAST + np.searchsorted(_steps(), (keys - _ZERO).astype(np.int32))  # of another type the table is copied

    def _events(self, c: int, at: Line) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """Return the counts at the four ends of a line, and its events, sorted."""
        from ensemble_kit.kernels import factors as kernels

        pixels, begins = self.table.index
        states = np.ascontiguousarray(np.broadcast_to(np.stack([self.tp, self.pred]), (4, 2, *self.tp.shape)))
        events = np.empty(int((begins[c, self._samples + 1] - begins[c, self._samples]).sum()), np.uint64)
        scale = self.table.scale(self.factors)
        laid = c, self.table.contenders, pixels, begins, self._samples, self._rows
        n = kernels.line(*laid, scale, at, states, events)
        events = events[:n]
        events.sort()
        return states, events

    def _is_certain(self, c: int, at: Line, states: NDArray[np.int64], end: NDArray[np.int64], score: float) -> bool:
        """Bound the objective beyond both ends of the line: by pixels that can still change hands, at their best."""
        if at.low <= at.bottom and at.high >= at.top:
            return True
        bottom, low, high, top = states
        moved = end - low  # by the events, which the states at `high` and `top` lack
        high, top = high + moved, top + moved
        hit, miss, both = (self._by_row(v) for v in (self.table.hit, self.table.miss, self.table.both))
        mine = np.arange(low.shape[2]) == c
        wrong = high[1] - high[0]
        # above, class c takes pixels: hits of its own, and pixels that are wrong where they are
        gained = np.where(mine, top[0] - high[0] + hit[:, c].sum(1, keepdims=True), 0)
        lost = np.where(mine, 0, wrong - (top[1] - top[0]) + miss[:, c])
        above = self._best_case(high, gained, lost)
        # below, it gives pixels away, and far classes take them from it, or from those it gives them to
        gained = np.where(mine, 0, bottom[0] - low[0] + hit[:, :, c])
        lost = np.where(mine, (low[1] - low[0] - bottom[1] + bottom[0])[:, [c]], 0) + both[:, c]
        below = self._best_case(low, gained, lost)
        return bool((at.high >= at.top or above < score) and (at.low <= at.bottom or below < score))

    def _best_case(self, state: NDArray[np.int64], gained: NDArray[np.int64], lost: NDArray[np.int64]) -> float:
        tp, pred = state
        lost = np.minimum(lost, pred - tp)
        tp, gained = np.minimum(tp + gained, self._truth), np.minimum(gained, self._truth - tp)
        tp, pred, truth = (v[:, self._scored].ravel() for v in (tp, pred + gained - lost, self._truth))
        return best_case(tp, pred, truth, self.measure)


def from_one(factor: int) -> tuple[float, int]:
    """Tell how far a factor is from 1 in its logarithm; of two as far, the smaller comes first."""
    return max(factor, ONE) / min(factor, ONE), factor


def nearest_to_one(first: int, last: int) -> int:
    """Return the factor of a range, both ends included, that is nearest to 1."""
    return min(max(first, ONE), last)


@lru_cache(maxsize=1)
def _steps() -> NDArray[np.int32]:
    """Offset of every factor from 1/128 to 128, int32 (8388097,): 34 MB, made once."""
    from ensemble_kit.kernels import tables

    return tables.offsets(np.arange(LEAST, MOST + 1)).astype(np.int32)


def _upto(events: NDArray[np.uint64], key: int) -> int:
    """Count the events up to a key."""
    return int(np.searchsorted(events, np.uint64((key + 1) << 32)))
