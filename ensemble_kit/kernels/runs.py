"""Masks as sorted, disjoint, half-open intervals `[start, end)` of a flattened image; int64 positions."""

import numpy as np

from ensemble_kit.kernels.jit import inline, kernel
from ensemble_kit.kernels.words import AHEAD, address_of, bytes_on, fetch, item, load64, lowest, set_item, words_on

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


_LOOK = 256


@kernel
def _append_edges(mask, p, edges, n, on):
    """Append the positions from `p` on where the mask changes, until it ends or `edges` is full.

    Returns where it stopped, the number of edges, and the last pixel's state (0 or 1). 256 pixels a look that are all
    as the last one was are passed over: 1.01 x a pure read, against 1.06 with 64. (Eight pixels a look in Numba's own
    loop took twice a pure read.)
    """
    address, room = address_of(mask), edges.size - _LOOK - 1
    while p + _LOOK <= mask.size and n < room:
        for t in range(0, _LOOK, 128):
            fetch(address + p + t + AHEAD)
        changed = np.int64(0)
        for t in range(0, _LOOK, 64):
            changed |= bytes_on(address + p + t) ^ -on
        if changed != 0:
            for t in range(0, _LOOK, 64):
                word = bytes_on(address + p + t)
                change = word ^ ((word << 1) | on)
                on = (word >> 63) & 1
                while change != 0:
                    edges[n] = p + t + lowest(change)
                    n += 1
                    change &= change - 1
        p += _LOOK
    if p + _LOOK > mask.size and n < room:
        while p < mask.size:
            now = np.int64(mask[p] != 0)
            edges[n] = p
            n += now ^ on
            on = now
            p += 1
    return p, n, on


@inline
def split_edges(edges, n):
    """Starts and ends of alternating edges."""
    starts, ends = np.empty(n // 2, np.int64), np.empty(n // 2, np.int64)
    for k in range(n // 2):
        starts[k], ends[k] = edges[2 * k], edges[2 * k + 1]
    return starts, ends


@kernel
def grown(array):
    """Copy a one-dimensional array into one of twice its length."""
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
    """Count the positions that lie in both.

    By a branch: without one each step waits for the loads of the one before, 1.5 to 3 times as long.
    """
    total, i, j = np.int64(0), 0, 0
    if a_starts.size == 0 or b_starts.size == 0:
        return total
    a_start, a_end, b_start, b_end = a_starts[0], a_ends[0], b_starts[0], b_ends[0]
    while True:
        total += max(min(a_end, b_end) - max(a_start, b_start), 0)
        if a_end < b_end:
            i += 1
            if i == a_starts.size:
                return total
            a_start, a_end = a_starts[i], a_ends[i]
        else:
            j += 1
            if j == b_starts.size:
                return total
            b_start, b_end = b_starts[j], b_ends[j]


_BAND = 16384


@kernel
def locate(starts, ends, offsets, indices, out):
    """Put the addresses of a member's arrays into `out`: a kernel takes any number of members so."""
    out[0], out[1], out[2], out[3] = address_of(starts), address_of(ends), address_of(offsets), address_of(indices)


@kernel
def weighted_votes(members, votes, weights, quorum, ties, abstain):
    """Runs, for many votes, where the weights of the members that are on add up to what is needed.

    Parameters
    ----------
    members : int64 (members, 4), of each what `locate` gives of its starts, ends, offsets, and indices: vote v is on
        the member's mask `indices[v]`. The caller keeps the arrays alive.
    weights : int64 (members,), at least 0.
    quorum : what is needed, or 0 for the majority of the weights that count; `ties`, 0 or 1: whether half of them
        is one.
    abstain : whether a member with an empty mask does not count; where none counts the result is empty.

    Returns
    -------
    starts, ends : int64 (n,) of all votes; offsets : int64 (votes + 1,).

    Edges are scattered into a band of pixels that fits the cache and walked in order by its set bits, so that no
    comparison of one member's next edge with another's has to be predicted: a k-way sweep took 16 us for 5 members
    and 101 for 15, this 6 and 15.
    """
    change = np.zeros(_BAND, np.int64)
    bits = np.zeros(_BAND // 64, np.int64)
    address = address_of(bits)
    M = weights.size
    begun, ended, stop = np.empty(M, np.int64), np.empty(M, np.int64), np.empty(M, np.int64)  # as `_scatter` has them
    edges, n = np.empty(16384, np.int64), 0  # of some dozen masks: growing takes a fortieth of the time
    offsets = np.zeros(votes + 1, np.int64)
    for v in range(votes):
        room, counting = n, np.int64(0)
        for m in range(M):
            mask = members[m, 2] + 8 * load64(members[m, 3] + 8 * v)
            begun[m] = ended[m] = load64(mask)
            stop[m] = load64(mask + 8)
            room += 2 * (stop[m] - begun[m])
            if not abstain or begun[m] < stop[m]:
                counting += weights[m]
        while room >= edges.size:  # one more than are kept is written
            edges = grown(edges)
        need = max(quorum if quorum > 0 else (counting - ties) // 2 + 1, 1)
        total, on = np.int64(0), False
        while True:
            first = _LARGEST
            for m in range(M):
                if ended[m] < stop[m]:
                    edge = members[m, 1 if ended[m] < begun[m] else 0] + 8 * ended[m]
                    first = min(first, load64(edge))
            if first == _LARGEST:
                break
            for m in range(M):
                begun[m], ended[m] = _scatter(
                    members[m, 0], members[m, 1], begun[m], ended[m], stop[m], first, weights[m], change, bits
                )
            for t in range(_BAND // 4096):
                touched = words_on(address + 512 * t)
                while touched != 0:
                    k = 64 * t + lowest(touched)
                    touched &= touched - 1
                    word = item(bits, k)
                    set_item(bits, k, 0)
                    while word != 0:
                        p = 64 * k + lowest(word)
                        word &= word - 1
                        total += item(change, p)
                        set_item(change, p, 0)
                        now = total >= need
                        set_item(edges, n, first + p)
                        n += now != on
                        on = now
        offsets[v + 1] = n // 2
    starts, ends = split_edges(edges, n)
    return starts, ends, offsets


@inline
def _scatter(starts, ends, begun, ended, stop, first, weight, change, bits):
    """Add a member's edges inside the band to it, run by run; return which run's start and end come next."""
    if ended < begun and load64(ends + 8 * ended) - first < _BAND:  # it began before the band
        _add(load64(ends + 8 * ended) - first, -weight, change, bits)
        ended = begun
    while begun < stop and load64(starts + 8 * begun) - first < _BAND:
        _add(load64(starts + 8 * begun) - first, weight, change, bits)
        end = load64(ends + 8 * begun) - first
        begun += 1
        if end >= _BAND:
            return begun, ended
        _add(end, -weight, change, bits)
        ended = begun
    return begun, ended


@inline
def _add(p, weight, change, bits):
    set_item(change, p, item(change, p) + weight)
    set_item(bits, p >> 6, item(bits, p >> 6) | np.int64(1) << (p & 63))


@kernel
def transpose(starts, ends, height, width):
    """Runs of the transposed image: row-major of H x W becomes column-major.

    A column run begins where a row has a pixel that the row above lacks, so only the differences of neighbouring
    rows are walked, and a counting sort by column puts them in order. The cost is that of the edges, not the image.
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
    found, columns, n = np.empty(count, np.int64), np.empty(count, np.int64), 0
    j = 0
    for i in range(starts.size):
        low, high = starts[i] + shift, ends[i] + shift
        while j < starts.size and ends[j] <= low:
            j += 1
        k, p = j, low
        while p < high:  # the gaps of the neighbouring row inside [low, high)
            stop = high if k >= starts.size else min(high, max(p, starts[k]))
            while p < stop:
                y = (p - shift) // width
                x = p - shift - y * width
                column[x + 1] += 1
                found[n], columns[n] = x * height + y + (0 if rising else 1), x
                n += 1
                p += 1
            if k < starts.size and p < high:
                p = min(high, ends[k])
            k += 1
    for x in range(width):
        column[x + 1] += column[x]
    out = np.empty(count, np.int64)
    for k in range(n):  # each into its column, which keeps the order of rows
        x = columns[k]
        out[column[x]] = found[k]
        column[x] += 1
    return out
