"""Counts at the levels of a ladder, and the best of them in draws of groups."""

import numpy as np

from ensemble_kit.kernels.jit import kernel


@kernel
def counts_on_ladder(ladder, offsets, levels, pred, tp, above, above_tp, out_tp, out_pred):
    """Write every sample's truth pixels and pixels at or above each level of `ladder`, which ascends.

    Sample s has the entries `offsets[s]:offsets[s+1]` of `levels`, `pred` and `tp`, ascending by level; `above` and
    `above_tp` are those above them all.
    """
    for s in range(above.size):
        k, last = offsets[s], offsets[s + 1]
        for j in range(ladder.size):
            while k < last and levels[k] < ladder[j]:
                k += 1
            out_tp[s, j] = tp[k] if k < last else above_tp[s]
            out_pred[s, j] = pred[k] if k < last else above[s]


@kernel
def best_of_draws(draws, top, foot, eps, order, out):
    """Write, for each draw, the index of the level with the best `(top + eps) / (foot + eps)`.

    `draws` says how often each draw has each group; `top` is (groups, levels), `foot` the same or (groups, 1) where it
    is one for all levels. Of equal scores the first in `order` is taken. Sums run over groups in their order, so the
    result is the same on any machine; rows of levels are added at once, which takes vector instructions.
    """
    size = top.shape[1]
    wide = foot.shape[1] == size
    tops, feet = np.empty(size), np.empty(foot.shape[1])
    for b in range(draws.shape[0]):
        tops[:], feet[:] = eps, eps
        for g in range(draws.shape[1]):
            times = draws[b, g]
            if times:
                for j in range(size):
                    tops[j] += times * top[g, j]
                for j in range(feet.size):
                    feet[j] += times * foot[g, j]
        best = -1.0
        for j in order:
            under = feet[j] if wide else feet[0]
            score = tops[j] / under if under > 0 else 1.0
            if score > best:
                best, out[b] = score, j
