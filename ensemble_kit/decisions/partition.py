"""Post-processing of classes that exclude each other: what one class loses another one gets, and the reverse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ensemble_kit.masks.packed import ManyRuns
from ensemble_kit.masks.runs import Runs

TOLD = (
    "classes exclude each other: pixels that a rule takes from a class go to the neighbour that shares most of their "
    "border, pixels that it adds are taken from the others"
)
"""What post-processing does to such classes, in words."""

_NONE, _BACK = -1, -2
"""Who gets a component that no mask does: no class, or the masks that it was in."""


def share_out(masks: list[Runs], after: Mapping[int, Runs], void: Runs, connectivity: int) -> None:
    """Put other masks in the place of some of several that exclude each other, so that they still do.

    Pixels that a mask gains are taken from the others. Of those that are lost, every component goes to the mask with
    which its pixels share most sides (of voxels: faces), of equal ones to the first. Pixels that no mask has and that
    are not void count as one more mask, behind all others. A component without a neighbour stays where it was. So
    where every pixel is in a mask or void, every pixel stays in one.

    Parameters
    ----------
    masks : is changed in place.
    after : what some of them become, by number.
    connectivity : of the components: 4 or 8, of volumes 6, 18 or 26.
    """
    from ensemble_kit.kernels import components as kernels
    from ensemble_kit.kernels.contacts import contacts

    before, shape = {k: masks[k] for k in after}, void.shape
    D, H, W = (1, *shape)[-3:]
    for k, mask in after.items():
        if gained := mask - before[k]:
            for other in range(len(masks)):
                masks[other] -= gained
        masks[k] = mask
    lost = _union([before[k] - mask for k, mask in after.items()])
    if len(after) > 1:
        lost -= _union(list(after.values()))
    if not lost:
        return
    starts, ends, labels, areas = kernels.components(lost.starts, lost.ends, H, W, connectivity)
    rivals = ManyRuns.of([*masks, lost, void - _union(masks) if void else void])
    sides = contacts(starts, ends, labels, areas.size, *rivals, D, H, W)
    shared = sides[:, : len(masks)]
    free = sides[:, -1] - sides[:, :-1].sum(1)
    winner = np.where(shared.max(1) >= np.maximum(free, 1), shared.argmax(1), np.where(free > 0, _NONE, _BACK))
    for k in set(winner.tolist()) - {_NONE}:
        given = Runs.trusted(kernels.keep(starts, ends, labels, winner == k), shape)
        for own, part in [(k, given)] if k != _BACK else [(own, given & mask) for own, mask in before.items()]:
            masks[own] |= part


def _union(masks: Sequence[Runs]) -> Runs:
    out = masks[0]
    for mask in masks[1:]:
        out |= mask
    return out
