"""Polygons to planes: at the original size to validate, at the training size to train."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hand_bones.classes import CLASSES
from hand_bones.layout import Annotation


def draw(annotation: Annotation, size: tuple[int, int], original_size: tuple[int, int]) -> NDArray[np.uint8]:
    """Fill the polygons of every class.

    Parameters
    ----------
    size : (H, W) to draw at. Points are scaled as pixel centres are when an image is resized.
    original_size : (H, W) of the image that the points were clicked on.

    Returns
    -------
    uint8 (29, H, W), 0 or 1. Polygons of one class are united. At the original size it is what `ensk score` and
    `ensk tune-thresholds` read from the same JSON, pixel for pixel.
    """
    import cv2

    planes = np.zeros((len(CLASSES), *size), np.uint8)
    scale = np.array([size[1] / original_size[1], size[0] / original_size[0]])
    for label, points in annotation.polygons:
        corners = np.floor((points + 0.5) * scale).astype(np.int32)  # (p + ½)·s − ½, rounded half up
        cv2.fillPoly(planes[CLASSES.index(label)], [corners], 1)
    return planes
