"""Connected components and holes of a mask given as runs; no pixel is looked at.

Union-find over runs (He, Chao, Suzuki, "A run-based two-scan labeling algorithm", IEEE TIP 2008). Two runs of
neighbouring rows touch where one overlaps the other shifted by the distance of the rows in memory, so no row pointers
are needed: of an image that is the row above, of a volume also up to three rows of the slice before. A parent always
stands before its child: the root of a component is its first run, and numbering is one pass.

`connectivity` is 4 or 8 for an image and 6, 18 or 26 for a volume.
"""

# mypy: allow-untyped-defs, allow-untyped-calls

import numpy as np

from ensemble_kit.kernels.jit import inline, kernel


@kernel
def components(starts, ends, height, width, connectivity):
    """Cut runs at row ends and label the pieces: (starts, ends, label of each piece, area of each label).

    Labels count from 0 in the order of the components' first pixels.
    """
    piece_starts, piece_ends, parent = pieces(starts, ends, height, width, connectivity)
    labels, areas = number(parent, piece_starts, piece_ends)
    return piece_starts, piece_ends, labels, areas


@inline
def pieces(starts, ends, height, width, connectivity):
    """Cut runs at row ends and join the pieces that touch: (starts, ends, parent of each piece)."""
    n = starts.size
    room = n + ((ends[n - 1] - 1) // width - starts[0] // width if n else 0)
    piece_starts, piece_ends = np.empty(room, np.int64), np.empty(room, np.int64)
    parent = np.empty(room, np.int64)
    reach, rows, shifts, steps, reaches = rows_before(height, width, connectivity)
    above, before = 0, np.zeros(3, np.int64)
    count, slab = 0, height * width
    slab_end, row_end = slab, width
    for k in range(n):
        start, last = starts[k], ends[k]
        if start >= row_end:
            row_end += width
            if start >= row_end:  # not the next row: a division, which takes as long as all else
                row_end = (start // width + 1) * width
        while True:
            end = min(last, row_end)
            while slab_end < row_end:
                slab_end += slab
            parent[count] = own = count
            # what touches from the row above; clipped to that row, lest a diagonal reach round its end
            low, high = max(start - reach, row_end - width) - width, min(end + reach, row_end) - width
            while above < count and piece_ends[above] <= low:
                above += 1
            j = above if row_end - width > slab_end - slab else count  # above the first row stands another slice
            while j < count and piece_starts[j] < high:
                other = root(parent, j)
                parent[max(own, other)] = own = min(own, other)
                j += 1
            for s in range(rows):  # and from rows of the slice before
                if row_end + steps[s] <= slab_end - slab or row_end + steps[s] > slab_end:
                    continue
                low = max(start - reaches[s], row_end - width) - shifts[s]
                high = min(end + reaches[s], row_end) - shifts[s]
                j = before[s]
                while j < count and piece_ends[j] <= low:
                    j += 1
                before[s] = j
                while j < count and piece_starts[j] < high:
                    other = root(parent, j)
                    parent[max(own, other)] = own = min(own, other)
                    j += 1
            piece_starts[count], piece_ends[count] = start, end
            count += 1
            if end == last:
                break
            start = end
            row_end += width
    return piece_starts[:count], piece_ends[:count], parent[:count]


@kernel
def rows_before(height, width, connectivity):
    """List the rows with neighbours that stand before a row.

    Neighbours in three axes are those that differ by 1 in up to one, two or three axes: 6, 18 or 26.

    Returns
    -------
    How far sideways the row above touches; how many rows of the slice before touch; and of each of these how far before
    it stands, how far from the same row of its slice, and how far sideways it touches, as tuples of three.
    """
    slab = height * width
    if connectivity == 6:
        return 0, 1, (slab, slab, slab), (0, 0, 0), (0, 0, 0)
    count, corner = 0 if connectivity in (4, 8) else 3, 1 if connectivity == 26 else 0
    shifts, steps = (slab + width, slab, slab - width), (-width, 0, width)
    return 0 if connectivity == 4 else 1, count, shifts, steps, (corner, 1, corner)


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


@inline
def areas_of_roots(parent, starts, ends):
    """Let every piece's parent be its root; return the area of each component at its root, 0 at the other pieces."""
    areas = np.zeros(parent.size, np.int64)
    for i in range(parent.size):
        parent[i] = own = parent[parent[i]]  # a parent stands before its child
        areas[own] += ends[i] - starts[i]
    return areas


@inline
def keep_in_place(starts, ends, parent, areas, least):
    """Runs of the components whose root has an area of at least `least`; the pieces are written over."""
    count, last = 0, np.int64(-1)
    for i in range(starts.size):
        start, end, stays = starts[i], ends[i], areas[parent[i]] >= least
        if stays and last == start:  # a piece that was cut at a row end
            ends[count - 1] = last = end
            continue
        starts[count], ends[count] = start, end
        last = end if stays else last
        count += stays
    return starts[:count].copy(), ends[:count].copy()


@kernel
def drop_small(starts, ends, height, width, connectivity, least):
    """Runs of the components of at least `least` pixels: one call, since three took 10 us a mask in place of 6."""
    piece_starts, piece_ends, parent = pieces(starts, ends, height, width, connectivity)
    areas = areas_of_roots(parent, piece_starts, piece_ends)
    return keep_in_place(piece_starts, piece_ends, parent, areas, least)


@kernel
def keep_largest(starts, ends, height, width, connectivity, most):
    """Runs of the `most` largest components; of equal ones the first, in the order of their first pixels."""
    piece_starts, piece_ends, parent = pieces(starts, ends, height, width, connectivity)
    areas = areas_of_roots(parent, piece_starts, piece_ends)
    for _ in range(most):
        best, area = -1, np.int64(0)
        for i in range(areas.size):
            if areas[i] > area:
                best, area = i, areas[i]
        if best < 0:
            break
        areas[best] = -area  # is kept
    for i in range(areas.size):
        areas[i] = -areas[i]
    return keep_in_place(piece_starts, piece_ends, parent, areas, 1)


@kernel
def of_background(connectivity):
    """Neighbours over which the background of a mask connects, so that a closed line or surface parts it."""
    if connectivity in (4, 8):
        return 12 - connectivity
    return 26 if connectivity == 6 else 6


@kernel
def fill_holes(starts, ends, depth, height, width, connectivity, largest):
    """Runs with the holes of at most `largest` pixels filled; the depth of an image is 1.

    A hole is a component of the background that does not touch the border; the background is 4-connected where the
    mask (`connectivity`) is 8-connected and the reverse, and 6-connected where the mask is 18- or 26-connected, else
    26-connected. A gap between runs that crosses a row end touches the border, so gaps are never cut; and as a hole
    has no pixel at an edge, what a diagonal reaches round a row end or in another slice is the outside.
    """
    n, slab = starts.size, height * width
    gap_starts, gap_ends = np.empty(n + 1, np.int64), np.empty(n + 1, np.int64)
    parent = np.empty(n + 1, np.int64)
    reach, rows, shifts, _, reaches = rows_before(height, width, of_background(connectivity))
    above, before = 0, np.zeros(3, np.int64)
    border, slab_end = slab if rows else 0, slab
    for i in range(n + 1):
        start = ends[i - 1] if i > 0 else np.int64(0)
        end = starts[i] if i < n else depth * slab
        gap_starts[i], gap_ends[i], parent[i] = start, end, i
        while slab_end <= start:
            slab_end += slab
        column = start % width
        is_outside = column == 0 or column + end - start >= width
        is_outside |= start < slab_end - slab + width or end > slab_end - width
        if is_outside or start < border or end > depth * slab - border:
            join(parent, 0, i)  # gap 0, be it empty, is the outside
        low, high = start - width - reach, end - width + reach
        while above < i and gap_ends[above] <= low:
            above += 1
        j = above
        while j < i and gap_starts[j] < high:
            join(parent, j, i)
            j += 1
        for s in range(rows):
            low, high = start - shifts[s] - reaches[s], end - shifts[s] + reaches[s]
            j = before[s]
            while j < i and gap_ends[j] <= low:
                j += 1
            before[s] = j
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
