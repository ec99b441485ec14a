"""The frozen values that everything else passes around: grid box, placement, label space, metric convention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ensemble_kit.errors import UsageError

Shape = tuple[int, ...]
"""Sizes of a grid or an image, axis by axis: (h, w), or (d, h, w) of a volume."""

MAX_PIXELS = 2**60
"""Most pixels of a plane: a position, and the sum of two, fit 64 bits."""


class Box(NamedTuple):
    """A half-open box of whole grid cells: rows `y0:y1`, columns `x0:x1`."""

    y0: int
    x0: int
    y1: int
    x1: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the box."""
        return self.y1 - self.y0, self.x1 - self.x0


@dataclass(frozen=True)
class Placement:
    """Where a sample's image lies on its grid, and how large the image is.

    Letterboxing, padding and plain resizing are all undone by interpolating `box` to `plane` (design §3.5).

    Parameters
    ----------
    grid : (h, w), the raster that the network put out.
    box : the cells of the grid that cover the image.
    plane : (H, W), the size of the image in pixels.
    """

    grid: tuple[int, int]
    box: Box
    plane: tuple[int, int]

    def __post_init__(self) -> None:
        (h, w), b = self.grid, self.box
        if not (0 <= b.y0 < b.y1 <= h and 0 <= b.x0 < b.x1 <= w):
            raise UsageError(
                "box-outside-grid",
                "cannot place an image on its grid",
                item=f"box {tuple(b)} on a grid of {h} x {w} cells",
                fix="pass box=(y0, x0, y1, x1) with 0 <= y0 < y1 <= h and 0 <= x0 < x1 <= w",
            )
        check_image_size(self.plane)

    @classmethod
    def of(cls, grid: Sequence[int], image_size: Sequence[int], box: Sequence[int] | None = None) -> Placement:
        """Build a placement; without `box` the whole grid covers the image."""
        h, w = (int(v) for v in grid)
        y0, x0, y1, x1 = (int(v) for v in box) if box is not None else (0, 0, h, w)
        H, W = (int(v) for v in image_size)
        return cls((h, w), Box(y0, x0, y1, x1), (H, W))


def as_text(shape: Sequence[int]) -> str:
    """Write a shape as messages have it: `24 x 20`."""
    return " x ".join(map(str, shape))


def check_image_size(size: Sequence[int]) -> tuple[int, int]:
    """Check an image size: (H, W) in pixels, both at least 1."""
    try:
        height, width = size
    except (TypeError, ValueError):
        height = width = 0
    if not (_is_whole(height) and _is_whole(width) and height > 0 and width > 0):
        raise UsageError(
            "image-size",
            "cannot use an image size",
            item=f"{size!r}",
            fix="pass (height, width) in pixels, both at least 1",
        )
    if int(height) * int(width) > MAX_PIXELS:
        raise UsageError(
            "image-size",
            "cannot use an image size",
            item=f"{tuple(size)!r} are more than {MAX_PIXELS} pixels",
            fix="pass (height, width) in pixels",
        )
    return int(height), int(width)


def _is_whole(value: object) -> bool:
    return type(value) is int or (
        isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool) and value % 1 == 0
    )
