"""Where an image lies on a grid: shapes, boxes of cells and placements, of two axes or three."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import sub

import numpy as np

from ensemble_kit.errors import UsageError

Shape = tuple[int, ...]
"""Sizes of a grid or an image, axis by axis: (h, w), or (d, h, w) of a volume."""

AXES = (("z", "depth"), ("y", "height"), ("x", "width"))
"""The last axis comes last: of two axes they are y and x."""

MAX_PIXELS = 2**60
"""Most pixels of an image: a position, and the sum of two, fit 64 bits."""


class Box(tuple[int, ...]):
    """A half-open box of whole cells: where it starts on every axis, then where it stops.

    Examples
    --------
    >>> box = Box(2, 0, 24, 20)  # rows 2 to 23, columns 0 to 19
    >>> box.start, box.stop, box.shape
    ((2, 0), (24, 20), (22, 20))
    """

    __slots__ = ()

    def __new__(cls, *edges: int) -> Box:
        """Take the edges in the order of files: y0, x0, y1, x1, or z0, y0, x0, z1, y1, x1."""
        return super().__new__(cls, edges)

    def __getnewargs__(self) -> tuple[int, ...]:
        return tuple(self)

    @property
    def start(self) -> Shape:
        """The first cell on every axis."""
        return self[: len(self) // 2]

    @property
    def stop(self) -> Shape:
        """The cell behind the last one on every axis."""
        return self[len(self) // 2 :]

    @property
    def shape(self) -> Shape:
        """Cells on every axis."""
        return tuple(map(sub, self.stop, self))

    @property
    def slices(self) -> tuple[slice, ...]:
        """What cuts the box out of an array: `array[..., *box.slices]`."""
        return tuple(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))


@dataclass(frozen=True)
class Placement:
    """Where a sample's image lies on its grid, and how large the image is.

    Letterboxing, padding and plain resizing are all undone by interpolating `box` to `image`
    (docs/concepts.md#rule-5-placement).

    Parameters
    ----------
    grid : (h, w) or (d, h, w), the raster that the network put out.
    box : the cells of the grid that cover the image.
    image : (H, W) or (D, H, W), the size of the image in pixels.
    """

    grid: Shape
    box: Box
    image: Shape

    def __post_init__(self) -> None:
        rank, edges = len(self.grid), zip(self.box.start, self.box.stop, self.grid, strict=False)
        if len(self.box) != 2 * rank or not all(0 <= a < b <= n for a, b, n in edges):
            names = [name for name, _ in AXES[-rank:]]
            raise UsageError(
                "box-outside-grid",
                "cannot place an image on its grid",
                item=f"box {tuple(self.box)} on a grid of {as_text(self.grid)} cells",
                fix=f"pass box=({', '.join(f'{n}{k}' for k in (0, 1) for n in names)}), cells of the grid",
            )
        check_image_size(self.image, rank)

    @classmethod
    def of(cls, grid: Sequence[int], image_size: Sequence[int], box: Sequence[int] | None = None) -> Placement:
        """Build a placement; without `box` the whole grid covers the image."""
        edges = box if box is not None else (*(0 for _ in grid), *grid)
        return cls(tuple(int(v) for v in grid), Box(*map(int, edges)), tuple(int(v) for v in image_size))

    @property
    def offset(self) -> int:
        """Where the box's first cell stands in the flattened grid."""
        out = 0
        for first, size in zip(self.box.start, self.grid, strict=True):
            out = out * size + first
        return out


def as_text(shape: Sequence[int]) -> str:
    """Write a shape as messages have it: `24 x 20`."""
    return " x ".join(map(str, shape))


def check_image_size(size: Sequence[int], rank: int = 2) -> Shape:
    """Check an image's size: whole pixels on each of `rank` axes, at least 1.

    Raises
    ------
    UsageError
        Another number of axes, sizes below 1 or not whole, or more than 2^60 pixels.
    """
    try:
        whole = tuple([v if type(v) is int else _whole(v) for v in size])
    except (TypeError, ValueError):
        whole = ()
    sound = len(whole) == rank and min(whole) > 0
    if not sound or math.prod(whole) > MAX_PIXELS:
        words = ", ".join(word for _, word in AXES[-rank:])
        item = f"{whole!r} are more than {MAX_PIXELS} pixels" if sound else f"{size!r}"
        raise UsageError(
            "image-size", "cannot use an image size", item=item, fix=f"pass ({words}) in pixels, each at least 1"
        )
    return whole


def _whole(value: object) -> int:
    if not isinstance(value, (int, float, np.integer, np.floating)) or isinstance(value, bool) or value % 1:
        raise TypeError(value)
    return int(value)
