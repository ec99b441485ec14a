"""Where an image lies on a grid: shapes, boxes of cells and placements, of two axes or three."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import sub
from typing import Literal

import numpy as np

from ensemble_kit.errors import UsageError

Shape = tuple[int, ...]
"""Sizes of a grid or an image, axis by axis: (h, w), or (d, h, w) of a volume."""

AXES = (("z", "depth"), ("y", "height"), ("x", "width"))
"""The last axis comes last: of two axes they are y and x."""

AxisKind = Literal["linear", "nearest"]
"""What stands between two cells of an axis: a mixture of both, or the one that is nearer."""

AXIS_KINDS: tuple[AxisKind, ...] = ("linear", "nearest")

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

    @classmethod
    def whole(cls, shape: Sequence[int]) -> Box:
        """Return the box of all cells of a grid, or of all pixels of an image."""
        return cls(*(0 for _ in shape), *map(int, shape))

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

    Letterboxing, padding, cropping and plain resizing are all undone by interpolating `box` to the `window` of the
    image (docs/concepts.md#rule-5-placement). Equal placements are equal values, however they were written.

    Parameters
    ----------
    grid : (h, w) or (d, h, w), the raster that the network put out.
    box : the cells of the grid that cover the window.
    image : (H, W) or (D, H, W), the size of the image in pixels.
    window : the pixels of the image that the network saw; None is the whole image.
    axes : whether each axis is interpolated or takes the nearest cell; () is linear on every axis.
    """

    grid: Shape
    box: Box
    image: Shape
    window: Box | None = None
    axes: tuple[AxisKind, ...] = ()

    def __post_init__(self) -> None:
        rank = len(self.grid)
        if not _is_inside(self.box, self.grid):
            raise UsageError(
                "box-outside-grid",
                "cannot place an image on its grid",
                item=f"box {tuple(self.box)} on a grid of {as_text(self.grid)} cells",
                fix=f"pass box=({_edge_names(rank)}), cells of the grid",
            )
        check_image_size(self.image, rank)
        if self.window is not None and not _is_inside(self.window, self.image):
            raise UsageError(
                "window-outside-image",
                "cannot place a grid on its image",
                item=f"window {tuple(self.window)} of an image of {as_text(self.image)} pixels",
                fix=f"pass window=({_edge_names(rank)}), the pixels of the image that the network saw",
            )
        if self.axes and (len(self.axes) != rank or any(kind not in AXIS_KINDS for kind in self.axes)):
            raise UsageError(
                "axis-kinds",
                "cannot interpolate the axes of a grid",
                item=f"axes={self.axes!r} of a grid of {as_text(self.grid)} cells",
                fix=f"pass {rank} of 'linear' and 'nearest', one for each axis",
            )
        if self.window == Box.whole(self.image):
            object.__setattr__(self, "window", None)
        if all(kind == "linear" for kind in self.axes):
            object.__setattr__(self, "axes", ())

    @classmethod
    def of(
        cls,
        grid: Sequence[int],
        image_size: Sequence[int],
        box: Sequence[int] | None = None,
        window: Sequence[int] | None = None,
        axes: Sequence[AxisKind] | None = None,
    ) -> Placement:
        """Build a placement; without `box` the whole grid covers the window, without `window` that is the image."""
        return cls(
            tuple(int(v) for v in grid),
            Box(*map(int, box)) if box is not None else Box.whole(grid),
            tuple(int(v) for v in image_size),
            Box(*map(int, window)) if window is not None else None,
            tuple(axes or ()),
        )

    @property
    def covered(self) -> Box:
        """The pixels of the image that the box covers: its window."""
        return Box.whole(self.image) if self.window is None else self.window

    @property
    def kinds(self) -> tuple[AxisKind, ...]:
        """What stands between two cells of each axis."""
        return self.axes or tuple(AXIS_KINDS[0] for _ in self.grid)

    @property
    def solid(self) -> Placement:
        """The same placement on three axes: an image is a volume of one slice."""
        if len(self.grid) == 3:
            return self
        (box, window) = (Box(0, *edges.start, 1, *edges.stop) for edges in (self.box, self.covered))
        return Placement((1, *self.grid), box, (1, *self.image), window, (AXIS_KINDS[0], *self.kinds))

    @property
    def offset(self) -> int:
        """Where the box's first cell stands in the flattened grid."""
        out = 0
        for first, size in zip(self.box.start, self.grid, strict=True):
            out = out * size + first
        return out


def _is_inside(box: Box, shape: Shape) -> bool:
    edges = zip(box.start, box.stop, shape, strict=False)
    return len(box) == 2 * len(shape) and all(0 <= a < b <= n for a, b, n in edges)


def _edge_names(rank: int) -> str:
    return ", ".join(f"{name}{k}" for k in (0, 1) for name, _ in AXES[-rank:])


def as_text(shape: Sequence[int]) -> str:
    """Write a shape as messages have it: `24 x 20`."""
    return " x ".join(map(str, shape))


def check_image_size(size: Sequence[int], rank: int | None = 2) -> Shape:
    """Check an image's size: whole pixels on each of `rank` axes (None: two or three), at least 1.

    Raises
    ------
    UsageError
        Another number of axes, sizes below 1 or not whole, or more than 2^60 pixels.
    """
    try:
        whole = tuple([v if type(v) is int else _whole(v) for v in size])
    except (TypeError, ValueError):
        whole = ()
    ranks = (2, 3) if rank is None else (rank,)
    sound = len(whole) in ranks and min(whole) > 0
    if not sound or math.prod(whole) > MAX_PIXELS:
        words = " or ".join(f"({', '.join(word for _, word in AXES[-n:])})" for n in ranks)
        item = f"{whole!r} are more than {MAX_PIXELS} pixels" if sound else f"{size!r}"
        raise UsageError(
            "image-size", "cannot use an image size", item=item, fix=f"pass {words} in pixels, each at least 1"
        )
    return whole


def _whole(value: object) -> int:
    if not isinstance(value, (int, float, np.integer, np.floating)) or isinstance(value, bool) or value % 1:
        raise TypeError(value)
    return int(value)
