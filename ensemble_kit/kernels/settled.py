"""Pixels that are right for all factors that matter, told from the cells around them, and the values of the others.

Where all members give four cells to one class, by so much that no other comes within a ratio of factors, every pixel
between the cells is that class's: interpolation and fusing are means. Where it is the true class, larger ratios can
only lose the pixel, which no bound needs. `reference` has no part in this: `kernels.rows.values` evaluates every
pixel, and the two are compared.
"""

import numpy as np

from ensemble_kit.kernels.arguments import Axes
from ensemble_kit.kernels.blocks import codes_at
from ensemble_kit.kernels.exclusive import RowRoom, put_values
from ensemble_kit.kernels.jit import inline, kernel
from ensemble_kit.kernels.pixel_shares import MOST, make_share_room, put_shares


@kernel
def leaders(m, members, margin, out):
    """Write the class that leads each cell of member `m` by at least `margin`, int16 (rows, columns); -1 if none does.

    A code is its own value (`q` of exclusive classes).
    """
    rows, columns = out.shape
    best, second = np.empty(columns, np.int32), np.empty(columns, np.int32)
    for r in range(rows):
        best[:], second[:] = -1, -1
        for c in range(members.order.shape[0]):
            first = members.addresses[m] + members.order[c, m] * members.class_bytes[m]
            codes = codes_at(first + 2 * r * members.widths[m], columns)
            for k in range(columns):
                value = np.int32(codes[k])
                second[k] = max(second[k], min(best[k], value))
                out[r, k] = np.int16(c) if value > best[k] else out[r, k]
                best[k] = max(best[k], value)
        for k in range(columns):
            if best[k] - second[k] < margin:
                out[r, k] = -1


@inline
def _put_owners(y, found, axes, owner):
    """Write which class every member is sure of at each pixel of row `y`, or -1."""
    for m in range(len(found)):
        leading, a = found[m], axes.rows[m, y]
        b = min(a + 1, axes.last[m, 0])
        last = axes.last[m, 1]
        for x in range(owner.size):
            k = axes.cols[m, x]
            right = min(k + 1, last)
            c = leading[a, k]
            one = c == leading[a, right] and c == leading[b, k] and c == leading[b, right]
            if m == 0:
                owner[x] = c if one else -1
            elif not one or c != owner[x]:
                owner[x] = -1


@kernel
def open_values(first, stop, found, truth, void, members, scoring, exponentials, axes, decided):
    """Count the pixels of the rows `first … stop - 1` whose owner is their truth, and evaluate the others.

    Parameters
    ----------
    found : tuple of the `leaders` of each member.
    truth : uint16 (H, W).
    void : the truth of pixels that do not count.
    decided : int64 (C + 1, C), added to.

    Returns
    -------
    values uint32 (C, n), and truth uint16 (n,), of the other pixels.
    """
    width, classes = axes.cols.shape[1], members.order.shape[0]
    owner, n = np.empty((stop - first, width), np.int16), 0
    for y in range(first, stop):
        _put_owners(y, found, axes, owner[y - first])
        for x in range(width):
            t = truth[y, x]
            if t == void:
                owner[y - first, x] = -2
            elif owner[y - first, x] == t:
                decided[t, t] += 1
            else:
                owner[y - first, x] = -1
                n += 1
    out, labels, at = np.empty((classes, n), np.uint32), np.empty(n, np.uint16), 0
    room, powers = make_share_room(members, axes), exponentials.astype(np.int32)
    of_probability = (scoring.score_table == np.arange(65536)).all()
    fast = powers.size > 0 and classes <= MOST and of_probability
    for y in range(first, stop):
        xs = np.flatnonzero(owner[y - first] == -1)
        if xs.size == 0:
            continue
        if fast:
            put_shares(y, xs, members, powers, axes, room, out[:, at : at + xs.size])
        else:
            _put_others(y, xs, members, scoring, exponentials, axes, out[:, at : at + xs.size])
        for k in range(xs.size):
            labels[at + k] = truth[y, xs[k]]
        at += xs.size
    return out, labels


@inline
def _put_others(y, xs, members, scoring, exponentials, axes, out):
    """Evaluate pixels `xs` of row `y` as any row is evaluated."""
    classes = out.shape[0]
    cols, fractions = np.ascontiguousarray(axes.cols[:, xs]), np.ascontiguousarray(axes.col_fractions[:, xs])
    some = Axes(axes.rows, axes.row_fractions, cols, fractions, axes.last)
    room = RowRoom(
        np.empty(axes.last[:, 1].max() + 1, np.int64),
        np.empty((classes, xs.size), np.int64),
        np.empty(xs.size, np.int64),
        np.empty(xs.size, np.int64),
    )
    row = np.empty((classes, xs.size), np.int64)
    put_values(y, members, scoring, exponentials, some, room, row)
    for c in range(classes):
        for k in range(xs.size):
            out[c, k] = row[c, k]
