"""The oracle of `disagreement.py` in plain NumPy, dense and slow, as `reference.py` is of the others."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


def variance(members: NDArray[np.uint16], weights: NDArray[np.int64]) -> NDArray[np.uint16]:
    """Variance of levels (M, ...) under weights (M,) of sum 65536: 4 · 65535 times that of probabilities, rounded.

    Python's integers: Σ W S² · 65536 - (Σ W S)² is the variance × 65536², exactly, of levels.
    """
    s, w = members.astype(object), weights.astype(object).reshape(-1, *[1] * (members.ndim - 1))
    exact = 65536 * (w * s * s).sum(0) - (w * s).sum(0) ** 2
    half = 32768 * 65535 << 14
    return np.asarray(((exact >> 14 << 14) + half) // (65535 << 30)).astype(np.uint16)


def entropy(level: int, binary: bool) -> int:
    """floor(2^24 h + 0.5), h = -p log2 p, and of a class by itself -(1 - p) log2(1 - p) more."""
    p = level / 65535
    parts = [v for v in ((p, 1 - p) if binary else (p,)) if 0 < v < 1]
    return int(np.floor(2.0**24 * sum(-v * np.log2(v) for v in parts) + 0.5))


@lru_cache(maxsize=2)
def _entropies(binary: bool) -> NDArray[np.int64]:
    return np.array([entropy(level, binary) for level in range(65536)] + [0], np.int64)


def information(members: NDArray[np.uint16], weights: NDArray[np.int64], binary: bool) -> NDArray[np.int64]:
    """Mutual information in bits × 2^40, of levels (M, ...): entropy of the mean, less the mean of entropies.

    The mean lies between two levels, and its entropy is interpolated between theirs.
    """
    table = _entropies(binary)
    w = weights.reshape(-1, *[1] * (members.ndim - 1))
    mean = (w * members.astype(np.int64)).sum(0)
    of_mean = (65536 - mean % 65536) * table[mean // 65536] + mean % 65536 * table[mean // 65536 + 1]
    return np.maximum(of_mean - (w * table[members]).sum(0), 0)
