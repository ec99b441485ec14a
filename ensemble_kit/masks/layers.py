"""Layers of colour that lie on an image: classes, errors, and where members disagree.

The colours are those of Okabe and Ito ("Color universal design", 2008), which the colour-blind tell apart too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Plane = NDArray[np.bool_]

Colour = tuple[int, int, int]

CLASSES: tuple[Colour, ...] = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (213, 94, 0), (204, 121, 167), (0, 114, 178),
)  # fmt: skip
"""Orange, sky blue, bluish green, yellow, vermilion, reddish purple, blue."""

FOUND, INVENTED, MISSED, MISTAKEN = (0, 158, 115), (213, 94, 0), (86, 180, 233), (240, 228, 66)
"""True positives, false positives, false negatives, and pixels of one class that were taken for another."""

_MOST_CLASSES = 127  # of a layer with two colours a class, in a palette of 256
_STEPS = 6  # shades of disagreement


@dataclass(frozen=True)
class Layer:
    """A picture of few colours, to lie on an image.

    Parameters
    ----------
    index : uint8 (h, w), the number of each pixel's colour; 0 is transparent.
    colours : uint8 (n, 4), red, green, blue and opacity of each.
    """

    index: NDArray[np.uint8]
    colours: NDArray[np.uint8]

    def on(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Lay it on an RGB image of its size: uint8 (h, w, 3)."""
        colours = self.colours.astype(np.uint16)
        opacity = colours[:, 3:][self.index]
        mixed = image * (255 - opacity) + (colours[:, :3] * colours[:, 3:])[self.index]
        return ((mixed + 127) // 255).astype(np.uint8)


def class_colours(count: int) -> list[Colour]:
    """Return a colour for each of `count` classes; beyond seven they come back lighter, and then darker.

    Examples
    --------
    >>> class_colours(9)[7:]
    [(241, 202, 114), (162, 213, 242)]
    """
    lighter = [(r + (255 - r) * 45 // 100, g + (255 - g) * 45 // 100, b + (255 - b) * 45 // 100) for r, g, b in CLASSES]
    darker = [(r * 60 // 100, g * 60 // 100, b * 60 // 100) for r, g, b in CLASSES]
    made = [*CLASSES, *lighter, *darker]
    return [made[k % len(made)] for k in range(count)]


def class_layer(planes: Iterable[Plane], opacity: float = 0.35, pen: int = 1) -> Layer:
    """Colour each class, and its outline in full.

    Parameters
    ----------
    planes : bool (h, w), one a class; where they overlap the smaller one is seen.
    pen : width of the outline, in pixels.
    """
    known = list(planes)
    if not known:
        return Layer(np.zeros((1, 1), np.uint8), np.zeros((1, 4), np.uint8))
    fill, edges = np.zeros((2, *known[0].shape), np.uint8)
    for k in np.argsort([-np.count_nonzero(plane) for plane in known], kind="stable").tolist():
        own, rows = 1 + 2 * (k % _MOST_CLASSES), _rows(known[k])
        fill[rows][known[k][rows]] = own
        edges[rows][outline(known[k][rows], pen)] = own + 1
    table = [(0, 0, 0, 0)]
    for colour in class_colours(min(len(known), _MOST_CLASSES)):
        table += [(*colour, round(255 * opacity)), (*colour, 255)]
    return Layer(np.where(edges > 0, edges, fill), np.array(table, np.uint8))


def error_layer(pairs: Iterable[tuple[Plane, Plane]]) -> Layer:
    """Colour what is found, invented and missed in any class; a pixel that is both of the last was mistaken.

    Parameters
    ----------
    pairs : prediction and truth of each class, bool (h, w).
    """
    found, invented, missed = np.zeros((3, 1, 1), np.bool_)
    for predicted, true in pairs:
        if found.shape != true.shape:
            found, invented, missed = np.zeros((3, *true.shape), np.bool_)
        rows = _rows(predicted, true)
        ours, theirs = predicted[rows], true[rows]
        found[rows] |= ours & theirs
        invented[rows] |= ours & ~theirs
        missed[rows] |= theirs & ~ours
    index = found.astype(np.uint8)
    index[invented] = 2
    index[missed] = 3
    index[invented & missed] = 4
    table = [(0, 0, 0, 0), (*FOUND, 90), (*INVENTED, 200), (*MISSED, 200), (*MISTAKEN, 200)]
    return Layer(index, np.array(table, np.uint8))


def disagreement_layer(votes: Iterable[Sequence[Plane]]) -> Layer:
    """Shade where members disagree: the brighter, the nearer to half of them say yes, of the most disputed class.

    Parameters
    ----------
    votes : of each class the masks of two members or more, bool (h, w).
    """
    worst = np.zeros((1, 1))
    for planes in votes:
        worst = worst if worst.shape == planes[0].shape else np.zeros(planes[0].shape)
        rows = _rows(*planes)
        ayes = np.sum([plane[rows] for plane in planes], axis=0, dtype=np.uint16)
        worst[rows] = np.maximum(worst[rows], np.minimum(ayes, len(planes) - ayes) / (len(planes) // 2))
    return Layer(np.ceil(worst * _STEPS).astype(np.uint8), disagreement_colours())


def disagreement_colours() -> NDArray[np.uint8]:
    """Return the shades of disagreement, uint8 (7, 4): none, then from a few members to half of them."""
    shares = np.linspace(0, 1, _STEPS + 1)[:, None]
    low, high = np.array([120, 40, 110, 150]), np.array([255, 235, 120, 245])
    table = np.where(shares > 0, low + shares * (high - low), 0)
    return np.asarray(table.round(), np.uint8)


def _rows(*planes: Plane) -> slice:
    """Return the rows that hold a pixel of one of the masks, and one more on either side: where work is needed."""
    some = np.flatnonzero(np.any([plane.any(axis=1) for plane in planes], axis=0))
    return slice(max(0, int(some[0]) - 1), int(some[-1]) + 2) if some.size else slice(0, 0)


def outline(plane: Plane, pen: int = 1) -> Plane:
    """Return the pixels of a mask within `pen` of its outside, over four neighbours; the image's edge is no outside."""
    inner = plane.copy()
    for _ in range(pen):
        before = inner.copy()
        inner[1:] &= before[:-1]
        inner[:-1] &= before[1:]
        inner[:, 1:] &= before[:, :-1]
        inner[:, :-1] &= before[:, 1:]
    return plane & ~inner
