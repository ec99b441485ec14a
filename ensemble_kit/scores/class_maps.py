"""Class maps of 16-bit scores, one grid or several, and how they compete at every pixel in integers.

The arithmetic: docs/concepts.md#rule-10-argmax.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ensemble_kit.masks.packed import ManyRuns
from ensemble_kit.scores import layouts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ensemble_kit.scores.encoding import Encoded
    from ensemble_kit.spec.geometry import Placement


def of_members(encoded: Encoded) -> list[NDArray[np.uint16]]:
    """Turn members' codes into the scores that are interpolated, (C, h, w) each."""
    scoring = layouts.scoring(encoded.recipe)
    if encoded.recipe.codes not in {"levels", "q"}:
        return list(encoded.codes)
    return [scoring.tables[kind][codes] for kind, codes in zip(scoring.table_of, encoded.codes, strict=True)]


def winners(
    maps: Sequence[NDArray[np.uint16]],
    placements: Sequence[Placement],
    order: NDArray[np.int64],
    weights: NDArray[np.int64],
    table: NDArray[np.uint16] | None,
    factors: NDArray[np.int64],
    offsets: NDArray[np.int64],
    least: int,
) -> ManyRuns:
    """Give each pixel to the class of the largest `value × factor + offset`, ties to the first.

    Parameters
    ----------
    maps : of members, each interpolated; or one of fused levels.
    order, weights : int64 (C, M).
    table : what an interpolated and rounded score becomes; None where the interpolated value itself is compared.
    least : level that the winner must reach, 0 for any.
    """
    from ensemble_kit.kernels import every_pixel, tables

    used = layouts.by_grid(placements, weights.max(axis=0) > 0)
    shapes = [placements[m].box.shape for m in used]
    boxes = tuple(dict.fromkeys(shapes))
    laid = layouts.members([maps[m] for m in used], [placements[m] for m in used], order[:, used], weights[:, used])
    same = table is None or np.array_equal(table, tables.identity())
    return ManyRuns(
        *every_pixel.decide(
            every_pixel.Maps(
                np.searchsorted([boxes.index(s) for s in shapes], np.arange(len(boxes) + 1)),
                np.array([box[1] for box in boxes], np.int64),
                np.ascontiguousarray((laid.addresses + laid.order * laid.class_bytes).T),
                laid.widths,
                np.ascontiguousarray(laid.weights.T),
                np.empty(0, np.int32) if same or table is None else table.astype(np.int32),
                table is not None,
            ),
            every_pixel.Scales(
                factors, offsets, bool((factors == factors[0]).all() and (offsets == offsets[0]).all()), least
            ),
            layouts.grids(boxes, placements[0].image),
        )
    )
