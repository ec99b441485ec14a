"""Settle mixed quads by what their four cells allow, sixteen quads at a time, and score the cells of the others.

In a row of soft logits nearly every quad is mixed; scored, bounded and kept one by one, quads took ten times as long.
"""

import numpy as np

from ensemble_kit.kernels.conversions import as_floats, truncated, unsigned, upper_bits
from ensemble_kit.kernels.jit import inline
from ensemble_kit.kernels.lanes import (
    add,
    all_floats,
    all_ints,
    bits_of,
    greater,
    load_ints,
    load_shorts,
    maximum,
    minimum,
    multiply,
    multiply_add,
    pick_some_shorts,
    select,
    store,
    subtract,
    word,
)
from ensemble_kit.kernels.spans import LANES
from ensemble_kit.kernels.words import code_at, fetch, load64, store16, store32, store64


@inline
def settle(r, r2, across, low, high, walk):
    """Clear the bits of mixed quads whose corners allow it: all pixels below `low`, or, then on, all reaching `high`.

    A pixel lies between the sums of the members' least and largest levels at the corners. Where members are
    interpolated, those lie far apart if each has noise of its own. But a member's level is a curve over its score,
    and a mean of points of a curve is at most `bend · range² / 8` from the curve at the mean of the scores: half the
    second derivative times the variance of what lies in a range (Popoviciu 1935). So a pixel is not far from a mean
    of the four fused corners: scores rounded to 16 bits move a level by 4, rounded levels and sums by 2, and float32
    by less than 1. The cells are scored.
    """
    upper, lower = (r & 1) * walk.scores_each * walk.pitch, (r2 & 1) * walk.scores_each * walk.pitch
    not_low, not_high, right = all_ints(low), all_ints(high - 1), 4 * across
    for k in range(0, walk.events.width, 64):
        mixed, on = load64(walk.events.mixed + k // 8), np.int64(0)
        if mixed == 0:
            continue
        for u in range(0, 64, LANES):
            part = (mixed >> u) & 0xFFFF
            if part == 0:
                continue
            half, away = all_ints(32768), all_floats(7)
            least, most, a, b, c, d = half, half, half, half, half, half
            for m in range(walk.scores_each):
                at = m * walk.pitch + 4 * (k + u)
                near, far = walk.bounds + at + upper, walk.bounds + at + lower
                e, f, g, h = load_ints(near), load_ints(near + right), load_ints(far), load_ints(far + right)
                weight = all_ints(load64(walk.weights + 8 * m) if walk.interpolate_members else 65536)
                least = add(least, multiply(minimum(minimum(e, f), minimum(g, h)), weight))
                most = add(most, multiply(maximum(maximum(e, f), maximum(g, h)), weight))
                if walk.interpolate_members:
                    a, b = add(a, multiply(e, weight)), add(b, multiply(f, weight))
                    c, d = add(c, multiply(g, weight)), add(d, multiply(h, weight))
                    near, far = walk.scores + at + upper, walk.scores + at + lower
                    e, f, g, h = load_ints(near), load_ints(near + right), load_ints(far), load_ints(far + right)
                    span = subtract(maximum(maximum(e, f), maximum(g, h)), minimum(minimum(e, f), minimum(g, h)))
                    square = multiply(as_floats(span), as_floats(span))
                    bend = walk.bend * load64(walk.weights + 8 * m) / (8 * 65536)
                    away = multiply_add(square, all_floats(bend), away)
            least, most = upper_bits(least), upper_bits(most)
            if walk.interpolate_members:
                a, b, c, d = upper_bits(a), upper_bits(b), upper_bits(c), upper_bits(d)
                leaves = truncated(minimum(away, all_floats(65536)))
                least = maximum(least, subtract(minimum(minimum(a, b), minimum(c, d)), leaves))
                most = minimum(most, add(maximum(maximum(a, b), maximum(c, d)), leaves))
            reached = word(greater(least, not_high)) & part
            mixed &= ~((word(greater(not_low, most)) | reached) << u)
            on |= reached << u
        store64(walk.events.mixed + k // 8, mixed)
        store64(walk.events.on + k // 8, load64(walk.events.on + k // 8) | on)


@inline
def score_cells(r, r2, row_offset, walk):
    """Write `scores` and `bounds` of the cells of two rows at mixed quads, unless they are there.

    Sixteen at a time, but only those at mixed quads are looked up: a table does not fit into the nearest cache.
    `row_offset` is the rows of all classes before this one.
    """
    carried = np.int64(0)
    for k in range(0, walk.events.width, 64):
        mixed = load64(walk.events.mixed + k // 8)
        corners, carried = mixed | (mixed << 1) | carried, (mixed >> 63) & 1
        if corners == 0:
            continue
        for u in range(k, min(k + 64, walk.events.width), LANES):
            wanted = (corners >> (u - k)) & 0xFFFF
            if wanted == 0:
                continue
            first = max(min(u, walk.events.width - LANES), 0)
            for m in range(walk.members):  # outlines go on: ask for the cells that the next rows will need
                fetch(_codes_of(m, r + 3, first, walk))
            for side in range(2):
                row = r2 if side else r
                missing = _missing(row, u // LANES, wanted, row_offset, walk)
                if missing == 0:
                    continue
                to, bits = (row & 1) * walk.scores_each * walk.pitch, bits_of(missing << (u - first))
                total = all_ints(32768)
                for m in range(walk.members):
                    codes = unsigned(load_shorts(_codes_at(m, row, first, walk)))
                    table = walk.tables + 2 * 65536 * load64(walk.table_of + 8 * m)
                    score = pick_some_shorts(table, codes, bits)
                    if walk.interpolate_members:
                        _put(score, bits, walk.scores + to + m * walk.pitch, first, walk)
                        level = pick_some_shorts(walk.score_table, score, bits)
                        _put(level, bits, walk.bounds + to + m * walk.pitch, first, walk)
                    else:
                        total = add(total, multiply(score, all_ints(load64(walk.weights + 8 * m))))
                if not walk.interpolate_members:
                    _put(upper_bits(total), bits, walk.scores + to, first, walk)


@inline
def _missing(row, unit, wanted, row_offset, walk):
    """Tell which of a unit's cells are not scored yet, and note that they will be."""
    at = walk.scored + 8 * ((row & 1) * walk.units + unit)
    found, stamp = load64(at), (row_offset + row) << 16
    there = found & 0xFFFF if found - (found & 0xFFFF) == stamp else 0
    store64(at, stamp | there | wanted)
    return wanted & ~there


@inline
def _put(score, bits, line, first, walk):
    """Write the scores of some of 16 cells into a line of `Room`, and repeat the last cell of a row behind it."""
    store(line + 4 * first, select(bits, score, load_ints(line + 4 * first)))
    if first + LANES >= walk.events.width:
        last = line + 4 * walk.events.width
        store32(last, load64(last - 4))


@inline
def _codes_of(m, row, first, walk):
    """Return the address of a code of a member, which need not be there."""
    return load64(walk.maps + 8 * m) + 2 * (row * load64(walk.widths + 8 * m) + first)


@inline
def _codes_at(m, row, first, walk):
    """Return the address of 16 codes of a member; a row of fewer is copied, so that nothing behind it is read."""
    codes = _codes_of(m, row, first, walk)
    if walk.events.width >= LANES:
        return codes
    for c in range(walk.events.width):
        store16(walk.few + 2 * c, code_at(codes + 2 * c))
    return walk.few
