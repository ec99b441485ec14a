"""`Mean`: the scale on which members' scores are averaged, and what a level of it stands for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from ensemble_kit.errors import UsageError, check_kind
from ensemble_kit.kernels import tables

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_FIX = "pass 'probability', 'logit', or 'power:R' with 0 <= R < 1, such as 'power:0.5'"

LEVELS = 65536
"""Scores are 16-bit: levels 0 … 65535."""


@dataclass(frozen=True)
class Mean:
    """What is averaged over members: probabilities, a power of them, or logits.

    Parameters
    ----------
    power : R of the power mean, 1 for the arithmetic and 0 for the geometric one; None averages logits clipped to ±16.

    Raises
    ------
    UsageError
        A power outside 0 ≤ R ≤ 1.

    Examples
    --------
    >>> mean = Mean.of("power:0.5")
    >>> str(mean), mean.level_of(0.25), mean.probability_of(32768)
    ('power:0.5', 32768, 0.2500076295691578)
    """

    power: float | None = 1.0

    def __post_init__(self) -> None:
        if self.power is not None and not 0 <= self.power <= 1:
            raise _unknown(f"power:{self.power}")

    @classmethod
    def of(cls, given: Mean | str) -> Mean:
        """Read "probability", "logit", or "power:R" with 0 ≤ R < 1.

        Raises
        ------
        UsageError
            Another text.
        """
        if isinstance(given, Mean):
            return given
        check_kind("mean", given, str, _FIX)
        if given in {"probability", "logit"}:
            return cls(1.0 if given == "probability" else None)
        try:
            power = float(given.removeprefix("power:")) if given.startswith("power:") else 1.0
        except ValueError:
            power = 1.0
        if not 0 <= power < 1:
            raise _unknown(given)
        return cls(power)

    def __str__(self) -> str:
        if self.power is None:
            return "logit"
        return "probability" if self.power == 1 else f"power:{self.power!r}".removesuffix(".0")

    @property
    def of_logits(self) -> bool:
        """Whether logits are averaged, and a level is a `q`."""
        return self.power is None

    @property
    def scale(self) -> NDArray[np.uint16]:
        """What a member's level becomes before it is averaged, uint16 (65536,): itself, or its power."""
        return tables.identity() if self.power in {None, 1.0} else tables.power_table(float(self.power or 0))

    def level_of(self, probability: float) -> int:
        """Turn a probability into the level of this scale that stands for it."""
        p = np.float64(probability)
        if self.power is not None:
            return int(tables.level_of_probability(tables.power_share(p, self.power)))
        with np.errstate(divide="ignore"):
            return int(tables.q_of_logit(np.log(p) - np.log1p(-p)))

    def probability_of(self, level: int) -> float:
        """Turn a level of this scale into the probability that it stands for: level / 65535 for probabilities."""
        return float(self.probabilities(level))

    def probabilities(self, levels: ArrayLike) -> NDArray[np.float64]:
        """Turn levels of this scale, whole or not, into the probabilities that they stand for, float64."""
        if self.power is None:
            return tables.sigmoid(tables.logit_of_q(levels))
        share = np.asarray(levels, np.float64) / (LEVELS - 1)
        return share if self.power == 1 else tables.probability_of_power(levels, self.power)

    def logits(self) -> NDArray[np.float64]:
        """Return the logit that each level stands for, float64 (65536,); infinite at the ends of a probability."""
        every = np.arange(LEVELS)
        if self.power is None:
            return tables.logit_of_q(every)
        p = self.probabilities(every)
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(p) - np.log1p(-p))


PROBABILITY, LOGIT = Mean(1.0), Mean(None)


@lru_cache(maxsize=32)
def levels_of_q(mean: Mean) -> NDArray[np.uint16]:
    """Return what an interpolated `q` becomes on the scale of a mean, uint16 (65536,); writable, for kernels."""
    return tables.identity().copy() if mean.of_logits else mean.scale[tables.q_levels()]


@lru_cache(maxsize=32)
def levels_of_probability(mean: Mean) -> NDArray[np.uint16]:
    """Return what each level of a mean is as a level of probabilities, uint16 (65536,), monotone; read only."""
    if mean == PROBABILITY:
        return tables.identity()
    table = tables.level_of_probability(mean.probabilities(np.arange(LEVELS)))
    table.setflags(write=False)
    return table


def _unknown(given: object) -> UsageError:
    return UsageError(
        "option-invalid",
        "cannot use mean",
        item=f"mean={given!r}",
        fix=_FIX,
    )
