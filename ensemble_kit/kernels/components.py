"""Connected components and holes of a mask given as runs; no pixel is looked at.

Union-find over runs (He, Chao, Suzuki, "A run-based two-scan labeling algorithm", IEEE TIP 2008). Two runs of
neighbouring rows touch where one overlaps the other shifted by the width, so no row pointers are needed. A parent
always stands before its child: the root of a component is its first run, and numbering is one pass.
"""

# mypy: allow-untyped-defs, allow-untyped-calls

import numpy as np

from ensemble_kit.kernels.jit import kernel


@kernel
def components(starts, ends, width, connectivity):
    """Cut runs at row ends and label the pieces: (starts, ends, label of each piece, area of each label).

    Labels count from 0 in the order of the components' first pixels; `connectivity` is 4 or 8.
    """
    n = starts.size
    room = n + ((ends[n - 1] - 1) // width - starts[0] // width if n else 0)
    piece_starts, piece_ends = np.empty(room, np.int64), np.empty(room, np.int64)
    parent = np.empty(room, np.int64)
    reach = 1 if connectivity == 8 else 0
    count, above = 0, 0
    for k in range(n):
        start = starts[k]
        row_end = (start // width + 1) * width
        while start < ends[k]:
            end = min(ends[k], row_end)
            # what touches from the row above; clipped to that row, lest a diagonal reach round its end
            low = max(start - reach, row_end - width) - width
            high = min(end + reach, row_end) - width
            while above < count and piece_ends[above] <= low:
                above += 1
            parent[count] = count
            j = above
            while j < count and piece_starts[j] < high:
                join(parent, j, count)
                j += 1
            piece_starts[count], piece_ends[count] = start, end
            count += 1
            start = end
            row_end += width
    labels, areas = number(parent[:count], piece_starts, piece_ends)
    return piece_starts[:count], piece_ends[:count], labels, areas


@kernel
def join(parent, a, b):
    """Make the two trees one, under the root that stands first."""
    a, b = root(parent, a), root(parent, b)
    if a < b:
        parent[b] = a
    else:
        parent[a] = b


@kernel
def root(parent, i):
    """First of the tree of `i`; the way there becomes half as long."""
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@kernel
def number(parent, starts, ends):
    """Label every entry by its tree, in the order of the roots, and add up the lengths of each tree."""
    labels, areas = np.empty(parent.size, np.int64), np.empty(parent.size, np.int64)
    count = 0
    for i in range(parent.size):
        if parent[i] == i:
            labels[i] = count
            areas[count] = 0
            count += 1
        else:
            labels[i] = labels[parent[i]]  # a parent stands before its child
        areas[labels[i]] += ends[i] - starts[i]
    return labels, areas[:count]


@kernel
def keep(starts, ends, labels, kept):
    """Runs of the pieces whose label is `kept` (bool); pieces that were cut at a row end are one run again."""
    out_starts, out_ends = np.empty(starts.size, np.int64), np.empty(starts.size, np.int64)
    count = 0
    for i in range(starts.size):
        if kept[labels[i]]:
            if count > 0 and out_ends[count - 1] == starts[i]:
                out_ends[count - 1] = ends[i]
            else:
                out_starts[count], out_ends[count] = starts[i], ends[i]
                count += 1
    return out_starts[:count].copy(), out_ends[:count].copy()


@kernel
def drop_small(starts, ends, width, connectivity, least):
    """Runs of the components of at least `least` pixels: one call, since three took 10 us a mask in place of 6."""
    piece_starts, piece_ends, labels, areas = components(starts, ends, width, connectivity)
    kept = np.empty(areas.size, np.bool_)
    for i in range(areas.size):
        kept[i] = areas[i] >= least
    return keep(piece_starts, piece_ends, labels, kept)


@kernel
def keep_largest(starts, ends, width, connectivity, most):
    """Runs of the `most` largest components; of equal ones the first, in the order of their first pixels."""
    piece_starts, piece_ends, labels, areas = components(starts, ends, width, connectivity)
    kept = np.full(areas.size, most >= areas.size)
    for _ in range(0 if most >= areas.size else most):
        best = -1
        for i in range(areas.size):
            if not kept[i] and (best < 0 or areas[i] > areas[best]):
                best = i
        kept[best] = True
    return keep(piece_starts, piece_ends, labels, kept)


@kernel
def fill_holes(starts, ends, height, width, connectivity, largest):
    """Runs with the holes of at most `largest` pixels filled.

    A hole is a component of the background that does not touch the border; the background is 4-connected where the
    mask (`connectivity`) is 8-connected, and the reverse. A gap between runs that crosses a row end touches the
    border, so gaps are never cut, and a diagonal that reaches round a row end joins nothing but the outside.
    """
    n = starts.size
    gap_starts, gap_ends = np.empty(n + 1, np.int64), np.empty(n + 1, np.int64)
    parent = np.empty(n + 1, np.int64)
    reach = 1 if connectivity == 4 else 0
    above = 0
    for i in range(n + 1):
        start = ends[i - 1] if i > 0 else np.int64(0)
        end = starts[i] if i < n else np.int64(height * width)
        gap_starts[i], gap_ends[i], parent[i] = start, end, i
        column = start % width
        if start < width or end > (height - 1) * width or column == 0 or column + end - start >= width:
            join(parent, 0, i)  # gap 0, be it empty, is the outside
        low, high = start - width - reach, end - width + reach
        while above < i and gap_ends[above] <= low:
            above += 1
        j = above
        while j < i and gap_starts[j] < high:
            join(parent, j, i)
            j += 1
    labels, areas = number(parent, gap_starts, gap_ends)
    out_starts, out_ends = np.empty(n, np.int64), np.empty(n, np.int64)
    count = 0
    for i in range(n):
        if i > 0 and labels[i] > 0 and areas[labels[i]] <= largest:
            out_ends[count - 1] = ends[i]
        else:
            out_starts[count], out_ends[count] = starts[i], ends[i]
            count += 1
    return out_starts[:count].copy(), out_ends[:count].copy()
