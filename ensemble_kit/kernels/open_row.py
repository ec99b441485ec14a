"""Evaluate the pixels of a row that no class has for certain: shares of exclusive classes in vectors."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ensemble_kit.kernels.exclusive import OFF, RowRoom, make_row_room, put_values
from ensemble_kit.kernels.jit import inline, kernel
from ensemble_kit.kernels.owners import open_until
from ensemble_kit.kernels.pixel_shares import MOST, ShareRoom, make_share_room, put_shares


class OpenRoom(NamedTuple):
    """What some pixels of a row need.

    Parameters
    ----------
    row : what a run of them needs.
    shares : what those need that are evaluated in vectors.
    powers : int32, the exponentials; empty where nothing is evaluated in vectors.
    xs : int64 (W,), pixels that are evaluated together.
    values : uint32 (C, W), theirs.
    """

    row: RowRoom
    shares: ShareRoom
    powers: NDArray[np.int32]
    xs: NDArray[np.int64]
    values: NDArray[np.uint32]


@kernel
def make_open_room(members, exponentials, space):
    """Make the room of the pixels of a row."""
    classes, width = members.order.shape[0], space.cols.shape[1]
    powers = exponentials.astype(np.int32)
    return OpenRoom(
        make_row_room(members, space),
        make_share_room(members, space),
        powers if classes <= MOST else powers[:0],
        np.empty(width, np.int64),
        np.empty((classes, width), np.uint32),
    )


@kernel
def put_open(y, owner, members, scoring, exponentials, space, room, row):
    """Write the fused values of the pixels of a row whose owner is below 0 into `row`, as `put_values` does."""
    height = space.rows.shape[1]
    for box in range(space.col_at.size - 1):
        first, stop = space.col_at[box], space.col_at[box + 1]
        own = space.sets[space.slice_box[y // height], space.row_box[y % height], box]
        if own >= 0 and room.powers.size:
            _put_vectors(y, first, stop, owner, space.weights[own], members, scoring, space, room, row)
            continue
        while first < stop:
            end = min(open_until(owner, first), stop)
            if first < end:
                put_values(y, first, end, members, scoring, exponentials, space, room.row, row)
            first = max(end, first + 1)


@inline
def _put_vectors(y, first, stop, owner, weights, members, scoring, space, room, row):
    """Write values of pixels that one set of members is fused in."""
    xs, n = room.xs, 0
    for x in range(first, stop):
        if owner[x] < 0:
            xs[n] = x
            n += 1
    if n == 0:
        return
    put_shares(y, xs[:n], weights, members, scoring, room.powers, space, room.shares, room.values[:, :n])
    for c in range(row.shape[0]):
        if weights[c].sum() == 0:
            for k in range(n):
                row[c, xs[k]] = OFF
        else:
            for k in range(n):
                row[c, xs[k]] = room.values[c, k]
