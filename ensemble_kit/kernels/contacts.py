"""How many sides of pixels, or faces of voxels, components of a mask share with other masks, all given as runs."""

# mypy: allow-untyped-defs, allow-untyped-calls

import numpy as np

from ensemble_kit.kernels.jit import kernel, routine


@kernel
def contacts(piece_starts, piece_ends, labels, count, starts, ends, offsets, depth, height, width):
    """Count the sides that the pixels of each component share with those of each mask, int64 (count, masks + 1).

    Parameters
    ----------
    piece_starts, piece_ends, labels : runs that are cut at row ends, and the component of each, 0 … count - 1.
    starts, ends, offsets : the runs of the masks, mask k's from `offsets[k]` to `offsets[k + 1]`.

    depth : of a volume; that of an image is 1.

    The last column counts the sides towards any pixel of the image. A pixel's sides inside its own piece are not
    looked at: the component's own mask and the last column lack the same number.
    """
    masks, slab = offsets.size - 1, height * width
    out = np.zeros((count, masks + 1), np.int64)
    for i in range(piece_starts.size):
        start, end = piece_starts[i], piece_ends[i]
        row, y = out[labels[i]], start // width % height
        left, right, above, below = start % width > 0, end % width > 0, y > 0, y < height - 1
        before, behind = start >= slab, end <= (depth - 1) * slab
        row[masks] += left + right + (above + below + before + behind) * (end - start)
        for k in range(masks):
            low, high = offsets[k], offsets[k + 1]
            if left:
                row[k] += _shared(starts, ends, low, high, start - 1, start)
            if right:
                row[k] += _shared(starts, ends, low, high, end, end + 1)
            if above:
                row[k] += _shared(starts, ends, low, high, start - width, end - width)
            if below:
                row[k] += _shared(starts, ends, low, high, start + width, end + width)
            if before:
                row[k] += _shared(starts, ends, low, high, start - slab, end - slab)
            if behind:
                row[k] += _shared(starts, ends, low, high, start + slab, end + slab)
    return out


@routine
def _shared(starts, ends, low, high, begin, stop):
    """Count the pixels of [begin, stop) that lie in the runs from `low` to `high`."""
    last = high
    while low < high:  # the first run that ends behind `begin`
        middle = (low + high) // 2
        if ends[middle] <= begin:
            low = middle + 1
        else:
            high = middle
    total = np.int64(0)
    while low < last and starts[low] < stop:
        total += min(ends[low], stop) - max(starts[low], begin)
        low += 1
    return total
