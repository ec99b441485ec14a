"""What `patterns` computes, in plain NumPy and on bitmaps: the oracle of label fusion."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def patterns(maps: NDArray[np.int16]) -> dict[tuple[int, ...], int]:
    """Pixels of each combination of labels of label maps (M, n)."""
    found, counts = np.unique(maps, axis=1, return_counts=True)
    return dict(zip(map(tuple, found.T.tolist()), counts.tolist(), strict=True))


def expect(labels: NDArray[np.int16], theta: Floats, prior: Floats) -> Floats:
    """Probabilities (P, L) of the true label; factors are multiplied in the order of members."""
    out = np.repeat(prior[None], len(labels), axis=0)
    for m in range(labels.shape[1]):
        said = labels[:, m]
        out = np.where(said[:, None] >= 0, out * theta[m, said], out)
        top = out.max(axis=1)
        out = np.where(((said >= 0) & (top > 0) & (top < 2.0**-500))[:, None], out * 2.0**500, out)
    total = np.zeros(len(labels))
    for t in range(prior.size):
        total = total + out[:, t]
    return np.divide(out, total[:, None], out=np.zeros_like(out), where=total[:, None] > 0)


def maximise(labels: NDArray[np.int16], pixels: NDArray[np.int64], weights: Floats) -> Floats:
    """What members say where each label is true, (M, L, L); sums run over patterns in their order."""
    M, L = labels.shape[1], weights.shape[1]
    theta = np.zeros((M, L, L))
    for said, n, weight in zip(labels, pixels.tolist(), weights, strict=True):
        for m in np.flatnonzero(said >= 0):
            theta[m, said[m]] += n * weight
    total = np.zeros((M, L))
    for row in range(L):
        total = total + theta[:, row]
    return np.divide(theta, total[:, None], out=np.zeros_like(theta), where=total[:, None] > 0)
