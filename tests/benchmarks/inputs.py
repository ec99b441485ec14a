"""Inputs: bones on a hand as networks of stride 4 put them out, generated; and the truth of USGRA-SEG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import ensemble_kit as ek

CLASSES = 29
GRID = 512
PLANE = 2048
MEMBERS = 5


def bone_field(rng: np.random.Generator, grid: int, jitter: NDArray[np.float64]) -> NDArray[np.float32]:
    """Signed distance, in cells, to the outline of one bone: a bent capsule that fills about 0.4 % of the grid."""
    y, x = np.mgrid[0:grid, 0:grid].astype(np.float32) / grid
    cy, cx, angle, bend = rng.uniform(0.15, 0.85), rng.uniform(0.15, 0.85), rng.uniform(0, np.pi), rng.normal(0, 1.5)
    length, radius = rng.uniform(0.025, 0.05), rng.uniform(0.014, 0.023)
    cy, cx = cy + jitter[0] / grid, cx + jitter[1] / grid
    along = (y - cy) * np.cos(angle) + (x - cx) * np.sin(angle)
    across = (x - cx) * np.cos(angle) - (y - cy) * np.sin(angle) - bend * along**2
    reach = np.clip(along, -length, length)
    wobble = 1 + 0.08 * np.sin(9 * np.arctan2(across, along) + jitter[2])
    return (np.hypot(along - reach, across) - radius * wobble).astype(np.float32) * grid


def bone_logits(
    members: int = MEMBERS, classes: int = CLASSES, grid: int = GRID, noisy: bool = False, seed: int = 0
) -> list[NDArray[np.float16]]:
    """Logits (classes, grid, grid) of each member: steep at the outline, far background near -11, fp16.

    Members see the same bones a little shifted. `noisy` adds what badly trained networks have: noise everywhere and
    soft specks in the background, some of which reach 0.
    """
    out = [np.empty((classes, grid, grid), np.float16) for _ in range(members)]
    for c in range(classes):
        for m in range(members):
            shape = np.random.default_rng([seed, c])
            own = np.random.default_rng([seed, c, m])
            distance = bone_field(shape, grid, own.normal(0, 0.6 * grid / 512, 3))
            z = np.where(distance < 0, -0.9 * distance, -1.3 * distance).clip(-11, 9)
            rough = own.normal(0, 0.25, (grid // 8, grid // 8)).astype(np.float32)
            z += np.kron(rough, np.ones((8, 8), np.float32))
            if noisy:
                z = 0.6 * z + own.normal(0, 0.8, z.shape).astype(np.float32)
                specks = own.integers(4, grid - 4, (2, 40))
                for dy in (-1, 0, 1):
                    for dx in (-1, 0, 1):
                        z[specks[0] + dy, specks[1] + dx] += 7 - 2 * (dy * dy + dx * dx)
            out[m][c] = z
    return out


def soft_logits(
    members: int = MEMBERS, classes: int = CLASSES, grid: int = GRID // 2, seed: int = 0
) -> list[NDArray[np.float16]]:
    """Logits of members that are sure of little: about half of all fused pixels lie between 0.05 and 0.95.

    Young networks, label smoothing and focal loss put out such: smooth fields around -2.9 that members share, smooth
    differences of their own, and a little noise in every cell.
    """
    out = [np.empty((classes, grid, grid), np.float16) for _ in range(members)]
    for c in range(classes):
        shared = -2.9 + 2.6 * _smooth(np.random.default_rng([seed, c, 77]), grid, grid // 8)
        for m in range(members):
            own = np.random.default_rng([seed, c, m, 77])
            out[m][c] = shared + 0.6 * _smooth(own, grid, grid // 32) + own.normal(0, 0.2, (grid, grid))
    return out


def _smooth(rng: np.random.Generator, grid: int, step: int) -> NDArray[np.float64]:
    """Normal numbers every `step` cells, and what lies between them."""
    at = np.arange(grid) / step
    near, far = at.astype(int), at - at.astype(int)
    values = rng.normal(0, 1, (near[-1] + 2, near[-1] + 2))
    rows = values[near] * (1 - far)[:, None] + values[near + 1] * far[:, None]
    return np.asarray(rows[:, near] * (1 - far) + rows[:, near + 1] * far)


def bone_masks(count: int, plane: int = PLANE, seed: int = 0) -> list[NDArray[np.bool_]]:
    """Masks (plane, plane) of different bones, as a vote makes them."""
    zero = np.zeros(3)
    return [bone_field(np.random.default_rng([seed, k]), plane, zero) < 0 for k in range(count)]


def run_edges(members: int, classes: int, plane: int = PLANE, seed: int = 0) -> list[list[NDArray[np.bool_]]]:
    """For each member and class a mask; members differ by shifts of a pixel or two, as decided networks do."""
    masks = bone_masks(classes, plane, seed)
    rng = np.random.default_rng([seed, 99])
    return [[np.roll(mask, tuple(rng.integers(-4, 5, 2)), (0, 1)) for mask in masks] for _ in range(members)]


def dirty_masks(count: int, plane: int = PLANE, seed: int = 0) -> list[NDArray[np.bool_]]:
    """Masks (plane, plane) as a vote of noisy networks leaves them: a bone with 40 specks around and 10 holes in it."""
    out = bone_masks(count, plane, seed)
    for k, mask in enumerate(out):
        rng = np.random.default_rng([seed, k, 7])
        inside = np.argwhere(mask)
        for y, x in inside[rng.integers(0, len(inside), 10)]:
            mask[y : y + 3, x : x + 3] = False
        for y, x in rng.integers(0, plane - 6, (40, 2)):
            mask[y : y + 4, x : x + 4] = True
    return out


def indexed_truth(folder: Path, samples: Sequence[str]) -> ek.MaskSet:
    """Read indexed PNGs: nerve is 1, vessel is 2, any is both."""
    from PIL import Image

    found = {}
    for s in samples:
        index = np.asarray(Image.open(folder / s))
        for name, mask in {"nerve": index == 1, "vessel": index == 2, "any": index > 0}.items():
            found[s, name] = ek.encode(mask)
    return ek.MaskSet(found)
