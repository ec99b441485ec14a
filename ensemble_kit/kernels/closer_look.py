"""Pixels between cells that members do not agree upon, in float32, sixteen at a time; some are too close to call."""

import numpy as np

from ensemble_kit.kernels.candidates import (
    CUTS,
    LOWEST,
    adds,
    cells_at,
    choose,
    on_grid,
    put_peaks,
    put_windows,
    tops_at,
)
from ensemble_kit.kernels.conversions import as_floats, cooled_q_of, narrowed, power_of_two, q_of, without_byte
from ensemble_kit.kernels.desk import CELLS, PIXELS, members_of, of_volume, side_of
from ensemble_kit.kernels.jit import inline, kernel, routine
from ensemble_kit.kernels.judging import ROUNDED, in_octaves, judge
from ensemble_kit.kernels.lanes import (
    add,
    all_floats,
    all_ints,
    both,
    divide,
    double_at,
    first_lanes,
    float_at,
    greater,
    load_floats,
    load_ints,
    load_shorts,
    maximum,
    minimum,
    multiply,
    multiply_add,
    pick,
    pick_ints,
    select,
    store,
    subtract,
    word,
)
from ensemble_kit.kernels.words import load64, lowest, store64

SPAN = 14
"""Columns of cells that are looked at together: their cells, one more, and one to spare are 16."""

ENOUGH = np.float32(1e-3)
"""What the classes that do not count may add."""


@kernel
def look(s0, s1, y0, y1, desk):
    """Find the classes of the rows `y0 … y1 - 1` of pixels of the strips `s0 … s1`; list those too close to call.

    Of a volume they are the rows of all slices of the image that are decided together.
    """
    put_windows(s0, s1, desk)
    put_peaks(desk)
    if adds(desk):
        if desk.least < 0:
            near, rest = choose(CUTS[0], desk)
            if not _evaluate(s0, s1, y0, y1, near, rest + ROUNDED, True, desk):
                return
        near, rest = choose(np.float32(2) * LOWEST, desk)
        _evaluate(s0, s1, y0, y1, near, rest + ROUNDED, False, desk)
        return
    near, rest = choose(CUTS[0], desk)
    for k in range(1, len(CUTS)):
        if rest > ENOUGH:
            near, rest = choose(CUTS[k], desk)
    _evaluate(s0, s1, y0, y1, near, rest, False, desk)


@routine
def _evaluate(s0, s1, y0, y1, near, rest, again, desk):
    """Write the classes of the pixels; with `again`, stop where classes that are not near could win, and say so."""
    _put_lines(near, desk)
    begin, stop = load64(desk.col_at + 8 * s0), load64(desk.col_at + 8 * s1 + 8)
    for z in range(desk.slices if of_volume(desk) else 1):
        deep = False
        if of_volume(desk):
            for g in range(desk.grids):
                deep |= load64(desk.slice_fractions + 8 * (z * desk.grids + g)) != 0
        if deep:
            _mix(z, near, desk)
        for x in range(begin, stop, PIXELS):
            _put_slopes(x, near, deep, desk)
            n = min(PIXELS, stop - x)
            for y in range(y0, y1):
                row = z * desk.height + y
                out = desk.rows + 2 * ((row if of_volume(desk) else y - y0) * (desk.pixels + CELLS) + x)
                label, close, best = judge(y, near, rest, deep, desk)
                bits = word(close) & ((1 << n) - 1)
                if again and word(greater(all_floats(rest + desk.absolute), best)) & ((1 << n) - 1):
                    return True
                store(out, select(first_lanes(n), narrowed(label), load_shorts(out)))
                while bits != 0:
                    found = load64(desk.close) + 1
                    store64(desk.close, found)
                    store64(desk.close + 8 * found, row * desk.pixels + x + lowest(bits))
                    bits &= bits - 1
    return False


@inline
def _class(k, desk):
    """Number of the k-th near class."""
    return load64(desk.near + 8 * k)


@inline
def _below(m, c, slot, row, first, desk):
    """How far 16 cells of a class lie below their largest logit, in octaves, at least -32 logits."""
    scale = all_floats(float_at(desk.scales + 4 * m))
    below = subtract(cells_at(m, c, slot, row, first, desk), tops_at(m, slot, row, first, desk))
    return maximum(multiply(below, scale), all_floats(LOWEST))


@inline
def _q(m, c, slot, row, first, desk):
    """Q of 16 cells."""
    cells, tops, temperature = (
        cells_at(m, c, slot, row, first, desk),
        tops_at(m, slot, row, first, desk),
        double_at(desk.temperatures + 8 * m),
    )
    return q_of(cells, tops) if temperature == 1 else cooled_q_of(cells, tops, temperature)


@inline
def _put_lines(near, desk):
    """Put the scores of 16 cells of the rows of each grid into `lines`."""
    for g in range(desk.grids):
        (begin, end), first = members_of(g, desk), load64(desk.windows + 8 * g)
        for s in range(len(desk.sides)):
            row, slot, counts = side_of(g, s, desk)
            lines = desk.lines + _block(desk) * (s >> 1) + 64 * (s & 1)
            for m in range(begin, end if counts else begin):
                if on_grid(desk):
                    _add_line(m, slot, row, first, lines, near, desk)
                    continue
                for k in range(near):
                    line = lines + 128 * (m * desk.classes + k)
                    store(line, _q(m, _class(k, desk), slot, row, first, desk))


@inline
def _block(desk):
    """Bytes of the lines, or the slopes, of one slice."""
    return 128 * desk.members * desk.classes


@inline
def _add_line(m, slot, row, first, lines, near, desk):
    """Add a member's scores of 16 cells to those of the members before it; multiply by factors after the last."""
    share, total = all_floats(1), all_floats(0)
    for k in range(near):
        if not adds(desk):
            score = power_of_two(_below(m, _class(k, desk), slot, row, first, desk))
            total = add(total, score)
        else:
            score = in_octaves(_q(m, _class(k, desk), slot, row, first, desk))
        store(desk.powers + 64 * k, score)
    if not adds(desk):
        share = divide(share, total)
    for k in range(near):
        line, score, c = lines + 128 * k, load_floats(desk.powers + 64 * k), _class(k, desk)
        sofar = all_floats(0)
        if m:
            sofar = load_floats(line)
        weight = multiply(share, all_floats(float_at(desk.weights + 4 * (m * desk.classes + c))))
        score = multiply_add(score, weight, sofar)
        if m + 1 == desk.members:
            factor = all_floats(float_at(desk.factors + 4 * c))
            score = add(score, factor) if adds(desk) else multiply(score, factor)
        store(line, score)


@inline
def _mix(z, near, desk):
    """Interpolate the lines of two slices of cells to slice `z` of the image, into `mixed`."""
    behind = desk.lines + _block(desk)
    for g in range(desk.grids):
        fraction = load64(desk.slice_fractions + 8 * (z * desk.grids + g))
        begin, stop = members_of(g, desk)
        if on_grid(desk):
            share = all_floats(np.float32(fraction) / np.float32(256))
            for line in range(0, 128 * near, 64):
                a = load_floats(desk.lines + line)
                store(desk.mixed + line, multiply_add(subtract(load_floats(behind + line), a), share, a))
            continue
        fz = all_ints(fraction)
        for m in range(begin, stop):
            first = 128 * m * desk.classes
            for line in range(first, first + 128 * near, 64):
                a = load_ints(desk.lines + line)
                between = multiply(subtract(load_ints(behind + line), a), fz)
                store(desk.mixed + line, add(multiply(a, all_ints(256)), between))


@inline
def _put_slopes(x, near, deep, desk):
    """Interpolate the lines of cells to 16 pixels from `x` on; those between two slices if `deep`."""
    lines = desk.mixed if deep else desk.lines
    for g in range(desk.grids):
        at = 4 * (g * (desk.pixels + PIXELS) + x)
        left = subtract(load_ints(desk.left + at), all_ints(load64(desk.windows + 8 * g)))
        left = maximum(minimum(left, all_ints(PIXELS - 1)), all_ints(0))
        right = minimum(add(left, all_ints(load64(desk.across + 8 * g))), all_ints(PIXELS - 1))
        fx = load_ints(desk.fractions + at)
        if not on_grid(desk):
            begin, stop = members_of(g, desk)
            for m in range(begin, stop):
                for k in range(near):
                    line = 128 * (m * desk.classes + k)
                    top = _across(lines + line, left, right, fx)
                    foot = _across(lines + line + 64, left, right, fx)
                    if deep:
                        _put_parts(top, foot, desk.slopes + line, desk.slopes + line + _block(desk))
                    else:
                        store(desk.slopes + line, multiply(top, all_ints(256)))
                        store(desk.slopes + line + 64, subtract(foot, top))
            continue
        share = multiply(as_floats(fx), all_floats(1 / 256))
        for k in range(near):
            line = 128 * k
            top = _between(lines + line, left, right, share)
            store(desk.slopes + line, top)
            store(desk.slopes + line + 64, subtract(_between(lines + line + 64, left, right, share), top))


@inline
def _put_parts(top, foot, upper, lowest_byte):
    """Store what `judging._octaves` takes: scores × 2^16 that fill 32 bits, times 256, would not fit."""
    low, low2 = both(top, all_ints(255)), both(foot, all_ints(255))
    store(upper, subtract(top, low))
    store(upper + 64, subtract(without_byte(foot), without_byte(top)))
    store(lowest_byte, add(multiply(low, all_ints(256)), all_ints(1 << 23)))
    store(lowest_byte + 64, subtract(low2, low))


@inline
def _across(line, left, right, fx):
    """Interpolate int32 to pixels, times 256."""
    a = pick_ints(line, left)
    return add(multiply(a, all_ints(256)), multiply(subtract(pick_ints(line, right), a), fx))


@inline
def _between(line, left, right, share):
    """Interpolate float32 to pixels."""
    a = pick(line, left)
    return multiply_add(subtract(pick(line, right), a), share, a)
