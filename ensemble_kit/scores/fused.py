"""Fused scores as values to keep: logits on a grid that the members share, or probabilities at the image's size."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from ensemble_kit.scores import space
from ensemble_kit.scores.fusing import open_sample
from ensemble_kit.scores.inputs import Inputs
from ensemble_kit.scores.reframed import Reframed
from ensemble_kit.scores.sample import FusedSample
from ensemble_kit.spec.fusion import Fusion
from ensemble_kit.spec.geometry import Box, Placement
from ensemble_kit.spec.mean import LEVELS, LOGIT, Mean

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ensemble_kit.spec.fusion import Activation
    from ensemble_kit.spec.geometry import Shape

    Room = Callable[[Shape], NDArray[np.uint16]]

SLAB = 1 << 24
"""Most bytes of logits of a slab, as stores keep volumes."""
_ROWS = 32  # of the image whose values, int64, are held at a time
_LEAST = 0.25  # the level that stands for 0, where a logarithm would be infinite: it rounds to 0


def in_memory(shape: Shape) -> NDArray[np.uint16]:
    """Return room for codes, zeros."""
    return np.zeros(shape, np.uint16)


def placement(inputs: Inputs, sample: str) -> Placement:
    """Return where fused scores lie: on the grid of the member with the most cells, the first of equals.

    Where members saw different windows of the image no grid lies over all their pixels: then each pixel of the box
    around the windows is a cell. Members that weigh nothing are left out.
    """
    places = [m.placement(sample) for m in inputs.heard.members]
    if share_window(inputs, sample):
        return max(places, key=lambda p: math.prod(p.grid))
    windows = [p.covered for p in places]
    start, stop = (
        [of(edges) for edges in zip(*ends, strict=True)]
        for of, ends in ((min, [w.start for w in windows]), (max, [w.stop for w in windows]))
    )
    around = Box(*start, *stop)
    return Placement.of(around.shape, places[0].image, window=around)


def share_window(inputs: Inputs, sample: str) -> bool:
    """Tell whether the members that weigh something saw the same pixels of a sample's image."""
    return len({m.placement(sample).window for m in inputs.heard.members}) == 1


def check_placed(inputs: Inputs, sample: str, what: str = "cannot keep fused scores") -> None:
    """Refuse members that leave pixels between their windows to no class, which logits cannot say.

    Parameters
    ----------
    what : what cannot be done, for the error.

    Raises
    ------
    MismatchError
        Exclusive classes of which none is called background.
    """
    if share_window(inputs, sample) or inputs.activation == "sigmoid" or space.outside(inputs).max() > 0:
        return
    if not on_box(inputs, sample).covered:
        raise space.undecided_outside(sample, what)


def slabs(inputs: Inputs, sample: str) -> list[tuple[int, int]]:
    """Cut a sample's grid into what is fused at a time: slices of a volume, the first and the one behind the last.

    The rows of an image are one piece.
    """
    first, *others = placement(inputs, sample).grid
    if len(others) == 1:
        return [(0, first)]
    fit = max(1, SLAB // (2 * len(inputs.classes) * math.prod(others)))
    step = math.ceil(first / math.ceil(first / fit))  # as even as the slabs of a store
    return [(a, min(a + step, first)) for a in range(0, first, step)]


def logits(inputs: Inputs, sample: str, part: tuple[int, int] | None = None) -> NDArray[np.float16]:
    """Fuse a sample on its `placement` and return the logits of its levels, float16 (C, h, w), (C, d, h, w).

    Overlapping classes: logit(p), within ±16. Exclusive classes: log p, with mean="logit" the mean logit less the
    cell's largest. The probability is kept to within 7/65535, that of exclusive classes to within 13/65535: the other
    classes' roundings come through their sum.

    Parameters
    ----------
    part : one of `slabs`; default: all of the grid.
    """
    found, mean = grid_levels(inputs, sample, part), inputs.fusion.mean
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


def member_levels(inputs: Inputs, sample: str, which: range) -> NDArray[np.uint16]:
    """Bring one member to the `placement` of all, as fusing does: uint16 (C, *grid), 0 where it has no say.

    The levels are of logits, clipped to ±16, or their mean over the member's folds; of exclusive classes of
    probabilities. All members weigh something.

    Parameters
    ----------
    which : numbers of the member's folds, or of the member.
    """
    mean = Mean() if inputs.activation == "softmax" else LOGIT
    f, members, place = inputs.fusion, [inputs.members[m] for m in which], placement(inputs, sample)
    weights = ((LEVELS,),) * len(inputs.classes)
    one = Fusion(mean, "logits", (f.members[which[0]],), weights, (f.temperatures[which[0]],))
    alone = one.spread([len(which)])
    places = [m.placement(sample) for m in members]
    if all((own.grid, own.box, own.window) == (place.grid, place.box, place.window) for own in places):
        return open_sample(replace(inputs, members=tuple(members), fusion=alone), sample, "scores").levels()
    moved = replace(inputs, members=tuple(_moved(inputs, sample, m) for m in which), fusion=alone)
    out = in_memory((len(inputs.classes), *place.grid))
    out[:, *place.box.slices] = image_levels(open_sample(moved, sample))
    return out


def says(inputs: Inputs, sample: str, which: range) -> NDArray[np.bool_] | None:
    """Tell in which cells of the `placement` of all a member, or a fold of it, has a say; None: everywhere."""
    seen = [_moved(inputs, sample, m).placement(sample) for m in which]
    if any(place.window is None for place in seen):
        return None
    out = np.zeros(seen[0].image, np.bool_)
    for place in seen:
        out[place.covered.slices] = True
    return out


def grid_levels(inputs: Inputs, sample: str, part: tuple[int, int] | None = None) -> NDArray[np.uint16]:
    """Fuse a sample on its `placement`: uint16 (C, h, w) or (C, d, h, w), 0 outside the box.

    Where members' grids or boxes differ they are interpolated to the finest one's: their scores, or with
    upsample="logits" their logits, as at the image's size.

    Parameters
    ----------
    part : one of `slabs`; default: all of the grid.
    """
    place = placement(inputs, sample)
    if part is None and len(place.grid) == 2 and share_window(inputs, sample) and _fuses_cells(inputs, sample):
        return open_sample(inputs, sample, "scores").levels()
    first, stop = part or (0, place.grid[0])
    (z, *_), (end, *_), *inside = place.box.start, place.box.stop, *place.box.slices[1:]
    out, height = in_memory((len(inputs.classes), stop - first, *place.grid[1:])), math.prod(place.box.shape[1:-1])
    a, b = max(first, z), min(stop, end)
    if a < b:
        found = image_levels(on_box(inputs, sample), rows=((a - z) * height, (b - z) * height))
        out[:, a - first : b - first, *inside] = found.reshape(len(out), b - a, *place.box.shape[1:])
    return out


def on_box(inputs: Inputs, sample: str) -> FusedSample:
    """Open a sample as if its image were the box of its `placement`, to which members are interpolated."""
    inputs = inputs.heard
    moved = replace(inputs, members=tuple(_moved(inputs, sample, m) for m in range(len(inputs.members))))
    return open_sample(moved, sample, "scores" if _fuses_cells(inputs, sample) else None)


def _moved(inputs: Inputs, sample: str, m: int) -> Reframed:
    """Take a member as if its image were the box of the `placement` of all."""
    place = placement(inputs, sample)
    if share_window(inputs, sample):
        return Reframed(inputs.members[m], place.box.shape)
    return Reframed(inputs.members[m], None, place.covered)


def _fuses_cells(inputs: Inputs, sample: str) -> bool:
    """Tell whether scores, not logits, are brought to the finest grid, or nothing has to be."""
    places, own = [m.placement(sample) for m in inputs.heard.members], placement(inputs, sample)
    return inputs.fusion.upsample == "scores" or all((p.grid, p.box) == (own.grid, own.box) for p in places)


def probabilities(
    inputs: Inputs, sample: str, room: Room = in_memory
) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
    """Fuse a sample at the image's size: uint16 (C, H, W), and what each value stands for, float32 (65536,).

    The probability is the one that a threshold is compared with (docs/concepts.md#rule-4-decision); of exclusive
    classes with mean="logit" it is the share of the mean logits.

    Parameters
    ----------
    room : makes the array that is filled.
    """
    of_shares = inputs.activation == "softmax" and inputs.fusion.mean.of_logits
    found = image_levels(open_sample(inputs, sample), of_shares, room=room)
    mean = Mean() if of_shares else inputs.fusion.mean
    return found, mean.probabilities(np.arange(LEVELS)).astype(np.float32)


def image_levels(
    scores: FusedSample, of_shares: bool = False, rows: tuple[int, int] | None = None, room: Room = in_memory
) -> NDArray[np.uint16]:
    """Evaluate every pixel of a sample: uint16 (C, H, W), or (C, D, H, W).

    Parameters
    ----------
    of_shares : whether fused `q` of exclusive classes become the levels of their shares
        (docs/concepts.md#rule-9-exclusive-classes).
    rows : the first of some rows, and the one behind the last, counted through all slices: then (C, rows, W).
    room : makes the array that is filled.
    """
    begin, end = rows or (0, scores.rows)
    out = room((len(scores.inputs.classes), end - begin, scores.image[-1]))
    for first in range(begin, end, _ROWS):
        some = (scores.values(first, min(first + _ROWS, end)) + 32768) >> 16
        out[:, first - begin : first - begin + _ROWS] = _shares(some) if of_shares else some
    return out if rows else out.reshape(-1, *scores.image)


def _shares(q: NDArray[np.int64]) -> NDArray[np.int64]:
    """Turn the `q` of all classes into the levels of their softmax, docs/concepts.md#rule-9-exclusive-classes.

    They are 0 where all `q` are: no member has a say there, since the first class of a cell has the largest.
    """
    from ensemble_kit.kernels import tables

    e = tables.exponentials()[q + LEVELS - 1 - q.max(axis=0)]
    total = e.sum(axis=0)
    return np.asarray((2 * (LEVELS - 1) * e + total) // (2 * total) * q.any(axis=0))
