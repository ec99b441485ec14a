"""One line: the best factor of a class with the others fixed, among all that there are.

The arithmetic: docs/concepts.md#rule-11-factors.

Keys, which are factors or their offsets, are cut into bins. One pass over the class's pixels counts them by bin; the
counts give the objective at the start of each bin exactly, and what it can be inside at best. Only bins that can hold
the maximum are looked at event by event, a few per cent of all (sorting and scoring every event took two thirds of a
search).
"""

import numpy as np

from ensemble_kit.kernels.counts import score_pair
from ensemble_kit.kernels.jit import inline, kernel


@kernel
def count_bins(c, contenders, pixels, begins, samples, rows, scale, bins, now, counts, owned, events):
    """Find the key from which class c wins each of its pixels, with the other factors fixed, and count them by bin.

    Parameters
    ----------
    pixels, begins : of `factors.index`.
    samples, rows : numbers of the samples, and the row that each is counted in.
    bins : Bins; bin b has the keys above `starts[b]`, up to `starts[b + 1]`.
    now : key of the present factor.
    counts : int32 (rows, 1 + bins, C, 3), added to: pixels by former winner and kind, the first those of keys up to
        `starts[0]`. The kind is 1 where the truth is c, 2 where it is the former winner's, 0 otherwise.
    owned : int64 (rows, C, 3), added to: the same of those that c has now.
    events : uint64, room for all; written: `key << 32 | (row · C + former winner) << 2 | kind` of the keys in bins.

    Returns
    -------
    How many events.
    """
    truth, offsets, classes, values = contenders
    (starts, table, shift), (times, plus, adds) = bins, scale  # out of the loops: taking one is an atomic operation
    mine = np.uint16(c)
    C, n, bottom, top, lowest = counts.shape[2], 0, starts[0], starts[starts.size - 1], np.int64(-0x7FFFFFFFFFFFFFFF)
    for s in range(samples.size):
        row = rows[s]
        for e in range(begins[c, samples[s]], begins[c, samples[s] + 1]):
            i = pixels[e]
            own, owner, best = np.int64(0), np.int64(0), lowest
            for j in range(offsets[i], offsets[i + 1]):
                k, value = classes[j], np.int64(values[j])
                if k == mine:
                    own = value
                    continue
                value = value * times[k] + plus[k]
                if value > best:
                    owner, best = np.int64(k), value
            key = _key(own, best + (owner < c), adds, top)
            kind = 1 if truth[i] == c else 2 if truth[i] == owner else 0
            owned[row, owner, kind] += key <= now
            if key <= bottom:
                counts[row, 0, owner, kind] += 1
            elif key <= top:
                b = table[(key - bottom) >> shift]
                while key > starts[b + 1]:
                    b += 1
                counts[row, 1 + b, owner, kind] += 1
                events[n] = np.uint64(key) << np.uint64(32) | np.uint64((row * C + owner) << 2 | kind)
                n += 1
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


@kernel
def bound(c, counts, tp, pred, truth, silent, score, outside, values, limits):
    """Score the start of each bin, and bound the objective inside, where each pair is taken at its best.

    Parameters
    ----------
    counts : of `count_bins`.
    tp, pred : int64 (rows, C), hits and pixels by winner while c wins none of its pixels.
    truth : int64 (rows, C).
    silent : class that is not scored, or -1.
    score : Score.
    outside : Outside.
    values, limits : float64 (bins,), written.
    """
    rows, B, C = counts.shape[0], counts.shape[1] - 1, counts.shape[2]
    starts, number, tops, pairs = np.zeros(B), np.zeros(B, np.int64), np.zeros(B), 0
    may, most, taken, doubt = outside.may, outside.most, outside.taken, outside.doubt
    more_hits, more_lost = outside.hits, outside.lost
    hits, all_gained = np.zeros(B + 1, np.int64), np.zeros(B + 1, np.int64)
    for r in range(rows):
        hits[:], all_gained[:] = 0, 0
        for b in range(B + 1):
            for k in range(C):
                hits[b] += counts[r, b, k, 1]
                all_gained[b] += counts[r, b, k, 0] + counts[r, b, k, 1] + counts[r, b, k, 2]
        for k in range(C):
            if k == silent:
                continue
            t, p, area = tp[r, k], pred[r, k], truth[r, k]
            counted = area > 0 or not score.skip
            pairs += counted
            for b in range(-1, B):
                right, wrong, gained, lost = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
                if k == c:
                    right, wrong = hits[b + 1], all_gained[b + 1] - hits[b + 1]
                    gained = right
                else:
                    right = -np.int64(counts[r, b + 1, k, 2])
                    wrong = -np.int64(counts[r, b + 1, k, 0] + counts[r, b + 1, k, 1])
                    lost = -wrong
                if b >= 0:
                    value, one = score_pair(p, t, area, score)
                    starts[b] += value
                    number[b] += one
                    if b < outside.first:
                        gained += more_hits[r, may[b, k], k]
                        lost += more_lost[r, most[b], k]
                    elif b >= outside.stop and k == c:
                        gained += doubt[r, most[b], k]
                        for m in range(C):
                            gained += taken[r, may[b, m], m, 1]
                    elif b >= outside.stop:
                        lost += taken[r, may[b, k], k, 0] + taken[r, may[b, k], k, 1] + doubt[r, most[b], k]
                    if counted:
                        stays = gained + lost == 0 and (k != c or p + area > 0)
                        tops[b] += value if stays else _best(t, p, area, gained, lost, score)
                t += right
                p += right + wrong
    rest = score.eps / (1 + score.eps)  # what a skipped pair that becomes a mask without truth is worth, at most
    for b in range(B):
        values[b] = starts[b] / number[b] if number[b] else 1.0
        limits[b] = tops[b] / pairs if pairs else 1.0
        if score.skip:
            limits[b] = max(limits[b], rest)


@inline
def _best(tp, pred, truth, gained, lost, score):
    """The best score of a pair that gains some hits, and loses some pixels of another truth."""
    gained, lost = min(gained, truth - tp), min(lost, pred - tp)
    pred += gained - lost
    if truth == 0:
        best = score.eps / (max(pred, 1) + score.eps)
        return max(best, score.empty) if pred == 0 else best
    return score_pair(pred, tp + gained, truth, score)[0]


@kernel
def choose(events, first, stop, out):
    """Copy the events of keys above `first`, up to `stop`; return how many."""
    low, high, n = np.uint64(first + 1) << np.uint64(32), np.uint64(stop + 1) << np.uint64(32), 0
    for event in events:
        if low <= event < high:
            out[n] = event
            n += 1
    return n


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
