"""What the bounds of undecided pixels come to, in plain NumPy: every level is scored, sample by sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ensemble_kit.kernels.arguments import Score, UndecidedPixels


def fused(values: NDArray[np.uint16], weights: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Fuse columns of values (M, n) by integer weights that add up to 65536; rounded half up."""
    return (weights.astype(np.int64) @ values.astype(np.int64) + 32768) >> 16


def counts(
    pixels: UndecidedPixels, sample: int, weights: NDArray[np.uint32], fills: bool, levels: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Return a sample's pixels and hits at or above each level, and its hits in all."""
    pred, tp, area = np.zeros(levels.size, np.int64), np.zeros(levels.size, np.int64), 0
    for j, own in enumerate(weights):
        g = sample * len(weights) + j
        area += int(pixels.truth[g])
        if not own.any():
            pred += pixels.inside[g] * fills
            tp += pixels.truth[g] * fills
            continue
        begin, split, end = pixels.offsets[g], pixels.splits[g], pixels.offsets[g + 1]
        at = fused(pixels.values[:, begin:end], own)[:, None] >= levels
        tp += pixels.above_hits[g] + at[: split - begin].sum(0)
        pred += pixels.above[g] + at.sum(0)
    return pred, tp, area


def score_of(pred: NDArray[np.int64], tp: NDArray[np.int64], area: int, score: Score) -> NDArray[np.float64]:
    """Score a sample at each level."""
    foot = pred + score.b * area - score.c * tp + score.eps
    nothing = pred + area == 0
    return np.where(nothing, score.empty, (score.a * tp + score.eps) / np.where(nothing, 1.0, foot))


def peaks(
    pixels: UndecidedPixels,
    samples: NDArray[np.int64],
    unions: NDArray[np.bool_],
    weights: NDArray[np.uint32],
    fills: bool,
    low: int,
    high: int,
    score: Score,
) -> NDArray[np.float64]:
    """Return each union's largest sum of scores over the levels `low … high`, none of them above 65535."""
    levels = np.arange(low, min(high, 65535) + 1)
    each = np.array([score_of(*counts(pixels, s, weights, fills, levels), score) for s in samples.tolist()])
    return np.array([each[union].sum(axis=0).max() for union in unions.T])
