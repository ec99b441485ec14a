"""Rows of labels, one after the other, become stretches of one label; `labels.runs_of` makes runs of them."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ensemble_kit.kernels.jit import kernel
from ensemble_kit.kernels.lanes import equal, load_long, word
from ensemble_kit.kernels.words import address_of, lowest

LANES = 32


class Stretches(NamedTuple):
    """Stretches of pixels that have one label, in the order of the pixels.

    Parameters
    ----------
    starts : int64 (room,), first pixel of each; it reaches to the next one's.
    labels : int16 (room,), classes by number; -1 is none.
    """

    starts: NDArray[np.int64]
    labels: NDArray[np.int16]


@kernel
def make_stretches(room):
    """Make room for so many stretches."""
    return Stretches(np.empty(room, np.int64), np.empty(room, np.int16))


@kernel
def longer(stretches, n, room):
    """Copy the first `n` stretches into those of a larger room."""
    starts, labels = np.empty(room, np.int64), np.empty(room, np.int16)
    for k in range(n):
        starts[k], labels[k] = stretches.starts[k], stretches.labels[k]
    return Stretches(starts, labels)


@kernel
def append_row(row, width, first, stretches, n):
    """Append the stretches of the first `width` of a row of labels, int16, which are the pixels from `first` on.

    Room for as many is expected. Returns how many there are then: a row goes on with the stretch before it where the
    label is the same.
    """
    starts, labels = stretches
    if n == 0 or row[0] != labels[n - 1]:
        starts[n], labels[n] = first, row[0]
        n += 1
    x, address = 1, address_of(row)
    while x + LANES <= width:
        same = equal(load_long(address + 2 * x), load_long(address + 2 * x - 2))
        bits = word(same) ^ 0xFFFFFFFF
        while bits != 0:
            p = x + lowest(bits)
            starts[n], labels[n] = first + p, row[p]
            n += 1
            bits &= bits - 1
        x += LANES
    for p in range(x, width):
        if row[p] != row[p - 1]:
            starts[n], labels[n] = first + p, row[p]
            n += 1
    return n
