"""Rows of a PNG: what its filters took away comes back (W3C, Portable Network Graphics, section 9)."""

# mypy: allow-untyped-defs, allow-untyped-calls

import numpy as np

from ensemble_kit.kernels.jit import kernel


@kernel
def unfilter(rows, step, out):
    """Undo the filter of every row, into `out`; returns the first row whose filter does not exist, or -1.

    Parameters
    ----------
    rows : uint8 (height, 1 + bytes), each row behind the number of its filter; out : uint8 (height, bytes).
    step : bytes of a pixel.
    """
    for y in range(out.shape[0]):
        kind = rows[y, 0]
        if kind > 4:
            return y
        if kind == 0:
            for x in range(out.shape[1]):
                out[y, x] = rows[y, 1 + x]
            continue
        for x in range(out.shape[1]):
            left = np.int64(out[y, x - step]) if x >= step else np.int64(0)
            above = np.int64(out[y - 1, x]) if y > 0 else np.int64(0)
            guess = np.int64(0)
            if kind == 1:
                guess = left
            elif kind == 2:
                guess = above
            elif kind == 3:
                guess = (left + above) >> 1
            elif kind == 4:
                corner = np.int64(out[y - 1, x - step]) if y > 0 and x >= step else np.int64(0)
                by_left, by_above, by_corner = abs(above - corner), abs(left - corner), abs(left + above - 2 * corner)
                if by_left <= by_above and by_left <= by_corner:
                    guess = left
                else:
                    guess = above if by_above <= by_corner else corner
            out[y, x] = (np.int64(rows[y, 1 + x]) + guess) & 255
    return -1
