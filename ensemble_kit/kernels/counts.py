"""From counts by level to a score at every level."""

import numpy as np

from ensemble_kit.kernels.jit import kernel


@kernel
def add_scores(levels, pixels, hits, above, above_hits, truth, low, high, eps, empty, skip, total, counted):
    """Add one sample's Dice at every level of `low … high` to `total`, and 1 to `counted` where it counts.

    `levels`, `pixels` and `hits` are what `fuse.level_counts` returns: the levels that occur, ascending, and how
    many pixels and truth pixels each has; `above` and `above_hits` are those at `high` and beyond. A pair of two
    empty masks is worth `empty`, or does not count with `skip`.
    """
    pred, tp, upper = above, above_hits, high
    for k in range(levels.size, -1, -1):
        lowest = np.int64(levels[k - 1]) + 1 if k > 0 else low
        if pred + truth == 0:
            value, one = (0.0, 0) if skip else (empty, 1)
        else:
            value, one = (2 * tp + eps) / (pred + truth + eps), 1
        for level in range(lowest - low, upper - low + 1):
            total[level] += value
            counted[level] += one
        if k > 0:
            pred += pixels[k - 1]
            tp += hits[k - 1]
            upper = lowest - 1
