"""Logits of generated volumes: organs as smooth fields, on a coarse grid, of members that disagree at boundaries."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["organs", "rough", "noise"]
"""Smooth organs; organs with ragged boundaries, and specks; white noise."""

STEEPNESS = 2.0
"""Logits that an organ's score falls in a cell across its boundary."""


def logits_of(
    grid: tuple[int, int, int], classes: int, member: int, seed: int = 0, kind: Kind = "organs", background: bool = True
) -> NDArray[np.float16]:
    """Make one member's logits (C, d, h, w) of a volume that all members of a seed see.

    Parameters
    ----------
    classes : organs of sizes from a fortieth to a third of the grid; with `background` the first is none of them.
    member : each moves and bends boundaries by about half a cell, in its own way.
    """
    out = np.empty((classes, *grid), np.float16)
    own = np.random.default_rng([seed, member, 1])
    if kind == "noise":
        for c in range(classes):
            out[c] = 2 * own.standard_normal(grid, np.float32)
        return out
    world = np.random.default_rng(seed)
    for c in range(classes):
        centre, size = world.uniform(0.2, 0.8, 3), world.uniform(0.025, 0.3) * world.uniform(0.6, 1.0, 3)
        bend = _waves(own, grid, (3, 9), 0.7 if kind == "organs" else 1.5)
        if background and c == 0:
            out[c] = bend
            continue
        axes = [(np.arange(n, dtype=np.float32) + 0.5) / n for n in grid]
        parts = [((x - m) / s) ** 2 for x, m, s in zip(axes, centre + own.normal(0, 0.002, 3), size, strict=True)]
        cells = float(min(s * n for s, n in zip(size, grid, strict=True)))
        for z in range(grid[0]):
            plane = np.sqrt(parts[0][z] + parts[1][:, None] + parts[2])
            field = np.clip(STEEPNESS * cells * (1 - plane), -14, 14) + bend[z]
            if kind == "rough":
                field += 0.6 * own.standard_normal(field.shape, np.float32)
            out[c, z] = field
    return out


def _waves(
    rng: np.random.Generator, grid: tuple[int, int, int], most: tuple[int, int], amplitude: float
) -> NDArray[np.float32]:
    """Make a smooth field: two products of one wave on each axis."""
    out = np.zeros(grid, np.float32)
    for high in most:
        z, y, x = (
            np.sin(np.linspace(0, rng.uniform(1, high) * 2 * np.pi, n, dtype=np.float32) + rng.uniform(0, 6))
            for n in grid
        )
        out += (np.float32(amplitude) * z[:, None] * y)[:, :, None] * x
    return out
