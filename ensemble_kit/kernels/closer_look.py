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
from ensemble_kit.kernels.conversions import as_floats, cooled_q_of, narrowed, power_of_two, q_of
from ensemble_kit.kernels.desk import CELLS, PIXELS, members_of, rows_of
from ensemble_kit.kernels.jit import inline, kernel
from ensemble_kit.kernels.judging import ROUNDED, in_octaves, judge
from ensemble_kit.kernels.lanes import (
    add,
    all_floats,
    all_ints,
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
    """Find the classes of the rows `y0 … y1 - 1` of pixels of the strips `s0 … s1`; list those too close to call."""
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


@kernel
def _evaluate(s0, s1, y0, y1, near, rest, again, desk):
    """Write the classes of the pixels; with `again`, stop where classes that are not near could win, and say so."""
    _put_lines(near, desk)
    begin, stop = load64(desk.col_at + 8 * s0), load64(desk.col_at + 8 * s1 + 8)
    for x in range(begin, stop, PIXELS):
        _put_slopes(x, near, desk)
        n = min(PIXELS, stop - x)
        for y in range(y0, y1):
            out = desk.rows + 2 * ((y - y0) * (desk.pixels + CELLS) + x)
            label, close, best = judge(y, near, rest, desk)
            bits = word(close) & ((1 << n) - 1)
            if again and word(greater(all_floats(rest + desk.absolute), best)) & ((1 << n) - 1):
                return True
            store(out, select(first_lanes(n), narrowed(label), load_shorts(out)))
            while bits != 0:
                found = load64(desk.close) + 1
                store64(desk.close, found)
                store64(desk.close + 8 * found, y * desk.pixels + x + lowest(bits))
                bits &= bits - 1
    return False


@inline
def _class(k, desk):
    """Number of the k-th near class."""
    return load64(desk.near + 8 * k)


@inline
def _below(m, c, row, first, desk):
    """How far 16 cells of a class lie below their largest logit, in octaves, at least -32 logits."""
    scale = all_floats(float_at(desk.scales + 4 * m))
    below = subtract(cells_at(m, c, row, first, desk), tops_at(m, row, first, desk))
    return maximum(multiply(below, scale), all_floats(LOWEST))


@inline
def _q(m, c, row, first, desk):
    """Q of 16 cells."""
    cells, tops, temperature = (
        cells_at(m, c, row, first, desk),
        tops_at(m, row, first, desk),
        double_at(desk.temperatures + 8 * m),
    )
    return q_of(cells, tops) if temperature == 1 else cooled_q_of(cells, tops, temperature)


@inline
def _put_lines(near, desk):
    """Put the scores of 16 cells of two rows of each grid into `lines`."""
    for g in range(desk.grids):
        (r, r2), (begin, end), first = rows_of(g, desk), members_of(g, desk), load64(desk.windows + 8 * g)
        for s in range(1 if r2 == r else 2):
            row = r2 if s else r
            for m in range(begin, end):
                if on_grid(desk):
                    _add_line(m, row, first, s, near, desk)
                    continue
                for k in range(near):
                    line = desk.lines + 64 * (2 * (m * desk.classes + k) + s)
                    store(line, _q(m, _class(k, desk), row, first, desk))


@inline
def _add_line(m, row, first, s, near, desk):
    """Add a member's scores of 16 cells to those of the members before it; multiply by factors after the last."""
    share, total = all_floats(1), all_floats(0)
    for k in range(near):
        if not adds(desk):
            score = power_of_two(_below(m, _class(k, desk), row, first, desk))
            total = add(total, score)
        else:
            score = in_octaves(_q(m, _class(k, desk), row, first, desk))
        store(desk.powers + 64 * k, score)
    if not adds(desk):
        share = divide(share, total)
    for k in range(near):
        line, score, c = desk.lines + 64 * (2 * k + s), load_floats(desk.powers + 64 * k), _class(k, desk)
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
def _put_slopes(x, near, desk):
    """Interpolate the lines of cells to 16 pixels from `x` on."""
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
                    top = _across(desk.lines + line, left, right, fx)
                    store(desk.slopes + line, multiply(top, all_ints(256)))
                    store(desk.slopes + line + 64, subtract(_across(desk.lines + line + 64, left, right, fx), top))
            continue
        share = multiply(as_floats(fx), all_floats(1 / 256))
        for k in range(near):
            line = 128 * k
            top = _between(desk.lines + line, left, right, share)
            store(desk.slopes + line, top)
            store(desk.slopes + line + 64, subtract(_between(desk.lines + line + 64, left, right, share), top))


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
