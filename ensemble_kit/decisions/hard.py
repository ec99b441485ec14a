"""Hard votes over members' masks, run by run (docs/concepts.md#rule-6-hard-vote)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from ensemble_kit.decisions.abstaining import abstaining, together
from ensemble_kit.decisions.label_fusion import Fusion, FusionRule, fuse_labels, method_of, refuse_beside
from ensemble_kit.decisions.plurality import LabelRule, label_vote
from ensemble_kit.decisions.voting import VoteWeights, refused
from ensemble_kit.errors import check_choice, check_kind
from ensemble_kit.masks.alignment import check_aligned, check_same_classes
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.packed import ManyRuns
from ensemble_kit.masks.runs import Runs
from ensemble_kit.masks.stretches import Stretches

if TYPE_CHECKING:
    from numpy.typing import NDArray

By = Literal["class", "label"]
Ties = Literal["off", "on", "first", "background"]
Empty = Literal["vote", "abstain"]


@dataclass(frozen=True)
class VoteRule:
    """When a pixel of a class is on.

    Parameters
    ----------
    votes : what each member weighs, and the quorum; without one, the majority of the members that count.
    ties : what an exact half gives, where there is no quorum.
    empty : whether a member whose mask is empty counts ("vote") or not ("abstain").
    """

    votes: VoteWeights
    ties: Ties
    empty: Empty

    def __post_init__(self) -> None:
        check_choice("ties", self.ties, ("off", "on"), "cannot vote")

    def need(self, total: int) -> int:
        """Return what the weights of the members that are on must add up to, of `total` that count."""
        if self.votes.quorum is not None:
            return self.votes.quorum
        return -(-total // 2) if self.ties == "on" else total // 2 + 1

    def need_of(self, totals: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return `need` of each of some totals."""
        if self.votes.quorum is not None:
            return np.full_like(totals, self.votes.quorum)
        return -(-totals // 2) if self.ties == "on" else totals // 2 + 1

    @property
    def logic(self) -> Literal["AND", "OR"] | None:
        """Tell whether the rule amounts to an AND or an OR of several members that all count."""
        counting = [w for w in self.votes.weights if w > 0]
        total = sum(counting)
        if len(counting) < 2:
            return None
        if self.need(total) > total - min(counting):
            return "AND"
        return "OR" if self.need(total) <= min(counting) else None

    def __str__(self) -> str:
        total = sum(self.votes.weights)
        equal = self.votes.is_equal
        if self.votes.quorum is None and not equal:
            half = "at least" if self.ties == "on" else "more than"
            words = f"on where the weight is {half} half of {self.votes.written(total)}"
        else:
            what = "" if equal else "the weight is "
            words = f"on where {what}≥ {self.votes.written(self.need(total))} of {self.votes.written(total)}"
        if self.votes.quorum is None and equal and total % 2 == 0:
            words += f" (an exact half is {self.ties})"
        if self.empty == "abstain":
            words += "; a member whose mask is empty abstains"
            words += ", and the majority is of the others" if self.votes.quorum is None else ""
        if self.logic:
            words += f"; this is an {self.logic} of the members"
        return words


def rule_of(
    members: int,
    weights: Sequence[float] | None = None,
    quorum: float | None = None,
    ties: Ties = "off",
    empty: Empty = "vote",
    by: By = "class",
    fusion: Fusion | None = None,
) -> VoteRule | LabelRule | FusionRule:
    """Check the options of a hard vote and make them exact.

    Parameters
    ----------
    members : how many; the others are those of `hard_vote`.

    Raises
    ------
    UsageError
        As for `hard_vote`.
    """
    check_choice("by", by, ("class", "label"), "cannot vote")
    check_choice("empty", empty, ("vote", "abstain"), "cannot vote")
    if (method := method_of(fusion)) is not None:
        own_ties, own_empty = None if ties == "off" else ties, None if empty == "vote" else empty
        refuse_beside(method, weights=weights, quorum=quorum, ties=own_ties, empty=own_empty)
        return FusionRule(method, members, by)
    votes = VoteWeights.of(members, weights, quorum)
    return LabelRule(votes, ties, empty) if by == "label" else VoteRule(votes, ties, empty)


def hard_vote(
    masks: Sequence[MaskSet],
    weights: Sequence[float] | None = None,
    quorum: float | None = None,
    ties: Ties = "off",
    empty: Empty = "vote",
    by: By = "class",
    fusion: Fusion | None = None,
    names: Sequence[str] | None = None,
) -> MaskSet:
    """Vote over members' masks: a pixel is on iff the weights of the members that have it on reach the quorum.

    With by="label" the members' masks are label maps, and each pixel takes the label of the largest weight.

    Parameters
    ----------
    masks : one MaskSet per member, all with the same samples, classes and sizes; joined by name.
    weights : one number per member; default: 1 each.
    quorum : what the weights must add up to; default: strictly more than half of the total.
        With by="label": what the largest weight must reach, or the pixel is void.
    ties : whether an exact half of the total is on; only without `quorum`. With by="label" what a pixel takes whose
        labels tie: none, so that it is void ("off"), the "first" of the tied classes, or "background".
    empty : "vote" counts a member whose whole mask of a (sample, class) is empty, "abstain" leaves it out of the
        total; where all abstain the result is empty. With by="label" it speaks of a sample without any label.
    by : "class" decides each class by itself; "label" gives each pixel at most one class. Where no class is
        background, pixels without a class are the background, and a label too.
    fusion : how the members' votes are combined: "majority" (None, the default), or "staple" or "simple" and their
        options as text, such as "staple:pooled,region=disagreement", or a `Staple` or `Simple`. Those two estimate how
        well each member votes, from all votes; the weights, the quorum, ties and empty masks are then not the
        caller's. By label: "staple" alone.
    names : of the members, in `.quality` and in its warnings; default: "member 1", "member 2", …

    A member abstains at its void pixels, and outside of the windows that it saw (`MaskSet.with_windows`), where another
    one saw the image; where all abstain no class is on.

    Returns
    -------
    MaskSet
        Its `.rule` says in words which rule was in force, and whether it amounts to an AND or an OR. With "staple" or
        "simple", `.quality` says how well each member votes: printed it is a table, and it has `.table()` (a pandas
        frame by sample, class and member), `.mean(figure)`, `.inverted`, `.confusion` of label maps, and `.to_dict()`.

    Raises
    ------
    UsageError
        A quorum of 0 or beyond the total, weights that are negative or all 0; one of them beside "staple" or "simple".
    MismatchError, IncompleteError
        Members of different samples, classes or sizes; with by="label", a member whose classes overlap.

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
        raise refused("members-none", "there is no member", "pass at least one mask set")
    rule = rule_of(len(masks), weights, quorum, ties, empty, by, fusion)
    joined, *others = extents = [m.extent for m in masks]
    for k, own in enumerate(others, start=2):
        both = (f"member {k}", "member 1")
        if own.classes != joined.classes:
            check_same_classes(own.classes, joined.classes, both, "cannot vote", _of_classes(masks))
        check_aligned(own, joined, both)
        if own.geometry:
            joined = joined._replace(geometry={**own.geometry, **joined.geometry})
    if joined.geometry:
        masks = [masks[0].with_geometry(joined.geometry), *masks[1:]]
    if not any(extent.windows for extent in extents):
        return _voted(masks, rule, names)
    weights = [1] * len(masks) if isinstance(rule, FusionRule) else list(rule.votes.weights)
    heard = [m for m, weight in zip(masks, weights, strict=True) if weight]
    return _voted(abstaining(masks, weights), rule, names).with_windows(together(heard))


def _of_classes(masks: Sequence[MaskSet]) -> str:
    """Say how masks of different classes can be voted on."""
    common = [name for name in masks[0].classes if all(name in other.classes for other in masks)]
    keep = f"keep those that all have (ensk convert FILE --only {','.join(common)}; masks.arranged(samples, {common}))"
    fuse = "fuse members' scores, each class over those that have it (ensk vote STORE... --soft --member-classes union)"
    return f"{keep}; or {fuse}" if common else fuse


def _voted(masks: Sequence[MaskSet], rule: VoteRule | LabelRule | FusionRule, names: Sequence[str] | None) -> MaskSet:
    """Vote over members that fit each other."""
    from ensemble_kit.kernels import runs as kernels

    if isinstance(rule, FusionRule):
        return fuse_labels(masks, rule, names)
    if isinstance(rule, LabelRule):
        return label_vote(masks, rule)
    if any(m.has_void for m in masks):
        return _vote_with_void(masks, rule)
    first = masks[0]
    indices = [m.indices(first.samples, first.classes).reshape(-1) for m in masks]
    members = np.empty((len(masks), 4), np.int64)
    for given, own, where in zip(masks, members, indices, strict=True):
        kernels.locate(*given.packed, where, own)
    voted = kernels.weighted_votes(
        members,
        len(first),
        np.array(rule.votes.weights, np.int64),
        rule.votes.quorum or 0,
        int(rule.ties == "on"),
        rule.empty == "abstain",
    )
    return first.with_runs(ManyRuns(*voted), str(rule))


def _vote_with_void(masks: Sequence[MaskSet], rule: VoteRule) -> MaskSet:
    """Vote stretch by stretch: a member does not count at its void pixels."""
    first, voted = masks[0], list[Runs]()
    for sample in first.samples:
        shape, voids = first.image_size(sample), [m.void(sample) for m in masks]
        for name in first.classes:
            own = [m[sample, name] for m in masks]
            cut = Stretches.of([*own, *voids], shape)
            on, total = np.zeros((2, cut.lengths.size), np.int64)
            for mask, hidden, weight in zip(own, voids, rule.votes.weights, strict=True):
                if rule.empty == "vote" or mask.area:
                    counts = weight * (cut.sums([(hidden, 1)]) == 0)
                    total += counts
                    on += counts * cut.sums([(mask, 1)])
            voted.append(cut.runs((total > 0) & (on >= rule.need_of(total))))
    return first.with_runs(ManyRuns.of(voted), str(rule)).without_void()  # that of one member is not the vote's
