"""Decide classes by the scores of every pixel, sixteen at a time, in 32-bit integers (docs/concepts.md#rule-10-argmax).

It takes members whose score of a class depends on the codes of that class alone.

A fused value is less than 2^32, so that integers of 32 bits without a sign hold it. Tiles of columns keep what has been
interpolated across, of two rows of cells, near the processor.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ensemble_kit.kernels.conversions import as_floats, halved, narrowed, unsigned, upper_bits
from ensemble_kit.kernels.desk import PIXELS
from ensemble_kit.kernels.jit import inline, kernel, routine
from ensemble_kit.kernels.labels import runs_of
from ensemble_kit.kernels.lanes import (
    add,
    all_floats,
    all_ints,
    float_at,
    greater,
    load_ints,
    load_shorts,
    maximum,
    minimum,
    multiply,
    multiply_add,
    pick_ints,
    select,
    store,
    subtract,
    word,
)
from ensemble_kit.kernels.stretches import append_row, longer, make_stretches
from ensemble_kit.kernels.words import address_of, code_at, load64, lowest, store32

TILE = 256
"""Columns of pixels that are decided together."""

BANDS = 16
"""Bands whose labels are kept; lines between two lots of them are interpolated twice."""

LOWEST = -(1 << 31)

APART = np.float32(2.0**-21)
"""Share of two scores in float32 by which their difference may be off; and by half a unit of each, or with offsets,
which cancel, by 2^-20 of the largest."""


class Maps(NamedTuple):
    """Class maps of 16-bit scores of members, those of one grid after each other.

    Parameters
    ----------
    firsts : int64 (G + 1,), where the members of each grid begin.
    columns : int64 (G,), cells of a row of each box.
    at : int64 (M, C), addresses of the boxes' first cells.
    widths : int64 (M,), cells from one row to the next.
    weights : int64 (M, C), of sum 65536 for each class.
    table : int32 (65536,), what an interpolated score becomes, or empty where it stays as it is.
    rounded : whether members are rounded where they are interpolated; if not, there is one, of weight 65536.
    """

    firsts: NDArray[np.int64]
    columns: NDArray[np.int64]
    at: NDArray[np.int64]
    widths: NDArray[np.int64]
    weights: NDArray[np.int64]
    table: NDArray[np.int32]
    rounded: bool


class Scales(NamedTuple):
    """How classes are compared: `value × factor + offset`, int64 (C,); `even`: alike; `least`: level of the winner."""

    factors: NDArray[np.int64]
    offsets: NDArray[np.int64]
    even: bool
    least: int


class Room(NamedTuple):
    """The memory of a walk.

    Parameters
    ----------
    lines : int32 (2, M, C, TILE), two rows of cells interpolated across, times 256; one with an even number is first.
    rows : int64 (3, G), which of the two is the upper one of the band, which the lower, and its share of 256.
    held : int64 (2, G), the rows of cells whose lines are there.
    cells : int32, one row of cells.
    times, plus : float32 (C,), factors, and half of the offsets.
    values : uint32 (C, 16), of pixels that float32 cannot settle; found : int32 (2, 16), their labels and values.
    """

    lines: NDArray[np.int32]
    rows: NDArray[np.int64]
    held: NDArray[np.int64]
    cells: NDArray[np.int32]
    times: NDArray[np.float32]
    plus: NDArray[np.float32]
    values: NDArray[np.uint32]
    found: NDArray[np.int32]


class Tile(NamedTuple):
    """Sizes, and addresses of arrays of `Maps` and `Room`: a view of an array would be counted as a reference."""

    grids: int
    members: int
    classes: int
    rounded: bool
    tabled: bool
    firsts: int
    weights: int
    table: int
    lines: int
    upper: int
    lower: int
    shares: int
    times: int
    plus: int


@kernel
def decide(maps, scales, grids):
    """Runs of every class's pixels: those where it is the largest, ties to the first: starts, ends, offsets."""
    (members, classes), G = maps.at.shape, grids.cells.size
    room = Room(
        np.zeros((2, members, classes, TILE), np.int32),
        np.zeros((3, G), np.int64),
        np.empty((2, G), np.int64),
        np.empty(grids.cells.max() + PIXELS, np.int32),
        scales.factors.astype(np.float32),
        (scales.offsets // 2).astype(np.float32),
        np.empty((classes, PIXELS), np.uint32),
        np.empty((2, PIXELS), np.int32),
    )
    stretches, n = _walk(room, maps, scales, grids)
    size = grids.row_fractions.shape[1] * grids.strip_of.size
    return runs_of(stretches.starts[:n], stretches.labels[:n], size, classes)


@routine
def _walk(room, maps, scales, grids):
    """Go through the bands, so many at a time, tile by tile; `room` outlives the addresses that are taken of it."""
    W, bands, most = grids.strip_of.size, grids.row_at.size - 1, 0
    for band in range(0, bands, BANDS):
        most = max(most, grids.row_at[min(band + BANDS, bands)] - grids.row_at[band])
    labels, stretches, n = np.empty((most, W + TILE), np.int16), make_stretches(4 * W + 4096), 0
    tile, rows = _tile_of(room, maps, grids), room.rows
    for begin in range(0, bands, BANDS):
        stop = min(begin + BANDS, bands)
        y0, y1 = grids.row_at[begin], grids.row_at[stop]
        for x in range(0, W, TILE):
            room.held[:] = -1
            for band in range(begin, stop):
                _put_lines(band, x, min(x + TILE, W), maps, grids, room.cells, tile.lines, room.held)
                for m in range(rows.shape[1]):
                    rows[0, m], rows[1, m] = grids.upper[m, band] & 1, grids.lower[m, band] & 1
                for y in range(grids.row_at[band], grids.row_at[band + 1]):
                    for m in range(rows.shape[1]):
                        rows[2, m] = grids.row_fractions[m, y]
                    out = address_of(labels) + 2 * ((y - y0) * labels.shape[1] + x)
                    _judge(min(TILE, W - x), out, tile, scales, room)
        if n + (y1 - y0) * W > stretches.starts.size:
            stretches = longer(stretches, n, 2 * n + (y1 - y0) * W)
        for y in range(y0, y1):
            n = append_row(labels[y - y0], W, y * W, stretches, n)
    return stretches, n


@inline
def _tile_of(room, maps, grids):
    """Take the addresses."""
    members, classes = maps.at.shape
    G, rows = grids.cells.size, address_of(room.rows)
    return Tile(
        G,
        members,
        classes,
        maps.rounded,
        maps.table.size > 0,
        address_of(maps.firsts),
        address_of(maps.weights),
        address_of(maps.table),
        address_of(room.lines),
        rows,
        rows + 8 * G,
        rows + 16 * G,
        address_of(room.times),
        address_of(room.plus),
    )


@routine
def _put_lines(band, x0, x1, maps, grids, cells, lines, held):
    """Interpolate the two rows of cells of each grid across the pixels of a tile, times 256, where not done yet."""
    members, classes = maps.at.shape
    for g in range(grids.cells.size):
        first, behind = np.int64(grids.left[g, x0]), np.int64(grids.left[g, x1 - 1]) + 1 + grids.across[g]
        behind, step = min(behind, maps.columns[g]), grids.across[g]
        left, fractions = address_of(grids.left), address_of(grids.fractions)
        left, fractions = left + 4 * g * grids.left.shape[1], fractions + 4 * g * grids.left.shape[1]
        for row in (grids.upper[g, band], grids.lower[g, band]):
            if held[row & 1, g] == row:
                continue
            held[row & 1, g] = row
            for m in range(maps.firsts[g], maps.firsts[g + 1]):
                for c in range(classes):
                    _widen(maps.at[m, c] + 2 * row * maps.widths[m], first, behind, address_of(cells))
                    line = lines + 4 * TILE * (((row & 1) * members + m) * classes + c)
                    _put_across(x0, x1, first, behind, step, left, fractions, address_of(cells), line)


@inline
def _widen(codes, first, behind, out):
    """Copy 16-bit codes `first … behind - 1` to 32 bits."""
    k = first
    while k + PIXELS <= behind:
        store(out + 4 * (k - first), unsigned(load_shorts(codes + 2 * k)))
        k += PIXELS
    while k < behind:
        store32(out + 4 * (k - first), code_at(codes + 2 * k))
        k += 1


@inline
def _put_across(x0, x1, first, behind, step, left, fractions, cells, line):
    """Interpolate cells, from column `first` on, across the pixels of a tile, times 256."""
    for x in range(x0, x1, PIXELS):
        a = maximum(subtract(minimum(load_ints(left + 4 * x), all_ints(behind - 1)), all_ints(first)), all_ints(0))
        b = minimum(add(a, all_ints(step)), all_ints(behind - 1 - first))
        near, fx = pick_ints(cells, a), load_ints(fractions + 4 * x)
        far = subtract(pick_ints(cells, b), near)
        store(line + 4 * (x - x0), add(multiply(near, all_ints(256)), multiply(far, fx)))


@routine
def _judge(width, out, tile, scales, room):
    """Write the labels of a row of pixels of a tile."""
    half, least = 32768 if tile.rounded else 0, scales.least
    for x in range(0, width, PIXELS):
        if scales.even:
            label, winning = _largest(x, tile)
        else:
            label, winning = _scaled(x, width, tile, scales, room)
        if least > 0:
            level = upper_bits(add(winning, all_ints(half)))
            label = select(greater(all_ints(least), level), all_ints(-1), label)
        store(out + 2 * x, narrowed(label))


@inline
def _values(x, c, tile):
    """The fused values of a class at 16 pixels of a tile."""
    total, step = all_ints(0), 4 * TILE * tile.members * tile.classes
    for g in range(tile.grids):
        fy, at = all_ints(load64(tile.shares + 8 * g)), tile.lines + 4 * (TILE * c + x)
        upper, lower = at + step * load64(tile.upper + 8 * g), at + step * load64(tile.lower + 8 * g)
        for m in range(load64(tile.firsts + 8 * g), load64(tile.firsts + 8 * g + 8)):
            line = 4 * TILE * m * tile.classes
            top = load_ints(upper + line)
            value = add(multiply(top, all_ints(256)), multiply(subtract(load_ints(lower + line), top), fy))
            if tile.rounded:
                value = upper_bits(add(value, all_ints(32768)))
                if tile.tabled:
                    value = pick_ints(tile.table, value)
                value = multiply(value, all_ints(load64(tile.weights + 8 * (m * tile.classes + c))))
            total = add(total, value)
    return total


@inline
def _largest(x, tile):
    """Labels and values of the winners, ties to the first class."""
    label, best = all_ints(0), all_ints(LOWEST)
    for c in range(tile.classes):
        score = add(_values(x, c, tile), all_ints(LOWEST))  # in the order of numbers without a sign
        label, best = select(greater(score, best), all_ints(c), label), maximum(score, best)
    return label, subtract(best, all_ints(LOWEST))


@inline
def _scaled(x, width, tile, scales, room):
    """Labels and values of the winners under factors: in float32, and in integers where that may be wrong."""
    label, winning, best, second = all_ints(0), all_ints(0), all_floats(-3e38), all_floats(-3e38)
    for c in range(tile.classes):
        value = _values(x, c, tile)
        times, plus = all_floats(float_at(tile.times + 4 * c)), all_floats(float_at(tile.plus + 4 * c))
        score = multiply_add(as_floats(halved(value)), times, plus)
        ahead = greater(score, best)
        label, winning = select(ahead, all_ints(c), label), select(ahead, value, winning)
        second = maximum(second, minimum(score, best))
        best = maximum(score, best)
    doubt = np.float32(scales.factors.max()) + np.float32(2048 if scales.offsets.any() else 0)
    close = greater(multiply_add(add(best, second), all_floats(APART), all_floats(doubt)), subtract(best, second))
    bits = word(close) & ((1 << min(PIXELS, width - x)) - 1)
    if bits != 0:
        label, winning = _exact(x, bits, label, winning, tile, scales, room)
    return label, winning


@routine
def _exact(x, bits, label, winning, tile, scales, room):
    """Correct the labels and values of the winners of some of 16 pixels."""
    values, found = room.values, room.found
    store(address_of(found), label)
    store(address_of(found) + 4 * PIXELS, winning)
    for c in range(tile.classes):
        store(address_of(values) + 4 * PIXELS * c, _values(x, c, tile))
    while bits != 0:
        k, top = lowest(bits), np.int64(-1) << 62
        for c in range(tile.classes):
            score = np.int64(values[c, k]) * scales.factors[c] + scales.offsets[c]
            if score > top:
                top, found[0, k], found[1, k] = score, c, np.int32(values[c, k])
        bits &= bits - 1
    return load_ints(address_of(found)), load_ints(address_of(found) + 4 * PIXELS)
