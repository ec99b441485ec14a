"""Undecided pixels of one sample by members' own masks: of volumes, and of members that saw windows of the image.

A pixel is open where some member that has a say there reaches the band of levels, and not all of them lie above it. So
two masks of each member tell which pixels those are, by whatever is fast for such a sample, and only they are
evaluated. Which members have a say differs from region to region, and so do the weights of a trial.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import pairwise
from operator import and_, or_
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ensemble_kit.masks.packed import ManyRuns
from ensemble_kit.masks.runs import Runs
from ensemble_kit.masks.windows import inside
from ensemble_kit.scores import space
from ensemble_kit.scores.fusing import open_sample
from ensemble_kit.scores.inputs import Inputs
from ensemble_kit.scores.sample import FusedSample
from ensemble_kit.spec.fusion import Fusion
from ensemble_kit.spec.geometry import Box, Placement, Shape
from ensemble_kit.spec.mean import LEVELS, LOGIT, PROBABILITY
from ensemble_kit.tuning.search.undecided import Kind, Which
from ensemble_kit.tuning.truth import Truth

if TYPE_CHECKING:
    from numpy.typing import NDArray

_AT_ONCE = 1 << 22
"""About the most pixels that are evaluated at a time, of all classes together."""


class Part(NamedTuple):
    """Pixels of one class in a region, void ones left out.

    Parameters
    ----------
    values : uint16 (n, M), of the undecided ones, hits first; 0 for members that have no say.
    hits : how many of these are hits.
    above, above_hits, truth, inside : pixels decided on, hits among them, hits in all, pixels in all.
    """

    values: NDArray[np.uint16]
    hits: int
    above: int
    above_hits: int
    truth: int
    inside: int = 0


def undecided_of(
    inputs: Inputs, sample: str, kind: Kind, bands: Sequence[tuple[int, int]], stride: int, truth: Truth
) -> list[dict[Which, Part]]:
    """Collect a sample's undecided pixels: of each class the part of each region, by the members that have a say there.

    Parameters
    ----------
    kind, bands : what is stored, and of each class the values between which thresholds will be looked for.
    stride : every stride-th pixel of every stride-th row, counted through all slices, stands for the rest.
    """
    alone = [open_sample(_alone(inputs, m, kind), sample) for m in range(len(inputs.members))]
    image, lattice = alone[0].image, _Lattice(alone[0].image[-1], stride)
    lows, highs = ([_masks(s, [band[k] for band in bands]) for s in alone] for k in (0, 1))
    out: list[dict[Which, Part]] = [{} for _ in bands]
    for which, region in _regions([m.placement(sample) for m in inputs.members], image):
        here, none = region if truth.void is None else region - truth.void, Runs.empty(image)
        above = [reduce(and_, (highs[m][c] for m in which), here) if which else none for c in range(len(bands))]
        some = [here & reduce(or_, (lows[m][c] for m in which), none) for c in range(len(bands))]
        parts = _values(alone, which, [a - b for a, b in zip(some, above, strict=True)], truth.masks, lattice)
        for c, (values, hits) in enumerate(parts):
            wanted = truth.masks[c]
            counts = above[c], above[c] & wanted, here & wanted, here
            out[c][which] = Part(values, hits, *(lattice.count(runs) for runs in counts))
    return out


def _alone(inputs: Inputs, m: int, kind: Kind) -> Inputs:
    """Take one member whose fused level is the value that is stored of it."""
    f, late = inputs.fusion, kind == "q" or (inputs.activation == "softmax" and inputs.fusion.upsample == "logits")
    weights, mean = ((LEVELS,),) * len(inputs.classes), LOGIT if kind == "q" else PROBABILITY
    fusion = Fusion(mean, "logits" if late else "scores", (f.members[m],), weights, (f.temperatures[m],))
    return Inputs((inputs.members[m],), inputs.classes, fusion)


def _masks(scores: FusedSample, levels: Sequence[int]) -> list[Runs]:
    """Decide every class; no pixel reaches level 65536."""
    reachable = {c: level for c, level in enumerate(levels) if level < LEVELS}
    found = dict(zip(reachable, scores.decide(reachable).masks(scores.image), strict=True)) if reachable else {}
    return [found.get(c, Runs.empty(scores.image)) for c in range(len(levels))]


def _regions(places: Sequence[Placement], image: Shape) -> Iterator[tuple[Which, Runs]]:
    """Yield the sets of members that have a say somewhere, and where they do; () is nobody."""
    cut, solid = space.boxes([p.solid for p in places]), places[0].solid.image
    found: dict[Which, list[Runs]] = {}
    for box in np.ndindex(cut.sets.shape):
        number = int(cut.sets[box])
        ends = [(int(edges[k]), int(edges[k + 1])) for edges, k in zip(cut.at, box, strict=True)]
        own = inside(Box(*(a for a, _ in ends), *(b for _, b in ends)), solid)
        found.setdefault(cut.members[number] if number >= 0 else (), []).append(own)
    for which, parts in found.items():
        region = reduce(or_, parts)
        yield which, Runs.trusted((region.starts, region.ends), image)


def _values(
    alone: Sequence[FusedSample], which: Which, masks: Sequence[Runs], truth: Sequence[Runs], lattice: _Lattice
) -> Iterator[tuple[NDArray[np.uint16], int]]:
    """Evaluate some members at the pixels of each class's mask: their values, hits first, and how many are hits."""
    image, packed = alone[0].image, ManyRuns.of(masks)
    pieces = -(-sum(mask.area for mask in masks) // _AT_ONCE)
    edges = np.linspace(0, int(np.prod(image)), pieces + 1).astype(np.int64).tolist()
    found: list[list[list[NDArray[np.uint16]]]] = [
        [[np.empty((0, len(alone)), np.uint16)] for _ in range(2)] for _ in masks
    ]
    for first, stop in pairwise(edges):
        part = packed.between(first, stop).masks(image)
        columns = [alone[m].pixels_of(range(len(masks)), part) for m in which]
        for c, own in enumerate(zip(*columns, strict=True)):
            positions = own[0][0]
            kept = lattice.holds(positions)
            values = np.zeros((int(kept.sum()), len(alone)), np.uint16)
            for m, (_, levels) in zip(which, own, strict=True):
                values[:, m] = levels[kept]
            hit = _within(truth[c], positions[kept])
            found[c][0].append(values[hit])
            found[c][1].append(values[~hit])
    for hits, misses in found:
        yield np.concatenate([*hits, *misses]), sum(len(part) for part in hits)


def _within(mask: Runs, positions: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which positions lie in a mask."""
    k = np.searchsorted(mask.starts, positions, "right") - 1
    ends = np.append(mask.ends, 0)  # the last stands for what lies before the first run
    return positions < ends[k]


class _Lattice(NamedTuple):
    """Every stride-th pixel of every stride-th row."""

    width: int
    stride: int

    def holds(self, positions: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell which positions are of it."""
        first = self.stride // 2
        rows, cols = np.divmod(positions, self.width)
        return np.asarray((rows % self.stride == first) & (cols % self.stride == first))

    def count(self, mask: Runs) -> int:
        """Count its pixels in a mask."""
        if self.stride == 1:
            return mask.area
        return int((self._before(mask.ends) - self._before(mask.starts)).sum())

    def _before(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Count its pixels before each position."""
        rows, cols = np.divmod(positions, self.width)
        in_row = np.where(rows % self.stride == self.stride // 2, self._of(cols), 0)
        return np.asarray(self._of(rows) * self._of(np.int64(self.width)) + in_row)

    def _of(self, n: NDArray[np.int64] | np.int64) -> NDArray[np.int64]:
        """Count the rows, or columns, of it among the first `n`."""
        return np.asarray((n + self.stride - 1 - self.stride // 2) // self.stride)
