"""Fuse members cell by cell, resample grids of levels, and turn logits of exclusive classes into levels."""

import numpy as np

from ensemble_kit.kernels.blocks import codes_at
from ensemble_kit.kernels.jit import kernel


@kernel
def fuse_grid(addresses, weights, scoring, out):
    """Fuse members of one grid, cell by cell: `(sum of weight x score + 32768) >> 16` into uint16 (cells,).

    `addresses` and `weights`, int64 (M,), are of one class: where its codes begin in each member.
    """
    cells = out.size
    for first in range(0, cells, 4096):
        stop = min(first + 4096, cells)
        sums = np.full(stop - first, 32768, np.int64)
        for m in range(addresses.size):
            row = codes_at(addresses[m] + 2 * first, stop - first)
            for c in range(stop - first):
                sums[c] += weights[m] * scoring.tables[scoring.table_of[m], row[c]]
        for c in range(stop - first):
            out[first + c] = sums[c] >> 16


@kernel
def resample(levels, m, axes, out):
    """Interpolate member `m`'s box of levels, uint16, to `out`, rounded to 16 bits."""
    row_last, col_last = axes.last[m]
    for y in range(out.shape[0]):
        a = axes.rows[m, y]
        b = min(a + 1, row_last)
        fy = axes.row_fractions[m, y]
        for x in range(out.shape[1]):
            c = axes.cols[m, x]
            d = min(c + 1, col_last)
            fx = axes.col_fractions[m, x]
            top = (256 - fx) * np.int64(levels[a, c]) + fx * np.int64(levels[a, d])
            foot = (256 - fx) * np.int64(levels[b, c]) + fx * np.int64(levels[b, d])
            out[y, x] = ((256 - fy) * top + fy * foot + 32768) >> 16


@kernel
def softmax_levels(logits, temperature, out):
    """Levels of exclusive classes: softmax over the first axis of (C, cells), in float32.

    The exponential is taken in float64 and rounded to float32, so that no processor's own float32 exponential
    shows in the result.
    """
    classes, cells = logits.shape
    scratch = np.empty(classes, np.float32)
    for p in range(cells):
        top = logits[0, p]
        for c in range(1, classes):
            top = max(top, logits[c, p])
        total = np.float32(0)
        for c in range(classes):
            scratch[c] = np.float32(np.exp(np.float64(logits[c, p] - top) / temperature))
            total += scratch[c]
        for c in range(classes):
            out[c, p] = np.uint16(np.floor(np.float32(65535) * (scratch[c] / total) + np.float32(0.5)))
