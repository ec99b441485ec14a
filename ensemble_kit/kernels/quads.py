"""Cells that share one grid, looked at four at a time, at the speed at which their logits can be read.

The codes whose score reaches a level are one interval of the 65,536 (`fused.py` finds it), so a first pass compares
64 cells at a time and keeps two bits a cell: whether *any* member reaches the level, and whether *all* do. A *quad*
is a cell and its right, lower and diagonal neighbour; bilinear interpolation is a convex combination and every
table is monotone, so the pixels between four cells that no member has on are off, and those between four that all
have on are on, without arithmetic. What is left, about 0.2 % of a bone's image, is evaluated exactly.

A walk over the rows of quads turns bits into *events*: the quads where what the pixels are (off, on, or mixed)
changes. No image of levels and no mask is made. Where no pixel lies between two rows or columns of cells, as on an
image of the grid's own size, a quad leaves out the neighbours that weigh nothing.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ensemble_kit.kernels.jit import inline, kernel
from ensemble_kit.kernels.words import AHEAD, code_at, codes_within, fetch, half_up, lowest

OFF, ON, MIXED = 0, 1, 2


class Room(NamedTuple):
    """What a walk over the quads of one class after another needs.

    Parameters
    ----------
    any_bits, all_bits : int64 (h, words), bits of all cells, as `mark` sets them.
    columns, kinds : int64 and int8 (w,), events of one row of quads.
    scores : int64 (2, w, n), of the cells of two rows; one score, or with `interpolate_members` two of each member.
    scored_rows : int64 (2, w), the row, counted through all classes, whose scores stand there.
    """

    any_bits: NDArray[np.int64]
    all_bits: NDArray[np.int64]
    columns: NDArray[np.int64]
    kinds: NDArray[np.int8]
    scores: NDArray[np.int64]
    scored_rows: NDArray[np.int64]


@inline
def make_room(members, scoring, pixels):
    """Make the room of a walk."""
    h, w, n = pixels.row_at.size - 1, pixels.col_at.size - 1, 1
    if scoring.interpolate_members:
        n = 2 * members.addresses.size
    any_bits, all_bits = np.empty((h, (w + 63) // 64), np.int64), np.empty((h, (w + 63) // 64), np.int64)
    columns, kinds = np.empty(w, np.int64), np.empty(w, np.int8)
    scores, scored_rows = np.empty((2, w, n), np.int64), np.empty((2, w), np.int64)
    for c in range(w):
        scored_rows[0, c], scored_rows[1, c] = -1, -1
    return Room(any_bits, all_bits, columns, kinds, scores, scored_rows)


@kernel
def mark(maps, firsts, spans, width, any_bits, all_bits):
    """Set bit c of row r where any member reaches the low level in cell (r, c), and where all reach the high one.

    `firsts` and `spans` (2, M) are those of one class in `Reach`. Member after member, so that each class map is read
    as one stream: eight rows of every member in turn cost a third more.
    """
    words = any_bits.shape[1]
    for m in range(maps.addresses.size):
        low, low_span, high, high_span = firsts[0, m], spans[0, m], firsts[1, m], spans[1, m]
        low_mask, high_mask = np.int64(0 if low_span < 0 else -1), np.int64(0 if high_span < 0 else -1)
        for r in range(any_bits.shape[0]):
            row = maps.addresses[m] + 2 * r * maps.widths[m]
            for k in range(words):
                if 64 * k + 64 <= width:
                    fetch(row + 128 * k + AHEAD)
                    some = codes_within(row + 128 * k, low, low_span) & low_mask
                    every = codes_within(row + 128 * k, high, high_span) & high_mask
                else:
                    some = _last_word(row, 64 * k, width, low, low_span)
                    every = _last_word(row, 64 * k, width, high, high_span)
                if m == 0:
                    any_bits[r, k], all_bits[r, k] = some, every
                else:
                    any_bits[r, k] |= some
                    all_bits[r, k] &= every


@inline
def _last_word(row, begin, width, first, span):
    """Compare the fewer than 64 cells at the end of a row, one by one."""
    word = np.int64(0)
    for x in range(width - begin):
        if ((code_at(row + 2 * (begin + x)) - first) & 65535) <= span:
            word |= np.int64(1) << x
    return word


@inline
def neighbours(fractions, at):
    """Tell for each row (or column) of cells whether some pixel behind it lies between it and the next one."""
    out = np.zeros(at.size - 1, np.int64)
    for r in range(at.size - 1):
        for y in range(at[r], at[r + 1]):
            out[r] |= fractions[y] != 0
    return out


@inline
def rows_in_use(bits):
    """Tell which rows of quads have a bit in one of their two rows of cells."""
    h = bits.shape[0]
    used = np.zeros(h, np.bool_)
    for r in range(h):
        seen = np.int64(0)
        for k in range(bits.shape[1]):
            seen |= bits[r, k]
        used[r] = seen != 0
    for r in range(h - 1):
        used[r] |= used[r + 1]
    return used


@inline
def find_events(r, r2, across, room):
    """Write the quads of rows `r` and `r2` where the kind of the pixels changes, or is mixed; return how many.

    A quad at the right edge of the grid has itself for a neighbour, and so has every quad without `across`.
    """
    any_bits, all_bits, columns, kinds = room.any_bits, room.all_bits, room.columns, room.kinds
    words, n = any_bits.shape[1], 0
    was_on, was_mixed = np.int64(0), np.int64(0)  # of the last quad before this word
    some, every = any_bits[r, 0] | any_bits[r2, 0], all_bits[r, 0] & all_bits[r2, 0]
    for k in range(words):
        valid = np.int64(-1)
        if k + 1 < words:
            some_next, every_next = any_bits[r, k + 1] | any_bits[r2, k + 1], all_bits[r, k + 1] & all_bits[r2, k + 1]
        else:
            end = columns.size - 64 * k
            some_next, every_next = some >> (end - 1), every >> (end - 1)
            if end < 64:  # the cell behind the last one repeats it
                valid = (np.int64(1) << end) - 1
                some |= some_next << end
                every |= every_next << end
        maybe, on = some, every & valid
        if across:
            maybe |= half_up(some) | (some_next << 63)
            on &= half_up(every) | (every_next << 63)
        mixed = maybe & ~on & valid
        event = ((on ^ ((on << 1) | was_on)) | mixed | (mixed << 1) | was_mixed) & valid
        if k == 0:
            event |= 1  # the row before may have ended in any state
        while event != 0:
            bit = lowest(event)
            event &= event - 1
            columns[n] = 64 * k + bit
            kinds[n] = ON if (on >> bit) & 1 else MIXED if (mixed >> bit) & 1 else OFF
            n += 1
        was_on, was_mixed = (on >> 63) & 1, (mixed >> 63) & 1
        some, every = some_next, every_next
    return n


@inline
def score_cells(r, r2, across, n, row_offset, maps, scoring, room):
    """Put the scores of cells (r, c) and (r2, c) of mixed quads into `scores[row & 1, c]`, unless they are there.

    One score, the fused one; or with `interpolate_members` each member's `q`, then what `score_table` makes of each.
    Quads share cells with their neighbours: three of four are there already. `row_offset` is the rows of all classes
    before this one.
    """
    addresses, widths, weights = maps.addresses, maps.widths, maps.weights
    tables, table_of, score_table = scoring.tables, scoring.table_of, scoring.score_table
    columns, kinds, scores, scored_rows = room.columns, room.kinds, room.scores, room.scored_rows
    members, h, w, line = addresses.size, room.any_bits.shape[0], columns.size, np.int64(-1)
    for e in range(n):
        if kinds[e] != MIXED:
            continue
        if columns[e] >> 5 != line and r + 3 < h:  # outlines go on: ask for the cells that the next rows will need
            line = columns[e] >> 5
            for m in range(members):
                fetch(addresses[m] + 2 * ((r + 3) * widths[m] + columns[e]))
        follows = e + 1 < n and kinds[e + 1] == MIXED and columns[e + 1] == columns[e] + 1
        for corner in range(2 if follows or not across else 4):  # the right corners are the next quad's left ones
            row = r2 if corner & 1 else r
            c = min(columns[e] + (corner >> 1), w - 1)
            if scored_rows[row & 1, c] == row_offset + row:
                continue
            scored_rows[row & 1, c] = row_offset + row
            if scoring.interpolate_members:
                for m in range(members):
                    score = np.int64(tables[table_of[m], code_at(addresses[m] + 2 * (row * widths[m] + c))])
                    scores[row & 1, c, m] = score
                    scores[row & 1, c, members + m] = score_table[score]
                continue
            total = np.int64(32768)  # nothing is stored on the way: the arrays above need not be looked up again
            for m in range(members):
                code = code_at(addresses[m] + 2 * (row * widths[m] + c))
                total += weights[m] * np.int64(tables[table_of[m], code])
            scores[row & 1, c, 0] = total >> 16


@inline
def look_closer(r, r2, across, n, low, high, weights, interpolate_members, room):
    """Turn mixed quads whose corners allow it into OFF (all pixels below `low`) or ON (all reach `high`).

    Events that then change nothing are dropped; return how many are left.
    """
    columns, kinds, scores = room.columns, room.kinds, room.scores
    kept, members, w = 0, weights.size, columns.size
    for e in range(n):
        c, kind = columns[e], kinds[e]
        if kind == MIXED:
            c2 = min(c + across, w - 1)
            least, most = np.int64(32768), np.int64(32768)
            for m in range(members if interpolate_members else 1):
                k = members + m if interpolate_members else 0
                a, b, d, f = scores[r & 1, c, k], scores[r & 1, c2, k], scores[r2 & 1, c, k], scores[r2 & 1, c2, k]
                if interpolate_members:
                    least += weights[m] * min(a, b, d, f)
                    most += weights[m] * max(a, b, d, f)
                else:
                    least, most = min(a, b, d, f) << 16, max(a, b, d, f) << 16
            kind = OFF if most >> 16 < low else ON if least >> 16 >= high else MIXED
        if e == 0 or kind == MIXED or kind != kinds[kept - 1]:
            columns[kept], kinds[kept] = c, kind
            kept += 1
    return kept


@inline
def find_sides(scores, r, r2, c, c2, fy, sides):
    """Interpolate a quad's left and right cells down to one row of pixels: level x 256 of every score, (2, scores)."""
    for m in range(sides.shape[1]):
        sides[0, m] = (256 - fy) * scores[r & 1, c, m] + fy * scores[r2 & 1, c, m]
        sides[1, m] = (256 - fy) * scores[r & 1, c2, m] + fy * scores[r2 & 1, c2, m]


@inline
def fused_between(sides, fx, score_table, weights):
    """The effective level of one pixel between two sides, each member interpolated first."""
    total = np.int64(32768)
    for m in range(weights.size):
        total += weights[m] * score_table[((256 - fx) * sides[0, m] + fx * sides[1, m] + 32768) >> 16]
    return total >> 16
