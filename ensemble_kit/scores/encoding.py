"""One sample's members as 16-bit codes, and what the codes become: read when something needs them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ensemble_kit.scores import exclusive, layouts, mosaics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ensemble_kit.scores.inputs import Inputs
    from ensemble_kit.spec.fusion import Fusion, Upsample
    from ensemble_kit.spec.geometry import Placement


class Encoded(NamedTuple):
    """Members' codes.

    Parameters
    ----------
    codes : uint16 (C, h, w) of each member, C-contiguous.
    placements : of each member.
    order : int64 (C, M), where each class stands in each member's codes.
    recipe : how codes become levels.
    """

    codes: Sequence[NDArray[np.uint16]]
    placements: Sequence[Placement]
    order: NDArray[np.int64]
    recipe: layouts.Recipe


def encode(inputs: Inputs, sample: str, placements: Sequence[Placement], upsample: Upsample) -> Encoded:
    """Read a sample's members; with upsample="scores" members of several grids are brought to the finest one."""
    fusion, members, late = inputs.fusion, inputs.members, upsample == "logits"
    own_classes = tuple([m.classes for m in members])
    if inputs.activation == "softmax":
        kind, order = exclusive.codes(fusion, upsample), layouts.order(own_classes, inputs.classes).T
        codes = [
            mosaics.codes_of(m, sample, partial(_exclusive, t, own, fusion, upsample))
            for m, t, own in zip(members, fusion.temperatures, order, strict=True)
        ]
        own_classes = (inputs.classes,) * len(members)
    else:
        kind = "q" if late or fusion.mean.of_logits else "levels"
        tiled = any(mosaics.mosaic_of(m, sample) is not None for m in members)
        scoring = layouts.scoring(layouts.Recipe(kind, fusion.temperatures, fusion.mean, late))
        tables = [scoring.tables[k] if tiled else None for k in scoring.table_of]
        codes = [
            mosaics.codes_of(m, sample, partial(_overlapping, table)) for m, table in zip(members, tables, strict=True)
        ]
        kind = "scores" if tiled else kind
    recipe = layouts.Recipe(kind, fusion.temperatures, fusion.mean, late)
    encoded = Encoded(codes, placements, layouts.order(own_classes, inputs.classes), recipe)
    if not late and any((p.grid, p.box) != (placements[0].grid, placements[0].box) for p in placements):
        return _on_finest_grid(encoded)
    return encoded


def _exclusive(
    temperature: float,
    order: NDArray[np.int64],
    fusion: Fusion,
    upsample: Upsample,
    logits: NDArray[np.float16],
) -> NDArray[np.uint16]:
    return exclusive.encode(logits, temperature, order, fusion, upsample)


def _overlapping(table: NDArray[np.uint16] | None, logits: NDArray[np.float16]) -> NDArray[np.uint16]:
    """Return logits as they are, as codes; or what a table makes of them."""
    codes = np.ascontiguousarray(logits).view(np.uint16)
    return codes if table is None else table[codes]


def _on_finest_grid(given: Encoded) -> Encoded:
    """Interpolate every member's scores to the box of the member with the most cells."""
    from ensemble_kit.kernels import fuse

    scoring = layouts.scoring(given.recipe)
    finest = max(given.placements, key=lambda p: p.grid[0] * p.grid[1])  # the first of equals: names are sorted
    box, moved = finest.box, []
    axes = layouts.axes(tuple([p.box.shape for p in given.placements]), box.shape)
    whole, scored = box.shape == finest.grid, given.recipe.codes == "scores"
    for m, (codes, placement, order) in enumerate(zip(given.codes, given.placements, given.order.T, strict=True)):
        if whole and scored and placement == finest and (order == np.arange(len(order))).all():
            moved.append(codes)
            continue
        out = np.zeros((len(order), *finest.grid), np.uint16)
        inside, own = out[:, *box.slices], placement.box
        for k, c in enumerate(order):
            cells = codes[c][own.slices]
            if not scored:
                cells = scoring.tables[scoring.table_of[m]][cells]
            fuse.resample(np.ascontiguousarray(cells), m, axes, inside[k])
        moved.append(out)
    order = np.repeat(np.arange(len(given.order))[:, None], len(moved), axis=1)
    return Encoded(moved, [finest] * len(moved), order, given.recipe._replace(codes="scores"))
