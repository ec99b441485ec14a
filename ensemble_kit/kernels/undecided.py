"""The pixels that members do not agree on, and the score of any weights over them.

A pixel that every member puts below the band, or every member puts above it, is decided for all convex weights; so
a trial of weights need only look at the others, kept as one 16-bit value per member.
"""

import numpy as np

from ensemble_kit.kernels.jit import kernel
from ensemble_kit.kernels.runs import grown

BLOCK = 32
"""Blocks are 32 x 32 pixels of the image, as in `fuse`."""


@kernel
def gather(
    codes,
    starts,
    widths,
    key_masks,
    tables,
    rows,
    row_fractions,
    cols,
    col_fractions,
    last,
    low,
    high,
    keys_low,
    keys_high,
    stride,
    truth_starts,
    truth_ends,
):
    """Collect one class's undecided pixels of one sample.

    Parameters
    ----------
    codes : uint16, every member's class map one after another; member m's begins at `starts[m]`, rows `widths[m]` long.
    key_masks : as in `fuse`.
    tables : uint16 (M, 65536), the value of a code.
    rows, row_fractions, cols, col_fractions, last : where each member's cells lie, as in `fuse`.
    low, high : values; a pixel is decided where all members lie below `low`, or all at or above `high`.
    keys_low, keys_high : int64 (M,), the first key of each member whose value is at least `low`, and `high`.
    stride : every stride-th pixel of every stride-th row stands for the rest.

    Returns
    -------
    values uint16 (n, M), hits first; how many are hits; pixels above, and hits among them; hits in all.
    """
    members, height, width = starts.size, rows.shape[1], cols.shape[1]
    negative, sign = key_masks[0], key_masks[1]
    widest, first = widths.max(), stride // 2
    high_keys, low_keys = np.empty(widest, np.int16), np.empty(widest, np.int16)
    across = -(-width // BLOCK)
    state = np.empty(across, np.uint8)  # 1: some member may reach low; 2: some member may lie below high
    truth = np.empty((BLOCK, width), np.uint8)
    grid = np.empty((BLOCK + 2, BLOCK + 2), np.int64)
    hits, misses = np.empty(256 * members, np.uint16), np.empty(256 * members, np.uint16)
    pixels = np.empty((BLOCK * BLOCK, members), np.uint16)
    n_hits, n_misses, above, above_hits, area, t = 0, 0, 0, 0, 0, 0
    for by in range(-(-height // BLOCK)):
        oy0, oy1 = by * BLOCK, min((by + 1) * BLOCK, height)
        truth[:] = 0
        while t < truth_starts.size and truth_starts[t] < oy1 * width:
            for p in range(max(truth_starts[t], oy0 * width), min(truth_ends[t], oy1 * width)):
                truth[p // width - oy0, p % width] = 1
            if truth_ends[t] > oy1 * width:
                break
            t += 1
        state[:] = 0
        for m in range(members):
            r0, r1 = rows[m, oy0], min(rows[m, oy1 - 1] + 1, last[m, 0])
            c0, c1 = cols[m, 0], min(cols[m, width - 1] + 1, last[m, 1])
            n = c1 - c0 + 1
            for r in range(r0, r1 + 1):
                at = starts[m] + r * widths[m] + c0
                row = codes[at : at + n].view(np.int16)
                if r == r0:
                    for x in range(n):
                        key = (row[x] ^ ((row[x] >> 15) & negative)) ^ sign
                        high_keys[x] = key
                        low_keys[x] = key
                else:
                    for x in range(n):
                        key = (row[x] ^ ((row[x] >> 15) & negative)) ^ sign
                        high_keys[x] = max(high_keys[x], key)
                        low_keys[x] = min(low_keys[x], key)
            for bx in range(across):
                x0 = cols[m, bx * BLOCK] - c0
                x1 = min(cols[m, min((bx + 1) * BLOCK, width) - 1] + 1, last[m, 1]) - c0
                top, bottom = high_keys[x0], low_keys[x0]
                for x in range(x0 + 1, x1 + 1):
                    top = max(top, high_keys[x])
                    bottom = min(bottom, low_keys[x])
                if top >= keys_low[m]:
                    state[bx] |= 1
                if bottom < keys_high[m]:
                    state[bx] |= 2
        for bx in range(across):
            ox0, ox1 = bx * BLOCK, min((bx + 1) * BLOCK, width)
            y_first = oy0 + (first - oy0) % stride
            x_first = ox0 + (first - ox0) % stride
            if state[bx] != 3:
                for y in range(y_first, oy1, stride):
                    for x in range(x_first, ox1, stride):
                        area += truth[y - oy0, x]
                        if state[bx] == 2:
                            continue
                        above += 1
                        above_hits += truth[y - oy0, x]
                continue
            for m in range(members):
                r0, r1 = rows[m, oy0], min(rows[m, oy1 - 1] + 1, last[m, 0])
                c0, c1 = cols[m, ox0], min(cols[m, ox1 - 1] + 1, last[m, 1])
                if r1 - r0 + 1 > grid.shape[0] or c1 - c0 + 1 > grid.shape[1]:
                    grid = np.empty((max(r1 - r0 + 1, grid.shape[0]), max(c1 - c0 + 1, grid.shape[1])), np.int64)
                for r in range(r1 - r0 + 1):
                    at = starts[m] + (r0 + r) * widths[m] + c0
                    for c in range(c1 - c0 + 1):
                        grid[r, c] = tables[m, codes[at + c]]
                k = 0
                for y in range(y_first, oy1, stride):
                    a = rows[m, y] - r0
                    b = min(a + 1, r1 - r0)
                    fy = row_fractions[m, y]
                    for x in range(x_first, ox1, stride):
                        c = cols[m, x] - c0
                        d = min(c + 1, c1 - c0)
                        fx = col_fractions[m, x]
                        top_value = (256 - fx) * grid[a, c] + fx * grid[a, d]
                        foot_value = (256 - fx) * grid[b, c] + fx * grid[b, d]
                        pixels[k, m] = ((256 - fy) * top_value + fy * foot_value + 32768) >> 16
                        k += 1
            k = 0
            for y in range(y_first, oy1, stride):
                for x in range(x_first, ox1, stride):
                    reaches, below = False, False
                    for m in range(members):
                        reaches |= pixels[k, m] >= low
                        below |= pixels[k, m] < high
                    hit = truth[y - oy0, x]
                    area += hit
                    if not below:
                        above += 1
                        above_hits += hit
                    elif reaches:
                        if hit:
                            if n_hits == hits.size:
                                hits = grown(hits)
                            for m in range(members):
                                hits[n_hits + m] = pixels[k, m]
                            n_hits += members
                        else:
                            if n_misses == misses.size:
                                misses = grown(misses)
                            for m in range(members):
                                misses[n_misses + m] = pixels[k, m]
                            n_misses += members
                    k += 1
    out = np.empty(n_hits + n_misses, np.uint16)
    out[:n_hits] = hits[:n_hits]
    out[n_hits:] = misses[:n_misses]
    return out.reshape(-1, members), n_hits // members, above, above_hits, area


@kernel
def curve(
    values,
    offsets,
    splits,
    above,
    above_hits,
    truth,
    samples,
    table,
    low,
    high,
    a,
    b,
    c,
    eps,
    empty,
    skip,
    pooled,
    counts,
    touched,
    top,
    counted,
):
    """Fuse one class's undecided pixels, score it at every level of `low … high`, and return the best level.

    Only levels that occur are visited: each sample adds the *differences* of its score between them, and one sum
    from above turns differences into scores. Among scores within 1e-12 the level nearest to 0.5 is best, then the
    lower; where no sample counts a level is worth 1.

    Parameters
    ----------
    values : uint16 (n, M); sample s has the rows `offsets[s]:offsets[s+1]`, hits up to `splits[s]`.
    above, above_hits, truth : int64 (samples,), decided on for all weights, hits among those, hits in all.
    samples : numbers of the samples that count.
    table : uint32 (M, 65536), the member's integer weight times the level of a value; a pixel's level is
        `(sum + 32768) >> 16`.
    a, b, c, eps, empty, skip : the score `(a tp + eps) / (pred + b truth - c tp + eps)`; see `counts`.
    pooled : score the pixels of all samples together.
    counts : uint64 (65537,) of zeros, left so; misses and, in the lower half, hits at each level.
    touched : uint64 (1025,) of zeros, left so; a bit for each level that occurs.
    top, counted : float64 and int64 (65537,), written in `low … high`: sums of scores, and how many count.
    """
    top[low : high + 1] = 0
    counted[low : high + 1] = 0
    pred, tp, area = np.int64(0), np.int64(0), np.int64(0)
    half = np.uint64(0xFFFFFFFF)
    for k in range(samples.size):
        s = samples[k]
        pred += above[s]
        tp += above_hits[s]
        area += truth[s]
        _scatter(values, offsets[s], splits[s], table, low, high, np.uint64(1), counts, touched)
        _scatter(values, splits[s], offsets[s + 1], table, low, high, np.uint64(1) << np.uint64(32), counts, touched)
        if pooled and k + 1 < samples.size:
            continue
        value, one = 0.0, 0
        touched[high >> 6] |= np.uint64(1) << np.uint64(high & 63)
        for word in range(high >> 6, (low >> 6) - 1, -1):
            bits = touched[word]
            touched[word] = 0
            while bits != 0:
                bit = _highest(bits)
                bits ^= np.uint64(1) << np.uint64(bit)
                level = word * 64 + bit
                hits = np.int64(counts[level] & half)
                tp += hits
                pred += hits + np.int64(counts[level] >> np.uint64(32))
                counts[level] = 0
                now, count = _score(pred, tp, area, a, b, c, eps, empty, skip)
                top[level] += now - value
                counted[level] += count - one
                value, one = now, count
        pred, tp, area = np.int64(0), np.int64(0), np.int64(0)
    best, best_level, last = -1.0, high, min(high, 65535)
    for level in range(high, low - 1, -1):
        if level < high:
            top[level] += top[level + 1]
            counted[level] += counted[level + 1]
        score = top[level] / counted[level] if counted[level] > 0 else 1.0
        if level <= last and score >= best - 1e-12:
            if score > best + 1e-12 or abs(2 * level - 65535) <= abs(2 * best_level - 65535):
                best_level = level
            best = max(score, best)
    return best_level


@kernel
def _scatter(values, first, stop, table, low, high, one, counts, touched):
    """Add `one` to the counts of every pixel's level, and mark the level; beyond the band, at its upper edge."""
    members = table.shape[0]
    for i in range(first, stop):
        total = np.uint32(32768)
        for m in range(members):
            total += table[m, values[i, m]]
        level = np.int64(total >> np.uint32(16))
        if level >= low:
            level = min(level, high)
            counts[level] += one
            touched[level >> 6] |= np.uint64(1) << np.uint64(level & 63)


@kernel
def _highest(bits):
    """Position of the highest bit of a word that is not 0."""
    at = 0
    for shift in (32, 16, 8, 4, 2, 1):
        if bits >> np.uint64(at + shift) != 0:
            at += shift
    return at


@kernel
def _score(pred, tp, truth, a, b, c, eps, empty, skip):
    if pred + truth == 0:
        return (0.0, 0) if skip else (empty, 1)
    return (a * tp + eps) / (pred + b * truth - c * tp + eps), 1


@kernel
def kept_components(offsets, areas, hits, least, most, pred, tp):
    """Write the pixels and hits of each group's components that have at least `least` pixels.

    Group g has the components `offsets[g]:offsets[g+1]`; of those only the `most` largest count (0: all), of equal
    ones the first.
    """
    taken = np.empty(max(most, 1), np.int64)
    for g in range(offsets.size - 1):
        pred[g] = 0
        tp[g] = 0
        if most == 0:
            for i in range(offsets[g], offsets[g + 1]):
                if areas[i] >= least:
                    pred[g] += areas[i]
                    tp[g] += hits[i]
            continue
        for k in range(most):
            best = -1
            for i in range(offsets[g], offsets[g + 1]):
                free = areas[i] >= least
                for j in range(k):
                    free &= taken[j] != i
                if free and (best < 0 or areas[i] > areas[best]):
                    best = i
            if best < 0:
                break
            taken[k] = best
            pred[g] += areas[best]
            tp[g] += hits[best]
