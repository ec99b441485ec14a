"""What `kernels/least_areas.py` and `lost_pixels.py` find, in plain NumPy; other oracles: `kernels/reference.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def best_over_least_areas(
    kept: NDArray[np.float64],
    empty: NDArray[np.float64],
    size: NDArray[np.float64],
    use: NDArray[np.bool_],
    most: float,
) -> float:
    """Best mean of scores, NaN where a pair is skipped, over every size below which a sample is emptied.

    Parameters
    ----------
    kept, empty, size : (samples,), each sample's score as it is, its score as an empty mask, and its size.
    use : (samples,), the samples that count.
    most : masks of this size stay.
    """
    least = np.minimum(np.append(size, [0, size[use].max(initial=0) + 1]), most)
    scores = [np.where(size < a, empty, kept)[use] for a in least]
    return max(1.0 if np.isnan(s).all() else float(np.nanmean(s)) for s in scores)


def best_pooled_over_least_areas(
    counts: NDArray[np.int64], size: NDArray[np.float64], use: NDArray[np.bool_], most: float, eps: float, empty: float
) -> float:
    """Best pooled Dice over the same sizes; `counts` are hits, pixels and pixels of the truth (3, samples)."""
    tp, pred, truth = counts[:, use]
    best = []
    for a in [*size.tolist(), 0, size[use].max(initial=0) + 1]:
        stays = size[use] >= min(a, most)
        foot = pred[stays].sum() + truth.sum()
        best.append((2 * tp[stays].sum() + eps) / (foot + eps) if foot else empty)
    return float(max(best))


def lost(
    found: NDArray[np.uint16],
    own: NDArray[np.uint16],
    tops: NDArray[np.uint16],
    kinds: NDArray[np.bool_],
    ratio: int,
    level: int,
) -> NDArray[np.int64]:
    """Count beaten pixels (n,) at a level and above that a ratio takes: all, hits and void ones, `kinds` (2, n)."""
    gone = (found >= level) & (own.astype(np.int64) * 65536 < tops.astype(np.int64) * ratio)
    return np.array([gone.sum(), (gone & kinds[0]).sum(), (gone & kinds[1]).sum()], np.int64)
