"""Decide pixels of members that share one grid: runs from the events of `quads.py`, without a mask."""

import numpy as np

from ensemble_kit.kernels.jit import kernel
from ensemble_kit.kernels.quads import (
    MIXED,
    ON,
    find_events,
    find_planes,
    find_sides,
    fused_between,
    grown,
    look_closer,
    make_room,
    mark,
    neighbours,
    rows_in_use,
    score_cells,
)


@kernel
def decide(
    chosen,
    levels,
    firsts,
    spans,
    planes,
    order,
    weights,
    tables,
    table_of,
    after,
    row_at,
    row_parts,
    col_at,
    col_parts,
    late,
):
    """Runs of the pixels whose effective level reaches their class's.

    Parameters
    ----------
    chosen, levels : int64 (n,), numbers of the classes to decide, and the level of each.
    firsts, spans : int64 (n, 2, M), the codes that reach the level, `first … first + span` or none if span < 0; twice.
    planes : int64 (M, 3), of each member: where its box begins in the class that it has first, the bytes from one
        class to the next, and the cells of a row of its grid.
    order : int64 (C, M), where each class stands in each member.
    weights : int64 (C, M), adding up to 65536 in each row.
    tables : uint16 (T, 65536), score of each code. table_of : int64 (M,), which is each member's.
    after : uint16 (65536,), what an interpolated score becomes.
    row_at, col_at : int64 (h + 1,) and (w + 1,), first pixel below and right of each row and column of cells; every
        column has a pixel (W >= w). row_parts, col_parts : int64 (H,) and (W,), weight of the far neighbour, of 256.
    late : interpolate each member, then fuse (upsample="logits"); otherwise fuse, then interpolate ("scores").

    Returns
    -------
    starts, ends : int64 (runs,) of all chosen classes; offsets : int64 (n + 1,), where each class's begin.
    """
    members, h, w, H, W = order.shape[1], row_at.size - 1, col_at.size - 1, row_parts.size, col_parts.size
    any_bits, all_bits, places, kinds, scores, stamps = make_room(h, w, 2 * members if late else 1)
    down, across = neighbours(row_parts, row_at), neighbours(col_parts, col_at).max()
    addresses, edges, n = np.empty(members, np.int64), np.empty(16384, np.int64), 0
    offsets = np.zeros(chosen.size + 1, np.int64)
    for k in range(chosen.size):
        cls = chosen[k]
        find_planes(planes, order[cls], addresses)
        mark(addresses, planes, w, firsts[k], spans[k], any_bits, all_bits)
        used = rows_in_use(any_bits)
        r, on = 0, False
        while r < h:
            r, n, on = _decide_rows(
                r,
                edges,
                n,
                on,
                k * h,
                used,
                down,
                across,
                any_bits,
                all_bits,
                places,
                kinds,
                scores,
                stamps,
                addresses,
                planes,
                levels[k],
                tables,
                table_of,
                after,
                weights[cls],
                row_at,
                row_parts,
                col_at,
                col_parts,
                late,
            )
            if r < h:
                edges = grown(edges)
        if on:
            edges[n] = H * W
            n += 1
        offsets[k + 1] = n // 2
    starts, ends = np.empty(n // 2, np.int64), np.empty(n // 2, np.int64)
    for k in range(n // 2):
        starts[k], ends[k] = edges[2 * k], edges[2 * k + 1]
    return starts, ends, offsets


@kernel
def _decide_rows(
    first,
    edges,
    n,
    on,
    stamp,
    used,
    down,
    across,
    any_bits,
    all_bits,
    places,
    kinds,
    scores,
    stamps,
    addresses,
    planes,
    level,
    tables,
    table_of,
    after,
    weights,
    row_at,
    row_parts,
    col_at,
    col_parts,
    late,
):
    """Append one class's edges from row `first` on, until all is done or `edges` is full; return where it stopped.

    Growing `edges` in here would keep it in memory for the sake of the rare case: the walk took five times as long.
    """
    h, w, W, members = row_at.size - 1, col_at.size - 1, col_parts.size, weights.size
    sides = np.empty((2, members), np.int64)
    for r in range(first, h):
        if row_at[r] == row_at[r + 1]:
            continue
        if not used[r]:
            if on:
                edges[n] = row_at[r] * W
                n, on = n + 1, False
            continue
        r2 = min(r + down[r], h - 1)
        found = find_events(r, r2, across, any_bits, all_bits, w, places, kinds)
        score_cells(
            r,
            r2,
            across,
            found,
            places,
            kinds,
            addresses,
            planes,
            h,
            w,
            tables,
            table_of,
            after,
            weights,
            late,
            scores,
            stamps,
            stamp,
        )
        found = look_closer(r, r2, across, found, places, kinds, level, level, w, weights, late, scores)
        most = 1
        for e in range(found):
            most += col_at[places[e] + 1] - col_at[places[e]] if kinds[e] == MIXED else 1
        if n + (row_at[r + 1] - row_at[r]) * most > edges.size:
            return r, n, on
        for y in range(row_at[r], row_at[r + 1]):
            fy = row_parts[y]
            for e in range(found):
                c = places[e]
                if kinds[e] != MIXED:
                    edges[n] = y * W + col_at[c]  # written always, kept where the state changes: nothing to mispredict
                    n += on != (kinds[e] == ON)
                    on = kinds[e] == ON
                    continue
                find_sides(scores, r, r2, c, min(c + across, w - 1), fy, late, members, sides)
                if late:
                    for x in range(col_at[c], col_at[c + 1]):
                        now = fused_between(sides, col_parts[x], after, weights) >= level
                        edges[n] = y * W + x
                        n += now != on
                        on = now
                else:
                    left, right = sides[0, 0], sides[1, 0]
                    for x in range(col_at[c], col_at[c + 1]):
                        now = (256 - col_parts[x]) * left + col_parts[x] * right >= level << 16
                        edges[n] = y * W + x
                        n += now != on
                        on = now
    return h, n, on
