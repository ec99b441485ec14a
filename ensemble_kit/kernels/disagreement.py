"""How far members disagree at the pixels of some rows: variance of their probabilities, and mutual information.

In integers from the levels on; the formulas stand in docs/concepts.md#how-far-members-disagree.
"""

import numpy as np

from ensemble_kit.kernels.exclusive import make_row_room, put_scores
from ensemble_kit.kernels.jit import kernel


@kernel
def disagreement(first, stop, entropies, most, joint, members, scoring, exponentials, space):
    """Evaluate the rows `first … stop - 1` of the image, counted through all slices; 0 where no member has a say.

    Parameters
    ----------
    entropies : int64 (65537,), of every level, in bits × 2^24; the last entry stands behind the last level.
    most : what the largest information is, in bits × 2^40.
    joint : whether the information of all classes is added up: of exclusive classes.

    Returns
    -------
    variance, information : uint16 (C, rows, W) and (C or 1, rows, W); 65535 stands for 1/4, and for `most`.
    """
    room, classes, width = make_row_room(members, space), members.order.shape[0], space.cols.shape[1]
    variance = np.empty((classes, stop - first, width), np.uint16)
    information = np.empty((1 if joint else classes, stop - first, width), np.uint16)
    total = np.empty((3, classes, width), np.int64)
    gained = np.empty((information.shape[0], width), np.int64)
    for y in range(first, stop):
        total[:], gained[:] = 0, 0
        for k in range(space.col_at.size - 1):
            a, b = space.col_at[k], space.col_at[k + 1]
            own = space.sets[space.slice_box[y // space.rows.shape[1]], space.row_box[y % space.rows.shape[1]], k]
            if own < 0:
                continue
            for m in range(members.addresses.size):
                if space.weights[own, :, m].max() == 0:
                    continue
                put_scores(y, a, b, m, members, scoring, exponentials, space, room, room.scores)
                for c in range(classes):
                    weight = space.weights[own, c, m]
                    for x in range(a, b):
                        level = room.scores[c, x]
                        total[0, c, x] += weight * level
                        total[1, c, x] += weight * level * level
                        total[2, c, x] += weight * entropies[level]
        for c in range(classes):
            into = gained[0 if joint else c]
            for x in range(width):
                mean = total[0, c, x]
                level, rest = mean >> 16, mean & 65535
                spread = total[1, c, x] - level * (2 * mean - 65536 * level)  # about `level`, which keeps it below 2^47
                spread = 65536 * spread - rest * rest
                variance[c, y - first, x] = ((spread >> 14) + 32768 * 65535) // (65536 * 65535)
                of_mean = (65536 - rest) * entropies[level] + rest * entropies[level + 1]
                into[x] += max(of_mean - total[2, c, x], 0)
        for c in range(gained.shape[0]):
            for x in range(width):
                information[c, y - first, x] = min((2 * 65535 * gained[c, x] + most) // (2 * most), 65535)
    return variance, information
