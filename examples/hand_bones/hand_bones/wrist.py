"""How far a wrist is bent, from the polygons alone: the real data does not say it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from hand_bones.layout import Annotation

BENT = 15.0
"""Degrees from which a wrist counts as bent."""


def angle(annotation: Annotation) -> float | None:
    """Measure the deviation between forearm and hand, in degrees; towards the little finger is positive.

    The hand's axis is the third metacarpal's, the forearm's the mean of radius and ulna, each the longer principal
    axis of the polygon's area. None where one of the bones is missing.
    """
    needed = ("finger-11", "finger-3", "Radius", "Ulna", "Capitate")
    parts = {label: annotation.of(label) for label in needed}
    if not all(parts.values()):
        return None
    shape = {label: _moments(max(polygons, key=lambda p: _moments(p)[0])) for label, polygons in parts.items()}
    middle = shape["Capitate"][1]
    hand = _along(shape["finger-11"][2], shape["finger-11"][1] - middle)
    radius, ulna = (_along(shape[bone][2], middle - shape[bone][1]) for bone in ("Radius", "Ulna"))
    arm = radius + ulna
    thumb = shape["finger-3"][1] - middle
    turn = math.degrees(math.atan2(float(_cross(arm, hand)), float(arm @ hand)))
    return turn if _cross(hand, thumb) < 0 else -turn


def is_bent(annotation: Annotation) -> bool | None:
    """Tell whether a wrist is bent; None where a bone that tells it is missing."""
    degrees = angle(annotation)
    return None if degrees is None else abs(degrees) >= BENT


def _moments(points: NDArray[np.float64]) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Area, centroid and longer principal axis of a polygon, by Green's theorem."""
    import cv2

    m = cv2.moments(points.astype(np.float32))
    if m["m00"] == 0:
        return 0.0, points.mean(axis=0), np.array([0.0, 1.0])
    turn = 0.5 * math.atan2(2 * m["mu11"], m["mu20"] - m["mu02"])
    centre = np.array([m["m10"], m["m01"]]) / m["m00"]
    return abs(m["m00"]), centre, np.array([math.cos(turn), math.sin(turn)])


def _along(axis: NDArray[np.float64], direction: NDArray[np.float64]) -> NDArray[np.float64]:
    return axis if axis @ direction >= 0 else -axis


def _cross(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(a[0] * b[1] - a[1] * b[0])
