"""How strongly a class must lead in the cells around a pixel, in members together, for a decision to be certain there.

A member's `q` are rounded at the pixel, so a lead is smaller than between its cells by one unit at most, and what a
share leaves to the other classes is larger by a factor of exp(32 / 65535); the share itself is rounded by half a level.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

import numpy as np

from ensemble_kit.kernels.space import Certain, Leading, Space
from ensemble_kit.spec.mean import LEVELS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ensemble_kit.kernels.arguments import Members, Scoring
    from ensemble_kit.scores.inputs import Inputs
    from ensemble_kit.scores.layouts import Codes

GROWN = 1.0006
"""What the others share between cells, times what they do at the cells, at most: exp(32 / 65535) is 1.00049."""

NEVER = 1 << 60
Bounds = tuple["NDArray[np.uint16]", "NDArray[np.uint16]"]


def bounds_of(inputs: Inputs, codes: Codes, scoring: Scoring) -> Bounds | None:
    """Return `low` and `high` of `Leading`; None where classes overlap, or a member lacks one."""
    alike = all(set(inputs.classes) <= set(m.classes) for m in inputs.members)
    if inputs.activation != "softmax" or len(inputs.classes) < 2 or not alike:
        return None
    strength = np.arange(LEVELS)
    if codes == "shares":
        rest = (LEVELS - strength) * GROWN + 0.5 + 1e-4 * len(inputs.classes)
        low, high = np.maximum(np.floor(65535 - rest), 0), np.minimum(rest, 65535)
        low, high = scoring.score_table[low.astype(np.uint16)], scoring.score_table[high.astype(np.uint16)]
    elif scoring.interpolate_members:  # the largest `Q` of a cell is 65535 (rule 9)
        low, high = np.full(LEVELS, 65535), 65535 - strength
    else:
        low, high = strength, 65535 - strength
    low, high = low.astype(np.uint16), high.astype(np.uint16)
    low[0], high[0] = 0, scoring.score_table[65535] if scoring.interpolate_members else 65535  # of no lead
    return low, high


def to_win(scales: NDArray[np.int64], offsets: NDArray[np.int64], least: int = 0, lead: int = 0) -> Certain:
    """Tell when a class has the largest `value * scale + offset`, a level of `least`, and is `lead` levels ahead."""
    any_class = np.zeros_like(scales)
    most = any_class + NEVER
    return Certain(
        scales, offsets, _others(scales), _others(offsets), any_class + (least << 16), most, any_class + (lead << 16)
    )


def to_keep(classes: int, ratio: int, adds: bool) -> Certain:
    """Tell when a class wins at all factors within 2^`ratio` of each other; `adds`: their logarithms are added."""
    one, none = np.ones(classes, np.int64), np.zeros(classes, np.int64)
    ahead = int(np.ceil(65536 * 65535 / 32 * ratio * np.log(2))) + 1
    most = none + NEVER
    return Certain(one, none, one if adds else one << ratio, none + ahead if adds else none, none, most, none)


def to_settle(levels: NDArray[np.int64], classes: NDArray[np.int64], number: int, alone: bool = False) -> Certain:
    """Tell when a class reaches its level, unless none can, and no other of `classes` one above 0; `alone`: nor 0."""
    one, none = np.ones(number, np.int64), np.zeros(number, np.int64)
    least, others = none.copy(), none + NEVER
    least[classes] = np.where(levels < LEVELS, levels, 0) << 16
    others[classes] = np.where((levels > 0) | alone, (levels << 16) - 32768, NEVER)
    return Certain(one, none, none, none - 1, least, -_others(-others), none)


def lead_of_share(share: int, classes: int) -> int | None:
    """Return the units of `q` by which a class must lead to have this share of a pixel; None if none are enough."""
    from ensemble_kit.kernels import tables

    exponentials = tables.exponentials()
    total = exponentials[65535] + (classes - 1) * exponentials[::-1]
    reached = (131070 * exponentials[65535] + total) // (2 * total) >= share
    found = bisect_left(reached, True)
    return found + 2 if found < LEVELS else None  # each `q` is rounded


def leading(
    members: Members,
    exponentials: NDArray[np.int64],
    space: Space,
    slices: Sequence[tuple[int, int]],
    bounds: Bounds | None,
) -> Leading:
    """Find the class that leads each cell of some sources; without bounds nothing.

    Parameters
    ----------
    exponentials : what makes shares of codes, or empty.
    slices : of each source the first slice of cells that is in memory, and the one behind the last.
    """
    from ensemble_kit.kernels import owners

    shapes = [(stop - begin, *last) for (begin, stop), last in zip(slices, (space.last + 1).tolist(), strict=True)]
    at, begins = (
        np.cumsum([0, *(np.prod(shape) for shape in shapes)]),
        np.array([begin for begin, _ in slices], np.int64),
    )
    classes, strengths = (np.empty(at[-1] if bounds else 0, kind) for kind in (np.int16, np.uint16))
    for m, shape in enumerate(shapes if bounds else ()):
        found, own = (part[at[m] : at[m + 1]].reshape(shape) for part in (classes, strengths))
        owners.leaders(m, begins[m], members, exponentials, found, own)
    low, high = bounds or (np.empty(0, np.uint16),) * 2
    return Leading(classes, strengths, at[:-1].astype(np.int64), begins, space.weights.max(axis=1), low, high)


def _others(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """The largest of all others, for each."""
    if len(values) < 2:
        return values
    first, second = np.sort(values)[::-1][:2]
    return np.where((values == first) & ((values == first).sum() == 1), second, first)
