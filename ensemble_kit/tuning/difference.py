"""`Difference`: one quantity in two sets of samples, and the tests of whether it differs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SURE = 0.05
"""A difference counts where its p-value, corrected for all tests of a report, is below this."""
MEDIUM = 0.5
"""And where it is at least this many standard deviations: "medium" by Cohen, 1988."""


@dataclass(frozen=True)
class Difference:
    """One quantity of one class over validation and over test samples.

    Parameters
    ----------
    validation, test : float64, its value in each sample.
    p : of a two-sided Mann–Whitney test that both are drawn from one distribution, corrected by Holm (1979) for all
        tests of the report. Samples count as independent; those of one patient are not, so take it for a hint.
    """

    validation: NDArray[np.float64]
    test: NDArray[np.float64]
    p: float

    @property
    def standardised(self) -> float:
        """Cohen's d: the difference of means (test less validation) in pooled standard deviations."""
        gap = float(self.test.mean() - self.validation.mean())
        spread = math.sqrt((_variance(self.validation) + _variance(self.test)) / 2)
        return gap / spread if spread else math.copysign(math.inf, gap) if gap else 0.0

    @property
    def is_shifted(self) -> bool:
        """Tell whether the difference is above chance and of at least half a standard deviation."""
        return self.p < SURE and abs(self.standardised) >= MEDIUM

    def to_dict(self) -> dict[str, Any]:
        """Return means, difference and flag by name, for JSON; an infinite difference is None."""
        d = self.standardised
        return {
            "validation": round(float(self.validation.mean()), 9),
            "test": round(float(self.test.mean()), 9),
            "standardised": round(d, 6) if math.isfinite(d) else None,
            "p": round(self.p, 9),
            "shifted": self.is_shifted,
        }


def mann_whitney(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Return the two-sided p-value that both are drawn from one distribution; 1 where all values are equal."""
    from scipy.stats import mannwhitneyu

    if np.ptp(np.concatenate([a, b])) == 0:
        return 1.0  # every value is the same: nothing to rank
    return float(mannwhitneyu(a, b).pvalue)


def holm(values: Sequence[float]) -> list[float]:
    """Correct p-values for their number (Holm 1979): the k-th smallest of n times n - k + 1, never descending."""
    out, floor = [0.0] * len(values), 0.0
    for rank, k in enumerate(sorted(range(len(values)), key=lambda k: values[k])):
        floor = max(floor, min(1.0, values[k] * (len(values) - rank)))
        out[k] = floor
    return out


def _variance(values: NDArray[np.float64]) -> float:
    return float(values.var(ddof=1)) if values.size > 1 else 0.0
