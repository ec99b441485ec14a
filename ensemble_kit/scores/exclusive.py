"""Exclusive classes: a member's logits as 16-bit codes, and counts of values that only exist at the pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.scores.layouts import Codes
from ensemble_kit.spec.mean import PROBABILITY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from ensemble_kit.kernels.arguments import Members, Scoring
    from ensemble_kit.kernels.space import Space
    from ensemble_kit.masks.packed import ManyRuns
    from ensemble_kit.masks.runs import Runs
    from ensemble_kit.scores.raster import Raster
    from ensemble_kit.spec.fusion import Fusion, Upsample

BLOCK = 32
"""Rows of the image whose members' scores are kept at a time."""

ROOM = 1 << 26
"""Bytes of counts that are kept at a time: beyond, classes are counted in several passes."""


def codes(fusion: Fusion, upsample: Upsample) -> Codes:
    """Tell what the codes of exclusive classes become: scores as they are, or shares of the pixel."""
    return "shares" if upsample == "logits" and not fusion.mean.of_logits else "scores"


def encode(
    logits: NDArray[np.float16], temperature: float, order: NDArray[np.int64], fusion: Fusion, upsample: Upsample
) -> NDArray[np.uint16]:
    """Turn a member's logits (C, h, w) into codes of the same shape, classes in another order (rule 9).

    They are each logit's `Q` where it is interpolated or averaged, else the level of its softmax on the mean's scale.
    """
    if upsample == "logits" or fusion.mean.of_logits:
        return q(logits, temperature, order)
    found = levels(logits, temperature, order)
    return found if fusion.mean == PROBABILITY else fusion.mean.scale[found]


def q(logits: NDArray[np.float16], temperature: float, order: NDArray[np.int64] | None = None) -> NDArray[np.uint16]:
    """Turn logits (C, h, w) into `Q`, of what each lies below its cell's largest; classes as `order` has them."""
    from ensemble_kit.kernels import exclusive_cells

    logits = np.ascontiguousarray(logits)
    at, out = _addresses(logits), np.empty(logits.shape, np.uint16)
    own = at if order is None else at[order]
    exclusive_cells.put_q(own, temperature, out.reshape(len(out), -1))
    return out


def levels(
    logits: NDArray[np.float16], temperature: float, order: NDArray[np.int64] | None = None
) -> NDArray[np.uint16]:
    """Turn logits (C, h, w) into the levels of their softmax; classes as `order` has them."""
    from ensemble_kit.kernels import exclusive_cells

    logits = np.ascontiguousarray(logits)
    at, out = _addresses(logits), np.empty(logits.shape, np.uint16)
    rows = np.arange(len(at)) if order is None else np.argsort(order)
    exclusive_cells.put_levels(at, temperature, rows, out.reshape(len(out), -1))
    return out


def _addresses(logits: NDArray[np.float16]) -> NDArray[np.int64]:
    """Where each class begins."""
    return np.asarray(logits.__array_interface__["data"][0] + logits.strides[0] * np.arange(len(logits)), np.int64)


def counts(bands: NDArray[np.int64], truth: ManyRuns, raster: Raster) -> Iterator[tuple[Any, ...]]:
    """Count the pixels of classes by level, each as `LevelCounts.of` returns it.

    Parameters
    ----------
    bands : int64 (n, 3), number of the class, low, high.
    """
    from ensemble_kit.kernels import bounded_rows, rows

    widest = int((bands[:, 2] - bands[:, 1]).max()) + 1
    step = max(1, ROOM // (16 * widest))
    for first in range(0, len(bands), step):
        own = bands[first : first + step]
        counted = np.zeros((len(own), widest, 2), np.int64)
        wanted = truth._replace(offsets=truth.offsets[first : first + len(own) + 1])
        for begin, stop in raster.slabs():
            laid, runs = raster.laid(begin, stop), wanted.between(begin * raster.width, stop * raster.width)
            asked = begin, stop, own[:, 0].copy(), own[:, 1:].copy(), tuple(runs), counted
            if raster.alone:
                bounded_rows.count(*asked, *raster.bounded(laid))
            else:
                rows.count(*asked, *laid.arguments)
        for (_, low, high), entries in zip(own.tolist(), counted, strict=True):
            inside, (above, above_tp) = entries[: high - low], entries[high - low].tolist()
            at_least = inside[::-1].cumsum(axis=0)[::-1] + entries[high - low]
            found = np.flatnonzero(inside[:, 0])
            yield (found + low).astype(np.uint16), at_least[found, 0], at_least[found, 1], above, above_tp


def undecided(
    laid: tuple[Members, Scoring], space: Space, bands: Sequence[tuple[int, int]], stride: int, truth: Sequence[Runs]
) -> list[tuple[Any, ...]]:
    """Collect every class's undecided pixels of one sample, as `kernels.undecided.gather` does of one class.

    Members' shares exist only at the pixel, where those of all classes are made together.
    """
    from ensemble_kit.kernels import rows as kernels
    from ensemble_kit.kernels import tables

    rows, table = np.arange(stride // 2, space.rows.shape[1], stride), tables.exponentials()
    every = slice(stride // 2, None, stride)
    parts: list[list[tuple[Any, ...]]] = [[] for _ in bands]
    for first in range(0, max(rows.size, 1), BLOCK):
        own = rows[first : first + BLOCK]
        values = kernels.member_levels(own, *laid, table, space)[..., every]
        for c, (low, high) in enumerate(bands):
            wanted = _drawn(truth[c], own, space.cols.shape[1])[:, every]
            above, kept = (values[c] >= high).all(0), (values[c] >= low).any(0)
            kept &= ~above
            found = values[c].transpose(1, 2, 0)
            parts[c].append(
                (found[kept & wanted], found[kept & ~wanted], above.sum(), (above & wanted).sum(), wanted.sum())
            )
    out = []
    for own_parts in parts:
        hits, misses, *numbers = zip(*own_parts, strict=True)
        gathered = np.concatenate([*hits, *misses])
        out.append((gathered, sum(h.shape[0] for h in hits), *(int(sum(n)) for n in numbers)))
    return out


def _drawn(mask: Runs, rows: NDArray[np.int64], width: int) -> NDArray[np.bool_]:
    """Draw some rows of a mask, ascending, as bool (rows, W)."""
    if not rows.size:
        return np.zeros((0, width), np.bool_)
    first, stop = int(rows[0]) * width, (int(rows[-1]) + 1) * width
    own = slice(np.searchsorted(mask.ends, first, "right"), np.searchsorted(mask.starts, stop))
    change = np.zeros(stop - first + 1, np.int8)
    change[np.maximum(mask.starts[own] - first, 0)] = 1
    change[np.minimum(mask.ends[own], stop) - first] = -1
    return change[:-1].cumsum(dtype=np.int8).astype(np.bool_).reshape(-1, width)[rows - rows[0]]
