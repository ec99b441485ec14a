"""Pixels that one class has for certain, told from the cells around them: no value is evaluated there.

Interpolating is a mean. A class's lead over another between cells is one of those at the cells; and since the logarithm
of a sum of exponentials is convex, its softmax is at least the least of theirs. Fusing is a mean of what each member
says, so members that are sure of a class outweigh those that are not.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ensemble_kit.kernels.blocks import codes_at
from ensemble_kit.kernels.jit import inline, kernel


class OwnerRoom(NamedTuple):
    """What a row needs: the class that leads around each column of cells, and around each pixel by member.

    Parameters
    ----------
    new : bool (W,), whether other cells lie around a pixel than around the one before.
    row, owner : int64 (1,) and int16 (W,), the row that was looked at last, and what was found.
    """

    line: NDArray[np.int16]
    line_strengths: NDArray[np.uint16]
    classes: NDArray[np.int16]
    strengths: NDArray[np.uint16]
    new: NDArray[np.bool_]
    row: NDArray[np.int64]
    owner: NDArray[np.int16]


@kernel
def make_owner_room(space):
    """Make the room of a row."""
    members, width = space.cols.shape
    columns, new = space.last[:, 1].max() + 1, np.zeros(width, np.bool_)
    for k in range(space.col_at.size - 1):
        new[space.col_at[k]] = True
    for m in range(members):
        for x in range(1, width):
            between = (space.col_fractions[m, x] > 0) != (space.col_fractions[m, x - 1] > 0)
            new[x] = new[x] or between or space.cols[m, x] != space.cols[m, x - 1]
    return OwnerRoom(
        np.empty(columns, np.int16),
        np.empty(columns, np.uint16),
        np.empty((members, width), np.int16),
        np.empty((members, width), np.uint16),
        new,
        np.full(1, -2),
        np.empty(width, np.int16),
    )


@kernel
def leaders(m, begin, members, exponentials, out, strengths):
    """Write the class that leads each cell of member `m`, the first of equals, and its strength.

    That is, times 65535 and cut, its share of the cell where there are `exponentials`; else its code, or what the
    second leaves of 65535, whichever is less.

    Parameters
    ----------
    begin : the first slice of cells; those of an image have one.
    out, strengths : int16 and uint16 (slices, rows, columns).
    """
    slices, rows, columns = out.shape
    best, second, total = np.empty(columns, np.int32), np.empty(columns, np.int32), np.empty(columns, np.int64)
    for s in range(slices):
        for r in range(rows):
            best[:], second[:], total[:] = -1, 0, 0
            for c in range(members.order.shape[0]):
                first = members.addresses[m] + members.order[c, m] * members.class_bytes[m]
                first += (begin + s) * members.slice_bytes[m]
                codes = codes_at(first + 2 * r * members.widths[m], columns)
                for k in range(columns):
                    value = np.int32(codes[k])
                    second[k] = max(second[k], min(best[k], value))
                    out[s, r, k] = np.int16(c) if value > best[k] else out[s, r, k]
                    best[k] = max(best[k], value)
                if exponentials.size:
                    for k in range(columns):
                        total[k] += exponentials[codes[k]]
            for k in range(columns):
                if exponentials.size:
                    strengths[s, r, k] = 65535 * exponentials[best[k]] // total[k]
                else:
                    strengths[s, r, k] = min(best[k], 65535 - second[k])


@inline
def _put_line(z, y, m, leading, space, room):
    """Write which class leads in the cells of each column around a row of the image, and the least strength, or 0."""
    rows, columns = space.last[m, 0] + 1, space.last[m, 1] + 1
    near, a = space.slices[m, z] - leading.begins[m], space.rows[m, y]
    far, b = near + (space.slice_fractions[m, z] > 0), a + (space.row_fractions[m, y] > 0)
    classes, strengths, at = leading.classes, leading.strengths, leading.at[m]
    upper, lower = at + (near * rows + a) * columns, at + (near * rows + b) * columns
    behind, below = at + (far * rows + a) * columns, at + (far * rows + b) * columns
    for k in range(columns):
        c = classes[upper + k]
        one = c == classes[lower + k] and c == classes[behind + k] and c == classes[below + k]
        least = min(strengths[upper + k], strengths[lower + k], strengths[behind + k], strengths[below + k])
        room.line[k], room.line_strengths[k] = c, least if one else np.uint16(0)


@kernel
def put_owners(row, leading, certain, space, room, owner):
    """Write which class has each pixel of a row for certain into `owner`, int16 (W,), or -1."""
    owner[:] = -1
    if leading.classes.size == 0:
        return
    z, y = row // space.rows.shape[1], row % space.rows.shape[1]
    before, room.row[0] = room.row[0], row
    if before == row - 1 and _between_the_same(y, space):
        for x in range(owner.size):
            owner[x] = room.owner[x]
        return
    for k in range(space.col_at.size - 1):
        own, first, stop = space.sets[space.slice_box[z], space.row_box[y], k], space.col_at[k], space.col_at[k + 1]
        if own < 0:
            continue
        for m in range(leading.at.size):
            if leading.weights[own, m] == 0:
                continue
            _put_line(z, y, m, leading, space, room)
            for x in range(first, stop):
                if room.new[x]:
                    left = space.cols[m, x]
                    right = left + (space.col_fractions[m, x] > 0)
                    one = room.line[left] == room.line[right]
                    least = min(room.line_strengths[left], room.line_strengths[right])
                    room.classes[m, x], room.strengths[m, x] = room.line[left], least if one else np.uint16(0)
        _put_certain(first, stop, own, leading, certain, space, room, owner)
    for x in range(owner.size):
        room.owner[x] = owner[x]


@inline
def _between_the_same(y, space):
    """Tell whether a row of a slice lies between the same cells as the row before it."""
    same = y > 0 and space.row_box[y] == space.row_box[y - 1]
    for m in range(space.rows.shape[0] if same else 0):
        between = (space.row_fractions[m, y] > 0) == (space.row_fractions[m, y - 1] > 0)
        same = same and between and space.rows[m, y] == space.rows[m, y - 1]
    return same


@inline
def _put_certain(first, stop, own, leading, certain, space, room, owner):
    """Find for each pixel the class that most of the weight leads to, and whether it has the pixel for certain."""
    weights, by_class, classes, strengths = leading.weights[own], space.weights[own], room.classes, room.strengths
    for x in range(first, stop):
        if not room.new[x]:
            owner[x] = owner[x - 1]
            continue
        candidate, ahead = np.int64(-1), np.int64(0)
        for m in range(weights.size):
            if weights[m] > 0 and strengths[m, x] > 0:
                ahead += weights[m] if classes[m, x] == candidate else -weights[m]
                if ahead < 0:
                    candidate, ahead = np.int64(classes[m, x]), -ahead
        if candidate < 0:
            continue
        low, high = np.int64(0), np.int64(0)
        for m in range(weights.size):
            if weights[m] > 0:
                strength = strengths[m, x] if classes[m, x] == candidate else np.uint16(0)
                low += by_class[candidate, m] * leading.low[strength]
                high += weights[m] * leading.high[strength]
        if low < certain.least[candidate] or high >= certain.most[candidate] or low - high < certain.lead[candidate]:
            continue
        others = high * certain.other_scales[candidate] + certain.other_offsets[candidate]
        if low * certain.scales[candidate] + certain.offsets[candidate] > others:
            owner[x] = candidate


@inline
def open_until(owner, x):
    """Return where the pixels from `x` on that nobody has for certain end."""
    while x < owner.size and owner[x] < 0:
        x += 1
    return x
