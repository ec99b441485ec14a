"""Confusion of two label maps that are kept as runs, in one sweep over their edges."""

from ensemble_kit.kernels.jit import inline, kernel


@kernel
def confusion(a_starts, a_ends, a_labels, b_starts, b_ends, b_labels, void_starts, void_ends, size, out):
    """Add the pixels of one sample to `out` by their labels: rows are those of b (the truth), columns those of a.

    Parameters
    ----------
    a_starts, a_ends, a_labels, b_starts, b_ends, b_labels : int64, runs of all classes of one side, sorted and
        disjoint, and the label of each, 0 … C-1; a pixel in no run has the label C.
    void_starts, void_ends : int64, runs of the pixels that do not count.
    size : number of pixels.
    out : int64 (C + 1, C + 1).

    The cost is that of the runs, whatever the number of classes.
    """
    none, p, i, j, v = out.shape[0] - 1, 0, 0, 0, 0
    while p < size:
        i, j, v = _behind(a_ends, i, p), _behind(b_ends, j, p), _behind(void_ends, v, p)
        q, a, b = size, none, none
        if i < a_starts.size:
            on = a_starts[i] <= p
            q, a = min(q, a_ends[i] if on else a_starts[i]), a_labels[i] if on else none
        if j < b_starts.size:
            on = b_starts[j] <= p
            q, b = min(q, b_ends[j] if on else b_starts[j]), b_labels[j] if on else none
        if v < void_starts.size and void_starts[v] <= p:
            p = void_ends[v]
            continue
        if v < void_starts.size:
            q = min(q, void_starts[v])
        out[b, a] += q - p
        p = q


@inline
def _behind(ends, k, p):
    """Return the first run from `k` on that ends behind `p`."""
    while k < ends.size and ends[k] <= p:
        k += 1
    return k
