"""Members that saw a scene tile by tile: their codes are blended on the scene's grid before anything else."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ensemble_kit.scores.inputs import Member, TiledMember
    from ensemble_kit.spec.mosaic import Mosaic


def mosaic_of(member: Member, sample: str) -> Mosaic | None:
    """Return the tiles of a sample; None where the member holds its grid as a whole."""
    return cast("TiledMember", member).mosaic(sample) if hasattr(member, "mosaic") else None


def codes_of(
    member: Member, sample: str, encode: Callable[[NDArray[np.float16]], NDArray[np.uint16]]
) -> NDArray[np.uint16]:
    """Encode a member's sample, blending its tiles where it has some (docs/concepts.md#rule-16-tiles-of-a-scene).

    Tiles are read once each, from the top row to the last. Sums are kept of the rows of one tile only, and given out
    as soon as no further tile can reach them.

    Parameters
    ----------
    encode : turns logits (C, h, w) into codes, uint16 (C, h, w), cell by cell.
    """
    from ensemble_kit.kernels import blend

    mosaic = mosaic_of(member, sample)
    if mosaic is None:
        return encode(member.read(sample))
    tiled, (h, w) = cast("TiledMember", member), mosaic.grid
    out = np.empty((len(member.classes), h, w), np.uint16)
    high = max(box.shape[0] for box in mosaic.boxes)
    total, weight = np.zeros((len(out), high, w), np.int64), np.zeros((high, w), np.int64)
    done, bare = 0, np.zeros((h, w) if mosaic.holes else (0, 0), np.bool_)
    order = mosaic.by_row
    for k, following in zip(order, [*(mosaic.boxes[k][0] for k in order[1:]), h], strict=True):
        codes, (top, left, _, _) = encode(tiled.read_tile(sample, k)), mosaic.boxes[k]
        blend.add_tile(codes, *mosaic.weights(k), top - done, left, total, weight)
        if following > done:
            ready = following - done
            if bare.size:
                bare[done:following] = weight[:ready] == 0
                weight[:ready][bare[done:following]] = 1
            blend.put_means(total[:, :ready], weight[:ready], out[:, done:following])
            for sums in (total, weight[None]):
                sums[:, : high - ready] = sums[:, ready:].copy()
                sums[:, max(high - ready, 0) :] = 0
            done = following
    for _ in range(2 * bool(bare.size)):  # one cell further, for members of other grids
        bare = _extended(out, bare)
    return out


def _extended(codes: NDArray[np.uint16], bare: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Give cells without a code that lie beside one with a code its own, and return which are still without one.

    So a grid's edge goes on beyond it: pixels that are not void may lie between the two.
    """
    h, w = bare.shape
    left = bare.copy()
    for dy, dx in ((0, -1), (0, 1), (-1, 0), (1, 0), (-1, -1), (-1, 1), (1, -1), (1, 1)):
        to = np.s_[max(-dy, 0) : h - max(dy, 0), max(-dx, 0) : w - max(dx, 0)]
        of = np.s_[max(dy, 0) : h - max(-dy, 0), max(dx, 0) : w - max(-dx, 0)]
        taken = left[to] & ~bare[of]
        left[to][taken] = False
        for one in codes:
            one[to][taken] = one[of][taken]
    return left
