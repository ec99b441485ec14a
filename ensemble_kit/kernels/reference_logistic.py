"""What `logistic.py` adds up, in plain NumPy."""

import numpy as np
from numpy.typing import NDArray


def weighted_sums(
    rows: NDArray[np.float64], curvature: NDArray[np.float64], slope: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Σ curvature · row rowᵀ and Σ slope · row over rows (n, features), added up in their order."""
    products = (curvature[:, None] * rows)[:, :, None] * rows[:, None, :]
    lower = np.tril(np.cumsum(products, axis=0)[-1])
    return lower + np.tril(lower, -1).T, np.cumsum(slope[:, None] * rows, axis=0)[-1]
