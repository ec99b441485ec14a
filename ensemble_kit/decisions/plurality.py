"""Hard votes over label maps: each pixel takes the label that most members give it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ensemble_kit.decisions.voting import VoteWeights
from ensemble_kit.errors import MismatchError, check_choice
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.packed import ManyRuns
from ensemble_kit.masks.runs import Runs
from ensemble_kit.masks.stretches import Stretches
from ensemble_kit.spec.label_table import is_background

if TYPE_CHECKING:
    from numpy.typing import NDArray

TIES = ("off", "first", "background")
_AT_ONCE = 1 << 20  # entries of a table of votes


@dataclass(frozen=True)
class LabelRule:
    """Which label a pixel takes: exact integers behind the words.

    Parameters
    ----------
    votes : what each member weighs, and the quorum.
    ties : what a pixel takes whose labels tie: none ("off"), the first of the tied classes, or background.
    empty : whether a member that labels no pixel of a sample counts ("vote") or not ("abstain").
    """

    votes: VoteWeights
    ties: str
    empty: str

    def __post_init__(self) -> None:
        check_choice("ties", self.ties, TIES, "cannot vote by label")

    def __str__(self) -> str:
        votes, of = self.votes, "members"
        if not votes.is_equal:
            of = "weight"
        words = f"each pixel takes the label of the most {of} (of {votes.written(sum(votes.weights))})"
        tied = {"off": "is void", "first": "takes the first of the classes", "background": "is background"}[self.ties]
        words += f"; a tie {tied}"
        if votes.quorum is not None:
            words += f"; below {votes.written(votes.quorum)} it is void"
        return words + ("; a member that labels nothing abstains" if self.empty == "abstain" else "")


def label_vote(masks: Sequence[MaskSet], rule: LabelRule) -> MaskSet:
    """Vote over exclusive masks, sample by sample.

    A member abstains at its void pixels. Where no class is background, a pixel of no class is background and a label
    like others, before the first class; where one is, the member abstains there. A pixel that gets no label is void:
    it has no class, and is among the void pixels where having no class would mean background.

    Parameters
    ----------
    masks : of the same samples, classes and sizes.

    Raises
    ------
    MismatchError
        A member whose classes overlap.
    """
    first = masks[0]
    for k, member in enumerate(masks, start=1):
        if not member.exclusive:
            raise MismatchError(
                "classes-overlap",
                "cannot vote by label",
                item=f"two classes of member {k} overlap",
                fix='vote class by class: by="class" (--by class)',
            )
    voted: list[Runs] = []
    void: dict[str, Runs] = {}
    for sample in first.samples:
        own, void[sample] = _vote_sample([(m, w) for m, w in zip(masks, rule.votes.weights, strict=True)], sample, rule)
        voted += own
    indices = np.arange(len(first)).reshape(len(first.samples), len(first.classes))
    won = MaskSet.trusted(first.extent.sizes, first.classes, ManyRuns.of(voted), indices, str(rule), void)
    return won.with_geometry(first.extent.geometry)


def _vote_sample(members: Sequence[tuple[MaskSet, int]], sample: str, rule: LabelRule) -> tuple[list[Runs], Runs]:
    """Return the masks of all classes, and void. Label 0 is no class, label k + 1 the k-th class."""
    classes = members[0][0].classes
    background = next((k + 1 for k, name in enumerate(classes) if is_background(name)), 0)
    runs = [[m[sample, name] for name in classes] for m, _ in members]
    voids = [m.void(sample) for m, _ in members]
    cut = Stretches.of([r for own in (*runs, voids) for r in own], members[0][0].image_size(sample))
    labels, counts = [], []
    for (_, weight), own, void in zip(members, runs, voids, strict=True):
        label = cut.sums((mask, k) for k, mask in enumerate(own, start=1))
        count = cut.sums([(void, 1)]) == 0
        if background:
            count &= label > 0
        if rule.empty == "abstain" and not any(mask.area for mask in own):
            count[:] = False
        labels.append(label)
        counts.append(weight * count)
    winner = np.empty(cut.lengths.size, np.int64)
    step = max(1, _AT_ONCE // (len(classes) + 1))
    for a in range(0, winner.size, step):
        part = slice(a, a + step)
        votes = np.zeros((winner[part].size, len(classes) + 1), np.int64)
        for label, count in zip(labels, counts, strict=True):
            votes[np.arange(votes.shape[0]), label[part]] += count[part]
        winner[part] = _winner(votes, background, rule)
    return [cut.runs(winner == k) for k in range(1, len(classes) + 1)], cut.runs((winner < 0) & (background == 0))


def _winner(votes: NDArray[np.int64], background: int, rule: LabelRule) -> NDArray[np.int64]:
    """Return the label of each row of votes (n, labels); -1 is void."""
    best, winner = votes.max(axis=1), votes.argmax(axis=1)
    if rule.ties != "first":
        tied = (votes == best[:, None]).sum(axis=1) > 1
        winner[tied] = background if rule.ties == "background" else -1
    winner[(best == 0) | (best < (rule.votes.quorum or 0))] = -1
    return winner
