"""Which classes are worth a closer look: those that come near the largest logit of a cell of some member.

Three or four of nineteen do at a boundary. What the others could add is part of the tolerance within which a pixel is
too close to call.
"""

import numpy as np

from ensemble_kit.kernels.conversions import numbers, power_of_two
from ensemble_kit.kernels.desk import PIXELS, column_of, members_of, of_volume, side_of
from ensemble_kit.kernels.jit import inline
from ensemble_kit.kernels.lanes import (
    add,
    all_floats,
    first_lanes,
    float_at,
    greater,
    largest,
    load_floats,
    load_shorts,
    maximum,
    multiply,
    select,
    store,
    subtract,
    word,
)
from ensemble_kit.kernels.words import load64, store64

LOWEST = np.float32(-32 * 1.4426950408889634)

CUTS = tuple(np.float32(-logits * 1.4426950408889634) for logits in (5, 7, 9, 12))
"""A class counts where it comes that near, in octaves; more classes do while the others could add too much."""

FAR, FAR_SHARE = np.float32(-14 * 1.4426950408889634), np.float32(8.4e-7)
"""From there on a class's exponential is not worth its computation."""


@inline
def adds(desk):
    """Whether scores are logits, to which the logarithms of factors are added."""
    return desk.kind & 1 != 0


@inline
def on_grid(desk):
    """Whether members are fused on the grid that they share, and not each interpolated, in integers."""
    return desk.kind & 2 != 0


@inline
def cells_at(m, c, slot, row, first, desk):
    """Logits of 16 cells."""
    at, codes = cells_from(m, slot, row, first, desk)
    return numbers(load_shorts(load64(at + 8 * c) + codes))


@inline
def cells_from(m, slot, row, first, desk):
    """Where the addresses of a member's classes stand, and how far behind each of them cells lie."""
    at = desk.at + 8 * (slot * desk.members + m) * desk.classes
    return at, 2 * (row * load64(desk.widths + 8 * m) + first)


@inline
def top_address(m, slot, row, desk):
    """Where a member's largest logits of a row of cells are kept."""
    number = slot * desk.kept + row if of_volume(desk) else row & 1
    return desk.tops + 4 * (number * desk.members + m) * desk.width


@inline
def tops_at(m, slot, row, first, desk):
    """A member's largest logits in 16 cells."""
    return load_floats(top_address(m, slot, row, desk) + 4 * first)


@inline
def put_windows(s0, s1, desk):
    """Choose each grid's 16 columns of cells around the strips `s0 … s1`; keep the largest logits of their cells."""
    never = all_floats(3e38)
    for g in range(desk.grids):
        width, c0 = load64(desk.cells + 8 * g), column_of(g, s0, desk)
        first = min(c0, width - PIXELS)
        last = min(column_of(g, s1, desk) + load64(desk.across + 8 * g), width - 1)
        store64(desk.windows + 8 * g, first)
        inside, before, (begin, stop) = first_lanes(last - first + 1), first_lanes(c0 - first), members_of(g, desk)
        for s in range(len(desk.sides)):
            row, slot, _ = side_of(g, s, desk)
            for m in range(begin, stop):
                top = select(before, never, select(inside, tops_at(m, slot, row, first, desk), never))
                store(desk.limits + 64 * (4 * m + s), top)


@inline
def put_peaks(desk):
    """Put into `peaks` how near each class comes to the largest logit of a cell, in octaves.

    The j-th cells of all members' windows stand in one lane, wherever they lie: a bound needs no more.
    """
    for c in range(desk.classes):
        store(desk.peaks + 64 * c, all_floats(LOWEST))
    for g in range(desk.grids):
        (begin, stop), first = members_of(g, desk), load64(desk.windows + 8 * g)
        for s in range(len(desk.sides)):
            row, slot, counts = side_of(g, s, desk)
            for m in range(begin, stop if counts else begin):
                limit, scale = load_floats(desk.limits + 64 * (4 * m + s)), all_floats(float_at(desk.scales + 4 * m))
                at, codes = cells_from(m, slot, row, first, desk)
                for c in range(desk.classes):
                    below = subtract(numbers(load_shorts(load64(at + 8 * c) + codes)), limit)
                    peak = load_floats(desk.peaks + 64 * c)
                    store(desk.peaks + 64 * c, maximum(peak, multiply(below, scale)))


@inline
def choose(cut, desk):
    """List the classes whose peak exceeds `cut` in some cell.

    Returns how many, and what the others can have at a pixel: of logits the largest of their scores, else the sum of
    their exponentials, which is largest at a cell, as they are convex.
    """
    n, rest = 0, all_floats(-1e30 if adds(desk) else 0)
    for c in range(desk.classes):
        peak = load_floats(desk.peaks + 64 * c)
        near = word(greater(peak, all_floats(cut))) != 0
        store64(desk.near + 8 * n, c)
        n += near
        if adds(desk):
            rest = rest if near else maximum(rest, peak)
        elif not near:
            far = word(greater(peak, all_floats(FAR))) == 0
            rest = add(rest, all_floats(FAR_SHARE) if far else power_of_two(peak))
    return n, largest(rest)
