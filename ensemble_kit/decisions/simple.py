"""SIMPLE: members that agree badly with the consensus are dropped in turn, the others weighted by their Dice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ensemble_kit.decisions.patterns import Ballots
from ensemble_kit.decisions.staple import WHAT, Scope, written
from ensemble_kit.errors import check_choice, check_number

if TYPE_CHECKING:
    from numpy.typing import NDArray

_UNIT = 1 << 32  # weights are integers of this unit, so that an exact half is one
_CLOSE = 1e-9  # of Dice: a member at the limit but for rounding stays


class Performance(NamedTuple):
    """How well members agree with the final consensus.

    Parameters
    ----------
    dice : float64 (M,), of each member, dropped ones too; NaN where all masks are empty.
    dropped : int64 (M,), the round in which it was, from 1 on; 0 is never.
    rounds : how many were made.
    """

    dice: NDArray[np.float64]
    dropped: NDArray[np.int64]
    rounds: int


@dataclass(frozen=True)
class Simple:
    """Fuse the masks of each class by SIMPLE, which drops members in turn.

    After Langerak et al., "Label fusion in atlas-based segmentation using a selective and iterative method for
    performance level estimation (SIMPLE)", IEEE Trans. Medical Imaging 29(12), 2010. The consensus is the majority at
    first. In each round the Dice φ_j of every member that is left with the consensus is taken, members with
    φ_j < mean φ - alpha · std φ (over those that are left) are dropped, and the consensus becomes the vote of the
    others with the weights φ_j, on where more than half of their weight is. It ends when neither changes. A dropped
    member does not come back, and at least `least` members stay: the best ones. alpha and least are ours; the paper has
    dozens of atlases, a team few annotators.

    Parameters
    ----------
    scope : "sample" does so for each sample and class by itself; "pooled" for each class over all samples.
    alpha : standard deviations below the mean at which a member is dropped.
    least : members that stay in any case.

    Raises
    ------
    UsageError
        Another scope, a negative alpha, no member that stays.

    Examples
    --------
    >>> str(Simple(alpha=2.0))
    'simple:alpha=2.0'
    """

    scope: Scope = "sample"
    alpha: float = 1.5
    least: int = 3

    def __post_init__(self) -> None:
        check_choice("scope", self.scope, ("sample", "pooled"), WHAT)
        check_number("alpha", self.alpha, "pass a number of at least 0", least=0, what=WHAT)
        check_number("least", self.least, "pass 1 or more members", least=1, whole=True, what=WHAT)

    def __str__(self) -> str:
        return written("simple", self, self.scope)

    def told(self, members: int, by: str) -> str:  # noqa: ARG002 - as Staple's
        """Say how a pixel is decided, and who is dropped."""
        each = "each sample and class" if self.scope == "sample" else "each class over all samples"
        return (
            f"SIMPLE of {members} members, for {each}: on where more than half of the weight is, which is a member's "
            f"Dice with the consensus; dropped are those below mean - {self.alpha:g} std, down to {self.least} members"
        )

    def fuse(self, ballots: Ballots, by: str) -> tuple[NDArray[np.int64], Performance]:  # noqa: ARG002
        """Decide every pattern, int64 (P,): 1 is on, 0 is off."""
        on, heard, pixels = ballots.labels == 1, ballots.labels >= 0, ballots.pixels
        members = on.shape[1]
        kept, weights = np.ones(members, bool), np.full(members, _UNIT, np.int64)
        dropped, rounds = np.zeros(members, np.int64), 0
        consensus = _vote(on, heard, weights)
        while True:
            rounds += 1
            dice = _dice(on, heard, pixels, consensus)
            low = kept & (dice < dice[kept].mean() - self.alpha * dice[kept].std() - _CLOSE)
            worst = np.flatnonzero(low)[np.argsort(dice[low], kind="stable")][: max(kept.sum() - self.least, 0)]
            kept[worst], dropped[worst] = False, rounds
            weights = np.where(kept, np.floor(dice * _UNIT + 0.5), 0).astype(np.int64)
            last, consensus = consensus, _vote(on, heard, weights)
            if (not worst.size and np.array_equal(consensus, last)) or rounds > members + _ROUNDS:
                break
        dice = _dice(on, heard, pixels, consensus)
        empty = not (pixels[:, None] * on).any()
        return consensus.astype(np.int64), Performance(np.full(members, np.nan) if empty else dice, dropped, rounds)


_ROUNDS = 100  # without a drop the consensus could go round


def _vote(on: NDArray[np.bool_], heard: NDArray[np.bool_], weights: NDArray[np.int64]) -> NDArray[np.bool_]:
    return np.asarray(2 * (on @ weights) > heard @ weights)


def _dice(
    on: NDArray[np.bool_], heard: NDArray[np.bool_], pixels: NDArray[np.int64], consensus: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Dice of each member with the consensus, over the pixels where it votes; 1 where both are empty there."""
    hits, own, theirs = pixels @ (on & consensus[:, None]), pixels @ on, pixels @ (heard & consensus[:, None])
    both = own + theirs
    return np.divide(2 * hits, both, out=np.ones(both.size), where=both > 0)
