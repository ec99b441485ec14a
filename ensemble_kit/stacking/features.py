"""What the second stage sees of a pixel and class: members' logits there and around it, other classes, the fused mask.

docs/concepts.md#stacking lists the features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ensemble_kit.kernels.tables import LOGIT_RANGE
from ensemble_kit.scores import fused
from ensemble_kit.spec.mean import LOGIT, PROBABILITY

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ensemble_kit.scores.inputs import Inputs
    from ensemble_kit.spec.geometry import Shape

    Feature = NDArray[np.float32] | np.float32

SCALES = (1 / 48, 1 / 16, 1 / 5)
"""Widths of the boxes over which logits are averaged, as shares of the image's mean side."""
_OTHERS = 1 / 48  # width of the box over which the other classes' best score is averaged
_SUMS = ("others", "others near", "area", "peak", "disagreement")


def names(members: Sequence[str], rank: int = 2) -> tuple[str, ...]:
    """Name the features, in their order."""
    axes = ("z", "y", "x")[-rank:]
    squares = [a + b for k, a in enumerate(axes) for b in axes[k:]]
    near = [f"{m}:box {k}" for m in members for k in range(1, len(SCALES) + 1)]
    return (*members, *near, *_SUMS, *axes, *squares, "one")


def prior(members: Sequence[str], rank: int = 2) -> NDArray[np.float64]:
    """Return the coefficients that make the mean of members' logits, to which a fit is pulled: float64 (features,)."""
    out = np.zeros(len(names(members, rank)))
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
        self._logits = [member_logits(inputs, sample, m)[:, *box.slices] for m in range(len(inputs.members))]
        own = replace(inputs, fusion=replace(inputs.fusion, mean=PROBABILITY))
        table = np.clip(PROBABILITY.logits(), -LOGIT_RANGE, LOGIT_RANGE).astype(np.float32)
        self._fused = table[fused.grid_levels(own, sample)[:, *box.slices]]

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
            yield from (_box_mean(logits, self._width(share)) for share in SCALES)
        others = np.where(self._best_class == c, self._second, self._best)
        yield others
        yield _box_mean(others, self._width(_OTHERS))
        fused_here = self._fused[c]
        yield np.float32(np.log1p(np.count_nonzero(fused_here >= 0) / fused_here.size * 1e4))
        yield fused_here.max()
        yield np.ptp(np.stack(own), axis=0)
        yield from self._position
        yield np.float32(1)

    def _width(self, share: float) -> int:
        return 2 * round(share * float(np.mean(self.shape)) / 2) + 1

    @cached_property
    def _best_class(self) -> NDArray[np.intp]:
        return self._fused.argmax(axis=0)

    @cached_property
    def _best(self) -> NDArray[np.float32]:
        return self._fused.max(axis=0)

    @cached_property
    def _second(self) -> NDArray[np.float32]:
        if len(self._fused) == 1:
            return np.full(self.shape, -LOGIT_RANGE, np.float32)
        return np.partition(self._fused, -2, axis=0)[-2]

    @cached_property
    def _position(self) -> list[NDArray[np.float32]]:
        sides = [((2 * np.arange(n) + 1) / n - 1).astype(np.float32) for n in self.shape]
        axes = np.meshgrid(*sides, indexing="ij")
        return [*axes, *(a * b for k, a in enumerate(axes) for b in axes[k:])]


def member_logits(inputs: Inputs, sample: str, m: int) -> NDArray[np.float32]:
    """Return the logits of member number `m` on the finest member's grid, within ±16: float32 (C, *grid).

    Of exclusive classes the logit of each class's probability.
    """
    levels = fused.member_levels(inputs, sample, m)
    mean = LOGIT if inputs.activation == "sigmoid" else PROBABILITY
    return np.clip(mean.logits(), -LOGIT_RANGE, LOGIT_RANGE).astype(np.float32)[levels]


def _box_mean(values: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    from scipy.ndimage import uniform_filter

    return np.asarray(uniform_filter(values, width, mode="nearest"))
