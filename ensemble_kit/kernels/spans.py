"""Evaluate the pixels of *spans*, stretches of neighbouring mixed quads of one row, sixteen at a time.

Members that are sure leave short spans along outlines; members that are not leave whole rows of them, and pixel by
pixel a span took four times as long.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ensemble_kit.kernels.conversions import upper_bits
from ensemble_kit.kernels.jit import inline
from ensemble_kit.kernels.lanes import add, all_at, all_ints, load_ints, multiply, pick_shorts, store, subtract
from ensemble_kit.kernels.quads import MIXED, Events, EventsAt, events_at, make_events
from ensemble_kit.kernels.words import address_of, load64, store32

LANES = 16
QUADS = 64
"""Quads of a span at most: what is kept of their pixels stays in the nearest cache."""


class Room(NamedTuple):
    """What a walk over the quads of one class after another needs.

    Parameters
    ----------
    events : Events.
    memory : int64, zeros at first; `Walk` says what lies in it. Eight arrays took half a second to compile.
    """

    events: Events
    memory: NDArray[np.int64]


class Walk(NamedTuple):
    """Sizes, and addresses of what a walk over one class reads and writes: no reference is counted in its loops.

    Parameters
    ----------
    members, scores_each : members, and scores of a cell: as many, or one where members are fused first.
    pitch, row : bytes of a row of `bounds` or `scores`, and of `picked`.
    units : of 16 cells, in a row.
    events : EventsAt.
    fractions : int32 (W + LANES,), as `Pixels.col_fractions`.
    scored : int64 (2, units), the row, counted through all classes, whose cells stand there × 65536, and their bits.
    few : uint16 (LANES,), the codes of a row of fewer cells.
    scores : int32 (2, scores_each, w + 3 LANES), of the cells of two rows what is interpolated; a row with an even
        number stands first, and the cell behind the last repeats it.
    bounds : the same, the level that each score becomes; where members are fused first, `scores` itself.
    bases, slopes : int32 (scores_each, QUADS), of one row of pixels in the quads of a span the score × 65536 at the
        left, rounded up by half where members are interpolated, and what each 256th of the way to the right adds.
    picked : int32 (scores_each, pixels), interpolated scores of one row of a span.
    levels : int32 (pixels,), effective levels of one row of a span.
    col_at, maps, widths, weights, tables, table_of, score_table : those of `Pixels`, `ClassMaps` and `Scoring`.
    bend : as in `Scoring`.
    """

    members: int
    scores_each: int
    interpolate_members: bool
    pitch: int
    row: int
    units: int
    events: EventsAt
    fractions: int
    scored: int
    few: int
    scores: int
    bounds: int
    bases: int
    slopes: int
    picked: int
    levels: int
    col_at: int
    maps: int
    widths: int
    weights: int
    tables: int
    table_of: int
    score_table: int
    bend: float


@inline
def make_room(members, scoring, pixels):
    """Make the room of a walk."""
    h, w, W = pixels.row_at.size - 1, pixels.col_at.size - 1, pixels.col_fractions.size
    scores_each = members.addresses.size if scoring.interpolate_members else 1
    rows = 4 * (w + 3 * LANES) + 2 * QUADS + W + 2 * LANES
    memory = np.zeros(2 * W + 4 * LANES + 2 * (w // LANES + 1) + scores_each * rows, np.int64)
    for x in range(W):
        store32(address_of(memory) + 4 * x, pixels.col_fractions[x])
    return Room(make_events(h, w), memory)


@inline
def walk_of(maps, scoring, pixels, room):
    """Take the addresses of a walk over one class; the caller keeps the arrays alive."""
    w, W, members = pixels.col_at.size - 1, pixels.col_fractions.size, maps.addresses.size
    scores_each = members if scoring.interpolate_members else 1
    pitch, row, units = 4 * (w + 3 * LANES), 4 * (W + 2 * LANES), w // LANES + 1
    fractions = address_of(room.memory)
    scored = fractions + 4 * (W + LANES)
    few = scored + 16 * units
    scores = few + 2 * LANES
    bounds = scores + (2 * scores_each * pitch if scoring.interpolate_members else 0)
    bases = bounds + 2 * scores_each * pitch
    slopes = bases + 4 * QUADS * scores_each
    picked = slopes + 4 * QUADS * scores_each
    return Walk(
        members,
        scores_each,
        scoring.interpolate_members,
        pitch,
        row,
        units,
        events_at(room.events),
        fractions,
        scored,
        few,
        scores,
        bounds,
        bases,
        slopes,
        picked,
        picked + scores_each * row,
        address_of(pixels.col_at),
        address_of(maps.addresses),
        address_of(maps.widths),
        address_of(maps.weights),
        address_of(scoring.tables),
        address_of(scoring.table_of),
        address_of(scoring.score_table),
        scoring.bend,
    )


@inline
def end_of_span(e, found, columns, kinds):
    """Find the event behind a span that begins with event `e`."""
    stop, e = min(found, e + QUADS), e + 1
    while e < stop and kinds[e] == MIXED and columns[e] == columns[e - 1] + 1:
        e += 1
    return e


@inline
def evaluate(r, r2, across, c, stop, fy, walk, out):
    """Write the effective levels of one row of a span, quads `c … stop-1`, at `out`: int32, with room for 16 more."""
    upper = walk.scores + (r & 1) * walk.scores_each * walk.pitch + 4 * c
    lower = walk.scores + (r2 & 1) * walk.scores_each * walk.pitch + 4 * c
    picked = walk.picked if walk.interpolate_members else out
    half, share = all_ints(32768 if walk.interpolate_members else 0), all_ints(fy)
    begin, end = load64(walk.col_at + 8 * c), load64(walk.col_at + 8 * stop)
    for m in range(walk.scores_each):
        for b in range(0, 4 * (stop - c), 4 * LANES):
            near, far = upper + m * walk.pitch + b, lower + m * walk.pitch + b
            left, right = load_ints(near), load_ints(near + 4 * across)
            left = add(multiply(left, all_ints(256)), multiply(subtract(load_ints(far), left), share))
            below = load_ints(far + 4 * across)
            right = add(multiply(right, all_ints(256)), multiply(subtract(below, right), share))
            store(walk.bases + 4 * QUADS * m + b, add(multiply(left, all_ints(256)), half))
            store(walk.slopes + 4 * QUADS * m + b, subtract(right, left))
    first = begin
    for k in range(stop - c):
        last = load64(walk.col_at + 8 * (c + k + 1))
        for x in range(first, last, LANES):
            fx = load_ints(walk.fractions + 4 * x)
            for m in range(walk.scores_each):
                quad = 4 * (QUADS * m + k)
                value = add(all_at(walk.bases + quad), multiply(all_at(walk.slopes + quad), fx))
                store(picked + m * walk.row + 4 * (x - begin), upper_bits(value))
        first = last
    if walk.interpolate_members:
        for x in range(0, 4 * (end - begin), 4 * LANES):
            total = all_ints(32768)
            for m in range(walk.members):
                level = pick_shorts(walk.score_table, load_ints(picked + m * walk.row + x))
                total = add(total, multiply(level, all_ints(load64(walk.weights + 8 * m))))
            store(out + x, upper_bits(total))
