"""Hard votes over members' masks, run by run (docs/concepts.md#rule-6-hard-vote)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from typing import Literal

import numpy as np

from ensemble_kit.errors import UsageError, check_choice, check_kind, check_several
from ensemble_kit.masks.alignment import check_aligned
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.packed import ManyRuns

_MOST = 1 << 60


@dataclass(frozen=True)
class VoteRule:
    """When a pixel is on: exact integers behind the words.

    Parameters
    ----------
    weights : integers, one per member; a common multiple of what was given.
    unit : how many of them are 1 of what was given.
    quorum : integer in the same unit, or None for the majority of the members that count.
    ties : what an exact half gives, where `quorum` is None.
    empty : whether a member whose mask is empty counts ("vote") or not ("abstain").
    """

    weights: tuple[int, ...]
    unit: int
    quorum: int | None
    ties: Literal["off", "on"]
    empty: Literal["vote", "abstain"]

    @classmethod
    def of(
        cls,
        members: int,
        weights: Sequence[float] | None = None,
        quorum: float | None = None,
        ties: Literal["off", "on"] = "off",
        empty: Literal["vote", "abstain"] = "vote",
    ) -> VoteRule:
        """Check the options of a hard vote and make them exact: numbers count as the decimals they are written as.

        Parameters
        ----------
        members : how many; the others are those of `hard_vote`.

        Raises
        ------
        UsageError
            As for `hard_vote`.
        """
        check_choice("ties", ties, ("off", "on"), "cannot vote")
        check_choice("empty", empty, ("vote", "abstain"), "cannot vote")
        if weights is not None:
            check_several("weights", weights, "pass a list of numbers, one per member")
        given = [1] * members if weights is None else list(weights)
        exact = [_exact(w) for w in given]
        if len(exact) != members or any(w is None or w < 0 for w in exact) or not any(exact):
            fix = "pass one finite number of at least 0 per member, not all 0"
            raise _refused("weights-invalid", f"weights {given} for {members} members", fix)
        need = None if quorum is None else _exact(quorum)
        if quorum is not None and (need is None or need <= 0):
            unbounded = "pass a quorum above 0: with 0, every pixel of every image would be on"
            raise _refused("quorum-invalid", f"quorum={quorum!r}", unbounded)
        known = [w for w in (*exact, need) if w is not None]
        total = sum(w for w in exact if w is not None)
        if need is not None and need > total:
            item = f"quorum={quorum!r}, all weights add up to {float(total):g}"
            raise _refused("quorum-invalid", item, "pass a quorum that the members can reach")
        unit = lcm(*(w.denominator for w in known))
        if sum(known) * unit > _MOST:
            item = f"weights {given} have no common unit below 2^60"
            raise _refused("weights-invalid", item, "write the weights with fewer decimals")
        return cls(
            tuple(int(w * unit) for w in exact if w is not None),
            unit,
            None if need is None else int(need * unit),
            ties,
            empty,
        )

    def need(self, total: int) -> int:
        """Return what the weights of the members that are on must add up to, of `total` that count."""
        if self.quorum is not None:
            return self.quorum
        return -(-total // 2) if self.ties == "on" else total // 2 + 1

    @property
    def logic(self) -> Literal["AND", "OR"] | None:
        """Tell whether the rule amounts to an AND or an OR of several members that all count."""
        counting = [w for w in self.weights if w > 0]
        total = sum(counting)
        if len(counting) < 2:
            return None
        if self.need(total) > total - min(counting):
            return "AND"
        return "OR" if self.need(total) <= min(counting) else None

    def __str__(self) -> str:
        total = sum(self.weights)
        equal = set(self.weights) == {self.unit}
        if self.quorum is None and not equal:
            half = "at least" if self.ties == "on" else "more than"
            words = f"on where the weight is {half} half of {self._number(total)}"
        else:
            what = "" if equal else "the weight is "
            words = f"on where {what}≥ {self._number(self.need(total))} of {self._number(total)}"
        if self.quorum is None and equal and total % 2 == 0:
            words += f" (an exact half is {self.ties})"
        if self.empty == "abstain":
            words += "; a member whose mask is empty abstains"
            words += ", and the majority is of the others" if self.quorum is None else ""
        if self.logic:
            words += f"; this is an {self.logic} of the members"
        return words

    def _number(self, weight: int) -> str:
        whole, rest = divmod(weight, self.unit)
        return f"{weight / self.unit:g}" if rest else str(whole)


def hard_vote(
    masks: Sequence[MaskSet],
    weights: Sequence[float] | None = None,
    quorum: float | None = None,
    ties: Literal["off", "on"] = "off",
    empty: Literal["vote", "abstain"] = "vote",
) -> MaskSet:
    """Vote over members' masks: a pixel is on iff the weights of the members that have it on reach the quorum.

    Parameters
    ----------
    masks : one MaskSet per member, all with the same samples, classes and sizes; joined by name.
    weights : one number per member; default: 1 each.
    quorum : what the weights must add up to; default: strictly more than half of the total.
    ties : whether an exact half of the total is on; only without `quorum`.
    empty : "vote" counts a member whose whole mask of a (sample, class) is empty, "abstain" leaves it out of the
        total; where all abstain the result is empty.

    Returns
    -------
    MaskSet
        Its `.rule` says in words which rule was in force, and whether it amounts to an AND or an OR.

    Raises
    ------
    UsageError
        A quorum of 0 or beyond the total, weights that are negative or all 0.
    MismatchError, IncompleteError
        Members of different samples, classes or sizes.

    Examples
    --------
    >>> from ensemble_kit import MaskSet, Runs
    >>> members = [MaskSet({("x", "bone"): Runs([k], [k + 3], (2, 4))}) for k in range(3)]
    >>> voted = hard_vote(members)
    >>> voted.rule, voted["x", "bone"].text()
    ('on where ≥ 2 of 3', '2 3')
    """
    check_kind("the members", masks, Sequence, "pass a list of MaskSets")
    for k, member in enumerate(masks, start=1):
        check_kind(f"member {k}", member, MaskSet)
    if not masks:
        raise _refused("members-none", "there is no member", "pass at least one mask set")
    from ensemble_kit.kernels import runs as kernels

    rule = VoteRule.of(len(masks), weights, quorum, ties, empty)
    first = masks[0]
    for k, other in enumerate(masks[1:], start=2):
        check_aligned(other.extent, first.extent, (f"member {k}", "member 1"))
    indices = [m.indices(first.samples, first.classes).reshape(-1) for m in masks]
    members = np.empty((len(masks), 4), np.int64)
    for given, own, where in zip(masks, members, indices, strict=True):
        kernels.locate(*given.packed, where, own)
    voted = kernels.weighted_votes(
        members,
        len(first),
        np.array(rule.weights, np.int64),
        rule.quorum or 0,
        int(rule.ties == "on"),
        rule.empty == "abstain",
    )
    return first.with_runs(ManyRuns(*voted), str(rule)).without_void()  # that of one member is not the vote's


def _exact(value: float) -> Fraction | int | None:
    if type(value) is int:
        return value
    try:
        return Fraction(str(value))
    except ValueError:
        return None


def _refused(code: str, item: str, fix: str) -> UsageError:
    return UsageError(code, "cannot vote", item=item, fix=fix)
