"""The best score of a class at every level, over every least area below which a sample's mask is emptied."""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ensemble_kit.kernels.counts import score_pair
from ensemble_kit.kernels.jit import inline, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray


class AreaTable(NamedTuple):
    """Counts of one class by level, with the areas that a least area is compared with.

    Parameters
    ----------
    offsets : int64 (samples + 1,); sample s has the entries `offsets[s]:offsets[s+1]` of the next four.
    levels : uint16 (n,), ascending within a sample.
    pred, tp, area : (n,), pixels that count, truth pixels, and all pixels at that level and above.
    above, above_tp, above_area : int64 (samples,), those above all these levels.
    truth : int64 (samples,).
    """

    offsets: NDArray[np.int64]
    levels: NDArray[np.uint16]
    pred: NDArray[Any]
    tp: NDArray[Any]
    area: NDArray[Any]
    above: NDArray[np.int64]
    above_tp: NDArray[np.int64]
    above_area: NDArray[np.int64]
    truth: NDArray[np.int64]


@kernel
def best_by_level(ends, table, units, most, use, form, floor, score, pooled):
    """Maximise over all least areas at some levels, for several choices of samples at once.

    At a level the samples stand in the order of their areas, and a least area empties those below it: all of them are
    as many sums as there are samples. Going down the levels areas only grow, so a sample that changes moves up a few
    places. From one level to the next the best sum rises by no more than the scores that rise, and, where a sample
    passes another, by what the other gains when it is emptied, or this one when it is kept. Until that reaches the
    floor no sum is made: of 59,000 levels of 160 samples a few hundred are left, with the best of every 256th as floor.

    Parameters
    ----------
    ends : int64 (n,), ascending: the levels.
    table : `AreaTable`.
    units : float64 (samples,), what an area is divided by before areas are compared: equal shares stay equal so.
    most : no mask is larger, as sizes are compared, and masks of this size are never emptied.
    use : float64 (samples, choices), 1 for the samples that count, 0 for the others.
    form : float64 (choices, 2): with `pooled` the truth pixels of a choice, and `b truth + eps`; else zeros.
    floor : float64 (choices,): scores below it need not be told apart.
    score : `arguments.Score`.
    pooled : whether pixels are added up, and not scores.

    Returns
    -------
    float64 (choices, n): the best score, 1 where no sample counts; -1 at levels where all choices stay below the floor.
    """
    n, m = use.shape
    at, order, place, size = table.offsets[1:].copy(), np.arange(n), np.arange(n), np.empty(n)
    after = np.full(n, -1)  # the level at which a sample changes next
    kept, empty = np.empty((n, 2)), np.empty((n, 2))
    out, top, foot, reach = np.full((m, ends.size), -1.0), np.empty(m), np.empty(m), np.full(m, np.inf)
    all_empty = np.zeros((m, 2))
    for s in range(n):
        size[s] = table.above_area[s] / units[s]
        kept[s, 0], kept[s, 1] = _sides(table.above[s], table.above_tp[s], table.truth[s], score, pooled)
        empty[s, 0], empty[s, 1] = _sides(0, 0, table.truth[s], score, pooled)
        if at[s] > table.offsets[s]:
            after[s] = table.levels[at[s] - 1]
        for j in range(m):
            all_empty[j, 0] += use[s, j] * empty[s, 0]
            all_empty[j, 1] += use[s, j] * empty[s, 1]
    ratios = pooled or score.skip
    _sort(order, place, size)
    for row in range(ends.size - 1, -1, -1):
        for s in range(n):
            if after[s] < ends[row]:
                continue
            first, k = table.offsets[s], at[s] - 1
            while k > first and table.levels[k - 1] >= ends[row]:
                k -= 1
            at[s], after[s] = k, np.int64(table.levels[k - 1]) if k > first else -1
            before = kept[s, 0]
            kept[s, 0], kept[s, 1] = _sides(table.pred[k], table.tp[k], table.truth[s], score, pooled)
            size[s] = table.area[k] / units[s]
            if kept[s, 0] > before:
                for j in range(m):
                    reach[j] += use[s, j] * (kept[s, 0] - before)
            _raise(s, order, place, size, kept, empty, use, reach)
        hopeful = ratios
        for j in range(m):
            hopeful |= reach[j] + _SLACK >= floor[j] * all_empty[j, 1]
        if not hopeful:
            continue
        if ratios:
            _best_ratios(order, size, kept, empty, all_empty, most, use, form, score, pooled, top, foot, out[:, row])
        else:
            _best_sums(order, size, kept, empty, all_empty, most, use, top, reach, out[:, row])
    return out


_SLACK = 1e-6  # far above what the sum of a few million differences is off by


@inline
def _sides(pred, tp, truth, score, pooled):
    """What a sample adds to both sides of the fraction: its score and one; with `pooled` its hits and pixels."""
    if pooled:
        return np.float64(tp), np.float64(pred)
    value, counts = score_pair(pred, tp, truth, score)
    return value, np.float64(counts)


@inline
def _best_sums(order, size, kept, empty, all_empty, most, use, top, reach, out):
    """Write the best mean over all least areas, and into `reach` the best sum; every sample counts."""
    n, m = use.shape
    for j in range(m):
        top[j] = reach[j] = all_empty[j, 0]
        out[j] = top[j] if size[order[n - 1]] < most else -np.inf
    for k in range(n - 1, -1, -1):  # the samples order[k:] keep their masks
        s = order[k]
        gain = kept[s, 0] - empty[s, 0]
        for j in range(m):
            top[j] += use[s, j] * gain
            reach[j] = max(reach[j], top[j])
        if k > 0 and size[order[k - 1]] == size[s]:
            continue
        for j in range(m):
            out[j] = max(out[j], top[j])
    for j in range(m):
        out[j] = out[j] / all_empty[j, 1] if all_empty[j, 1] > 0 else 1.0


@inline
def _best_ratios(order, size, kept, empty, all_empty, most, use, form, score, pooled, top, foot, out):
    """Write the best score over all least areas, where a least area changes how much counts, too."""
    n, m = use.shape
    a, c, eps = (score.a, score.c, score.eps) if pooled else (1.0, 0.0, 0.0)
    nothing = 1.0 if score.skip or not pooled else score.empty
    for j in range(m):
        top[j], foot[j] = all_empty[j, 0], all_empty[j, 1]
    for k in range(n, -1, -1):
        if k < n:
            s = order[k]
            gain, more = kept[s, 0] - empty[s, 0], kept[s, 1] - empty[s, 1]
            for j in range(m):
                top[j] += use[s, j] * gain
                foot[j] += use[s, j] * more
        if size[order[n - 1]] >= most if k == n else k > 0 and size[order[k - 1]] == size[order[k]]:
            continue
        for j in range(m):
            under = foot[j] - c * top[j] + form[j, 1]
            value = (a * top[j] + eps) / under if foot[j] + form[j, 0] > 0 else nothing
            out[j] = max(out[j], value)


@inline
def _sort(order, place, size):
    """Sort sample numbers by size, of equal sizes by number, and write where each stands."""
    for s in range(order.size):
        order[s], place[s] = s, s
        for k in range(s, 0, -1):
            if size[order[k - 1]] <= size[s]:
                break
            order[k], order[k - 1] = order[k - 1], s
            place[order[k]], place[s] = k, k - 1


@inline
def _raise(s, order, place, size, kept, empty, use, reach):
    """Move a sample whose size has grown up to its place; add to `reach` what the new order can gain."""
    k, loss = place[s], kept[s, 0] - empty[s, 0]
    while k + 1 < order.size:
        other = order[k + 1]
        if size[other] > size[s] or (size[other] == size[s] and other > s):
            break
        gain = min(loss, empty[other, 0] - kept[other, 0])
        if gain > 0:
            for j in range(reach.size):
                reach[j] += use[s, j] * use[other, j] * gain
        order[k], place[other] = other, k
        k += 1
    order[k], place[s] = s, k
