"""What validation measures against: polygons at the size of the original image, and the same in the kit's masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ensemble_kit import MaskSet, MismatchError, encode
from hand_bones.classes import CLASSES
from hand_bones.images import read_size
from hand_bones.layout import Record, annotated
from hand_bones.polygons import draw


def original_size(record: Record) -> tuple[int, int]:
    """Read (H, W) off the image's header.

    Raises
    ------
    DamagedError
        It is no image.
    MismatchError
        The polygons were drawn on an image of another size.
    """
    size = read_size(record.image)
    said = record.annotation.size if record.annotation is not None else None
    if said not in {None, size}:
        raise MismatchError(
            "image-size-differs",
            "cannot use polygons of another image size",
            item=f"{record.image} is {size[0]} x {size[1]}, its polygons are for {said}",
            fix="take the image that was annotated, or put it into the removal list",
        )
    return size


def truth(record: Record) -> NDArray[np.uint8]:
    """Draw the planes (29, H, W), 0 or 1, at the original size."""
    ((_, annotation),) = annotated([record])
    size = original_size(record)
    return draw(annotation, size, size)


def truth_masks(records: Sequence[Record]) -> MaskSet:
    """Give the truth as the kit's masks, for `tune_thresholds`, `dice` and, written to a file, `ensk score --val`."""
    return MaskSet(
        {
            (record.image_id, name): encode(plane)
            for record in records
            for name, plane in zip(CLASSES, truth(record), strict=True)
        }
    )
