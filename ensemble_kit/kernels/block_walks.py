"""Decide and count the pixels of members whose grids differ, or of an image narrower than the grid, by `blocks.py`."""

import numpy as np

from ensemble_kit.kernels.blocks import BLOCK, draw_truth, make_room, put_levels
from ensemble_kit.kernels.jit import kernel
from ensemble_kit.kernels.maps import maps_of
from ensemble_kit.kernels.runs import grown, split_edges


@kernel
def decide(level, bounds, cls, members, scoring, axes):
    """Runs of the pixels of one class whose effective level is at least `level`; `bounds` are its `block_bounds`."""
    (lower, upper), maps, room = bounds, maps_of(members, cls), make_room(axes)
    height, width = axes.rows.shape[1], axes.cols.shape[1]
    band = np.empty((BLOCK, width), np.uint16)
    edges, n, on = np.empty(512, np.int64), 0, False
    for by in range(upper.shape[0]):
        y0, y1 = by * BLOCK, min((by + 1) * BLOCK, height)
        any_on = False
        for bx in range(upper.shape[1]):
            if upper[by, bx] >= level:
                any_on = True
                if lower[by, bx] < level:
                    put_levels(band, y0, y1, bx * BLOCK, min((bx + 1) * BLOCK, width), maps, scoring, axes, room)
        if not any_on:
            if on:
                edges[n] = y0 * width
                n, on = n + 1, False
            continue
        for y in range(y0, y1):
            for bx in range(upper.shape[1]):
                x0, x1 = bx * BLOCK, min((bx + 1) * BLOCK, width)
                if upper[by, bx] < level or lower[by, bx] >= level:
                    x1 = x0 + 1  # all alike: the first pixel stands for the rest
                for x in range(x0, x1):
                    now = lower[by, bx] >= level or (upper[by, bx] >= level and band[y - y0, x] >= level)
                    if now != on:
                        if n + 1 >= edges.size:  # one edge may follow that is not asked for
                            edges = grown(edges)
                        edges[n] = y * width + x
                        n, on = n + 1, now
    if on:
        edges[n] = height * width
        n += 1
    return split_edges(edges, n)


@kernel
def count(low, high, truth_starts, truth_ends, bounds, cls, members, scoring, axes):
    """Count pixels of one class, and truth pixels among them, by effective level; `bounds` are its `block_bounds`.

    Returns levels uint16 (n,), ascending, those of `low … high-1` that occur; the pixels and the truth pixels at each
    and above, int64 (n,); then those at `high` and above.
    """
    (lower, upper), maps, room = bounds, maps_of(members, cls), make_room(axes)
    height, width = axes.rows.shape[1], axes.cols.shape[1]
    band = np.empty((BLOCK, width), np.uint16)
    truth = np.empty(BLOCK * width, np.uint8)
    pixels, hits = np.zeros(high - low, np.int64), np.zeros(high - low, np.int64)
    above, above_hits, t = 0, 0, np.int64(0)
    for by in range(upper.shape[0]):
        y0, y1 = by * BLOCK, min((by + 1) * BLOCK, height)
        t = draw_truth(truth, t, truth_starts, truth_ends, y0 * width, y1 * width)
        for bx in range(upper.shape[1]):
            if upper[by, bx] < low:
                continue
            x0, x1 = bx * BLOCK, min((bx + 1) * BLOCK, width)
            if lower[by, bx] >= high:
                above += (y1 - y0) * (x1 - x0)
                for y in range(y1 - y0):
                    for x in range(x0, x1):
                        above_hits += truth[y * width + x]
                continue
            put_levels(band, y0, y1, x0, x1, maps, scoring, axes, room)
            for y in range(y1 - y0):
                for x in range(x0, x1):
                    level = np.int64(band[y, x])
                    if level >= high:
                        above += 1
                        above_hits += truth[y * width + x]
                    elif level >= low:
                        pixels[level - low] += 1
                        hits[level - low] += truth[y * width + x]
    found = np.flatnonzero(pixels)
    pred, tp = np.empty(found.size, np.int64), np.empty(found.size, np.int64)
    total, total_hits = above, above_hits
    for k in range(found.size - 1, -1, -1):
        total += pixels[found[k]]
        total_hits += hits[found[k]]
        pred[k], tp[k] = total, total_hits
    return (found + low).astype(np.uint16), pred, tp, above, above_hits
