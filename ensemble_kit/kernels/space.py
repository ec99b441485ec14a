"""Where the cells of members lie around the pixels of an image or a volume, and which class leads them.

`kernels.rows` takes both.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Space(NamedTuple):
    """Which cells of each member lie around the pixels of an image (D, H, W), and which members have a say there.

    An image of two axes is one slice. Members have a say inside their windows, so the edges of all windows cut the
    image into boxes, in each of which one set of members is fused.

    Parameters
    ----------
    slices, rows, cols : int64 (M, D), (M, H) and (M, W), cell before each pixel on each axis.
    slice_fractions, row_fractions, col_fractions : of the same shapes, of the cell behind it, of 256.
    last : int64 (M, 2), last row and column of each box.
    slice_box, row_box : int64 (D,) and (H,), which box a slice and a row of the image lie in.
    col_at : int64 (boxes + 1,), where the boxes of a row begin.
    sets : int64 (boxes by slice, by row, by column), number of the set of members that are fused; -1 is none.
    weights : int64 (S, C, M), adding up to 65536 in each row, or to 0 where no member of the set has the class.
    outside : int64 (C,), the values of pixels where no member has a say; below 0 a class is off.
    """

    slices: NDArray[np.int64]
    slice_fractions: NDArray[np.int64]
    rows: NDArray[np.int64]
    row_fractions: NDArray[np.int64]
    cols: NDArray[np.int64]
    col_fractions: NDArray[np.int64]
    last: NDArray[np.int64]
    slice_box: NDArray[np.int64]
    row_box: NDArray[np.int64]
    col_at: NDArray[np.int64]
    sets: NDArray[np.int64]
    weights: NDArray[np.int64]
    outside: NDArray[np.int64]


class Leading(NamedTuple):
    """The class that leads each cell of some sources, and how strongly.

    Parameters
    ----------
    classes : int16 (n,), by number: (slices, rows, columns) of one source after the other. Empty where none is known.
    strengths : uint16 (n,), as `owners.leaders` has them.
    at, begins : int64 (M,), where each source begins in both, and its first slice.
    weights : int64 (S, M), the largest that each source has in a class of a set.
    low, high : uint16 (65536,), what the score of the leading class is at least where cells are of a strength, and that
        of any other at most.
    """

    classes: NDArray[np.int16]
    strengths: NDArray[np.uint16]
    at: NDArray[np.int64]
    begins: NDArray[np.int64]
    weights: NDArray[np.int64]
    low: NDArray[np.uint16]
    high: NDArray[np.uint16]


class Certain(NamedTuple):
    """What makes a decision certain that gives a pixel to a class, by its least value and the largest of the others.

    All are int64 (C,), by that class. Values are levels x 65536.

    Parameters
    ----------
    scales, offsets, other_scales, other_offsets : `low * scales + offsets` is above `high * other_scales +
        other_offsets`.
    least, most : `low` is `least` or more, `high` below `most`.
    lead : `low` is as much above `high`.
    """

    scales: NDArray[np.int64]
    offsets: NDArray[np.int64]
    other_scales: NDArray[np.int64]
    other_offsets: NDArray[np.int64]
    least: NDArray[np.int64]
    most: NDArray[np.int64]
    lead: NDArray[np.int64]
