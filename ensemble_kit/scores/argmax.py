"""How exclusive classes compete: margins and tolerances within which float32 settles what integers would.

All follow from how far rounding can move a score. With U = 65535 / 32, one logit is U units of `q`. A cell's `q` is
off by half a unit at most and an interpolated one by another half, so a difference of two by 2 units (`DOUBT` has some
hundredths more, for float32). A share `S` is off by half a level of 65,535. So with factors f, the largest 1, and
A = sum of 1 / f:

- a class whose `q + U ln f` leads all others by more than `-U ln(1 - A / 65535)` has the largest `S · f`, since the
  largest share times factor is at least 1 / A;
- where members' weights differ from class to class, a class of factor f that leads all C - 1 others, of factor g at
  most, by L logits in every member has shares of at least `1 - (C - 1) exp(-L)`, and they of at most `exp(-L)`;
- where `q` of pixels are the exact integers and shares are averaged in float32, `F_c f_c - F_k f_k` is off by a
  level, for their rounding, and by twice the relative error of an exponential;
- where these `q` themselves are averaged, float32 is off by a tenth of a unit at most;
- shares that are fused on the grid have no units of `q`, but each is rounded twice; and a `q` that is, once more.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ensemble_kit.kernels.arguments import ALONE, EACH, LINEAR, LINEAR_EACH, SHARES, Contest, Exactly
from ensemble_kit.masks.packed import ManyRuns
from ensemble_kit.scores import layouts, mosaics
from ensemble_kit.spec.geometry import Placement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ensemble_kit.kernels.arguments import Grids
    from ensemble_kit.scores.inputs import Inputs
    from ensemble_kit.spec.fusion import Upsample

UNITS = 65535 / 32
DOUBT = 2.1
SLACK = 1.1
"""For float32, and terms of second order: doubts are a tenth larger than derived."""

DEEPEST = 29.0
"""Margins in logits up to which `q`, cut at 32, shows every lead."""

OCTAVES = math.log2(math.e)


class Laid(NamedTuple):
    """What `kernels.argmax.decide` takes of a sample; `logits` are kept alive, their addresses are in `contest`."""

    contest: Contest
    exactly: Exactly
    grids: Grids
    logits: Sequence[NDArray[np.uint16]]


def winners(laid: Laid) -> ManyRuns:
    """Decide a sample's pixels: the masks of all classes, each pixel in at most one."""
    from ensemble_kit.kernels import argmax

    return ManyRuns(*argmax.decide(laid.contest, laid.exactly, laid.grids)[:3])


def contest(
    inputs: Inputs,
    sample: str,
    placements: Sequence[Placement],
    upsample: Upsample,
    factors: NDArray[np.int64],
    offsets: NDArray[np.int64],
    least: int,
) -> Laid | None:
    """Read a sample and lay out how its classes compete; None where that has no fast way.

    It has one for softmax members with a mean of probabilities or of logits, if they are interpolated or share a grid,
    and none has tiles.

    Parameters
    ----------
    factors, offsets : int64 (C,), what integer scores are multiplied by, and what is added.
    least : level that the winner must reach, 0 for any.
    """
    weights = layouts.weights(inputs.fusion.weights)
    used = layouts.by_grid(placements, weights.max(axis=0) > 0)
    boxes = tuple(dict.fromkeys([placements[m].box.shape for m in used]))
    if any(mosaics.mosaic_of(member, sample) is not None for member in inputs.members):
        return None
    if upsample == "scores" and any((p.grid, p.box) != (placements[0].grid, placements[0].box) for p in placements):
        return None
    doubts = doubts_of(inputs, upsample, factors, offsets, least, len(used), len(boxes))
    if doubts is None:
        return None
    order = layouts.order(tuple([m.classes for m in inputs.members]), inputs.classes)
    read = [_wide(np.ascontiguousarray(inputs.members[m].read(sample)).view(np.uint16), placements[m]) for m in used]
    members = layouts.members([z for z, _ in read], [p for _, p in read], order[:, used], weights[:, used])
    at = (members.addresses + members.order * members.class_bytes).T
    of_grid = np.array([boxes.index(placements[m].box.shape) for m in used])
    rules = rules_of(doubts, inputs, used, of_grid, np.ascontiguousarray(at), members.widths)
    return Laid(
        rules,
        exactly_of(inputs, used, upsample, factors, offsets, least),
        layouts.grids(boxes, placements[0].image),
        [z for z, _ in read],
    )


def doubts_of(
    inputs: Inputs,
    upsample: Upsample,
    factors: NDArray[np.int64],
    offsets: NDArray[np.int64],
    least: int,
    members: int,
    grids: int,
) -> Doubts | None:
    """Return margins and tolerances of members on so many grids; None where classes do not compete in a fast way."""
    fusion, weights = inputs.fusion, layouts.weights(inputs.fusion.weights)
    if inputs.activation != "softmax" or fusion.mean.power not in {1, None}:
        return None
    even = bool((weights == weights[0]).all())
    of_logits, each = fusion.mean.of_logits, upsample == "logits"
    return _doubts(factors, offsets, least, of_logits, each, members, grids == 1, even)


def rules_of(
    doubts: Doubts,
    inputs: Inputs,
    used: NDArray[np.int64],
    of_grid: NDArray[np.int64],
    at: NDArray[np.int64],
    widths: NDArray[np.int64],
) -> Contest:
    """Make the contest of the members `used`, in the order of their grids, whose logits lie `at` these addresses."""
    kind, scale, ahead, relative, absolute, ties, floor = doubts
    t, number = np.array(inputs.fusion.temperatures, np.float64)[used], np.float32
    share = np.ascontiguousarray(layouts.weights(inputs.fusion.weights)[:, used].T)
    return Contest(
        kind,
        np.searchsorted(of_grid, np.arange(of_grid.max() + 2)),
        at,
        widths,
        (share / 65536).astype(number),
        (share.max(axis=1) / 65536).astype(number),
        (OCTAVES / t).astype(number),
        t,
        (t[:, None] * ahead).astype(number),
        (np.log2(scale) if kind & 1 else scale).astype(number),
        number(relative),
        number(absolute),
        ties,
        number(floor),
    )


def exactly_of(
    inputs: Inputs,
    used: NDArray[np.int64],
    upsample: Upsample,
    factors: NDArray[np.int64],
    offsets: NDArray[np.int64],
    least: int,
) -> Exactly:
    """Make the same comparison in integers."""
    from ensemble_kit.kernels import tables

    order = layouts.order(tuple([m.classes for m in inputs.members]), inputs.classes)
    return Exactly(
        np.array(inputs.fusion.temperatures, np.float64)[used],
        np.ascontiguousarray(order[:, used].T),
        np.ascontiguousarray(layouts.weights(inputs.fusion.weights)[:, used].T),
        upsample == "logits",
        inputs.fusion.mean.of_logits,
        tables.exponentials(),
        factors,
        offsets,
        least,
    )


def _wide(logits: NDArray[np.uint16], place: Placement) -> tuple[NDArray[np.uint16], Placement]:
    """Make a box that is narrower than kernels take as wide as they do: its last column is repeated."""
    from ensemble_kit.kernels.desk import CELLS

    missing = CELLS - place.box.shape[1]
    if missing <= 0:
        return logits, place
    wide = np.pad(logits[:, *place.box.slices], ((0, 0), (0, 0), (0, missing)), mode="edge")
    return wide, Placement.of(wide.shape[1:], place.image)


class Doubts(NamedTuple):
    """Margins of classes in logits, and the tolerance of float32 scores; see `Contest`."""

    kind: int
    scale: NDArray[np.float64]
    ahead: NDArray[np.float64]
    relative: float
    absolute: float
    ties: bool
    least: float


def _doubts(
    factors: NDArray[np.int64],
    offsets: NDArray[np.int64],
    least: int,
    of_logits: bool,
    interpolate_members: bool,
    members: int,
    one_grid: bool,
    even: bool,
) -> Doubts | None:
    """Derive margins and tolerances; None where they are too large."""
    if least > 65535:
        return None
    scale = np.exp(offsets / 65536 / UNITS) if of_logits else factors / 65536
    scale /= scale.max()
    rounded, other = 0.0 if of_logits else 1.01 if interpolate_members else 2.1, _largest_other(scale)
    levels = rounded * (1 / scale).sum() / 65535
    if levels >= 0.9:
        return None
    ahead = -math.log1p(-levels) + np.log(other / scale)
    if not even and not of_logits:
        left = scale - rounded / 65535 * (scale + other)
        if left.min() <= 0:
            return None
        ahead = np.log(((len(scale) - 1) * scale + other) / left)
    ahead = ahead + (DOUBT if interpolate_members or of_logits else 0.1) / UNITS
    if least:
        p, others = (least - 0.5) / 65535, max(1, len(scale) - 1)
        ahead = np.maximum(ahead, math.log(others * p / (1 - p) * 1.01) + 4 / UNITS)
    if ahead.max() > DEEPEST:
        return None
    floor = (least - (0.5 if interpolate_members else 0)) / 65535 if least else -1
    if interpolate_members and members == 1 and not least:
        exact = -math.log1p(-levels) + 0.05 / UNITS
        return Doubts(ALONE, scale, ahead, 0, exact * OCTAVES, bool((scale == 1).all()), floor)
    if of_logits and interpolate_members and not one_grid:
        return Doubts(LINEAR_EACH, scale, ahead, 0, 0.1 / UNITS * SLACK * OCTAVES, False, floor)
    if of_logits:
        return Doubts(
            LINEAR, scale, ahead, 0, (1.2 if interpolate_members else 2.1) / UNITS * SLACK * OCTAVES, False, floor
        )
    if interpolate_members:
        return Doubts(EACH, scale, ahead, 5e-5, SLACK / 65535, False, floor)
    return Doubts(SHARES, scale, ahead, 1e-5, 2 * SLACK / 65535, False, floor)


def _largest_other(scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest of all others, for each; of one alone, itself."""
    if len(scale) == 1:
        return scale
    first, second = np.sort(scale)[::-1][:2]
    return np.where((scale == first) & ((scale == first).sum() == 1), second, first)
