"""Sums of a logistic regression over rows of features, in the order of the rows, so that they are the same anywhere."""

from __future__ import annotations

from typing import Any

import numpy as np

from ensemble_kit.kernels.jit import kernel


@kernel
def linear(rows: Any, coefficients: Any) -> Any:
    """Return rows · coefficients.

    Parameters
    ----------
    rows : float32 (n, features).
    coefficients : float64 (features,).

    Returns
    -------
    float64 (n,).
    """
    n, features = rows.shape
    out = np.zeros(n)
    for i in range(n):
        total = 0.0
        for f in range(features):
            total += coefficients[f] * rows[i, f]
        out[i] = total
    return out


@kernel
def gram(rows: Any, curvature: Any, slope: Any) -> Any:
    """Return Σ curvature · row rowᵀ and Σ slope · row.

    Parameters
    ----------
    rows : float32 (n, features).
    curvature, slope : float64 (n,).

    Returns
    -------
    float64 (features, features) and (features,).
    """
    n, features = rows.shape
    matrix, vector, row = np.zeros((features, features)), np.zeros(features), np.empty(features)
    for i in range(n):
        for f in range(features):
            row[f] = rows[i, f]
        for f in range(features):
            vector[f] += slope[i] * row[f]
            scaled = curvature[i] * row[f]
            for g in range(f + 1):
                matrix[f, g] += scaled * row[g]
    for f in range(features):
        for g in range(f):
            matrix[g, f] = matrix[f, g]
    return matrix, vector
