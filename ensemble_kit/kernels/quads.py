"""Cells that share one grid, looked at four at a time, at the speed at which their logits can be read.

The codes whose score reaches a level are one interval of the 65,536 (`fused.py` finds it), so a first pass compares
64 cells at a time and keeps two bits a cell: whether *any* member reaches the level, and whether *all* do. A *quad*
is a cell and its right, lower and diagonal neighbour; bilinear interpolation is a convex combination and every
table is monotone, so the pixels between four cells that no member has on are off, and those between four that all
have on are on, without arithmetic. What is left, about 0.2 % of a bone's image and a tenth to a half of an image of
which members are not sure, is *mixed*: `settling.py` bounds it closer, and `spans.py` evaluates the rest.

A walk over the rows of quads turns bits into *events*: the quads where what the pixels are (off, on, or mixed)
changes. No image of levels and no mask is made. Where no pixel lies between two rows or columns of cells, as on an
image of the grid's own size, a quad leaves out the neighbours that weigh nothing.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ensemble_kit.kernels.jit import inline, kernel
from ensemble_kit.kernels.words import (
    AHEAD,
    address_of,
    code_at,
    codes_within,
    fetch,
    half_up,
    load64,
    lowest,
    store8,
    store64,
)

OFF, ON, MIXED = 0, 1, 2


class Events(NamedTuple):
    """Bits of one class's cells, and what a row of quads makes of them.

    Parameters
    ----------
    any_bits, all_bits : int64 (h, words), bits of all cells, as `mark` sets them.
    on, mixed : int64 (words,), bits of one row of quads: all pixels on; some pixel on, or not known.
    columns : int64 (w,), where the events of one row of quads are.
    kinds : int8 (w,), what the pixels are from there on.
    """

    any_bits: NDArray[np.int64]
    all_bits: NDArray[np.int64]
    on: NDArray[np.int64]
    mixed: NDArray[np.int64]
    columns: NDArray[np.int64]
    kinds: NDArray[np.int8]


class EventsAt(NamedTuple):
    """Addresses of the arrays of `Events`, and the cells of a row: no reference is counted when they are used."""

    any_bits: int
    all_bits: int
    on: int
    mixed: int
    columns: int
    kinds: int
    width: int


@inline
def make_events(h, w):
    """Make room for the bits and events of a grid."""
    words = (w + 63) // 64
    any_bits, all_bits = np.empty((h, words), np.int64), np.empty((h, words), np.int64)
    on, mixed = np.empty(words, np.int64), np.empty(words, np.int64)
    return Events(any_bits, all_bits, on, mixed, np.empty(w, np.int64), np.empty(w, np.int8))


@inline
def events_at(events):
    """Take the addresses of events; the caller keeps the arrays alive."""
    return EventsAt(
        address_of(events.any_bits),
        address_of(events.all_bits),
        address_of(events.on),
        address_of(events.mixed),
        address_of(events.columns),
        address_of(events.kinds),
        events.columns.size,
    )


@kernel
def mark(maps, firsts, spans, width, any_bits, all_bits):
    """Set bit c of row r where any member reaches the low level in cell (r, c), and where all reach the high one.

    `firsts` and `spans` (2, M) are those of one class in `Reach`. Member after member, so that each class map is read
    as one stream: eight rows of every member in turn cost a third more.
    """
    words = any_bits.shape[1]
    for m in range(maps.addresses.size):
        low, low_span, high, high_span = firsts[0, m], spans[0, m], firsts[1, m], spans[1, m]
        low_mask, high_mask = np.int64(0 if low_span < 0 else -1), np.int64(0 if high_span < 0 else -1)
        for r in range(any_bits.shape[0]):
            row = maps.addresses[m] + 2 * r * maps.widths[m]
            for k in range(words):
                if 64 * k + 64 <= width:
                    fetch(row + 128 * k + AHEAD)
                    some = codes_within(row + 128 * k, low, low_span) & low_mask
                    every = codes_within(row + 128 * k, high, high_span) & high_mask
                else:
                    some = _last_word(row, 64 * k, width, low, low_span)
                    every = _last_word(row, 64 * k, width, high, high_span)
                if m == 0:
                    any_bits[r, k], all_bits[r, k] = some, every
                else:
                    any_bits[r, k] |= some
                    all_bits[r, k] &= every


@inline
def _last_word(row, begin, width, first, span):
    """Compare the fewer than 64 cells at the end of a row, one by one."""
    word = np.int64(0)
    for x in range(width - begin):
        if ((code_at(row + 2 * (begin + x)) - first) & 65535) <= span:
            word |= np.int64(1) << x
    return word


@inline
def neighbours(fractions, at):
    """Tell for each row (or column) of cells whether some pixel behind it lies between it and the next one."""
    out = np.zeros(at.size - 1, np.int64)
    for r in range(at.size - 1):
        for y in range(at[r], at[r + 1]):
            out[r] |= fractions[y] != 0
    return out


@inline
def any_between(fractions):
    """Tell, 0 or 1, whether some pixel lies between two cells (`neighbours().max()` takes half a second to compile)."""
    found = np.int64(0)
    for x in range(fractions.size):
        found |= fractions[x] != 0
    return found


@inline
def rows_in_use(bits):
    """Tell which rows of quads have a bit in one of their two rows of cells."""
    h = bits.shape[0]
    used = np.zeros(h, np.bool_)
    for r in range(h):
        seen = np.int64(0)
        for k in range(bits.shape[1]):
            seen |= bits[r, k]
        used[r] = seen != 0
    for r in range(h - 1):
        used[r] |= used[r + 1]
    return used


@inline
def find_kinds(r, r2, across, at):
    """Set the bits of the quads of rows `r` and `r2` that are on, and of those that are mixed; tell whether any is.

    A quad at the right edge of the grid has itself for a neighbour, and so has every quad without `across`. `at` is
    EventsAt.
    """
    pitch, seen = 8 * ((at.width + 63) // 64), np.int64(0)
    any_upper, any_lower = at.any_bits + r * pitch, at.any_bits + r2 * pitch
    all_upper, all_lower = at.all_bits + r * pitch, at.all_bits + r2 * pitch
    some, every = load64(any_upper) | load64(any_lower), load64(all_upper) & load64(all_lower)
    for k in range(0, pitch, 8):
        valid = np.int64(-1)
        if k + 8 < pitch:
            some_next = load64(any_upper + k + 8) | load64(any_lower + k + 8)
            every_next = load64(all_upper + k + 8) & load64(all_lower + k + 8)
        else:
            end = at.width - 8 * k
            some_next, every_next = some >> (end - 1), every >> (end - 1)
            if end < 64:  # the cell behind the last one repeats it
                valid = (np.int64(1) << end) - 1
                some |= some_next << end
                every |= every_next << end
        maybe, on = some, every & valid
        if across:
            maybe |= half_up(some) | (some_next << 63)
            on &= half_up(every) | (every_next << 63)
        mixed = maybe & ~on & valid
        store64(at.on + k, on)
        store64(at.mixed + k, mixed)
        seen |= mixed
        some, every = some_next, every_next
    return seen != 0


@inline
def find_events(at):
    """Write the quads where the kind of the pixels changes, or is mixed; return how many. `at` is EventsAt."""
    n, was_on, was_mixed = 0, np.int64(0), np.int64(0)  # of the last quad before this word
    for k in range(0, at.width, 64):
        on, mixed, end = load64(at.on + k // 8), load64(at.mixed + k // 8), at.width - k
        event = (on ^ ((on << 1) | was_on)) | mixed | (mixed << 1) | was_mixed
        if end < 64:
            event &= (np.int64(1) << end) - 1
        if k == 0:
            event |= 1  # the row before may have ended in any state
        while event != 0:
            bit = lowest(event)
            event &= event - 1
            store64(at.columns + 8 * n, k + bit)
            store8(at.kinds + n, ON if (on >> bit) & 1 else MIXED if (mixed >> bit) & 1 else OFF)
            n += 1
        was_on, was_mixed = (on >> 63) & 1, (mixed >> 63) & 1
    return n
