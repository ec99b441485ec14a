"""Exclusive classes cell by cell, sixteen at a time: their `Q`, and the levels of their softmax, on a whole grid."""

import numpy as np

from ensemble_kit.kernels.conversions import (
    cooled_q_of,
    narrowed,
    number_at,
    numbers,
    q_of,
    truncated,
)
from ensemble_kit.kernels.exclusive import exclusive_q
from ensemble_kit.kernels.exponentials import high_cooled, high_exponential, low_cooled, low_exponential
from ensemble_kit.kernels.fuse import softmax_levels
from ensemble_kit.kernels.jit import inline, kernel, routine
from ensemble_kit.kernels.lanes import (
    add,
    all_floats,
    divide,
    greater,
    load_floats,
    load_shorts,
    maximum,
    multiply,
    store,
    word,
)
from ensemble_kit.kernels.words import address_of, lowest

LANES = 16


@kernel
def put_q(at, temperature, out):
    """Write `Q` (docs/concepts.md#rule-9-exclusive-classes), uint16 (C, cells), from fp16 logits.

    `at`, int64 (C,), are the classes' addresses.
    """
    if out.shape[1] < LANES:
        exclusive_q(_few(at, out.shape[1]), temperature, out)
        return
    for block in range(0, out.shape[1], LANES):
        first = min(block, out.shape[1] - LANES)
        top = _top(at, first)
        for c in range(at.size):
            z = numbers(load_shorts(at[c] + 2 * first))
            q = q_of(z, top) if temperature == 1 else cooled_q_of(z, top, temperature)
            store(address_of(out) + 2 * (c * out.shape[1] + first), narrowed(q))


@kernel
def put_levels(at, temperature, order, out):
    """Write the levels of a softmax, uint16 (C, cells), as `fuse.softmax_levels` does.

    Parameters
    ----------
    at : int64 (C,), addresses of the classes, in the member's own order: float32 sums depend on it.
    order : int64 (C,), row of `out` of each.
    """
    if out.shape[1] < LANES:
        levels = np.empty(out.shape, np.uint16)
        softmax_levels(_few(at, out.shape[1]), temperature, levels)
        for c in range(at.size):
            for k in range(levels.shape[1]):
                out[order[c], k] = levels[c, k]
        return
    scratch = np.empty((at.size, LANES), np.float32)
    for block in range(0, out.shape[1], LANES):
        first = min(block, out.shape[1] - LANES)
        top, total = _top(at, first), all_floats(0)
        for c in range(at.size):
            z, line = numbers(load_shorts(at[c] + 2 * first)), address_of(scratch) + 4 * LANES * c
            if temperature == 1:
                low, high = low_exponential(z, top, temperature), high_exponential(z, top, temperature)
            else:
                low, high = low_cooled(z, top, temperature), high_cooled(z, top, temperature)
            store(line, low)
            bits = word(greater(high, low))
            while bits != 0:
                k = lowest(bits)
                scratch[c, k] = _one(at, c, first + k, temperature)
                bits &= bits - 1
            total = add(total, load_floats(line))
        for c in range(at.size):
            share = divide(load_floats(address_of(scratch) + 4 * LANES * c), total)
            level = truncated(add(multiply(all_floats(65535), share), all_floats(0.5)))
            store(address_of(out) + 2 * (order[c] * out.shape[1] + first), narrowed(level))


@inline
def _top(at, first):
    top = all_floats(-65504)
    for c in range(at.size):
        top = maximum(top, numbers(load_shorts(at[c] + 2 * first)))
    return top


@routine
def _one(at, c, cell, temperature):
    """The exponential of one cell in float64, rounded."""
    top = np.float32(-65504)
    for k in range(at.size):
        top = max(top, number_at(at[k] + 2 * cell))
    return np.float32(np.exp(np.float64(number_at(at[c] + 2 * cell) - top) / temperature))


@inline
def _few(at, cells):
    """The logits of fewer cells than are looked at together."""
    logits = np.empty((at.size, cells), np.float32)
    for c in range(at.size):
        for k in range(cells):
            logits[c, k] = number_at(at[c] + 2 * k)
    return logits
