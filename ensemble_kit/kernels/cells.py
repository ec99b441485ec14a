"""Decide pixels of members that share one grid: runs from the events of `quads.py`, without a mask."""

import numpy as np

from ensemble_kit.kernels.jit import kernel
from ensemble_kit.kernels.quads import (
    MIXED,
    ON,
    find_class_maps,
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
from ensemble_kit.kernels.runs import grown


@kernel
def decide(
    chosen,
    levels,
    firsts,
    spans,
    class_maps,
    order,
    weights,
    tables,
    table_of,
    score_table,
    row_at,
    row_fractions,
    col_at,
    col_fractions,
    interpolate_members,
):
    """Runs of the pixels whose effective level reaches their class's.

    Parameters
    ----------
    chosen, levels : int64 (n,), numbers of the classes to decide, and the level of each.
    firsts, spans : int64 (n, 2, M), the codes that reach the level, `first … first + span` or none if span < 0; twice.
    class_maps : int64 (M, 3), of each member: where its box begins in the class that it has first, the bytes from one
        class to the next, and the cells of a row of its grid.
    order : int64 (C, M), where each class stands in each member.
    weights : int64 (C, M), adding up to 65536 in each row.
    tables : uint16 (T, 65536), score of each code. table_of : int64 (M,), which is each member's.
    score_table : uint16 (65536,), what an interpolated score becomes.
    row_at, col_at : int64 (h + 1,) and (w + 1,), first pixel below and right of each row and column of cells; every
        column has a pixel (W >= w). row_fractions, col_fractions : int64 (H,) and (W,), of the far neighbour, of 256.
    interpolate_members : interpolate each member, then fuse (upsample="logits"); if not, fuse first ("scores").

    Returns
    -------
    starts, ends : int64 (runs,) of all chosen classes; offsets : int64 (n + 1,), where each class's begin.
    """
    members, h, w, H, W = order.shape[1], row_at.size - 1, col_at.size - 1, row_fractions.size, col_fractions.size
    any_bits, all_bits, columns, kinds, scores, scored_rows = make_room(h, w, 2 * members if interpolate_members else 1)
    down, across = neighbours(row_fractions, row_at), neighbours(col_fractions, col_at).max()
    addresses, edges, n = np.empty(members, np.int64), np.empty(16384, np.int64), 0
    offsets = np.zeros(chosen.size + 1, np.int64)
    for k in range(chosen.size):
        cls = chosen[k]
        find_class_maps(class_maps, order[cls], addresses)
        mark(addresses, class_maps, w, firsts[k], spans[k], any_bits, all_bits)
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
                columns,
                kinds,
                scores,
                scored_rows,
                addresses,
                class_maps,
                levels[k],
                tables,
                table_of,
                score_table,
                weights[cls],
                row_at,
                row_fractions,
                col_at,
                col_fractions,
                interpolate_members,
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
    row_offset,
    used,
    down,
    across,
    any_bits,
    all_bits,
    columns,
    kinds,
    scores,
    scored_rows,
    addresses,
    class_maps,
    level,
    tables,
    table_of,
    score_table,
    weights,
    row_at,
    row_fractions,
    col_at,
    col_fractions,
    interpolate_members,
):
    """Append one class's edges from row `first` on, until all is done or `edges` is full; return where it stopped.

    Growing `edges` in here would keep it in memory for the sake of the rare case: the walk took five times as long.
    """
    h, w, W, members = row_at.size - 1, col_at.size - 1, col_fractions.size, weights.size
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
        found = find_events(r, r2, across, any_bits, all_bits, w, columns, kinds)
        score_cells(
            r,
            r2,
            across,
            found,
            columns,
            kinds,
            addresses,
            class_maps,
            h,
            w,
            tables,
            table_of,
            score_table,
            weights,
            interpolate_members,
            scores,
            scored_rows,
            row_offset,
        )
        found = look_closer(r, r2, across, found, columns, kinds, level, level, w, weights, interpolate_members, scores)
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
                find_sides(scores, r, r2, c, min(c + across, w - 1), fy, interpolate_members, members, sides)
                if interpolate_members:
                    for x in range(col_at[c], col_at[c + 1]):
                        now = fused_between(sides, col_fractions[x], score_table, weights) >= level
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
