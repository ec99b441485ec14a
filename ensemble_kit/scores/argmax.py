"""How exclusive classes of one grid compete: margins and tolerances within which float32 settles what integers would.

All follow from how far rounding can move a score. With U = 65535 / 32, one logit is U units of `q`. A cell's `q` is
off by half a unit at most and an interpolated one by another half, so a difference of two by DOUBT = 2 units (and
some hundredths, for float32). A share `S` is off by half a level of 65,535. So with factors f and A = max f · Σ 1/f:

- a class whose `q + U ln f` leads all others by more than `-U ln(1 - A / 65535)` has the largest `S · f`, since the
  largest share times factor is at least 1 / Σ(1/f);
- where shares `P` of classes c and k are averaged in float32, `F_c f_c - F_k f_k` is off by at most
  2 DELTA (F_c f_c + F_k f_k), DELTA = 1 / U being a unit of `q` in logits, and by a level.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ensemble_kit.kernels.arguments import Contest, Exactly

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ensemble_kit.kernels.arguments import Members

UNITS = 65535 / 32
DOUBT = 2.1
EACH, LINEAR, SHARES = 0, 1, 2
"""Kinds of `Contest`."""
SLACK = 1.1
"""For float32, and terms of second order: doubts are a tenth larger than derived."""


def contest(
    members: Members,
    temperatures: Sequence[float],
    factors: NDArray[np.int64],
    offsets: NDArray[np.int64],
    least: int,
    of_logits: bool,
    interpolate_members: bool,
) -> tuple[Contest, Exactly] | None:
    """Lay out how classes compete; None where float32 settles too little, or what is asked for has no fast way.

    Parameters
    ----------
    members : of fp16 logits on one grid; the weights of each are the same for all classes.
    factors, offsets : int64 (C,), what integer scores are multiplied by, and what is added.
    least : level that the winner must reach, 0 for any.
    """
    from ensemble_kit.kernels import tables

    used = np.flatnonzero(members.weights[0])
    if (members.weights != members.weights[0]).any() or (least and of_logits):
        return None
    scale = np.exp(offsets / 65536 / UNITS) if of_logits else factors / 65536
    scale = scale / scale.max()
    kind = (
        LINEAR
        if of_logits or (interpolate_members and len(used) == 1 and not least)
        else EACH
        if interpolate_members
        else SHARES
    )
    crowd = (1 / scale).sum()
    levels = 0.0 if of_logits else crowd / 65535 * (1.01 if interpolate_members else 2.1)
    if levels >= 0.9:
        return None
    lead = -math.log1p(-levels) + ((DOUBT if interpolate_members else 0.1) + (3 if of_logits else 0)) / UNITS
    ahead = lead + np.log(_largest_other(scale) / scale)
    if least:
        p = (min(least, 65535) - 0.5) / 65535
        ahead = np.maximum(ahead, math.log(max(1, len(scale) - 1) * p / (1 - p) * 1.01) + 4 / UNITS)
    if ahead.max() > 29 or least > 65535:
        return None
    t = np.array(temperatures)[used]
    at = members.addresses[used, None] + (members.order.T * members.class_bytes[:, None])[used]
    number = np.float32
    if kind == LINEAR:
        shown = np.log2(scale)
        relative, absolute = 0.0, lead * SLACK * math.log2(math.e)
    else:
        shown = scale
        relative = 2 * SLACK / UNITS if kind == EACH else 1e-5
        absolute = (1 if kind == EACH else 2) * SLACK / 65535
    floor = (least - (0.5 if interpolate_members else 0)) / 65535 if least else -1
    return (
        Contest(
            kind,
            np.ascontiguousarray(at),
            members.widths[used],
            (members.weights[0][used] / 65536).astype(number),
            (math.log2(math.e) / t).astype(number),
            (t[:, None] * ahead * (1 + 1e-6)).astype(number),
            shown.astype(number),
            number(relative),
            number(absolute),
            number(floor),
        ),
        Exactly(
            t.astype(np.float64),
            members.weights[0][used],
            interpolate_members,
            of_logits,
            tables.exponentials().copy(),
            factors,
            offsets,
            least,
        ),
    )


def _largest_other(scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest of all others, for each; of one alone, itself."""
    if len(scale) == 1:
        return scale
    first, second = np.sort(scale)[::-1][:2]
    return np.where((scale == first) & ((scale == first).sum() == 1), second, first)
