"""Post-processing of classes that exclude each other: what one class loses another one gets, and the reverse."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ensemble_kit.masks.packed import ManyRuns
from ensemble_kit.masks.runs import Runs

TOLD = (
    "classes exclude each other: pixels that a rule takes from a class go to the neighbour that shares most of their "
    "border, pixels that it adds are taken from the others"
)
"""What post-processing does to such classes, in words."""


def share_out(masks: list[Runs], changed: int, after: Runs, void: Runs, connectivity: int) -> None:
    """Put another mask in the place of one of several that exclude each other, so that they still do.

    Pixels that the mask gains are taken from the others. Of those that it loses, every component goes to the mask with
    which its pixels share most sides, of equal ones to the first. Pixels that no mask has and that are not void count
    as one more mask, behind all others. A component without a neighbour stays where it was. So where every pixel is in
    a mask or void, every pixel stays in one.

    Parameters
    ----------
    masks : is changed in place.
    changed : which of them becomes `after`.
    connectivity : 4 or 8, of the components.
    """
    from ensemble_kit.kernels import components as kernels
    from ensemble_kit.kernels.contacts import contacts

    before, (H, W) = masks[changed], after.shape
    if gained := after - before:
        for k, mask in enumerate(masks):
            masks[k] = mask - gained
    masks[changed] = after
    lost = before - after
    if not lost:
        return
    starts, ends, labels, areas = kernels.components(lost.starts, lost.ends, W, connectivity)
    rivals = ManyRuns.of([*masks, lost, void - _union(masks) if void else void])
    sides = contacts(starts, ends, labels, areas.size, *rivals, H, W)
    own = sides[:, : len(masks)]
    free = sides[:, -1] - sides[:, :-1].sum(1)
    winner = np.where(own.max(1) >= np.maximum(free, 1), own.argmax(1), np.where(free > 0, -1, changed))
    for k in set(winner.tolist()) - {-1}:
        given = Runs.trusted(kernels.keep(starts, ends, labels, winner == k), after.shape)
        masks[k] |= given


def _union(masks: Sequence[Runs]) -> Runs:
    out = masks[0]
    for mask in masks[1:]:
        out |= mask
    return out
