"""What `blend.py` computes, cell by cell, in Python's own integers (docs/concepts.md#rule-16-tiles-of-a-scene)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def ramp(cells: int, first_is_edge: bool, last_is_edge: bool) -> list[int]:
    """Weights along one axis of a tile: from 1 at its ends to 255 in its middle, and 255 up to an edge of the scene."""
    out = []
    for i in range(cells):
        near = 2 * min(i, cells - 1 - i) + 1
        kept = (first_is_edge and 2 * i < cells) or (last_is_edge and 2 * i >= cells - 1)
        out.append(255 if kept else max(1, (510 * near + cells) // (2 * cells)))
    return out


def blended(
    tiles: Sequence[NDArray[np.uint16]], boxes: Sequence[Sequence[int]], grid: tuple[int, int]
) -> NDArray[np.uint16]:
    """Blend tiles of codes (C, h, w) on a grid: the mean of each cell by weight, halves rounded up."""
    out = np.zeros((tiles[0].shape[0], *grid), np.uint16)
    for y, x in np.ndindex(grid):
        for c in range(len(out)):
            total, weights = 0, 0
            for codes, (y0, x0, y1, x1) in zip(tiles, boxes, strict=True):
                if y0 <= y < y1 and x0 <= x < x1:
                    rows = ramp(y1 - y0, y0 == 0, y1 == grid[0])
                    columns = ramp(x1 - x0, x0 == 0, x1 == grid[1])
                    w = rows[y - y0] * columns[x - x0]
                    total, weights = total + w * int(codes[c, y - y0, x - x0]), weights + w
            out[c, y, x] = (total + weights // 2) // weights
    return out
