"""What `ladders.py` computes, in plain loops."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def best_of_draws(
    draws: NDArray[np.int64], top: NDArray[np.float64], foot: NDArray[np.float64], eps: float, order: list[int]
) -> list[int]:
    """Of each draw of groups the level with the best ratio of sums, the first in `order` among equals."""
    found = []
    for times in draws.tolist():
        scores = []
        for j in range(top.shape[1]):
            over, under = eps, eps
            for g, n in enumerate(times):
                over += n * float(top[g, j])
                under += n * float(foot[g, j % foot.shape[1]])
            scores.append(over / under if under > 0 else 1.0)
        found.append(max(order, key=lambda j, s=scores: s[j]))  # type: ignore[misc]
    return found
