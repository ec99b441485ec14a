"""Image files: their size, and their pixels."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ensemble_kit import DamagedError


def read_size(path: Path) -> tuple[int, int]:
    """Read (H, W) off an image's header.

    Raises
    ------
    DamagedError
        It is no image.
    """
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except OSError as error:
        raise _unreadable(path, str(error)) from None


def read_grey(path: Path) -> NDArray[np.uint8]:
    """Read an image as grey uint8 (H, W).

    Raises
    ------
    DamagedError
        It cannot be decoded.
    """
    grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if grey is None:
        raise _unreadable(path, "it cannot be decoded")
    return grey


def _unreadable(path: Path, why: str) -> DamagedError:
    return DamagedError(
        "image-unreadable",
        "cannot read an image",
        item=f"{path}: {why}",
        fix="restore it, or put it into the removal list",
    )
