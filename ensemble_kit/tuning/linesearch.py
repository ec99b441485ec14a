"""The best factor of one class with the others fixed, exact over all of them (docs/concepts.md#rule-11-factors)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ensemble_kit.kernels.arguments import Bins, Outside, Score
from ensemble_kit.spec.factors import LEAST, MOST, ONE
from ensemble_kit.spec.scoring import Measure, coefficients
from ensemble_kit.tuning.contenders import ContenderTable
from ensemble_kit.tuning.curve import or_perfect

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ZERO = 1 << 31  # the key of an offset of 0: keys of sums are not negative
_OCTAVE = 16  # bins of a factor of 2, of which there are 14, unless counts by bin would take more than …
_COUNTS = 1 << 23  # … so many integers
_DOUBT = 1e-9  # of sums of up to 2^20 scores in float64


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


class _Survey(NamedTuple):
    """All factors of one class, by bin.

    Parameters
    ----------
    bins : the bins.
    counts : int32 (rows, 1 + bins, C, 3), of `kernels.lines.count_bins`.
    tp, pred : int64 (rows, C), while the class wins none of its pixels.
    events : uint64, in no order.
    exact : first and last bin whose start is exact.
    values, limits : float64 (bins,), the objective at each start, to about 1e-12, and a bound for all of the bin.
    """

    bins: Bins
    counts: NDArray[np.int32]
    tp: NDArray[np.int64]
    pred: NDArray[np.int64]
    events: NDArray[np.uint64]
    exact: tuple[int, int]
    values: NDArray[np.float64]
    limits: NDArray[np.float64]


class _Stretches(NamedTuple):
    """Some neighbouring bins, cut into stretches of factors without an event inside: int64 (n,) each.

    Parameters
    ----------
    keys : where a stretch begins; firsts, lasts : its factors; none where first > last.
    values : float64, the objective, to about 1e-15.
    same : bool, whether no score differs from the stretch before.
    end : the last key.
    events : uint64, sorted.
    tp, pred : int64 (rows, C), before the events.
    """

    keys: NDArray[np.int64]
    firsts: NDArray[np.int64]
    lasts: NDArray[np.int64]
    values: NDArray[np.float64]
    same: NDArray[np.bool_]
    end: int
    events: NDArray[np.uint64]
    tp: NDArray[np.int64]
    pred: NDArray[np.int64]

    def state(self, c: int, key: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return hits and pixels by winner at a key."""
        from ensemble_kit.kernels import lines

        tp, pred = self.tp.copy(), self.pred.copy()
        lines.replay(c, self.events[: np.searchsorted(self.events, np.uint64((key + 1) << 32))], tp, pred)
        return tp, pred

    def tied(self, floor: float) -> Iterator[tuple[int, int, int]]:
        """Yield the stretches of at least a score, joined where no score differs: key, first and last factor."""
        near = np.flatnonzero((self.values >= floor) & (self.firsts <= self.lasts))
        for g in np.split(near, np.flatnonzero((np.diff(near) > 1) | ~self.same[near[1:]]) + 1):
            if g.size:
                yield int(self.keys[g[0]]), int(self.firsts[g[0]]), int(self.lasts[g[-1]])


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
        self._score = Score(*coefficients(measure.metric), float(convention.eps), empty, skip)
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
        if not self._is_covered:
            return BestFactor(self.factors[c], self.score, (self.factors[c],) * 2, is_certain=False)
        seen = self._survey(c)
        first, last = seen.exact
        if first >= last:
            return BestFactor(self.factors[c], self.score, (self.factors[c],) * 2, is_certain=False)
        wanted = seen.limits >= seen.values[first : last + 1].max() - _DOUBT
        found = [self._look(c, seen, *group) for group in _groups(wanted, first, last)]
        top = max(f.values[f.firsts <= f.lasts].max() for f in found)
        floor = top - 4 * (2.0**-self._shift + 2.0**-52)
        tied = [(f, *stretch) for f in found for stretch in f.tied(floor)]
        scores = [self._exact(*f.state(c, key)) for f, key, _, _ in tied]
        best, spans = max(scores), list[tuple[int, int]]()
        for (_, _, start, end), score in zip(tied, scores, strict=True):
            if score == best:
                joins = bool(spans) and spans[-1][1] == start - 1
                spans = [*spans[:-1], (spans[-1][0], end)] if joins else [*spans, (start, end)]
        factor, plateau = min(((nearest_to_one(*s), s) for s in spans), key=lambda s: from_one(s[0]))
        self.factors[c], key = factor, self._key(factor)
        self.tp, self.pred = next(f for f in found if f.keys[0] <= key <= f.end).state(c, key)
        others = np.delete(seen.limits, slice(first, last))
        return BestFactor(factor, best, plateau, not (others >= best - _DOUBT).any())

    def plateau(self, c: int) -> tuple[int, int] | None:
        """Return the range of factors around that of class `c` with the same scores, both ends included.

        None where it goes on beyond what the table's ratio shows.
        """
        if not self._is_covered:
            return None
        seen, now = self._survey(c), self._key(self.factors[c])
        wanted, ends = seen.limits >= self.score - _DOUBT, seen.bins.starts
        for first, stop in _groups(wanted, *seen.exact):
            if ends[first] <= now <= ends[stop]:
                found = self._look(c, seen, first, stop)
                low = high = int(np.searchsorted(found.keys, now, "right")) - 1
                while found.same[low]:
                    low -= 1
                while high + 1 < found.keys.size and found.same[high + 1]:
                    high += 1
                goes_on = (low == 0 and wanted[first - 1 : first].any()) or (
                    high + 1 == found.keys.size and wanted[stop : stop + 1].any()
                )
                return None if goes_on else (int(found.firsts[low]), int(found.lasts[high]))
        return None

    @property
    def _is_covered(self) -> bool:
        """Whether no two factors are further apart than the table's ratio: if not, it lacks pixels that they decide."""
        keys, room = _keys_of(self.table.adds, np.array(self.factors)), self.table.room
        low, high = int(keys.min()), int(keys.max())
        return high - low <= int(room.gaps[0]) if self.table.adds else high <= low << int(room.shifts[0])

    def _survey(self, c: int) -> _Survey:
        """Count the pixels of class `c` by bin, and bound the objective."""
        from ensemble_kit.kernels import lines

        rows, C = self.tp.shape
        bins = _bins(self.table.adds, min(_OCTAVE, max(1, _COUNTS // (42 * rows * C))))
        B = bins.starts.size - 1
        pixels, begins = self.table.index
        events = np.empty(int((begins[c, self._samples + 1] - begins[c, self._samples]).sum()), np.uint64)
        counts, owned = np.zeros((rows, 1 + B, C, 3), np.int32), np.zeros((rows, C, 3), np.int64)
        scale, now = self.table.scale(self.factors), self._key(self.factors[c])
        laid = c, self.table.contenders, pixels, begins, self._samples, self._rows, scale, bins, now
        n = lines.count_bins(*laid, counts, owned, events)
        tp, pred = self._moved(c, owned, -1)
        values, limits = np.empty(B), np.empty(B)
        outside = self._outside(c, bins)
        lines.bound(c, counts, tp, pred, self._truth, self.table.silent, self._score, outside, values, limits)
        return _Survey(bins, counts, tp, pred, events[:n], (outside.first, outside.stop), values, limits)

    def _moved(
        self, c: int, counts: NDArray[Any], sign: int, state: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Give pixels (rows, former winner, kind) to class `c`, or with sign -1 back: new hits and pixels by winner."""
        tp, pred = (v.copy() for v in (state or (self.tp, self.pred)))
        pred -= sign * counts.sum(2)
        tp -= sign * counts[:, :, 2]
        pred[:, c] += sign * counts.sum((1, 2))
        tp[:, c] += sign * counts[:, :, 1].sum(1)
        return tp, pred

    def _look(self, c: int, seen: _Survey, first: int, stop: int) -> _Stretches:
        """Score every stretch of factors between two events in the bins `first … stop - 1`."""
        from ensemble_kit.kernels import lines

        low, high = (int(seen.bins.starts[b]) for b in (first, stop))
        tp, pred = self._moved(c, seen.counts[:, : first + 1].sum(1, dtype=np.int64), 1, (seen.tp, seen.pred))
        events = np.empty(int(seen.counts[:, first + 1 : stop + 1].sum()), np.uint64)
        lines.choose(seen.events, low, high, events)
        events.sort()
        room = events.size + 1
        keys, sums, counted = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.int64)
        same, laid = np.empty(room, np.bool_), (self._truth, self.table.silent, self._score, self._shift)
        n = lines.scan(c, events, tp.copy(), pred.copy(), *laid, keys, sums, counted, same)
        keys[0] = low
        firsts = self._first_factor(keys[:n])
        lasts = np.append(firsts[1:] - 1, self._first_factor(np.array([high])))
        values = np.where(counted[:n] == 0, 1.0, sums[:n] / np.maximum(counted[:n], 1) / 2.0**self._shift)
        return _Stretches(keys[:n], firsts, lasts, values, same[:n], high, events, tp, pred)

    def _outside(self, c: int, bins: Bins) -> Outside:
        """Find the bins that are exact, since no two factors are further apart there than the table's ratio."""
        room, keys = self.table.room, _keys_of(self.table.adds, np.array(self.factors))[:, None]
        if self.table.adds:
            lows, highs = keys - room.gaps, keys + room.gaps
        else:
            lows, highs = -(-keys >> room.shifts), keys << room.shifts
        other = np.arange(len(keys)) != c
        first = int(np.searchsorted(bins.starts, lows[other, 0].max()))
        stop = int(np.searchsorted(bins.starts, highs[other, 0].min(), "right")) - 1
        starts, ends = bins.starts[:-1, None, None], bins.starts[1:, None, None]
        may = np.zeros((starts.size, len(keys)), np.int64)
        may[:first], may[stop:] = (starts[:first] < lows).sum(2), (ends[stop:] > highs).sum(2)
        may = np.where(other, np.minimum(may, room.shifts.size - 1), 0)
        # below, class c gives decided pixels of its own to far classes; above, it takes pixels as a far class
        far, doubt = self.table.far, self._by_ratio(self.table.doubt[:, :, c])
        hits = self._by_ratio(np.where(other, far[:, :, :, c, 1], 0))
        lost = self._by_ratio(np.where(other, 0, far[:, :, [c], c, 0]))
        taken = self._by_ratio(np.where(other[:, None], far[:, :, c], 0))
        return Outside(first, stop, may, may.max(1), taken, doubt, hits, lost)

    def _by_ratio(self, counts: NDArray[Any]) -> NDArray[np.int64]:
        """Sum counts of samples by row, and within no ratio, the first one, the first two, and so on."""
        rows = self._by_row(counts)
        return np.concatenate([np.zeros_like(rows[:, :1]), rows.cumsum(1)], axis=1)

    def _key(self, factor: int) -> int:
        return int(_keys_of(self.table.adds, np.array([factor]))[0])

    def _first_factor(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """The least integer factor whose key is at least each of `keys`."""
        if not self.table.adds:
            return keys
        return LEAST + np.searchsorted(_steps(), (keys - _ZERO).astype(np.int32))  # of another type the table is copied


def from_one(factor: int) -> tuple[float, int]:
    """Tell how far a factor is from 1 in its logarithm; of two as far, the smaller comes first."""
    return max(factor, ONE) / min(factor, ONE), factor


def nearest_to_one(first: int, last: int) -> int:
    """Return the factor of a range, both ends included, that is nearest to 1."""
    return min(max(first, ONE), last)


def _groups(wanted: NDArray[np.bool_], first: int, last: int) -> list[tuple[int, int]]:
    """Join neighbouring bins that are wanted, of `first … last - 1`: first and stop of each group."""
    own = np.concatenate([[False], wanted[first:last], [False]]).astype(np.int8)
    edges = np.flatnonzero(np.diff(own)) + first
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def _keys_of(adds: bool, factors: NDArray[np.int64]) -> NDArray[np.int64]:
    from ensemble_kit.kernels import tables

    return tables.offsets(factors) + _ZERO if adds else factors


@lru_cache(maxsize=8)
def _bins(adds: bool, octave: int) -> Bins:
    """Cut the factors from 1/128 to 128 into so many bins an octave."""
    octaves = (MOST // LEAST).bit_length() - 1
    factors = np.unique(np.floor(LEAST * 2 ** (np.arange(octaves * octave + 1) / octave) + 0.5).astype(np.int64))
    starts, shift = _keys_of(adds, factors), 16 if adds else 8
    cells = np.arange(((starts[-1] - starts[0]) >> shift) + 1) << shift
    table = np.searchsorted(starts, cells + starts[0] + (cells == 0)) - 1
    return Bins(starts, table, shift)


@lru_cache(maxsize=1)
def _steps() -> NDArray[np.int32]:
    """Offset of every factor from 1/128 to 128, int32 (8388097,): 34 MB, made once."""
    from ensemble_kit.kernels import tables

    return tables.offsets(np.arange(LEAST, MOST + 1)).astype(np.int32)
