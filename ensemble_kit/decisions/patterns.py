"""`Votes` and `Ballots`: members' labels of one sample cut into stretches, and the patterns of votes of several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ensemble_kit.masks.packed import ManyRuns
from ensemble_kit.masks.runs import Runs

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Ballots(NamedTuple):
    """Every combination of members' labels that occurs, and its pixels: all that a fusion of labels looks at.

    Parameters
    ----------
    labels : int16 (P, M), what each member says, 0 … L-1; -1 where it abstains.
    pixels : int64 (P,).
    kinds : L, how many labels there are.
    """

    labels: NDArray[np.int16]
    pixels: NDArray[np.int64]
    kinds: int

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many members give each label, int64 (P, L)."""
        return np.stack([(self.labels == k).sum(axis=1) for k in range(self.kinds)], axis=1)


class Votes(NamedTuple):
    """One sample, cut where a member's label changes.

    Parameters
    ----------
    edges : int64 (k,), where each stretch begins.
    which : int64 (k,), the pattern of each stretch.
    labels, pixels : of each pattern, as `Ballots` has them.
    size : number of pixels.
    """

    edges: NDArray[np.int64]
    which: NDArray[np.int64]
    labels: NDArray[np.int16]
    pixels: NDArray[np.int64]
    size: int

    @classmethod
    def of(cls, masks: Sequence[Sequence[Runs]], voids: Sequence[Runs], size: int, unlabelled: int = 0) -> Votes:
        """Sweep over the edges of members' masks.

        Parameters
        ----------
        masks : of each member one a label, the labels from `unlabelled + 1` on; they exclude each other.
        voids : of each member, where it abstains.
        unlabelled : the label of a pixel in no mask: 0, or -1 where the member abstains there.
        """
        from ensemble_kit.kernels import patterns as kernels

        ends, members, steps = [np.zeros(0, np.int64)], [], []
        for m, (own, void) in enumerate(zip(masks, voids, strict=True)):
            marked = [(mask - void if void else mask, k) for k, mask in enumerate(own, start=1)]
            for mask, step in [*marked, (void, -1 - unlabelled)]:
                if mask and step:
                    ends += [mask.starts, mask.ends]
                    members.append((m, 2 * len(mask)))
                    steps += [(step, len(mask)), (-step, len(mask))]
        positions = np.concatenate(ends)
        order = np.argsort(positions, kind="stable")  # which merges what is sorted already
        first = np.full(len(masks), unlabelled, np.int64)
        given = positions[order], _spread(members)[order], _spread(steps)[order]
        edges, which, labels, pixels = kernels.patterns(*given, first, size)
        return cls(edges, which, labels, pixels, size)

    def runs(self, labels: NDArray[np.int64], kinds: int) -> ManyRuns:
        """Make the masks of the labels 0 … kinds-1, which each pattern has got, int64 (P,); a negative one is none."""
        from ensemble_kit.kernels import labels as kernels

        return ManyRuns(*kernels.runs_of(self.edges, labels[self.which], self.size, kinds))


def together(several: Sequence[Votes], kinds: int) -> tuple[Ballots, list[NDArray[np.int64]]]:
    """Join the patterns of some samples; and return, of each sample, which of them its own patterns are."""
    if len(several) == 1:
        votes = several[0]
        return Ballots(votes.labels, votes.pixels, kinds), [np.arange(votes.pixels.size)]
    labels, where = np.unique(np.concatenate([v.labels for v in several]), axis=0, return_inverse=True)
    pixels = np.zeros(len(labels), np.int64)
    np.add.at(pixels, where.reshape(-1), np.concatenate([v.pixels for v in several]))
    cuts = np.cumsum([v.pixels.size for v in several])[:-1]
    return Ballots(labels, pixels, kinds), np.split(where.reshape(-1), cuts)


def _spread(pairs: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """Repeat each number as often as the one beside it says."""
    numbers, times = np.array(pairs, np.int64).reshape(-1, 2).T
    return np.repeat(numbers, times)
