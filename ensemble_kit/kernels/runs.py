"""Masks as sorted, disjoint, half-open intervals `[start, end)` of a flattened plane; int64 positions."""

import numpy as np

from ensemble_kit.kernels.jit import kernel

# What is wrong with an RLE text, as `parse_text` reports it.
OK, BAD_CHARACTER, ODD_NUMBERS, LEADING_ZERO, ZERO_LENGTH, NOT_SORTED, OUTSIDE, BELOW_BASE, TOO_LARGE = range(9)

_LARGEST = 1 << 61  # a sum of two such positions stays inside int64


@kernel
def encode_bytes(mask):
    """Runs of a flat mask of bytes that are 0 or 1."""
    n = mask.size
    words = mask[: n - n % 8].view(np.uint64)  # eight pixels at a look: most are all off or all on
    starts, ends = np.empty(64, np.int64), np.empty(64, np.int64)
    count, on = 0, False
    for k in range(words.size + (1 if n % 8 else 0)):
        if k < words.size:
            word = words[k]
            if word == (np.uint64(0x0101010101010101) if on else np.uint64(0)):
                continue
        for p in range(8 * k, min(8 * k + 8, n)):
            if (mask[p] != 0) != on:
                if on:
                    ends[count] = p
                    count += 1
                else:
                    if count == starts.size:
                        starts, ends = grown(starts), grown(ends)
                    starts[count] = p
                on = not on
    if on:
        ends[count] = n
        count += 1
    return starts[:count].copy(), ends[:count].copy()


@kernel
def grown(array):
    """The array with twice the room."""
    out = np.empty(2 * array.size, array.dtype)
    out[: array.size] = array
    return out


@kernel
def combine(a_starts, a_ends, b_starts, b_ends, table):
    """Runs where `table` bit (in a) + 2 * (in b) is set: 8 is and, 14 or, 6 xor, 2 a without b."""
    room = a_starts.size + b_starts.size + 1
    starts, ends = np.empty(room, np.int64), np.empty(room, np.int64)
    count, i, j, state, on = 0, 0, 0, 0, False  # i, j count edges, two a run
    while i < 2 * a_starts.size or j < 2 * b_starts.size:
        a = _LARGEST if i == 2 * a_starts.size else (a_ends[i >> 1] if i & 1 else a_starts[i >> 1])
        b = _LARGEST if j == 2 * b_starts.size else (b_ends[j >> 1] if j & 1 else b_starts[j >> 1])
        p = min(a, b)
        if a == p:
            i += 1
            state ^= 1
        if b == p:
            j += 1
            state ^= 2
        now = (table >> state) & 1 == 1
        if now and not on:
            starts[count] = p
        elif on and not now:
            ends[count] = p
            count += 1
        on = now
    return starts[:count].copy(), ends[:count].copy()


@kernel
def overlap(a_starts, a_ends, b_starts, b_ends):
    """Count the positions that lie in both."""
    total, i, j = 0, 0, 0
    while i < a_starts.size and j < b_starts.size:
        low, high = max(a_starts[i], b_starts[j]), min(a_ends[i], b_ends[j])
        if low < high:
            total += high - low
        if a_ends[i] < b_ends[j]:
            i += 1
        else:
            j += 1
    return total


@kernel
def weighted_vote(starts, ends, offsets, weights, need):
    """Runs where the weights of the members that are on add up to at least `need` (>= 1).

    Member m's runs are `starts[offsets[m]:offsets[m+1]]`; weights are int64 and at least 0.
    """
    members = weights.size
    room = starts.size + 1
    out_starts, out_ends = np.empty(room, np.int64), np.empty(room, np.int64)
    edge = np.zeros(members, np.int64)
    upcoming = np.empty(members, np.int64)
    for m in range(members):
        upcoming[m] = starts[offsets[m]] if offsets[m] < offsets[m + 1] else _LARGEST
    count, total, on = 0, 0, False
    while True:
        p = _LARGEST
        for m in range(members):
            p = min(p, upcoming[m])
        if p == _LARGEST:
            break
        for m in range(members):
            if upcoming[m] == p:
                total += weights[m] if edge[m] & 1 == 0 else -weights[m]
                edge[m] += 1
                k = offsets[m] + (edge[m] >> 1)
                if edge[m] & 1:
                    upcoming[m] = ends[k]
                else:
                    upcoming[m] = starts[k] if k < offsets[m + 1] else _LARGEST
        now = total >= need
        if now and not on:
            out_starts[count] = p
        elif on and not now:
            out_ends[count] = p
            count += 1
        on = now
    return out_starts[:count].copy(), out_ends[:count].copy()


@kernel
def transpose(starts, ends, height, width):
    """Runs of the transposed plane: row-major of H x W becomes column-major.

    A column run begins where a row has a pixel that the row above lacks, so only the differences of neighbouring
    rows are walked, and a counting sort by column puts them in order. The cost is that of the edges, not the plane.
    """
    n_starts = _count_vertical(starts, ends, width, True)
    n_ends = _count_vertical(starts, ends, width, False)
    first = _vertical(starts, ends, height, width, True, n_starts)
    last = _vertical(starts, ends, height, width, False, n_ends)
    count = 0  # a run at the foot of one column and at the head of the next is one run
    for k in range(n_starts):
        if count > 0 and first[k] == last[count - 1]:
            last[count - 1] = last[k]
        else:
            first[count], last[count] = first[k], last[k]
            count += 1
    return first[:count].copy(), last[:count].copy()


@kernel
def _count_vertical(starts, ends, width, rising):
    """Count the pixels whose upper (rising) or lower neighbour is off."""
    area, held, j = 0, 0, 0
    for i in range(starts.size):
        area += ends[i] - starts[i]
        low, high = (starts[i] - width, ends[i] - width) if rising else (starts[i] + width, ends[i] + width)
        while j < starts.size and ends[j] <= low:
            j += 1
        k = j
        while k < starts.size and starts[k] < high:
            held += min(high, ends[k]) - max(low, starts[k])
            k += 1
    return area - held


@kernel
def _vertical(starts, ends, height, width, rising, count):
    """Column-major positions of the pixels that begin (rising) or end a column run, in order."""
    shift = -width if rising else width
    column = np.zeros(width + 1, np.int64)
    places = np.empty(count, np.int64)
    for step in range(2):  # first count by column, then put each in its place
        j = 0
        for i in range(starts.size):
            low, high = starts[i] + shift, ends[i] + shift
            while j < starts.size and ends[j] <= low:
                j += 1
            k, p = j, low
            while p < high:  # the gaps of the neighbouring row inside [low, high)
                stop = high if k >= starts.size else min(high, max(p, starts[k]))
                while p < stop:
                    x = (p - shift) % width
                    if step == 0:
                        column[x + 1] += 1
                    else:
                        places[column[x]] = x * height + (p - shift) // width + (0 if rising else 1)
                        column[x] += 1
                    p += 1
                if k < starts.size and p < high:
                    p = min(high, ends[k])
                k += 1
        if step == 0:
            for x in range(width):
                column[x + 1] += column[x]
    return places


@kernel
def parse_text(text, size, base, relative):
    """Runs of an RLE text `start length start length …` in ASCII bytes, with what is wrong and at which number.

    Blank is empty. With `relative`, only the first start has the base and each further one counts from the end of
    the run before it. Adjacent runs become one.
    """
    n = text.size
    starts, ends = np.empty(n // 4 + 1, np.int64), np.empty(n // 4 + 1, np.int64)
    count, p, number = 0, 0, 0
    start, last = np.int64(0), np.int64(0)
    while p < n:
        if number > 0:
            if text[p] != 32:
                return starts[:0], ends[:0], BAD_CHARACTER, p
            p += 1
        if p >= n or text[p] < 48 or text[p] > 57:
            return starts[:0], ends[:0], BAD_CHARACTER, min(p, n - 1)
        if text[p] == 48 and p + 1 < n and 48 <= text[p + 1] <= 57:
            return starts[:0], ends[:0], LEADING_ZERO, number
        value = np.int64(0)
        while p < n and 48 <= text[p] <= 57:
            if value > _LARGEST // 10 - 1:
                return starts[:0], ends[:0], TOO_LARGE, number
            value = 10 * value + np.int64(text[p]) - 48
            p += 1
        if number & 1 == 0:
            if relative and number > 0:
                start = last + value
            else:
                start = value - base
                if start < 0:
                    return starts[:0], ends[:0], BELOW_BASE, number
            if start < last:
                return starts[:0], ends[:0], NOT_SORTED, number
        else:
            if value == 0:
                return starts[:0], ends[:0], ZERO_LENGTH, number
            if start > size or value > size - start:
                return starts[:0], ends[:0], OUTSIDE, number
            if count > 0 and start == last:
                ends[count - 1] = start + value
            else:
                starts[count], ends[count] = start, start + value
                count += 1
            last = start + value
        number += 1
    if number & 1:
        return starts[:0], ends[:0], ODD_NUMBERS, number
    return starts[:count].copy(), ends[:count].copy(), OK, number


@kernel
def format_text(starts, ends, base, relative):
    """ASCII bytes of `start length start length …`; empty for no runs."""
    if starts.size == 0:
        return np.empty(0, np.uint8)
    widest = 1
    value = ends[-1] + base
    while value >= 10:
        value //= 10
        widest += 1
    out = np.empty(starts.size * 2 * (widest + 1), np.uint8)
    p, last = 0, np.int64(0)
    for k in range(starts.size):
        start = starts[k] - last if relative and k > 0 else starts[k] + base
        p = _put_number(out, p, start)
        p = _put_number(out, p, ends[k] - starts[k])
        last = ends[k]
    return out[: p - 1]  # no space behind the last number


@kernel
def _put_number(out, p, value):
    """Write the digits of `value` and a space at `p`; return the place behind them."""
    digits, rest = 1, value
    while rest >= 10:
        rest //= 10
        digits += 1
    rest = value
    for k in range(p + digits - 1, p - 1, -1):
        out[k] = 48 + rest % 10
        rest //= 10
    out[p + digits] = 32
    return p + digits + 1


@kernel
def counts_to_coco(counts):
    """COCO's compressed text of uncompressed counts: from the third on each is the difference to the one two
    before, in groups of five bits, sign-extended (pycocotools `rleToString`).
    """
    out = np.empty(counts.size * 13 + 1, np.uint8)
    p = 0
    for i in range(counts.size):
        value = counts[i] - (counts[i - 2] if i > 2 else 0)
        more = True
        while more:
            group = value & 31
            value >>= 5
            more = value != -1 if group & 16 else value != 0
            out[p] = (group | 32 if more else group) + 48
            p += 1
    return out[:p].copy()


@kernel
def coco_to_counts(text):
    """Uncompressed counts of COCO's compressed text; the last value tells whether the text was well formed."""
    counts = np.empty(text.size + 1, np.int64)
    m, p = 0, 0
    while p < text.size:
        value, shift, more = np.int64(0), 0, True
        while more:
            if p >= text.size or text[p] < 48 or text[p] > 111 or shift > 55:
                return counts[:0], False
            group = np.int64(text[p]) - 48
            value |= (group & 31) << shift
            more = group & 32 != 0
            p += 1
            shift += 5
            if not more and group & 16:
                value |= np.int64(-1) << shift
        if m > 2:
            value += counts[m - 2]
        counts[m] = value
        m += 1
    return counts[:m].copy(), True
