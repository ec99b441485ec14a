"""Line searches over the factor of one class (docs/concepts.md#rule-11-factors), on pixels whose winner can change.

A pixel's *contenders* are the classes that can win it for factors within a stated ratio of each other. Where there is
one, the pixel is decided and only counted. `reference.line_search` is the oracle of the whole.
"""

import numpy as np

from ensemble_kit.kernels.arguments import Contenders
from ensemble_kit.kernels.counts import score_pair
from ensemble_kit.kernels.jit import inline, kernel

VOID = 65535
"""The truth of a pixel that does not count."""


@kernel
def gather(values, truth, room, decided, hit, miss, both):
    """Find the contenders of some pixels, and count the others.

    Parameters
    ----------
    values : int64 (C, n), F_c.
    truth : uint16 (n,), the class, their number where there is none, VOID.
    room : Room.
    decided : int64 (C + 1, C), pixels by the class of the truth and the winner; added to.
    hit, miss, both : int64 (C, C), added to, of pixels with a class that only ratios beyond the room let win, a far
        one: by far class k and contender m those of truth k, and those of another truth than m; by two contenders
        those of another truth than the second.

    Returns
    -------
    Contenders
    """
    C, n = values.shape
    top, bar, far_bar = np.zeros(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64)
    near, far = np.zeros(n, np.int32), np.zeros(n, np.int32)
    for c in range(C):
        for i in range(n):
            top[i] = max(top[i], values[c, i])
    for i in range(n):
        bar[i] = max(((top[i] + (1 << room.shift) - 1) >> room.shift) - room.gap, room.least)
        far_bar[i] = max(((top[i] + (1 << room.far_shift) - 1) >> room.far_shift) - room.far_gap, room.least)
    for c in range(C):
        for i in range(n):
            near[i] += values[c, i] >= bar[i]
            far[i] += values[c, i] >= far_bar[i]
    pixels, pairs = 0, 0
    for i in range(n):
        if near[i] > 1 and truth[i] != VOID:
            pixels += 1
            pairs += near[i]
    out = Contenders(
        np.empty(pixels, np.uint16), np.zeros(pixels + 1, np.int64), np.empty(pairs, np.uint16),
        np.empty(pairs, np.uint32),
    )  # fmt: skip
    kept, at, own = np.empty(C, np.int64), 0, 0
    for i in range(n):
        if truth[i] == VOID:
            continue
        if near[i] <= 1 and far[i] <= 1:
            c = 0
            while c < C - 1 and values[c, i] < top[i]:
                c += 1
            decided[truth[i], c] += 1
            continue
        m = 0
        for c in range(C):
            if values[c, i] >= bar[i]:
                kept[m] = c
                m += 1
        if m == 1:
            decided[truth[i], kept[0]] += 1
        else:
            out.truth[at] = truth[i]
            for j in range(m):
                out.classes[own + j] = kept[j]
                out.values[own + j] = values[kept[j], i]
            own += m
            at += 1
            out.offsets[at] = own
        if far[i] > near[i]:
            _count_far(values[:, i], truth[i], bar[i], far_bar[i], kept[:m], hit, miss, both)
    return out


@inline
def _count_far(values, truth, bar, far_bar, kept, hit, miss, both):
    """Count one pixel that has far classes."""
    for k in range(values.size):
        if far_bar <= values[k] < bar:
            for m in kept:
                hit[k, m] += truth == k
                miss[k, m] += truth != m
    for m in kept:
        for other in kept:
            both[m, other] += truth != other


@kernel
def index(contenders, sample_offsets, classes):
    """List each class's pixels: uint32 (entries,), by class, then sample; and int64 (C, samples + 1), where they begin.

    Parameters
    ----------
    sample_offsets : int64 (samples + 1,), first pixel of each sample.
    """
    samples = sample_offsets.size - 1
    begins = np.zeros((classes, samples + 1), np.int64)
    for s in range(samples):
        for j in range(contenders.offsets[sample_offsets[s]], contenders.offsets[sample_offsets[s + 1]]):
            begins[contenders.classes[j], s + 1] += 1
    total = np.int64(0)
    for c in range(classes):
        begins[c, 0] = total
        for s in range(samples):
            begins[c, s + 1] += begins[c, s]
        total = begins[c, samples]
    pixels, at = np.empty(contenders.classes.size, np.uint32), begins[:, 0].copy()
    for i in range(contenders.truth.size):
        for j in range(contenders.offsets[i], contenders.offsets[i + 1]):
            c = contenders.classes[j]
            pixels[at[c]] = i
            at[c] += 1
    return pixels, begins


@kernel
def count(contenders, sample_offsets, samples, rows, scale, tp, pred):
    """Add the undecided pixels of some samples to hits and pixels by winner, int64 (rows, C).

    Parameters
    ----------
    samples, rows : int64, numbers of the samples, and the row that each is counted in.
    """
    truth, offsets, classes, values = contenders
    for n in range(samples.size):
        row = rows[n]
        for i in range(sample_offsets[samples[n]], sample_offsets[samples[n] + 1]):
            winner, best = 0, np.int64(-0x7FFFFFFFFFFFFFFF)
            for j in range(offsets[i], offsets[i + 1]):
                value = np.int64(values[j]) * scale.times[classes[j]] + scale.plus[classes[j]]
                if value > best:
                    winner, best = classes[j], value
            pred[row, winner] += 1
            tp[row, winner] += truth[i] == winner


@kernel
def line(c, contenders, pixels, begins, samples, rows, scale, at, states, events):
    """Find the key from which class c wins each of its pixels, with the other factors fixed.

    Parameters
    ----------
    pixels, begins : of `index`.
    samples, rows : as for `count`.
    at : Line.
    states : int64 (4, 2, rows, C), hits and pixels by winner at the present factor; written: at `bottom`, at `low`,
        at `high`, and at `top`, the last two without the events.
    events : uint64, room for all; written: `key << 32 | (row · C + former winner) << 2 | kind` of the keys in
        `low + 1 … high`, of kind 1 where the truth is c, 2 where it is the former winner's, 0 otherwise.

    Returns
    -------
    How many events.
    """
    truth, offsets, classes, values = contenders
    C, n = states.shape[3], 0
    tally = np.zeros((4, states.shape[2], C, 3), np.int64)  # by stretch, row, owner and kind; the last: owned now
    for s in range(samples.size):
        row = rows[s]
        for e in range(begins[c, samples[s]], begins[c, samples[s] + 1]):
            i = pixels[e]
            own, owner, best = np.int64(0), 0, np.int64(-0x7FFFFFFFFFFFFFFF)
            for j in range(offsets[i], offsets[i + 1]):
                k = classes[j]
                if k == c:
                    own = np.int64(values[j])
                    continue
                value = np.int64(values[j]) * scale.times[k] + scale.plus[k]
                if value > best:
                    owner, best = k, value
            key = _key(own, best + (owner < c), scale.adds, at.top)
            kind = 1 if truth[i] == c else 2 if truth[i] == owner else 0
            if key <= at.now:
                tally[3, row, owner, kind] += 1
            if at.low < key <= at.high:
                events[n] = np.uint64(key) << np.uint64(32) | np.uint64((row * C + owner) << 2 | kind)
                n += 1
            elif key <= at.top:
                tally[0 if key <= at.bottom else 1 if key <= at.low else 2, row, owner, kind] += 1
    for row in range(states.shape[2]):
        for owner in range(C):
            _move(states[:, :, row], c, owner, tally[3, row, owner], -1, 0)
            _move(states[:, :, row], c, owner, tally[0, row, owner], 1, 0)
            _move(states[:, :, row], c, owner, tally[1, row, owner], 1, 1)
            _move(states[:, :, row], c, owner, tally[2, row, owner], 1, 3)
    return n


@inline
def _key(own, need, adds, top):
    """The least key at which `own` reaches `need`; beyond `top`, any above it."""
    if adds:
        return min(max(need - own + (1 << 31), 0), np.int64(top + 1))
    about = np.float64(need) / np.float64(own)  # off by less than 1: `need` has up to 55 bits
    if about > top + 1:
        return np.int64(top + 1)
    key = np.int64(about)
    if key * own < need:
        key += 1
    elif (key - 1) * own >= need:
        key -= 1
    return key


@inline
def _move(states, c, owner, pixels, step, first):
    """Move pixels, counted by kind, from their owner to class c, or back, in the states from `first` on."""
    for k in range(first, 4):
        states[k, 1, c] += step * pixels.sum()
        states[k, 1, owner] -= step * pixels.sum()
        states[k, 0, c] += step * pixels[1]
        states[k, 0, owner] -= step * pixels[2]


@kernel
def scan(c, events, tp, pred, truth, silent, score, shift, keys, sums, counted, same):
    """Score every stretch of keys between sorted events; return how many there are.

    Scores are summed as integers, `floor(score · 2^shift + 0.5)`, so the order of samples and classes makes no
    difference, and no error grows.

    Parameters
    ----------
    tp, pred : int64 (rows, C), the state before the first event; written: behind the last.
    truth : int64 (rows, C).
    silent : class that is not scored, or -1.
    score : Score.
    keys, sums, counted : int64 (events + 1,); written: the key with which a stretch begins (the first is left),
        the sum of scores and how many count.
    same : bool (events + 1,); written: whether no score differs from the stretch before.
    """
    C = truth.shape[1]
    values, summed = np.empty(truth.size, np.float64), np.empty(truth.size, np.int64)
    counts = np.empty(truth.size, np.int64)
    unit, total, number = np.float64(1 << shift), np.int64(0), np.int64(0)
    tp, pred, truth = tp.reshape(-1), pred.reshape(-1), truth.reshape(-1)
    for k in range(truth.size):
        values[k], counts[k] = (0.0, 0) if k % C == silent else score_pair(pred[k], tp[k], truth[k], score)
        summed[k] = np.int64(np.floor(values[k] * unit + 0.5))
        total += summed[k]
        number += counts[k]
    n, is_same = 0, False
    for e in range(events.size):
        key, payload = np.int64(events[e] >> np.uint64(32)), np.int64(events[e] & np.uint64(0xFFFFFFFF))
        kind, cell = payload & 3, payload >> 2
        if e == 0 or key != np.int64(events[e - 1] >> np.uint64(32)):
            sums[n], counted[n], same[n] = total, number, is_same
            n += 1
            keys[n], is_same = key, True
        mine = cell // C * C + c
        pred[mine] += 1
        pred[cell] -= 1
        tp[mine] += kind == 1
        tp[cell] -= kind == 2
        for changed in (mine, cell):
            if changed % C == silent:
                continue
            value, count_now = score_pair(pred[changed], tp[changed], truth[changed], score)
            if value != values[changed] or count_now != counts[changed]:
                is_same = False
                values[changed] = value
                number += count_now - counts[changed]
                counts[changed] = count_now
                fixed = np.int64(np.floor(value * unit + 0.5))
                total += fixed - summed[changed]
                summed[changed] = fixed
    sums[n], counted[n], same[n] = total, number, is_same
    return n + 1


@kernel
def replay(c, events, tp, pred):
    """Apply events to a state, int64 (rows, C)."""
    C = tp.shape[1]
    for event in events:
        cell = np.int64(event & np.uint64(0xFFFFFFFF))
        kind, row, owner = cell & 3, (cell >> 2) // C, (cell >> 2) % C
        pred[row, c] += 1
        pred[row, owner] -= 1
        tp[row, c] += kind == 1
        tp[row, owner] -= kind == 2
