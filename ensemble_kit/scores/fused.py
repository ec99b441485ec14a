"""Fused scores as values to keep: logits on the finest member's grid, or probabilities at the image's size."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from ensemble_kit.scores.inputs import Inputs, Member
from ensemble_kit.scores.sample import FusedSample
from ensemble_kit.spec.fusion import Fusion
from ensemble_kit.spec.mean import LEVELS, LOGIT, Mean

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ensemble_kit.spec.fusion import Activation
    from ensemble_kit.spec.geometry import Placement, Shape

_ROWS = 32  # of the image whose values, int64, are held at a time
_LEAST = 0.25  # the level that stands for 0, where a logarithm would be infinite: it rounds to 0


def placement(inputs: Inputs, sample: str) -> Placement:
    """Return where fused scores lie: on the grid of the member with the most cells, the first of equals."""
    return max((m.placement(sample) for m in inputs.members), key=lambda p: np.prod(p.grid))


def logits(inputs: Inputs, sample: str) -> NDArray[np.float16]:
    """Fuse a sample on the finest grid and return the logits of its levels, float16 (C, h, w).

    Overlapping classes: logit(p), within ±16. Exclusive classes: log p, with mean="logit" the mean logit less the
    cell's largest. The probability is kept to within 7/65535, that of exclusive classes to within 13/65535: the other
    classes' roundings come through their sum.
    """
    found, mean = grid_levels(inputs, sample), inputs.fusion.mean
    if inputs.activation == "softmax" and mean.of_logits:
        below = found.astype(np.float32) - found.max(axis=0)
        return (below * np.float32(32 / (LEVELS - 1))).astype(np.float16)
    return logit_table(mean, inputs.activation)[found]


@lru_cache(maxsize=8)
def logit_table(mean: Mean, activation: Activation) -> NDArray[np.float16]:
    """Return the logit that is kept for each level, float16 (65536,), ascending; read only."""
    from ensemble_kit.kernels.tables import LOGIT_RANGE

    if activation == "softmax":
        out = np.log(mean.probabilities(np.maximum(np.arange(LEVELS), _LEAST))).astype(np.float16)
    else:
        out = np.clip(mean.logits(), -LOGIT_RANGE, LOGIT_RANGE).astype(np.float16)
    out.setflags(write=False)
    return out


def member_levels(inputs: Inputs, sample: str, m: int) -> NDArray[np.uint16]:
    """Bring one member to the finest member's grid, as fusing does: uint16 (C, h, w).

    The levels are of logits, clipped to ±16; of exclusive classes of probabilities.
    """
    mean = Mean() if inputs.activation == "softmax" else LOGIT
    f, member, finest = inputs.fusion, inputs.members[m], placement(inputs, sample)
    weights = ((LEVELS,),) * len(inputs.classes)
    alone = Fusion(mean, "logits", f.members[m : m + 1], weights, f.temperatures[m : m + 1])
    own = member.placement(sample)
    if (own.grid, own.box) == (finest.grid, finest.box):
        return FusedSample(replace(inputs, members=(member,), fusion=alone), sample, "scores").levels()
    moved = replace(inputs, members=(_Onto(member, finest.box.shape),), fusion=alone)
    out = np.zeros((len(inputs.classes), *finest.grid), np.uint16)
    out[:, *finest.box.slices] = image_levels(FusedSample(moved, sample))
    return out


def grid_levels(inputs: Inputs, sample: str) -> NDArray[np.uint16]:
    """Fuse a sample on the finest grid: uint16 (C, h, w), 0 outside the box.

    Where members' grids or boxes differ they are interpolated to the finest one's: their scores, or with
    upsample="logits" their logits, as at the image's size.
    """
    if _fuses_cells(inputs, sample):
        return FusedSample(inputs, sample, "scores").levels()
    finest = placement(inputs, sample)
    out = np.zeros((len(inputs.classes), *finest.grid), np.uint16)
    out[:, *finest.box.slices] = image_levels(on_box(inputs, sample))
    return out


def on_box(inputs: Inputs, sample: str) -> FusedSample:
    """Open a sample as if its image were the finest member's box, to which members of other grids are interpolated."""
    shape = placement(inputs, sample).box.shape
    moved = replace(inputs, members=tuple(_Onto(m, shape) for m in inputs.members))
    return FusedSample(moved, sample, "scores" if _fuses_cells(inputs, sample) else None)


def _fuses_cells(inputs: Inputs, sample: str) -> bool:
    """Tell whether scores, not logits, are brought to the finest grid, or nothing has to be."""
    places, finest = [m.placement(sample) for m in inputs.members], placement(inputs, sample)
    return inputs.fusion.upsample == "scores" or all((p.grid, p.box) == (finest.grid, finest.box) for p in places)


def probabilities(inputs: Inputs, sample: str) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
    """Fuse a sample at the image's size: uint16 (C, H, W), and what each value stands for, float32 (65536,).

    The probability is the one that a threshold is compared with (docs/concepts.md#rule-4-decision); of exclusive
    classes with mean="logit" it is the share of the mean logits.
    """
    of_shares = inputs.activation == "softmax" and inputs.fusion.mean.of_logits
    found = image_levels(FusedSample(inputs, sample), of_shares)
    mean = Mean() if of_shares else inputs.fusion.mean
    return found, mean.probabilities(np.arange(LEVELS)).astype(np.float32)


def image_levels(scores: FusedSample, of_shares: bool = False) -> NDArray[np.uint16]:
    """Evaluate every pixel of a sample: uint16 (C, H, W).

    Parameters
    ----------
    of_shares : whether fused `q` of exclusive classes become the levels of their shares
        (docs/concepts.md#rule-9-exclusive-classes).
    """
    height = scores.image[0]
    out = np.empty((len(scores.inputs.classes), *scores.image), np.uint16)
    for first in range(0, height, _ROWS):
        rows = (scores.values(first, min(first + _ROWS, height)) + 32768) >> 16
        out[:, first : first + _ROWS] = _shares(rows) if of_shares else rows
    return out


def _shares(q: NDArray[np.int64]) -> NDArray[np.int64]:
    """Turn the `q` of all classes into the levels of their softmax, docs/concepts.md#rule-9-exclusive-classes."""
    from ensemble_kit.kernels import tables

    e = tables.exponentials()[q + LEVELS - 1 - q.max(axis=0)]
    total = e.sum(axis=0)
    return np.asarray((2 * (LEVELS - 1) * e + total) // (2 * total))


@dataclass(frozen=True)
class _Onto:
    """A member whose image is the box of another member's grid."""

    of: Member
    shape: Shape

    @property
    def member(self) -> str:
        return self.of.member

    @property
    def classes(self) -> tuple[str, ...]:
        return self.of.classes

    @property
    def activation(self) -> Activation:
        return self.of.activation

    def read(self, sample: str) -> NDArray[np.float16]:
        return self.of.read(sample)

    def placement(self, sample: str) -> Placement:
        return replace(self.of.placement(sample), image=self.shape)
