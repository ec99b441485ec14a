"""A class's masks at every level, without the components smaller than each of some sizes, in one descent of levels.

Pixels are added in the order of falling level and joined to their neighbours by union-find, as a max-tree is built
(Salembier, Oliveras, Garrido, "Antiextensive connected operators for image and sequence processing", IEEE Trans.
Image Processing 1998). On the way down components only grow and merge, so each rises through the classes of size; what
is left of a mask at a size is the sum of the classes from there on. A pixel costs the same for one size and for many.
"""

# mypy: allow-untyped-defs, allow-untyped-calls

import numpy as np

from ensemble_kit.kernels.components import components, root
from ensemble_kit.kernels.jit import inline, kernel
from ensemble_kit.kernels.maps import maps_of
from ensemble_kit.kernels.words import code_at


@kernel
def levels_within(classes, starts, ends, offsets, members, scoring, axes):
    """Evaluate pixels of some classes one by one, each in its own runs, as `rows.levels_within` does of any scores."""
    width, cuts = axes.cols.shape[1], np.zeros(classes.size + 1, np.int64)
    score_table, interpolate_members = scoring.score_table, scoring.interpolate_members
    for k in range(classes.size):
        cuts[k + 1] = cuts[k]
        for r in range(offsets[k], offsets[k + 1]):
            cuts[k + 1] += ends[r] - starts[r]
    positions, levels = np.empty(cuts[-1], np.int64), np.empty(cuts[-1], np.uint16)
    i = 0
    for k in range(classes.size):
        maps = maps_of(members, classes[k])
        weights = maps.weights
        for run in range(offsets[k], offsets[k + 1]):
            for p in range(starts[run], ends[run]):
                y, x = p // width, p % width
                total = np.int64(32768)
                for m in range(weights.size if interpolate_members else 1):
                    r, c, fy, fx = axes.rows[m, y], axes.cols[m, x], axes.row_fractions[m, y], axes.col_fractions[m, x]
                    r2, c2 = min(r + 1, axes.last[m, 0]), min(c + 1, axes.last[m, 1])
                    near = (256 - fx) * _cell(r, c, m, maps, scoring) + fx * _cell(r, c2, m, maps, scoring)
                    far = (256 - fx) * _cell(r2, c, m, maps, scoring) + fx * _cell(r2, c2, m, maps, scoring)
                    value = (256 - fy) * near + fy * far
                    if interpolate_members:
                        total += weights[m] * score_table[(value + 32768) >> 16]
                    else:
                        total = value
                positions[i], levels[i] = p, total >> 16
                i += 1
    return cuts, positions, levels


@inline
def _cell(r, c, m, maps, scoring):
    """Score of one cell: of member `m`, or without `interpolate_members` the fused one."""
    if scoring.interpolate_members:
        return _score(r, c, m, maps, scoring)
    total = np.int64(32768)
    for k in range(maps.weights.size):
        total += maps.weights[k] * _score(r, c, k, maps, scoring)
    return total >> 16


@inline
def _score(r, c, m, maps, scoring):
    code = code_at(maps.addresses[m] + 2 * (r * maps.widths[m] + c))
    return np.int64(scoring.tables[scoring.table_of[m], code])


@kernel
def by_level(starts, ends, positions, levels, falling, truth_starts, truth_ends, sizes, nodes):
    """Count pixels and truth pixels of one class's mask at every level, cleaned by every size; 8- or 26-connected.

    Parameters
    ----------
    starts, ends : int64, runs of the pixels above all levels that are told apart.
    positions, levels : int64 and uint16 (n,), the pixels below those, ascending by position, and their levels.
    falling : int64 (n,), their order by falling level.
    truth_starts, truth_ends : int64, runs of the truth.
    sizes : int64 (S,), ascending; a component stays at a size if it has at least that many pixels.
    nodes : int32 (1, H + 2, W + 2) of an image, (D + 2, H + 2, W + 2) of a volume, of zeros, and left so: which node
        each pixel is, from 1 on, with a row, a column and of a volume a slice more on each side.

    Returns
    -------
    levels, int64 (k,), falling, those that occur, after 65536 for the runs alone; pixels and truth pixels that are left
    at each of them and above, int64 (k, S).
    """
    solid, height, width = nodes.shape[0] > 1, nodes.shape[1] - 2, nodes.shape[2] - 2
    piece_starts, piece_ends, labels, areas = components(starts, ends, height, width, 26 if solid else 8)
    flat, line, slab = nodes.reshape(-1), width + 2, (height + 2) * (width + 2) if solid else 0
    first, n, S = areas.size, positions.size, sizes.size
    parent, rank = np.empty(first + n, np.int64), np.zeros(first + n, np.int64)
    area, hits = np.empty(first + n, np.int64), np.zeros(first + n, np.int64)
    t = 0
    for i in range(piece_starts.size):
        p, q, label = piece_starts[i], piece_ends[i], labels[i]
        while t < truth_starts.size and truth_ends[t] <= p:
            t += 1
        u = t
        while u < truth_starts.size and truth_starts[u] < q:
            hits[label] += min(q, truth_ends[u]) - max(p, truth_starts[u])
            u += 1
        at = _padded(p, height, width, slab)
        for k in range(at, at + q - p):
            flat[k] = label + 1
    t = 0
    for i in range(n):
        while t < truth_starts.size and truth_ends[t] <= positions[i]:
            t += 1
        hits[first + i] = t < truth_starts.size and truth_starts[t] <= positions[i]
    pixels, found = np.zeros(S + 1, np.int64), np.zeros(S + 1, np.int64)  # by how many sizes a component reaches
    for i in range(first):
        parent[i], area[i] = i, areas[i]
        rank[i] = _rank(areas[i], 0, sizes)
        pixels[rank[i]] += areas[i]
        found[rank[i]] += hits[i]
    out_levels = np.empty(n + 1, np.int64)
    out_pixels, out_hits = np.empty((n + 1, S), np.int64), np.empty((n + 1, S), np.int64)
    level, count = np.int64(65536), 0
    for i in range(n):
        k = falling[i]
        if levels[k] != level:
            _write_row(count, level, pixels, found, out_levels, out_pixels, out_hits)
            count += 1
            level = np.int64(levels[k])
        node, at = first + k, _padded(positions[k], height, width, slab)
        parent[node], area[node] = node, 1
        flat[at] = node + 1
        own = node
        pixels[0] += 1
        found[0] += hits[node]
        for side in range(9 if solid else 3):  # rows of neighbours: of its own slice, the one before, the one behind
            middle = at + (0, -slab, slab)[side // 3] + (side % 3 - 1) * line
            for near in range(middle - 1, middle + 2):
                if flat[near] == 0 or near == at:
                    continue
                other = root(parent, np.int64(flat[near]) - 1)
                if other == own:
                    continue
                pixels[rank[other]] -= area[other]
                found[rank[other]] -= hits[other]
                pixels[rank[own]] -= area[own]
                found[rank[own]] -= hits[own]
                if area[other] > area[own]:
                    own, other = other, own
                parent[other] = own
                area[own] += area[other]
                hits[own] += hits[other]
                rank[own] = _rank(area[own], rank[own], sizes)
                pixels[rank[own]] += area[own]
                found[rank[own]] += hits[own]
        reached = _rank(area[own], rank[own], sizes)
        if reached != rank[own]:  # a pixel alone, which reaches sizes of one pixel
            pixels[rank[own]] -= area[own]
            found[rank[own]] -= hits[own]
            rank[own] = reached
            pixels[reached] += area[own]
            found[reached] += hits[own]
    _write_row(count, level, pixels, found, out_levels, out_pixels, out_hits)
    count += 1
    for i in range(piece_starts.size):
        at = _padded(piece_starts[i], height, width, slab)
        for k in range(at, at + piece_ends[i] - piece_starts[i]):
            flat[k] = 0
    for i in range(n):
        flat[_padded(positions[i], height, width, slab)] = 0
    return out_levels[:count], out_pixels[:count], out_hits[:count]


@inline
def _padded(position, height, width, slab):
    """Where a pixel lies in an image with one more row and column on each side; `slab` is 0 of one slice alone."""
    row = position // width
    z = row // height
    return slab * (z + 1) + (row - z * height + 1) * (width + 2) + position - row * width + 1


@inline
def _rank(area, rank, sizes):
    """How many sizes an area reaches, if it reaches `rank` of them at least."""
    while rank < sizes.size and sizes[rank] <= area:
        rank += 1
    return rank


@inline
def _write_row(row, level, pixels, found, out_levels, out_pixels, out_hits):
    """Write what is left at every size: the sums from above."""
    out_levels[row] = level
    left, hits = np.int64(0), np.int64(0)
    for j in range(out_pixels.shape[1] - 1, -1, -1):
        left += pixels[j + 1]
        hits += found[j + 1]
        out_pixels[row, j] = left
        out_hits[row, j] = hits


@kernel
def add_steps(levels, pred, tp, truth, low, high, a, b, c, eps, empty, total):
    """Add one sample's scores at the levels `low … high` to `total`, float64 (n, S), as differences to the level above.

    `levels`, `pred` and `tp` are what `by_level` returned, `truth` is the number of truth pixels; the score is that of
    `counts.add_score_steps`, without skipping.
    """
    sizes = pred.shape[1]
    last = np.zeros(sizes)
    for k in range(levels.size):
        row = min(levels[k], high) - low
        for j in range(sizes):
            value = empty
            if pred[k, j] + truth > 0:
                value = (a * tp[k, j] + eps) / (pred[k, j] + b * truth - c * tp[k, j] + eps)
            total[row, j] += value - last[j]
            last[j] = value


@kernel
def sum_steps(total):
    """Turn differences to the level above into sums, in place, from the top down."""
    for k in range(total.shape[0] - 2, -1, -1):
        for j in range(total.shape[1]):
            total[k, j] += total[k + 1, j]
