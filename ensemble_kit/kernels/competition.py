"""Pixels where several classes reach a common level, the highest score of each, and where a class's own is lower."""

import numpy as np

from ensemble_kit.kernels.jit import kernel
from ensemble_kit.kernels.runs import grown

_ONCE, _AGAIN, _WANTED = np.uint8(1), np.uint8(2), np.uint8(4)


@kernel
def contested(starts, ends, offsets, mask_starts, mask_ends, marks):
    """Cut some masks to the pixels that two or more of them have, and any of other masks has: starts, ends, offsets.

    Parameters
    ----------
    starts, ends, offsets : int64, runs of the masks that are cut.
    mask_starts, mask_ends : int64, runs of the other masks, one mask after the other.
    marks : uint8 (H * W,) of zeros, as room.
    """
    for r in range(starts.size):
        for p in range(starts[r], ends[r]):
            marks[p] |= _AGAIN if marks[p] else _ONCE
    for r in range(mask_starts.size):
        for p in range(mask_starts[r], mask_ends[r]):
            marks[p] |= _WANTED
    edges, cuts, n, both = np.empty(1024, np.int64), np.zeros_like(offsets), 0, _AGAIN | _WANTED
    for k in range(offsets.size - 1):
        for r in range(offsets[k], offsets[k + 1]):
            on = False
            while n + ends[r] - starts[r] + 2 > edges.size:
                edges = grown(edges)
            for p in range(starts[r], ends[r]):
                if (marks[p] & both == both) != on:
                    edges[n] = p
                    n, on = n + 1, not on
            if on:
                edges[n] = ends[r]
                n += 1
        cuts[k + 1] = n // 2
    return edges[:n:2].copy(), edges[1:n:2].copy(), cuts


@kernel
def put_tops(positions, levels, chances, tops):
    """Raise `tops`, uint16 (H * W,), to the chances of pixels where those are higher.

    Parameters
    ----------
    positions, levels : int64 and uint16 (n,).
    chances : uint16 (65536,), of every level.
    """
    for i in range(positions.size):
        tops[positions[i]] = max(tops[positions[i]], chances[levels[i]])


@kernel
def beaten(positions, levels, chances, tops, starts, ends):
    """Find the pixels of one class, ascending, inside some runs and below their top: positions, levels, tops."""
    found, levels_found, tops_found = np.empty_like(positions), np.empty_like(levels), np.empty_like(levels)
    r, n = 0, 0
    for i in range(positions.size):
        p = positions[i]
        while r < ends.size and ends[r] <= p:
            r += 1
        if r == ends.size:
            break
        if starts[r] <= p and chances[levels[i]] < tops[p]:
            found[n], levels_found[n], tops_found[n] = p, levels[i], tops[p]
            n += 1
    return found[:n].copy(), levels_found[:n].copy(), tops_found[:n].copy()


@kernel
def runs_of_positions(positions):
    """Join positions, int64 ascending, to runs: starts, ends."""
    n = 0
    for i in range(positions.size):
        n += i == 0 or positions[i] != positions[i - 1] + 1
    starts, ends = np.empty(n, np.int64), np.empty(n, np.int64)
    n = -1
    for i in range(positions.size):
        if i == 0 or positions[i] != positions[i - 1] + 1:
            n += 1
            starts[n] = positions[i]
        ends[n] = positions[i] + 1
    return starts, ends
