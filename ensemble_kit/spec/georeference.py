"""`GeoReference`: where the pixels of a scene lie on the Earth, as its file says it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ensemble_kit.errors import DamagedError
from ensemble_kit.spec.affine import NEAR, Geometry
from ensemble_kit.spec.geometry import Shape


@dataclass(frozen=True)
class GeoReference:
    """The coordinate reference system and the transform of an image of two axes.

    Parameters
    ----------
    crs : the reference system as WKT; "" where the file names none.
    transform : a, b, c, d, e, f: the upper left corner of the pixel at (row, column) lies at x = a·column + b·row + c,
        y = d·column + e·row + f, in units of the reference system.

    Examples
    --------
    >>> reference = GeoReference("", (10, 0, 500000, 0, -10, 4600000))
    >>> reference.corner(2, 3), reference.pixel
    ((500030.0, 4599980.0), (10.0, 10.0))
    >>> reference.as_text()
    'pixels of 10 x 10, first corner at (500000, 4600000), no reference system'
    """

    crs: str
    transform: tuple[float, ...]

    def __post_init__(self) -> None:
        sound = len(self.transform) == 6 and all(math.isfinite(v) for v in self.transform)
        if not sound or not abs(self._determinant) > 0:
            raise DamagedError(
                "affine-invalid",
                "cannot georeference a scene",
                item=f"transform {self.transform!r}",
                fix="pass 6 finite numbers, which give rows and columns directions of their own",
            )
        object.__setattr__(self, "transform", tuple(float(v) for v in self.transform))

    @property
    def _determinant(self) -> float:
        a, b, _, d, e, _ = self.transform
        return a * e - b * d

    @property
    def is_rotated(self) -> bool:
        """Whether rows and columns are not parallel to the axes of the reference system."""
        return self.transform[1] != 0 or self.transform[3] != 0

    @property
    def pixel(self) -> tuple[float, float]:
        """Height and width of a pixel, in units of the reference system."""
        a, b, _, d, e, _ = self.transform
        return math.hypot(b, e), math.hypot(a, d)

    def corner(self, row: float, column: float) -> tuple[float, float]:
        """Return x and y of the upper left corner of a pixel."""
        a, b, c, d, e, f = self.transform
        return a * column + b * row + c, d * column + e * row + f

    def cell(self, x: float, y: float) -> tuple[float, float]:
        """Return row and column of a point, of which `corner` is the inverse."""
        a, b, c, d, e, f = self.transform
        x, y = x - c, y - f
        return (a * y - d * x) / self._determinant, (e * x - b * y) / self._determinant

    def is_near(self, other: object, shape: Shape) -> bool:
        """Tell whether the corners of a scene (H, W) lie at the same points in both, to 1 % of a pixel."""
        if not isinstance(other, GeoReference) or not same_crs(self.crs, other.crs):
            return False
        corners = [(row, column) for row in (0, shape[0]) for column in (0, shape[1])]
        apart = max(math.dist(self.corner(*at), other.corner(*at)) for at in corners)
        return apart <= NEAR * min(*self.pixel, *other.pixel)

    def apart(self, other: object) -> str:
        """Say in words what differs most: the `reference system`, the `pixels` (size, direction) or the `origin`."""
        if not isinstance(other, GeoReference) or not same_crs(self.crs, other.crs):
            return "reference system"
        directions = [(one.transform[k] for k in (0, 1, 3, 4)) for one in (self, other)]
        same = all(math.isclose(a, b, rel_tol=NEAR, abs_tol=1e-12) for a, b in zip(*directions, strict=True))
        return "origin" if same else "pixels"

    def as_text(self) -> str:
        """Write the reference as messages have it."""
        named = re.match(r'\w+\["([^"]+)"', self.crs)
        code = re.search(r'(?:AUTHORITY|ID)\["EPSG",\s*"?(\d+)"?\]\]\s*$', self.crs)
        crs = f"EPSG:{code[1]}" if code else named[1] if named else self.crs[:40] or "no reference system"
        height, width = self.pixel
        turned = ", rotated" if self.is_rotated else ""
        x, y = self.corner(0, 0)
        return f"pixels of {height:g} x {width:g}{turned}, first corner at ({x:.10g}, {y:.10g}), {crs}"


WorldGeometry = Geometry | GeoReference
"""Where a volume lies in the world, or a scene on the Earth."""


def fields_of(geometry: WorldGeometry) -> dict[str, Any]:
    """Write where a sample lies as values of JSON, by name; the inverse of `geometry_of`."""
    if isinstance(geometry, GeoReference):
        return {"crs": geometry.crs, "transform": _numbers(geometry.transform)}
    return {"affine": [_numbers(row) for row in geometry.affine], "world": geometry.world}


def geometry_of(fields: Mapping[str, Any]) -> WorldGeometry | None:
    """Read what `fields_of` wrote, perhaps beside other values; None where nothing says where a sample lies.

    Raises
    ------
    DamagedError, TypeError, KeyError
        They are no geometry.
    """
    if fields.get("affine") is not None:
        return Geometry(tuple(map(tuple, fields["affine"])), fields["world"])
    if "crs" in fields:
        return GeoReference(fields["crs"], tuple(fields["transform"]))
    return None


def _numbers(row: Sequence[float]) -> list[float]:
    """Return numbers as JSON has them: equal ones are one text, -0.0 too."""
    return [float(v) + 0.0 for v in row]


def same_crs(a: str, b: str) -> bool:
    """Tell whether two texts of WKT name the same reference system."""
    if a == b or not a or not b:
        return a == b
    from rasterio.crs import CRS

    return bool(CRS.from_wkt(a) == CRS.from_wkt(b))
