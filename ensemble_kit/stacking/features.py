"""What the second stage sees of a cell and class: members' logits there and around it, other classes, the fused mask.

docs/concepts.md#stacking lists the features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from ensemble_kit.kernels.tables import LOGIT_RANGE
from ensemble_kit.once import once
from ensemble_kit.scores import fused
from ensemble_kit.spec.fusion import folds_of
from ensemble_kit.spec.mean import LOGIT, PROBABILITY

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ensemble_kit.scores.inputs import Inputs
    from ensemble_kit.spec.geometry import Shape

    Feature = NDArray[np.float32] | np.float32

SCALES = (1 / 48, 1 / 16, 1 / 5)
"""Widths of the boxes over which a member's logits are averaged, as shares of the grid's mean side, or of each side."""
NEAR = 1 / 5
"""Width of the box over which each class's fused probability is averaged: where the classes lie to each other."""
MOST_CLASSES = 64
"""With more classes than this their fused probabilities nearby are left out: their number is squared in a fit."""
_OTHERS = 1 / 48  # width of the box over which the other classes' best score is averaged
_OF_FUSED = ("mean above 0", "fused", "others", "others near", "lead", "area", "fused x area", "peak", "disagreement")


def names(members: Sequence[str], classes: Sequence[str]) -> tuple[str, ...]:
    """Name the features, in their order."""
    boxes = [f"{m}:box {k}" for m in members for k in range(1, len(SCALES) + 1)]
    near = [f"near:{name}" for name in classes] if len(classes) <= MOST_CLASSES else []
    return (*members, *boxes, *_OF_FUSED, *near, "one")


def prior(members: Sequence[str], classes: Sequence[str]) -> NDArray[np.float64]:
    """Return the coefficients that make the mean of members' logits, to which a fit is pulled: float64 (features,)."""
    out = np.zeros(len(names(members, classes)))
    out[: len(members)] = 1 / len(members)
    return out


class SampleFeatures:
    """The features of one sample, class by class, on the finest member's grid.

    Parameters
    ----------
    inputs : members of distinct names, sorted; fused with equal weights.
    sample : its id.
    """

    def __init__(self, inputs: Inputs, sample: str) -> None:
        self.inputs = inputs
        self.placement = fused.placement(inputs, sample)
        box = self.placement.box
        own = replace(inputs, fusion=replace(inputs.fusion, mean=PROBABILITY))
        table = np.clip(PROBABILITY.logits(), -LOGIT_RANGE, LOGIT_RANGE).astype(np.float32)
        self._fused = table[fused.grid_levels(own, sample)[:, *box.slices]]
        ends = np.cumsum([0, *folds_of(inputs.fusion.members)]).tolist()  # of one member folds are one feature
        self._logits = [self._of_member(sample, range(*of)) for of in pairwise(ends)]

    def _of_member(self, sample: str, which: range) -> NDArray[np.float32]:
        """Take the logits of a member, or of its folds; where it has no say, those of the members that have."""
        own = member_logits(self.inputs, sample, which)[:, *self.placement.box.slices]
        where = fused.says(self.inputs, sample, which)
        return own if where is None else np.where(where, own, self._fused)

    @property
    def shape(self) -> Shape:
        """Cells that cover the image."""
        return self.placement.box.shape

    def fused(self, c: int) -> NDArray[np.float32]:
        """Return the fused logit of class number `c`, float32 of `shape`."""
        return self._fused[c]

    def of(self, c: int) -> Iterator[Feature]:
        """Yield the features of class number `c` in the order of `names`: float32 of `shape`, or one for all cells."""
        own = [logits[c] for logits in self._logits]
        yield from own
        for logits in own:
            yield from (_box_mean(logits, self._widths(share)) for share in SCALES)
        mean, fused_here = np.mean(own, axis=0, dtype=np.float32), self._fused[c]
        others = np.where(self._best_class == c, self._second, self._best)
        area = np.float32(np.log1p(np.count_nonzero(fused_here >= 0) / fused_here.size * 1e4))
        yield from (np.maximum(mean, 0), fused_here, others, _box_mean(others, self._widths(_OTHERS)))
        yield from (np.maximum(fused_here - others, 0), area, fused_here * area, fused_here.max())
        yield np.ptp(np.stack(own), axis=0)
        yield from self._near
        yield np.float32(1)

    def _widths(self, share: float) -> tuple[int, ...]:
        """Return the sides of a box in cells, odd; a volume has as many of its slices as they are, however thick."""
        sides = self.shape if len(self.shape) == 3 else (float(np.mean(self.shape)),) * 2
        return tuple(2 * round(share * side / 2) + 1 for side in sides)

    @once
    def _best_class(self) -> NDArray[np.intp]:
        return self._fused.argmax(axis=0)

    @once
    def _best(self) -> NDArray[np.float32]:
        return self._fused.max(axis=0)

    @once
    def _second(self) -> NDArray[np.float32]:
        if len(self._fused) == 1:
            return np.full(self.shape, -LOGIT_RANGE, np.float32)
        return np.partition(self._fused, -2, axis=0)[-2]

    @once
    def _near(self) -> list[NDArray[np.float32]]:
        if len(self._fused) > MOST_CLASSES:
            return []
        widths = self._widths(NEAR)
        return [_box_mean(1 / (1 + np.exp(-logits)), widths) for logits in self._fused]


def member_logits(inputs: Inputs, sample: str, which: range) -> NDArray[np.float32]:
    """Return the logits of a member, or of the folds `which` of it, on the finest grid, within ±16: float32 (C, *grid).

    Of exclusive classes the logit of each class's probability.
    """
    levels = fused.member_levels(inputs, sample, which)
    mean = LOGIT if inputs.activation == "sigmoid" else PROBABILITY
    return np.clip(mean.logits(), -LOGIT_RANGE, LOGIT_RANGE).astype(np.float32)[levels]


def _box_mean(values: NDArray[np.float32], widths: Sequence[int]) -> NDArray[np.float32]:
    from scipy.ndimage import uniform_filter

    return np.asarray(uniform_filter(values, widths, mode="nearest"))
