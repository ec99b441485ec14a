"""Decide and count pixels of members that share one grid, at the speed at which their logits can be read.

The codes whose score reaches a level are one interval of the 65,536 (`fused.py` finds it), so a first pass compares
64 cells at a time and keeps two bits a cell: whether *any* member reaches the level, and whether *all* do. A *quad*
is a cell and its right, lower and diagonal neighbour; bilinear interpolation is a convex combination and every
table is monotone, so the pixels between four cells that no member has on are off, and those between four that all
have on are on, without arithmetic. What is left, about 0.2 % of a bone's plane, is evaluated exactly.

A walk over the rows of quads turns bits into *events*: the quads where what the pixels are (off, on, or mixed)
changes. No plane of levels and no mask is made. Where no pixel lies between two rows or columns of cells, as on a
plane of the grid's own size, a quad leaves out the neighbours that weigh nothing.
"""

import numpy as np

from ensemble_kit.kernels.jit import kernel, part
from ensemble_kit.kernels.words import AHEAD, code_at, codes_within, fetch, half_up, lowest

OFF, ON, MIXED = 0, 1, 2


@kernel
def mark(addresses, planes, width, firsts, spans, any_bits, all_bits):
    """Set bit c of row r where any member reaches the low level in cell (r, c), and where all reach the high one.

    `firsts` and `spans` (2, M) are the intervals of codes that reach each; a negative span is an empty one. Member
    after member, so that each plane is read as one stream: eight rows of every member in turn cost a third more.
    """
    words = any_bits.shape[1]
    for m in range(addresses.size):
        low, low_span, high, high_span = firsts[0, m], spans[0, m], firsts[1, m], spans[1, m]
        low_mask, high_mask = np.int64(0 if low_span < 0 else -1), np.int64(0 if high_span < 0 else -1)
        for r in range(any_bits.shape[0]):
            row = addresses[m] + 2 * r * planes[m, 2]
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


@part
def _last_word(row, begin, width, first, span):
    """Compare the fewer than 64 cells at the end of a row, one by one."""
    word = np.int64(0)
    for x in range(width - begin):
        if ((code_at(row + 2 * (begin + x)) - first) & 65535) <= span:
            word |= np.int64(1) << x
    return word


@part
def _neighbours(parts, at):
    """Tell for each row (or column) of cells whether some pixel behind it lies between it and the next one."""
    out = np.zeros(at.size - 1, np.int64)
    for r in range(at.size - 1):
        for y in range(at[r], at[r + 1]):
            out[r] |= parts[y] != 0
    return out


@part
def _find_events(r, r2, across, any_bits, all_bits, width, places, kinds):
    """Write the quads of rows `r` and `r2` where the kind of the pixels changes, or is mixed; return how many.

    A quad at the right edge of the grid has itself for a neighbour, and so has every quad without `across`.
    """
    words, n = any_bits.shape[1], 0
    was_on, was_mixed = np.int64(0), np.int64(0)  # of the last quad before this word
    some, every = any_bits[r, 0] | any_bits[r2, 0], all_bits[r, 0] & all_bits[r2, 0]
    for k in range(words):
        valid = np.int64(-1)
        if k + 1 < words:
            some_next, every_next = any_bits[r, k + 1] | any_bits[r2, k + 1], all_bits[r, k + 1] & all_bits[r2, k + 1]
        else:
            end = width - 64 * k
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
        event = ((on ^ ((on << 1) | was_on)) | mixed | (mixed << 1) | was_mixed) & valid
        if k == 0:
            event |= 1  # the row before may have ended in any state
        while event != 0:
            bit = lowest(event)
            event &= event - 1
            places[n] = 64 * k + bit
            kinds[n] = ON if (on >> bit) & 1 else MIXED if (mixed >> bit) & 1 else OFF
            n += 1
        was_on, was_mixed = (on >> 63) & 1, (mixed >> 63) & 1
        some, every = some_next, every_next
    return n


@part
def _score_cells(
    r,
    r2,
    across,
    n,
    places,
    kinds,
    addresses,
    planes,
    h,
    w,
    tables,
    table_of,
    after,
    weights,
    late,
    scores,
    stamps,
    stamp,
):
    """Put the scores of cells (r, c) and (r2, c) of mixed quads into `scores[row & 1, c]`, unless they are there.

    One score, the fused one; or with `late` each member's `q`, then what `after` makes of each. Quads share cells
    with their neighbours: three of four are there already.
    """
    members, line = addresses.size, np.int64(-1)
    for e in range(n):
        if kinds[e] != MIXED:
            continue
        if places[e] >> 5 != line and r + 3 < h:  # outlines go on: ask for the cells that the next rows will need
            line = places[e] >> 5
            for m in range(members):
                fetch(addresses[m] + 2 * ((r + 3) * planes[m, 2] + places[e]))
        follows = e + 1 < n and kinds[e + 1] == MIXED and places[e + 1] == places[e] + 1
        for corner in range(2 if follows or not across else 4):  # the right corners are the next quad's left ones
            row = r2 if corner & 1 else r
            c = min(places[e] + (corner >> 1), w - 1)
            if stamps[row & 1, c] == stamp + row:
                continue
            stamps[row & 1, c] = stamp + row
            if late:
                for m in range(members):
                    score = np.int64(tables[table_of[m], code_at(addresses[m] + 2 * (row * planes[m, 2] + c))])
                    scores[row & 1, c, m] = score
                    scores[row & 1, c, members + m] = after[score]
                continue
            total = np.int64(32768)  # nothing is stored on the way: the arrays above need not be looked up again
            for m in range(members):
                code = code_at(addresses[m] + 2 * (row * planes[m, 2] + c))
                total += weights[m] * np.int64(tables[table_of[m], code])
            scores[row & 1, c, 0] = total >> 16


@part
def _look_closer(r, r2, across, n, places, kinds, low, high, w, weights, late, scores):
    """Turn mixed quads whose corners allow it into OFF (all pixels below `low`) or ON (all reach `high`).

    Events that then change nothing are dropped; return how many are left.
    """
    kept, members = 0, weights.size
    for e in range(n):
        c, kind = places[e], kinds[e]
        if kind == MIXED:
            c2 = min(c + across, w - 1)
            least, most = np.int64(32768), np.int64(32768)
            for m in range(members if late else 1):
                k = members + m if late else 0
                a, b, d, f = scores[r & 1, c, k], scores[r & 1, c2, k], scores[r2 & 1, c, k], scores[r2 & 1, c2, k]
                if late:
                    least += weights[m] * min(a, b, d, f)
                    most += weights[m] * max(a, b, d, f)
                else:
                    least, most = min(a, b, d, f) << 16, max(a, b, d, f) << 16
            kind = OFF if most >> 16 < low else ON if least >> 16 >= high else MIXED
        if e == 0 or kind == MIXED or kind != kinds[kept - 1]:
            places[kept], kinds[kept] = c, kind
            kept += 1
    return kept


@part
def _sides(scores, r, r2, c, c2, fy, late, members, sides):
    """Interpolate a quad's left and right cells down to one row of pixels: level x 256, of every score."""
    for m in range(members if late else 1):
        sides[0, m] = (256 - fy) * scores[r & 1, c, m] + fy * scores[r2 & 1, c, m]
        sides[1, m] = (256 - fy) * scores[r & 1, c2, m] + fy * scores[r2 & 1, c2, m]


@part
def _fused_between(sides, fx, after, weights):
    """The effective level of one pixel between two sides, each member interpolated first."""
    total = np.int64(32768)
    for m in range(weights.size):
        total += weights[m] * after[((256 - fx) * sides[0, m] + fx * sides[1, m] + 32768) >> 16]
    return total >> 16


@part
def _rows_in_use(bits):
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


@part
def _find_planes(planes, order, addresses):
    """Write where a class begins in each member."""
    for m in range(order.size):
        addresses[m] = planes[m, 0] + order[m] * planes[m, 1]


@part
def _room(h, w, scores_of_a_cell):
    """Scratch of a walk: bits of all cells, events of one row, scores of two rows of cells and whose they are."""
    any_bits, all_bits = np.empty((h, (w + 63) // 64), np.int64), np.empty((h, (w + 63) // 64), np.int64)
    places, kinds = np.empty(w, np.int64), np.empty(w, np.int8)
    scores, stamps = np.empty((2, w, scores_of_a_cell), np.int64), np.empty((2, w), np.int64)
    for c in range(w):
        stamps[0, c], stamps[1, c] = -1, -1
    return any_bits, all_bits, places, kinds, scores, stamps


@kernel
def decide(
    chosen,
    levels,
    firsts,
    spans,
    planes,
    order,
    weights,
    tables,
    table_of,
    after,
    row_at,
    row_parts,
    col_at,
    col_parts,
    late,
):
    """Runs of the pixels whose effective level reaches their class's.

    Parameters
    ----------
    chosen, levels : int64 (n,), numbers of the classes to decide, and the level of each.
    firsts, spans : int64 (n, 2, M), the codes that reach the level, `first … first + span` or none if span < 0; twice.
    planes : int64 (M, 3), of each member: where its box begins in the class that it has first, the bytes from one
        class to the next, and the cells of a row of its grid.
    order : int64 (C, M), where each class stands in each member.
    weights : int64 (C, M), adding up to 65536 in each row.
    tables : uint16 (T, 65536), score of each code. table_of : int64 (M,), which is each member's.
    after : uint16 (65536,), what an interpolated score becomes.
    row_at, col_at : int64 (h + 1,) and (w + 1,), first pixel below and right of each row and column of cells; every
        column has a pixel (W >= w). row_parts, col_parts : int64 (H,) and (W,), weight of the far neighbour, of 256.
    late : interpolate each member, then fuse (upsample="logits"); otherwise fuse, then interpolate ("scores").

    Returns
    -------
    starts, ends : int64 (runs,) of all chosen classes; offsets : int64 (n + 1,), where each class's begin.
    """
    members, h, w, H, W = order.shape[1], row_at.size - 1, col_at.size - 1, row_parts.size, col_parts.size
    any_bits, all_bits, places, kinds, scores, stamps = _room(h, w, 2 * members if late else 1)
    down, across = _neighbours(row_parts, row_at), _neighbours(col_parts, col_at).max()
    addresses, edges, n = np.empty(members, np.int64), np.empty(16384, np.int64), 0
    offsets = np.zeros(chosen.size + 1, np.int64)
    for k in range(chosen.size):
        cls = chosen[k]
        _find_planes(planes, order[cls], addresses)
        mark(addresses, planes, w, firsts[k], spans[k], any_bits, all_bits)
        used = _rows_in_use(any_bits)
        r, on = 0, False
        while r < h:
            r, n, on = _decide_rows(
                r,
                edges,
                n,
                on,
                k * h,
                used,
                down,
                across,
                any_bits,
                all_bits,
                places,
                kinds,
                scores,
                stamps,
                addresses,
                planes,
                levels[k],
                tables,
                table_of,
                after,
                weights[cls],
                row_at,
                row_parts,
                col_at,
                col_parts,
                late,
            )
            if r < h:
                edges = _grown(edges)
        if on:
            edges[n] = H * W
            n += 1
        offsets[k + 1] = n // 2
    starts, ends = np.empty(n // 2, np.int64), np.empty(n // 2, np.int64)
    for k in range(n // 2):
        starts[k], ends[k] = edges[2 * k], edges[2 * k + 1]
    return starts, ends, offsets


@kernel
def _decide_rows(
    first,
    edges,
    n,
    on,
    stamp,
    used,
    down,
    across,
    any_bits,
    all_bits,
    places,
    kinds,
    scores,
    stamps,
    addresses,
    planes,
    level,
    tables,
    table_of,
    after,
    weights,
    row_at,
    row_parts,
    col_at,
    col_parts,
    late,
):
    """Append one class's edges from row `first` on, until all is done or `edges` is full; return where it stopped.

    Growing `edges` in here would keep it in memory for the sake of the rare case: the walk took five times as long.
    """
    h, w, W, members = row_at.size - 1, col_at.size - 1, col_parts.size, weights.size
    sides = np.empty((2, members), np.int64)
    for r in range(first, h):
        if row_at[r] == row_at[r + 1]:
            continue
        if not used[r]:
            if on:
                edges[n] = row_at[r] * W
                n, on = n + 1, False
            continue
        r2 = min(r + down[r], h - 1)
        found = _find_events(r, r2, across, any_bits, all_bits, w, places, kinds)
        _score_cells(
            r,
            r2,
            across,
            found,
            places,
            kinds,
            addresses,
            planes,
            h,
            w,
            tables,
            table_of,
            after,
            weights,
            late,
            scores,
            stamps,
            stamp,
        )
        found = _look_closer(r, r2, across, found, places, kinds, level, level, w, weights, late, scores)
        most = 1
        for e in range(found):
            most += col_at[places[e] + 1] - col_at[places[e]] if kinds[e] == MIXED else 1
        if n + (row_at[r + 1] - row_at[r]) * most > edges.size:
            return r, n, on
        for y in range(row_at[r], row_at[r + 1]):
            fy = row_parts[y]
            for e in range(found):
                c = places[e]
                if kinds[e] != MIXED:
                    edges[n] = y * W + col_at[c]  # written always, kept where the state changes: nothing to mispredict
                    n += on != (kinds[e] == ON)
                    on = kinds[e] == ON
                    continue
                _sides(scores, r, r2, c, min(c + across, w - 1), fy, late, members, sides)
                if late:
                    for x in range(col_at[c], col_at[c + 1]):
                        now = _fused_between(sides, col_parts[x], after, weights) >= level
                        edges[n] = y * W + x
                        n += now != on
                        on = now
                else:
                    left, right = sides[0, 0], sides[1, 0]
                    for x in range(col_at[c], col_at[c + 1]):
                        now = (256 - col_parts[x]) * left + col_parts[x] * right >= level << 16
                        edges[n] = y * W + x
                        n += now != on
                        on = now
    return h, n, on


@kernel
def _grown(array):
    out = np.empty(2 * array.size, array.dtype)
    for k in range(array.size):  # a slice on the left drags in the formatting of its error: 1.7 s of compilation
        out[k] = array[k]
    return out


@kernel
def count(
    chosen,
    bands,
    truth_starts,
    truth_ends,
    truth_offsets,
    histogram,
    like,
    firsts,
    spans,
    planes,
    order,
    weights,
    tables,
    table_of,
    after,
    row_at,
    row_parts,
    col_at,
    col_parts,
    late,
):
    """Count pixels, and truth pixels among them, by effective level.

    Parameters
    ----------
    chosen : int64 (n,), numbers of the classes to count.
    bands : int64 (n, 2), the levels `low … high-1` of each that are told apart.
    truth_starts, truth_ends : int64, runs of the truth; those of the k-th chosen class are
        `truth_offsets[k]:truth_offsets[k+1]`.
    histogram : int64 (65536, 2) of zeros, and is handed back so.
    like : an array of the type that pixels are counted in, uint32 or int64.
    firsts, spans : int64 (n, 2, M), the codes that reach `low`, and those that reach `high`.
    planes, order, … : as for `decide`.

    Returns
    -------
    offsets int64 (n + 1,), where each class's entries begin in the next three; levels uint16, ascending, those of the
    band that occur; their pixels and truth pixels at that level and above; then the pixels and the truth pixels
    at `high` and above, int64 (n,) each.
    """
    members, h, w = order.shape[1], row_at.size - 1, col_at.size - 1
    any_bits, all_bits, places, kinds, scores, stamps = _room(h, w, 2 * members if late else 1)
    down, across = _neighbours(row_parts, row_at), _neighbours(col_parts, col_at).max()
    # most classes have so few pixels in the band that sorting them costs 5 ns each; adding them one by one to a
    # histogram that fills a cache, and taking them out of it, cost 15
    seen = np.empty(max(65536, 2 * col_parts.size), np.int32)
    other, addresses = np.empty(seen.size, np.int32), np.empty(members, np.int64)
    above, above_hits = np.empty(chosen.size, np.int64), np.empty(chosen.size, np.int64)
    levels, pred, tp = np.empty(65536, np.uint16), np.empty(65536, like.dtype), np.empty(65536, like.dtype)
    offsets = np.zeros(chosen.size + 1, np.int64)
    for k in range(chosen.size):
        cls = chosen[k]
        _find_planes(planes, order[cls], addresses)
        mark(addresses, planes, w, firsts[k], spans[k], any_bits, all_bits)
        own = truth_offsets[k], truth_offsets[k + 1]
        n, spilled, above[k], above_hits[k] = _count_rows(
            bands[k, 0],
            bands[k, 1],
            truth_starts[own[0] : own[1]],
            truth_ends[own[0] : own[1]],
            seen,
            histogram,
            k * h,
            _rows_in_use(any_bits),
            down,
            across,
            any_bits,
            all_bits,
            places,
            kinds,
            scores,
            stamps,
            addresses,
            planes,
            tables,
            table_of,
            after,
            weights[cls],
            row_at,
            row_parts,
            col_at,
            col_parts,
            late,
        )
        first = offsets[k]
        while first + (65536 if spilled else n) > levels.size:
            levels, pred, tp = _grown(levels), _grown(pred), _grown(tp)
        if spilled:
            _add(seen[:n], histogram)
            n = _from_histogram(histogram, levels[first:], pred[first:], tp[first:])
        else:
            _sort(seen[:n], other)
            n = _from_sorted(seen[:n], levels[first:], pred[first:], tp[first:])
        offsets[k + 1] = first + n
        pixels, hits = above[k], above_hits[k]
        for e in range(first + n - 1, first - 1, -1):
            pixels += pred[e]
            hits += tp[e]
            pred[e], tp[e] = pixels, hits
    n = offsets[chosen.size]
    return offsets, levels[:n].copy(), pred[:n].copy(), tp[:n].copy(), above, above_hits


@kernel
def _count_rows(
    low,
    high,
    truth_starts,
    truth_ends,
    seen,
    histogram,
    stamp,
    used,
    down,
    across,
    any_bits,
    all_bits,
    places,
    kinds,
    scores,
    stamps,
    addresses,
    planes,
    tables,
    table_of,
    after,
    weights,
    row_at,
    row_parts,
    col_at,
    col_parts,
    late,
):
    """Write a code for each pixel of the band into `seen`: twice its level, plus one for a truth pixel.

    Where they do not fit, they go on into the histogram. Return how many are in `seen`, whether any are not, and the
    pixels and truth pixels above the band.
    """
    members, h, w, W = weights.size, row_at.size - 1, col_at.size - 1, col_parts.size
    sides, n, spilled = np.empty((2, members), np.int64), 0, False
    above, above_hits, t, runs = np.int64(0), np.int64(0), 0, truth_starts.size
    for r in range(h):
        if not used[r] or row_at[r] == row_at[r + 1]:
            continue
        r2 = min(r + down[r], h - 1)
        found = _find_events(r, r2, across, any_bits, all_bits, w, places, kinds)
        _score_cells(
            r,
            r2,
            across,
            found,
            places,
            kinds,
            addresses,
            planes,
            h,
            w,
            tables,
            table_of,
            after,
            weights,
            late,
            scores,
            stamps,
            stamp,
        )
        found = _look_closer(r, r2, across, found, places, kinds, low, high, w, weights, late, scores)
        for y in range(row_at[r], row_at[r + 1]):
            for e in range(found):
                if kinds[e] == OFF:
                    continue
                c = places[e]
                p = y * W + col_at[c]
                while t < runs and truth_ends[t] <= p:
                    t += 1
                if kinds[e] == ON:
                    q = y * W + (col_at[places[e + 1]] if e + 1 < found else W)
                    above += q - p
                    while t < runs and truth_starts[t] < q:
                        above_hits += min(q, truth_ends[t]) - max(p, truth_starts[t])
                        if truth_ends[t] > q:
                            break
                        t += 1
                    continue
                _sides(scores, r, r2, c, min(c + across, w - 1), row_parts[y], late, members, sides)
                for x in range(col_at[c], col_at[c + 1]):
                    fx = col_parts[x]
                    if late:
                        level = _fused_between(sides, fx, after, weights)
                    else:
                        level = ((256 - fx) * sides[0, 0] + fx * sides[1, 0]) >> 16
                    while t < runs and truth_ends[t] <= y * W + x:
                        t += 1
                    hit = t < runs and truth_starts[t] <= y * W + x
                    seen[n] = 2 * level + hit
                    n += (level >= low) & (level < high)
                    above += level >= high
                    above_hits += (level >= high) & hit
            if n + W > seen.size:
                _add(seen[:n], histogram)
                n, spilled = 0, True
    return n, spilled, above, above_hits


@part
def _add(seen, histogram):
    """Count codes, each twice a level plus one for a truth pixel, in the histogram."""
    for k in range(seen.size):
        histogram[seen[k] >> 1, 0] += 1
        histogram[seen[k] >> 1, 1] += seen[k] & 1


@part
def _sort(seen, other):
    """Sort codes by level, by counting: first by the low byte, into `other`, then by the high one, back."""
    places = np.zeros((2, 257), np.int64)
    for k in range(seen.size):
        places[0, ((seen[k] >> 1) & 255) + 1] += 1
        places[1, (seen[k] >> 9) + 1] += 1
    for b in range(1, 257):
        places[0, b] += places[0, b - 1]
        places[1, b] += places[1, b - 1]
    for k in range(seen.size):
        b = (seen[k] >> 1) & 255
        other[places[0, b]] = seen[k]
        places[0, b] += 1
    for k in range(seen.size):
        b = other[k] >> 9
        seen[places[1, b]] = other[k]
        places[1, b] += 1


@part
def _from_sorted(seen, levels, pixels, hits):
    """Write the levels that occur in sorted codes, and the pixels and truth pixels of each; return how many."""
    n, level, here, hits_here = -1, np.int64(-1), np.int64(0), np.int64(0)
    for k in range(seen.size):
        same = np.int64(seen[k] >> 1 == level)  # nothing to mispredict, and nothing to read back
        level, here, hits_here = np.int64(seen[k] >> 1), same * here + 1, same * hits_here + (seen[k] & 1)
        n += 0 if same else 1
        levels[n], pixels[n], hits[n] = level, here, hits_here
    return n + 1


@part
def _from_histogram(histogram, levels, pixels, hits):
    """Write the levels that occur, and the pixels and truth pixels of each; return how many. Zeros are left."""
    n = 0
    for level in range(histogram.shape[0]):
        if histogram[level, 0] != 0:
            levels[n], pixels[n], hits[n] = level, histogram[level, 0], histogram[level, 1]
            histogram[level, 0], histogram[level, 1] = 0, 0
            n += 1
    return n
