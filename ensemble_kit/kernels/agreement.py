"""Where members agree upon a class, cell by cell, at the speed at which their logits can be read.

A first pass keeps the largest logit of a cell, the second largest and the class, 32 cells at a time. Where every
member's largest leads by a *margin*, and the cells around a pixel have the same class, interpolating them and
averaging members change nothing: the pixel has that class, too (`scores/argmax.py` derives the margin). A lead alone
does not do: scores are rounded, and equal ones go to the first class.
"""

from ensemble_kit.kernels.candidates import top_address
from ensemble_kit.kernels.conversions import keys_of, lower_half, narrowed, numbers, upper_half, widened
from ensemble_kit.kernels.desk import CELLS, FLOCK, column_of, members_of, rows_of, slots_of
from ensemble_kit.kernels.jit import inline, kernel
from ensemble_kit.kernels.lanes import (
    all_ints,
    all_long,
    both,
    equal,
    greater,
    load_long,
    maximum,
    minimum,
    pick,
    select,
    store,
    subtract,
    word,
)
from ensemble_kit.kernels.words import code_at, load64, lowest, store16, store64

STEP = 4
"""Classes that are read together: each is a stream of its own, and more than a few evict each other from the caches."""


@kernel
def put_agreement(row, g, desk):
    """Find what the members of a grid agree upon in the cells of one row of an image."""
    _put_agreement(row, 1, 0, g, _labels(row, g, desk), desk)


@kernel
def put_flock(g, slot, row, height, desk):
    """Find what the members of a grid agree upon in a slice, from row `row` on; return up to which row."""
    rows = min(max(1, FLOCK // desk.width), height - row)
    _put_agreement(row, rows, slot, g, _slice_labels(row, slot, g, desk), desk)
    return row + rows


@kernel
def put_between(row, g, desk):
    """Find what the members of a grid agree upon in one row of the cells of both slices."""
    labels, (slot, slot2) = _labels(row, g, desk), slots_of(g, desk)
    before, behind = _slice_labels(row, slot, g, desk), _slice_labels(row, slot2, g, desk)
    for block in range(0, desk.width + 1, CELLS):
        a = load_long(before + 2 * block)
        if slot2 != slot:
            a = select(equal(a, load_long(behind + 2 * block)), a, all_long(-1))
        store(labels + 2 * block, a)


@inline
def _put_agreement(first_row, rows, slot, g, labels, desk):
    """Write the classes of so many rows of cells to the address `labels`; the last cell is repeated behind."""
    width, (first, stop), pitch = load64(desk.cells + 8 * g), members_of(g, desk), 2 * (desk.width + CELLS)
    for m in range(first, stop):
        _put_leaders(first_row, rows, slot, m, width, desk)
        margins = desk.margins + 4 * m * desk.classes
        for row in range(rows):
            own, top_row = labels + pitch * row, top_address(m, slot, first_row + row, desk)
            for block in range(0, width, CELLS):
                x = min(block, width - CELLS)
                best, second, label = _leaders(row, block, desk)
                tops = top_row + 4 * x
                low = _leads(lower_half(best), lower_half(second), lower_half(label), tops, margins)
                high = _leads(upper_half(best), upper_half(second), upper_half(label), tops + 64, margins)
                if m != first:
                    before = load_long(own + 2 * x)
                    low = select(equal(low, widened(lower_half(before))), low, all_ints(-1))
                    high = select(equal(high, widened(upper_half(before))), high, all_ints(-1))
                store(own + 2 * x, narrowed(low))
                store(own + 2 * x + 32, narrowed(high))
    for row in range(rows):
        behind = labels + pitch * row + 2 * width
        store(behind, all_long(load64(behind - 8) >> 48))


@inline
def _labels(row, g, desk):
    return desk.labels + 2 * (2 * g + (row & 1)) * (desk.width + CELLS)


@inline
def _slice_labels(row, slot, g, desk):
    return desk.slice_labels + 2 * ((2 * g + slot) * desk.kept + row) * (desk.width + CELLS)


@inline
def _put_leaders(first_row, rows, slot, m, width, desk):
    """Find the largest and the second largest key of a member's cells, and the class: three vectors for 32 cells."""
    at = desk.at + 8 * (slot * desk.members + m) * desk.classes
    pitch = 2 * load64(desk.widths + 8 * m)
    for c0 in range(0, desk.classes, STEP):
        for row in range(rows):
            offset = pitch * (first_row + row)
            for block in range(0, width, CELLS):
                best, second, label = all_long(-32768), all_long(-32768), all_long(0)
                if c0:
                    best, second, label = _leaders(row, block, desk)
                codes = offset + 2 * min(block, width - CELLS)
                for c in range(c0, min(c0 + STEP, desk.classes)):
                    key = keys_of(load_long(load64(at + 8 * c) + codes))
                    label = select(greater(key, best), all_long(c), label)
                    second = maximum(second, minimum(key, best))
                    best = maximum(best, key)
                leaders = _leaders_at(row, block, desk)
                store(leaders, best)
                store(leaders + 64, second)
                store(leaders + 128, label)


@inline
def _leaders_at(row, block, desk):
    return desk.leaders + 6 * (row * (desk.width + CELLS) + block)


@inline
def _leaders(row, block, desk):
    leaders = _leaders_at(row, block, desk)
    return load_long(leaders), load_long(leaders + 64), load_long(leaders + 128)


@inline
def _leads(best, second, label, tops, margins):
    """Store the largest logits; return the class where it leads by its margin, else -1, int32."""
    top, own = numbers(keys_of(best)), widened(label)
    store(tops, top)
    gap = subtract(top, numbers(keys_of(second)))
    return select(greater(pick(margins, own), gap), all_ints(-1), own)


@kernel
def put_quads(g, desk):
    """Find the class of the pixels between four cells of a grid; -1 where it is undecided."""
    r, r2 = rows_of(g, desk)
    top, foot = _labels(r, g, desk), _labels(r2, g, desk)
    width, across = load64(desk.cells + 8 * g), 2 * load64(desk.across + 8 * g)
    quads = desk.quads + 2 * g * (desk.width + CELLS)
    for block in range(0, width, CELLS):
        x = 2 * min(block, width - CELLS)
        a, b = load_long(top + x), load_long(top + x + across)
        c, d = load_long(foot + x), load_long(foot + x + across)
        same = both(both(equal(a, b), equal(a, c)), equal(a, d))
        store(quads + x, select(same, a, all_long(-1)))


@kernel
def put_strips(desk):
    """Find the class of each strip of the band upon which all grids agree; -1 where there is none."""
    if desk.strip_labels == desk.quads:
        return
    for strip in range(desk.strips):
        label = code_at(desk.quads + 2 * column_of(0, strip, desk))
        for g in range(1, desk.grids):
            own = code_at(desk.quads + 2 * (g * (desk.width + CELLS) + column_of(g, strip, desk)))
            label = label if own == label else -1
        store16(desk.strip_labels + 2 * strip, label)


@kernel
def find_undecided(desk, found):
    """List the strips without a class at the address `found`, int64; returns how many there are."""
    n = 0
    for block in range(0, desk.strips, CELLS):
        bits = word(greater(all_long(0), load_long(desk.strip_labels + 2 * block)))
        while bits != 0:
            store64(found + 8 * n, block + lowest(bits))
            n += 1
            bits &= bits - 1
    return n
