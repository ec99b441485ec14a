"""`Geometry`: where the voxels of a volume lie in the world, as its file says it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ensemble_kit.errors import DamagedError
from ensemble_kit.spec.geometry import Shape

World = Literal["RAS", "LPS"]
"""Where the world's axes point: right, anterior, superior (NIfTI), or left, posterior, superior (DICOM, NRRD, ITK)."""

WORLDS: tuple[World, ...] = ("RAS", "LPS")

NEAR = 0.01
"""Share of the smallest spacing by which equal volumes may lie apart: files keep affines as float32, or as text."""


@dataclass(frozen=True)
class Geometry:
    """The affine of a volume.

    Parameters
    ----------
    affine : 4 rows of 4 numbers, from indices of the file's axes x, y, z (an array's last axis is x) to millimetres.
    world : where the affine's axes point.

    Examples
    --------
    >>> geometry = Geometry.of(np.diag([0.8, 0.8, 5, 1]))
    >>> geometry.spacing, geometry.voxel_volume, geometry.orientation
    ((5.0, 0.8, 0.8), 3.2, 'RAS')
    >>> geometry.voxels(100)
    32
    """

    affine: tuple[tuple[float, ...], ...]
    world: World = "RAS"

    def __post_init__(self) -> None:
        matrix = np.array(self.affine, np.float64) if _is_square(self.affine) else np.full((4, 4), np.nan)
        if not np.isfinite(matrix).all() or not abs(np.linalg.det(matrix[:3, :3])) > 0 or self.world not in WORLDS:
            raise DamagedError(
                "affine-invalid",
                "cannot tell where a volume lies in the world",
                item=f"affine {' '.join(repr(self.affine).split())}, world {self.world!r}",
                fix="pass 4 tuples of 4 finite numbers, which give each axis a direction of its own, and 'RAS' or "
                "'LPS'; Geometry.of(affine, world) takes an array",
            )

    @classmethod
    def of(cls, affine: ArrayLike, world: World = "RAS") -> Geometry:
        """Build a geometry of any array of 4 x 4 numbers."""
        rows = np.asarray(affine).tolist()
        return cls(tuple(tuple(row) for row in rows) if _is_square(rows) else (), world)

    @property
    def matrix(self) -> NDArray[np.float64]:
        """The affine as an array, float64 (4, 4)."""
        return np.array(self.affine, np.float64)

    @property
    def ras(self) -> NDArray[np.float64]:
        """The affine into the world RAS, float64 (4, 4): that of the two worlds differs by the sign of x and y."""
        flip = np.diag([-1.0, -1, 1, 1]) if self.world == "LPS" else np.eye(4)
        return flip @ self.matrix

    @property
    def spacing(self) -> tuple[float, ...]:
        """Distance of neighbouring voxels in millimetres, along the array's axes z, y, x."""
        lengths = np.linalg.norm(self.matrix[:3, :3], axis=0).tolist()
        return tuple(round(v, 6) for v in reversed(lengths))

    @property
    def voxel_volume(self) -> float:
        """Volume of a voxel in mm³."""
        return abs(float(np.linalg.det(self.matrix[:3, :3])))

    def voxels(self, mm3: float) -> int:
        """Return the least number of voxels that have this volume (docs/concepts.md#rule-15-volumes)."""
        return math.ceil(round(mm3 / self.voxel_volume, 9))

    @property
    def orientation(self) -> str:
        """Where the file's axes x, y, z point, as three letters: `LAS` is left, anterior, superior."""
        left, out = self.ras[:3, :3] / np.linalg.norm(self.ras[:3, :3], axis=0), [""] * 3
        for _ in range(3):  # the clearest axis first, so that no letter is given twice
            row, column = np.unravel_index(int(np.abs(left).argmax()), (3, 3))
            out[column] = ("RL", "AP", "SI")[row][int(left[row, column] < 0)]
            left[row, :], left[:, column] = 0, 0
        return "".join(out)

    def is_near(self, other: object, shape: Shape) -> bool:
        """Tell whether the corners of a volume (D, H, W) lie at the same points of the world in both."""
        if not isinstance(other, Geometry):
            return False
        apart = np.abs(self.corners(shape) - other.corners(shape)).max()
        return bool(apart <= NEAR * min(*self.spacing, *other.spacing))

    def has_voxels_of(self, other: Geometry, shape: Shape, other_shape: Shape) -> bool:
        """Tell whether two volumes have the same voxels, with axes in another order or direction at most."""
        ours, theirs = self.corners(shape), other.corners(other_shape)
        apart = np.abs(ours[:, None] - theirs[None]).max(axis=2) <= NEAR * min(*self.spacing, *other.spacing)
        return sorted(shape) == sorted(other_shape) and bool(apart.any(axis=0).all() and apart.any(axis=1).all())

    def corners(self, shape: Shape) -> NDArray[np.float64]:
        """Return where the centres of the eight outermost voxels of a volume (D, H, W) lie, in RAS, float64 (8, 3)."""
        ends = [(0, n - 1) for n in reversed(shape)]
        indices = np.array([(x, y, z, 1) for x in ends[0] for y in ends[1] for z in ends[2]], np.float64)
        return (indices @ self.ras.T)[:, :3]

    def apart(self, other: object) -> str:
        """Say in a word what differs most between two geometries: their `axes`, their `spacing` or their `origin`."""
        if not isinstance(other, Geometry) or self.orientation != other.orientation:
            return "axes"
        return "origin" if np.allclose(self.spacing, other.spacing, rtol=NEAR) else "spacing"

    def as_text(self) -> str:
        """Write the geometry as messages have it."""
        origin = ", ".join(f"{v:g}" for v in self.matrix[:3, 3].round(4))
        spacing = " x ".join(f"{v:g}" for v in self.spacing)
        return f"{spacing} mm, axes x, y, z to {self.orientation}, first voxel at ({origin}) {self.world}"


def _is_square(rows: object) -> bool:
    if not isinstance(rows, Sequence) or len(rows) != 4:
        return False
    sized = all(isinstance(row, Sequence) and len(row) == 4 for row in rows)
    return sized and all(isinstance(v, (int, float)) for row in rows for v in row)
