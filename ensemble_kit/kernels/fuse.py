"""Fuse members cell by cell, resample grids of levels, and turn logits of exclusive classes into levels."""

import numpy as np

from ensemble_kit.kernels.blocks import codes_at
from ensemble_kit.kernels.conversions import narrowed, unsigned, upper_bits
from ensemble_kit.kernels.jit import kernel
from ensemble_kit.kernels.lanes import add, all_ints, load_ints, load_shorts, multiply, pick_ints, store, subtract
from ensemble_kit.kernels.words import address_of

LANES = 16


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
def fuse_scores(addresses, weights, out):
    """Do the same with codes that are scores already, sixteen at a time; there are at least so many."""
    for block in range(0, out.size, LANES):
        first = min(block, out.size - LANES)
        total = all_ints(32768)
        for m in range(addresses.size):
            score = unsigned(load_shorts(addresses[m] + 2 * first))
            total = add(total, multiply(score, all_ints(weights[m])))
        store(address_of(out) + 2 * first, narrowed(upper_bits(total)))


@kernel
def resample(levels, m, axes, out):
    """Interpolate member `m`'s box of levels, uint16, to `out`, rounded to 16 bits: first down, then across."""
    (row_last, col_last), width = axes.last[m], out.shape[1]
    line = np.empty(levels.shape[1], np.int32)
    left, right = np.zeros(width + LANES, np.int32), np.zeros(width + LANES, np.int32)
    share, row = np.zeros(width + LANES, np.int32), np.empty(width + LANES, np.uint16)
    for x in range(width):
        left[x], right[x] = axes.cols[m, x], min(axes.cols[m, x] + 1, col_last)
        share[x] = axes.col_fractions[m, x]
    for y in range(out.shape[0]):
        a = axes.rows[m, y]
        b, fy = min(a + 1, row_last), axes.row_fractions[m, y]
        for c in range(line.size):
            line[c] = (256 - fy) * np.int32(levels[a, c]) + fy * np.int32(levels[b, c])
        for x in range(0, width, LANES):
            near = pick_ints(address_of(line), load_ints(address_of(left) + 4 * x))
            far = pick_ints(address_of(line), load_ints(address_of(right) + 4 * x))
            fx = load_ints(address_of(share) + 4 * x)
            value = add(multiply(near, all_ints(256)), multiply(subtract(far, near), fx))
            store(address_of(row) + 2 * x, narrowed(upper_bits(add(value, all_ints(32768)))))
        for x in range(width):
            out[y, x] = row[x]


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
