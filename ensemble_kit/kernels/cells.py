"""Decide pixels of members that share one grid: runs from the events of `quads.py`, without a mask."""

import numpy as np

from ensemble_kit.kernels.jit import kernel
from ensemble_kit.kernels.maps import maps_of
from ensemble_kit.kernels.quads import (
    MIXED,
    ON,
    find_events,
    find_sides,
    fused_between,
    look_closer,
    make_room,
    mark,
    neighbours,
    rows_in_use,
    score_cells,
)
from ensemble_kit.kernels.runs import grown, split_edges


@kernel
def decide(classes, levels, reach, members, scoring, pixels):
    """Runs of the pixels whose effective level reaches their class's.

    Parameters
    ----------
    classes, levels : int64 (n,), numbers of the classes to decide, and the level of each.
    reach : Reach, of the level; twice.
    members, scoring, pixels : Members, Scoring, Pixels.

    Returns
    -------
    starts, ends : int64 (runs,) of all classes; offsets : int64 (n + 1,), where each class's begin.
    """
    row_at, h = pixels.row_at, pixels.row_at.size - 1
    room = make_room(members, scoring, pixels)
    down = neighbours(pixels.row_fractions, row_at)
    across = neighbours(pixels.col_fractions, pixels.col_at).max()
    edges, n = np.empty(16384, np.int64), np.int64(0)  # as literals, n, r and on had `_decide_rows` compiled twice
    offsets = np.zeros(classes.size + 1, np.int64)
    for k in range(classes.size):
        maps = maps_of(members, classes[k])
        mark(maps, reach.firsts[k], reach.spans[k], room.columns.size, room.any_bits, room.all_bits)
        used = rows_in_use(room.any_bits)
        r, on = np.int64(0), np.bool_(False)
        while r < h:
            r, n, on = _decide_rows(r, edges, n, on, levels[k], k * h, used, down, across, maps, scoring, pixels, room)
            if r < h:
                edges = grown(edges)
        if on:
            edges[n] = pixels.row_fractions.size * pixels.col_fractions.size
            n += 1
        offsets[k + 1] = n // 2
    starts, ends = split_edges(edges, n)
    return starts, ends, offsets


@kernel
def _decide_rows(first, edges, n, on, level, row_offset, used, down, across, maps, scoring, pixels, room):
    """Append one class's edges from row `first` on, until all is done or `edges` is full; return where it stopped.

    Growing `edges` in here would keep it in memory for the sake of the rare case: the walk took five times as long.
    """
    row_at, row_fractions, col_at, col_fractions = pixels
    columns, kinds, interpolate_members = room.columns, room.kinds, scoring.interpolate_members
    h, w, W = row_at.size - 1, col_at.size - 1, col_fractions.size
    sides = np.empty((2, maps.weights.size if interpolate_members else 1), np.int64)
    for r in range(first, h):
        if row_at[r] == row_at[r + 1]:
            continue
        if not used[r]:
            if on:
                edges[n] = row_at[r] * W
                n, on = n + 1, False
            continue
        r2 = min(r + down[r], h - 1)
        found = find_events(r, r2, across, room)
        score_cells(r, r2, across, found, row_offset, maps, scoring, room)
        found = look_closer(r, r2, across, found, level, level, maps.weights, interpolate_members, room)
        most = 1
        for e in range(found):
            most += col_at[columns[e] + 1] - col_at[columns[e]] if kinds[e] == MIXED else 1
        if n + (row_at[r + 1] - row_at[r]) * most > edges.size:
            return r, n, on
        for y in range(row_at[r], row_at[r + 1]):
            fy = row_fractions[y]
            for e in range(found):
                c = columns[e]
                if kinds[e] != MIXED:
                    edges[n] = y * W + col_at[c]  # written always, kept where the state changes: nothing to mispredict
                    n += on != (kinds[e] == ON)
                    on = kinds[e] == ON
                    continue
                find_sides(room.scores, r, r2, c, min(c + across, w - 1), fy, sides)
                if interpolate_members:
                    for x in range(col_at[c], col_at[c + 1]):
                        now = fused_between(sides, col_fractions[x], scoring.score_table, maps.weights) >= level
                        edges[n] = y * W + x
                        n += now != on
                        on = now
                else:
                    left, right = sides[0, 0], sides[1, 0]
                    for x in range(col_at[c], col_at[c + 1]):
                        now = (256 - col_fractions[x]) * left + col_fractions[x] * right >= level << 16
                        edges[n] = y * W + x
                        n += now != on
                        on = now
    return h, n, on
