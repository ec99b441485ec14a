"""From counts by level to a score at every level, and back."""

import numpy as np

from ensemble_kit.kernels.jit import kernel


@kernel
def add_scores(levels, pred, tp, above, above_tp, truth, low, high, a, b, c, eps, empty, skip, total, counted):
    """Add one sample's score at every level of `low … high` to `total`, and 1 to `counted` where it counts.

    `levels` are those that occur, ascending; `pred` and `tp` the pixels and truth pixels at each of them and above,
    `above` and `above_tp` those at `high` and beyond. The score is `(a tp + eps) / (pred + b truth - c tp + eps)`;
    a pair of two empty masks is worth `empty`, or does not count with `skip`.
    """
    upper = high
    for k in range(levels.size, -1, -1):
        p, t = (pred[k], tp[k]) if k < levels.size else (above, above_tp)
        lowest = np.int64(levels[k - 1]) + 1 if k > 0 else low
        if p + truth == 0:
            value, one = (0.0, 0) if skip else (empty, 1)
        else:
            value, one = (a * t + eps) / (p + b * truth - c * t + eps), 1
        for level in range(lowest - low, upper - low + 1):
            total[level] += value
            counted[level] += one
        upper = lowest - 1


@kernel
def add_counts(levels, pred, tp, above, above_tp, low, high, total_pred, total_tp):
    """Add one sample's pixels and truth pixels at or above every level of `low … high` to the totals."""
    upper = high
    for k in range(levels.size, -1, -1):
        p, t = (pred[k], tp[k]) if k < levels.size else (above, above_tp)
        lowest = np.int64(levels[k - 1]) + 1 if k > 0 else low
        for level in range(lowest - low, upper - low + 1):
            total_pred[level] += p
            total_tp[level] += t
        upper = lowest - 1


@kernel
def counts_at(level, offsets, levels, pred, tp, above, above_tp, out_tp, out_pred):
    """Write every sample's truth pixels and pixels at or above `level`.

    Sample s has the entries `offsets[s]:offsets[s+1]` of `levels`, `pred` and `tp`, ascending by level.
    """
    for s in range(above.size):
        first, last = offsets[s], offsets[s + 1]
        while first < last:
            middle = (first + last) // 2
            if levels[middle] < level:
                first = middle + 1
            else:
                last = middle
        if first == offsets[s + 1]:
            out_tp[s], out_pred[s] = above_tp[s], above[s]
        else:
            out_tp[s], out_pred[s] = tp[first], pred[first]
