"""Pixels that are right for all factors that matter, told from the cells around them, and the values of the others.

Where all members give four cells to one class, by so much that no other comes within a ratio of factors, every pixel
between the cells is that class's: interpolation and fusing are means. Where it is the true class, larger ratios can
only lose the pixel, which no bound needs. `reference` has no part in this: `kernels.rows.values` evaluates every
pixel, and the two are compared.
"""

import numpy as np

from ensemble_kit.kernels.jit import kernel
from ensemble_kit.kernels.open_row import make_open_room, put_open
from ensemble_kit.kernels.owners import make_owner_room, put_owners


@kernel
def open_values(first, stop, leading, certain, truth, void, members, scoring, exponentials, space, decided):
    """Count the pixels of the rows `first … stop - 1` whose owner is their truth, and evaluate the others.

    Parameters
    ----------
    leading, certain : what leads cells, and when it has a pixel for certain.
    truth : uint16 (rows, W), of these rows.
    void : the truth of pixels that do not count.
    decided : int64 (C + 1, C), added to.

    Returns
    -------
    values uint32 (C, n), and truth uint16 (n,), of the other pixels.
    """
    width, classes = space.cols.shape[1], members.order.shape[0]
    owner, names, n = np.empty((stop - first, width), np.int16), make_owner_room(space), 0
    for y in range(first, stop):
        put_owners(y, leading, certain, space, names, owner[y - first])
        for x in range(width):
            t = truth[y - first, x]
            if t == void:
                owner[y - first, x] = classes  # not open
            elif owner[y - first, x] == t:
                decided[t, t] += 1
            else:
                owner[y - first, x] = -1
                n += 1
    out, labels, at = np.empty((classes, n), np.uint32), np.empty(n, np.uint16), 0
    room, row = make_open_room(members, exponentials, space), np.empty((classes, width), np.int64)
    for y in range(first, stop):
        put_open(y, owner[y - first], members, scoring, exponentials, space, room, row)
        for x in range(width):
            if owner[y - first, x] == -1:
                for c in range(classes):
                    out[c, at] = max(row[c, x], 0)
                labels[at] = truth[y - first, x]
                at += 1
    return out, labels
