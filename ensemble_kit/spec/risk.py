"""`Risk`: what share of a class's true pixels may be missed, and which levels are known to miss no more."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from ensemble_kit.errors import check_choice, check_number
from ensemble_kit.once import once

if TYPE_CHECKING:
    from numpy.typing import NDArray

Over = Literal["class", "all"]
"""Whose risk is controlled: that of each class by itself, or that of each image's worst class."""

_WHAT = "cannot control a risk"


@dataclass(frozen=True)
class Risk:
    """A bound on a risk, and how sure it is (docs/concepts.md#rule-13-risk).

    The risk "fnr" is the mean false negative rate: the share of the truth that the mask misses, 0 where the truth is
    empty.

    Parameters
    ----------
    alpha : the risk allowed, between 0 and 1.
    delta : None bounds the expected risk, over calibration and new groups, by conformal risk control (Angelopoulos,
        Bates, Fisch, Lei and Schuster, "Conformal risk control", ICLR 2024); between 0 and 1: the risk exceeds alpha
        in at most this share of calibrations, by the bound of Hoeffding and Bentkus (Bates, Angelopoulos, Lei, Malik
        and Jordan, "Distribution-free, risk-controlling prediction sets", Journal of the ACM 68, 2021).
    over : "class" bounds the risk of each class, by a level of its own; "all" that of each image's worst class, by
        one level for all.
    kind : which risk.

    Raises
    ------
    UsageError
        A value outside its range.

    Examples
    --------
    >>> Risk(0.1).least_groups, Risk(0.1, delta=0.1).least_groups
    (9, 22)
    """

    alpha: float
    delta: float | None = None
    over: Over = "class"
    kind: Literal["fnr"] = "fnr"

    def __post_init__(self) -> None:
        check_choice("risk", self.kind, ("fnr",), _WHAT)
        check_choice("over", self.over, get_args(Over), _WHAT)
        check_number("alpha", self.alpha, "pass a number between 0 and 1, such as 0.1", above=0, below=1, what=_WHAT)
        object.__setattr__(self, "alpha", float(self.alpha))
        if self.delta is not None:
            fix = "pass a number between 0 and 1, such as 0.1, or leave it out for a bound on the expected risk"
            check_number("delta", self.delta, fix, above=0, below=1, what=_WHAT)
            object.__setattr__(self, "delta", float(self.delta))

    @property
    def method(self) -> str:
        """The method, by its name in the field."""
        return "conformal risk control" if self.delta is None else "risk-controlling prediction sets"

    @property
    def bound_name(self) -> str:
        """What `bound` computes."""
        return "(n · risk + 1) / (n + 1)" if self.delta is None else "the Hoeffding-Bentkus bound"

    @once
    def least_groups(self) -> int:
        """The fewest groups with which a risk of 0 on them is accepted."""
        if self.delta is None:
            return max(1, math.ceil(1 / self._alpha - 1))
        n = max(1, math.floor(math.log(self.delta) / math.log1p(-self.alpha)) - 1)
        while not self.accepts(np.zeros((1, n))):
            n += 1
        return n

    def of_groups(self, losses: NDArray[np.float64], groups: NDArray[np.int64]) -> NDArray[np.float64]:
        """Reduce losses to those that are controlled: one for each group, of each class or of the worst.

        Parameters
        ----------
        losses : float64 (classes, samples).
        groups : int64 (samples,), the group of each sample, 0 … G - 1.

        Returns
        -------
        float64 (classes, G), or (1, G) over "all": the mean over the group's samples.
        """
        rows = losses if self.over == "class" else losses.max(0, keepdims=True)
        sizes = np.bincount(groups)
        return np.stack([np.bincount(groups, row, sizes.size) for row in rows]) / sizes

    def accepts(self, losses: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell of each row of losses, one a group, whether its mean is low enough.

        A row that is nowhere larger than an accepted one is accepted.
        """
        n, sums = losses.shape[1], np.array([math.fsum(row) for row in losses])
        if self.delta is None:
            return sums <= float(self._alpha * (n + 1) - 1)
        return _hoeffding_bentkus(sums, n, self.alpha) <= self.delta

    def bound(self, losses: NDArray[np.float64]) -> NDArray[np.float64]:
        """Bound the risk of each row of losses, one a group: what `accepts` compares with alpha."""
        n, sums = losses.shape[1], np.array([math.fsum(row) for row in losses])
        if self.delta is None:
            return (sums + 1) / (n + 1)
        low, high = sums / n, np.ones_like(sums)
        for _ in range(50):  # the chance falls as the risk rises: the largest risk that it does not speak against
            middle = (low + high) / 2
            ruled_out = _hoeffding_bentkus(sums, n, middle) <= self.delta
            low, high = np.where(ruled_out, low, middle), np.where(ruled_out, middle, high)
        return high

    @once
    def _alpha(self) -> Fraction:
        """Alpha as the decimal that it is written as: with 9 groups a risk of 0 is accepted at 0.1."""
        return Fraction(str(self.alpha))


def _hoeffding_bentkus(sums: NDArray[np.float64], n: int, risk: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """Bound the chance that n losses in [0, 1] of this risk add up to so little: float64, one for each sum.

    The smaller of Hoeffding's exp(-n · h(min(sum / n, risk), risk)), h the relative entropy, and Bentkus'
    e · P(Bin(n, risk) ≤ ⌈sum⌉).
    """
    from scipy.special import rel_entr
    from scipy.stats import binom

    mean = np.minimum(sums / n, risk)
    hoeffding = np.exp(-n * (rel_entr(mean, risk) + rel_entr(1 - mean, 1 - risk)))
    chances: NDArray[np.float64] = np.minimum(hoeffding, math.e * binom.cdf(np.ceil(sums), n, risk))
    return chances
