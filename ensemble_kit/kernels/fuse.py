"""From members' grids to effective levels of pixels, without an image of levels in between.

A pixel's *effective level* is what its decision compares: on iff it is >= the threshold's level. Bilinear
interpolation is a convex combination and every table is monotone, so the levels of all pixels of a block lie
between bounds that the grid cells around it give. Most blocks are decided by these bounds alone; the others are
evaluated pixel by pixel, exactly. Members' class maps are passed by address, so that any number of them, mapped from
any files, needs no copy and no new compilation.
"""

import numpy as np
from numba import carray, types
from numba.extending import intrinsic

from ensemble_kit.kernels.jit import kernel
from ensemble_kit.kernels.runs import grown

BLOCK = 32
"""Blocks are 32 x 32 pixels of the image."""


@intrinsic
def _pointer(typingctx, address):  # noqa: ARG001 - Numba's signature of an intrinsic
    signature = types.CPointer(types.uint16)(types.int64)

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return signature, generate


@kernel
def block_bounds(addresses, widths, key_masks, rows, cols, last, bounds, weights, lower, upper):
    """Bounds of the effective levels in each block of one class.

    Parameters
    ----------
    addresses, widths : int64 (M,), where each member's class map of 16-bit codes lies and its row length.
    key_masks : int16 (2,), what turns a code into a key whose signed order is the order of scores; see `tables`.
    rows, cols : int64 (M, H) and (M, W), upper and left grid neighbour of each pixel.
    last : int64 (M, 2), last row and column of each member's box.
    bounds : uint16 (M, 65536), the score of key k - 32768.
    weights : int64 (M,), adding up to 65536.
    lower, upper : uint16 (ceil(H / 32), ceil(W / 32)), written.
    """
    members, height, width = addresses.size, rows.shape[1], cols.shape[1]
    negative, sign = key_masks[0], key_masks[1]
    widest = widths.max()
    high, low = np.empty(widest, np.int16), np.empty(widest, np.int16)
    sum_low, sum_high = np.empty(upper.shape[1], np.int64), np.empty(upper.shape[1], np.int64)
    for by in range(upper.shape[0]):
        sum_low[:], sum_high[:] = 32768, 32768
        oy0, oy1 = by * BLOCK, min((by + 1) * BLOCK, height)
        for m in range(members):
            r0, r1 = rows[m, oy0], min(rows[m, oy1 - 1] + 1, last[m, 0])
            c0, c1 = cols[m, 0], min(cols[m, width - 1] + 1, last[m, 1])
            n = c1 - c0 + 1
            for r in range(r0, r1 + 1):
                row = carray(_pointer(addresses[m] + 2 * (r * widths[m] + c0)), (n,)).view(np.int16)
                if r == r0:
                    for x in range(n):
                        key = (row[x] ^ ((row[x] >> 15) & negative)) ^ sign
                        high[x] = key
                        low[x] = key
                else:
                    for x in range(n):
                        key = (row[x] ^ ((row[x] >> 15) & negative)) ^ sign
                        high[x] = max(high[x], key)
                        low[x] = min(low[x], key)
            for bx in range(upper.shape[1]):
                x0 = cols[m, bx * BLOCK] - c0
                x1 = min(cols[m, min((bx + 1) * BLOCK, width) - 1] + 1, last[m, 1]) - c0
                top, bottom = high[x0], low[x0]
                for x in range(x0 + 1, x1 + 1):
                    top = max(top, high[x])
                    bottom = min(bottom, low[x])
                sum_high[bx] += weights[m] * bounds[m, np.int64(top) + 32768]
                sum_low[bx] += weights[m] * bounds[m, np.int64(bottom) + 32768]
        for bx in range(upper.shape[1]):
            upper[by, bx] = sum_high[bx] >> 16
            lower[by, bx] = sum_low[bx] >> 16


@kernel
def _put_block(
    out,
    oy0,
    oy1,
    ox0,
    ox1,
    addresses,
    widths,
    tables,
    score_table,
    weights,
    rows,
    row_fractions,
    cols,
    col_fractions,
    last,
    interpolate_members,
    grid,
    line,
    total,
):
    """Write the effective levels of one block into `out[0:oy1-oy0, ox0:ox1]`.

    With `interpolate_members`, each member is interpolated and rounded, passed through `score_table`, then fused
    (upsample="logits"); otherwise members, which share one grid, are fused on it and the fused level is interpolated
    ("scores").
    """
    total[: oy1 - oy0, : ox1 - ox0] = 32768
    for m in range(addresses.size if interpolate_members else 1):
        r0, r1 = rows[m, oy0], min(rows[m, oy1 - 1] + 1, last[m, 0])
        c0, c1 = cols[m, ox0], min(cols[m, ox1 - 1] + 1, last[m, 1])
        for r in range(r0, r1 + 1):
            if interpolate_members:
                row = carray(_pointer(addresses[m] + 2 * (r * widths[m] + c0)), (c1 - c0 + 1,))
                for c in range(c1 - c0 + 1):
                    grid[c] = tables[m, row[c]]
            else:
                grid[: c1 - c0 + 1] = 32768
                for k in range(addresses.size):
                    row = carray(_pointer(addresses[k] + 2 * (r * widths[k] + c0)), (c1 - c0 + 1,))
                    for c in range(c1 - c0 + 1):
                        grid[c] += weights[k] * tables[k, row[c]]
                for c in range(c1 - c0 + 1):
                    grid[c] >>= 16
            for x in range(ox0, ox1):
                a = cols[m, x] - c0
                fraction = col_fractions[m, x]
                line[r - r0, x - ox0] = (256 - fraction) * grid[a] + fraction * grid[min(a + 1, c1 - c0)]
        for y in range(oy0, oy1):
            a = rows[m, y] - r0
            b = min(a + 1, r1 - r0)
            fraction = row_fractions[m, y]
            if interpolate_members:
                for x in range(ox1 - ox0):
                    q = ((256 - fraction) * line[a, x] + fraction * line[b, x] + 32768) >> 16
                    total[y - oy0, x] += weights[m] * score_table[q]
            else:
                for x in range(ox1 - ox0):
                    total[y - oy0, x] = (256 - fraction) * line[a, x] + fraction * line[b, x]
    for y in range(oy1 - oy0):
        for x in range(ox1 - ox0):
            out[y, ox0 + x] = total[y, x] >> 16


@kernel
def _scratch(rows, cols, last):
    """Room for the largest block: a grid row, its interpolated lines, the sums."""
    tallest, broadest = 1, 1
    for m in range(rows.shape[0]):
        for y in range(0, rows.shape[1], BLOCK):
            end = rows[m, min(y + BLOCK, rows.shape[1]) - 1]
            tallest = max(tallest, min(end + 1, last[m, 0]) - rows[m, y] + 1)
        for x in range(0, cols.shape[1], BLOCK):
            end = cols[m, min(x + BLOCK, cols.shape[1]) - 1]
            broadest = max(broadest, min(end + 1, last[m, 1]) - cols[m, x] + 1)
    return np.empty(broadest, np.int64), np.empty((tallest, BLOCK), np.int64), np.empty((BLOCK, BLOCK), np.int64)


@kernel
def threshold_runs(
    level,
    lower,
    upper,
    addresses,
    widths,
    tables,
    score_table,
    weights,
    rows,
    row_fractions,
    cols,
    col_fractions,
    last,
    interpolate_members,
):
    """Runs of the pixels whose effective level is at least `level`.

    Parameters are those of `block_bounds` and `_put_block`; row_fractions and col_fractions are those of the
    lower and the right neighbour, of 256.
    """
    height, width = rows.shape[1], cols.shape[1]
    grid, line, total = _scratch(rows, cols, last)
    band = np.empty((BLOCK, width), np.uint16)
    starts, ends = np.empty(256, np.int64), np.empty(256, np.int64)
    count, on = 0, False
    for by in range(upper.shape[0]):
        oy0, oy1 = by * BLOCK, min((by + 1) * BLOCK, height)
        any_on = False
        for bx in range(upper.shape[1]):
            if upper[by, bx] >= level:
                any_on = True
                if lower[by, bx] < level:
                    _put_block(
                        band,
                        oy0,
                        oy1,
                        bx * BLOCK,
                        min((bx + 1) * BLOCK, width),
                        addresses,
                        widths,
                        tables,
                        score_table,
                        weights,
                        rows,
                        row_fractions,
                        cols,
                        col_fractions,
                        last,
                        interpolate_members,
                        grid,
                        line,
                        total,
                    )
        if not any_on:
            if on:
                ends[count] = oy0 * width
                count += 1
                on = False
            continue
        for y in range(oy0, oy1):
            for bx in range(upper.shape[1]):
                ox0, ox1 = bx * BLOCK, min((bx + 1) * BLOCK, width)
                if upper[by, bx] < level or lower[by, bx] >= level:
                    ox1 = ox0 + 1  # all alike: the first pixel stands for the rest
                for x in range(ox0, ox1):
                    now = lower[by, bx] >= level or (upper[by, bx] >= level and band[y - oy0, x] >= level)
                    if now and not on:
                        if count == starts.size:
                            starts, ends = grown(starts), grown(ends)
                        starts[count] = y * width + x
                    elif on and not now:
                        ends[count] = y * width + x
                        count += 1
                    on = now
    if on:
        ends[count] = height * width
        count += 1
    return starts[:count].copy(), ends[:count].copy()


@kernel
def level_counts(
    low,
    high,
    truth_starts,
    truth_ends,
    lower,
    upper,
    addresses,
    widths,
    tables,
    score_table,
    weights,
    rows,
    row_fractions,
    cols,
    col_fractions,
    last,
    interpolate_members,
):
    """Count pixels, and truth pixels among them, by effective level.

    Returns levels uint16 (n,), ascending, those of `low … high-1` that occur; their pixels and truth pixels,
    int64 (n,) each; then the pixels and the truth pixels at `high` and above.
    """
    height, width = rows.shape[1], cols.shape[1]
    grid, line, total = _scratch(rows, cols, last)
    band = np.empty((BLOCK, width), np.uint16)
    truth = np.empty((BLOCK, width), np.uint8)
    pixels = np.zeros(high - low, np.int64)
    hits = np.zeros(high - low, np.int64)
    above, above_hits, t = 0, 0, 0
    for by in range(upper.shape[0]):
        oy0, oy1 = by * BLOCK, min((by + 1) * BLOCK, height)
        truth[:] = 0
        while t < truth_starts.size and truth_starts[t] < oy1 * width:
            for p in range(max(truth_starts[t], oy0 * width), min(truth_ends[t], oy1 * width)):
                truth[p // width - oy0, p % width] = 1
            if truth_ends[t] > oy1 * width:
                break
            t += 1
        for bx in range(upper.shape[1]):
            if upper[by, bx] < low:
                continue
            ox0, ox1 = bx * BLOCK, min((bx + 1) * BLOCK, width)
            if lower[by, bx] >= high:
                above += (oy1 - oy0) * (ox1 - ox0)
                for y in range(oy1 - oy0):
                    for x in range(ox0, ox1):
                        above_hits += truth[y, x]
                continue
            _put_block(
                band,
                oy0,
                oy1,
                ox0,
                ox1,
                addresses,
                widths,
                tables,
                score_table,
                weights,
                rows,
                row_fractions,
                cols,
                col_fractions,
                last,
                interpolate_members,
                grid,
                line,
                total,
            )
            for y in range(oy1 - oy0):
                for x in range(ox0, ox1):
                    level = np.int64(band[y, x])
                    if level >= high:
                        above += 1
                        above_hits += truth[y, x]
                    elif level >= low:
                        pixels[level - low] += 1
                        hits[level - low] += truth[y, x]
    found = np.flatnonzero(pixels)
    return (found + low).astype(np.uint16), pixels[found], hits[found], above, above_hits


@kernel
def fuse_grid(addresses, tables, weights, out):
    """Fuse members of one grid, cell by cell: `(sum of weight x score + 32768) >> 16` into uint16 (cells,)."""
    cells = out.size
    for first in range(0, cells, 4096):
        stop = min(first + 4096, cells)
        sums = np.full(stop - first, 32768, np.int64)
        for m in range(addresses.size):
            row = carray(_pointer(addresses[m] + 2 * first), (stop - first,))
            for c in range(stop - first):
                sums[c] += weights[m] * tables[m, row[c]]
        for c in range(stop - first):
            out[first + c] = sums[c] >> 16


@kernel
def resample(levels, rows, row_fractions, row_last, cols, col_fractions, col_last, out):
    """Interpolate a uint16 grid of levels to `out`, rounded to 16 bits."""
    for y in range(out.shape[0]):
        a = rows[y]
        b = min(a + 1, row_last)
        fy = row_fractions[y]
        for x in range(out.shape[1]):
            c = cols[x]
            d = min(c + 1, col_last)
            fx = col_fractions[x]
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
