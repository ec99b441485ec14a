"""What members' votes weigh: exact integers behind the numbers that the user writes."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import lcm
from typing import NamedTuple

from ensemble_kit.errors import UsageError, check_several

_MOST = 1 << 60


class VoteWeights(NamedTuple):
    """What each member weighs, and what their weights must add up to.

    Parameters
    ----------
    weights : integers, one per member; a common multiple of what was given.
    unit : how many of them are 1 of what was given.
    quorum : integer in the same unit; None where none was given.
    """

    weights: tuple[int, ...]
    unit: int
    quorum: int | None

    @classmethod
    def of(cls, members: int, weights: Sequence[float] | None = None, quorum: float | None = None) -> VoteWeights:
        """Make weights and a quorum exact: numbers count as the decimals they are written as.

        Raises
        ------
        UsageError
            A quorum of 0 or beyond the total, weights that are negative or all 0.
        """
        if weights is None and quorum is None:
            return cls((1,) * members, 1, None)
        if weights is not None:
            check_several("weights", weights, "pass a list of numbers, one per member")
        given = [1] * members if weights is None else list(weights)
        exact = [_exact(w) for w in given]
        if len(exact) != members or any(w is None or w < 0 for w in exact) or not any(exact):
            fix = "pass one finite number of at least 0 per member, not all 0"
            raise refused("weights-invalid", f"weights {given} for {members} members", fix)
        need = None if quorum is None else _exact(quorum)
        if quorum is not None and (need is None or need <= 0):
            unbounded = "pass a quorum above 0: with 0, every pixel of every image would be on"
            raise refused("quorum-invalid", f"quorum={quorum!r}", unbounded)
        known = [w for w in (*exact, need) if w is not None]
        total = sum(w for w in exact if w is not None)
        if need is not None and need > total:
            item = f"quorum={quorum!r}, all weights add up to {float(total):g}"
            raise refused("quorum-invalid", item, "pass a quorum that the members can reach")
        unit = lcm(*(w.denominator for w in known))
        if sum(known) * unit > _MOST:
            item = f"weights {given} have no common unit below 2^60"
            raise refused("weights-invalid", item, "write the weights with fewer decimals")
        return cls(
            tuple(int(w * unit) for w in exact if w is not None), unit, None if need is None else int(need * unit)
        )

    @property
    def is_equal(self) -> bool:
        """Whether every member weighs 1."""
        return set(self.weights) == {self.unit}

    def written(self, weight: int) -> str:
        """Write a sum of weights in the user's unit."""
        whole, rest = divmod(weight, self.unit)
        return f"{weight / self.unit:g}" if rest else str(whole)


def refused(code: str, item: str, fix: str) -> UsageError:
    """Make the error of a vote that cannot be held."""
    return UsageError(code, "cannot vote", item=item, fix=fix)


def _exact(value: float) -> Fraction | int | None:
    if type(value) is int:
        return value
    try:
        return Fraction(str(value))
    except ValueError:
        return None
