"""Decide voxels of members that share one grid, some slices of the image at a time: `cells.py` between two slices.

A *cube* is a quad of `quads.py` and the same quad of the slice of cells behind it. Voxels between eight cells that no
member has on are off, and those between eight that all have on are on, without arithmetic; so each class needs two bits
a cell of two slices, and only cells around mixed cubes are scored.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ensemble_kit.kernels.jit import inline, kernel, routine
from ensemble_kit.kernels.maps import maps_of
from ensemble_kit.kernels.quads import (
    MIXED,
    OFF,
    ON,
    Events,
    events_at,
    find_events,
    find_kinds,
    make_events,
    mark,
    neighbours,
    rows_in_use,
)
from ensemble_kit.kernels.runs import grown
from ensemble_kit.kernels.words import code_at, fetch


class Bits(NamedTuple):
    """Bits of the cells of two slices, as `quads.mark` sets them: int64 (classes, 2, h, words)."""

    any_bits: NDArray[np.int64]
    all_bits: NDArray[np.int64]


class Slices(NamedTuple):
    """The slices of cells before and behind some slices of the image.

    Parameters
    ----------
    slots : int64 (2,), where their bits are kept, 0 or 1; the same where no slice of the image lies between two.
    fractions : int64 (n,), share of the slice behind, of 256, of each slice of the image; one that repeats the one
        before it has -1.
    first : number of the first of those slices.
    """

    slots: NDArray[np.int64]
    fractions: NDArray[np.int64]
    first: int


class Room(NamedTuple):
    """What a walk over the cubes of one class after another needs.

    Parameters
    ----------
    events : Events, of one row of cubes.
    scores : int64 (2, w, n), of the cells of two rows; one score, or with `interpolate_members` two of each member.
    scored_rows : int64 (2, w), the row, counted through all classes, whose scores stand there.
    """

    events: Events
    scores: NDArray[np.int64]
    scored_rows: NDArray[np.int64]


@inline
def _make_room(members, scoring, pixels):
    """Make the room of a walk."""
    h, w, n = pixels.row_at.size - 1, pixels.col_at.size - 1, 1
    if scoring.interpolate_members:
        n = 2 * members.addresses.size
    return Room(make_events(h, w), np.empty((2, w, n), np.int64), np.full((2, w), -1, np.int64))


@kernel
def enter(slot, width, classes, reach, members, bits):
    """Set the bits of a slice of cells, `width` a row."""
    for k in range(classes.size):
        maps = maps_of(members, classes[k])
        mark(maps, reach.firsts[k], reach.spans[k], width, bits.any_bits[k, slot], bits.all_bits[k, slot])


@kernel
def decide_slices(slices, classes, levels, before, behind, scoring, pixels, bits):
    """Edges of the voxels of slices of the image whose effective level reaches their class's.

    Parameters
    ----------
    classes, levels : int64 (n,), numbers of the classes to decide, and the level of each.
    before, behind : Members, of the slice of cells before and of that behind.
    pixels : Pixels, of a slice.

    Returns
    -------
    edges : int64, starts and ends in turn, class after class; each slice closes what it opened.
    offsets : int64 (n + 1,), where each class's begin.
    """
    h, H, W = pixels.row_at.size - 1, pixels.row_fractions.size, pixels.col_fractions.size
    room, far = _make_room(before, scoring, pixels), _make_room(behind, scoring, pixels)
    down = neighbours(pixels.row_fractions, pixels.row_at)
    across = neighbours(pixels.col_fractions, pixels.col_at).max()
    edges, n, walks = np.empty(16384, np.int64), np.int64(0), np.int64(0)
    offsets = np.zeros(classes.size + 1, np.int64)
    for k in range(classes.size):
        near_maps, far_maps = maps_of(before, classes[k]), maps_of(behind, classes[k])
        _put_bits(k, slices.slots, bits, room.events)
        used, begin = rows_in_use(room.events.any_bits), n
        for z in range(slices.fractions.size):
            if slices.fractions[z] < 0:
                begin, count = n, n - begin
                while n + count > edges.size:
                    edges = grown(edges)
                for e in range(count):
                    edges[n + e] = edges[begin - count + e] + H * W
                n += count
                continue
            begin, r, on = n, np.int64(0), np.bool_(False)
            offset, origin, fz = walks * h, (slices.first + z) * H * W, slices.fractions[z]
            walks += 1
            while r < h:
                r, n, on = _decide_rows(
                    r, edges, n, on, levels[k], fz, origin, offset, used, down, across, near_maps, far_maps, scoring,
                    pixels, room, far,
                )  # fmt: skip
                if r < h:
                    edges = grown(edges)
            if on:
                edges[n] = origin + H * W
                n += 1
        offsets[k + 1] = n
    return edges[:n].copy(), offsets


@inline
def _put_bits(k, slots, bits, events):
    """Join the bits of two slices: any member in either, all members in both."""
    a, b = slots
    for r in range(events.any_bits.shape[0]):
        for word in range(events.any_bits.shape[1]):
            events.any_bits[r, word] = bits.any_bits[k, a, r, word] | bits.any_bits[k, b, r, word]
            events.all_bits[r, word] = bits.all_bits[k, a, r, word] & bits.all_bits[k, b, r, word]


@routine
def _decide_rows(
    first, edges, n, on, level, fz, origin, offset, used, down, across, maps, far_maps, scoring, pixels, room, far
):
    """Append one slice's edges from row `first` of cells on, until all is done or `edges` is full; return where.

    As `cells._decide_rows`; `far` has the scores of the slice behind, of the same cubes as `room`.
    """
    row_at, row_fractions, col_at, col_fractions = pixels
    columns, kinds, interpolate_members = room.events.columns, room.events.kinds, scoring.interpolate_members
    h, w, W, members = row_at.size - 1, col_at.size - 1, col_fractions.size, maps.weights.size
    at = events_at(room.events)
    sides = np.empty((2, members if interpolate_members else 1), np.int64)
    far_sides = np.empty_like(sides)
    for r in range(first, h):
        if row_at[r] == row_at[r + 1]:
            continue
        if not used[r]:
            if on:
                edges[n] = origin + row_at[r] * W
                n, on = n + 1, False
            continue
        r2 = min(r + down[r], h - 1)
        find_kinds(r, r2, across, at)
        found = find_events(at)
        _score_cells(r, r2, across, found, offset, maps, scoring, room)
        if fz:
            for e in range(found):
                far.events.columns[e], far.events.kinds[e] = columns[e], kinds[e]
            _score_cells(r, r2, across, found, offset, far_maps, scoring, far)
        found = _look_closer(r, r2, across, found, level, maps.weights, interpolate_members, room, far if fz else room)
        most = 1
        for e in range(found):
            most += col_at[columns[e] + 1] - col_at[columns[e]] if kinds[e] == MIXED else 1
        if n + (row_at[r + 1] - row_at[r]) * most > edges.size:
            return r, n, on
        for y in range(row_at[r], row_at[r + 1]):
            fy, row = row_fractions[y], origin + y * W
            for e in range(found):
                c = columns[e]
                if kinds[e] != MIXED:
                    edges[n] = row + col_at[c]
                    n += on != (kinds[e] == ON)
                    on = kinds[e] == ON
                    continue
                c2 = min(c + across, w - 1)
                _find_sides(room.scores, r, r2, c, c2, fy, sides)
                if fz:
                    _find_sides(far.scores, r, r2, c, c2, fy, far_sides)
                for m in range(sides.shape[1]):
                    for side in range(2):
                        sides[side, m] = (256 - fz) * sides[side, m] + (fz * far_sides[side, m] if fz else 0)
                if interpolate_members:
                    for x in range(col_at[c], col_at[c + 1]):
                        now = _fused_between(sides, col_fractions[x], scoring.score_table, maps.weights) >= level
                        edges[n] = row + x
                        n += now != on
                        on = now
                else:
                    left, right = sides[0, 0], sides[1, 0]
                    for x in range(col_at[c], col_at[c + 1]):
                        now = (256 - col_fractions[x]) * left + col_fractions[x] * right >= level << 24
                        edges[n] = row + x
                        n += now != on
                        on = now
    return h, n, on


@inline
def _score_cells(r, r2, across, n, row_offset, maps, scoring, room):
    """Put the scores of cells (r, c) and (r2, c) of mixed quads into `scores[row & 1, c]`, unless they are there.

    One score, the fused one; or with `interpolate_members` each member's `q`, then what `score_table` makes of each.
    Quads share cells with their neighbours: three of four are there already. `row_offset` is the rows of all classes
    before this one.
    """
    addresses, widths, weights = maps.addresses, maps.widths, maps.weights
    tables, table_of, score_table = scoring.tables, scoring.table_of, scoring.score_table
    columns, kinds, scores, scored_rows = room.events.columns, room.events.kinds, room.scores, room.scored_rows
    members, h, w, line = addresses.size, room.events.any_bits.shape[0], columns.size, np.int64(-1)
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
def _look_closer(r, r2, across, n, level, weights, interpolate_members, room, far):
    """Turn mixed cubes whose corners allow it into OFF or ON."""
    columns, kinds, members = room.events.columns, room.events.kinds, weights.size
    kept, w = 0, columns.size
    for e in range(n):
        c, kind = columns[e], kinds[e]
        if kind == MIXED:
            c2 = min(c + across, w - 1)
            least, most = np.int64(32768), np.int64(32768)
            for m in range(members if interpolate_members else 1):
                low, high = _extremes(room.scores, r, r2, c, c2, members + m if interpolate_members else 0)
                far_low, far_high = _extremes(far.scores, r, r2, c, c2, members + m if interpolate_members else 0)
                low, high = min(low, far_low), max(high, far_high)
                if interpolate_members:
                    least += weights[m] * low
                    most += weights[m] * high
                else:
                    least, most = low << 16, high << 16
            kind = OFF if most >> 16 < level else ON if least >> 16 >= level else MIXED
        if e == 0 or kind == MIXED or kind != kinds[kept - 1]:
            columns[kept], kinds[kept] = c, kind
            kept += 1
    return kept


@inline
def _extremes(scores, r, r2, c, c2, k):
    """Smallest and largest of four cells of a slice."""
    a, b, d, f = scores[r & 1, c, k], scores[r & 1, c2, k], scores[r2 & 1, c, k], scores[r2 & 1, c2, k]
    return min(a, b, d, f), max(a, b, d, f)


@inline
def _find_sides(scores, r, r2, c, c2, fy, sides):
    """Interpolate a cube's left and right cells down to one row of pixels: level x 256 of every score, (2, scores)."""
    for m in range(sides.shape[1]):
        sides[0, m] = (256 - fy) * scores[r & 1, c, m] + fy * scores[r2 & 1, c, m]
        sides[1, m] = (256 - fy) * scores[r & 1, c2, m] + fy * scores[r2 & 1, c2, m]


@inline
def _fused_between(sides, fx, score_table, weights):
    """The effective level of one voxel between two sides, level × 2^16 each, every member interpolated first."""
    total = np.int64(32768)
    for m in range(weights.size):
        total += weights[m] * score_table[((256 - fx) * sides[0, m] + fx * sides[1, m] + (1 << 23)) >> 24]
    return total >> 16
