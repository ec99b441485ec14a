"""Masks as sorted, disjoint, half-open intervals `[start, end)` of a flattened plane; int64 positions."""

import numpy as np

from ensemble_kit.kernels.jit import kernel, part
from ensemble_kit.kernels.words import AHEAD, address_of, bytes_on, fetch, load64, lowest, store8, store32, words_on

# What is wrong with an RLE text, as `parse_text` reports it.
OK, BAD_CHARACTER, ODD_NUMBERS, LEADING_ZERO, ZERO_LENGTH, NOT_SORTED, OUTSIDE, BELOW_BASE, TOO_LARGE = range(9)

_LARGEST = 1 << 61  # a sum of two such positions stays inside int64


@kernel
def encode_bytes(mask):
    """Runs of a flat mask of bytes that are 0 or not."""
    edges, n, on, p = np.empty(1024, np.int64), 0, np.int64(0), 0
    while True:
        p, n, on = _append_edges(mask, p, edges, n, on)
        if p >= mask.size:
            break
        edges = grown(edges)
    if on:
        edges[n] = mask.size
        n += 1
    return split_edges(edges, n)


@kernel
def _append_edges(mask, p, edges, n, on):
    """Append the places from `p` on where the mask changes, until it ends or `edges` is full: 64 pixels a look.

    Returns where it stopped, the number of edges, and the last pixel's state (0 or 1). (Eight pixels a look in
    Numba's own loop took twice a pure read.)
    """
    place, room = address_of(mask), edges.size - 65
    while p + 64 <= mask.size and n < room:
        fetch(place + p + AHEAD)
        word = bytes_on(place + p)
        change = word ^ ((word << 1) | on)
        on = (word >> 63) & 1
        while change != 0:
            edges[n] = p + lowest(change)
            n += 1
            change &= change - 1
        p += 64
    if p + 64 > mask.size and n < room:
        while p < mask.size:
            now = np.int64(mask[p] != 0)
            edges[n] = p
            n += now ^ on
            on = now
            p += 1
    return p, n, on


@part
def split_edges(edges, n):
    """Starts and ends of alternating edges."""
    starts, ends = np.empty(n // 2, np.int64), np.empty(n // 2, np.int64)
    for k in range(n // 2):
        starts[k], ends[k] = edges[2 * k], edges[2 * k + 1]
    return starts, ends


@kernel
def grown(array):
    """The array with twice the room."""
    out = np.empty(2 * array.size, array.dtype)
    for k in range(array.size):  # a slice on the left drags in the formatting of its error: 1.7 s of compilation
        out[k] = array[k]
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
def overlaps(a_starts, a_ends, a_offsets, b_starts, b_ends, b_offsets, out):
    """Count, for many pairs, the positions that lie in both: mask k of a is `a_starts[a_offsets[k]:a_offsets[k+1]]`.

    One call for all pairs: alone, a call from Python costs more than the count.
    """
    for k in range(out.size):
        total, i, j = np.int64(0), a_offsets[k], b_offsets[k]
        i_end, j_end = a_offsets[k + 1], b_offsets[k + 1]
        while i < i_end and j < j_end:
            both = min(a_ends[i], b_ends[j]) - max(a_starts[i], b_starts[j])
            total += max(both, 0)
            first = a_ends[i] < b_ends[j]  # no branch: which ends first is as good as random
            i += first
            j += not first
        out[k] = total


_BAND = 16384


@kernel
def weighted_votes(starts, ends, offsets, weights, needs):
    """Runs, for many votes, where the weights of the members that are on add up to at least the vote's need (>= 1).

    Parameters
    ----------
    starts, ends : int64 (n,), runs of all members of all votes. offsets : int64 (votes * members + 1,), where those
        of vote v, member m begin, at v * members + m.
    weights : int64 (votes, members), at least 0. needs : int64 (votes,).

    Returns
    -------
    starts, ends : int64 (n,) of all votes; offsets : int64 (votes + 1,).

    Edges are scattered into a band of pixels that fits the cache and walked in order by its set bits, so that no
    comparison of one member's next edge with another's has to be predicted: a k-way sweep took 16 us for 5 members
    and 101 for 15, this 6 and 15.
    """
    votes, members = weights.shape
    change = np.zeros(_BAND, np.int64)
    bits = np.zeros(_BAND // 64, np.int64)
    place = address_of(bits)
    cursor = np.empty((2, members), np.int64)
    edges, n = np.empty(2 * starts.size + 2, np.int64), 0
    out_offsets = np.zeros(votes + 1, np.int64)
    for v in range(votes):
        for m in range(members):
            cursor[0, m] = cursor[1, m] = offsets[v * members + m]
        total, on, need = np.int64(0), False, needs[v]
        while True:
            first = _LARGEST
            for m in range(members):
                stop = offsets[v * members + m + 1]
                if cursor[0, m] < stop:
                    first = min(first, starts[cursor[0, m]])
                if cursor[1, m] < stop:
                    first = min(first, ends[cursor[1, m]])
            if first == _LARGEST:
                break
            for m in range(members):
                stop = offsets[v * members + m + 1]
                cursor[0, m] = _scatter(starts, cursor[0, m], stop, first, weights[v, m], change, bits)
                cursor[1, m] = _scatter(ends, cursor[1, m], stop, first, -weights[v, m], change, bits)
            for t in range(_BAND // 4096):
                touched = words_on(place + 512 * t)
                while touched != 0:
                    k = 64 * t + lowest(touched)
                    touched &= touched - 1
                    word = bits[k]
                    bits[k] = 0
                    while word != 0:
                        p = 64 * k + lowest(word)
                        word &= word - 1
                        total += change[p]
                        change[p] = 0
                        now = total >= need
                        edges[n] = first + p
                        n += now != on
                        on = now
        out_offsets[v + 1] = n // 2
    starts, ends = split_edges(edges, n)
    return starts, ends, out_offsets


@part
def _scatter(edges, k, stop, first, weight, change, bits):
    """Add a member's edges inside the band to it; return the first edge behind."""
    while k < stop and edges[k] - first < _BAND:
        p = edges[k] - first
        change[p] += weight
        bits[p >> 6] |= np.int64(1) << (p & 63)
        k += 1
    return k


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
    start, last, place, value = np.int64(0), np.int64(0), address_of(text), np.int64(0)
    while p < n:
        if number > 0:
            if text[p] != 32:
                return starts[:0], ends[:0], BAD_CHARACTER, p
            p += 1
        if p >= n or text[p] < 48 or text[p] > 57:
            return starts[:0], ends[:0], BAD_CHARACTER, min(p, n - 1)
        if text[p] == 48 and p + 1 < n and 48 <= text[p + 1] <= 57:
            return starts[:0], ends[:0], LEADING_ZERO, number
        value, digits = _short_number(place + p) if p + 8 <= n else (np.int64(0), 0)
        p += digits
        while digits == 0 and p < n and 48 <= text[p] <= 57:
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


@part
def _short_number(place):
    """Value and digits of a number of at most seven digits in the eight bytes at `place`; 0 digits if it is longer.

    All bytes at once: digit by digit, the end of each number is a branch that cannot be foreseen.
    """
    word = load64(place) ^ 0x3030303030303030  # a digit becomes its value, anything else at least 10
    foreign = ((word + 0x7676767676767676) | word) & -0x7F7F7F7F7F7F7F80
    if foreign == 0:
        return np.int64(0), np.int64(0)
    digits = lowest(foreign) >> 3
    word <<= 64 - 8 * digits  # the last digit into the highest byte, zeros for those that are not there
    word = 10 * word + ((word >> 8) & 0x00FFFFFFFFFFFFFF)
    pairs = 0x000000FF000000FF
    value = (word & pairs) * 0x000F424000000064 + ((word >> 16) & pairs) * 0x0000271000000001
    return (value >> 32) & 0xFFFFFFFF, digits


@kernel
def format_text(starts, ends, base, relative):
    """ASCII bytes of `start length start length …`; empty for no runs."""
    offsets = np.empty(2, np.int64)
    offsets[0], offsets[1] = 0, starts.size
    return format_texts(starts, ends, offsets, base, relative)[0]


@kernel
def format_texts(starts, ends, offsets, base, relative):
    """ASCII bytes of `start length start length …` of many masks, and int64 offsets of where each begins.

    Mask k is `starts[offsets[k]:offsets[k+1]]`.
    """
    masks = offsets.size - 1
    widest, largest = 1, base
    for k in range(masks):
        if offsets[k] < offsets[k + 1]:
            largest = max(largest, ends[offsets[k + 1] - 1] + base)
    while largest >= 10:
        largest //= 10
        widest += 1
    out = np.empty(starts.size * 2 * (widest + 1) + 8, np.uint8)  # 8: digits are stored by fours
    cuts = np.empty(masks + 1, np.int64)
    place = address_of(out)
    first = place
    for k in range(masks):
        cuts[k] = place - first
        last = -np.int64(base)
        for i in range(offsets[k], offsets[k + 1]):
            place = _put_number(place, starts[i] - last if relative or i == offsets[k] else starts[i] + base)
            place = _put_number(place, ends[i] - starts[i])
            last = ends[i]
        if offsets[k] < offsets[k + 1]:
            place -= 1  # no space behind the last number
    cuts[masks] = place - first
    return out[: cuts[masks]], cuts


def _four_digits():
    """Every number below 10,000 as four ASCII bytes in one uint32: padded with zeros, and cut to its digits."""
    value = np.arange(10000)
    digits = np.stack([value // 1000, value // 100 % 10, value // 10 % 10, value % 10], axis=1) + 48
    padded = digits.astype(np.uint8).view("<u4").reshape(-1)
    length = 1 + (value >= 10) + (value >= 100) + (value >= 1000)
    return padded, (padded >> (32 - 8 * length)).astype(np.uint32), length.astype(np.uint8)


_PADDED, _CUT, _LENGTH = _four_digits()


@part
def _put_number(place, value):
    """Write the digits of `value` and a space at an address; return the address behind them."""
    if value < 10000:
        store32(place, _CUT[value])
        place += _LENGTH[value]
    elif value < 100000000:
        high = value // 10000
        store32(place, _CUT[high])
        place += _LENGTH[high]
        store32(place, _PADDED[value - 10000 * high])
        place += 4
    else:
        digits, rest = 1, value
        while rest >= 10:
            rest //= 10
            digits += 1
        for k in range(digits):
            store8(place + digits - 1 - k, 48 + value % 10)
            value //= 10
        place += digits
    store8(place, 32)
    return place + 1


@kernel
def coco_counts(starts, ends, size):
    """Lengths of off, on, off, … from the first position, as COCO has them."""
    n = 2 * starts.size
    counts = np.empty(n + 1, np.int64)
    last = np.int64(0)
    for k in range(starts.size):
        counts[2 * k], counts[2 * k + 1] = starts[k] - last, ends[k] - starts[k]
        last = ends[k]
    counts[n] = size - last
    return counts if last < size else counts[:n].copy()


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
