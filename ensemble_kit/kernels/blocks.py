"""Blocks of pixels of members whose grids differ: between which levels they lie, and their levels one by one.

A pixel's *effective level* is what its decision compares: on iff it is >= the threshold's level. Bilinear
interpolation is a convex combination and every table is monotone, so the levels of all pixels of a block lie
between bounds that the grid cells around it give. Most blocks are decided by these bounds alone; the others are
evaluated pixel by pixel, exactly. Members' codes are passed by address, so that any number of them, mapped from
any files, needs no copy and no new compilation.
"""

from typing import NamedTuple

import numpy as np
from numba import carray, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from ensemble_kit.kernels.jit import inline, kernel
from ensemble_kit.kernels.maps import maps_of

BLOCK = 32
"""Blocks are 32 x 32 pixels of the image."""


class Room(NamedTuple):
    """What the evaluation of a block needs: a row of cells, rows of cells interpolated to pixels, sums of pixels."""

    cells: NDArray[np.int64]
    lines: NDArray[np.int64]
    sums: NDArray[np.int64]


@intrinsic
def _pointer(typingctx, address):  # noqa: ARG001 - Numba's signature of an intrinsic
    signature = types.CPointer(types.uint16)(types.int64)

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return signature, generate


@inline
def codes_at(address, n):
    """View `n` codes at an address as an array."""
    return carray(_pointer(address), (n,))


@inline
def cells_around(first, stop, near, last):
    """First and last cell around the pixels `first … stop - 1`, of one axis of one member."""
    return near[first], min(near[stop - 1] + 1, last)


@kernel
def block_bounds(cls, members, scoring, axes):
    """Bounds of the effective levels in each block of one class: lower, upper, uint16 (blocks down, blocks across)."""
    maps, height, width = maps_of(members, cls), axes.rows.shape[1], axes.cols.shape[1]
    lower = np.empty((-(-height // BLOCK), -(-width // BLOCK)), np.uint16)
    upper, across = np.empty(lower.shape, np.uint16), lower.shape[1]
    sums, keys = np.empty((2, across), np.int64), np.empty((2, across), np.int16)
    extremes = np.empty((2, maps.widths.max()), np.int16)
    for by in range(lower.shape[0]):
        sums[:] = 32768
        for m in range(maps.weights.size):
            find_keys(by, m, maps, scoring.key_masks, axes, extremes, keys)
            weight, by_key = maps.weights[m], scoring.by_key[scoring.table_of[m]]
            for bx in range(across):
                sums[0, bx] += weight * by_key[np.int64(keys[0, bx]) + 32768]
                sums[1, bx] += weight * by_key[np.int64(keys[1, bx]) + 32768]
        for bx in range(across):
            lower[by, bx], upper[by, bx] = sums[0, bx] >> 16, sums[1, bx] >> 16
    return lower, upper


@kernel
def find_keys(by, m, maps, key_masks, axes, extremes, keys):
    """Write the smallest and the largest key of one member's cells around each block of row `by` into `keys` (2, n).

    `extremes` is room for the keys of one row of cells.
    """
    rows, cols, last = axes.rows[m], axes.cols[m], axes.last
    negative, sign = key_masks[0], key_masks[1]
    low, high = extremes[0], extremes[1]
    r0, r1 = cells_around(by * BLOCK, min((by + 1) * BLOCK, rows.size), rows, last[m, 0])
    c0, c1 = cells_around(0, cols.size, cols, last[m, 1])
    n = c1 - c0 + 1
    for r in range(r0, r1 + 1):
        row = codes_at(maps.addresses[m] + 2 * (r * maps.widths[m] + c0), n).view(np.int16)
        if r == r0:
            for x in range(n):
                key = (row[x] ^ ((row[x] >> 15) & negative)) ^ sign
                high[x] = key
                low[x] = key
        else:
            for x in range(n):
                key = (row[x] ^ ((row[x] >> 15) & negative)) ^ sign
                high[x] = max(high[x], key)
                low[x] = min(low[x], key)
    for bx in range(keys.shape[1]):
        first, end = cells_around(bx * BLOCK, min((bx + 1) * BLOCK, cols.size), cols, last[m, 1])
        top, bottom = high[first - c0], low[first - c0]
        for x in range(first - c0 + 1, end - c0 + 1):
            top = max(top, high[x])
            bottom = min(bottom, low[x])
        keys[0, bx], keys[1, bx] = bottom, top


@kernel
def make_room(axes):
    """Make the room of the largest block."""
    tallest, broadest = 1, 1
    for m in range(axes.rows.shape[0]):
        for y in range(0, axes.rows.shape[1], BLOCK):
            r0, r1 = cells_around(y, min(y + BLOCK, axes.rows.shape[1]), axes.rows[m], axes.last[m, 0])
            tallest = max(tallest, r1 - r0 + 1)
        for x in range(0, axes.cols.shape[1], BLOCK):
            c0, c1 = cells_around(x, min(x + BLOCK, axes.cols.shape[1]), axes.cols[m], axes.last[m, 1])
            broadest = max(broadest, c1 - c0 + 1)
    return Room(np.empty(broadest, np.int64), np.empty((tallest, BLOCK), np.int64), np.empty((BLOCK, BLOCK), np.int64))


@kernel
def put_levels(out, y0, y1, x0, x1, maps, scoring, axes, room):
    """Write the effective levels of the pixels of one block into `out[0:y1-y0, x0:x1]`.

    With `interpolate_members`, each member is interpolated and rounded, passed through `score_table`, then fused
    (upsample="logits"); otherwise members, which share one grid, are fused on it and the fused level is interpolated
    ("scores").
    """
    lines, sums, weights, score_table = room.lines, room.sums, maps.weights, scoring.score_table
    sums[: y1 - y0, : x1 - x0] = 32768
    for m in range(weights.size if scoring.interpolate_members else 1):
        r0, r1 = cells_around(y0, y1, axes.rows[m], axes.last[m, 0])
        put_lines(m, r0, r1, x0, x1, 1, maps, scoring, axes, room)
        for y in range(y0, y1):
            a = axes.rows[m, y] - r0
            b, fraction = min(a + 1, r1 - r0), axes.row_fractions[m, y]
            if scoring.interpolate_members:
                for x in range(x1 - x0):
                    q = ((256 - fraction) * lines[a, x] + fraction * lines[b, x] + 32768) >> 16
                    sums[y - y0, x] += weights[m] * score_table[q]
            else:
                for x in range(x1 - x0):
                    sums[y - y0, x] = (256 - fraction) * lines[a, x] + fraction * lines[b, x]
    for y in range(y1 - y0):
        for x in range(x1 - x0):
            out[y, x0 + x] = sums[y, x] >> 16


@inline
def put_lines(m, r0, r1, x0, x1, step, maps, scoring, axes, room):
    """Interpolate the rows of cells `r0 … r1` to every `step`-th of the pixels `x0 … x1 - 1`: score x 256, into lines.

    Scores are those of member `m`, or, without `interpolate_members`, the fused ones.
    """
    addresses, widths, weights, tables, table_of = (
        maps.addresses, maps.widths, maps.weights, scoring.tables, scoring.table_of
    )  # fmt: skip
    cells, lines, cols, fractions = room.cells, room.lines, axes.cols, axes.col_fractions
    c0, c1 = cells_around(x0, x1, cols[m], axes.last[m, 1])
    n = c1 - c0 + 1
    for r in range(r0, r1 + 1):
        if scoring.interpolate_members:
            row = codes_at(addresses[m] + 2 * (r * widths[m] + c0), n)
            for c in range(n):
                cells[c] = tables[table_of[m], row[c]]
        else:
            cells[:n] = 32768
            for k in range(addresses.size):
                row = codes_at(addresses[k] + 2 * (r * widths[k] + c0), n)
                for c in range(n):
                    cells[c] += weights[k] * tables[table_of[k], row[c]]
            for c in range(n):
                cells[c] >>= 16
        for x in range(x0, x1, step):
            a, fraction = cols[m, x] - c0, fractions[m, x]
            lines[r - r0, (x - x0) // step] = (256 - fraction) * cells[a] + fraction * cells[min(a + 1, n - 1)]


@inline
def draw_truth(truth, t, starts, ends, first, stop):
    """Draw the runs of the pixels `first … stop - 1` into the bytes `truth`, from run `t` on; return the next run."""
    truth[:] = 0
    while t < starts.size and starts[t] < stop:
        for p in range(max(starts[t], first), min(ends[t], stop)):
            truth[p - first] = 1
        if ends[t] > stop:
            break
        t += 1
    return t
