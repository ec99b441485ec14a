"""How many pixels of a class competition takes, by level and ratio."""

import numpy as np

from ensemble_kit.kernels.jit import kernel


@kernel
def lost(positions, found, own, tops, ratios, truth_starts, truth_ends, void_starts, void_ends, levels, high):
    """Count the beaten pixels of a class that each ratio takes, the hits and the void ones among them.

    A pixel that a ratio takes is taken by every higher one, so each is counted once, at the first.

    Parameters
    ----------
    positions, found, own, tops : int64 and uint16 (n,), the pixels, ascending, their levels, and the probabilities of
        the class and of the best one; see `scores.competition.Beaten`.
    ratios : int64 (R,), ascending, 65536 for 1.
    truth_starts, truth_ends, void_starts, void_ends : int64, runs.
    levels : uint16 (L,), ascending, levels below `high` that occur; all of `found` below `high` are among them.

    Returns
    -------
    int64 (R, 3, L + 1): at each level and above, and last at `high` and above.
    """
    R, L = ratios.size, levels.size
    row_of = np.full(65536, L)
    for k in range(L):
        row_of[levels[k]] = k
    out = np.zeros((R, 3, L + 1), np.int64)
    t, v = 0, 0
    for i in range(positions.size):
        r, left = 0, np.int64(own[i]) << 16
        while r < R and left >= np.int64(tops[i]) * ratios[r]:
            r += 1
        if r == R:
            continue
        row = row_of[found[i]] if found[i] < high else L
        while t < truth_starts.size and truth_ends[t] <= positions[i]:
            t += 1
        while v < void_starts.size and void_ends[v] <= positions[i]:
            v += 1
        out[r, 0, row] += 1
        out[r, 1, row] += t < truth_starts.size and truth_starts[t] <= positions[i]
        out[r, 2, row] += v < void_starts.size and void_starts[v] <= positions[i]
    for r in range(R):
        for kind in range(3):
            for k in range(L, -1, -1):
                above = out[r, kind, k + 1] if k < L else 0
                out[r, kind, k] += above
    for r in range(1, R):
        for kind in range(3):
            for k in range(L + 1):
                out[r, kind, k] += out[r - 1, kind, k]
    return out
