"""Votes by pattern: how many pixels have each combination of members' labels, and expectation maximisation over them.

What EM makes of a pixel depends on its pattern alone, so a pass over a few patterns stands for one over all pixels. It
adds, multiplies and divides float64 in a fixed order: the same bits on every machine.
"""

import numpy as np

from ensemble_kit.kernels.jit import inline, kernel, routine
from ensemble_kit.kernels.runs import grown

_MIX = np.int64(-7046029254386353131)  # odd: 2^64 divided by the golden ratio
_SMALL, _LARGE = 2.0**-500, 2.0**500


@kernel
def patterns(positions, members, steps, first, size):
    """Cut an image where a member's label changes, and count the pixels of each combination of labels.

    Parameters
    ----------
    positions : int64 (n,), ascending, where labels change, from 0 to `size`.
    members, steps : int64 (n,), whose label changes there, and by how much; steps at one position add up.
    first : int64 (M,), each member's label before its first step.
    size : number of pixels, at least 1.

    Returns
    -------
    edges : int64 (k,), where each stretch of one pattern begins; which : int64 (k,), its pattern.
    labels : int16 (P, M), the patterns, in the order in which they first occur; pixels : int64 (P,), of each.

    Patterns are found by a sum of one odd factor for each member times its label, which a step changes by one product.
    """
    M, n = first.size, positions.size
    factors, state, total, factor = np.empty(M, np.int64), first.copy(), np.int64(0), np.int64(1)
    for m in range(M):
        factor *= _MIX
        factors[m] = factor
        total += state[m] * factor
    edges, which, k = np.empty(n + 1, np.int64), np.empty(n + 1, np.int64), 0
    slots = np.full(64, -1, np.int64)
    labels, sums, pixels, P = np.empty(32 * M, np.int16), np.empty(32, np.int64), np.empty(32, np.int64), 0
    i, p = 0, np.int64(0)
    while p < size:
        while i < n and positions[i] == p:
            state[members[i]] += steps[i]
            total += steps[i] * factors[members[i]]
            i += 1
        q = positions[i] if i < n else size
        slot = _slot(total, slots.size)
        found = slots[slot]
        while found >= 0 and not (sums[found] == total and _same(labels, found * M, state)):
            slot = (slot + 1) & (slots.size - 1)
            found = slots[slot]
        if found < 0:
            if pixels.size == P:
                labels, sums, pixels = grown(labels), grown(sums), grown(pixels)
                slots = _filled(sums, P, 2 * slots.size)
                slot = _free(total, slots)
            found = P
            slots[slot], sums[P], pixels[P] = P, total, 0
            for m in range(M):
                labels[P * M + m] = state[m]
            P += 1
        pixels[found] += q - p
        if k == 0 or which[k - 1] != found:
            edges[k], which[k] = p, found
            k += 1
        p = q
    return edges[:k].copy(), which[:k].copy(), labels[: P * M].copy().reshape(P, M), pixels[:P].copy()


@inline
def _slot(total, room):
    return (total ^ (total >> 29)) & (room - 1)


@inline
def _same(labels, at, state):
    same = True
    for m in range(state.size):
        same &= labels[at + m] == state[m]
    return same


@inline
def _free(total, slots):
    slot = _slot(total, slots.size)
    while slots[slot] >= 0:
        slot = (slot + 1) & (slots.size - 1)
    return slot


@routine
def _filled(sums, count, room):
    """Put the first `count` patterns into a table of so many slots, a power of two."""
    slots = np.full(room, -1, np.int64)
    for k in range(count):
        slots[_free(sums[k], slots)] = k
    return slots


@kernel
def expect(labels, theta, prior, out):
    """Put into `out`, float64 (P, L), how probable each true label is at each pattern; 0 where none is possible.

    Parameters
    ----------
    labels : int16 (P, M), 0 … L-1; a negative one counts as no vote.
    theta : float64 (M, L, L), how often a member says the first label where the second is true.
    prior : float64 (L,).
    """
    P, M, L = labels.shape[0], labels.shape[1], prior.size
    for k in range(P):
        for t in range(L):
            out[k, t] = prior[t]
        for m in range(M):
            said = labels[k, m]
            if said < 0:
                continue
            top = 0.0
            for t in range(L):
                out[k, t] *= theta[m, said, t]
                top = max(top, out[k, t])
            if 0.0 < top < _SMALL:  # a power of two: no bit is lost, however many members there are
                for t in range(L):
                    out[k, t] *= _LARGE
        total = 0.0
        for t in range(L):
            total += out[k, t]
        if total > 0.0:
            for t in range(L):
                out[k, t] /= total


@kernel
def maximise(labels, pixels, weights, theta):
    """Put into `theta`, float64 (M, L, L), what members say where each label is true; 0 for a label that never is.

    Parameters
    ----------
    labels, pixels : of each pattern, int16 (P, M) and int64 (P,).
    weights : float64 (P, L), how probable each true label is.
    """
    (P, M), L = labels.shape, weights.shape[1]
    theta.fill(0.0)
    for k in range(P):
        if pixels[k] == 0:
            continue
        for m in range(M):
            if labels[k, m] >= 0:
                for t in range(L):
                    theta[m, labels[k, m], t] += pixels[k] * weights[k, t]
    for m in range(M):
        for t in range(L):
            total = 0.0
            for said in range(L):
                total += theta[m, said, t]
            if total > 0.0:
                for said in range(L):
                    theta[m, said, t] /= total


@kernel
def estimate(labels, pixels, weights, prior, tolerance, iterations):
    """Maximise and expect in turn, until no entry of theta moves by more than `tolerance`.

    Parameters
    ----------
    weights : float64 (P, L), where it starts; it ends as what the last theta makes it.
    iterations : the most, at least 1.

    Returns
    -------
    theta : float64 (M, L, L); how many iterations were made; the largest change in the last one.
    """
    M, L = labels.shape[1], prior.size
    theta, last, change = np.zeros((M, L, L)), np.zeros((M, L, L)), np.inf
    for i in range(iterations):
        maximise(labels, pixels, weights, theta)
        expect(labels, theta, prior, weights)
        if i > 0:
            change = 0.0
            for m in range(M):
                for said in range(L):
                    for t in range(L):
                        change = max(change, abs(theta[m, said, t] - last[m, said, t]))
            if change <= tolerance:
                return theta, i + 1, change
        theta, last = last, theta
    return last, iterations, change
