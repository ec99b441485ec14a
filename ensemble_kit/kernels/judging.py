"""The strongest of a few classes at sixteen pixels, by scores in float32, and where it is too close to call."""

import numpy as np

from ensemble_kit.kernels.arguments import ALONE, EACH, LINEAR_EACH
from ensemble_kit.kernels.candidates import adds
from ensemble_kit.kernels.conversions import as_floats, power_of_two, upper_bits, without_byte
from ensemble_kit.kernels.desk import members_of
from ensemble_kit.kernels.jit import inline
from ensemble_kit.kernels.lanes import (
    add,
    all_floats,
    all_ints,
    both,
    divide,
    either,
    float_at,
    greater,
    load_floats,
    load_ints,
    maximum,
    minimum,
    multiply,
    multiply_add,
    select,
    store,
    subtract,
)
from ensemble_kit.kernels.words import load64

UNIT = np.float32(32 / 65535 * 1.4426950408889634)
"""One unit of `q` in octaves."""

ROUNDED = np.float32(1.2 * 32 / 65535 * 1.4426950408889634)
"""By how much rounding can raise a score, in octaves."""

UNSURE_SHARE, LEAST_DOUBT = np.float32(2.2e-3), np.float32(1e-5)
"""How far a share of averaged logits can be off: each of them by 1.7 units of `q`, relatively, and for float32."""


@inline
def in_octaves(q):
    """Turn `q` into logits below the largest."""
    return multiply(as_floats(subtract(q, all_ints(65535))), all_floats(UNIT))


@inline
def judge(y, near, rest, deep, desk):
    """Find the strongest class of 16 pixels of row `y`, int32, where it is too close to call, and its score.

    `deep` tells that the slopes are those of pixels between two slices.
    """
    unsure = all_floats(0)
    if desk.kind <= LINEAR_EACH:
        unsure = _fuse(y, near, deep, desk)
    label, winning, best, second = all_ints(-1), all_floats(0), all_floats(0), all_floats(0)
    if adds(desk):
        best, second = all_floats(-1e30), all_floats(rest)
    fy = all_ints(load64(desk.row_fractions + 8 * y))  # of the first grid, where it matters the only one
    for k in range(near):
        c = load64(desk.near + 8 * k)
        factor = all_floats(float_at(desk.factors + 4 * c))
        if desk.kind == EACH:
            own = load_floats(desk.fused + 64 * k)
            score = multiply(own, factor)
        elif desk.kind == LINEAR_EACH:
            own = load_floats(desk.fused + 64 * k)
            score = add(own, factor)
        elif desk.kind == ALONE:
            own = _octaves(0, k, fy, deep, desk)
            score = add(own, factor)
        else:
            slope = desk.slopes + 128 * k
            score = multiply_add(
                load_floats(slope + 64), multiply(as_floats(fy), all_floats(1 / 256)), load_floats(slope)
            )
            own = score
            if desk.least >= 0:
                own = subtract(score, factor) if adds(desk) else divide(score, factor)
                store(desk.fused + 64 * k, own)
        ahead = greater(score, best)
        label = select(ahead, all_ints(c), label)
        winning = select(ahead, own, winning)
        second = maximum(second, minimum(score, best))
        best = maximum(score, best)
    lead, tolerance = subtract(best, second), all_floats(desk.absolute)
    if adds(desk):
        if desk.least >= 0:
            winning = divide(power_of_two(winning), _total(near, desk))
            doubt = multiply_add(winning, all_floats(UNSURE_SHARE), all_floats(LEAST_DOUBT))
            label, lead = _weighed(label, lead, winning, doubt, desk)
    else:
        error, relative = all_floats(np.float32(2.05) * rest), all_floats(desk.relative)
        tolerance = add(tolerance, multiply(error, unsure) if desk.kind == EACH else error)
        if desk.least >= 0:
            doubt = multiply_add(add(winning, winning), relative, tolerance)
            label, lead = _weighed(label, lead, winning, doubt, desk)
        tolerance = multiply_add(add(best, second), relative, tolerance)
    close = greater(tolerance, lead)
    if desk.ties:
        close = both(close, either(greater(lead, all_floats(0)), greater(all_floats(rest + ROUNDED), best)))
    return label, close, best


@inline
def _fuse(y, near, deep, desk):
    """Fuse the scores of members that are interpolated, into `fused`; return how much a small rest of shares weighs."""
    unsure = all_floats(0)
    for g in range(desk.grids):
        fy = all_ints(load64(desk.row_fractions + 8 * (g * desk.height + y)))
        begin, stop = members_of(g, desk)
        for m in range(begin, stop):
            share, total = all_floats(1), all_floats(0)
            for k in range(near):
                score = _octaves(m, k, fy, deep, desk)
                if desk.kind == EACH:
                    score = power_of_two(score)
                    total = add(total, score)
                store(desk.powers + 64 * k, score)
            if desk.kind == EACH:
                share = divide(share, total)
                unsure = multiply_add(all_floats(float_at(desk.heaviest + 4 * m)), share, unsure)
            for k in range(near):
                own, sofar = desk.fused + 64 * k, all_floats(0)
                if m:
                    sofar = load_floats(own)
                c = load64(desk.near + 8 * k)
                weight = multiply(share, all_floats(float_at(desk.weights + 4 * (m * desk.classes + c))))
                store(own, multiply_add(load_floats(desk.powers + 64 * k), weight, sofar))
    return unsure


@inline
def _octaves(m, k, fy, deep, desk):
    """Scores of 16 pixels between two rows of cells, logits below the largest: their rounded `q`.

    Between two slices 40 bits are rounded to 16: what the lowest byte of two rows adds is carried to the others.
    """
    slope = desk.slopes + 128 * (m * desk.classes + k)
    value, carried = add(load_ints(slope), multiply(load_ints(slope + 64), fy)), all_ints(32768)
    if deep:
        low = slope + 128 * desk.members * desk.classes
        carried = without_byte(add(load_ints(low), multiply(load_ints(low + 64), fy)))
    return in_octaves(upper_bits(add(value, carried)))


@inline
def _total(near, desk):
    """The sum of all classes' exponentials, of fused logits."""
    total = all_floats(0)
    for k in range(near):
        total = add(total, power_of_two(load_floats(desk.fused + 64 * k)))
    return total


@inline
def _weighed(label, lead, winning, doubt, desk):
    """Take the label where the winner's share is less than `least`, and the lead where that is in doubt."""
    margin = subtract(winning, all_floats(desk.least))
    label = select(greater(all_floats(0), margin), all_ints(-1), label)
    unsigned = maximum(margin, subtract(all_floats(0), margin))
    return label, select(greater(doubt, unsigned), all_floats(-1), lead)
