"""Decide pixels of members that share one grid: runs from the events of `quads.py`, without a mask."""

import numpy as np

from ensemble_kit.kernels.jit import kernel
from ensemble_kit.kernels.lanes import all_ints, greater, load_ints, word
from ensemble_kit.kernels.maps import maps_of
from ensemble_kit.kernels.quads import MIXED, ON, any_between, find_events, find_kinds, mark, neighbours, rows_in_use
from ensemble_kit.kernels.runs import grown, split_edges
from ensemble_kit.kernels.settling import score_cells, settle
from ensemble_kit.kernels.spans import LANES, end_of_span, evaluate, make_room, walk_of
from ensemble_kit.kernels.words import lowest


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
    across = any_between(pixels.col_fractions)
    edges, n = np.empty(16384, np.int64), np.int64(0)  # as literals, n, r and on had `_decide_rows` compiled twice
    offsets = np.zeros(classes.size + 1, np.int64)
    for k in range(classes.size):
        maps, events = maps_of(members, classes[k]), room.events
        mark(maps, reach.firsts[k], reach.spans[k], events.columns.size, events.any_bits, events.all_bits)
        used = rows_in_use(events.any_bits)
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
    row_at, row_fractions, col_at, _ = pixels
    columns, kinds, walk = room.events.columns, room.events.kinds, walk_of(maps, scoring, pixels, room)
    h, W = row_at.size - 1, pixels.col_fractions.size
    for r in range(first, h):
        if row_at[r] == row_at[r + 1]:
            continue
        if not used[r]:
            if on:
                edges[n] = row_at[r] * W
                n, on = n + 1, False
            continue
        r2 = min(r + down[r], h - 1)
        if find_kinds(r, r2, across, walk.events):
            score_cells(r, r2, row_offset, walk)
            settle(r, r2, across, level, level, walk)
        found = find_events(walk.events)
        most = 1
        for e in range(found):
            most += col_at[columns[e] + 1] - col_at[columns[e]] if kinds[e] == MIXED else 1
        if n + (row_at[r + 1] - row_at[r]) * most > edges.size:
            return r, n, on
        for y in range(row_at[r], row_at[r + 1]):
            e = 0
            while e < found:
                c = columns[e]
                if kinds[e] != MIXED:
                    edges[n] = y * W + col_at[c]  # written always, kept where the state changes: nothing to mispredict
                    n += on != (kinds[e] == ON)
                    on = kinds[e] == ON
                    e += 1
                    continue
                e = end_of_span(e, found, columns, kinds)
                stop = columns[e - 1] + 1
                evaluate(r, r2, across, c, stop, row_fractions[y], walk, walk.levels)
                begin, size = y * W + col_at[c], col_at[stop] - col_at[c]
                for x in range(0, size, LANES):
                    reached = word(greater(load_ints(walk.levels + 4 * x), all_ints(level - 1)))
                    change = (reached ^ ((reached << 1) | on)) & ((1 << min(size - x, LANES)) - 1)
                    while change != 0:
                        edges[n] = begin + x + lowest(change)
                        n += 1
                        change &= change - 1
                        on = not on
    return h, n, on
