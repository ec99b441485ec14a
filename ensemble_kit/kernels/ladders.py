"""Counts at the levels of a ladder, and the best of them in draws of groups."""

import numpy as np

from ensemble_kit.kernels.jit import kernel


@kernel
def counts_on_ladder(samples, ladder, offsets, levels, pred, tp, above, above_tp, out_tp, out_pred):
    """Write some samples' truth pixels and pixels at or above each level of `ladder`, which ascends.

    Sample s has the entries `offsets[s]:offsets[s+1]` of `levels`, `pred` and `tp`, ascending by level; `above` and
    `above_tp` are those above them all.
    """
    for row, s in enumerate(samples):
        k, last = offsets[s], offsets[s + 1]
        for j in range(ladder.size):
            while k < last and levels[k] < ladder[j]:
                k += 1
            out_tp[row, j] = tp[k] if k < last else above_tp[s]
            out_pred[row, j] = pred[k] if k < last else above[s]


@kernel
def add_to_draws(draws, first, top, foot, tops, feet):
    """Add the groups from `first` on to the sums of each draw: their rows of `top` and `foot`, as often as it has them.

    `tops` is (draws, levels), `feet` the same or (draws, 1) where it is one for all levels. Sums run over groups in
    their order, so the result is the same on any machine, and however many groups are added at a time; rows of levels
    are added at once, which takes vector instructions.
    """
    for b in range(draws.shape[0]):
        for g in range(top.shape[0]):
            times = np.float64(draws[b, first + g])
            if times:
                for j in range(tops.shape[1]):
                    tops[b, j] += times * top[g, j]
                for j in range(feet.shape[1]):
                    feet[b, j] += times * foot[g, j]


@kernel
def best_of_draws(tops, feet, order, out):
    """Write, for each draw, the index of the level with the best `tops / feet`; the first in `order` of equal ones."""
    wide = feet.shape[1] == tops.shape[1]
    for b in range(tops.shape[0]):
        best = -1.0
        for j in order:
            under = feet[b, j] if wide else feet[b, 0]
            score = tops[b, j] / under if under > 0 else 1.0
            if score > best:
                best, out[b] = score, j
