"""What kernels take: NamedTuples of arrays, which Numba passes as it passes the arrays themselves."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Members(NamedTuple):
    """Where the members' 16-bit codes lie in memory, and what each member weighs.

    Parameters
    ----------
    addresses : int64 (M,), where a member's box begins in the class that it has first.
    class_bytes : int64 (M,), bytes from one class to the next.
    widths : int64 (M,), cells of a row of the member's grid.
    slice_bytes : int64 (M,), bytes from one slice of the member's grid to the next.
    order : int64 (C, M), where each class stands in each member.
    weights : int64 (C, M), adding up to 65536 in each row.
    """

    addresses: NDArray[np.int64]
    class_bytes: NDArray[np.int64]
    widths: NDArray[np.int64]
    slice_bytes: NDArray[np.int64]
    order: NDArray[np.int64]
    weights: NDArray[np.int64]


class Scoring(NamedTuple):
    """How codes become levels.

    Parameters
    ----------
    tables : uint16 (T, 65536), score by code; members of one temperature share one, which keeps it in cache.
    table_of : int64 (M,), which table is each member's.
    score_table : uint16 (65536,), what an interpolated score becomes.
    by_key : uint16 (T, 65536), what a code becomes in the end, by key + 32768: codes in the order of their scores.
    key_masks : int16 (2,), what turns a code into its key; see `tables.key_masks`.
    interpolate_members : interpolate each member, then fuse (upsample="logits"); if not, fuse first ("scores").
    bend : at most the second derivative of the curve whose points `score_table` rounds; inf where it is not known.
    """

    tables: NDArray[np.uint16]
    table_of: NDArray[np.int64]
    score_table: NDArray[np.uint16]
    by_key: NDArray[np.uint16]
    key_masks: NDArray[np.int16]
    interpolate_members: bool
    bend: float


class Reach(NamedTuple):
    """The codes that reach a low and a high level of each of n classes.

    Parameters
    ----------
    firsts, spans : int64 (n, 2, M), the codes `first … first + span` on the circle of 65,536, or none if span < 0.
    """

    firsts: NDArray[np.int64]
    spans: NDArray[np.int64]


class Pixels(NamedTuple):
    """Which pixels lie behind the cells of a box (h, w) that all members share, on an image (H, W).

    Parameters
    ----------
    row_at, col_at : int64 (h + 1,) and (w + 1,), first pixel below and right of each row and column of cells; every
        column has a pixel (W >= w).
    row_fractions, col_fractions : int64 (H,) and (W,), of the far neighbour, of 256.
    """

    row_at: NDArray[np.int64]
    row_fractions: NDArray[np.int64]
    col_at: NDArray[np.int64]
    col_fractions: NDArray[np.int64]


class Axes(NamedTuple):
    """Which cells of each member's box lie around the pixels of an image (H, W).

    Parameters
    ----------
    rows, cols : int64 (M, H) and (M, W), upper and left cell of each pixel.
    row_fractions, col_fractions : int64 (M, H) and (M, W), of the lower and the right neighbour, of 256.
    last : int64 (M, 2), last row and column of each box.
    """

    rows: NDArray[np.int64]
    row_fractions: NDArray[np.int64]
    cols: NDArray[np.int64]
    col_fractions: NDArray[np.int64]
    last: NDArray[np.int64]


class UndecidedPixels(NamedTuple):
    """One class's undecided pixels of all samples.

    Parameters
    ----------
    values : uint16 (M, n); group g has the columns `offsets[g]:offsets[g+1]`, hits up to `splits[g]`. Sample s has the
        groups from s times the number of sets of members on, one for each set that has a say somewhere.
    peaks : uint16 (M, ceil(n / 32)), the largest values of every 32 columns.
    above, above_hits, truth : int64 (groups,), pixels decided on for all weights, hits among those, hits in all.
    inside : int64 (groups,), pixels in all; looked at where no member of the set weighs anything.
    """

    values: NDArray[np.uint16]
    peaks: NDArray[np.uint16]
    offsets: NDArray[np.int64]
    splits: NDArray[np.int64]
    above: NDArray[np.int64]
    above_hits: NDArray[np.int64]
    truth: NDArray[np.int64]
    inside: NDArray[np.int64]


class Score(NamedTuple):
    """The score `(a tp + eps) / (pred + b truth - c tp + eps)`; two empty masks are worth `empty`, or do not count."""

    a: float
    b: float
    c: float
    eps: float
    empty: float
    skip: bool


class CurveRoom(NamedTuple):
    """What a thread scores curves in.

    Parameters
    ----------
    counts : uint64 (65537,) of zeros, left so; misses and, in the lower half, hits at each level, descending.
    touched : uint64 (1025,) of zeros, left so; a bit for each level that occurs.
    order : int64 (65537,), the levels that occur.
    top, counted : float64 and int64 (65537, U), of each union sums of scores, and how many count.
    sums : uint32, of the strips and pixels that are fused at a time.
    """

    counts: NDArray[np.uint64]
    touched: NDArray[np.uint64]
    order: NDArray[np.int64]
    top: NDArray[np.float64]
    counted: NDArray[np.int64]
    sums: NDArray[np.uint32]


class Grids(NamedTuple):
    """Which cells of each of G boxes lie around the pixels of an image (H, W), as bands and strips.

    A *band* is a range of rows of pixels that lie below the same row of cells of every box, and a *strip* a range of
    columns that lie to the right of the same columns of cells.

    Parameters
    ----------
    cells : int64 (G,), cells of a row of each box, at least 32.
    row_at, col_at : int64 (bands + 1,) and (strips + 1,), first pixel of each.
    upper, lower : int64 (G, bands), rows of cells; the same where no pixel lies between two.
    cols : int64 (G, strips), left columns of cells.
    across : int64 (G,), 1 where pixels lie between columns, else 0.
    row_fractions : int64 (G, H), share of the lower row, of 256.
    left, fractions : int32 (G, W + 16), left column of each pixel, and the right one's share of 256.
    strip_of : int64 (W,), the strip of each pixel.
    """

    cells: NDArray[np.int64]
    row_at: NDArray[np.int64]
    col_at: NDArray[np.int64]
    upper: NDArray[np.int64]
    lower: NDArray[np.int64]
    cols: NDArray[np.int64]
    across: NDArray[np.int64]
    row_fractions: NDArray[np.int64]
    left: NDArray[np.int32]
    fractions: NDArray[np.int32]
    strip_of: NDArray[np.int64]


EACH, LINEAR_EACH, SHARES, LINEAR, ALONE = 0, 1, 2, 3, 5
"""Kinds of `Contest`: shares of members or their logits, each interpolated; shares or logits, averaged on the one grid
of all members; logits of one member. The bit of 1 says that scores are logits, the bit of 2 that grids are averaged."""


class Contest(NamedTuple):
    """How exclusive classes are compared in float32, as `scores/argmax.py` makes it.

    A pixel's strongest class is certain where it leads the next by more than
    `relative · (both scores together) + absolute`; members without weight are left out.

    Parameters
    ----------
    kind : what is compared, one of those above; where members are each interpolated, it is their `q`, in integers.
    firsts : int64 (G + 1,), where the members of each grid begin; they stand together.
    at : int64 (M, C), where each class begins in each member's box; of a volume (2 M, C), in one slice and in another.
    widths : int64 (M,), cells from one row to the next of the member's grid.
    weights : float32 (M, C), of sum 1 for each class.
    heaviest : float32 (M,), the largest of each member.
    scales : float32 (M,), log2(e) / temperature.
    temperatures : float64 (M,).
    margins : float32 (M, C), by how much a class that has a cell's largest logit must lead there.
    factors : float32 (C,), the largest is 1; of logits their logarithms to base 2, which are added.
    relative, absolute : float32.
    ties : equal scores, of one member, are equal in integers.
    least : float32 share that the winner must have, or -1.
    """

    kind: int
    firsts: NDArray[np.int64]
    at: NDArray[np.int64]
    widths: NDArray[np.int64]
    weights: NDArray[np.float32]
    heaviest: NDArray[np.float32]
    scales: NDArray[np.float32]
    temperatures: NDArray[np.float64]
    margins: NDArray[np.float32]
    factors: NDArray[np.float32]
    relative: np.float32
    absolute: np.float32
    ties: bool
    least: np.float32


class Exactly(NamedTuple):
    """The same comparison in integers, for pixels that are too close to call.

    Parameters
    ----------
    temperatures : float64 (M,).
    order : int64 (M, C), where each class stands in each member.
    weights : int64 (M, C), of sum 65536 for each class.
    interpolate_members, of_logits : upsample="logits"; mean="logit".
    exponentials : int64 (65536,), `tables.exponentials`.
    factors, offsets : int64 (C,).
    least : level that the winner must reach, or 0; with mean="logit" that of its share of the fused `q`.
    """

    temperatures: NDArray[np.float64]
    order: NDArray[np.int64]
    weights: NDArray[np.int64]
    interpolate_members: bool
    of_logits: bool
    exponentials: NDArray[np.int64]
    factors: NDArray[np.int64]
    offsets: NDArray[np.int64]
    least: int


class Contenders(NamedTuple):
    """Undecided pixels of all samples, with the classes that can win each.

    Parameters
    ----------
    truth : uint16 (n,), the class of the truth; the number of classes where it has none.
    offsets : int64 (n + 1,); pixel i has the entries `offsets[i]:offsets[i+1]` of the next two.
    classes : uint16, ascending within a pixel.
    values : uint32, F_c of rule 10.
    """

    truth: NDArray[np.uint16]
    offsets: NDArray[np.int64]
    classes: NDArray[np.uint16]
    values: NDArray[np.uint32]


class Scale(NamedTuple):
    """How factors act: class c scores `F_c · times[c] + plus[c]`.

    Parameters
    ----------
    times, plus : int64 (C,); the factors and 0, or with mean="logit" 1 and their offsets.
    adds : whether factors add (mean="logit").
    """

    times: NDArray[np.int64]
    plus: NDArray[np.int64]
    adds: bool


class Room(NamedTuple):
    """Ratios of factors, ascending: F_c is within one where it is `max((top + 2^shift - 1 >> shift) - gap, least)`.

    Contenders are kept within the first; the last is the largest that there is, 16384.

    Parameters
    ----------
    shifts, gaps : int64 (n,), the ratio's logarithm to base 2 and 0, or with mean="logit" 0 and the difference of
        offsets.
    least : 1, since a score of 0 never wins a product; with mean="logit" none.
    """

    shifts: NDArray[np.int64]
    gaps: NDArray[np.int64]
    least: int


class Bins(NamedTuple):
    """Stretches of factors that a line search bounds at once, by keys: the factor, or its offset + 2^31.

    Parameters
    ----------
    starts : int64 (bins + 1,), key of the factor that each begins with, and of the largest factor.
    table, shift : int64; `table[key - starts[0] >> shift]` is the bin of the least such key.
    """

    starts: NDArray[np.int64]
    table: NDArray[np.int64]
    shift: int


class Outside(NamedTuple):
    """What happens in bins where a line search is not exact, since far classes win pixels there; n ratios and "none".

    Parameters
    ----------
    first, stop : bins that are exact; those below have what a smaller factor does, those above what a larger one does.
    may : int64 (bins, C), with how many of the room's ratios pixels between the class and each other may change hands.
    most : int64 (bins,), the largest of `may`.
    taken : int64 (rows, n, C, 2), pixels that the class may take with a larger factor, of each winner: of another
        truth than both, and its own.
    doubt : int64 (rows, n, C), pixels of another truth than a class that the class may take from it; its own entry:
        pixels that it may take and whose truth it is.
    hits, lost : int64 (rows, n, C), hits that classes may gain with a smaller factor, and pixels of another truth that
        the class may lose.
    """

    first: int
    stop: int
    may: NDArray[np.int64]
    most: NDArray[np.int64]
    taken: NDArray[np.int64]
    doubt: NDArray[np.int64]
    hits: NDArray[np.int64]
    lost: NDArray[np.int64]
