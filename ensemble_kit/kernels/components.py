"""Connected components and holes of a mask given as runs; no pixel is looked at.

One pass over runs and a union-find over labels (He, Chao, Suzuki, "A run-based two-scan labeling algorithm", IEEE TIP
2008). A run takes the label of the first one that it touches, and a new one where it touches none; labels of runs that
touch become one tree. Labels are few, so most runs never look for a root. Two runs of neighbouring rows touch where one
overlaps the other shifted by the distance of the rows in memory, so no row pointers are needed: of an image that is the
row above, of a volume also up to three rows of the slice before. A tree's root is its first label, which is that of the
component's first run, and a parent always stands before its child.

`connectivity` is 4 or 8 for an image and 6, 18 or 26 for a volume.
"""

# mypy: allow-untyped-defs, allow-untyped-calls

import numpy as np

from ensemble_kit.kernels.jit import inline, kernel
from ensemble_kit.kernels.words import item, set_item


@kernel
def components(starts, ends, height, width, connectivity):
    """Cut runs at row ends and label the pieces: (starts, ends, label of each piece, area of each label).

    Labels count from 0 in the order of the components' first pixels.
    """
    piece_starts, piece_ends, labels, parent, areas = pieces(starts, ends, height, width, connectivity)
    count = 0
    for k in range(parent.size):
        if parent[k] == k:
            parent[k], areas[count] = count, areas[k]
            count += 1
        else:
            parent[k] = parent[parent[k]]  # the number of its root
    for i in range(labels.size):
        labels[i] = parent[labels[i]]
    return piece_starts, piece_ends, labels, areas[:count]


@inline
def pieces(starts, ends, height, width, connectivity):
    """Cut runs at row ends and label the pieces: (starts, ends, labels, root of each label, area of each root)."""
    n = starts.size
    room = n + ((ends[n - 1] - 1) // width - starts[0] // width if n else 0)
    out = five_rows(room)
    reach, rows, shifts, steps, reaches = rows_before(height, width, connectivity)
    if rows == 0:  # compiled by itself, without what volumes need: a sixth faster
        count, trees = _label(starts, ends, height * width, width, reach, 0, shifts, steps, reaches, *out)
    else:
        count, trees = _label(starts, ends, height * width, width, reach, rows, shifts, steps, reaches, *out)
    piece_starts, piece_ends, labels, parent, areas = out
    settle(parent[:trees], areas)
    return piece_starts[:count], piece_ends[:count], labels[:count], parent[:trees], areas[:trees]


@inline
def _label(
    starts, ends, slab, width, reach, rows, shifts, steps, reaches, piece_starts, piece_ends, labels, parent, areas
):
    """Do what `pieces` does, into its arrays; return the number of pieces and of labels."""
    above, before = 0, np.zeros(rows, np.int64)
    slab_end, row_end, count, trees = slab, width, 0, 0
    for k in range(starts.size):
        start, last = starts[k], ends[k]
        if start >= row_end:
            row_end += width
            if start >= row_end:  # not the next row: a division, which takes as long as all else
                row_end = (start // width + 1) * width
        while True:
            end, own = min(last, row_end), -1
            set_item(piece_starts, count, start)
            set_item(piece_ends, count, end)
            if rows > 0:
                while slab_end < row_end:
                    slab_end += slab
            if rows == 0 or row_end - width > slab_end - slab:  # above the first row stands another slice
                # clipped to the row above, lest a diagonal reach round its end
                low, high = max(start - reach, row_end - width) - width, min(end + reach, row_end) - width
                above, own = joined(piece_starts, piece_ends, labels, parent, above, low, high, own)
            for s in range(rows):  # rows of the slice before
                if row_end + steps[s] <= slab_end - slab or row_end + steps[s] > slab_end:
                    continue
                low = max(start - reaches[s], row_end - width) - shifts[s]
                high = min(end + reaches[s], row_end) - shifts[s]
                before[s], own = joined(piece_starts, piece_ends, labels, parent, before[s], low, high, own)
            if own < 0:
                own, parent[trees], areas[trees] = trees, trees, 0
                trees += 1
            set_item(labels, count, own)
            set_item(areas, own, item(areas, own) + end - start)
            count += 1
            if end == last:
                break
            start = end
            row_end += width
    return count, trees


@inline
def five_rows(size):
    """Make five arrays of one allocation: five take .25 us, and all else 1.5 of a mask of 200 runs."""
    rows = np.empty((5, size), np.int64)
    return rows[0], rows[1], rows[2], rows[3], rows[4]


@inline
def joined(starts, ends, labels, parent, first, low, high, own):
    """Join the label `own`, -1 for none yet, with those of the pieces that overlap `low … high`.

    The last piece is the one whose label is looked for: it ends behind `low`, and starts at `high` or behind.

    Returns
    -------
    The first piece from `first` on that ends behind `low`, and the label.
    """
    while item(ends, first) <= low:
        first += 1
    i = first
    while item(starts, i) < high:
        other = item(labels, i)
        if own < 0:
            own = other
        elif own != other:
            a, b = root(parent, own), root(parent, other)
            parent[max(a, b)] = min(a, b)
        i += 1
    return first, own


@inline
def settle(parent, areas):
    """Let every label's parent be its root, and add its area to the root's."""
    for k in range(parent.size):
        parent[k] = own = parent[parent[k]]
        if own != k:
            areas[own] += areas[k]


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
def root(parent, i):
    """First of the tree of `i`; the way there becomes half as long."""
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@kernel
def keep(starts, ends, labels, kept):
    """Runs of the pieces whose label is `kept` (bool); pieces that were cut at a row end are one run again."""
    edges = _kept_runs(starts.copy(), ends.copy(), labels, kept)
    return edges[0], edges[1]


@inline
def _kept_runs(starts, ends, labels, kept):
    """Do what `keep` does as one array (2, n), which takes half as long to give to Python; pieces are written over."""
    count, last = 0, np.int64(-1)
    for i in range(starts.size):
        start, end, stays = starts[i], ends[i], kept[labels[i]] != 0
        if stays and last == start:  # a piece that was cut at a row end
            ends[count - 1] = last = end
            continue
        starts[count], ends[count] = start, end
        last = end if stays else last
        count += stays
    edges = np.empty((2, count), np.int64)
    for i in range(count):
        edges[0, i], edges[1, i] = starts[i], ends[i]
    return edges


@kernel
def drop_small(starts, ends, height, width, connectivity, least):
    """Runs of the components of at least `least` pixels, int64 (2, n): starts and ends; None where all stay."""
    piece_starts, piece_ends, labels, parent, areas = pieces(starts, ends, height, width, connectivity)
    lost, kept = False, parent  # in place of each label's root, whether it stays
    for k in range(kept.size):
        kept[k] = areas[parent[k]] >= least
        lost |= kept[k] == 0
    return _kept_runs(piece_starts, piece_ends, labels, kept) if lost else None


@kernel
def keep_largest(starts, ends, height, width, connectivity, most):
    """Runs of the `most` largest components, as `drop_small` gives them; of equal ones the first, by first pixels."""
    piece_starts, piece_ends, labels, parent, areas = pieces(starts, ends, height, width, connectivity)
    roots = 0
    for k in range(parent.size):
        roots += parent[k] == k
    if roots <= most:
        return None
    for _ in range(most):
        best, area = -1, np.int64(0)
        for k in range(parent.size):
            if parent[k] == k and areas[k] > area:
                best, area = k, areas[k]
        areas[best] = -area  # is kept
    kept = parent
    for k in range(kept.size):
        kept[k] = areas[parent[k]] < 0
    return _kept_runs(piece_starts, piece_ends, labels, kept)


@kernel
def of_background(connectivity):
    """Neighbours over which the background of a mask connects, so that a closed line or surface parts it."""
    if connectivity in (4, 8):
        return 12 - connectivity
    return 26 if connectivity == 6 else 6


@kernel
def fill_holes(starts, ends, depth, height, width, connectivity, largest):
    """Runs with the holes of at most `largest` pixels filled, as `drop_small` gives them; an image's depth is 1.

    A hole is a component of the background that does not touch the border; the background is 4-connected where the
    mask (`connectivity`) is 8-connected and the reverse, and 6-connected where the mask is 18- or 26-connected, else
    26-connected. A gap between runs that crosses a row end touches the border, so gaps are never cut; and as a hole
    has no pixel at an edge, what a diagonal reaches round a row end or in another slice is the outside.
    """
    n, slab = starts.size, height * width
    gap_starts, gap_ends, labels, parent, areas = five_rows(n + 1)
    reach, rows, shifts, _, reaches = rows_before(height, width, of_background(connectivity))
    above, before = 0, np.zeros(rows, np.int64)
    border, slab_end, row_end, trees = slab if rows else 0, slab, width, 1
    parent[0] = areas[0] = 0  # the outside
    for i in range(n + 1):
        start = ends[i - 1] if i > 0 else np.int64(0)
        end = starts[i] if i < n else depth * slab
        set_item(gap_starts, i, start)
        set_item(gap_ends, i, end)
        if start >= row_end:
            row_end += width
            if start >= row_end:
                row_end = (start // width + 1) * width
        while slab_end <= start:
            slab_end += slab
        is_outside = start == row_end - width or end >= row_end
        is_outside |= start < slab_end - slab + width or end > slab_end - width
        is_outside |= start < border or end > depth * slab - border
        own = 0 if is_outside else -1
        low, high = start - width - reach, min(end - width + reach, start)
        above, own = joined(gap_starts, gap_ends, labels, parent, above, low, high, own)
        for s in range(rows):
            low, high = start - shifts[s] - reaches[s], min(end - shifts[s] + reaches[s], start)
            before[s], own = joined(gap_starts, gap_ends, labels, parent, before[s], low, high, own)
        if own < 0:
            own, parent[trees], areas[trees] = trees, trees, 0
            trees += 1
        set_item(labels, i, own)
        set_item(areas, own, item(areas, own) + end - start)
    settle(parent[:trees], areas)
    found, filled = False, parent
    for k in range(trees):
        filled[k] = parent[k] > 0 and areas[parent[k]] <= largest
        found |= filled[k] != 0
    if not found:
        return None
    count = 0
    for i in range(n):
        if filled[labels[i]] == 0:
            gap_starts[count] = starts[i]
            count += 1
        gap_ends[count - 1] = ends[i]
    edges = np.empty((2, count), np.int64)
    for i in range(count):
        edges[0, i], edges[1, i] = gap_starts[i], gap_ends[i]
    return edges
