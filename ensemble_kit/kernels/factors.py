"""Line searches over the factor of one class (docs/concepts.md#rule-11-factors), on pixels whose winner can change.

A pixel's *contenders* are the classes that can win it for factors within a stated ratio of each other. Where there is
one, the pixel is decided and only counted. `lines.py` searches them; `reference.line_search` is the oracle of both.
"""

import numpy as np

from ensemble_kit.kernels.arguments import Contenders
from ensemble_kit.kernels.jit import inline, kernel

VOID = 65535
"""The truth of a pixel that does not count."""

_BLOCK = 256


@kernel
def gather(values, truth, room, decided, far, doubt):
    """Find the contenders of some pixels, and count the others.

    A pixel is kept where the second largest score is within the room's first ratio of the largest. Contenders are the
    classes within that ratio of the second: whichever factor is lowered, the next in line is among them.

    Parameters
    ----------
    values : int64 (C, n), F_c.
    truth : uint16 (n,), the class, their number where there is none, VOID.
    room : Room.
    decided : int64 (C + 1, C), pixels by the class of the truth and the winner; added to.
    far : int32 (ratios - 1, C, C, 2), added to: decided pixels by the ratio that lets class k win them, k, and the
        winner m: those of another truth than both, and those of truth k. `far[:, m, m, 0]` are those of m of another
        truth, once for all k, by the nearest of them. Pixels of truth m can only be lost, and are not counted.
    doubt : int32 (ratios - 1, C, C), added to: the same of pixels that are kept, of another truth than a contender m,
        and at `[:, k, k]` those of truth k.

    Returns
    -------
    Contenders
    """
    C, n = values.shape
    top, second, bar = np.full(n, -1, np.int64), np.full(n, -1, np.int64), np.empty(n, np.int64)
    least, near, others = np.empty(n, np.int64), np.zeros(n, np.int32), np.zeros(n, np.int32)
    for begin in range(0, n, _BLOCK):  # few enough to stay in the first caches
        stop = min(begin + _BLOCK, n)
        for c in range(C):
            for i in range(begin, stop):
                value = np.int64(values[c, i])
                second[i] = max(second[i], min(top[i], value))
                top[i] = max(top[i], value)
        for i in range(begin, stop):
            kept = second[i] >= reach(top[i], 0, room)
            bar[i] = reach(second[i], 0, room) if kept else max(top[i], room.least)
            least[i] = reach(top[i], room.shifts.size - 1, room)
        for c in range(C):
            for i in range(begin, stop):
                near[i] += values[c, i] >= bar[i]
                others[i] += values[c, i] >= least[i]
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
        m, kept[0] = 0, 0  # where all scores are 0 the first class wins
        for c in range(C):
            if values[c, i] >= bar[i]:
                kept[m] = c
                m += 1
        if m <= 1:
            decided[truth[i], kept[0]] += 1
        else:
            out.truth[at] = truth[i]
            for j in range(m):
                out.classes[own + j] = kept[j]
                out.values[own + j] = values[kept[j], i]
            own += m
            at += 1
            out.offsets[at] = own
        if others[i] > 1 and (m > 1 or truth[i] != kept[0]):
            _count_far(i, values, top[i], truth[i], room, kept, m, far, doubt)
    return out


@inline
def reach(value, k, room):
    """The least score within the k-th ratio of another."""
    return max(((value + (1 << room.shifts[k]) - 1) >> room.shifts[k]) - room.gaps[k], room.least)


@inline
def _count_far(i, values, top, truth, room, kept, several, far, doubt):
    """Count pixel `i` for the classes beyond the first ratio."""
    last, nearest, m = room.shifts.size - 1, room.shifts.size, kept[0]
    bar, least = reach(top, 0, room), reach(top, last, room)
    for k in range(values.shape[0]):
        value = np.int64(values[k, i])
        if value < least or value >= bar:
            continue
        ratio = 0
        while value < reach(top, ratio + 1, room):
            ratio += 1
        nearest = min(nearest, ratio)
        if several <= 1:
            far[ratio, k, m, np.int64(truth == k)] += truth != m
            continue
        doubt[ratio, k, k] += truth == k
        for j in range(several):
            doubt[ratio, k, kept[j]] += truth != kept[j] != k
    if several <= 1 and nearest < last:
        far[nearest, m, m, 0] += truth != m


@kernel
def index(contenders, sample_offsets, classes, room):
    """List each class's pixels: uint32 (entries,), by class, then sample; and int64 (C, samples + 1), where they begin.

    A class's pixels are those where it is within the room's first ratio of the largest score.

    Parameters
    ----------
    sample_offsets : int64 (samples + 1,), first pixel of each sample.
    room : Room.
    """
    samples = sample_offsets.size - 1
    begins = np.zeros((classes, samples + 1), np.int64)
    for s in range(samples):
        for i in range(sample_offsets[s], sample_offsets[s + 1]):
            bar = _near(i, contenders, room)
            for j in range(contenders.offsets[i], contenders.offsets[i + 1]):
                begins[contenders.classes[j], s + 1] += contenders.values[j] >= bar
    total = np.int64(0)
    for c in range(classes):
        begins[c, 0] = total
        for s in range(samples):
            begins[c, s + 1] += begins[c, s]
        total = begins[c, samples]
    pixels, at = np.empty(total, np.uint32), begins[:, 0].copy()
    for i in range(contenders.truth.size):
        bar = _near(i, contenders, room)
        for j in range(contenders.offsets[i], contenders.offsets[i + 1]):
            if contenders.values[j] >= bar:
                c = contenders.classes[j]
                pixels[at[c]] = i
                at[c] += 1
    return pixels, begins


@inline
def _near(i, contenders, room):
    """The least score of a pixel within the first ratio of the largest."""
    top = np.int64(0)
    for j in range(contenders.offsets[i], contenders.offsets[i + 1]):
        top = max(top, np.int64(contenders.values[j]))
    return reach(top, 0, room)


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
