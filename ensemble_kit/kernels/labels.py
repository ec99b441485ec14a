"""Label maps, one class a pixel: from values to runs of every class, and from runs to values."""

# mypy: allow-untyped-defs, allow-untyped-calls

import numpy as np

from ensemble_kit.kernels.jit import kernel
from ensemble_kit.kernels.runs import grown
from ensemble_kit.kernels.words import changes, lowest

_LOOK = 256


@kernel
def stretches(labels):
    """Where a flat label map, uint8 or uint16, takes another value than the pixel before; the first pixel is one.

    256 pixels a look: where all are as the one before, nothing else is done.
    """
    edges, n, p = np.empty(1024, np.int64), 0, np.int64(1)
    if labels.size > 0:
        edges[0], n = 0, 1
    while p < labels.size:
        if n + _LOOK > edges.size:
            edges = grown(edges)
        if p + _LOOK <= labels.size:
            a, b = changes(labels, p), changes(labels, p + 64)
            c, d = changes(labels, p + 128), changes(labels, p + 192)
            if a | b | c | d != 0:
                for t in range(4):
                    word = a if t == 0 else b if t == 1 else c if t == 2 else d
                    while word != 0:
                        edges[n] = p + 64 * t + lowest(word)
                        n += 1
                        word &= word - 1
            p += _LOOK
        else:
            if labels[p] != labels[p - 1]:
                edges[n] = p
                n += 1
            p += 1
    return edges[:n].copy()


@kernel
def runs_of(edges, owners, size, classes):
    """Runs of every class of a label map of `size` pixels, in one pass: starts, ends, and offsets (classes + 1,).

    Parameters
    ----------
    edges : where each stretch begins.
    owners : int64 (n,), the class of each stretch; a negative one is none. Neighbours of one class are one run.
    """
    offsets = np.zeros(classes + 1, np.int64)
    last = np.int64(-1)
    for owner in owners:
        if owner >= 0 and owner != last:
            offsets[owner + 1] += 1
        last = owner
    for k in range(classes):
        offsets[k + 1] += offsets[k]
    cursor = offsets.copy()
    starts, ends = np.empty(offsets[classes], np.int64), np.empty(offsets[classes], np.int64)
    last = np.int64(-1)
    for i in range(edges.size):
        owner = owners[i]
        if owner >= 0:
            end = edges[i + 1] if i + 1 < edges.size else size
            if owner != last:
                starts[cursor[owner]] = edges[i]
                cursor[owner] += 1
            ends[cursor[owner] - 1] = end
        last = owner
    return starts, ends, offsets


@kernel
def paint(starts, ends, first, stop, values, begin, out):
    """Draw the pixels from position `begin` on of masks into a flat piece of a label map, later over earlier ones.

    Parameters
    ----------
    first, stop : int64 (masks,), where the runs of each begin and end in `starts` and `ends`.
    values : (masks,), of the map's type.
    """
    for k in range(first.size):
        value, low, high = values[k], first[k], stop[k]
        while low < high:  # the first run that ends behind `begin`
            middle = (low + high) // 2
            if ends[middle] <= begin:
                low = middle + 1
            else:
                high = middle
        for i in range(low, stop[k]):
            if starts[i] >= begin + out.size:
                break
            for p in range(max(starts[i] - begin, 0), min(ends[i] - begin, out.size)):
                out[p] = value


@kernel
def rows_of_colours(pixels, colours, out):
    """Which colour each pixel has, into `out`; `colours.size` where none.

    Parameters
    ----------
    pixels : uint8 (n, 3); out : uint16 (n,).
    colours : int64 (m,), sorted, red * 65536 + green * 256 + blue.
    """
    last, row, high = np.int64(-1), 0, 0
    for p in range(out.size):
        colour = (np.int64(pixels[p, 0]) << 16) | (np.int64(pixels[p, 1]) << 8) | np.int64(pixels[p, 2])
        if colour != last:
            row, high = 0, colours.size
            while row < high:
                middle = (row + high) // 2
                if colours[middle] < colour:
                    row = middle + 1
                else:
                    high = middle
            if row < colours.size and colours[row] != colour:
                row = colours.size
            last = colour
        out[p] = row
