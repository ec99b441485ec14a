"""Pixels between cells that members do not agree upon: in float32, sixteen at a time, and in integers where too close.

Only classes that come near the largest logit of a cell of some member are looked at: three or four of nineteen at a
boundary. What the others could add is part of the tolerance within which a pixel is too close to call.
"""

import numpy as np

from ensemble_kit.kernels.conversions import as_floats, cooled_q_of, narrowed, numbers, power_of_two, q_of, upper_bits
from ensemble_kit.kernels.desk import CELLS, PIXELS
from ensemble_kit.kernels.jit import inline, kernel
from ensemble_kit.kernels.lanes import (
    add,
    all_floats,
    all_ints,
    both,
    divide,
    double_at,
    either,
    first_lanes,
    float_at,
    greater,
    largest,
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
"""Quads that are looked at together: their cells, one more, and one to spare are 16."""

LOWEST = np.float32(-32 * 1.4426950408889634)

CUTS = tuple(np.float32(-logits * 1.4426950408889634) for logits in (5, 7, 9, 12))
"""A class counts where it comes that near, in octaves; more classes do while the others could add too much."""

FAR, FAR_SHARE = np.float32(-14 * 1.4426950408889634), np.float32(8.4e-7)
"""From there on a class's exponential is not worth its computation."""

ENOUGH = np.float32(1e-3)
"""What the classes that do not count may add."""

UNIT = np.float32(32 / 65535 * 1.4426950408889634)
"""One unit of `q` in octaves."""

ROUNDED = np.float32(1.2 * 32 / 65535 * 1.4426950408889634)
"""By how much rounding can raise a score, in octaves."""


@kernel
def look(r, r2, c0, c1, desk):
    """Find the classes of the pixels of quads `c0 … c1` of rows `r` and `r2`; list those that are too close to call."""
    first, last = min(c0, desk.width - PIXELS), min(c1 + desk.across, desk.width - 1)
    _put_peaks(r, r2, first, c0, last, desk)
    near, rest = _choose(CUTS[0], desk)
    if desk.kind & 1:
        if _evaluate(r, r2, c0, c1, first, near, rest + ROUNDED, True, desk):
            near, rest = _choose(LOWEST, desk)
            _evaluate(r, r2, c0, c1, first, near, rest + ROUNDED, False, desk)
        return
    for k in range(1, len(CUTS)):
        if rest > ENOUGH:
            near, rest = _choose(CUTS[k], desk)
    _evaluate(r, r2, c0, c1, first, near, rest, False, desk)


@kernel
def _evaluate(r, r2, c0, c1, first, near, rest, again, desk):
    """Write the classes of the pixels; with `again`, stop where classes that are not near could win, and say so."""
    _put_lines(r, r2, first, near, desk)
    begin, stop = load64(desk.col_at + 8 * c0), load64(desk.col_at + 8 * c1 + 8)
    y0, y1 = load64(desk.row_at + 8 * r), load64(desk.row_at + 8 * r + 8)
    for x in range(begin, stop, PIXELS):
        _put_slopes(x, first, near, desk)
        n = min(PIXELS, stop - x)
        for y in range(y0, y1):
            out = desk.rows + 2 * ((y - y0) * (desk.pixels + CELLS) + x)
            label, close, best = _judge(load64(desk.row_fractions + 8 * y), near, rest, desk)
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
def _cells(m, c, row, first, desk):
    """Logits of 16 cells."""
    return numbers(
        load_shorts(load64(desk.at + 8 * (m * desk.classes + c)) + 2 * (row * load64(desk.widths + 8 * m) + first))
    )


@inline
def _tops(m, row, first, desk):
    """A member's largest logits in 16 cells."""
    return load_floats(desk.tops + 4 * (((row & 1) * desk.members + m) * desk.width + first))


@inline
def _put_peaks(r, r2, first, c0, last, desk):
    """Put into `peaks` how near each class comes to the largest logit of cells `c0 … last` by column, in octaves."""
    inside, before, never = first_lanes(last - first + 1), first_lanes(c0 - first), all_floats(3e38)
    rows = 1 if r2 == r else 2
    for m in range(desk.members):
        for s in range(rows):
            top = select(before, never, select(inside, _tops(m, r2 if s else r, first, desk), never))
            store(desk.limits + 64 * (2 * m + s), top)
    for c in range(desk.classes):
        peak = all_floats(LOWEST)
        for m in range(desk.members):
            scale = all_floats(float_at(desk.scales + 4 * m))
            for s in range(rows):
                below = subtract(_cells(m, c, r2 if s else r, first, desk), load_floats(desk.limits + 64 * (2 * m + s)))
                peak = maximum(peak, multiply(below, scale))
        store(desk.peaks + 64 * c, peak)


@inline
def _choose(cut, desk):
    """List the classes whose peak exceeds `cut` in some column.

    Returns how many, and what the others can have at a pixel: with kinds 1 and 3 the largest of their scores, else the
    sum of their exponentials, which is largest at a cell, as they are convex.
    """
    n, rest = 0, all_floats(-1e30 if desk.kind & 1 else 0)
    for c in range(desk.classes):
        peak = load_floats(desk.peaks + 64 * c)
        near = word(greater(peak, all_floats(cut))) != 0
        store64(desk.near + 8 * n, c)
        n += near
        if desk.kind & 1:
            rest = rest if near else maximum(rest, peak)
        elif not near:
            far = word(greater(peak, all_floats(FAR))) == 0
            rest = add(rest, all_floats(FAR_SHARE) if far else power_of_two(peak))
    return n, largest(rest)


@inline
def _below(m, c, row, first, desk):
    """How far 16 cells of a class lie below their largest logit, in octaves, at least -32 logits."""
    scale = all_floats(float_at(desk.scales + 4 * m))
    below = subtract(_cells(m, c, row, first, desk), _tops(m, row, first, desk))
    return maximum(multiply(below, scale), all_floats(LOWEST))


@inline
def _q(m, c, row, first, desk):
    """Q of 16 cells."""
    cells, tops, temperature = (
        _cells(m, c, row, first, desk),
        _tops(m, row, first, desk),
        double_at(desk.temperatures + 8 * m),
    )
    return q_of(cells, tops) if temperature == 1 else cooled_q_of(cells, tops, temperature)


@inline
def _in_octaves(q):
    """Turn `q` into logits below the largest."""
    return multiply(as_floats(subtract(q, all_ints(65535))), all_floats(UNIT))


@inline
def _in_integers(desk):
    """Whether `q` of each member is interpolated, as integers."""
    return desk.kind % 3 == 0


@inline
def _put_lines(r, r2, first, near, desk):
    """Put the scores of 16 cells of two rows into `lines`."""
    for s in range(1 if r2 == r else 2):
        row = r2 if s else r
        for m in range(desk.members):
            if _in_integers(desk):
                for k in range(near):
                    line = desk.lines + 64 * (2 * (m * desk.classes + k) + s)
                    store(line, _q(m, _class(k, desk), row, first, desk))
                continue
            share, total = all_floats(float_at(desk.weights + 4 * m)), all_floats(0)
            for k in range(near):
                if desk.kind == 2:
                    score = power_of_two(_below(m, _class(k, desk), row, first, desk))
                    total = add(total, score)
                else:
                    score = _in_octaves(_q(m, _class(k, desk), row, first, desk))
                store(desk.powers + 64 * k, score)
            if desk.kind == 2:
                share = divide(share, total)
            for k in range(near):
                line, score = desk.lines + 64 * (2 * k + s), load_floats(desk.powers + 64 * k)
                sofar = all_floats(0)
                if m:
                    sofar = load_floats(line)
                score = multiply_add(score, share, sofar)
                if m + 1 == desk.members:
                    factor = all_floats(float_at(desk.factors + 4 * _class(k, desk)))
                    score = add(score, factor) if desk.kind == 1 else multiply(score, factor)
                store(line, score)


@inline
def _put_slopes(x, first, near, desk):
    """Interpolate the lines of cells to 16 pixels from `x` on."""
    left = subtract(load_ints(desk.left + 4 * x), all_ints(first))
    left = maximum(minimum(left, all_ints(PIXELS - 1)), all_ints(0))
    right = minimum(add(left, all_ints(desk.across)), all_ints(PIXELS - 1))
    fx = load_ints(desk.fractions + 4 * x)
    if _in_integers(desk):
        for m in range(desk.members):
            for k in range(near):
                line = 128 * (m * desk.classes + k)
                top = _across(desk.lines + line, left, right, fx)
                store(desk.slopes + line, multiply(top, all_ints(256)))
                store(desk.slopes + line + 64, subtract(_across(desk.lines + line + 64, left, right, fx), top))
        return
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


@inline
def _octaves(m, k, fy, desk):
    """Scores of 16 pixels between two rows of cells, logits below the largest: their rounded `q`."""
    slope = desk.slopes + 128 * (m * desk.classes + k)
    value = add(load_ints(slope), multiply(load_ints(slope + 64), fy))
    return _in_octaves(upper_bits(add(value, all_ints(32768))))


@inline
def _judge(fraction, near, rest, desk):
    """Find the strongest class of 16 pixels, int32, where it is too close to call, and its score."""
    fy, unsure = all_ints(fraction), all_floats(0)
    if desk.kind == 0:
        for m in range(desk.members):
            total = all_floats(0)
            for k in range(near):
                score = power_of_two(_octaves(m, k, fy, desk))
                store(desk.powers + 64 * k, score)
                total = add(total, score)
            share = divide(all_floats(float_at(desk.weights + 4 * m)), total)
            unsure = add(unsure, share)
            for k in range(near):
                own, sofar = desk.fused + 64 * k, all_floats(0)
                if m:
                    sofar = load_floats(own)
                store(own, multiply_add(load_floats(desk.powers + 64 * k), share, sofar))
    label, winning, best, second = all_ints(-1), all_floats(0), all_floats(0), all_floats(0)
    if desk.kind & 1:
        best, second = all_floats(-1e30), all_floats(rest)
    for k in range(near):
        c = _class(k, desk)
        factor = all_floats(float_at(desk.factors + 4 * c))
        if desk.kind == 0:
            own = load_floats(desk.fused + 64 * k)
            score = multiply(own, factor)
        elif desk.kind == 3:
            own = _octaves(0, k, fy, desk)
            score = add(own, factor)
        else:
            slope = desk.slopes + 128 * k
            score = multiply_add(
                load_floats(slope + 64), multiply(as_floats(fy), all_floats(1 / 256)), load_floats(slope)
            )
            own = score
            if desk.least >= 0:
                own = divide(score, factor)
        ahead = greater(score, best)
        label = select(ahead, all_ints(c), label)
        winning = select(ahead, own, winning)
        second = maximum(second, minimum(score, best))
        best = maximum(score, best)
    lead, tolerance = subtract(best, second), all_floats(desk.absolute)
    if not desk.kind & 1:
        error, relative = all_floats(np.float32(2.05) * rest), all_floats(desk.relative)
        tolerance = add(tolerance, multiply(error, unsure) if desk.kind == 0 else error)
        if desk.least >= 0:
            margin = subtract(winning, all_floats(desk.least))
            doubt = multiply_add(add(winning, winning), relative, tolerance)
            label = select(greater(all_floats(0), margin), all_ints(-1), label)
            lead = select(greater(doubt, maximum(margin, subtract(all_floats(0), margin))), all_floats(-1), lead)
        tolerance = multiply_add(add(best, second), relative, tolerance)
    close = greater(tolerance, lead)
    if desk.ties:
        close = both(close, either(greater(lead, all_floats(0)), greater(all_floats(rest + ROUNDED), best)))
    return label, close, best
